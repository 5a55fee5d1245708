"""``python -m benchmarks``: measure, print a table, write ``build/bench.json``."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import notebook, ours, peers
from benchmarks.measure import Group, interleave
from benchmarks.table import Bound, ratios, render, to_dict

# what the project holds itself to
BOUNDS = (
    Bound(name=ours.ONE_SHOT, peer="bwrap"),
    Bound(name="import container_magic", seconds=0.050),
    Bound(name="%load_ext container_magic", seconds=0.300),
)


_SETTLE_SECONDS = 0.02


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is measured."""

    starts: int
    processes: int
    rounds: int
    runs: int
    output_bytes: int
    loop: int


FULL = Effort(starts=100, processes=10, rounds=5, runs=40, output_bytes=100_000_000, loop=2_000_000)
QUICK = Effort(starts=3, processes=1, rounds=1, runs=4, output_bytes=2_000_000, loop=50_000)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure everything that can be measured here; 0 unless the measuring itself fails."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few samples of everything: shows that it works")
    parser.add_argument("--output", type=Path, default=Path("build/bench.json"), help="default: %(default)s")
    parser.add_argument("--image", default="docker.io/library/python:3-slim", help="local image for podman and docker")
    parser.add_argument(
        "--only",
        default="",
        metavar="WORD",
        help="only groups whose name holds this: start parts cold imports cells many output inside memory",
    )
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="container_magic-bench-") as scratch:
        groups, left_out = measure(QUICK if arguments.quick else FULL, Path(scratch), arguments.image, arguments.only)
    checked = ratios(groups, BOUNDS)
    print(render(groups, checked, left_out))
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(to_dict(groups, checked, left_out), indent=1) + "\n")
    print(f"written: {arguments.output}")
    return 0


def measure(effort: Effort, scratch: Path, image: str, only: str = "") -> tuple[list[Group], list[str]]:
    """Take every group of measurements, one group after the other; return them and why tools were left out."""
    left_out: list[str] = []

    def starts() -> Group:
        found, reasons = peers.find(scratch, image)
        left_out.extend(reasons)
        subjects = [ours.one_shot(), peers.bare(), *found]
        title = "One-shot start: run `pass`, wait, clean up"
        return Group(
            title=title, measurements=interleave(subjects, effort.starts, settle_seconds=_SETTLE_SECONDS), base="bwrap"
        )

    tasks: dict[str, Callable[[], Sequence[Group]]] = {
        "start": lambda: [starts()],
        "parts": lambda: [ours.parts(effort.starts)],
        "cold": lambda: [ours.first_runs(effort.processes)],
        "imports": lambda: [ours.imports(effort.processes, scratch)],
        "cells": lambda: [notebook.cells(effort.starts)],
        "many": lambda: [ours.many(effort.rounds, effort.runs)],
        "output": lambda: [ours.output(effort.rounds, effort.output_bytes)],
        "inside": lambda: ours.inside_and_outside(effort.rounds, effort.loop),
        "memory": lambda: [ours.memory()],
    }
    groups: list[Group] = []
    for name, task in tasks.items():
        if only in name:
            print(f"measuring: {name}", file=sys.stderr)
            groups += task()
    return groups, left_out


if __name__ == "__main__":
    sys.exit(main())
