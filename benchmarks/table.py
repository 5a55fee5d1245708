"""Results: bounds that are met or not, one table as text, and JSON."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.measure import Bound, Group, Measurement, Unit

_SCALES: dict[Unit, tuple[float, str]] = {
    "s": (1e3, "ms"),
    "bytes": (1 / 1e6, "MB"),
    "runs/s": (1.0, "runs/s"),
    "bytes/s": (1 / 1e6, "MB/s"),
}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a bound came to: ``value`` is a ratio, or without a peer the figure itself."""

    group: str
    bound: Bound
    unit: Unit
    value: float

    @property
    def met(self) -> bool:
        """Whether the project keeps to it."""
        return self.bound.met(self.value)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; a side that has no bound is None."""
        bound = self.bound
        return {
            "group": self.group,
            "name": bound.name,
            "peer": bound.peer,
            "quantile": bound.quantile,
            "value": self.value,
            "at_most": bound.at_most if math.isfinite(bound.at_most) else None,
            "at_least": bound.at_least if math.isfinite(bound.at_least) else None,
            "met": self.met,
        }


def host() -> dict[str, Any]:
    """Return what the figures depend on; the load is that of whatever else runs when this is asked."""
    load = round(os.getloadavg()[0], 2)
    facts = {"kernel": platform.release(), "python": platform.python_version()}
    return {**facts, "cpus": os.cpu_count(), "load_average": load}


def judge(groups: Sequence[Group]) -> list[Verdict]:
    """Return what each bound came to, those left out that could not be measured."""
    return [found for group in groups for bound in group.bounds if (found := _judge_one(group, bound)) is not None]


def _judge_one(group: Group, bound: Bound) -> Verdict | None:
    item, peer = group.get(bound.name), group.get(bound.peer)
    if item is None or (bound.peer and peer is None):
        return None
    value = getattr(item, bound.quantile) / (getattr(peer, bound.quantile) if peer else 1.0)
    return Verdict(group=group.title, bound=bound, unit=item.unit, value=value)


def to_dict(
    facts: Mapping[str, Any], groups: Sequence[Group], verdicts: Sequence[Verdict], left_out: Sequence[str]
) -> dict[str, Any]:
    """Return everything as plain JSON types."""
    return {
        "host": dict(facts),
        "groups": [
            {
                "title": group.title,
                "base": group.base,
                "measurements": [item.to_dict() for item in group.measurements],
                "notes": list(group.notes),
            }
            for group in groups
        ],
        "bounds": [verdict.to_dict() for verdict in verdicts],
        "left_out": list(left_out),
    }


def render(
    facts: Mapping[str, Any], groups: Sequence[Group], verdicts: Sequence[Verdict], left_out: Sequence[str]
) -> str:
    """Return the table as text."""
    machine = "Linux {kernel}, Python {python}, {cpus} CPUs, load average at the beginning {load_average}"
    return "\n".join([machine.format(**facts), "", *_lines(groups, verdicts, left_out)])


def _lines(groups: Sequence[Group], verdicts: Sequence[Verdict], left_out: Sequence[str]) -> Iterator[str]:
    width = 2 + max((len(item.name) for group in groups for item in group.measurements), default=0)
    for group in groups:
        base = group.get(group.base)
        compared = f"   / {group.base}" if base else ""
        yield f"{group.title:<{width}} {'p50':>9} {'p95':>9}        {'n':>4}{compared}"
        for item in group.measurements:
            yield f"  {item.name:<{width - 2}} {_row(item, base)}"
        yield from (f"  {note}" for note in group.notes)
        yield ""
    yield from _bounds(verdicts)
    yield from left_out


def _bounds(verdicts: Sequence[Verdict]) -> Iterator[str]:
    rows = [(_words(verdict), _limit(verdict), verdict) for verdict in verdicts]
    width = max((len(words) for words, _, _ in rows), default=0)
    for words, limit, verdict in rows:
        figure = f"{verdict.value:.3g}" if verdict.bound.peer else f"{verdict.value * _SCALES[verdict.unit][0]:.2f}"
        yield f"{words:<{width}} {figure:>8}  {limit:<12} {'met' if verdict.met else 'NOT MET'}"


def _words(verdict: Verdict) -> str:
    bound = verdict.bound
    return f"{bound.quantile} of {bound.name}{' / ' if bound.peer else ''}{bound.peer}"


def _limit(verdict: Verdict) -> str:
    bound = verdict.bound
    scale, unit = (1.0, "") if bound.peer else _SCALES[verdict.unit]
    sign, limit = ("<=", bound.at_most) if math.isfinite(bound.at_most) else (">=", bound.at_least)
    return f"{sign} {limit * scale:g} {unit}".rstrip()


def _row(item: Measurement, base: Measurement | None) -> str:
    scale, unit = _SCALES[item.unit]
    ratio = f"   {item.p50 / base.p50:.3g}" if base is not None and base.p50 else ""
    return f"{item.p50 * scale:9.2f} {item.p95 * scale:9.2f} {unit:<6} {len(item.samples):4}{ratio}"
