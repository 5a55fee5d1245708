"""Which files a run has changed, read from the upper layers of its overlays by the supervisor.

What stands there was made by the code: names are bytes that may hold anything, no link is followed, and how many
entries and how deep it looks is bounded.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from container_magic.events import FilesChanged
from container_magic.rootfs.host import Lower

MOST_ENTRIES = 50_000
MOST_DEPTH = 64
MOST_NAMES = 10
_NAME_CHARACTERS = 200

Snapshot = Mapping[bytes, int]
"""Path inside -> time of its last change (``st_ctime_ns``), which nothing inside can set back."""


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """What is no directory, in an upper layer; a whiteout stands for what was deleted (filesystems/overlayfs)."""

    path: bytes
    changed_ns: int
    deleted: bool


class Layers:
    """The upper layers of one container, below the directory ``fd``, which this object owns."""

    def __init__(self, fd: int, lowers: Sequence[Lower]) -> None:
        self._fd = fd
        self._places = [("upper-root", b"")]
        self._places += [(f"upper-{number}", os.fsencode(lower.path)) for number, lower in enumerate(lowers)]
        self._before: Snapshot = {}

    def begin(self) -> None:
        """Note what is there before the code runs: files of the runtime's own."""
        self._before = {entry.path: entry.changed_ns for entry in _Walk().entries(self._fd, self._places)}

    def changes(self, own: bytes = b"") -> FilesChanged:
        """Return what has changed since ``begin``; ``own`` is a file that the runtime itself has written since."""
        walk = _Walk()
        found = [
            entry
            for entry in walk.entries(self._fd, self._places)
            if self._before.get(entry.path) != entry.changed_ns and entry.path != own
        ]
        first = found[:MOST_NAMES]
        return FilesChanged(
            count=len(found),
            written=tuple(_name(entry.path) for entry in first if not entry.deleted),
            deleted=tuple(_name(entry.path) for entry in first if entry.deleted),
            complete=walk.complete,
        )

    def close(self) -> None:
        """Let the layers go."""
        os.close(self._fd)


class _Walk:
    """One look through all layers; ``complete`` says afterwards whether it has seen everything."""

    def __init__(self) -> None:
        self.complete = True
        self._left = MOST_ENTRIES

    def entries(self, fd: int, places: Sequence[tuple[str, bytes]]) -> Iterator[_Entry]:
        for name, path in places:
            yield from self._below(fd, os.fsencode(name), path, 0)

    def _below(self, parent: int, name: bytes, path: bytes, depth: int) -> Iterator[_Entry]:
        if depth > MOST_DEPTH:
            self.complete = False
            return
        try:
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        except FileNotFoundError:
            return  # a lower without an overlay
        except OSError:
            self.complete = False
            return
        try:
            for child in self._names(fd):
                try:
                    status = os.stat(child, dir_fd=fd, follow_symlinks=False)
                except OSError:
                    self.complete = False
                    continue
                below = path + b"/" + child
                if stat.S_ISDIR(status.st_mode):
                    yield from self._below(fd, child, below, depth + 1)
                else:
                    deleted = stat.S_ISCHR(status.st_mode) and status.st_rdev == 0
                    yield _Entry(path=below, changed_ns=status.st_ctime_ns, deleted=deleted)
        finally:
            os.close(fd)

    def _names(self, fd: int) -> list[bytes]:
        """Return the names in a directory, sorted, as many as may still be looked at."""
        names: list[bytes] = []
        with contextlib.suppress(OSError), os.scandir(fd) as listing:
            names = [os.fsencode(entry.name) for entry in itertools.islice(listing, self._left + 1)]
        if len(names) > self._left:
            names.pop()
            self.complete = False
        self._left -= len(names)
        return sorted(names)


def _name(path: bytes) -> str:
    """Return ``path`` as one short line of printable text."""
    text = path.decode("utf-8", "backslashreplace")
    text = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
    return (
        text if len(text) <= _NAME_CHARACTERS else f"{text[: _NAME_CHARACTERS // 2]}...{text[-_NAME_CHARACTERS // 2 :]}"
    )
