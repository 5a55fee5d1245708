"""What this host and this user can do: facts, found out once per process by looking."""

from __future__ import annotations

import functools
import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from container_magic.deferred import dataclass
from container_magic.errors import HostError
from container_magic.linux.subids import SubordinateIds, subordinate_ids
from container_magic.linux.userns import IdMapping

if TYPE_CHECKING:
    from container_magic.cgroups.facts import CgroupFacts

# above systemd-nspawn's ranges (524288-1879048191) and below the end of what user namespaces map
FIRST_HOST_ID = 0x70000000
ID_COUNT = 65536
OLDEST_KERNEL = (5, 12)
MACHINES = ("x86_64", "aarch64")
_NEEDED = {"CAP_CHOWN": 0, "CAP_SETGID": 6, "CAP_SETUID": 7, "CAP_SYS_ADMIN": 21}


@dataclass(frozen=True, kw_only=True)
class Ids:
    """Which ids containers of this user have; what boot needs to know of the host.

    ``id_mappings`` are the containers' user namespace maps seen from the zygote: one line that maps container root to
    the caller when ``rootless``, a range of unprivileged ids otherwise.
    """

    rootless: bool
    id_mappings: tuple[IdMapping, ...]
    subordinate: SubordinateIds | None = None
    """What ``newuidmap`` and ``newgidmap`` may map for this user beside the own ids; None under root and without."""


@dataclass(frozen=True, kw_only=True)
class HostFeatures:
    """Facts on which the planner decides; nobody else asks whether there is root or which cgroup version it is.

    ``rootless``, ``id_mappings`` and ``subordinate`` are those of ``Ids``.
    """

    machine: str
    kernel: tuple[int, int]
    rootless: bool
    id_mappings: tuple[IdMapping, ...]
    cgroups: CgroupFacts
    subordinate: SubordinateIds | None = None


@functools.cache
def probe() -> HostFeatures:
    """Look at this host.

    Raises:
        HostError: Containers cannot work here at all: another operating system, architecture, or too old a kernel.
    """
    check_platform()
    from container_magic.cgroups.facts import probe as probe_cgroups

    ids = own_ids()
    return HostFeatures(
        machine=os.uname().machine,
        kernel=kernel_version(),
        rootless=ids.rootless,
        id_mappings=ids.id_mappings,
        cgroups=probe_cgroups(),
        subordinate=ids.subordinate,
    )


@functools.cache
def own_ids() -> Ids:
    """Find out which ids this process may give to containers; reads only."""
    if _privileged():
        return Ids(rootless=False, id_mappings=(IdMapping(container_id=0, host_id=FIRST_HOST_ID, size=ID_COUNT),))
    subordinate = subordinate_ids()
    return Ids(rootless=True, id_mappings=_rootless_mappings(subordinate), subordinate=subordinate)


def _rootless_mappings(ids: SubordinateIds | None) -> tuple[IdMapping, ...]:
    """In the zygote's user namespace, which these maps are seen from, the own id is 0 and the range begins at 1."""
    own = IdMapping(container_id=0, host_id=0, size=1)
    return (own,) if ids is None else (own, IdMapping(container_id=1, host_id=1, size=ids.count))


def with_subordinate(features: HostFeatures, ids: SubordinateIds | None) -> HostFeatures:
    """Return the ``features`` of an ordinary user who may map ``ids`` beside the own one."""
    return replace(features, subordinate=ids, id_mappings=_rootless_mappings(ids))


def with_cgroups(features: HostFeatures, cgroups: CgroupFacts) -> HostFeatures:
    """Return ``features`` with what is known of the cgroups after they were made ready."""
    return replace(features, cgroups=cgroups)


def check_platform() -> None:
    """Raise ``HostError`` unless this is Linux, 5.12 or newer, on an architecture with a seccomp program."""
    if sys.platform != "linux":
        hint = "use WSL2 on Windows, or a Linux virtual machine (Lima, Multipass, UTM) on macOS"
        raise HostError(f"containers need the Linux kernel, this is {sys.platform}", hint=hint)
    machine = os.uname().machine
    if machine not in MACHINES:
        raise HostError(f"no seccomp program for {machine}", hint=f"supported: {', '.join(MACHINES)}")
    if kernel_version() < OLDEST_KERNEL:
        oldest = ".".join(map(str, OLDEST_KERNEL))
        raise HostError(
            f"the kernel is {os.uname().release}, older than {oldest}", hint=f"boot Linux {oldest} or newer"
        )


def kernel_version() -> tuple[int, int]:
    """Return (major, minor) of the running kernel."""
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(character for character in minor if character.isdigit()) or 0)


def _privileged() -> bool:
    """Whether this process may map a range of ids that the initial user namespace has."""
    if os.geteuid() != 0:
        return False
    with open("/proc/self/status", encoding="utf-8", errors="replace") as file:
        effective = next(int(line.split()[1], 16) for line in file if line.startswith("CapEff:"))
    if not all(effective >> number & 1 for number in _NEEDED.values()):
        return False
    with open("/proc/self/uid_map", encoding="utf-8") as file:
        ranges = [tuple(map(int, line.split())) for line in file]
    return any(first <= FIRST_HOST_ID and first + size >= FIRST_HOST_ID + ID_COUNT for first, _, size in ranges)
