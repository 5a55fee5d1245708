"""One run, seen from the client: a request goes down, events come up."""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import FrameType, TracebackType
from typing import Any

from container_magic import errors
from container_magic.errors import ContainError, InternalError
from container_magic.events import (
    Created,
    Deleted,
    Event,
    Exited,
    Failed,
    LimitReached,
    Started,
    StreamName,
    from_dict,
)
from container_magic.plan import Plan
from container_magic.planner import make_plan
from container_magic.process import handshake
from container_magic.runtime.client import Zygote, zygote
from container_magic.runtime.output import OutputGate
from container_magic.spec import ContainerSpec

_READ_BYTES = 256 * 1024
_PIPE_BYTES = 1024 * 1024
_F_SETPIPE_SZ = 1031


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """What to run: the spec, the source (``None`` for a command), and what it reads on standard input.

    ``stdin`` is a descriptor that stays the caller's; None = /dev/null.
    """

    spec: ContainerSpec
    code: bytes | None
    stdin: int | None = None


class Run:
    """A running container as an iterator of events, in order, ``Deleted`` last.

    Inside ``with``, Ctrl-C in the main thread becomes ``interrupt`` and the second one ``kill``; leaving the block
    early ends the container.
    """

    def __init__(self, request: RunRequest) -> None:
        self._begun = time.monotonic()
        self._zygote: Zygote = zygote()
        self.plan = plan_for(request.spec, self._zygote)
        self._gate = OutputGate(self.plan.spec.watch.output_bytes)
        self._events: deque[Event] = deque()
        self._reader = handshake.FrameReader()
        self._finished = self._started = self._exited = self._flood_reported = False
        self._interrupts = 0
        self._streams: dict[int, StreamName] = {}
        self._socket = self._submit(request)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)

    def _submit(self, request: RunRequest) -> socket.socket:
        ours, theirs = socket.socketpair()
        with contextlib.ExitStack() as stack:
            stack.callback(theirs.close)
            stdin = request.stdin
            if stdin is None:
                stdin = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
                stack.callback(os.close, stdin)
            fds = {"client": theirs.fileno(), "stdin": stdin}
            for name in ("stdout", "stderr"):
                reader, fds[name] = _pipe()
                stack.callback(os.close, fds[name])
                self._streams[reader] = name
            for name, data in (("plan", handshake.dump_plan(self.plan)), ("code", request.code or b"")):
                fds[name] = handshake.memory_file(name, data)
                stack.callback(os.close, fds[name])
            try:
                self._zygote.request(self.plan.spec.network, fds)
            except BaseException:
                ours.close()
                self._close_streams()
                raise
        with contextlib.suppress(OSError):  # a supervisor that is gone already is found out by reading
            ours.sendall(handshake.frame({"op": "start"}))
        ours.setblocking(False)
        return ours

    def interrupt(self) -> None:
        """Send SIGINT to the code; what does not end within two seconds is killed."""
        self._command({"op": "interrupt"})

    def kill(self) -> None:
        """End the container now."""
        self._command({"op": "kill"})

    def _command(self, frame: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            self._socket.send(handshake.frame(frame))

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

    def _wait(self) -> None:
        # output before news: what was written before the end is shown before it
        for fd, _ in sorted(self._poll.poll(), key=lambda item: item[0] == self._socket.fileno()):
            if fd in self._streams:
                self._read(fd)
            else:
                self._receive()

    def _read(self, fd: int) -> bool:
        """Read once from a pipe; False when it has nothing or is at its end."""
        try:
            data = os.read(fd, _READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            with contextlib.suppress(KeyError):
                self._poll.unregister(fd)
            del self._streams[fd]
            os.close(fd)
            return False
        self._events.extend(self._gate.feed(self._streams[fd], data))
        if self._gate.flooding and not self._flood_reported:
            self._flood_reported = True
            self._command({"op": "kill", "reason": "output"})
        return True

    def _receive(self) -> None:
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if not data:
            self._lose_supervisor()
            return
        for frame in self._reader.feed(data):
            self._take(from_dict(frame))

    def _take(self, event: Event) -> None:
        if isinstance(event, Created):
            self._created = event
        elif isinstance(event, Started):
            self._started = True
            for fd in self._streams:  # not before: the first output comes after the news that the code runs
                self._poll.register(fd, select.POLLIN)
            event = replace(event, startup_seconds=round(time.monotonic() - self._begun, 6))
        elif isinstance(event, Exited):
            self._drain()
            self._exited = True
        if isinstance(event, (Deleted, Failed)) and (self._exited or not self._started):
            self._finished = isinstance(event, Deleted) or not self._started
        self._events.append(event)

    def _drain(self) -> None:
        """Every process of the container is dead: what the pipes hold now is all there will be."""
        for fd in list(self._streams):
            while fd in self._streams and self._read(fd):
                pass
        self._events.extend(self._gate.finish())
        if self._gate.exceeded and not self._flood_reported:
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
        if self._socket.fileno() < 0:
            return
        if not self._finished:
            self._socket.setblocking(True)
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)
                while self._socket.recv(_READ_BYTES):
                    pass
        self._socket.close()
        self._close_streams()
        self._finished = True

    def _close_streams(self) -> None:
        for fd in self._streams:
            os.close(fd)
        self._streams.clear()

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
    at = at or zygote()
    return make_plan(spec, at.features, at.tree.lowers, secrets.token_hex(32))


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
