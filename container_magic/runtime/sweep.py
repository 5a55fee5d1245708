"""The runtime directory of this user, and the removal of what dead supervisors left in it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import stat

from container_magic.cgroups.sweep import remove_stale
from container_magic.errors import ContainError, HostError
from container_magic.runtime.state import CGROUPS, locked

_DYING_SECONDS = 1.0


def runtime_directory() -> str:
    """Return the runtime directory of this user, made when it is missing.

    Raises:
        HostError: It cannot be made, or it is not this user's alone.
    """
    path = _choose()
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
        status = os.lstat(path)
    except OSError as error:
        raise HostError(f"cannot make the runtime directory {path}: {error.strerror}") from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise HostError(f"the runtime directory {path} is not a directory of this user alone", hint=f"rm -r {path}")
    return path


def _choose() -> str:
    if os.geteuid() == 0 and os.access("/run", os.W_OK):
        return "/run/container_magic"
    session = os.environ.get("XDG_RUNTIME_DIR", "")
    if session and os.access(session, os.W_OK):
        return f"{session}/container_magic"
    return f"/tmp/container_magic-{os.geteuid()}"


def await_end(pid: int) -> None:
    """Wait for the end of a process that is dying: it closes its sockets before it lets go of its locks."""
    with contextlib.suppress(OSError):
        pidfd = os.pidfd_open(pid)
        select.select([pidfd], [], [], _DYING_SECONDS)
        os.close(pidfd)


def sweep(directory: str) -> list[str]:
    """Remove what dead supervisors left: cgroups with whatever is in them, then the state; return the ids."""
    swept: list[str] = []
    runtime_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with locked(runtime_fd, fcntl.LOCK_EX):
            stale = [name for name in os.listdir(runtime_fd) if _is_stale(runtime_fd, name)]
        for name in stale:
            with contextlib.suppress(ContainError, OSError):
                _remove_cgroups(runtime_fd, name)
                _remove_directory(runtime_fd, name)
                swept.append(name)
    finally:
        os.close(runtime_fd)
    return swept


def _remove_cgroups(runtime_fd: int, name: str) -> None:
    """Remove the groups that the supervisor noted; the sweeper's own place in the hierarchies may be another one."""
    try:
        fd = os.open(f"{name}/{CGROUPS}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=runtime_fd)
    except FileNotFoundError:
        return  # it died before it made any
    with open(fd, encoding="utf-8", errors="surrogateescape") as file:
        bases = {path: os.path.dirname(path) for path in file.read().splitlines()}
    remove_stale(bases, f"container_magic-{name}")


def _is_stale(runtime_fd: int, name: str) -> bool:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=runtime_fd)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(fd, fcntl.LOCK_UN)  # whoever was forked meanwhile has the descriptor too
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def _remove_directory(runtime_fd: int, name: str) -> None:
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=runtime_fd)
    try:
        for entry in os.listdir(fd):
            os.unlink(entry, dir_fd=fd)
        os.rmdir(name, dir_fd=runtime_fd)
    finally:
        os.close(fd)
