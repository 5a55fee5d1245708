"""How container_magic is called here, and what of it is measured in more than one place."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import container_magic as cm
from benchmarks.measure import Subject

OPTIONS: dict[str, Any] = {"mem": "200M", "cpus": "0-1", "net": "none"}
WORDS = ("--mem", "200M", "--cpus", "0-1", "--net", "none")


def checked(report: cm.RunReport) -> cm.RunReport:
    """Return the report; anything but OK is no measurement."""
    if not report.ok:
        raise RuntimeError(f"{report}: {report.stderr[-500:]} {report.error}")
    return report


@dataclass(frozen=True, kw_only=True)
class OneShot:
    """``cm.run`` as a subject, which keeps count of how its containers were started."""

    name: str
    source: str = "pass"
    options: dict[str, Any] = field(default_factory=dict)
    starts: list[str] = field(default_factory=list)

    def subject(self) -> Subject:
        """Return what is measured: one call, from the arguments to the report."""
        return Subject(name=self.name, call=self._call)

    def _call(self) -> float:
        begun = time.perf_counter()
        report = cm.run(self.source, **OPTIONS, **self.options)
        elapsed = time.perf_counter() - begun
        self.starts.append(checked(report).start or "")
        return elapsed


def notes_on_starts(subjects: Sequence[OneShot], kept: int) -> tuple[str, ...]:
    """Return a line for each subject that was to be started warm, and of whose last ``kept`` starts some were not."""
    counts = {one.name: one.starts[-kept:].count("cold") for one in subjects if one.options.get("warm") != 0}
    return tuple(f"{name}: {count} of {kept} starts were cold" for name, count in counts.items() if count)
