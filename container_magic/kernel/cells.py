"""The cells of a kernel, one at a time, for their figures."""

from __future__ import annotations

import signal
from dataclasses import replace

from container_magic.errors import StateError
from container_magic.events import Created, Deleted, Event, Exited, Limit, LimitReached, Started, Usage
from container_magic.folding import ReportBuilder
from container_magic.kernel.client_side import Request
from container_magic.kernel.message import Message
from container_magic.report import RunReport
from container_magic.runtime.request import RunRequest
from container_magic.runtime.run import Run


class Cells:
    """Tells the supervisor when a cell begins and ends, and keeps its reply until its figures are there.

    Args:
        run: The session that the kernel is.
        request: What began it; each cell has its time limit.
        wall_seconds: How long a cell may take.
    """

    def __init__(self, run: Run, request: RunRequest, wall_seconds: float | None) -> None:
        self._run = run
        watch = replace(request.spec.watch, wall_seconds=wall_seconds)
        self._request = replace(request, spec=replace(request.spec, watch=watch))
        self._wall_seconds = wall_seconds
        self._builder = ReportBuilder()
        self._limits: list[str] = []
        self._ended = False
        self.current: Request | None = None
        self.counts = False
        """Whether the present cell is counted already, and may begin."""
        self.reply: Message | None = None
        """Of the present cell, until its figures are there."""
        self.idle: Message | None = None
        """The news that the present cell is over, which stands behind the reply."""

    def begin(self, request: Request) -> None:
        """Have a cell counted."""
        self.current, self.counts, self.reply, self.idle = request, False, None, None
        self._builder = ReportBuilder()
        try:
            self._run.next_cell(self._request)
        except StateError:
            return  # it is dead; the events say how

    def keep_reply(self, request: Request, message: Message) -> bool:
        """Keep the reply to the present cell, and ask for its figures; False when it answers something else."""
        if self.current is None or request.name != self.current.name:
            return False
        self.reply = message
        self._run.end_cell(0 if message.content.get("status") == "ok" else 1)
        return True

    def give_up(self) -> None:
        """Wait no longer for the reply to the present cell: it may be lost."""
        if self.current is not None and self.counts and self.reply is None:
            self._run.end_cell(1)

    def keep_idle(self, message: Message) -> bool:
        """Keep the news that the present cell is over; False when it is not of the present cell."""
        if self.current is None or message.parent_id != self.current.name:
            return False
        self.idle = message
        return True

    def take(self, event: Event) -> RunReport | None:
        """Take an event of the session; return the report of a cell whose figures are complete."""
        if isinstance(event, Created) and self._wall_seconds is not None:  # each cell's, and not the session's
            limit = Limit(name="timeout", value=self._wall_seconds, by="supervisor's clock")
            event = replace(event, limits=(*event.limits, limit))
        self._builder.add(event)
        if isinstance(event, LimitReached):
            self._limits.append(event.limit)
        elif isinstance(event, Started):
            self.counts = self.current is not None
        elif isinstance(event, Exited):
            self._ended = not event.alive
            return self._builder.report() if event.alive and self.current is not None else None
        elif isinstance(event, Deleted) and not self._ended and self._limits:  # between two cells
            usage = self._run.session_usage or Usage()
            self._builder.add(Exited(exit_signal=signal.SIGKILL, oom_killed="memory" in self._limits, usage=usage))
        return None

    def leave(self) -> None:
        """Have done with the present cell."""
        self.current, self.counts = None, False
        self._builder = ReportBuilder()

    def last_report(self) -> RunReport:
        """Return how it ended."""
        return self._builder.report()
