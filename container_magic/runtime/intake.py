"""What comes straight from the payload: two pipes and, from a shell, a channel; bounded, in the order it was meant."""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from container_magic.events import CodeError, Displayed, Event, LimitReached, Returned, StreamName
from container_magic.forks import importing
from container_magic.process.channel import FAREWELL
from container_magic.runtime.ends import PIPE_BYTES, Ends
from container_magic.runtime.output import OutputGate

if TYPE_CHECKING:
    from container_magic.runtime.channel import Channel
    from container_magic.runtime.variables import Variables
    from container_magic.sanitize.bundle import HtmlMode

_READ_BYTES = 256 * 1024


class Intake:
    """The client's ends of a payload's standard output, standard error and channel.

    ``poll`` is told what to wait for, once ``listen`` is called. ``end_run`` is called when more comes than anybody
    can want, or what is no frame; ``cell_begun`` when a session's next cell listens to interrupts, ``cell_over``, with
    its exit code, when the payload says that it is over. ``overhear`` gets all that is written, and whether it is more
    than is shown.
    """

    def __init__(
        self,
        poll: select.epoll,
        output_bytes: int,
        end_run: Callable[[], None],
        cell_begun: Callable[[], None],
        cell_over: Callable[[int], None],
        overhear: Callable[[StreamName, bytes, bool], None],
    ) -> None:
        self._poll = poll
        self._end_run = end_run
        self._cell_begun = cell_begun
        self._cell_over = cell_over
        self._overhear = overhear
        self._gate = OutputGate(output_bytes)
        self._streams: dict[int, StreamName] = {}
        self._far_ends: list[int] = []
        self._end: socket.socket | None = None
        self._html: HtmlMode = "safe"
        self._channel: Channel | None = None
        self._wanted: tuple[str, ...] = ()
        self._values: dict[str, Any] = {}
        self._channel_error = ""
        self._not_shown = 0
        self._listening = self._flood_reported = False
        self.said_farewell = False
        """The code has ended well, as the payload says, which is about to exit."""

    def open(self, ends: Ends, html: HtmlMode | None, wanted: Sequence[str] = ()) -> None:
        """Take these pipes, and this channel unless ``html`` is None; the code returns the variables ``wanted``.

        The payload's ends stay open here too: that they are closed is no news, and would wake this process just when
        supervisor and init need the CPUs to say how it ended.
        """
        (out, far_out), (err, far_err) = ends.pipes
        self._streams = {out: "stdout", err: "stderr"}
        self._far_ends = [far_out, far_err, ends.null]
        near, far = ends.channel
        self._far_ends.append(far.detach())
        if html is not None:
            self._end = near
            self._html, self._wanted = html, tuple(wanted)
        else:
            near.close()

    @property
    def exceeded(self) -> bool:
        """Whether more was written than is shown."""
        return self._gate.exceeded

    def listen(self) -> None:
        """Wait for what comes, from now on; once more does nothing."""
        if self._listening:
            return
        self._listening = True
        for fd in self._streams:
            self._poll.register(fd, select.EPOLLIN)
        if self._end is not None:
            self._poll.register(self._end, select.EPOLLIN)

    def rank(self, fd: int) -> int:
        """Return when to take what is ready at ``fd``: 0 a pipe, 1 the channel, 2 it is neither."""
        if fd in self._streams:
            return 0
        return 1 if self._end is not None and self._end.fileno() == fd else 2

    def take(self, fd: int) -> Iterator[Event]:
        """Read once from ``fd`` and yield what that brings."""
        return self._read(fd) if fd in self._streams else self._read_channel()

    def execute(self, source: bytes, html: HtmlMode, output_bytes: int, variables: Variables | None) -> None:
        """Send a session's next cell, whose caps are its own."""
        self._gate = OutputGate(output_bytes)
        self._flood_reported, self._not_shown, self._values = False, 0, {}
        self._wanted = variables.wanted if variables is not None else ()
        channel = self._open_channel()
        if channel is not None:
            channel.execute(source, html, variables)
            self._wait_for_channel()

    def decline_farewell(self) -> None:
        """Let the payload say farewell to somebody else."""
        if self._end is not None:
            with contextlib.suppress(OSError):  # it is dead
                self._end.shutdown(socket.SHUT_WR)

    def reply(self, text: str | None) -> None:
        """Answer the code that asked for input."""
        if self._channel is not None:
            self._channel.reply(text)
            self._wait_for_channel()

    def drain(self, *, alive: bool = False, well: bool = False) -> Iterator[Event]:
        """Yield the rest: every process is dead (or a session's cell over), and what the ends hold now is all.

        ``well``: the code ended without an error, and is to have returned what was wanted of it.
        """
        if not alive:
            while self._peek():
                yield from self._read_channel()
            self._close_channel()
        elif self._channel is not None:
            self._note(self._channel)
        for fd in list(self._streams):
            yield from self._read_all(fd)
        yield from self._gate.finish()
        if self._not_shown:
            text = f"[... {self._not_shown:,} outputs not shown: a cell shows 1,000, of 64 MB ...]"
            yield Displayed(data={"text/plain": text})
        if self._channel_error:
            yield CodeError(ename="ChannelError", evalue=self._channel_error)
            yield LimitReached(limit="output")
        elif self._gate.exceeded and not self._flood_reported:
            yield LimitReached(limit="output")
        if well and not self._channel_error:
            yield from _returned(self._wanted, self._values)

    def close(self) -> None:
        """Close our ends; once more does nothing."""
        for fd in list(self._streams):
            self._close_stream(fd)
        self._close_channel()
        while self._far_ends:
            os.close(self._far_ends.pop())

    def _read(self, fd: int) -> Iterator[Event]:
        try:
            data = os.read(fd, _READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._close_stream(fd)
            return
        yield from self._gate.feed(self._streams[fd], data)
        if not self._flood_reported:  # nobody can want the rest of a flood
            self._overhear(self._streams[fd], data, self._gate.exceeded)
        if self._gate.flooding and not self._flood_reported:
            self._flood_reported = True
            self._end_run()

    def _read_all(self, fd: int) -> Iterator[Event]:
        """Read what a pipe holds now; a writer that goes on writing does not hold this up."""
        begun_bytes, before = self._gate.total_bytes, -1
        while fd in self._streams and before != self._gate.total_bytes < begun_bytes + PIPE_BYTES:
            before = self._gate.total_bytes
            yield from self._read(fd)

    def _read_channel(self) -> Iterator[Event]:
        if self._channel is None and self._hear(self._peek(len(FAREWELL))):
            return
        channel = self._open_channel()
        if channel is None:
            return
        try:
            for number, (header, body) in enumerate(channel.receive()):
                # what was written before something is shown stands before it; who sends a second frame without having
                # waited for the answer to the first asks for no order
                for fd in list(self._streams) if number == 0 else ():
                    yield from self._read_all(fd)
                event = channel.handle(header, body)
                if event is not None:
                    yield event
                if channel.begun:
                    self._cell_begun()
                if channel.done is not None:
                    self._cell_over(channel.done)
                self.said_farewell = channel.said_farewell
        except EOFError:
            self._close_channel()
        except ValueError as error:
            self._channel_error = str(error)
            self._close_channel()
            self._end_run()
        self._wait_for_channel()

    def _hear(self, first: bytes | None) -> bool:
        """Hear what nobody has to understand: the end, or a farewell, of code that has never shown anything."""
        if first == b"":
            self._close_channel()
        elif first == FAREWELL and self._end is not None:
            self._end.recv(len(FAREWELL))
            self.said_farewell = True
        else:
            return False
        return True

    def _open_channel(self) -> Channel | None:
        """Return the channel; what reads it is loaded when something comes, for most code shows nothing."""
        if self._channel is None and self._end is not None:
            with importing:
                from container_magic.runtime.channel import Channel

            self._channel = Channel(self._end, self._html, self._wanted)
        return self._channel

    def _peek(self, most_bytes: int = 1) -> bytes | None:
        """Return the first bytes that were not read of the channel, none at its end, None when nothing is there."""
        if self._end is None:
            return None
        try:
            return self._end.recv(most_bytes, socket.MSG_PEEK)
        except OSError as error:
            return None if isinstance(error, BlockingIOError) else b""

    def _wait_for_channel(self) -> None:
        if self._channel is not None and self._listening:
            self._poll.modify(self._channel, self._channel.events)

    def _close_channel(self) -> None:
        if self._end is None:
            return
        if self._listening:
            self._poll.unregister(self._end)
        if self._channel is not None:
            self._note(self._channel)
            self._channel.close()
        self._end.close()
        self._end = self._channel = None

    def _note(self, channel: Channel) -> None:
        """Keep what a cell that is over has left."""
        self._not_shown += channel.not_shown
        self._values = channel.returns.values if channel.returns is not None else {}

    def _close_stream(self, fd: int) -> None:
        if self._listening:
            with contextlib.suppress(KeyError):
                self._poll.unregister(fd)
        del self._streams[fd]
        os.close(fd)


def _returned(wanted: Sequence[str], values: Mapping[str, Any]) -> Iterator[Event]:
    missing = ", ".join(name for name in wanted if name not in values)
    if missing:
        yield CodeError(ename="OutputError", evalue=f"--output: the code ended before it could return {missing}")
        return
    for name in wanted:
        yield Returned(name=name, value=values[name])
