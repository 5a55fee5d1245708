"""Which cgroup file holds which wish, with which value: pure, shared by the assessment and the managers.

Follows the kernel's ``admin-guide/cgroup-v1`` and ``cgroup-v2`` documents; conversions from v1 to v2 numbers are
those of opencontainers/cgroups, which Docker and Podman use too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from container_magic.deferred import dataclass
from container_magic.spec import DeviceRate, Resources

PERIOD_US = 100_000
"""Period of the CPU bandwidth limit, in microseconds: Docker's."""
SOCKET_SHARE = 4
"""v1: network buffers may take this part of the memory limit, beside it."""

MIN_QUOTA_US = 1_000
"""The smallest quota that the kernel takes, in microseconds."""

Exists = Callable[[str], bool]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One write to a cgroup file: ``text`` to ``file`` of ``controller``, for the field ``field`` of ``Resources``.

    ``value`` is what was asked, in the option's unit; None where another setting of the same field carries it.
    """

    field: str
    controller: str
    file: str
    text: str
    value: float | str | None

    @property
    def is_the_codes(self) -> bool:
        """Whether it holds from ``begin`` on: nobody wants the making of a container to take its share of CPU time."""
        return self.field == "cpus"


def v1_settings(resources: Resources, exists: Exists) -> tuple[Setting, ...]:
    """Return the writes for cgroup v1 in the order in which the kernel takes them.

    ``exists`` says whether a new group has a file; it chooses between names that differ from kernel to kernel and
    leaves out what would have no meaning (a swap limit without swap accounting).
    """
    return (*_v1_memory(resources, exists), *_v1_cpu(resources), *_shared(resources), *_v1_io(resources, exists))


def v2_settings(resources: Resources, exists: Exists) -> tuple[Setting, ...]:
    """Return the writes for cgroup v2 in the order in which the kernel takes them; ``exists`` as in `v1_settings`."""
    return (*_v2_memory(resources, exists), *_v2_cpu(resources), *_shared(resources), *_v2_io(resources, exists))


def _high(resources: Resources, file: str) -> Iterator[Setting]:
    """Yield the mark below the limit: the kernel takes memory back above it, the supervisor interrupts."""
    high = resources.memory_high_bytes
    if high is not None:
        yield Setting(field="memory_high_bytes", controller="memory", file=file, text=str(high), value=high)


def _v1_memory(resources: Resources, exists: Exists) -> Iterator[Setting]:
    yield from _high(resources, "memory.soft_limit_in_bytes")
    limit = resources.memory_bytes
    if limit is None:
        return
    yield Setting(field="memory_bytes", controller="memory", file="memory.limit_in_bytes", text=str(limit), value=limit)
    # memory+swap must never be below memory, so it is lowered last
    swap_file = "memory.memsw.limit_in_bytes"
    both = limit if resources.memory_swap_bytes is None else resources.memory_swap_bytes
    if exists(swap_file):
        yield Setting(field="memory_swap_bytes", controller="memory", file=swap_file, text=str(both), value=both)
    # v1 counts no network buffers, of no protocol, until this has a limit; it is a counter of its own
    tcp_file = "memory.kmem.tcp.limit_in_bytes"
    if exists(tcp_file):
        share = str(limit // SOCKET_SHARE)
        yield Setting(field="memory_bytes", controller="memory", file=tcp_file, text=share, value=None)


def _v2_memory(resources: Resources, exists: Exists) -> Iterator[Setting]:
    yield from _high(resources, "memory.high")
    limit = resources.memory_bytes
    if limit is None:
        return
    yield Setting(field="memory_bytes", controller="memory", file="memory.max", text=str(limit), value=limit)
    both = limit if resources.memory_swap_bytes is None else resources.memory_swap_bytes
    if exists("memory.swap.max"):
        # v1, OCI and Docker mean memory plus swap; v2 counts swap alone
        text = "max" if both == -1 else str(both - limit)
        yield Setting(field="memory_swap_bytes", controller="memory", file="memory.swap.max", text=text, value=both)


def quota_us(cpus: float) -> int:
    """Return the microseconds of CPU time per period that ``cpus`` CPU seconds per second are."""
    return max(MIN_QUOTA_US, round(cpus * PERIOD_US))


def _v1_cpu(resources: Resources) -> Iterator[Setting]:
    if resources.cpu_shares is not None:
        shares = resources.cpu_shares
        yield Setting(field="cpu_shares", controller="cpu", file="cpu.shares", text=str(shares), value=shares)
    if resources.cpus is not None:
        period = str(PERIOD_US)
        yield Setting(field="cpus", controller="cpu", file="cpu.cfs_period_us", text=period, value=None)
        quota = str(quota_us(resources.cpus))
        yield Setting(field="cpus", controller="cpu", file="cpu.cfs_quota_us", text=quota, value=resources.cpus)


def _v2_cpu(resources: Resources) -> Iterator[Setting]:
    if resources.cpu_shares is not None:
        weight = str(cpu_weight(resources.cpu_shares))
        yield Setting(field="cpu_shares", controller="cpu", file="cpu.weight", text=weight, value=resources.cpu_shares)
    if resources.cpus is not None:
        text = f"{quota_us(resources.cpus)} {PERIOD_US}"
        yield Setting(field="cpus", controller="cpu", file="cpu.max", text=text, value=resources.cpus)


def cpu_weight(shares: int) -> int:
    """Convert v1 CPU shares (2-262144, default 1024) to a v2 weight (1-10000, default 100).

    The quadratic of opencontainers/cgroups since 2025: it maps minimum, default and maximum onto each other, which
    the older linear formula does not (1024 shares became weight 39).
    """
    if shares <= 2:
        return 1
    if shares >= 262_144:
        return 10_000
    log = math.log2(shares)
    return math.ceil(10 ** ((log * log + 125 * log) / 612 - 7 / 34))


def io_weight(blkio_weight: int) -> int:
    """Convert a v1 block I/O weight (10-1000) to a v2 weight (1-10000), linearly as opencontainers/cgroups does."""
    return 1 + (blkio_weight - 10) * 9999 // 990


def _shared(resources: Resources) -> Iterator[Setting]:
    """Yield what both versions hold in the same file."""
    for field, file in (("cpuset_cpus", "cpuset.cpus"), ("cpuset_mems", "cpuset.mems")):
        text: str | None = getattr(resources, field)
        if text is not None:
            yield Setting(field=field, controller="cpuset", file=file, text=text, value=text)
    if resources.pids is not None:
        text = "max" if resources.pids < 0 else str(resources.pids)
        yield Setting(field="pids", controller="pids", file="pids.max", text=text, value=resources.pids)


def _v1_io(resources: Resources, exists: Exists) -> Iterator[Setting]:
    weight = resources.blkio_weight
    if weight is not None:
        # blkio.weight belonged to CFQ, which Linux 5.0 removed; BFQ has its own
        file = "blkio.weight" if exists("blkio.weight") else "blkio.bfq.weight"
        yield Setting(field="blkio_weight", controller="blkio", file=file, text=str(weight), value=weight)
    for field, _, rates in device_rates(resources):
        file = f"blkio.throttle.{field.removeprefix('device_')}_device"
        for rate in rates:
            text = f"{rate.major}:{rate.minor} {rate.rate}"
            yield Setting(field=field, controller="blkio", file=file, text=text, value=f"{rate.path}:{rate.rate}")


def _v2_io(resources: Resources, exists: Exists) -> Iterator[Setting]:
    weight = resources.blkio_weight
    if weight is not None:
        # BFQ reads the one file and the io.cost controller the other; which of them a disk uses may change any time
        texts = {"io.bfq.weight": str(weight), "io.weight": str(io_weight(weight))}
        present = [file for file in texts if exists(file)] or ["io.weight"]
        for file in present:
            value = weight if file == present[0] else None
            yield Setting(field="blkio_weight", controller="io", file=file, text=texts[file], value=value)
    for field, key, rates in device_rates(resources):
        for rate in rates:
            text = f"{rate.major}:{rate.minor} {key}={rate.rate}"
            yield Setting(field=field, controller="io", file="io.max", text=text, value=f"{rate.path}:{rate.rate}")


def device_rates(resources: Resources) -> tuple[tuple[str, str, tuple[DeviceRate, ...]], ...]:
    """Return field name, key of ``io.max`` and rates of each kind of device limit."""
    return (
        ("device_read_bps", "rbps", resources.device_read_bps),
        ("device_write_bps", "wbps", resources.device_write_bps),
        ("device_read_iops", "riops", resources.device_read_iops),
        ("device_write_iops", "wiops", resources.device_write_iops),
    )
