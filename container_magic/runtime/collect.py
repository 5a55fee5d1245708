"""Files out, the supervisor's side: finds what the globs name in the tree of a dead container, and hands it on.

The root directory and the mount namespace are held from before the code runs, so that they outlive every process
inside: what is collected is what a run has left, however it ended, and nobody can change it meanwhile. Each step down
opens one name in one directory without following links (``O_NOFOLLOW``), so that no path from inside is ever resolved.

One message per file, its descriptor with it; the client answers each, so that at most one is on the way.
"""

from __future__ import annotations

import contextlib
import fnmatch
import json
import os
import re
import select
import socket
import stat
from collections.abc import Iterator, Sequence
from dataclasses import field
from typing import Any

from container_magic.deferred import dataclass
from container_magic.errors import HostError

MAX_FILES = 1000
MAX_TOTAL_BYTES = 1024 * 1024 * 1024
MAX_REFUSALS = 100
_MAX_LOOKED_AT = 200_000
_MAX_DEPTH = 64
_SHOWN = 1000
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
# what the kernel shows there are no files that anybody has written
_NEVER = frozenset({"proc", "sys", "dev"})


class RootHandle:
    """The root directory of a container, which stands as long as this is open.

    Raises:
        HostError: It cannot be opened.
    """

    def __init__(self, init_pid: int) -> None:
        try:
            # without its namespace the root would lose what is mounted below it as soon as the last process is dead
            self._namespace = os.open(f"/proc/{init_pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
            self.fd = os.open(f"/proc/{init_pid}/root", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise HostError(f"cannot keep the container's files for --out-file: {error.strerror}") from error

    def close(self) -> None:
        """Let go of it: nothing of the container's files is left then."""
        os.close(self.fd)
        os.close(self._namespace)


@dataclass(frozen=True, kw_only=True)
class Found:
    """A file that a glob names: the descriptor of its directory, its name there, and where the client puts it."""

    directory: int
    name: str
    target: str


@dataclass(kw_only=True)
class Collector:
    """Hands files to a client until there are no more, or too many."""

    client: socket.socket
    wakeup: int
    _files: int = 0
    _bytes: int = 0
    _refusals: int = 0
    _seen: set[str] = field(default_factory=set)

    def collect(self, root: int, cwd: str, globs: Sequence[str]) -> None:
        """Hand over every file that one of ``globs`` names, relative to ``cwd`` or absolute; never raises for a file.

        A client that is gone is none to collect for.
        """
        with contextlib.suppress(OSError):
            search = Search(root)
            for glob in globs:
                found = None
                for found in search.files(_parts(cwd), glob):
                    if not self._offer(found):
                        return self._end()
                if found is None:
                    self._refuse(glob, "no file matches")
                if search.exhausted:
                    self._refuse(glob, f"more than {_MAX_LOOKED_AT} names had to be looked at; the rest was not")
                    return self._end()
            self._end()
        return None

    def _offer(self, found: Found) -> bool:
        """Hand over one file or say why not; False when no more can be taken."""
        if found.target in self._seen:
            return True
        self._seen.add(found.target)
        reason = _unfit_name(found.target)
        if reason:
            self._refuse(ascii(found.target), reason)
            return self._refusals < MAX_REFUSALS
        if self._files >= MAX_FILES:
            self._refuse(found.target, f"{MAX_FILES} files were taken already, and no more are")
            return False
        try:
            fd, size = _open_file(found)
        except OSError as error:
            self._refuse(found.target, error.strerror or str(error))
            return self._refusals < MAX_REFUSALS
        try:
            self._hand_over(found.target, fd, size)
        finally:
            os.close(fd)
        return self._refusals < MAX_REFUSALS

    def _hand_over(self, target: str, fd: int, size: int) -> None:
        if self._bytes + size > MAX_TOTAL_BYTES:
            self._refuse(target, f"its {size} bytes are more than is left of {MAX_TOTAL_BYTES} for all files")
            return
        self._files += 1
        self._bytes += size
        self._send({"path": target, "size": size}, [fd])

    def _refuse(self, target: str, reason: str) -> None:
        self._refusals += 1
        self._send({"path": target[:_SHOWN], "refused": reason})

    def _end(self) -> None:
        self._send({"end": True})

    def _send(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        socket.send_fds(self.client, [json.dumps(message).encode()], fds)
        poll = select.poll()
        poll.register(self.client, select.POLLIN)
        poll.register(self.wakeup, select.POLLIN)
        ready = {fd for fd, _ in poll.poll()}
        if self.client.fileno() not in ready or not self.client.recv(16):
            raise ConnectionError("nobody takes files any more")


class Search:
    """Walks a tree by descriptors, one name at a time; ``exhausted`` when it had to look at too many."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._left = _MAX_LOOKED_AT

    @property
    def exhausted(self) -> bool:
        """Whether it gave up."""
        return self._left <= 0

    def files(self, cwd: Sequence[str], glob: str) -> Iterator[Found]:
        """Yield what ``glob`` names; the descriptors are closed when the next one is asked for.

        A target is relative to ``cwd``, and where a glob leads elsewhere to the part of it that is no pattern.
        """
        parts = _parts(glob) if glob.startswith("/") else [*cwd, *_parts(glob)]
        fixed = next((number for number, part in enumerate(parts) if _is_pattern(part)), len(parts) - 1)
        base = len(cwd) if parts[: len(cwd)] == list(cwd) and len(parts) > len(cwd) else fixed
        if parts and parts[0] not in _NEVER:
            yield from self._below(self._root, parts, (), base)

    def _below(self, directory: int, parts: Sequence[str], path: tuple[str, ...], base: int) -> Iterator[Found]:
        part, rest = parts[0], parts[1:]
        if len(path) >= _MAX_DEPTH:
            return
        if part == "**":
            if rest:
                yield from self._below(directory, rest, path, base)
            for name in self._names(directory, re.compile(fnmatch.translate("*"))):
                if not rest:
                    yield from self._file(directory, name, path, base)
                yield from self._enter(directory, name, parts, path, base)
            return
        names = self._names(directory, re.compile(fnmatch.translate(part)), part) if _is_pattern(part) else [part]
        for name in names:
            if rest:
                yield from self._enter(directory, name, rest, path, base)
            else:
                yield from self._file(directory, name, path, base)

    def _enter(
        self, directory: int, name: str, rest: Sequence[str], path: tuple[str, ...], base: int
    ) -> Iterator[Found]:
        if not path and name in _NEVER:
            return
        try:
            inner = os.open(name, _DIRECTORY, dir_fd=directory)
        except OSError:  # no directory, or a link to one
            return
        try:
            yield from self._below(inner, rest, (*path, name), base)
        finally:
            os.close(inner)

    def _file(self, directory: int, name: str, path: tuple[str, ...], base: int) -> Iterator[Found]:
        try:
            mode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
        except OSError:  # a name without a pattern, of nothing
            return
        if not stat.S_ISDIR(mode):
            yield Found(directory=directory, name=name, target="/".join((*path, name)[base:]))

    def _names(self, directory: int, pattern: re.Pattern[str], part: str = "*") -> list[str]:
        """Return the names that match, in order; as in a shell a leading dot is matched by a dot alone."""
        names = []
        with contextlib.suppress(OSError), os.scandir(directory) as entries:
            for entry in entries:
                self._left -= 1
                if self._left <= 0:
                    break
                if pattern.match(entry.name) and (part.startswith(".") or not entry.name.startswith(".")):
                    names.append(entry.name)
        return sorted(names)


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _is_pattern(part: str) -> bool:
    return any(character in part for character in "*?[")


def _unfit_name(target: str) -> str:
    if not target.isprintable():  # half characters of a name that is not UTF-8 are not printable either
        return "its name holds what is no text"
    return ""


def _open_file(found: Found) -> tuple[int, int]:
    """Return a descriptor and the size; of a device or pipe not even that is opened."""
    before = os.stat(found.name, dir_fd=found.directory, follow_symlinks=False)
    if not stat.S_ISREG(before.st_mode):
        kinds = {stat.S_IFLNK: "a link", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        raise OSError(0, f"it is {kinds.get(stat.S_IFMT(before.st_mode), 'a device')}, not a file")
    fd = os.open(found.name, _FILE, dir_fd=found.directory)
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        raise OSError(0, "it is not a file any more")
    return fd, status.st_size
