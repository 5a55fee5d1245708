"""One run, seen from the client: a request goes down, events come up."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Literal

from container_magic import errors
from container_magic.errors import ContainError, InternalError
from container_magic.events import (
    CodeError,
    Created,
    Deleted,
    Displayed,
    Event,
    Exited,
    Failed,
    LimitReached,
    Started,
    StreamName,
)
from container_magic.plan import Plan
from container_magic.planner import make_plan
from container_magic.process import handshake
from container_magic.runtime.client import Zygote, modules_of, zygote, zygote_for_one
from container_magic.runtime.output import OutputGate
from container_magic.runtime.pool import pool_key
from container_magic.runtime.worker import Worker
from container_magic.spec import ContainerSpec

if TYPE_CHECKING:
    from container_magic.runtime.channel import Channel

_READ_BYTES = 256 * 1024
_STREAMS: tuple[StreamName, ...] = ("stdout", "stderr")
_PIPE_BYTES = 1024 * 1024
_F_SETPIPE_SZ = 1031


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """What to run: the spec, the source (``None`` for a command), and what it reads on standard input.

    ``stdin`` is a descriptor that stays the caller's; None = /dev/null. ``warm`` is how many containers like this one
    are to wait for the next runs.
    """

    spec: ContainerSpec
    code: bytes | None
    stdin: int | None = None
    warm: int = 0
    html: Literal["text", "safe", "iframe"] = "safe"
    """What becomes of HTML that the code shows."""
    once: bool = False
    """Whether a zygote is started for this run alone."""


class Run:
    """A running container as an iterator of events, in order, ``Deleted`` last.

    Inside ``with``, Ctrl-C in the main thread becomes ``interrupt`` and the second one ``kill``; leaving the block
    before ``Exited`` ends the container, after it leaves the removal to the supervisor.
    """

    def __init__(self, request: RunRequest) -> None:
        self._begun = time.monotonic()
        self._request = request
        self._zygote: Zygote = (zygote_for_one if request.once else zygote)(modules_of(request.spec.process))
        self._zygote.runs.add(id(self))
        self._key: Hashable = None
        try:
            self._worker, self._from_pool = self._find_worker()
        except BaseException:
            self._zygote.runs.discard(id(self))
            raise
        self.plan = self._worker.plan
        self._gate = OutputGate(self.plan.spec.watch.output_bytes)
        self._events: deque[Event] = deque()
        self._created: Created | None = None
        self._finished = self._started = self._exited = self._flood_reported = False
        self._closed = False
        self._interrupts = 0
        self._streams: dict[int, StreamName] = {}
        self._channel: Channel | None = None
        self._channel_error = ""
        self._not_shown = 0
        self._poll = select.epoll()
        try:
            self._start()
        except BaseException:  # no descriptor left for the pipes: the container must not wait for an order for ever
            self.close()
            raise

    def _find_worker(self) -> tuple[Worker, bool]:
        """Return a worker that waits, or a new one, and whether it waited."""
        if self._request.warm > 0:
            with contextlib.suppress(OSError):  # what is wrong with a volume, the planner says better
                self._key = pool_key(self._request.spec)
        found = self._zygote.pool.take(self._key) if self._key is not None else None
        return (found, True) if found is not None else (self._new_worker(), False)

    def _new_worker(self) -> Worker:
        return Worker(self._zygote, plan_for(self._request.spec, self._zygote), keep=self._key is not None)

    def _start(self) -> None:
        """Send the order, with the far ends of fresh pipes."""
        with contextlib.ExitStack() as stack:
            stdin = self._request.stdin
            if stdin is None:
                stdin = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
                stack.callback(os.close, stdin)
            fds = [handshake.memory_file("code", self._request.code or b""), stdin]
            stack.callback(os.close, fds[0])
            for name in _STREAMS:
                reader, writer = _pipe()
                stack.callback(os.close, writer)
                self._streams[reader] = name
                fds.append(writer)
            if self._request.spec.process.shell != "script":
                fds.append(stack.enter_context(self._open_channel()).fileno())
            self._worker.start(fds)
        self._poll.register(self._worker.socket, select.EPOLLIN)
        if self._worker.created is not None:
            self._take(self._worker.created)

    def _open_channel(self) -> socket.socket:
        """Open a channel; return the payload's end."""
        from container_magic.runtime.channel import Channel  # what a script does without is not loaded for it

        ours, theirs = socket.socketpair()
        self._channel = Channel(ours, self._request.html)
        return theirs

    def reply(self, text: str | None) -> None:
        """Answer the code that asked for input (``InputAsked``); None: there is nobody to answer."""
        if self._channel is not None:
            self._channel.reply(text)
            self._wait_for_channel()

    def interrupt(self) -> None:
        """Send SIGINT to the code; what does not end within two seconds is killed."""
        self._worker.command("interrupt")

    def kill(self) -> None:
        """End the container now."""
        self._worker.command("kill")

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        while not self._events:
            if self._finished:
                raise StopIteration
            self._wait()
        event = self._events.popleft()
        if isinstance(event, Failed) and not self._started:
            self.close()
            raise _as_error(event)
        return event

    def fileno(self) -> int:
        """Return a descriptor that is readable when ``take`` has something to do."""
        return self._poll.fileno()

    def take(self) -> Iterator[Event]:
        """Yield the events that have come, without waiting.

        Raises:
            ContainError: As iterating does.
        """
        self._wait(0)
        while self._events:
            yield self.__next__()

    def _wait(self, timeout_seconds: float | None = None) -> None:
        # output before news: what was written before the end is shown before it; the channel between them
        ready = self._poll.poll(timeout_seconds)
        worker, channel = self._worker.socket.fileno(), self._channel.fileno() if self._channel is not None else -1
        for fd, _ in sorted(ready, key=lambda item: (item[0] == channel) + 2 * (item[0] == worker)):
            if fd in self._streams:
                self._read(fd)
            elif fd == channel:
                self._read_channel()
            else:
                self._receive()

    def _read(self, fd: int) -> bool:
        """Read once from a pipe; False when it has nothing or is at its end."""
        try:
            data = os.read(fd, _READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._close_stream(fd)
            return False
        self._events.extend(self._gate.feed(self._streams[fd], data))
        if self._gate.flooding and not self._flood_reported:
            self._flood_reported = True
            self._worker.command("kill", reason="output")
        return True

    def _read_channel(self) -> bool:
        """Read once from the channel; False when it has nothing, or no more will be taken."""
        channel = self._channel
        if channel is None:
            return False
        try:
            channel.pump()
            frames = channel.receive()
            for header, body in frames or ():
                # what was written before something is shown stands before it
                for fd in list(self._streams):
                    self._read_all(fd, _PIPE_BYTES)
                event = channel.handle(header, body)
                if event is not None:
                    self._events.append(event)
        except EOFError:
            self._close_channel()
            return False
        except ValueError as error:
            self._channel_error = str(error)
            self._close_channel()
            self._worker.command("kill", reason="output")
            return False
        self._wait_for_channel()
        return frames is not None

    def _wait_for_channel(self) -> None:
        """Wait for what the channel waits for, once it is waited for at all."""
        if self._channel is not None and self._started:
            self._poll.modify(self._channel, self._channel.events)

    def _close_channel(self) -> None:
        if self._channel is None:
            return
        if self._started:
            self._poll.unregister(self._channel)
        self._not_shown += self._channel.not_shown
        self._channel.close()
        self._channel = None

    def _read_all(self, fd: int, most_bytes: int) -> None:
        """Read what a pipe holds now; a writer that goes on writing does not hold this up."""
        before = self._gate.total_bytes
        while fd in self._streams and self._gate.total_bytes - before < most_bytes and self._read(fd):
            pass

    def _receive(self) -> None:
        for event in self._worker.receive():
            self._take(event)
            if isinstance(event, Failed) and self._must_start_anew():
                return
        if self._worker.lost and not self._finished and not self._must_start_anew():
            self._lose_supervisor()

    def _must_start_anew(self) -> bool:
        """Begin again with a new container when one that waited was no good; the code has not run."""
        if not self._from_pool or self._started:
            return False
        self._from_pool = self._finished = False
        self._created = None
        self._events.clear()
        self._poll.unregister(self._worker.socket)
        self._worker.close()
        self._close_streams()
        self._close_channel()
        with contextlib.suppress(ContainError, OSError):
            self._zygote.sweep()
        self._zygote.runs.discard(id(self))
        self._zygote = zygote(modules_of(self._request.spec.process))
        self._zygote.runs.add(id(self))
        self._worker = self._new_worker()
        self._start()
        return True

    def _take(self, event: Event) -> None:
        if isinstance(event, Created):
            if self._created is not None:
                return  # the next run's container
            plan = self.plan
            event = replace(event, limits=plan.limits, downgrades=(*plan.downgrades, *event.downgrades))
            self._created = event
        elif isinstance(event, Started):
            self._started = True
            for fd in self._streams:  # not before: the first output comes after the news that the code runs
                self._poll.register(fd, select.EPOLLIN)
            if self._channel is not None:
                self._poll.register(self._channel, select.EPOLLIN)
            event = replace(event, startup_seconds=round(time.monotonic() - self._begun, 6))
        elif isinstance(event, Exited):
            self._drain()
            self._exited = True
        elif isinstance(event, Deleted) and not self._exited and self._created is None:
            return  # the last of the container before
        if isinstance(event, (Deleted, Failed)) and (self._exited or not self._started):
            self._finished = isinstance(event, Deleted) or not self._started
        self._events.append(event)

    def _drain(self) -> None:
        """Every process of the container is dead: what the pipes hold now is all there will be."""
        while self._read_channel():
            pass
        self._close_channel()
        for fd in list(self._streams):
            while fd in self._streams and self._read(fd):
                pass
        self._events.extend(self._gate.finish())
        self._say_what_is_missing()
        if self._gate.exceeded and not self._flood_reported:
            self._events.append(LimitReached(limit="output"))

    def _say_what_is_missing(self) -> None:
        if self._not_shown:
            text = f"[... {self._not_shown:,} outputs not shown: a cell shows 1,000, of 64 MB ...]"
            self._events.append(Displayed(data={"text/plain": text}))
        if self._channel_error:
            self._events.append(CodeError(ename="ChannelError", evalue=self._channel_error))
            self._events.append(LimitReached(limit="output"))

    def _lose_supervisor(self) -> None:
        """The socket closed without ``Deleted``: the supervisor was killed; do what it can do no more."""
        self._finished = True
        if self._exited:
            return
        with contextlib.suppress(ContainError, OSError):
            self._zygote.sweep()
        self._drain()
        self._events.append(Failed(message="the supervisor of the container was killed; the container is gone"))
        if self._started:
            self._events.append(Exited(exit_signal=signal.SIGKILL))

    def close(self) -> None:
        """End the container if it still runs, and wait until it is gone; once more does nothing."""
        if self._closed:
            return
        self._closed = True
        self._zygote.runs.discard(id(self))
        self._close_streams()
        self._close_channel()
        self._poll.close()
        if not self._exited or self._worker.lost:
            self._worker.end()
            return
        size = self._request.warm
        missing = self._zygote.pool.put(self._key, self._worker, size)
        with contextlib.suppress(ContainError):  # what goes wrong with the next container is not this one's affair
            for _ in range(missing):
                self._zygote.pool.put(self._key, self._new_worker(), size)

    def _close_stream(self, fd: int) -> None:
        if self._started:
            with contextlib.suppress(KeyError):
                self._poll.unregister(fd)
        del self._streams[fd]
        os.close(fd)

    def _close_streams(self) -> None:
        for fd in list(self._streams):
            self._close_stream(fd)

    def __enter__(self) -> Run:
        _interruptible.add(self)
        return self

    def on_sigint(self) -> None:
        """Interrupt at the first Ctrl-C, kill at the second."""
        self._interrupts += 1
        if self._interrupts == 1:
            self.interrupt()
        else:
            self.kill()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _interruptible.remove(self)
        self.close()


class _Interruptible:
    """The runs that Ctrl-C in the main thread goes to: one handler for all, whatever order they end in."""

    def __init__(self) -> None:
        self._runs: list[Run] = []
        self._previous: Any = None

    def add(self, run: Run) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        if not self._runs:
            self._previous = signal.signal(signal.SIGINT, self._on_sigint)
        self._runs.append(run)

    def remove(self, run: Run) -> None:
        if run not in self._runs:
            return
        self._runs.remove(run)
        if not self._runs:
            signal.signal(signal.SIGINT, self._previous)

    def _on_sigint(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        for run in tuple(self._runs):
            run.on_sigint()


_interruptible = _Interruptible()


def plan_for(spec: ContainerSpec, at: Zygote | None = None) -> Plan:
    """Return what would be done for ``spec`` on this host; starts nothing but the zygote.

    Raises:
        ContainError: As ``make_plan``.
    """
    at = at or zygote(modules_of(spec.process))
    return make_plan(spec, at.features, at.tree.lowers, os.urandom(32).hex())


def _pipe() -> tuple[int, int]:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    with contextlib.suppress(OSError):  # more than fs.pipe-max-size or the user's share: a smaller pipe works too
        import fcntl

        fcntl.fcntl(writer, _F_SETPIPE_SZ, _PIPE_BYTES)
    return reader, writer


def _as_error(event: Failed) -> ContainError:
    kind = getattr(errors, event.kind, InternalError)
    if not (isinstance(kind, type) and issubclass(kind, ContainError)):
        kind = InternalError
    return kind(event.message, hint=event.hint)
