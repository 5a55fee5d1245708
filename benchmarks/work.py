"""What work costs inside, beside the same work outside."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence

import container_magic as cm
from benchmarks.measure import Bound, Group, Subject, base_python, interleave, printed_seconds
from benchmarks.ours import OPTIONS, checked
from container_magic.events import Event, Output

_PIECES = 20
_TIMED = f"""
import os, time
def timed():
    begun = time.perf_counter()
    {{work}}
    return time.perf_counter() - begun
print(min(timed() for _ in range({_PIECES})))
"""
_CPU = "sum(i * i for i in range({count}))"
_SYSCALLS = "for _ in range({count}): os.getppid()"
_CHUNK_BYTES = 65536


def inside_and_outside(rounds: int, count: int) -> tuple[Group, ...]:
    """Measure the same loop inside and outside: Python alone, and system calls under seccomp.

    Of each run the fastest of its pieces counts, as ``timeit`` has it: what else runs on the machine is left out.
    """
    piece = count // _PIECES
    return (
        _compare("CPU-bound loop", _CPU.format(count=piece), rounds, at_most=1.02),
        _compare("System calls (getppid)", _SYSCALLS.format(count=piece // 4), rounds),
    )


def _compare(title: str, loop: str, rounds: int, at_most: float | None = None) -> Group:
    source = _TIMED.format(work=loop)
    inside, outside = f"{title}, inside", f"{title}, outside"
    subjects = [
        Subject(name=inside, call=lambda: float(checked(cm.run(source, **OPTIONS)).stdout)),
        Subject(name=outside, call=lambda: printed_seconds([base_python(), "-I", "-S", "-c", source])),
    ]
    bounds = () if at_most is None else (Bound(name=inside, peer=outside, at_most=at_most),)
    return Group(title=title, measurements=interleave(subjects, rounds, 1), base=outside, bounds=bounds)


def output(rounds: int, size_bytes: int) -> Group:
    """Measure how fast output comes through, contained and through a plain pipe."""
    source = f"import os\nfor _ in range({size_bytes // _CHUNK_BYTES}): os.write(1, b'x' * {_CHUNK_BYTES})"

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
    if got < size_bytes - _CHUNK_BYTES:
        raise RuntimeError(f"{got} of {size_bytes} bytes came through")
    return got / (time.perf_counter() - begun)


def _read_all(words: Sequence[str]) -> int:
    with subprocess.Popen(list(words), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        total = 0
        while data := process.stdout.read1(1 << 18):  # type: ignore[attr-defined]  # it is a BufferedReader
            total += len(data)
    return total
