"""Watching a session: cells of one process, each with its own clock and figures, the limits over all of them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from container_magic.events import Event, Exited, Interrupted, LimitReached, Started, Usage
from container_magic.process.slot import clear, read_error
from container_magic.runtime.measure import Gauge
from container_magic.runtime.watch import Watcher, parse_error

_CHECK_SECONDS = 3600.0
_FOR_EVER_SECONDS = 1e9
_COUNTERS = (
    "cpu_seconds",
    "cpu_user_seconds",
    "cpu_system_seconds",
    "throttled_seconds",
    "io_read_bytes",
    "io_write_bytes",
)


class CellMeter:
    """What one cell of a session has used: differences of the container's figures, and a peak that starts anew."""

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self._before = Usage()
        self._highest_bytes = 0
        self._peak_is_own = True  # the container's figures began with its first cell

    def begin(self) -> None:
        """Count from here."""
        self._before = self._now()
        self._highest_bytes = max(self._highest_bytes, self._before.memory_peak_bytes or 0)
        self._peak_is_own = self._gauge.restart_peak()

    def _now(self) -> Usage:
        usage = self._gauge.usage()
        if usage.cpu_seconds is None:
            usage = replace(usage, cpu_seconds=self._gauge.sample().cpu_seconds)
        return usage

    def cell(self, wall_seconds: float) -> tuple[Usage, Usage]:
        """Return what the cell has used, and what the session has."""
        now = self._now()
        own = {name: _difference(getattr(now, name), getattr(self._before, name)) for name in _COUNTERS}
        peak = now.memory_peak_bytes
        if not self._peak_is_own and peak is not None and peak <= self._highest_bytes:
            peak = None  # an earlier cell's, as far as the kernel tells
        cell = replace(now, **own, memory_peak_bytes=peak, wall_seconds=wall_seconds)
        highest = max(self._highest_bytes, now.memory_peak_bytes or 0)
        return cell, replace(now, memory_peak_bytes=highest or None, wall_seconds=None)


def _difference(now: float | None, before: float | None) -> Any:
    return None if now is None else now - (before or 0)


class SessionWatcher(Watcher):
    """Runs from the first cell's start until init is dead; the end of a cell is the client's word, or the end."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._meter = CellMeter(self._gauge)
        self._idle_deadline = float("inf")

    @property
    def _is_idle(self) -> bool:
        return self._idle_deadline != float("inf")

    def tick(self) -> float:
        """Do what is due and return the seconds until something is due again; nothing is sampled between cells."""
        if not self._is_idle:
            return super().tick()
        left = self._idle_deadline - time.monotonic()
        if left <= 0:
            self._end("idle")
            return _CHECK_SECONDS
        return min(left, _CHECK_SECONDS)

    def _command(self, operation: str, frame: dict[str, Any]) -> None:
        if operation == "cell":
            self._begin_cell(frame)
        elif operation == "done" and not self._is_idle:
            self._end_cell(frame["code"])
        elif not self._is_idle or operation in ("kill", "sample"):
            super()._command(operation, frame)
        elif operation == "interrupt" and self._watch.interrupt_seconds is None:
            self._interrupt()
            self._interrupted = False

    def _means_us(self, frame: dict[str, Any]) -> bool:
        return super()._means_us(frame) or frame.get("op") == "cell"

    def _interrupt_for_memory(self) -> None:
        """Interrupt, and kill nobody who does not listen: the session's state is to survive, and the limit stands."""
        self._send_interrupt()

    def _begin_cell(self, frame: dict[str, Any]) -> None:
        self._run = frame["run"]
        self._watch = replace(self._watch, wall_seconds=frame["wall_seconds"])
        self._idle_deadline = float("inf")
        self._meter.begin()
        if self._shortages is not None:
            self._shortages.begin_cell()
        self._begin(time.monotonic())
        self._connection.send(Started(start="warm"))

    def _end_cell(self, code: int) -> None:
        usage, session = self._meter.cell(time.monotonic() - self._begun)
        if self._interrupted:
            self._connection.send(Interrupted())
        if code:
            self._connection.send(*self._short_of(alive=True))
        if self._slot is not None:
            error = parse_error(read_error(self._slot))
            clear(self._slot)
            if error is not None and code:
                self._connection.send(error)
        self._interrupted, self._interrupt_deadline = False, float("inf")
        self._idle_deadline = time.monotonic() + (self._watch.idle_seconds or _FOR_EVER_SECONDS)
        self._connection.send(Exited(exit_code=code, usage=usage, session=session, alive=True))

    def last_events(self) -> Iterator[Event]:
        """Yield how it ended; between two cells there is no ``Exited`` to come."""
        if self._is_idle:
            self._read_pending()
            limit = self._limit or ("memory" if self._gauge.oom_kills() else None)
            if limit is not None:
                yield LimitReached(limit=limit)
            return
        for event in super().last_events():
            if isinstance(event, Exited):
                cell, session = self._meter.cell(event.usage.wall_seconds or 0.0)
                event = dataclasses.replace(event, usage=cell, session=session)
            yield event
