"""Both sides of a run's streams; made, where there is time for it, before there is a run."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket

from container_magic.deferred import dataclass

PIPE_BYTES = 1024 * 1024
_F_SETPIPE_SZ = 1031


@dataclass(frozen=True, kw_only=True)
class Ends:
    """Two pipes, reader and writer of each, for standard output and error, and the two sockets of a channel."""

    pipes: tuple[tuple[int, int], tuple[int, int]]
    channel: tuple[socket.socket, socket.socket]
    null: int
    """The null device, to read from: by that a shell knows that it may ask."""

    def close(self) -> None:
        """Close all of it."""
        for fd in (self.null, *self.pipes[0], *self.pipes[1]):
            os.close(fd)
        for end in self.channel:
            end.close()


def new_ends() -> Ends:
    """Return ends of which ours do not block.

    Raises:
        OSError: There is no descriptor left.
    """
    fds: list[int] = []
    try:
        first, second = _pipe(fds), _pipe(fds)
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        fds.append(null)
        near, far = socket.socketpair()
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
    near.setblocking(False)
    return Ends(pipes=(first, second), channel=(near, far), null=null)


def _pipe(fds: list[int]) -> tuple[int, int]:
    reader, writer = ends = os.pipe()
    fds += ends
    os.set_blocking(reader, False)
    with contextlib.suppress(OSError):  # more than fs.pipe-max-size or the user's share: a smaller pipe works too
        fcntl.fcntl(writer, _F_SETPIPE_SZ, PIPE_BYTES)
    return ends


class EndsAhead:
    """The ends of the next run."""

    def __init__(self) -> None:
        self._made: list[Ends] = []

    def make(self) -> None:
        """Make them now, unless they are there; nobody waits.

        Raises:
            OSError: There is no descriptor left.
        """
        if not self._made:
            self._made.append(new_ends())

    def take(self) -> Ends:
        """Return them.

        Raises:
            OSError: There is no descriptor left.
        """
        try:
            return self._made.pop()
        except IndexError:  # or another thread was quicker
            return new_ends()

    def close(self) -> None:
        """Close what nobody has taken."""
        while self._made:
            self._made.pop().close()
