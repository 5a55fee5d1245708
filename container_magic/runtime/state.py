"""State is files: one directory per container below the runtime directory, for this user alone.

A supervisor holds a lock on its container's directory as long as it lives. A free lock means that it is gone, however
it went: the next command sweeps what it left.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from container_magic.cgroups.sweep import remove_stale
from container_magic.errors import ContainError, HostError

_STATE = "state.json"


def runtime_directory() -> Path:
    """Return the runtime directory of this user, made when it is missing.

    Raises:
        HostError: It cannot be made, or it is not this user's alone.
    """
    path = _choose()
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        status = path.lstat()
    except OSError as error:
        raise HostError(f"cannot make the runtime directory {path}: {error.strerror}") from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise HostError(f"the runtime directory {path} is not a directory of this user alone", hint=f"rm -r {path}")
    return path


def _choose() -> Path:
    if os.geteuid() == 0 and os.access("/run", os.W_OK):
        return Path("/run/container_magic")
    session = os.environ.get("XDG_RUNTIME_DIR", "")
    if session and os.access(session, os.W_OK):
        return Path(session) / "container_magic"
    return Path(f"/tmp/container_magic-{os.geteuid()}")


class StateDirectory:
    """The directory of one container, made, locked and written by its supervisor through a descriptor."""

    def __init__(self, runtime_fd: int, container_id: str) -> None:
        self._runtime_fd = runtime_fd
        self._name = container_id
        # shared against the sweeper's exclusive lock: it must not see a directory whose lock is not yet held. A lock
        # belongs to an open file description, and the inherited one is that of all supervisors: hence one of our own
        with _locked(runtime_fd, fcntl.LOCK_SH):
            os.mkdir(container_id, 0o700, dir_fd=runtime_fd)
            self._fd = os.open(container_id, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=runtime_fd)
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def write(self, state: Mapping[str, Any]) -> None:
        """Replace ``state.json`` in one step."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        fd = os.open(f"{_STATE}.new", flags, 0o600, dir_fd=self._fd)
        try:
            os.write(fd, json.dumps(state).encode())
        finally:
            os.close(fd)
        os.rename(f"{_STATE}.new", _STATE, src_dir_fd=self._fd, dst_dir_fd=self._fd)

    def remove(self) -> None:
        """Remove the directory and let the lock go."""
        for name in os.listdir(self._fd):
            os.unlink(name, dir_fd=self._fd)
        os.rmdir(self._name, dir_fd=self._runtime_fd)
        os.close(self._fd)


def sweep(directory: Path, cgroup_bases: Mapping[str, str]) -> list[str]:
    """Remove what dead supervisors left: cgroups with whatever is in them, then the state; return the ids."""
    swept: list[str] = []
    runtime_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with _locked(runtime_fd, fcntl.LOCK_EX):
            stale = [name for name in os.listdir(runtime_fd) if _is_stale(runtime_fd, name)]
        for name in stale:
            with contextlib.suppress(ContainError, OSError):
                remove_stale(cgroup_bases, f"container_magic-{name}")
                _remove_directory(runtime_fd, name)
                swept.append(name)
    finally:
        os.close(runtime_fd)
    return swept


def _is_stale(runtime_fd: int, name: str) -> bool:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=runtime_fd)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
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


@contextlib.contextmanager
def _locked(fd: int, kind: int) -> Iterator[None]:
    own_fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
    try:
        fcntl.flock(own_fd, kind)
        yield
    finally:
        os.close(own_fd)
