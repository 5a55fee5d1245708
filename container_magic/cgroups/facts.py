"""What this process may do with cgroups: found out by looking, once, from the client's normal view of the host."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import field, replace
from typing import Literal

from container_magic.cgroups import files
from container_magic.cgroups.mounts import V1_CONTROLLERS, Hierarchy, hierarchies
from container_magic.cgroups.unified import find_base
from container_magic.deferred import dataclass

Setup = Literal["unified", "legacy", "hybrid", "none"]
Access = Callable[[str, int], bool]
Path = str | os.PathLike[str]

V2_CONTROLLERS = ("memory", "cpu", "cpuset", "pids", "io")
"""The v2 controllers that this package uses."""

OPTIONAL_FILES = (
    "blkio.bfq.weight",
    "blkio.throttle.read_bps_device",
    "blkio.weight",
    "cgroup.kill",
    "cpu.cfs_quota_us",
    "cpu.max",
    "io.bfq.weight",
    "io.max",
    "io.weight",
    "memory.kmem.tcp.limit_in_bytes",
    "memory.memsw.limit_in_bytes",
    "memory.oom.group",
    "memory.peak",
    "memory.swap.max",
    "pids.peak",
)
"""Files that a group has on some kernels and lacks on others."""


@dataclass(frozen=True, kw_only=True)
class CgroupFacts:
    """What this host lets this process do with cgroups; JSON-able, rebuilt by `container_magic.spec.build`."""

    setup: Setup = "none"
    bases: dict[str, str] = field(default_factory=dict)
    """Controller (v1) or ``unified`` (v2) -> absolute directory below which this process may make its groups."""
    controllers: tuple[str, ...] = ()
    """Controllers that groups below the bases have."""
    refusals: dict[str, str] = field(default_factory=dict)
    """Controller -> why it cannot be used."""
    remedies: dict[str, str] = field(default_factory=dict)
    """Controller -> what would change that."""
    client_leaf: str = ""
    """v2: the group that `prepare` moves this process into, so that its present group may have children."""
    optional_files: tuple[str, ...] = ()
    """Which of ``OPTIONAL_FILES`` a new group has: complete after `prepare`, as far as can be seen before it."""
    memory_limit_bytes: int | None = None
    """The smallest memory limit that this process is under already."""
    memory_total_bytes: int = 0
    swap_total_bytes: int = 0
    swap_accounting: bool = False
    cpus: str = ""
    """CPUs that the own cpuset allows and that are online, in the kernel's list format."""
    mems: str = ""
    """Memory nodes, likewise."""
    disks: dict[str, str] = field(default_factory=dict)
    """``major:minor`` of each whole disk -> what shares its time: ``bfq``, ``iocost``, ``mq-deadline``, ``none`` ..."""


def probe(
    proc: Path = "/proc",
    sys: Path = "/sys",
    *,
    access: Access = os.access,
    pid: int | None = None,
    uid: int | None = None,
    process: str = "self",
) -> CgroupFacts:
    """Find out what a process of this user may do with cgroups; reads only, changes nothing.

    Args:
        proc: The procfs mount.
        sys: The sysfs mount.
        access: ``os.access`` (a test gives another).
        pid: The process's id; None = this one's.
        uid: Its effective user id; None = this one's.
        process: The name of its folder below ``proc``.
    """
    found = hierarchies(proc, process)
    pid = os.getpid() if pid is None else pid
    uid = os.geteuid() if uid is None else uid
    v1 = tuple(hierarchy for hierarchy in found if not hierarchy.v2)
    v2 = next((hierarchy for hierarchy in found if hierarchy.v2), None)
    memory = _keyed_bytes(files.read(None, f"{proc}/meminfo"))
    status = files.read(None, f"{proc}/{process}/status")
    facts = CgroupFacts(
        setup=_setup(v1, v2),
        memory_total_bytes=memory.get("MemTotal", 0),
        swap_total_bytes=memory.get("SwapTotal", 0),
        cpus=_status_list(status, "Cpus_allowed_list"),
        mems=_status_list(status, "Mems_allowed_list"),
    )
    if v1:
        return _probe_v1(facts, v1, sys, access, uid)
    if v2 is not None:
        return _probe_v2(facts, v2, sys, access, pid, uid)
    everything = dict.fromkeys(V2_CONTROLLERS, "no cgroup file system is mounted")
    remedy = dict.fromkeys(V2_CONTROLLERS, "mount -t cgroup2 none /sys/fs/cgroup (as root of the host)")
    return replace(facts, refusals=everything, remedies=remedy, disks=_disks(sys, ""))


def _setup(v1: tuple[Hierarchy, ...], v2: Hierarchy | None) -> Setup:
    if v1:
        return "legacy" if v2 is None else "hybrid"
    return "none" if v2 is None else "unified"


def _probe_v1(facts: CgroupFacts, found: tuple[Hierarchy, ...], sys: Path, access: Access, uid: int) -> CgroupFacts:
    bases: dict[str, str] = {}
    refusals: dict[str, str] = {}
    remedies: dict[str, str] = {}
    by_controller = {name: hierarchy for hierarchy in found for name in hierarchy.controllers}
    for name in V1_CONTROLLERS:
        reason, remedy = _v1_refusal(by_controller.get(name), access, uid)
        if reason:
            refusals[name], remedies[name] = reason, remedy
        else:
            bases[name] = by_controller[name].own
    memory, cpuset = by_controller.get("memory"), by_controller.get("cpuset")
    return replace(
        facts,
        bases=bases,
        controllers=tuple(bases),
        refusals=refusals,
        remedies=remedies,
        optional_files=_seen_files(set(bases.values())),
        memory_limit_bytes=_v1_memory_limit(memory),
        swap_accounting=memory is not None and files.exists(None, f"{memory.own}/memory.memsw.limit_in_bytes"),
        cpus=_own_list(cpuset, ("cpuset.effective_cpus", "cpuset.cpus")) or facts.cpus,
        mems=_own_list(cpuset, ("cpuset.effective_mems", "cpuset.mems")) or facts.mems,
        disks=_disks(sys, ""),
    )


def _v1_refusal(hierarchy: Hierarchy | None, access: Access, uid: int) -> tuple[str, str]:
    """Return why the hierarchy cannot be used and what to do, both empty when it can."""
    if hierarchy is None:
        return "the cgroup v1 controller is not mounted", "mount -t cgroup -o CONTROLLER (as root of the host)"
    if hierarchy.hidden:
        return hierarchy.hidden, "mount the cgroup file systems anew inside this container"
    if hierarchy.read_only:
        return f"{hierarchy.top} is mounted read-only", "start the surrounding container with writable cgroups"
    if not all(access(path, os.W_OK) for path in (hierarchy.own, f"{hierarchy.own}/tasks")):
        # v1 has no safe delegation (cgroups(7)), so hosts give it to nobody but root
        return (
            f"user {uid} may not write {hierarchy.own}, and cgroup v1 cannot be delegated",
            "run as root, or boot the host with systemd.unified_cgroup_hierarchy=1",
        )
    return "", ""


def _v1_memory_limit(memory: Hierarchy | None) -> int | None:
    if memory is None or not memory.own:
        return None
    limits = [files.number(files.read(None, f"{path}/memory.limit_in_bytes")) for path in _upwards(memory)]
    # covers the groups above the mount's root, which a nested container cannot see
    above = files.keyed(files.read(None, f"{memory.own}/memory.stat")).get("hierarchical_memory_limit")
    return _smallest([*limits, files.number(str(above))])


def _probe_v2(facts: CgroupFacts, hierarchy: Hierarchy, sys: Path, access: Access, pid: int, uid: int) -> CgroupFacts:
    limits = [files.number(files.read(None, f"{path}/memory.max")) for path in _upwards(hierarchy)]
    base = find_base(hierarchy, V2_CONTROLLERS, access, pid, uid)
    seen = _seen_files({base.path, hierarchy.own} - {""})
    return replace(
        facts,
        bases={"unified": base.path} if base.path else {},
        controllers=base.controllers,
        refusals=base.refusals,
        remedies=base.remedies,
        client_leaf=base.client_leaf,
        optional_files=seen,
        memory_limit_bytes=_smallest(limits),
        swap_accounting="memory.swap.max" in seen,
        cpus=_own_list(hierarchy, ("cpuset.cpus.effective",)) or facts.cpus,
        mems=_own_list(hierarchy, ("cpuset.mems.effective",)) or facts.mems,
        disks=_disks(sys, hierarchy.top),
    )


def _upwards(hierarchy: Hierarchy) -> Iterable[str]:
    """Yield the own group and each group above it as far as it is mounted."""
    path = hierarchy.own
    while path:
        yield path
        if path == hierarchy.top or len(path) <= len(hierarchy.top):
            return
        path = os.path.dirname(path)


def _smallest(limits: Iterable[int | None]) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)


def _seen_files(directories: Iterable[str]) -> tuple[str, ...]:
    """Return which optional files the directories or groups directly below them have."""
    seen: set[str] = set()
    for directory in directories:
        for path in (directory, *_subdirectories(directory)):
            seen.update(name for name in OPTIONAL_FILES if os.path.exists(f"{path}/{name}"))
    return tuple(sorted(seen))


def _subdirectories(directory: str) -> list[str]:
    try:
        with os.scandir(directory) as entries:
            return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def _own_list(hierarchy: Hierarchy | None, names: tuple[str, ...]) -> str:
    if hierarchy is None or not hierarchy.own:
        return ""
    texts = (files.read(None, f"{hierarchy.own}/{name}").strip() for name in names)
    return next((text for text in texts if text), "")


def _status_list(status: str, key: str) -> str:
    match = re.search(rf"^{key}:\s*(\S+)$", status, re.MULTILINE)
    return match[1] if match else ""


def _keyed_bytes(meminfo: str) -> dict[str, int]:
    return {key: int(value) * 1024 for key, value in re.findall(r"^(\w+):\s+(\d+) kB$", meminfo, re.MULTILINE)}


def _disks(sys: Path, v2_top: str) -> dict[str, str]:
    """Return ``major:minor`` -> I/O scheduler of every whole disk, ``iocost`` where that controller is on."""
    costs = files.read(None, f"{v2_top}/io.cost.qos") if v2_top else ""
    with_cost = re.findall(r"^(\d+:\d+) .*\benable=1\b", costs, re.MULTILINE)
    disks = {}
    for path in _links(f"{sys}/block"):
        number = files.read(None, f"{path}/dev")
        chosen = re.search(r"\[([\w-]+)\]", files.read(None, f"{path}/queue/scheduler"))
        if number:
            disks[number] = "iocost" if number in with_cost else chosen[1] if chosen else "none"
    return disks


def _links(directory: str) -> list[str]:
    """Return the entries of ``/sys/block``, which are links into ``/sys/devices``."""
    try:
        return sorted(f"{directory}/{name}" for name in os.listdir(directory))
    except OSError:
        return []
