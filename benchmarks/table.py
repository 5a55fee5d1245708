"""Results: bounds that are met or not, one table as text, and JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.measure import Group, Measurement, Unit

_SCALES: dict[Unit, tuple[float, str]] = {
    "s": (1e3, "ms"),
    "bytes": (1 / 1e6, "MB"),
    "runs/s": (1.0, "runs/s"),
    "bytes/s": (1 / 1e6, "MB/s"),
}


@dataclass(frozen=True, kw_only=True)
class Bound:
    """The median of ``name`` has to be below ``seconds``, or below the median of ``peer``."""

    name: str
    seconds: float | None = None
    peer: str = ""

    def check(self, groups: Sequence[Group]) -> dict[str, Any] | None:
        """Return value, bound, ratio and whether it is met; None when one of the two was not measured."""
        value, limit = _median(groups, self.name), self.seconds
        if limit is None:
            limit = _median(groups, self.peer)
        if value is None or limit is None:
            return None
        against = self.peer or f"{limit * 1e3:g} ms"
        ratio = value / limit
        return {"name": self.name, "against": against, "value": value, "ratio": ratio, "met": value < limit}


def _median(groups: Sequence[Group], name: str) -> float | None:
    return next((found.p50 for group in groups if (found := group.get(name)) is not None), None)


def ratios(groups: Sequence[Group], bounds: Sequence[Bound]) -> list[dict[str, Any]]:
    """Return what each bound came to, those left out that could not be measured."""
    return [checked for bound in bounds if (checked := bound.check(groups)) is not None]


def to_dict(groups: Sequence[Group], checked: Sequence[dict[str, Any]], left_out: Sequence[str]) -> dict[str, Any]:
    """Return everything as plain JSON types."""
    return {
        "host": {"kernel": platform.release(), "python": platform.python_version(), "cpus": os.cpu_count()},
        "groups": [
            {"title": group.title, "base": group.base, "measurements": [item.to_dict() for item in group.measurements]}
            for group in groups
        ],
        "bounds": list(checked),
        "left_out": list(left_out),
    }


def render(groups: Sequence[Group], checked: Sequence[dict[str, Any]], left_out: Sequence[str]) -> str:
    """Return the table as text."""
    return "\n".join(_lines(groups, checked, left_out))


def _lines(groups: Sequence[Group], checked: Sequence[dict[str, Any]], left_out: Sequence[str]) -> Iterator[str]:
    width = max(len(item.name) for group in groups for item in group.measurements) + 2
    for group in groups:
        base = group.get(group.base)
        compared = f"   / {group.base}" if base else ""
        yield f"{group.title:<{width}} {'p50':>9} {'p95':>9}        {'n':>4}{compared}"
        for item in group.measurements:
            yield f"  {item.name:<{width - 2}} {_row(item, base)}"
        yield from (f"  {note}" for note in group.notes)
        yield ""
    for bound in checked:
        word = "met" if bound["met"] else "NOT MET"
        yield f"{bound['name']} below {bound['against']}: {word} (ratio {bound['ratio']:.2f})"
    yield from left_out


def _row(item: Measurement, base: Measurement | None) -> str:
    scale, unit = _SCALES[item.unit]
    ratio = f"   {item.p50 / base.p50:.3g}" if base is not None and base.p50 else ""
    return f"{item.p50 * scale:9.2f} {item.p95 * scale:9.2f} {unit:<6} {len(item.samples):4}{ratio}"
