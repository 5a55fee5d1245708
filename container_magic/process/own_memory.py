"""Memory that a fork shares with its parent for good: made private, so that a copy cannot change the original.

Whatever is mapped MAP_SHARED and writable stays one piece of memory after a fork: ``numpy.memmap``,
``multiprocessing.shared_memory``, tensors in shared memory (mmap(2), proc_pid_maps(5)).
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator

from container_magic.deferred import dataclass
from container_magic.linux import syscalls

_LINE = re.compile(r"^(\w+)-(\w+) .w.s (\w+) [\w:]+ (\d+) *(.*)$", re.MULTILINE)
_NO_MEMORY = ("/dev/", "anon_inode:")
_SHARED_MEMORY = ("/dev/shm/", "/dev/zero")


@dataclass(frozen=True, kw_only=True)
class _Mapping:
    """One shared, writable piece of memory: where it is, and which part of which file it shows."""

    start: int
    size_bytes: int
    offset_bytes: int
    inode: int
    path: str


def make_private() -> None:
    """Make every shared, writable mapping of this process a private one, in its place.

    A file is mapped anew copy-on-write; memory without a file is copied; what is neither, as a device, is taken away.

    Raises:
        OSError: The kernel refuses a mapping.
    """
    for mapping in list(_shared()):
        if mapping.path.startswith(_NO_MEMORY) and not mapping.path.startswith(_SHARED_MEMORY):
            syscalls.map_nothing(mapping.start, mapping.size_bytes)
            continue
        fd = _open(mapping)
        if fd is None:
            syscalls.map_copy(mapping.start, mapping.size_bytes)
        else:
            syscalls.map_private(mapping.start, mapping.size_bytes, fd, mapping.offset_bytes)
            os.close(fd)


def _shared() -> Iterator[_Mapping]:
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as file:
        text = file.read()
    for found in _LINE.finditer(text):
        start, end, offset, inode, path = found.groups()
        yield _Mapping(
            start=int(start, 16),
            size_bytes=int(end, 16) - int(start, 16),
            offset_bytes=int(offset, 16),
            inode=int(inode),
            path=path,
        )


def _open(mapping: _Mapping) -> int | None:
    """Return a descriptor of the file that is mapped, None when it is another one by that name, or none."""
    with contextlib.suppress(OSError):
        fd = os.open(mapping.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode) and status.st_ino == mapping.inode:
            return fd
        os.close(fd)
    return None
