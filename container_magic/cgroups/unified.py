"""Finds the directory of a cgroup v2 tree below which this process may make groups, and makes it ready.

The kernel's rules (``admin-guide/cgroup-v2``): a group that holds processes cannot give domain controllers to children
("no internal processes", the root group excepted); moving a process needs write access to ``cgroup.procs`` of the
target and of the common ancestor (delegation).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import field

from container_magic.cgroups import files
from container_magic.cgroups.mounts import Hierarchy
from container_magic.deferred import dataclass
from container_magic.errors import HostError

PARENT = "container_magic"
"""Name of the group that holds the containers' groups."""
CLIENT = "container_magic.client"
"""Name of the group that a client moves itself into."""

DELEGATE = "start the notebook with `systemd-run --user --scope -p Delegate=yes jupyter lab`"
_CONTROLLER_HINT = (
    "as root: `systemctl edit user@.service`, add [Service] Delegate=cpu cpuset io memory pids, then log in again"
)


@dataclass(frozen=True, kw_only=True)
class Base:
    """Where groups may be made (``path`` empty = nowhere), with which controllers, and what cannot be had and why."""

    path: str = ""
    controllers: tuple[str, ...] = ()
    client_leaf: str = ""
    refusals: dict[str, str] = field(default_factory=dict)
    remedies: dict[str, str] = field(default_factory=dict)


def find_base(
    hierarchy: Hierarchy, wanted: tuple[str, ...], access: Callable[[str, int], bool], pid: int, uid: int
) -> Base:
    """Return the nearest group, from the own one upwards, that can give the most of ``wanted`` to children.

    Nearest keeps the containers under the limits that the caller is under. A group that holds foreign processes is
    passed over: they are never moved.
    """
    if hierarchy.hidden:
        return _nowhere(wanted, hierarchy.hidden, "mount cgroup2 anew inside this container")
    if hierarchy.read_only:
        reason = f"{hierarchy.top} is mounted read-only"
        return _nowhere(wanted, reason, "start the surrounding container with writable cgroups")
    best: Base | None = None
    reasons: list[str] = []
    group = hierarchy.own
    while True:
        base, reason = _candidate(group, group == hierarchy.own, wanted, access, pid, uid)
        if base is None:
            reasons.append(reason)
        elif best is None or len(base.controllers) > len(best.controllers):
            best = base
        # above a unit of systemd's that is given away are groups that systemd divides itself
        if group == hierarchy.top or (best is not None and group.endswith((".scope", ".service"))):
            break
        group = os.path.dirname(group)
    if best is None:
        remedy = DELEGATE if uid else "move the processes of that group into a child group of it first"
        return _nowhere(wanted, "; ".join(reasons), remedy)
    return _with_refusals(best, wanted, uid)


def _nowhere(wanted: tuple[str, ...], reason: str, remedy: str) -> Base:
    return Base(refusals=dict.fromkeys(wanted, reason), remedies=dict.fromkeys(wanted, remedy))


def _with_refusals(base: Base, wanted: tuple[str, ...], uid: int) -> Base:
    missing = [name for name in wanted if name not in base.controllers]
    group = os.path.dirname(base.path)
    remedy = _CONTROLLER_HINT if uid else f"enable it in cgroup.subtree_control of the groups above {group}"
    return Base(
        path=base.path,
        controllers=base.controllers,
        client_leaf=base.client_leaf,
        refusals=dict.fromkeys(missing, f"the cgroup v2 controller is not delegated to {group}"),
        remedies=dict.fromkeys(missing, remedy),
    )


def _candidate(
    group: str, own: bool, wanted: tuple[str, ...], access: Callable[[str, int], bool], pid: int, uid: int
) -> tuple[Base | None, str]:
    """Return what ``group`` offers, or None and why it offers nothing."""
    needed = (group, f"{group}/cgroup.procs", f"{group}/cgroup.subtree_control")
    if not all(access(path, os.W_OK) for path in needed):
        return None, f"{group} may not be written by user {uid}"
    kind = files.read(None, f"{group}/cgroup.type")
    if kind not in ("", "domain"):
        return None, f"{group} is a threaded group"
    given = files.read(None, f"{group}/cgroup.controllers").split()
    controllers = tuple(name for name in wanted if name in given)
    if not controllers:
        return None, f"no controller is delegated to {group}"
    path = os.path.join(group, PARENT)
    holders = files.read(None, f"{group}/cgroup.procs").split()
    if not kind or not holders:  # only the root of the hierarchy has no cgroup.type, and it may hold processes
        return Base(path=path, controllers=controllers), ""
    if own and holders == [str(pid)] and os.path.basename(group) != CLIENT:
        return Base(path=path, controllers=controllers, client_leaf=os.path.join(group, CLIENT)), ""
    return None, f"{group} holds processes of others, so its children cannot have controllers"


def prepare_base(path: str, controllers: tuple[str, ...], client_leaf: str, pid: int) -> None:
    """Make the base ``path`` (it may exist) and enable the controllers for the groups in it.

    With ``client_leaf`` set, the process ``pid`` (0 = this one), and no other, moves into that group first.

    Raises:
        HostError: The kernel refuses one of the steps.
    """
    if client_leaf:
        _make_missing(client_leaf)
        files.write(None, f"{client_leaf}/cgroup.procs", str(pid))
    _make_missing(path)
    for group in (os.path.dirname(path), path):
        enabled = files.read(None, f"{group}/cgroup.subtree_control").split()
        for name in controllers:
            if name not in enabled:
                files.write(None, f"{group}/cgroup.subtree_control", f"+{name}")


def _make_missing(path: str) -> None:
    # another client of the same user may make it at the same moment
    if not files.exists(None, path):
        try:
            files.make(None, path)
        except HostError:
            if not files.exists(None, path):
                raise
