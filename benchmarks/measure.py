"""What is measured, and how: subjects take turns, so that a noisy moment of the machine hits all of them alike."""

from __future__ import annotations

import math
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Unit = Literal["s", "bytes", "runs/s", "bytes/s"]
Quantile = Literal["p50", "p95"]

PAUSE_SECONDS = 0.1
"""Between two calls: shorter than any person's pause, longer than a container takes to be made ahead or removed."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Samples of one figure, in ``unit``, in the order in which they were taken."""

    name: str
    unit: Unit
    samples: tuple[float, ...]

    @property
    def p50(self) -> float:
        """The median."""
        return statistics.median(self.samples)

    @property
    def p95(self) -> float:
        """The smallest sample that 95 % of the samples do not exceed (nearest rank)."""
        return sorted(self.samples)[math.ceil(0.95 * len(self.samples)) - 1]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {"name": self.name, "unit": self.unit, "p50": self.p50, "p95": self.p95, "samples": list(self.samples)}


@dataclass(frozen=True, kw_only=True)
class Bound:
    """What the project holds itself to, in its own group.

    The quantile of ``name`` over the same quantile of ``peer``, or without a peer the figure itself in its own unit,
    is to be at most, or at least, so much.
    """

    name: str
    peer: str = ""
    quantile: Quantile = "p50"
    at_most: float = math.inf
    at_least: float = -math.inf

    def met(self, value: float) -> bool:
        """Whether a ratio, or a figure, is within the bound."""
        return self.at_least <= value <= self.at_most


@dataclass(frozen=True, kw_only=True)
class Group:
    """Measurements that were taken in turns; ``base`` names the one that the others are compared with."""

    title: str
    measurements: tuple[Measurement, ...]
    base: str = ""
    bounds: tuple[Bound, ...] = ()
    notes: tuple[str, ...] = ()

    def get(self, name: str) -> Measurement | None:
        """Return the measurement called ``name``; None when it was left out."""
        return next((item for item in self.measurements if item.name == name), None)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Something that is measured: ``call`` does it once and returns the figure."""

    name: str
    call: Callable[[], float]
    unit: Unit = "s"


@dataclass(kw_only=True)
class Collector:
    """Samples by name, for what yields several figures at once."""

    unit: Unit = "s"
    samples: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        """Keep one more sample of ``name``."""
        self.samples.setdefault(name, []).append(value)

    def measurements(self) -> tuple[Measurement, ...]:
        """Return what was kept, in the order of the first samples."""
        return tuple(
            Measurement(name=name, unit=self.unit, samples=tuple(values)) for name, values in self.samples.items()
        )


def interleave(
    subjects: Sequence[Subject], rounds: int, warm_ups: int = 2, pause_seconds: float = PAUSE_SECONDS
) -> tuple[Measurement, ...]:
    """Call each subject once per round, in turns; the first ``warm_ups`` rounds are not kept.

    Each round has an order of its own: what a subject leaves in the caches is not always the same one's to find.
    In ``pause_seconds`` before each call what the one before left to be done ends: deferred work of the kernel, our own
    removal of a container and the making of the next. Nobody is charged with another's.
    """
    samples: list[list[float]] = [[] for _ in subjects]
    for number in range(warm_ups + rounds):
        for index in random.Random(number).sample(range(len(subjects)), len(subjects)):
            time.sleep(pause_seconds)
            value = subjects[index].call()
            if number >= warm_ups:
                samples[index].append(value)
    return tuple(
        Measurement(name=subject.name, unit=subject.unit, samples=tuple(kept))
        for subject, kept in zip(subjects, samples, strict=True)
    )


def base_python() -> str:
    """Return the interpreter behind ``sys.executable``: the one that a virtual environment was made from."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    path = Path(sys.base_prefix) / "bin" / name
    return str(path if path.exists() else Path(sys.executable).resolve())


def seconds_of(call: Callable[[], object]) -> float:
    """Return the wall time of one call."""
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def command(words: Sequence[str]) -> Callable[[], float]:
    """Return a function that runs a command once and returns its wall time, from spawn to reaped.

    ``posix_spawn`` and not ``subprocess``: the peers are not charged with Python's way of starting them.
    """
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    actions = [(os.POSIX_SPAWN_DUP2, null, fd) for fd in (0, 1, 2)]

    def call() -> float:
        begun = time.perf_counter()
        pid = os.posix_spawn(words[0], list(words), os.environ, file_actions=actions)
        _, status = os.waitpid(pid, 0)
        elapsed = time.perf_counter() - begun
        if status:
            raise RuntimeError(f"{' '.join(words)}: exit status {os.waitstatus_to_exitcode(status)}")
        return elapsed

    return call


def printed_seconds(words: Sequence[str], environment: dict[str, str] | None = None) -> float:
    """Run a command that prints a number as its last line, and return it."""
    merged = {**os.environ, **(environment or {})}
    done = subprocess.run(list(words), capture_output=True, text=True, check=True, env=merged)
    return float(done.stdout.split()[-1])
