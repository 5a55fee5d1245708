"""The run's samples as two curves: bytes of memory and CPUs in use, each a list of (seconds, value)."""

from __future__ import annotations

from collections.abc import Sequence

from container_magic.events import Sampled
from container_magic.report import RunReport
from container_magic.units import parse_cpuset

Point = tuple[float, float]

_NEAR = 4
"""A limit is drawn, and gives the height of the picture, when the curve comes within this factor of it."""


def memory_curve(samples: Sequence[Sampled]) -> list[Point]:
    """Return memory over time, without the samples that do not know it."""
    return [(sample.time, float(sample.memory_bytes)) for sample in samples if sample.memory_bytes is not None]


def cpu_curve(samples: Sequence[Sampled]) -> list[Point]:
    """Return CPU seconds per second between each sample and the one before, at the time of the later."""
    points: list[Point] = []
    time, used = 0.0, 0.0
    for sample in samples:
        if sample.cpu_seconds is None or sample.time <= time:
            continue
        points.append((sample.time, max(sample.cpu_seconds - used, 0.0) / (sample.time - time)))
        time, used = sample.time, sample.cpu_seconds
    return points


def cpu_limit(report: RunReport) -> float | None:
    """Return how many CPUs the run could use, as far as its limits say: the smallest of amount and set."""
    amounts = [_cpus(limit.value) for limit in report.limits if limit.name in ("cpus", "cpuset_cpus")]
    return min((amount for amount in amounts if amount is not None), default=None)


def _cpus(value: float | str) -> float | None:
    if not isinstance(value, str):
        return value
    try:
        return float(len(parse_cpuset(value)))
    except ValueError:
        return None


def scale(points: Sequence[Point], limit: float | None) -> tuple[float, bool]:
    """Return the value at the top of a picture, and whether the limit is in it."""
    highest = max((value for _, value in points), default=0.0)
    if limit is not None and highest * _NEAR >= limit:
        return max(highest, limit), True
    return highest, False


def resample(points: Sequence[Point], width: int) -> list[float]:
    """Return ``width`` values at equal distances over the run: of each stretch the highest, or the last one known."""
    if not points:
        return []
    end = points[-1][0] or 1.0
    columns: list[float | None] = [None] * width
    for time, value in points:
        column = min(int(time / end * width), width - 1)
        columns[column] = max(columns[column] or 0.0, value)
    values: list[float] = []
    for known in columns:
        values.append(known if known is not None else values[-1] if values else points[0][1])
    return values
