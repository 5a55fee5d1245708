"""``python -m benchmarks``: measure, print a table, write ``build/bench.json``."""

from __future__ import annotations

import argparse
import compileall
import importlib.util
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import container_magic
from benchmarks import kernel, many, notebook, peers, starts, work
from benchmarks.measure import Group
from benchmarks.table import host, judge, render, to_dict


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is measured."""

    starts: int
    processes: int
    rounds: int
    runs: int
    alive: int
    output_bytes: int
    printed_bytes: int
    loop: int


FULL = Effort(
    starts=50,
    processes=12,
    rounds=5,
    runs=100,
    alive=300,
    output_bytes=100_000_000,
    printed_bytes=10_000_000,
    loop=4_000_000,
)
QUICK = Effort(
    starts=3, processes=1, rounds=1, runs=4, alive=5, output_bytes=2_000_000, printed_bytes=1_000_000, loop=50_000
)


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
        help="only groups whose name holds this: start parts preloaded shell imports cells streaming grading at-once"
        " output inside memory alive kernel",
    )
    arguments = parser.parse_args(argv)
    facts, left_out = host(), compile_package()
    with tempfile.TemporaryDirectory(prefix="container_magic-bench-") as scratch:
        found, reasons = peers.find(Path(scratch), arguments.image)
        effort = QUICK if arguments.quick else FULL
        groups, untried = measure(effort, found, Path(scratch), arguments.only)
    left_out += [*reasons, *untried]
    verdicts = judge(groups)
    print(render(facts, groups, verdicts, left_out))
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(to_dict(facts, groups, verdicts, left_out), indent=1) + "\n")
    print(f"written: {arguments.output}")
    return 0


def compile_package() -> list[str]:
    """Compile the package as pip does when it installs one, whatever PYTHONDONTWRITEBYTECODE says; say if that fails.

    The command line and the zygote are started in a fresh process each time: from source they would be measured wrong.
    """
    directory = Path(container_magic.__file__).parent
    good = compileall.compile_dir(directory, quiet=2)
    return [] if good else [f"{directory.name} is measured without compiled files: they cannot be written"]


def measure(
    effort: Effort, found: Sequence[peers.Peer], scratch: Path, only: str = ""
) -> tuple[list[Group], list[str]]:
    """Take every group of measurements, one group after the other; return them, and which were left out and why."""
    left_out: list[str] = []

    def preloaded() -> Sequence[Group]:
        missing = [name for name in ("numpy", "pandas") if importlib.util.find_spec(name) is None]
        left_out.extend(f"preloaded: left out, {name} is not installed" for name in missing)
        return [] if missing else [starts.preloaded(effort.processes)]

    tasks: dict[str, Callable[[], Sequence[Group]]] = {
        "start": lambda: [starts.one_shot(effort.starts, found)],
        "parts": lambda: starts.parts(effort.starts),
        "preloaded": preloaded,
        "shell": lambda: [starts.shell(effort.processes, found)],
        "imports": lambda: [starts.imports(effort.processes, scratch)],
        "cells": lambda: [notebook.cells(effort.starts), notebook.first_cells(effort.rounds)],
        "streaming": lambda: [notebook.streaming(effort.starts)],
        "grading": lambda: [many.grading(effort.rounds, effort.runs, found)],
        "at-once": lambda: [many.at_once(effort.rounds)],
        "output": lambda: [work.output(effort.rounds, effort.output_bytes)],
        "inside": lambda: work.inside_and_outside(2 * effort.rounds, effort.loop),
        "memory": lambda: [many.memory(effort.rounds)],
        "alive": lambda: [many.alive(effort.processes, effort.alive)],
        "kernel": lambda: kernel.measure(effort.processes, effort.starts, effort.rounds, effort.printed_bytes),
    }
    groups: list[Group] = []
    for name, task in tasks.items():
        if only in name:
            print(f"measuring: {name}", file=sys.stderr)
            groups += task()
    return groups, left_out


if __name__ == "__main__":
    sys.exit(main())
