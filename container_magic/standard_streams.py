"""The standard streams of ``contain``: what a program reads, and what is not there."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import stat
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from container_magic.spec import ContainerSpec

_FOREGROUND_SECONDS = 0.1
"""How often a job in the background looks whether the terminal is its own by now."""


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
    # a job in the background that reads its terminal is stopped (SIGTTIN), whether the program wants input or not
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTTIN])
    with contextlib.suppress(OSError):
        while data := _read_stdin():
            write_all(writer, data)
    os.close(writer)


def _read_stdin() -> bytes:
    while True:
        try:
            return os.read(0, 65536)
        except OSError as error:
            if error.errno != errno.EIO or not os.isatty(0) or os.tcgetpgrp(0) == os.getpgrp():
                raise
        time.sleep(_FOREGROUND_SECONDS)


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
