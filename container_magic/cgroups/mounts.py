"""Where the cgroup hierarchies are and where this process stands in them: cgroups(7), proc_pid_mountinfo(5)."""

from __future__ import annotations

import os
import re

from container_magic.deferred import dataclass

V1_CONTROLLERS = ("memory", "cpu", "cpuacct", "cpuset", "pids", "blkio", "freezer", "devices")
"""The v1 controllers that this package knows."""


@dataclass(frozen=True, kw_only=True)
class Hierarchy:
    """One mounted cgroup hierarchy.

    ``controllers`` is empty for v2. ``own`` is the directory of this process's group, empty when it cannot be seen
    through any mount of the hierarchy (``hidden`` then says why); ``top`` is the mount point that ``own`` lies below.
    """

    v2: bool
    controllers: tuple[str, ...]
    top: str
    own: str
    hidden: str
    read_only: bool


@dataclass(frozen=True, kw_only=True)
class _Mount:
    root: str
    point: str
    v2: bool
    controllers: tuple[str, ...]
    read_only: bool


def hierarchies(proc: str | os.PathLike[str], process: str = "self") -> tuple[Hierarchy, ...]:
    """Return the hierarchies that are mounted and hold v1 controllers or are v2, each once.

    Reads ``cgroup`` and ``mountinfo`` of ``process`` below ``proc``; no path is assumed and no order of comma lists.
    """
    folder = os.path.join(proc, process)
    own_paths = _own_paths(folder)
    groups: dict[tuple[str, ...], list[_Mount]] = {}
    for mount in _mounts(folder):
        groups.setdefault(("",) if mount.v2 else mount.controllers, []).append(mount)
    return tuple(_hierarchy(mounts, own_paths) for mounts in groups.values())


def _own_paths(folder: str) -> dict[str, str]:
    """Return controller -> path of the own group as its file ``cgroup`` gives it; v2 has the key ''."""
    paths = {}
    for line in _read(f"{folder}/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            paths[controller] = path
    return paths


def _mounts(folder: str) -> list[_Mount]:
    mounts = []
    for line in _read(f"{folder}/mountinfo").splitlines():
        fields = line.split(" ")
        dash = fields.index("-", 6)
        fstype, super_options = fields[dash + 1], fields[dash + 3].split(",")
        if fstype not in ("cgroup", "cgroup2"):
            continue
        controllers = tuple(sorted(set(V1_CONTROLLERS).intersection(super_options))) if fstype == "cgroup" else ()
        if fstype == "cgroup" and not controllers:  # name=systemd, net_cls, hugetlb ...
            continue
        read_only = "ro" in fields[5].split(",") or "ro" in super_options
        mounts.append(
            _Mount(
                root=_unescape(fields[3]),
                point=_unescape(fields[4]),
                v2=fstype == "cgroup2",
                controllers=controllers,
                read_only=read_only,
            )
        )
    return mounts


def _hierarchy(mounts: list[_Mount], own_paths: dict[str, str]) -> Hierarchy:
    """Choose the mount through which the own group can be seen, a writable one if there is."""
    first = mounts[0]
    own_path = own_paths.get(first.controllers[0] if first.controllers else "")
    for mount in sorted(mounts, key=lambda mount: mount.read_only):
        own = _below(mount, own_path) if own_path is not None else ""
        if own and os.path.isdir(own):
            return Hierarchy(
                v2=mount.v2,
                controllers=mount.controllers,
                top=mount.point,
                own=own,
                hidden="",
                read_only=mount.read_only,
            )
    shown = ", ".join(f"{mount.root} at {mount.point}" for mount in mounts)
    hidden = f"the cgroup of this process, {own_path}, is not below what is mounted: {shown}"
    return Hierarchy(
        v2=first.v2, controllers=first.controllers, top=first.point, own="", hidden=hidden, read_only=first.read_only
    )


def _below(mount: _Mount, own_path: str) -> str:
    """Return where ``own_path`` is seen through ``mount``; empty when it lies outside of the mounted subtree.

    In a cgroup namespace both paths are relative to the namespace's root and may start with ``/..``.
    """
    root = mount.root.rstrip("/")
    if own_path.rstrip("/") != root and not own_path.startswith(f"{root}/"):
        return ""
    rest = own_path[len(root) :].strip("/")
    if ".." in rest.split("/"):
        return ""
    return os.path.join(mount.point, rest) if rest else mount.point


def _unescape(text: str) -> str:
    """Undo the octal escapes of mountinfo: a space is written as a backslash and 040."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""
