"""The standard streams of ``contain``: what a program reads, and what is not there."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from container_magic.spec import ContainerSpec


def take_standard_numbers() -> None:
    """Have the null device where a standard stream is closed: what is opened next would be taken for the stream."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)


def stdin_for(spec: ContainerSpec, *, code_is_stdin: bool) -> int | None:
    """Return what the program reads: a pipe that this process copies its own standard input into; None = nothing.

    The descriptor itself stays outside: a terminal or a socket can be written to as well, and a file can be opened
    anew through /proc/self/fd, for writing (CVE-2017-5226 and its like).
    """
    if code_is_stdin or spec.process.stdin_is_code or not is_open(0):
        return None
    if _is_null_device(0):
        return 0
    reader, writer = os.pipe()
    threading.Thread(target=_copy_stdin, args=(writer,), daemon=True).start()
    return reader


def _is_null_device(fd: int) -> bool:
    status = os.fstat(fd)
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == os.makedev(1, 3)


def _copy_stdin(writer: int) -> None:
    with contextlib.suppress(OSError):
        while data := os.read(0, 65536):
            write_all(writer, data)
    os.close(writer)


def is_open(fd: int) -> bool:
    """Return whether there is anything behind a descriptor."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def write_all(fd: int, data: bytes) -> None:
    """Write all of ``data`` to ``fd``, also when the caller's descriptor does not block.

    Raises:
        OSError: ``BrokenPipeError`` when nobody reads any more, and whatever else write(2) says.
    """
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except BlockingIOError:
            import select

            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            poll.poll()
