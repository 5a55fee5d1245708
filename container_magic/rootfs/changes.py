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
from typing import Literal

from container_magic.deferred import dataclass
from container_magic.events import FilesChanged
from container_magic.rootfs.host import VIEW, Lower

MOST_ENTRIES = 50_000
MOST_DEPTH = 64
MOST_NAMES = 10
MOST_CHARACTERS = 1_000_000
"""Of all paths of a diff together."""
_NAME_CHARACTERS = 200
_PATH_CHARACTERS = 4096
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

ChangeKind = Literal["A", "C", "D"]
"""Added, changed, deleted, as in Docker's diff."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """An upper layer: the name of its directory, where it is mounted inside, and what lies below it.

    ``lower`` is a path that the supervisor sees, or a descriptor; empty: nothing lies below.
    """

    name: str
    path: bytes
    lower: str | int = ""


@dataclass(frozen=True, kw_only=True)
class Diff:
    """What differs from the moment before the code ran, by path; ``complete``: nothing else does."""

    changes: tuple[tuple[ChangeKind, str], ...]
    complete: bool


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """What stands in an upper layer; a whiteout stands for what was deleted (filesystems/overlayfs).

    ``over``: something of that name lies below.
    """

    path: bytes
    changed_ns: int
    deleted: bool
    directory: bool
    over: bool


class Layers:
    """The upper layers of one container, below the directory ``fd``, which this object owns.

    ``work`` is the layer of the working directory, if it has one.
    """

    def __init__(self, fd: int, lowers: Sequence[Lower], work: Place | None = None) -> None:
        self._fd = fd
        self._places = [Place(name="upper-root", path=b"", lower=f"{VIEW}/template")]
        self._places += [
            Place(name=f"upper-{number}", path=os.fsencode(lower.path), lower=lower.view)
            for number, lower in enumerate(lowers)
        ]
        self._places += [work] if work is not None else []
        self._before: Mapping[bytes, _Entry] = {}

    def begin(self) -> None:
        """Note what is there before the code runs: files of the runtime's own, those of a copy."""
        self._before = {entry.path: entry for entry in _Walk().entries(self._fd, self._places)}

    def changes(self, own: bytes = b"") -> FilesChanged:
        """Return which files have changed since ``begin``; ``own`` is one that the runtime itself has written since."""
        walk, seen, found = _Walk(), set(), []
        for entry in walk.entries(self._fd, self._places):
            seen.add(entry.path)
            if self._differs(entry) and entry.path != own and not entry.directory:
                found.append((entry.path, entry.deleted))
        if walk.complete:
            found += [(path, True) for path in sorted(self._gone(seen)) if not self._before[path].directory]
        first = found[:MOST_NAMES]
        return FilesChanged(
            count=len(found),
            written=tuple(_name(path) for path, deleted in first if not deleted),
            deleted=tuple(_name(path) for path, deleted in first if deleted),
            complete=walk.complete,
        )

    def diff(self, own: bytes = b"") -> Diff:
        """Return what has changed since ``begin`` as Docker does: with the directories on the way there."""
        walk = _Walk(look_below=True)
        seen: set[bytes] = set()
        found: dict[bytes, ChangeKind] = {}
        for entry in walk.entries(self._fd, self._places):
            seen.add(entry.path)
            if self._differs(entry) and entry.path != own:
                found[entry.path] = self._kind(entry)
        if walk.complete:
            gone = self._gone(seen)
            found |= dict.fromkeys((path for path in gone if os.path.dirname(path) not in gone), "D")
        tops = {place.path or b"/" for place in self._places}
        for path in tuple(found):
            while path not in tops and (path := os.path.dirname(path)) != b"/":
                found.setdefault(path, "C")
        changes: list[tuple[ChangeKind, str]] = []
        left = MOST_CHARACTERS
        for path, kind in sorted(found.items()):
            name = _name(path, _PATH_CHARACTERS)
            left -= len(name)
            if left < 0:
                break
            changes.append((kind, name))
        return Diff(changes=tuple(changes), complete=walk.complete and left >= 0)

    def _differs(self, entry: _Entry) -> bool:
        before = self._before.get(entry.path)
        if before is None:
            return True
        # what was hidden from the beginning and is not there now has not been deleted
        return before.changed_ns != entry.changed_ns and not (before.deleted and entry.deleted)

    def _kind(self, entry: _Entry) -> ChangeKind:
        if entry.deleted:
            return "D"
        before = self._before.get(entry.path)
        return "C" if (entry.over if before is None else not before.deleted) else "A"

    def _gone(self, seen: set[bytes]) -> set[bytes]:
        """Return what was only in the upper layer, and is no more."""
        return {path for path, entry in self._before.items() if path not in seen and not entry.deleted}

    def close(self) -> None:
        """Let the layers go."""
        os.close(self._fd)


class _Walk:
    """One look through all layers; ``complete`` says afterwards whether it has seen everything.

    ``look_below``: what lies below is looked at, too.
    """

    def __init__(self, *, look_below: bool = False) -> None:
        self.complete = True
        self._left = MOST_ENTRIES
        self._look_below = look_below

    def entries(self, fd: int, places: Sequence[Place]) -> Iterator[_Entry]:
        """Yield what stands in the layers, a directory before what is in it."""
        for place in places:
            lower = self._open_lower(place) if self._look_below else None
            yield from self._below(fd, os.fsencode(place.name), place.path, lower, 0)

    def _open_lower(self, place: Place) -> int | None:
        if isinstance(place.lower, int):
            return os.open(".", _DIRECTORY, dir_fd=place.lower)
        return _open_directory(place.lower, None)

    def _below(self, parent: int, name: bytes, path: bytes, lower: int | None, depth: int) -> Iterator[_Entry]:
        """Yield what is in a directory; closes ``lower``, the same directory below it."""
        with contextlib.ExitStack() as stack:
            if lower is not None:
                stack.callback(os.close, lower)
            if depth > MOST_DEPTH:
                self.complete = False
                return
            try:
                fd = os.open(name, _DIRECTORY, dir_fd=parent)
            except FileNotFoundError:
                return  # a lower without an overlay
            except OSError:
                self.complete = False
                return
            stack.callback(os.close, fd)
            if lower is not None and _is_opaque(fd):
                lower = None
            for child in self._names(fd):
                try:
                    status = os.stat(child, dir_fd=fd, follow_symlinks=False)
                except OSError:
                    self.complete = False
                    continue
                entry = _entry(path + b"/" + child, status, over=_is_in(lower, child))
                yield entry
                if entry.directory:
                    yield from self._below(fd, child, entry.path, _open_directory(child, lower), depth + 1)

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


def _entry(path: bytes, status: os.stat_result, *, over: bool) -> _Entry:
    return _Entry(
        path=path,
        changed_ns=status.st_ctime_ns,  # which nothing inside can set back
        deleted=stat.S_ISCHR(status.st_mode) and status.st_rdev == 0,
        directory=stat.S_ISDIR(status.st_mode),
        over=over,
    )


def _is_in(directory: int | None, name: bytes) -> bool:
    if directory is None:
        return False
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError:
        return False
    return True


def _open_directory(name: str | bytes, parent: int | None) -> int | None:
    """Return a descriptor of what lies below; None where nothing does, or nothing that can be looked at."""
    if not name or (parent is None and isinstance(name, bytes)):
        return None
    try:
        return os.open(name, _DIRECTORY, dir_fd=parent)
    except OSError:
        return None


def _is_opaque(fd: int) -> bool:
    """Whether a directory hides what lies below it: it was made where one had been deleted."""
    try:
        return os.getxattr(fd, "user.overlay.opaque") == b"y"
    except OSError:
        return False


def _name(path: bytes, most_characters: int = _NAME_CHARACTERS) -> str:
    """Return ``path`` as one short line of printable text."""
    text = path.decode("utf-8", "backslashreplace")
    text = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
    half = most_characters // 2
    return text if len(text) <= most_characters else f"{text[:half]}...{text[-half:]}"
