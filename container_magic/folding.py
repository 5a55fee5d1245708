"""From the events of a run to its report: a fold, one event at a time.

The verdict rests on what the host side said (``Exited``, ``LimitReached``, ``Interrupted``, ``Failed``), never
on what the code says of itself. A figure that the host could not give is None, never 0.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any

from container_magic.events import (
    Cleared,
    CodeError,
    Collected,
    Created,
    Displayed,
    Event,
    Exited,
    Failed,
    FilesChanged,
    Interrupted,
    LimitName,
    LimitReached,
    LogKept,
    MemoryHigh,
    NotCollected,
    Output,
    Returned,
    Sampled,
    Started,
    Usage,
)
from container_magic.report import ReportUsage, RunReport, Verdict, dropped_marker

SAMPLES_KEPT = 2048
"""Points of the curve that a report keeps; a longer run keeps fewer per second, of each group the highest."""


def fold(events: Iterable[Event]) -> RunReport:
    """Return the report of one run from its events."""
    builder = ReportBuilder()
    for event in events:
        builder.add(event)
    return builder.report()


class ReportBuilder:
    """Folds the events of one run, one at a time; holds the output and at most ``SAMPLES_KEPT`` points of the curve."""

    def __init__(self) -> None:
        self._created = Created(container_id="")
        self._started: Started | None = None
        self._exited: Exited | None = None
        self._failed: Failed | None = None
        self._interrupted = False
        self._reached: list[LimitName] = []
        self._memory_high: MemoryHigh | None = None
        self._error: CodeError | None = None
        self._text = {"stdout": _Text(), "stderr": _Text()}
        self._dropped_bytes = 0
        self._log_path: str | None = None
        self._changes: FilesChanged | None = None
        self._curve = _Curve()
        self._outputs = _Outputs()
        self._values: dict[str, Any] = {}
        self._files: list[Collected] = []
        self._files_refused: list[NotCollected] = []

    def add(self, event: Event) -> None:
        """Take the next event."""
        handler = _HANDLERS.get(type(event))
        if handler is not None:
            handler(self, event)

    def report(self) -> RunReport:
        """Return the report of what has been added so far."""
        exited, verdict = self._exited or Exited(), self._verdict()
        return RunReport(
            verdict=verdict,
            exit_code=exited.exit_code,
            exit_signal=exited.exit_signal,
            oom_killed=exited.oom_killed,
            timed_out="wall" in self._reached or "cpu" in self._reached,
            truncated=bool(self._dropped_bytes) or "output" in self._reached,
            stdout=self._text["stdout"].decoded(),
            stderr=self._text["stderr"].decoded(),
            outputs=self._outputs.bundles(),
            error=self._last_error(),
            files=tuple(self._files),
            files_refused=tuple(self._files_refused),
            usage=self._usage(exited.usage),
            limits=self._created.limits,
            limits_reached=tuple(self._reached),
            memory_high=self._memory_high,
            downgrades=self._created.downgrades,
            container_id=self._created.container_id,
            start=self._started.start if self._started else None,
            dropped_bytes=self._dropped_bytes,
            changes=self._changes,
            log_path=self._log_path,
            session=exited.session,
            line=exited.line,
            values=self._values if verdict in ("OK", "OUTPUT_LIMIT") else {},
        )

    def _verdict(self) -> Verdict:
        exited, reached = self._exited, self._reached
        if self._failed or exited is None:
            return "INTERNAL_ERROR"
        no_memory = exited.oom_killed or "memory" in reached
        rules: tuple[tuple[bool, Verdict], ...] = (
            (no_memory and self._memory_high is not None, "MEMORY_LIMIT"),  # the interrupt did not stop it
            (self._interrupted, "INTERRUPTED"),
            (no_memory, "MEMORY_LIMIT"),
            ("wall" in reached or "cpu" in reached, "TIME_LIMIT"),
            ("output" in reached, "OUTPUT_LIMIT"),
            (exited.exit_signal is not None, "SIGNALED"),
            (exited.exit_code != 0, "RUNTIME_ERROR"),
        )
        return next((verdict for holds, verdict in rules if holds), "OK")

    def _last_error(self) -> CodeError | None:
        if self._failed is None:
            return self._error
        hint = f"\nhint: {self._failed.hint}" if self._failed.hint else ""
        return CodeError(ename=self._failed.kind, evalue=f"{self._failed.message}{hint}")

    def _usage(self, usage: Usage) -> ReportUsage:
        return ReportUsage(
            **{name: getattr(usage, name) for name in _figures()},
            startup_seconds=self._started.startup_seconds if self._started else None,
            # what was done before it was asked for is no part of this start
            startup=dict(self._created.startup) if self._started and self._started.start == "cold" else {},
            samples=tuple(self._curve.points),
        )

    def _on_created(self, event: Created) -> None:
        self._created = event

    def _on_started(self, event: Started) -> None:
        self._started = event

    def _on_displayed(self, event: Displayed) -> None:
        self._outputs.add(event)

    def _on_cleared(self, event: Cleared) -> None:
        self._outputs.clear(event)

    def _on_sampled(self, event: Sampled) -> None:
        self._curve.add(event)

    def _on_collected(self, event: Collected) -> None:
        self._files.append(event)

    def _on_not_collected(self, event: NotCollected) -> None:
        self._files_refused.append(event)

    def _on_output(self, event: Output) -> None:
        self._text[event.stream].add(event)
        self._outputs.go_on()
        self._dropped_bytes += event.dropped_bytes

    def _on_limit(self, event: LimitReached) -> None:
        if event.limit not in self._reached:
            self._reached.append(event.limit)

    def _on_memory_high(self, event: MemoryHigh) -> None:
        self._memory_high = event

    def _on_interrupted(self, _event: Interrupted) -> None:
        self._interrupted = True

    def _on_code_error(self, event: CodeError) -> None:
        self._error = CodeError(
            ename=_encodable(event.ename),
            evalue=_encodable(event.evalue),
            traceback=tuple(_encodable(line) for line in event.traceback),
            printed=event.printed,
        )

    def _on_changes(self, event: FilesChanged) -> None:
        self._changes = event

    def _on_log(self, event: LogKept) -> None:
        self._log_path = event.path

    def _on_returned(self, event: Returned) -> None:
        self._values[event.name] = event.value

    def _on_exited(self, event: Exited) -> None:
        self._exited = event

    def _on_failed(self, event: Failed) -> None:
        self._failed = event


_HANDLERS: dict[type, Callable[[ReportBuilder, Any], None]] = {
    Created: ReportBuilder._on_created,
    Started: ReportBuilder._on_started,
    Output: ReportBuilder._on_output,
    Displayed: ReportBuilder._on_displayed,
    Cleared: ReportBuilder._on_cleared,
    Sampled: ReportBuilder._on_sampled,
    MemoryHigh: ReportBuilder._on_memory_high,
    LimitReached: ReportBuilder._on_limit,
    Interrupted: ReportBuilder._on_interrupted,
    CodeError: ReportBuilder._on_code_error,
    LogKept: ReportBuilder._on_log,
    FilesChanged: ReportBuilder._on_changes,
    Returned: ReportBuilder._on_returned,
    Collected: ReportBuilder._on_collected,
    NotCollected: ReportBuilder._on_not_collected,
    Exited: ReportBuilder._on_exited,
    Failed: ReportBuilder._on_failed,
}


@functools.cache
def _figures() -> tuple[str, ...]:
    return tuple(item.name for item in dataclasses.fields(Usage))


class _Text:
    """The bytes of one stream in pieces; between two pieces something was left out."""

    def __init__(self) -> None:
        self._pieces = [bytearray()]
        self._dropped: list[int] = []

    def add(self, event: Output) -> None:
        if event.dropped_bytes > 0:
            self._dropped.append(event.dropped_bytes)
            self._pieces.append(bytearray())
        self._pieces[-1] += event.data

    def decoded(self) -> str:
        first, *others = (piece.decode("utf-8", "replace") for piece in self._pieces)
        return first + "".join(
            dropped_marker(count) + piece for count, piece in zip(self._dropped, others, strict=True)
        )


class _Outputs:
    """What was shown, as a front end would hold it now; outputs of one name share what they show."""

    def __init__(self) -> None:
        self._shown: list[dict[str, Any]] = []
        self._named: dict[str, dict[str, Any]] = {}
        self._clears_next = False

    def add(self, event: Displayed) -> None:
        content: dict[str, Any] = {}
        if event.display_id is not None:
            content = self._named.get(event.display_id, content)
        content |= {"data": event.data, "metadata": event.metadata}
        if event.update:
            return  # no output of its own: it takes the place of what has its name, wherever that stands
        self.go_on()
        if event.display_id is not None:
            self._named[event.display_id] = content
        self._shown.append({"output_type": "execute_result" if event.result else "display_data", "content": content})

    def clear(self, event: Cleared) -> None:
        self._clears_next = event.wait
        if not event.wait:
            self._shown.clear()

    def go_on(self) -> None:
        """Clear what was to be cleared when the next thing comes."""
        if self._clears_next:
            self._shown.clear()
        self._clears_next = False

    def bundles(self) -> tuple[dict[str, Any], ...]:
        return tuple({"output_type": shown["output_type"], **shown["content"]} for shown in self._shown)


class _Curve:
    """Samples, thinned by groups of equal size so that a run of any length fits ``SAMPLES_KEPT`` points."""

    def __init__(self) -> None:
        self.points: list[Sampled] = []
        self._group_size = 1
        self._in_last_group = 0

    def add(self, sample: Sampled) -> None:
        if sample.asked:
            return  # between the others, and nobody's point of a curve
        if self.points and self._in_last_group < self._group_size:
            self.points[-1] = _higher(self.points[-1], sample)
            self._in_last_group += 1
            return
        if len(self.points) == SAMPLES_KEPT:
            self.points = [_higher(*pair) for pair in zip(self.points[::2], self.points[1::2], strict=True)]
            self._group_size *= 2
        self.points.append(sample)
        self._in_last_group = 1


def _higher(first: Sampled, second: Sampled) -> Sampled:
    return first if (first.memory_bytes or 0) > (second.memory_bytes or 0) else second


def _encodable(text: str) -> str:
    # JSON can carry a lone surrogate, UTF-8 and so the notebook's messages and files cannot
    return text.encode("utf-8", "replace").decode("utf-8")
