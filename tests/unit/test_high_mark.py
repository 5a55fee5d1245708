"""Where ``--mem-high`` stands, and when it is looked at: without a container, on figures that a test gives."""

from __future__ import annotations

import select
import time
from typing import Any, cast

import pytest

from container_magic.cgroups import MemoryUse
from container_magic.runtime.high_mark import HighMark
from container_magic.runtime.measure import Gauge

MB = 1 << 20


class Figures:
    """A gauge that says what a test has put into it."""

    def __init__(self, *, tells: bool) -> None:
        self.held_bytes = self.usage_bytes = 0
        self.alarm = (9, select.POLLIN) if tells else None
        self.marks: list[int] = []

    def memory_use(self) -> MemoryUse:
        """Return the figures."""
        usage = max(self.usage_bytes, self.held_bytes)
        return MemoryUse(usage_bytes=usage, working_set_bytes=usage, held_bytes=self.held_bytes)

    def memory_alarm(self, mark_bytes: int) -> Any:
        """Note the mark."""
        self.marks.append(mark_bytes)
        return self.alarm


def mark_of(figures: Figures) -> HighMark:
    """Return a mark at 100 MB below a limit of 200 MB, not armed."""
    return HighMark(cast(Gauge, figures), high_bytes=100 * MB, limit_bytes=200 * MB)


@pytest.mark.parametrize(
    ("held", "expected"), [(0, 100), (99, 100), (100, 150), (160, 180), (198, 199), (199.5, 200), (250, 200)]
)
def test_mark_above_what_is_held_is_half_way_to_the_limit(held: float, expected: int) -> None:
    """Who begins below it gets the mark itself, who begins above it half of what is left."""
    figures = Figures(tells=True)
    figures.held_bytes = int(held * MB)
    mark_of(figures).arm()
    assert figures.marks == [expected * MB]


def test_who_was_interrupted_is_not_slowed_down_and_is_looked_at() -> None:
    """The kernel's mark goes up to the limit; the supervisor's own stands half way, however little is held between."""
    figures = Figures(tells=True)
    mark = mark_of(figures)
    mark.arm()
    figures.held_bytes = 110 * MB
    mark.move_on(110 * MB)
    assert figures.marks == [100 * MB, 200 * MB]
    now = time.monotonic()
    for held in (110, 10):
        figures.held_bytes = held * MB
        assert mark.reached(now) is None
        assert mark.due < float("inf")
    figures.held_bytes = 155 * MB
    assert mark.reached(now) == 155 * MB


def test_it_is_reached_by_what_is_held_alone() -> None:
    """Cached files reach nothing; the kernel cannot take back what does."""
    figures = Figures(tells=True)
    mark = mark_of(figures)
    mark.arm()
    figures.usage_bytes = 180 * MB
    assert mark.reached(0.0) is None
    figures.held_bytes = 101 * MB
    assert mark.reached(0.0) == 101 * MB


def test_nobody_looks_while_the_kernel_will_tell() -> None:
    """Far below the mark the next look is when the alarm is heard; above it, cached files and all, it is soon."""
    figures = Figures(tells=True)
    mark = mark_of(figures)
    mark.arm()
    figures.usage_bytes = 10 * MB
    now = time.monotonic()
    assert mark.reached(now) is None
    assert mark.due == float("inf")
    figures.usage_bytes = 180 * MB
    assert mark.reached(now) is None
    assert now < mark.due < float("inf")


def test_without_an_alarm_it_is_looked_at_as_often_as_it_can_be_reached() -> None:
    """The nearer the mark, the sooner; never in a tight loop."""
    figures = Figures(tells=False)
    mark = mark_of(figures)
    mark.arm()
    now, intervals = 1e9, []
    for held in (0, 90, 99):
        figures.held_bytes = held * MB
        assert mark.reached(now) is None
        intervals.append(mark.due - now)
    assert intervals[0] > intervals[1] >= intervals[2] >= 0.0049
