"""Removes the cgroup of a container whose supervisor is gone."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping

from container_magic.cgroups import files
from container_magic.cgroups.manager import DELETE_SECONDS
from container_magic.errors import ContainError, HostError, InternalError

_PREFIX = "container_magic-"


def remove_stale(bases: Mapping[str, str], name: str) -> None:
    """Kill what is left in the group ``name`` and remove it below every base; nothing there is fine too.

    Args:
        bases: ``CgroupFacts.bases``: paths.
        name: Name of the group, ``container_magic-<id>``.

    Raises:
        InternalError: The name is not one of ours, or a group could not be removed (the others are all the same).
    """
    if not name.startswith(_PREFIX) or "/" in name:
        raise InternalError(f"{name!r} is not the name of a container's cgroup: left alone")
    directories = list(dict.fromkeys(bases.values()))
    for base in directories:
        _kill_in(None, os.path.join(base, name))
    failure: ContainError | None = None
    for base in directories:
        try:
            files.remove_tree(None, os.path.join(base, name), DELETE_SECONDS)
        except ContainError as error:
            failure = failure or error
    if failure is not None:
        raise failure


def _kill_in(dir_fd: int | None, name: str) -> None:
    """SIGKILL every process of the group and of the groups below it."""
    try:
        group = files.open_dir(dir_fd, name)
    except HostError:  # gone
        return
    try:
        if files.exists(group, "cgroup.kill"):  # v2 since Linux 5.14: the whole subtree, forks included
            files.write(group, "cgroup.kill", "1")
            return
        for child in files.child_names(group):
            _kill_in(group, child)
        for pid in _pids(group):
            _kill(group, pid)
    finally:
        os.close(group)


def _pids(group: int) -> list[int]:
    # 0 is a process that this pid namespace cannot see
    return [int(line) for line in files.read(group, "cgroup.procs").splitlines() if line != "0"]


def _kill(group: int, pid: int) -> None:
    """Kill ``pid`` if it is still in the group once a pidfd holds it: the number may have a new owner by now."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:  # gone
        return
    try:
        if pid in _pids(group):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        os.close(pidfd)
