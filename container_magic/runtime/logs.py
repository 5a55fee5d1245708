"""The whole output of runs that wrote more than ``--max-output``: one file each, the last few are kept.

They lie below the user's state directory (XDG base directory specification: logs that may be kept and need not be),
not in the runtime directory, which is memory on most hosts.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator

from container_magic.deferred import dataclass
from container_magic.report import dropped_marker
from container_magic.runtime.state_home import open_state_directory, state_directory

KEPT_LOGS = 20
KEPT_BYTES = 1024**3
"""Of all logs together; the oldest are removed."""
LARGEST_BYTES = KEPT_BYTES // 2
"""Of one log; what is beyond is counted in its last line."""
HELD_BYTES = 32 * 1024 * 1024
"""How much of an output waits in memory until it is known whether a log is needed."""
_NAME = re.compile(r"([0-9a-f]{12,64})\.log")


@dataclass(frozen=True, kw_only=True)
class Log:
    """One log: the container whose output it is, its size in bytes, and when it was written (seconds since 1970)."""

    container_id: str
    path: str
    size_bytes: int
    written: float


def log_directory() -> str:
    """Return where logs are; empty where this user has no directory for state."""
    return state_directory("logs")


def kept_logs() -> list[Log]:
    """Return the logs that there are, the latest first."""
    directory, found = log_directory(), []
    with contextlib.suppress(OSError), os.scandir(directory or "/nonexistent") as entries:
        for entry in entries:
            match = _NAME.fullmatch(entry.name)
            with contextlib.suppress(OSError):
                if match and entry.is_file(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    written = status.st_mtime
                    found.append(
                        Log(container_id=match[1], path=entry.path, size_bytes=status.st_size, written=written)
                    )
    return sorted(found, key=lambda log: (log.written, log.path), reverse=True)


def read_log(log: Log) -> Iterator[bytes]:
    """Yield the bytes of ``log`` in pieces.

    Raises:
        OSError: It cannot be read, or was removed meanwhile.
    """
    with open(os.open(log.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        while data := file.read(65536):
            yield data


class OutputLog:
    """The output of one run as it comes, standard output and error in one: held in memory, then in a file.

    A log is a comfort: where none can be written, the run goes on without one.
    """

    def __init__(self) -> None:
        self._held: list[bytes] = []
        self._size = 0
        self._dropped = 0
        self._fd: int | None = None
        self._path = ""
        self._given_up = False

    def feed(self, data: bytes, container_id: str, *, exceeded: bool) -> None:
        """Take the next bytes; ``exceeded`` says whether the output is larger than what is shown of it."""
        if self._given_up:
            return
        self._held.append(data)
        self._size += len(data)
        if self._fd is not None or exceeded or self._size > HELD_BYTES:
            try:
                self._write(container_id)
            except OSError:
                self._remove()

    def finish(self, *, keep: bool) -> str:
        """Close the log and return its path; remove it where ``keep`` is False. Empty: there is none."""
        if self._fd is None:
            self._given_up = True
            self._held.clear()
            return ""
        if not keep:
            self._remove()
            return ""
        with contextlib.suppress(OSError):
            if self._dropped:
                os.write(self._fd, dropped_marker(self._dropped).encode())
        os.close(self._fd)
        self._fd, self._given_up = None, True
        _prune(self._path)
        return self._path

    def _write(self, container_id: str) -> None:
        if self._fd is None:
            self._open(container_id)
        assert self._fd is not None
        for data in self._held:
            rest = memoryview(data)[: max(0, LARGEST_BYTES - os.lseek(self._fd, 0, os.SEEK_CUR))]
            self._dropped += len(data) - len(rest)
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        self._held.clear()

    def _open(self, container_id: str) -> None:
        folder = open_state_directory("logs")
        try:
            name = f"{container_id}.log"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._fd = os.open(name, flags, 0o600, dir_fd=folder)
            self._path = f"{log_directory()}/{name}"
        finally:
            os.close(folder)

    def _remove(self) -> None:
        self._given_up = True
        self._held.clear()
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
            with contextlib.suppress(OSError):
                os.unlink(self._path)


def _prune(newest: str) -> None:
    """Remove the oldest logs beyond the number and the size that are kept."""
    total_bytes = 0
    for number, log in enumerate(kept_logs()):
        total_bytes += log.size_bytes
        if log.path != newest and (number >= KEPT_LOGS or total_bytes > KEPT_BYTES):
            with contextlib.suppress(OSError):
                os.unlink(log.path)
