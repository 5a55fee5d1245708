"""Many containers: graded inputs per second, twenty at once, a start among hundreds, and what one that waits takes."""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import container_magic as cm
from benchmarks import peers
from benchmarks.floor import rate_floor, straight_containers
from benchmarks.measure import Bound, Collector, Group, Measurement, Subject, interleave, seconds_of
from benchmarks.ours import OPTIONS, OneShot, checked
from container_magic.events import Started
from container_magic.runtime.client import Zygote, zygote
from container_magic.runtime.pool import MOST_WAITING

_AT_ONCE = 20
_SQUARE = "print(int(input()) ** 2)"
_FDS_PER_RUN = 8
_SLEEP = "import time; time.sleep(3600)"
_FILL_SECONDS = 30.0
_WAITING_MEMORY_BYTES = 2e6
_ZYGOTE_PROCESSES = 4  # itself, the supervisor that it has forked ahead, and the init and payload of that one
_PSS = "a waiting container: PSS of its processes beyond what is shared"
_PSS_FLOOR = "floor: that of a container made in a straight line, and who made it"
_CHARGED = "a waiting container: what its cgroup is charged with"
_CGROUP_FILES = ("memory.current", "memory.usage_in_bytes")


def at_once(rounds: int) -> Group:
    """Measure the wall time of twenty runs of ``pass`` that are asked for at the same moment."""

    def call() -> float:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return seconds_of(lambda: list(pool.map(lambda _: checked(cm.run("pass", **OPTIONS)), range(_AT_ONCE))))

    one = Subject(name=f"{_AT_ONCE} at once, until the last has ended", call=call)
    return Group(title="Many at the same moment", measurements=interleave([one], rounds, 1))


def grading(rounds: int, runs: int, found: Sequence[peers.Peer]) -> Group:
    """Measure how many inputs per second are graded, each in a container of its own."""
    ours = {workers: f"cm.map, {workers} worker{'s' * (workers > 1)}" for workers in (1, 2)}
    loops = {1: "a shell loop of bwrap", 2: "two shell loops of bwrap"}
    subjects = [Subject(name=name, call=_grade(runs, workers), unit="runs/s") for workers, name in ours.items()]
    if any(peer.name == peers.BWRAP for peer in found):
        subjects += [
            Subject(name=name, call=peers.shell_loops(_SQUARE, runs, count), unit="runs/s")
            for count, name in loops.items()
        ]
    with rate_floor(runs) as floor:
        measurements = interleave([*subjects, floor], rounds, 1)
    pairs = ((ours[1], loops[1]), (ours[2], loops[1]), (ours[2], loops[2]))
    return Group(
        title=f"Grading {runs} inputs",
        measurements=measurements,
        base=loops[1],
        bounds=tuple(Bound(name=name, peer=peer, at_least=3.0) for name, peer in pairs),
    )


def _grade(runs: int, workers: int) -> Callable[[], float]:
    inputs = [f"{number}\n" for number in range(runs)]

    def call() -> float:
        begun = time.perf_counter()
        done = [checked(report) for report in cm.map(_SQUARE, inputs, workers=workers, **OPTIONS)]
        elapsed = time.perf_counter() - begun
        if sorted(int(report.stdout) for report in done) != [number**2 for number in range(runs)]:
            raise RuntimeError("cm.map lost a run")
        return runs / elapsed

    return call


def alive(rounds: int, count: int) -> Group:
    """Measure starts beside ``count`` containers that sleep, and with none: half of those before, half after."""
    kinds = {"warm": OneShot(name="warm"), "cold": OneShot(name="cold", options={"warm": 0})}
    subjects = [one.subject() for one in kinds.values()]
    before = interleave(subjects, -(-rounds // 2))
    with _sleeping(count) as sleeping:
        beside = interleave(subjects, rounds)
    after = interleave(subjects, -(-rounds // 2))
    measurements, bounds = [], []
    for early, among, late in zip(before, beside, after, strict=True):
        names = f"cm.run, {among.name}, beside {sleeping} others", f"cm.run, {among.name}, beside none"
        measurements += [
            Measurement(name=names[0], unit="s", samples=among.samples),
            Measurement(name=names[1], unit="s", samples=early.samples + late.samples),
        ]
        bounds.append(Bound(name=names[0], peer=names[1], at_most=1.5))
    return Group(title=f"A start among {sleeping} containers", measurements=tuple(measurements), bounds=tuple(bounds))


@contextlib.contextmanager
def _sleeping(count: int) -> Iterator[int]:
    """Hold this many containers that sleep, or as many as there may be descriptors for; say how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(soft, _FDS_PER_RUN * count + 256)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    count = min(count, (allowed - 256) // _FDS_PER_RUN)
    with contextlib.ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(count):
            stack.enter_context(contextlib.closing(_asleep()))
        yield count


def _asleep() -> Any:
    events = cm.stream(_SLEEP, warm=0, **OPTIONS)
    for event in events:
        if isinstance(event, Started):
            break
    return events


def memory(rounds: int) -> Group:
    """Measure what this process's zygote takes, and what each container that waits takes beyond it."""
    kept = Collector(unit="bytes")
    notes: tuple[str, ...] = ()
    for _ in range(rounds):
        try:
            _add_memory(zygote(), kept)
            _add_memory_floor(kept)
        except PermissionError:
            notes = ("the memory of processes in containers is not for this user to see",)
    bounds = tuple(Bound(name=name, at_most=_WAITING_MEMORY_BYTES) for name in (_PSS, _CHARGED))
    return Group(title="Memory", measurements=kept.measurements(), bounds=bounds, notes=notes)


def _add_memory(host: Zygote, kept: Collector) -> None:
    """Measure with an empty pool, then with a full one."""
    host.pool.empty()
    _wait_until(lambda: len(_tree(host.process.pid)) <= _ZYGOTE_PROCESSES)
    empty = _pss_bytes(host.process.pid)
    kept.add("the zygote, and what it has made ahead", empty)
    checked(cm.run("pass", warm=MOST_WAITING, **OPTIONS))
    _wait_until(lambda: _waiting(host) == MOST_WAITING)
    for charged in _charged_bytes(host):
        kept.add(_CHARGED, charged)
    kept.add(_PSS, (_pss_bytes(host.process.pid) - empty) / MOST_WAITING)


def _add_memory_floor(kept: Collector) -> None:
    with straight_containers(MOST_WAITING) as (pid, make):
        empty = _pss_bytes(pid)
        make()
        kept.add(_PSS_FLOOR, (_pss_bytes(pid) - empty) / MOST_WAITING)


def _waiting(host: Zygote) -> int:
    host.pool.tend()
    return sum(worker.created is not None for worker in host.pool.workers())


def _wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + _FILL_SECONDS
    while not holds():
        if time.monotonic() > end:
            raise RuntimeError("the pool does not come to rest")
        time.sleep(0.05)
    time.sleep(0.2)


def _tree(pid: int) -> list[int]:
    """Return the process and all below it."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(below for child in children for below in _tree(int(child)))]


def _pss_bytes(pid: int) -> int:
    """Return the memory of a process and everything below it, each shared page counted once among them."""
    total = 0
    for one in _tree(pid):
        lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def _charged_bytes(host: Zygote) -> Iterator[int]:
    """Yield the memory that the kernel charges each waiting container's group with."""
    for worker in host.pool.workers():
        if worker.created is None:
            continue
        groups = Path(host.directory, worker.created.container_id, "cgroups").read_text().split("\n")
        files = [Path(group, name) for group in groups for name in _CGROUP_FILES if Path(group, name).exists()]
        yield from (int(file.read_text()) for file in files[:1])
