"""The only place that opens, makes and removes files of cgroup file systems.

Everything is relative to a directory descriptor (``None`` = the name is an absolute path) and follows no link:
cgroupfs has none, and a name that is one is somebody's trap.
"""

from __future__ import annotations

import errno
import os
import stat
import time

from container_magic.errors import HostError, InternalError

_READ_BYTES = 65536
_FIRST_RETRY_SECONDS = 0.0005
_LONGEST_RETRY_SECONDS = 0.1

_HINTS = {
    errno.EBUSY: "the kernel says that the group is in use: look into its cgroup.procs",
    errno.ENOSPC: "a cgroup limit of this host is reached: see /proc/cgroups and cgroup.max.descendants",
    errno.ENODEV: "the kernel knows no such whole disk: `lsblk -d` lists them with their numbers",
}
_HINT = "`contain doctor` says what this host can enforce"


def _failure(what: str, dir_fd: int | None, name: str, error: OSError) -> HostError:
    path = name
    if dir_fd is not None:
        try:
            path = os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), name)
        except OSError:  # no /proc in view: the bare name still says which file it is
            path = name
    hint = _HINTS.get(error.errno or 0, _HINT)
    return HostError(f"cannot {what} {path}: {error.strerror or error}", hint=hint)


def open_dir(dir_fd: int | None, name: str) -> int:
    """Open the cgroup directory ``name`` and return its descriptor.

    Raises:
        HostError: It cannot be opened.
    """
    try:
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    except OSError as error:
        raise _failure("open", dir_fd, name, error) from error


def open_write(dir_fd: int | None, name: str) -> int:
    """Open the cgroup file ``name`` for writing.

    The kernel checks a move between cgroups against whoever opened the file (since Linux 5.16, CVE-2021-4197),
    so a descriptor opened here may be used by a child that has less rights.

    Raises:
        HostError: It cannot be opened.
    """
    try:
        return os.open(name, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    except OSError as error:
        raise _failure("open", dir_fd, name, error) from error


def open_read(dir_fd: int | None, name: str, flags: int = os.O_RDONLY) -> int | None:
    """Open the cgroup file ``name`` for repeated reading; None when this kernel does not have it."""
    try:
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    except OSError:
        return None


def reread(fd: int | None) -> str:
    """Return what the file behind ``fd`` says now, empty when there is none or the group is gone."""
    if fd is None:
        return ""
    try:
        return os.pread(fd, _READ_BYTES, 0).decode()
    except OSError:
        return ""


def write(dir_fd: int | None, name: str, value: str) -> None:
    """Write ``value`` to the cgroup file ``name`` in one call, as the kernel wants it.

    Raises:
        HostError: The kernel refuses the value, or the file is not there; the message names file and value.
    """
    try:
        fd = os.open(name, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise _failure(f"write {value!r} to", dir_fd, name, error) from error


def read(dir_fd: int | None, name: str) -> str:
    """Return the text of the cgroup file ``name`` without the last line feed, empty when it cannot be read."""
    fd = open_read(dir_fd, name)
    if fd is None:
        return ""
    try:
        parts = []
        while part := os.read(fd, _READ_BYTES):
            parts.append(part)
        return b"".join(parts).decode().rstrip("\n")
    except OSError:
        return ""
    finally:
        os.close(fd)


def exists(dir_fd: int | None, name: str) -> bool:
    """Return whether the cgroup directory has a file ``name``."""
    try:
        os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except OSError:
        return False
    return True


def make(dir_fd: int | None, name: str) -> None:
    """Make the cgroup ``name``.

    Raises:
        HostError: It exists already or cannot be made.
    """
    try:
        os.mkdir(name, 0o755, dir_fd=dir_fd)
    except OSError as error:
        raise _failure("make the cgroup", dir_fd, name, error) from error


def number(text: str) -> int | None:
    """Return the integer in ``text``; None for nothing, for ``max`` and for v1's "no limit" (2**63 less a page)."""
    try:
        value = int(text)
    except ValueError:
        return None
    return None if value >= 1 << 62 else value


def keyed(text: str) -> dict[str, int]:
    """Parse the flat keyed format (``key value`` lines) of ``cpu.stat``, ``memory.events`` and their like."""
    values = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if value.isdigit():
            values[key] = int(value)
    return values


def remove_tree(dir_fd: int | None, name: str, timeout_seconds: float) -> None:
    """Remove the cgroup ``name`` with all groups below it; one that is gone already is as good as removed.

    A group whose last tasks are still exiting is EBUSY for some milliseconds: that is retried with back-off.

    Raises:
        InternalError: It is still in use after ``timeout_seconds``, or the kernel refuses for another reason.
    """
    deadline = time.monotonic() + timeout_seconds
    pause = _FIRST_RETRY_SECONDS
    while True:
        error = _rmdir(dir_fd, name)
        if error is None:
            return
        if error.errno != errno.EBUSY or time.monotonic() >= deadline:
            message = _failure("remove the cgroup", dir_fd, name, error).message
            raise InternalError(message, hint="the next command sweeps it once its processes are gone") from error
        # cgroupfs answers EBUSY for processes and for children alike; children are rare, so they are tried second
        for child in _children(dir_fd, name):
            _remove_child(dir_fd, name, child, deadline)
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_RETRY_SECONDS)


def _rmdir(dir_fd: int | None, name: str) -> OSError | None:
    try:
        os.rmdir(name, dir_fd=dir_fd)
    except FileNotFoundError:
        return None
    except OSError as error:
        return error
    return None


def _remove_child(dir_fd: int | None, name: str, child: str, deadline: float) -> None:
    try:
        group = open_dir(dir_fd, name)
    except HostError:  # gone meanwhile
        return
    try:
        remove_tree(group, child, max(0.0, deadline - time.monotonic()))
    finally:
        os.close(group)


def _children(dir_fd: int | None, name: str) -> list[str]:
    try:
        group = open_dir(dir_fd, name)
    except HostError:  # gone meanwhile
        return []
    try:
        return child_names(group)
    finally:
        os.close(group)


def child_names(group_fd: int) -> list[str]:
    """Return the names of the groups directly below the one behind ``group_fd``."""
    try:
        names = os.listdir(group_fd)
    except OSError:
        return []
    return [name for name in names if _is_dir(group_fd, name)]


def _is_dir(group_fd: int, name: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=group_fd, follow_symlinks=False).st_mode)
    except OSError:
        return False
