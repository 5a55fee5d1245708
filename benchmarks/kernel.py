"""The companion kernel beside ipykernel: how long it takes to start, for a cell, and for much output."""

from __future__ import annotations

import contextlib
import functools
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.measure import Bound, Group, Subject, interleave, seconds_of
from container_magic.kernel.kernelspec import Installation, install

_SECONDS = 60
_PLAIN, _CONTAINED = "ipykernel", "contained kernel"
_SPECS = {_PLAIN: "python3", _CONTAINED: "contained"}
_LINE_BYTES = 100


def measure(starts: int, cells: int, rounds: int, output_bytes: int) -> tuple[Group, ...]:
    """Measure the two side by side: a start with its first cell, the round trip of a cell, and output."""
    with tempfile.TemporaryDirectory(prefix="container_magic-bench-") as kernels:
        # more than what is printed, so that nothing is left out
        words = ("--mem", "512M", "--net", "none", "--max-output", str(4 * output_bytes), "--report", "none")
        install(Installation(name=_SPECS[_CONTAINED], display_name="contained", kernels_directory=kernels, words=words))
        return (_starts(starts, kernels), *_in_running_kernels(cells, rounds, output_bytes, kernels))


def _starts(rounds: int, kernels: str) -> Group:
    def start(name: str) -> float:
        begun = time.perf_counter()
        with _running(name, kernels) as client:
            _execute(client, "pass")
            return time.perf_counter() - begun

    return _compare("A kernel's start, to the end of its first cell", "start", start, rounds, at_most=1.3, warm_ups=1)


def _in_running_kernels(cells: int, rounds: int, output_bytes: int, kernels: str) -> tuple[Group, ...]:
    lines = output_bytes // _LINE_BYTES
    source = f"for i in range({lines}):\n    print(f'{{i:0{_LINE_BYTES - 1}}}')"
    with contextlib.ExitStack() as stack:
        clients = {name: stack.enter_context(_running(name, kernels)) for name in _SPECS}

        def cell(name: str) -> float:
            return seconds_of(lambda: _execute(clients[name], "pass"))

        def output(name: str) -> float:
            return seconds_of(lambda: _execute(clients[name], source, lines * _LINE_BYTES))

        return (
            _compare("A cell's round trip in a running kernel", "round trip", cell, cells, at_most=1.5),
            _compare(f"{output_bytes / 1e6:g} MB printed by a cell", "printing", output, rounds, at_most=2.0),
        )


def _compare(
    title: str, what: str, call: Callable[[str], float], rounds: int, *, at_most: float, warm_ups: int = 2
) -> Group:
    contained, plain = (f"{what}, {name}" for name in (_CONTAINED, _PLAIN))
    subjects = [
        Subject(name=contained, call=functools.partial(call, _CONTAINED)),
        Subject(name=plain, call=functools.partial(call, _PLAIN)),
    ]
    return Group(
        title=title,
        measurements=interleave(subjects, rounds, warm_ups),
        base=plain,
        bounds=(Bound(name=contained, peer=plain, at_most=at_most),),
    )


@contextlib.contextmanager
def _running(name: str, kernels: str) -> Iterator[Any]:
    """Start a kernel as Jupyter does and give a client of it, which may not be connected yet."""
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import KernelManager

    specs = KernelSpecManager()
    specs.kernel_dirs.insert(0, kernels)
    manager = KernelManager(kernel_name=_SPECS[name], kernel_spec_manager=specs)
    # its warning that TCP is not encrypted is for those who leave this machine
    manager.start_kernel(stderr=subprocess.DEVNULL)
    client = manager.client()
    try:
        client.start_channels()
        client.wait_for_ready(timeout=_SECONDS)
        yield client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def _execute(client: Any, source: str, size_bytes: int = 0) -> None:
    """Run a cell until the kernel is idle again; all that it prints has to come."""
    came = 0

    def take(message: dict[str, Any]) -> None:
        nonlocal came
        if message["msg_type"] == "stream":
            came += len(message["content"]["text"])

    reply = client.execute_interactive(source, output_hook=take, timeout=_SECONDS)["content"]
    if reply["status"] != "ok" or came != size_bytes:
        raise RuntimeError(f"{source!r}: {reply.get('evalue')}, {came} of {size_bytes} bytes")
