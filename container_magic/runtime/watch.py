"""Watching a running container: limits that the kernel does not hold, samples, the interrupt's second step."""

from __future__ import annotations

import json
import mmap
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from container_magic.events import CodeError, Event, Exited, Interrupted, LimitName, LimitReached, MemoryHigh, Sampled
from container_magic.linux import syscalls
from container_magic.process import handshake
from container_magic.process.init import EXIT
from container_magic.process.slot import read_line
from container_magic.runtime.connection import Connection
from container_magic.runtime.high_mark import HighMark
from container_magic.runtime.measure import Gauge
from container_magic.runtime.shortage import Shortages
from container_magic.spec import Watch

if TYPE_CHECKING:
    from container_magic.runtime.control import Control

_HIGH_DELAY_SECONDS = 2.0
"""cgroup v2 puts who passes ``memory.high`` to sleep, up to so long, deaf to all but SIGKILL."""
_SAMPLE_SECONDS = 0.05
_SAMPLES = 64
_SHORTEST_CHECK_SECONDS = 0.005
_PENDING_BYTES = 65536
_MAX_TRACEBACK_LINES = 200


class Watcher:
    """Runs from ``start`` until init is dead, then knows how it ended."""

    def __init__(
        self,
        watch: Watch,
        gauge: Gauge,
        connection: Connection,
        sync: socket.socket,
        init_pidfd: int,
        watched_memory_bytes: int | None,
        payload_pid: int = 0,
        run: int = 0,
        slot: mmap.mmap | None = None,
        shortages: Shortages | None = None,
        high_mark: HighMark | None = None,
        control: Control | None = None,
    ) -> None:
        self._high_mark = high_mark
        self._high_seen = False
        self._shortages = shortages
        self._control = control
        self._payload_pid = payload_pid
        self._run = run
        self._slot = slot
        self._watch = watch
        self._gauge = gauge
        self._watched_memory_bytes = watched_memory_bytes
        self._connection = connection
        self._sync = sync
        self._pidfd = init_pidfd
        self._begun = 0.0
        self._cpus = len(os.sched_getaffinity(0))
        self._limit: LimitName | None = None
        self._interrupted = False
        self._interrupt_deadline = float("inf")
        self._interrupt_killed = False
        self._next_sample = 0.0
        self._samples = 0
        self._next_cpu_check = 0.0
        self._wall_seconds = 0.0
        self._exit: tuple[int, int, bytes] | None = None
        self._alone = self._leaving = False
        self._alive = self._seen_off = False

    def run(self, begun: float, settled: Callable[[], None] | None = None) -> bool:
        """Wait for the end; ``begun`` is when the code was started, ``settled`` is called if it runs for a while.

        Returns:
            Whether init is dead and waits to be reaped; else it is the last process, or the payload is about to exit,
            and the figures are complete, or the client has seen it off and has them: nobody has to wait until memory is
            freed and namespaces are taken down.

        Raises:
            ClientGoneError: The client's end is closed.
            ZygoteGoneError: The zygote died.
        """
        self._begin(begun)
        self._obey(self._connection.take_kept())
        poll = select.poll()
        for fd in (self._connection.socket, self._connection.wakeup, self._pidfd, self._sync):
            poll.register(fd, select.POLLIN)
        if self._control is not None:
            poll.register(self._control, select.POLLIN)
        client = self._connection.socket.fileno()
        alarm = self._high_mark.alarm if self._high_mark is not None else None
        if alarm is not None:
            poll.register(*alarm)
        while not self._seen_off:
            events = select.POLLIN | (select.POLLOUT if self._connection.pending_bytes else 0)
            poll.modify(client, events)
            timeout = self.tick()
            if self._samples and settled is not None:
                settled()
                settled = None
            ready = {fd for fd, _ in poll.poll(max(0.0, timeout) * 1000 + 0.5)}
            if self._sync.fileno() in ready and not self.read_exit():
                poll.unregister(self._sync)
            if self._leaving and self._gauge.settle(self._payload_pid):
                self._alive = True
                return False
            self._leaving = False  # init tells more when it is dead
            if self._alone:
                if self._gauge.settle():
                    self._alive = True
                    return False
                # it waits to be killed, and where no cgroup counts its death completes the figures
                self._alone = False
                syscalls.kill_process(self._pidfd)
            if self._pidfd in ready:
                self._wall_seconds = self._wall_seconds or time.monotonic() - self._begun
                return True
            if client in ready:
                self._connection.pump()
                self._obey(self._connection.receive())
            if self._connection.wakeup in ready:
                self._connection.check_wakeup()
            if self._high_mark is not None and alarm is not None and alarm[0] in ready:
                self._high_mark.heard()
            if self._control is not None and self._control.fileno() in ready:
                self._control.serve()
        return False

    def _begin(self, begun: float) -> None:
        self._begun = begun
        self._high_seen = False
        if self._high_mark is not None:
            self._high_mark.arm()
        self._next_sample = begun + _SAMPLE_SECONDS
        self._next_cpu_check = 0.0

    def tick(self) -> float:
        """Do what is due and return the seconds until something is due again."""
        now = time.monotonic()
        deadlines = [self._interrupt_deadline]
        if now >= self._interrupt_deadline:
            self._interrupt_killed = True
            self._kill()
            deadlines = []
        if self._watch.wall_seconds is not None:
            deadlines.append(self._begun + self._watch.wall_seconds)
            if now >= deadlines[-1]:
                self._end("wall")
                deadlines.pop()
        if self._high_mark is not None:
            if now >= self._high_mark.due:
                self._look_at_mark(self._high_mark, now)
            deadlines.append(self._high_mark.due)
        if now >= self._next_sample:
            self._sample(now)
        deadlines.append(self._next_sample)
        if self._watch.cpu_seconds is not None:
            if now >= self._next_cpu_check:
                self._check_cpu(now, self._watch.cpu_seconds)
            deadlines.append(self._next_cpu_check)
        return min(deadlines) - now

    def _sample(self, now: float) -> None:
        elapsed = now - self._begun
        self._next_sample = now + max(_SAMPLE_SECONDS, elapsed / _SAMPLES)
        self._samples += 1
        sample = self._gauge.sample()
        watched = self._watched_memory_bytes is not None and (sample.memory_bytes or 0) > self._watched_memory_bytes
        if sample.oom_kills or watched:
            # as memory.oom.group does: a half-killed program is no result
            self._end("memory")
        if self._connection.pending_bytes < _PENDING_BYTES:
            point = Sampled(time=elapsed, cpu_seconds=sample.cpu_seconds, memory_bytes=sample.memory_bytes)
            self._connection.send(point)

    def _look_at_mark(self, mark: HighMark, now: float) -> None:
        """Interrupt the code where it holds as much as ``--mem-high``, and again when it takes much of what is left."""
        held_bytes = mark.reached(now)
        if held_bytes is None:
            return
        if not self._high_seen:
            self._high_seen = True
            self._connection.send(MemoryHigh(limit_bytes=mark.high_bytes, usage_bytes=held_bytes))
        self._interrupt_for_memory()
        mark.move_on(held_bytes)

    def _interrupt_for_memory(self) -> None:
        self._interrupt(_HIGH_DELAY_SECONDS)

    def _answer_sample(self) -> None:
        """Send the figures of this moment to a client that asks; nothing else waits for it or comes later."""
        if self._connection.pending_bytes >= _PENDING_BYTES:
            return
        memory = self._gauge.memory_use()
        answer = Sampled(
            time=time.monotonic() - self._begun,
            cpu_seconds=self._gauge.sample().cpu_seconds,
            memory_bytes=memory.usage_bytes,
            working_set_bytes=memory.working_set_bytes,
            pids=self._gauge.tasks(),
            asked=True,
        )
        self._connection.send(answer)

    def _check_cpu(self, now: float, limit_seconds: float) -> None:
        used = self._gauge.sample().cpu_seconds or 0.0
        if used >= limit_seconds:
            self._end("cpu")
        # with all CPUs busy it cannot be reached earlier than this
        self._next_cpu_check = now + max(_SHORTEST_CHECK_SECONDS, (limit_seconds - used) / self._cpus)

    def _obey(self, frames: list[dict[str, Any]]) -> None:
        for frame in frames:
            if self._means_us(frame):
                self._command(frame["op"], frame)
            else:  # a client that has seen the payload off may be ahead of this process
                self._connection.keep(frame)

    def _means_us(self, frame: dict[str, Any]) -> bool:
        """Whether a frame is of the present run: an interrupt may come too late for the one before."""
        return frame.get("run") == self._run and "op" in frame

    def _command(self, operation: str, frame: dict[str, Any]) -> None:
        if operation == "interrupt":
            self._interrupt()
        elif operation == "sample":
            self._answer_sample()
        elif operation in ("seen_off", "hurry"):
            self._seen_off = True
            self._connection.hurried = operation == "hurry"
        elif operation == "kill" and frame.get("reason") == "output":
            self._end("output")
        elif operation == "kill":
            self._interrupted = self._interrupt_killed = True
            self._kill()

    def _interrupt(self, more_seconds: float = 0.0) -> None:
        """First SIGINT to the payload's group, a while later SIGKILL for all."""
        seconds = self._watch.interrupt_seconds
        if seconds is not None and self._interrupt_deadline == float("inf"):
            self._interrupt_deadline = time.monotonic() + seconds + more_seconds
        self._send_interrupt()

    def _send_interrupt(self) -> None:
        self._interrupted = True
        try:
            self._sync.send(handshake.SIGNAL + bytes([signal.SIGINT]))
        except OSError:
            return  # init is ending already

    def _end(self, limit: LimitName) -> None:
        if self._limit is None:
            self._limit = limit
        self._kill()

    def _kill(self) -> None:
        self._interrupt_deadline = float("inf")
        self._gauge.sample()  # the last look at processes that nobody will wait for
        syscalls.kill_process(self._pidfd)

    def read_exit(self) -> bool:
        """Take init's last word; False when there is none to come."""
        try:
            message = handshake.receive(self._sync)
        except OSError:
            return False
        if message[:1] in (handshake.EXITED, handshake.LEAVING) and len(message) >= 1 + EXIT.size:
            code, number, self._alone = EXIT.unpack_from(message, 1)
            self._leaving = message[:1] == handshake.LEAVING
            self._wall_seconds = self._wall_seconds or time.monotonic() - self._begun
            self._exit = (code, number, message[1 + EXIT.size :])
        return bool(message)

    def last_events(self) -> Iterator[Event]:
        """Yield how it ended: limits and interrupt, the code's own error, and ``Exited``; nothing the client knows."""
        if self._seen_off:
            return
        self._read_pending()
        oom_killed = self._gauge.oom_kills() > 0
        if self._limit is not None:
            yield LimitReached(limit=self._limit)
        elif oom_killed:
            yield LimitReached(limit="memory")
        if self._interrupted:
            yield Interrupted(killed=self._interrupt_killed)
        code, number, slot = self._exit or (0, signal.SIGKILL, b"")
        if code or number:
            yield from self._short_of(alive=self._alive)
        error = parse_error(slot)
        if error is not None:
            yield error
        usage = replace(self._gauge.usage(), wall_seconds=self._wall_seconds)
        ended_by_signal: dict[str, Any] = {"exit_signal": number} if number else {"exit_code": code}
        # who ended by itself has said where; of who was killed the shared slot tells
        line = read_line(self._slot) if self._slot is not None and (number or self._limit) else None
        yield Exited(**ended_by_signal, oom_killed=oom_killed, usage=usage, line=line)

    def _short_of(self, *, alive: bool) -> Iterator[Event]:
        if self._shortages is not None:
            for limit in self._shortages.met(alive=alive):
                yield LimitReached(limit=limit)

    def _read_pending(self) -> None:
        self._sync.setblocking(False)
        while self._exit is None and self.read_exit():
            pass


def parse_error(slot: bytes) -> CodeError | None:
    """Return the error that the payload says it ended with; whatever else stands in the slot is no error.

    The bytes come from inside: bounded by the slot, checked for types, never trusted for more than being shown.
    """
    if not slot:
        return None
    try:
        data = json.loads(slot)
        lines = tuple(str(line) for line in data["traceback"][:_MAX_TRACEBACK_LINES])
        return CodeError(ename=str(data["ename"]), evalue=str(data["evalue"]), traceback=lines)
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        return None
