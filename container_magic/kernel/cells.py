"""The cells of a kernel, for their figures: one at a time runs, those behind it wait inside."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from container_magic.errors import StateError
from container_magic.events import Deleted, Event, Exited, LimitReached, Started, Usage
from container_magic.kernel.client_side import Request
from container_magic.kernel.message import Message
from container_magic.report import ReportBuilder, RunReport
from container_magic.runtime.request import RunRequest
from container_magic.runtime.run import Run


class Cells:
    """Tells the supervisor when cells begin and end, and keeps the end of each until its figures are there.

    Args:
        run: The session that the kernel is.
        request: What began it; each cell has its time limit.
        wall_seconds: How long a cell may take.
    """

    def __init__(self, run: Run, request: RunRequest, wall_seconds: float | None) -> None:
        self._run = run
        watch = replace(request.spec.watch, wall_seconds=wall_seconds)
        self._request = replace(request, spec=replace(request.spec, watch=watch))
        self._queue: deque[Request] = deque()
        self._builder = ReportBuilder()
        self._counts = self._said = False
        self._exit_code = 0
        self._limit_reached = self._ended = False
        self.current: Request | None = None
        self.holds = False
        """Whether the present cell has to wait until it is counted."""
        self.reply: list[Message] = []
        """The present cell's reply, which waits for its figures."""
        self.idle: Message | None = None
        """The news that the present cell is over, which stands behind the reply."""

    def add(self, request: Request) -> None:
        """Take note of a request to run a cell."""
        if self.current is None:
            self._begin(request)
            self.holds = self.current is not None
        else:
            self._queue.append(request)

    def _begin(self, request: Request) -> None:
        try:
            self._run.next_cell(self._request)
        except StateError:
            return  # it is dead; the events say how
        self.current, self.reply, self.idle = request, [], None
        self._counts = self._said = False
        self._builder = ReportBuilder()

    def replied(self, request: Request, messages: list[Message], *, well: bool) -> bool:
        """Keep the reply to the present cell, which ended ``well`` or not; False for one that is not counted."""
        if self.current is None or request.header.msg_id != self.current.header.msg_id or self.reply:
            if request in self._queue:
                self._queue.remove(request)
            return False
        self.reply, self._exit_code = messages, 0 if well else 1
        self._say_end()
        return True

    def keep_idle(self, message: Message) -> bool:
        """Keep the news that the present cell is over; False when it is not of the present cell."""
        if self.current is None or message.parent_id != self.current.header.msg_id:
            return False
        self.idle = message
        return True

    def _say_end(self) -> None:
        if self._counts and self.reply and not self._said:
            self._said = True
            self._run.end_cell(self._exit_code)

    def take(self, event: Event) -> RunReport | None:
        """Take an event of the session; return the report of a cell whose figures are complete."""
        self._builder.add(event)
        if isinstance(event, LimitReached):
            self._limit_reached = self._limit_reached or event.limit == "memory"
        elif isinstance(event, Started) and self.current is not None:
            self._counts, self.holds = True, False
            self._say_end()
        elif isinstance(event, Exited):
            self._ended = not event.alive
            if event.alive and self.current is not None:
                return self._builder.report()
        elif isinstance(event, Deleted) and not self._ended:  # between two cells: nobody says how its process ended
            usage = self._run.session_usage or Usage()
            self._builder.add(Exited(exit_signal=9, oom_killed=self._limit_reached, usage=usage))
        return None

    def next(self) -> None:
        """Go on to the next cell, if one waits inside."""
        self.current = None
        self._builder = ReportBuilder()
        if self._queue:
            self._begin(self._queue.popleft())

    def left(self) -> list[Request]:
        """Return the cells that were not replied to, the one that ran first."""
        return [*([self.current] if self.current is not None else []), *self._queue]

    def last_report(self) -> RunReport:
        """Return how it ended."""
        return self._builder.report()
