"""State is files: one directory per container below the runtime directory, for this user alone.

A supervisor holds a lock on its container's directory as long as it lives. A free lock means that it is gone, however
it went: the next command sweeps what it left (``container_magic.runtime.sweep``).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_STATE = "state.json"
CGROUPS = "cgroups"


class StateDirectory:
    """The directory of one container, made, locked and written by its supervisor through a descriptor."""

    def __init__(self, runtime_fd: int, container_id: str) -> None:
        self._runtime_fd = runtime_fd
        self._name = container_id
        # shared against the sweeper's exclusive lock: it must not see a directory whose lock is not yet held. A lock
        # belongs to an open file description, and the inherited one is that of all supervisors: hence one of our own
        with locked(runtime_fd, fcntl.LOCK_SH):
            os.mkdir(container_id, 0o700, dir_fd=runtime_fd)
            self._fd = os.open(container_id, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=runtime_fd)
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def fileno(self) -> int:
        """Return the directory's descriptor."""
        return self._fd

    def write_cgroups(self, paths: Sequence[str]) -> None:
        """Write where the container's groups will be, before they are made."""
        fd = os.open(CGROUPS, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=self._fd)
        try:
            os.write(fd, "\n".join(paths).encode())
        finally:
            os.close(fd)

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


@contextlib.contextmanager
def locked(fd: int, kind: int) -> Iterator[None]:
    """Hold a lock of ``kind`` (``fcntl.LOCK_SH``, ``LOCK_EX``) on the directory ``fd``."""
    own_fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
    try:
        fcntl.flock(own_fd, kind)
        try:
            yield
        finally:
            # whoever was forked meanwhile, by another thread, has the descriptor too: closing it here is not enough
            fcntl.flock(own_fd, fcntl.LOCK_UN)
    finally:
        os.close(own_fd)
