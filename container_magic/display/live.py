"""The line that tells how a long run is getting on: what it says, when it may be written, and how a terminal has it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from container_magic.display.text import human_bytes
from container_magic.events import Created, Event, Sampled, Started
from container_magic.units import format_duration

FIRST_SECONDS = 2.0
"""Runs that are over before this have no line."""
EVERY_SECONDS = 0.5
"""The line is not written more often."""
_ERASE = b"\r\x1b[K"


class Progress:
    """Follows the events of one run and says, not too often, where it stands."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begun: float | None = None
        self._next = 0.0
        self._limit_bytes: int | None = None
        self._samples: list[Sampled] = []

    def add(self, event: Event) -> None:
        """Take the next event."""
        if isinstance(event, Created):
            limit = next((limit.value for limit in event.limits if limit.name == "memory"), None)
            self._limit_bytes = int(limit) if isinstance(limit, (int, float)) and limit > 0 else None
        elif isinstance(event, Started):
            self._begun = self._clock()
            self._next = self._begun + FIRST_SECONDS
        elif isinstance(event, Sampled) and not event.asked:
            self._samples = [*self._samples[-1:], event]

    def due(self) -> str:
        """Return the line when it is time for one, else an empty string."""
        now = self._clock()
        if self._begun is None or now < self._next:
            return ""
        self._next = now + EVERY_SECONDS
        return "  ".join(["running", _elapsed(now - self._begun), *self._cpus(), *self._memory()])

    def _cpus(self) -> list[str]:
        if len(self._samples) < 2 or None in (self._samples[0].cpu_seconds, self._samples[1].cpu_seconds):
            return []
        first, last = self._samples
        used = (last.cpu_seconds or 0.0) - (first.cpu_seconds or 0.0)
        return [f"{max(used, 0.0) / max(last.time - first.time, 1e-3):.1f} CPUs"]

    def _memory(self) -> list[str]:
        held = self._samples[-1].memory_bytes if self._samples else None
        if held is None:
            return []
        return [human_bytes(held) + (f" of {human_bytes(self._limit_bytes)}" if self._limit_bytes else "")]


def _elapsed(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else format_duration(float(int(seconds)))


class Screen:
    """The line as the last one of a terminal: written over itself, erased before anything else is written.

    Args:
        fd: The terminal.
        write: Writes all of some bytes to a descriptor.
        progress: Says what the line says, and when.
    """

    every_seconds = EVERY_SECONDS

    def __init__(self, fd: int, write: Callable[[int, bytes], None], progress: Progress | None = None) -> None:
        self._fd = fd
        self._write = write
        self._progress = progress or Progress()
        self._shown = False
        self._at_line_start = True

    def add(self, event: Event) -> None:
        """Take an event, after its output was written."""
        self._progress.add(event)
        self.tick()

    def tick(self) -> None:
        """Bring the line up to date, when it is time and the code has not left a line of its own unfinished."""
        text = self._progress.due()
        if not text or not self._at_line_start or not self._in_foreground():
            return
        import shutil

        width = shutil.get_terminal_size().columns - 1
        self._write(self._fd, _ERASE + text[:width].encode())
        self._shown = True

    def make_way(self, data: bytes) -> None:
        """Erase the line because ``data`` is written to the terminal next."""
        self.erase()
        if data:
            self._at_line_start = data.endswith(b"\n")

    def erase(self) -> None:
        """Leave the terminal as it would be without the line."""
        if self._shown:
            self._write(self._fd, _ERASE)
            self._shown = False

    def _in_foreground(self) -> bool:
        """Whether the terminal is this job's: one in the background must not write over the shell's prompt."""
        try:
            return os.tcgetpgrp(self._fd) == os.getpgrp()
        except OSError:
            return False
