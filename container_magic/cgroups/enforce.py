"""What of the asked limits this host can enforce, and by which file: pure, from facts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from container_magic.cgroups.facts import OPTIONAL_FILES, CgroupFacts
from container_magic.cgroups.settings import (
    MIN_QUOTA_US,
    PERIOD_US,
    Setting,
    device_rates,
    v1_settings,
    v2_settings,
)
from container_magic.deferred import dataclass
from container_magic.events import Limit
from container_magic.spec import Resources
from container_magic.units import format_size, parse_size

_ALWAYS = ("memory", "cpu", "cpuacct", "pids", "blkio")
"""v1 controllers that a container joins for its figures, limited or not; each hierarchy costs a move."""

_SWAP_FIELD = "memory_swap_bytes"
_MEMORY_FIELDS = {"memory_bytes", _SWAP_FIELD}
_WITH = {"memory_high_bytes": " and the supervisor"}
"""Who does what a file alone does not."""
_DOCTOR = "`contain doctor` lists what this host can enforce"


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A wish that this host cannot enforce: field of ``Resources``, what was asked, why not, what would change that."""

    field: str
    asked: str
    reason: str
    hint: str


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """What will be enforced, what cannot be, and which controllers the container joins."""

    limits: tuple[Limit, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    controllers: tuple[str, ...] = ()


def option_name(field: str) -> str:
    """Return the name of the option that sets a field of ``Resources`` (``memory_bytes`` -> ``memory``)."""
    return field.removesuffix("_bytes")


def assess(facts: CgroupFacts, resources: Resources) -> Assessment:
    """Say for each wish in ``resources`` which file will hold it, or why none can; a field is never in both lists."""
    legacy = facts.setup in ("legacy", "hybrid")
    settings = (v1_settings if legacy else v2_settings)(resources, lambda file: _present(facts, file))
    refusals: dict[str, Refusal] = {}
    for refusal in (*_by_value(facts, resources), *_by_host(facts, settings), *_by_swap(facts, resources)):
        refusals.setdefault(refusal.field, refusal)
    asked_cpuset = resources.cpuset_cpus is not None or resources.cpuset_mems is not None
    wanted = (*_ALWAYS, "cpuset") if asked_cpuset else _ALWAYS
    limits = [
        Limit(name=option_name(setting.field), value=setting.value, by=setting.file + _WITH.get(setting.field, ""))
        for setting in settings
        if setting.value is not None and setting.field not in refusals
    ]
    no_swap = not facts.swap_accounting and facts.swap_total_bytes == 0
    if resources.memory_bytes is not None and no_swap and not refusals.keys() & _MEMORY_FIELDS:
        both = resources.memory_bytes if resources.memory_swap_bytes is None else resources.memory_swap_bytes
        limits.append(Limit(name="memory_swap", value=both, by="no swap on this host"))
    return Assessment(
        limits=tuple(limits),
        refusals=tuple(refusals.values()),
        controllers=tuple(name for name in wanted if name in facts.bases) if legacy else facts.controllers,
    )


def _present(facts: CgroupFacts, file: str) -> bool:
    return file in facts.optional_files if file in OPTIONAL_FILES else True


def _by_host(facts: CgroupFacts, settings: tuple[Setting, ...]) -> Iterator[Refusal]:
    """Refuse what belongs to a controller or a file that is not there."""
    for setting in settings:
        asked = _asked(setting)
        if setting.controller not in facts.controllers:
            yield _without_controller(facts, setting.controller, setting.field, asked)
        elif not _present(facts, _representative(setting.file)):
            reason = f"the kernel of this host has no {setting.file}"
            yield Refusal(field=setting.field, asked=asked, reason=reason, hint="use a kernel that is built with it")


def _without_controller(facts: CgroupFacts, controller: str, field: str, asked: str) -> Refusal:
    reason = facts.refusals.get(controller, f"this host has no cgroup controller {controller!r}")
    return Refusal(field=field, asked=asked, reason=reason, hint=facts.remedies.get(controller, _DOCTOR))


def _asked(setting: Setting) -> str:
    value = setting.text if setting.value is None else setting.value
    return _size(value) if setting.controller == "memory" and isinstance(value, int) else str(value)


def _size(size_bytes: int) -> str:
    """Return a size as somebody would write it: ``100M``, in bytes where that would be another one; -1 as it is."""
    if size_bytes <= 0:
        return str(size_bytes)
    text = format_size(size_bytes)
    return text if parse_size(text) == size_bytes else f"{size_bytes}B"


def _representative(file: str) -> str:
    """Return the file whose presence stands for ``file`` in the facts: one build option brings the whole family."""
    return "blkio.throttle.read_bps_device" if file.startswith("blkio.throttle.") else file


def _by_value(facts: CgroupFacts, resources: Resources) -> Iterator[Refusal]:
    """Refuse values that the kernel would refuse, round away or ignore."""
    for field, allowed, what in (("cpuset_cpus", facts.cpus, "CPUs"), ("cpuset_mems", facts.mems, "memory nodes")):
        asked: str | None = getattr(resources, field)
        if asked is not None and allowed and not _within(asked, parse_list(allowed)):
            reason = f"this process may use the {what} {allowed}"
            yield Refusal(field=field, asked=asked, reason=reason, hint=f"ask for {what} out of {allowed}")
    if resources.cpus is not None:
        most = len(parse_list(facts.cpus)) if facts.cpus else None
        least = MIN_QUOTA_US / PERIOD_US
        if resources.cpus < least or (most is not None and resources.cpus > most):
            reason = f"the amount of CPU has to be between {least} and {most}" if most else f"it is less than {least}"
            yield Refusal(field="cpus", asked=str(resources.cpus), reason=reason, hint="`nproc` prints the upper end")
    yield from _by_disk(facts, resources)


def _by_disk(facts: CgroupFacts, resources: Resources) -> Iterator[Refusal]:
    weight = resources.blkio_weight
    arbiters = ("bfq", "cfq") if facts.setup in ("legacy", "hybrid") else ("bfq", "iocost")
    if weight is not None and not set(arbiters).intersection(facts.disks.values()):
        yield Refusal(
            field="blkio_weight",
            asked=str(weight),
            reason="no disk of this host shares its time by weight (none uses the BFQ scheduler)",
            hint="as root: echo bfq > /sys/block/DISK/queue/scheduler",
        )
    for field, _, rates in device_rates(resources):
        for rate in rates:
            if f"{rate.major}:{rate.minor}" not in facts.disks:
                reason = f"{rate.path} ({rate.major}:{rate.minor}) is not a whole disk"
                hint = "`lsblk -d` lists the disks"
                yield Refusal(field=field, asked=f"{rate.path}:{rate.rate}", reason=reason, hint=hint)


def _by_swap(facts: CgroupFacts, resources: Resources) -> Iterator[Refusal]:
    """Refuse a swap limit that cannot be kept: "no swap" needs swap accounting wherever there is swap."""
    memory, swap = resources.memory_bytes, resources.memory_swap_bytes
    if memory is None:
        if swap is not None:
            reason = "memory plus swap can only be limited together with memory"
            yield Refusal(field=_SWAP_FIELD, asked=_size(swap), reason=reason, hint="set a memory limit as well")
        return
    if swap is not None and swap != -1 and swap < memory:
        reason = f"memory plus swap cannot be less than memory, {memory} bytes"
        yield Refusal(field=_SWAP_FIELD, asked=_size(swap), reason=reason, hint="ask for more, or for -1 (unlimited)")
    if "memory" not in facts.controllers:
        if swap is not None:  # else the memory limit is refused, and that says enough
            yield _without_controller(facts, "memory", _SWAP_FIELD, _size(swap))
    elif swap != -1 and not facts.swap_accounting and facts.swap_total_bytes > 0:
        yield Refusal(
            field=_SWAP_FIELD,
            asked=_size(memory if swap is None else swap),
            reason="the kernel of this host has swap but does not account for it per cgroup",
            hint="boot with swapaccount=1, or as root: swapoff -a",
        )


def without(resources: Resources, refusals: tuple[Refusal, ...]) -> Resources:
    """Return ``resources`` less what is refused: what is left can be given to a manager."""
    changes: dict[str, Any] = {refusal.field: getattr(Resources(), refusal.field) for refusal in refusals}
    return dataclasses.replace(resources, **changes)


def _within(asked: str, allowed: set[int]) -> bool:
    """Return whether every part of the list ``asked`` is one or more of ``allowed``; it may be of any size."""
    for part in asked.split(","):
        first, _, last = part.partition("-")
        if not first.isdecimal() or not (last or first).isdecimal():
            return False
        numbers = range(int(first), int(last or first) + 1)
        # longer than what is allowed cannot be within it: a range like 0-99999999999 is not walked through
        if not 0 < len(numbers) <= len(allowed) or not allowed.issuperset(numbers):
            return False
    return True


def parse_list(text: str) -> set[int]:
    """Return the numbers of the kernel's list format (``0-1,4``).

    Raises:
        ValueError: ``text`` is not such a list.
    """
    numbers: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        numbers.update(range(int(first), int(last or first) + 1))
    return numbers
