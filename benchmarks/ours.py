"""container_magic's own figures, through its public interface."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import container_magic as cm
from benchmarks.measure import Collector, Group, Subject, base_python, command, interleave, printed_seconds, seconds_of
from container_magic.events import Created, Deleted, Event, Exited, Output

OPTIONS: dict[str, Any] = {"mem": "200M", "cpus": "0-1", "net": "none"}
ONE_SHOT = "cm.run"
_WORDS = ["--mem", "200M", "--cpus", "0-1", "--net", "none"]
_AT_ONCE = 20
_CPU = "import time; t = time.perf_counter(); sum(i * i for i in range({count})); print(time.perf_counter() - t)"
_SYSCALLS = (
    "import os, time\nt = time.perf_counter()\nfor _ in range({count}): os.getppid()\nprint(time.perf_counter() - t)"
)
_FIRST = """import time, container_magic as cm
t = time.perf_counter()
cm.run("pass", {options})
print(time.perf_counter() - t)
"""
_LOAD_EXT = """import time
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config
shell = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
t = time.perf_counter()
shell.run_line_magic("load_ext", "container_magic")
print(time.perf_counter() - t)
"""


def run_pass() -> None:
    """Run ``pass`` once; anything but OK is no measurement."""
    _check(cm.run("pass", **OPTIONS))


def _check(report: cm.RunReport) -> cm.RunReport:
    if not report.ok:
        raise RuntimeError(f"{report}: {report.stderr[-500:]} {report.error}")
    return report


def one_shot() -> Subject:
    """Return one run from a process whose zygote is up."""
    return Subject(name=ONE_SHOT, call=lambda: seconds_of(run_pass))


def contain_command() -> list[str]:
    """Return the ``contain`` program of this environment."""
    script = Path(sys.executable).parent / "contain"
    return [str(script)] if script.exists() else [sys.executable, "-m", "container_magic"]


def first_runs(rounds: int) -> Group:
    """Measure what starts a zygote: the first run of a process, and the command line."""
    source = _FIRST.format(options=", ".join(f"{key}={value!r}" for key, value in OPTIONS.items()))
    subjects = [
        Subject(name="first cm.run of a process", call=lambda: printed_seconds([sys.executable, "-c", source])),
        Subject(name="contain run -c pass", call=command([*contain_command(), "run", *_WORDS, "-c", "pass"])),
        Subject(name="python -c pass", call=command([sys.executable, "-c", "pass"])),
    ]
    return Group(title="Cold: the zygote is started too", measurements=interleave(subjects, rounds, 1))


def imports(rounds: int, directory: Path) -> Group:
    """Measure the import (as the difference to an interpreter that imports nothing) and ``%load_ext``."""
    plain, importing = (command([sys.executable, "-c", source]) for source in ("pass", "import container_magic"))
    environment = {"IPYTHONDIR": str(directory)}
    subjects = [
        Subject(name="import container_magic", call=lambda: -plain() + importing()),
        Subject(
            name="%load_ext container_magic",
            call=lambda: printed_seconds([sys.executable, "-c", _LOAD_EXT], environment),
        ),
    ]
    return Group(title="Imports", measurements=interleave(subjects, rounds, 1))


def parts(rounds: int) -> Group:
    """Measure where the time of a one-shot run goes, from the events as the client sees them."""
    kept = Collector()
    for number in range(rounds + 2):
        found = _parts_of_one()
        for name, seconds in found.items():
            if number >= 2:
                kept.add(name, seconds)
    return Group(title="Where the time of cm.run goes", measurements=kept.measurements(), base="whole run")


def _parts_of_one() -> dict[str, float]:
    begun = time.perf_counter()
    at: dict[type, float] = {}
    seen: dict[type, Any] = {}
    events = cm.stream("pass", **OPTIONS)
    asked = time.perf_counter()
    for event in events:
        at[type(event)], seen[type(event)] = time.perf_counter(), event
    ended = time.perf_counter()
    startup: dict[str, float] = seen[Created].startup
    wall = seen[Exited].usage.wall_seconds or 0.0
    return {
        "options and spec": asked - begun,
        "plan, request, hand-over to the supervisor": at[Created] - asked - sum(startup.values()),
        **{f"create: {name}": seconds for name, seconds in startup.items()},
        "run: start to exit of the code": wall,
        "start handshake, init reaped, usage read": at[Exited] - at[Created] - wall,
        "delete": at[Deleted] - at[Exited],
        "supervisor ends, client closes": ended - at[Deleted],
        "whole run": ended - begun,
    }


def many(rounds: int, runs: int) -> Group:
    """Measure many runs at once: the wall time of twenty, and runs per second with one and two threads."""

    def at_once() -> float:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return seconds_of(lambda: list(pool.map(lambda _: run_pass(), range(_AT_ONCE))))

    def rate(threads: int) -> Callable[[], float]:
        def call() -> float:
            with ThreadPoolExecutor(threads) as pool:
                return runs / seconds_of(lambda: list(pool.map(lambda _: run_pass(), range(runs))))

        return call

    subjects = [
        Subject(name=f"{_AT_ONCE} at once, until the last is gone", call=at_once),
        Subject(name="throughput, 1 thread", call=rate(1), unit="runs/s"),
        Subject(name="throughput, 2 threads", call=rate(2), unit="runs/s"),
    ]
    return Group(title="Many", measurements=interleave(subjects, rounds, 1))


def output(rounds: int, size_bytes: int) -> Group:
    """Measure how fast output comes through, contained and through a plain pipe."""
    source = f"import os\nfor _ in range({size_bytes // 65536}): os.write(1, b'x' * 65536)"

    def contained() -> float:
        limit = str(size_bytes * 2)
        events = cm.stream(source, max_output=limit, **OPTIONS)
        return _throughput(size_bytes, lambda: sum(map(_output_bytes, events)))

    def plain() -> float:
        return _throughput(size_bytes, lambda: _read_all([base_python(), "-I", "-S", "-c", source]))

    subjects = [
        Subject(name="output of a cell", call=contained, unit="bytes/s"),
        Subject(name="output of a plain process", call=plain, unit="bytes/s"),
    ]
    title = f"Output: {size_bytes / 1e6:.0f} MB"
    return Group(title=title, measurements=interleave(subjects, rounds, 1), base="output of a plain process")


def _output_bytes(event: Event) -> int:
    return len(event.data) if isinstance(event, Output) else 0


def _throughput(size_bytes: int, read: Callable[[], int]) -> float:
    begun = time.perf_counter()
    got = read()
    if got < size_bytes - 65536:
        raise RuntimeError(f"{got} of {size_bytes} bytes came through")
    return got / (time.perf_counter() - begun)


def _read_all(words: Sequence[str]) -> int:
    with subprocess.Popen(list(words), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        total = 0
        while data := process.stdout.read1(1 << 18):  # type: ignore[attr-defined]  # it is a BufferedReader
            total += len(data)
    return total


def inside_and_outside(rounds: int, count: int) -> tuple[Group, ...]:
    """Measure the same loop inside and outside: Python alone, and system calls under seccomp."""
    return (
        _compare("CPU-bound loop", _CPU.format(count=count), rounds),
        _compare("System calls (getppid)", _SYSCALLS.format(count=count // 4), rounds),
    )


def _compare(title: str, source: str, rounds: int) -> Group:
    subjects = [
        Subject(name="inside", call=lambda: float(_check(cm.run(source, **OPTIONS)).stdout)),
        Subject(name="outside", call=lambda: printed_seconds([base_python(), "-I", "-S", "-c", source])),
    ]
    return Group(title=title, measurements=interleave(subjects, rounds, 1), base="outside")


def memory() -> Group:
    """Measure the memory of this process's zygote: its own share (PSS) and all that it maps (RSS)."""
    from container_magic.runtime.client import zygote

    kept = Collector(unit="bytes")
    for line in Path(f"/proc/{zygote().process.pid}/smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in ("Rss", "Pss"):
            kept.add(f"zygote {name.upper()}", int(rest.split()[0]) * 1024)
    return Group(title="Memory", measurements=kept.measurements())
