"""One run, seen from the client: a request goes down, events come up."""

from __future__ import annotations

import contextlib
import select
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING

from container_magic.errors import StateError, error_of
from container_magic.events import (
    Created,
    Deleted,
    Event,
    Exited,
    Failed,
    LogKept,
    Sampled,
    Started,
    StreamName,
    Usage,
)
from container_magic.forks import importing
from container_magic.runtime.deliver import Delivery
from container_magic.runtime.ends import Ends
from container_magic.runtime.intake import Intake
from container_magic.runtime.interrupts import interruptible
from container_magic.runtime.logs import OutputLog
from container_magic.runtime.order import send_order
from container_magic.runtime.request import RunRequest
from container_magic.runtime.source import Source
from container_magic.runtime.sweep import await_end
from container_magic.runtime.why_over import why_over

if TYPE_CHECKING:
    from container_magic.languages.complaint import Complaint


class Run:
    """A running container as an iterator of events, in order, ``Deleted`` last.

    Inside ``with``, Ctrl-C in the main thread becomes ``interrupt`` and the second one ``kill``; leaving the block
    before ``Exited`` ends the container, after it leaves the removal to the supervisor.
    """

    def __init__(self, request: RunRequest) -> None:
        self._begun = time.monotonic()
        self._request = request
        self._delivery: Delivery | None = None
        self._created: Created | None = None
        self._finished = self._started = self._exited = False
        self._closed = self._alive = False
        self._cells = 0
        self.ended_because = ""
        """Of a session that is over: why."""
        self.session_usage: Usage | None = None
        self._hears = True
        """Whether an interrupt meets the code: before, it would be lost."""
        self._kept_interrupts: list[None] = []
        self._begun_said = False
        self._interrupts = 0
        self._idle_seconds: float | None = None
        self._on_idle: Callable[[], None] | None = None
        self._poll = select.epoll()
        self._source = Source(request)
        try:
            self._worker = self._source.take()
            self.plan = self._worker.plan
            # before all that can be done while the code runs: in a process that has slept each step takes long
            ends, has_begun = self._send_order()
        except BaseException:
            self._leave()
            self._source.reap()
            raise
        self._events: deque[Event] = deque()
        self._log = OutputLog()
        process = self.plan.spec.process
        self._complaint = _complaint_of(process.args[0]) if process.stdin_is_code else None
        self._intake = self._new_intake(ends)
        try:
            self._begin(has_begun)
        except BaseException:
            self.close()
            raise

    def _send_order(self) -> tuple[Ends, bool | None]:
        """Send the order with the far ends of fresh pipes; where that fails, end the container.

        Returns:
            The ends, and whether the payload has its order already; None: it is dead, and its code has not run.
        """
        ends: Ends | None = None
        try:
            ends = self._source.ends()
            if self._request.out_files:
                self._delivery = Delivery()
            return ends, send_order(self._request, self._worker, ends, self._delivery)
        except BaseException:  # no descriptor left: the container must not wait for an order for ever
            if ends is not None:
                ends.close()
            self._worker.end()
            raise

    def _begin(self, has_begun: bool | None) -> None:
        """Listen to whoever has the order; see to what the next run needs, now that there is nothing to do but wait."""
        if has_begun is None:
            self._start_anew()
            return
        self._poll.register(self._worker.socket, select.EPOLLIN)
        if self._delivery is not None:
            self._delivery.far_end.close()
            self._poll.register(self._delivery.socket, select.EPOLLIN)
        if self._worker.created is not None:
            self._take(self._worker.created)
        if has_begun:
            self._take(Started(start="warm"))
        self._source.tend()

    def _new_intake(self, ends: Ends) -> Intake:
        intake = Intake(
            self._poll,
            self.plan.spec.watch.output_bytes,
            end_run=lambda: self._worker.command("kill", reason="output"),
            cell_begun=self._hear_begun,
            cell_over=lambda code: self._worker.command("done", code=code),
            overhear=self._overhear,
        )
        request = self._request
        variables = request.variables
        html = request.html if request.has_channel else None
        intake.open(ends, html, variables.wanted if variables is not None else ())
        return intake

    def next_cell(self, request: RunRequest) -> None:
        """Run a session's next cell: its events follow, as those of a run.

        Raises:
            StateError: The session is over.
        """
        if not self.is_alive():
            raise StateError(f"the session is over: {self.ended_because or 'its process was killed'}")
        self._begun = time.monotonic()
        self._request = request
        self._started = self._exited = self._alive = False
        self._interrupts = 0
        # between two cells the interpreter forgets Ctrl-C; a kernel looks after that itself
        self._hears = request.spec.process.shell == "kernel"
        self._kept_interrupts.clear()
        self._log = OutputLog()
        self._idle_seconds = self._on_idle = None
        self._events = deque(event for event in self._events if not isinstance(event, Sampled))  # of no cell
        if self._created is not None:  # each cell's events begin with it: its report names container and limits
            self._events.append(self._created)
        self._worker.next_cell(request.spec.watch.wall_seconds)

    def end_cell(self, exit_code: int) -> None:
        """Say that a kernel's cell is over, whose end is not said on the channel."""
        self._worker.command("done", code=exit_code)

    def is_alive(self) -> bool:
        """Whether a session waits for its next cell; ``ended_because`` says why not."""
        if self._alive and not self._worker.lost:
            for event in self._worker.receive():
                self._note_end(event)
                if isinstance(event, Sampled):
                    self._events.append(event)  # somebody has asked for it
                self._alive = self._alive and not isinstance(event, (Deleted, Failed))
            if self._alive and self._worker.lost:  # killed: what it has left is removed here
                self._alive = False
                self._source.sweep()
        return self._alive and not self._closed

    def _note_end(self, event: Event) -> None:
        """Keep in words why a session is over."""
        self.ended_because = why_over(event, self.ended_because)

    @property
    def container_id(self) -> str:
        """Id of the container, empty before it is made."""
        return self._created.container_id if self._created is not None else ""

    def reply(self, text: str | None) -> None:
        """Answer the code that asked for input (``InputAsked``); None: there is nobody to answer."""
        self._intake.reply(text)

    def interrupt(self) -> None:
        """Send SIGINT to the code; what does not end within two seconds is killed."""
        self._kept_interrupts.append(None)
        self._pass_interrupts_on()

    def _pass_interrupts_on(self) -> None:
        """Send each that was kept, once, whichever threads do this at the same time."""
        while self._hears and self._kept_interrupts:
            with contextlib.suppress(IndexError):
                self._kept_interrupts.pop()
                self._worker.command("interrupt")

    @property
    def begun(self) -> bool:
        """Whether a kernel has its sockets ready."""
        return self._begun_said

    def ask_sample(self) -> None:
        """Ask for the figures of this moment: a ``Sampled`` that is ``asked`` comes as soon as the supervisor can.

        Nothing comes before the code was started and after the container's end; between two cells it comes, too. A
        client that does not read gets fewer.
        """
        self._worker.command("sample")

    def _hear_begun(self) -> None:
        self._begun_said = True
        self._hears = True
        self._pass_interrupts_on()

    def kill(self) -> None:
        """End the container now."""
        self._worker.command("kill")

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        while not self._events:
            if self._finished:
                raise StopIteration
            if self._exited and not self._alive:
                self._worker.hurry()  # somebody waits for the removal
            self._wait(self._idle_seconds)
            if not self._events and self._on_idle is not None:
                self._on_idle()
        event = self._events.popleft()
        if isinstance(event, Failed) and not self._started:
            self.close()
            raise error_of(event.kind, event.message, event.hint)
        return event

    def when_idle(self, seconds: float, call: Callable[[], None]) -> None:
        """Have ``call`` called whenever iterating has waited ``seconds`` for an event and none has come."""
        self._idle_seconds, self._on_idle = seconds, call

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
        # output before news: what was written before the end is shown before it
        ready = [fd for fd, _ in self._poll.poll(timeout_seconds)]
        for fd in sorted(ready, key=self._intake.rank):
            if fd == self._worker.socket.fileno():
                self._receive()
            elif self._delivery is not None and fd == self._delivery.socket.fileno():
                self._take_file(self._delivery)
            else:
                self._events.extend(self._intake.take(fd))
        is_over = self._intake.said_farewell and self._started and not self._exited
        if is_over and not self.plan.spec.process.session:  # whose channel is to live on, whatever its code says
            self._see_off()

    def _see_off(self) -> None:
        """End the run without its supervisor, if that can be: the code has ended well."""
        usage = self._worker.see_off()
        if usage is not None:
            self._take(Exited(exit_code=0, usage=usage))
        else:
            self._intake.said_farewell = False
            self._intake.decline_farewell()

    def _overhear(self, stream: StreamName, data: bytes, exceeded: bool) -> None:
        """Take what was written to a stream, for the log and for the errors of other languages."""
        self._log.feed(data, self.container_id, exceeded=exceeded)
        if self._complaint is not None and stream == "stderr":
            self._complaint.feed(data)

    def _let_go_of_variables(self) -> None:
        if self._request.variables is not None:
            self._request.variables.close()

    def _take_file(self, delivery: Delivery) -> None:
        event = delivery.receive()
        if event is None:
            self._end_delivery()
        else:
            self._events.append(event)

    def _end_delivery(self) -> None:
        if self._delivery is not None:
            with contextlib.suppress(OSError, ValueError):  # the poll is closed
                self._poll.unregister(self._delivery.socket)
            self._delivery.close()
            self._delivery = None

    def _receive(self) -> None:
        for event in self._worker.receive():
            self._take(event)
            if isinstance(event, Failed) and self._must_start_anew():
                return
        if self._worker.lost and not self._finished and not self._must_start_anew():
            self._lose_supervisor()

    def _must_start_anew(self) -> bool:
        """Begin again with a new container when one that waited was no good; the code has not run."""
        if not self._source.waited or self._started:
            return False
        self._start_anew()
        return True

    def _start_anew(self) -> None:
        self._finished = False
        self._created = None
        self._events.clear()
        self._worker.close()
        self._intake.close()
        self._end_delivery()
        self._worker = self._source.take_another()
        ends, has_begun = self._send_order()
        self._intake = self._new_intake(ends)
        self._begin(has_begun)

    def _take(self, event: Event) -> None:
        if self._finished:
            return  # of the next run's container
        self._note_end(event)
        if isinstance(event, Created):
            plan = self.plan
            event = replace(event, limits=plan.limits, downgrades=(*plan.downgrades, *event.downgrades))
            self._created = event
        elif isinstance(event, Started):
            self._started = True
            self._intake.listen()  # not before: the first output comes after the news that the code runs
            if self._cells and self._request.spec.process.shell != "kernel":
                request = self._request
                output_bytes = request.spec.watch.output_bytes
                self._intake.execute(request.code or b"", request.html, output_bytes, request.variables)
            self._let_go_of_variables()
            # one that was made for this run may stand before it has its order: it is cold all the same
            start = event.start if self._source.waited or self._cells else "cold"
            self._cells += 1
            event = replace(event, start=start, startup_seconds=round(time.monotonic() - self._begun, 6))
        elif isinstance(event, Exited):
            self._drain(alive=event.alive, well=event.exit_code == 0)
            self._add_complaint(event.exit_code)
            self._exited, self._alive, self.session_usage = True, event.alive, event.session
        elif isinstance(event, Deleted) and not self._exited and self._created is None:
            return  # the last of the container before
        elif isinstance(event, Deleted) and self._cells and not self._started:
            event = Failed(message="the session ended before its next cell began", kind="StateError")
        if isinstance(event, (Deleted, Failed)) and (self._exited or not self._started):
            self._finished = isinstance(event, Deleted) or not self._started
        self._events.append(event)

    def _drain(self, *, alive: bool = False, well: bool = False) -> None:
        self._events.extend(self._intake.drain(alive=alive, well=well))
        path = self._log.finish(keep=self._intake.exceeded)
        if path:
            self._events.append(LogKept(path=path))

    def _add_complaint(self, exit_code: int | None) -> None:
        """Add what an interpreter that is not Python's fork says of its failure."""
        error = self._complaint.error(exit_code) if self._complaint is not None else None
        if error is not None:
            self._events.append(error)

    def _lose_supervisor(self) -> None:
        """The socket closed without ``Deleted``: the supervisor was killed; do what it can do no more."""
        self._finished = True
        if self._exited and not self._alive:
            return
        if self._created is not None:
            await_end(self._created.supervisor_pid)
        self._source.sweep()
        self._drain()
        self._events.append(Failed(message="the supervisor of the container was killed; the container is gone"))
        if self._started and not self._exited:
            self._events.append(Exited(exit_signal=signal.SIGKILL))
        self._alive = False

    def close(self) -> None:
        """End the container if it still runs, and wait until it is gone; once more does nothing."""
        if self._closed:
            return
        self._closed = True
        if not self._source.is_own():
            return  # a child leaves it as it is: what it would close or unregister, it shares with its parent
        self._intake.close()
        self._log.finish(keep=False)
        self._leave()
        is_over = self._exited and not self._worker.lost and not self.plan.spec.process.session
        self._source.give_back(self._worker, is_over=is_over)

    def _leave(self) -> None:
        """Let go of all that a run has but its container and what comes of it."""
        self._source.leave()
        self._let_go_of_variables()
        self._end_delivery()
        self._poll.close()

    def __enter__(self) -> Run:
        interruptible.add(self)
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
        interruptible.remove(self)
        self.close()


def _complaint_of(program: str) -> Complaint:
    with importing:  # patterns that only other languages than Python need
        from container_magic.languages.complaint import Complaint

    return Complaint(program)
