"""``--mem-high``: notices that a container's memory comes near its limit, so that the code can be interrupted before.

What counts is what the kernel cannot take back: cached files are left out, or who reads big files would be interrupted.
The kernel tells when the memory in use, cached files included, passes the mark; from there on, and where it tells
nothing, the supervisor looks as often as the mark can be reached.
"""

from __future__ import annotations

import os
import time

from container_magic.runtime.measure import Gauge

_FASTEST_BYTES_PER_SECOND = 8 << 30
"""Pages are zeroed before they are handed out: more than this one machine's processes hardly take."""
_SHORTEST_CHECK_SECONDS = 0.005
_LONGEST_CHECK_SECONDS = 1.0
_LEAST_PART = 0.1
"""Of the time may be spent on looking, at most: adding up large processes takes long."""
_UNSEEN_BYTES = (os.cpu_count() or 1) << 20
"""What the kernel's own counting may be behind, on all CPUs together (``MEMCG_CHARGE_BATCH``, events of v1)."""
_LEAST_ROOM_BYTES = 1 << 20
_NEVER = float("inf")


class HighMark:
    """The mark of one container: ``high_bytes``, below the limit ``limit_bytes``.

    Who is above it already, when a cell begins or after an interrupt, is interrupted when half of what is left up to
    the limit is taken.
    """

    def __init__(self, gauge: Gauge, *, high_bytes: int, limit_bytes: int) -> None:
        self._gauge = gauge
        self._limit_bytes = limit_bytes
        self._mark_bytes = high_bytes
        self.high_bytes = high_bytes
        self.alarm: tuple[int, int] | None = None
        """Descriptor and poll event of who tells; None before ``arm`` and where nobody does."""
        self.due = _NEVER
        """When to look next, on the monotonic clock."""
        self._is_told = False

    def arm(self) -> None:
        """Set the mark for what is held now."""
        held_bytes = self._gauge.memory_use().held_bytes
        self._mark_bytes = self.high_bytes
        if held_bytes >= self.high_bytes:
            self._mark_bytes = self._halfway(held_bytes)
        self.alarm = self._gauge.memory_alarm(self._mark_bytes)
        self._is_told = self.alarm is not None
        self.due = time.monotonic()

    def move_on(self, held_bytes: int) -> None:
        """Set the mark for who has been interrupted: nothing slows him down any more, and the supervisor looks."""
        self._mark_bytes = self._halfway(held_bytes)
        self._gauge.memory_alarm(self._limit_bytes)
        self._is_told = False
        self.due = time.monotonic() + _SHORTEST_CHECK_SECONDS

    def _halfway(self, held_bytes: int) -> int:
        """Return what lies half way to the limit; the limit itself where that is near."""
        room_bytes = self._limit_bytes - held_bytes
        return held_bytes + room_bytes // 2 if room_bytes > _LEAST_ROOM_BYTES else self._limit_bytes

    def heard(self) -> None:
        """Take note that the kernel has told something."""
        self._gauge.alarm_heard()
        self.due = time.monotonic()

    def reached(self, now: float) -> int | None:
        """Look; return the bytes that are held when that is at the mark, and say when to look again when not."""
        use = self._gauge.memory_use()
        if use.held_bytes >= self._mark_bytes:
            return use.held_bytes
        if self._is_told and use.usage_bytes < self.high_bytes - _UNSEEN_BYTES:
            self.due = _NEVER  # it will be told
            return None
        took_seconds = time.monotonic() - now
        earliest = max(_SHORTEST_CHECK_SECONDS, took_seconds / _LEAST_PART)
        reachable = (self._mark_bytes - use.held_bytes) / _FASTEST_BYTES_PER_SECOND
        self.due = now + min(max(earliest, reachable), max(earliest, _LONGEST_CHECK_SECONDS))
        return None
