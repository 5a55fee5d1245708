"""The round trip of a cell in a real Jupyter kernel, contained and plain."""

from __future__ import annotations

import ast
import subprocess
import time
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.measure import Bound, Group, Subject, interleave, seconds_of
from benchmarks.ours import WORDS

_CELL_SECONDS = 60
_READ_SECONDS = 1.0
_WARM = "%%contain, warm"
_PLAIN = "plain cell"
_LINE = "import time\ntime.sleep(0.05)\nprint(repr(time.time()), flush=True)\ntime.sleep(0.05)"
_LATER = "the contained line, later than the plain one"


def cells(rounds: int) -> Group:
    """Measure contained cells, warm with and without their report and cold, and a plain one in the same kernel."""
    from jupyter_client.manager import start_new_kernel

    # its warning that TCP is not encrypted is for those who leave this machine
    manager, client = start_new_kernel(kernel_name="python3", stderr=subprocess.DEVNULL)
    try:
        _execute(client, "%load_ext container_magic")
        contain = f"%%contain {' '.join(WORDS)}"
        warm = [
            _Contained(client=client, name=_WARM, source=f"{contain}\npass"),
            _Contained(client=client, name="%%contain, warm, --report none", source=f"{contain} --report none\npass"),
        ]
        cold = _Contained(client=client, name="%%contain, cold", source=f"{contain} --warm 0\npass")
        plain = Subject(name=_PLAIN, call=lambda: seconds_of(lambda: _execute(client, "pass")))
        measurements = interleave([*(cell.subject() for cell in (*warm, cold)), plain], rounds)
    finally:
        client.stop_channels()
        manager.shutdown_kernel()
    return Group(
        title="A cell in a Jupyter kernel",
        measurements=measurements,
        base=_PLAIN,
        bounds=tuple(Bound(name=_WARM, peer=_PLAIN, quantile=quantile, at_most=1.6) for quantile in ("p50", "p95")),
        notes=tuple(note for cell in warm for note in cell.notes(rounds)),
    )


def first_cells(rounds: int) -> Group:
    """Measure the first contained cell of a kernel, after somebody has looked at the notebook for a second or not."""
    late = Subject(name="first %%contain, a second after %load_ext", call=lambda: _first(_READ_SECONDS))
    early = Subject(name="first %%contain, with %load_ext just before it", call=lambda: _first(0.0))
    return Group(title="The first contained cell of a kernel", measurements=interleave([late, early], rounds, 1))


def _first(pause_seconds: float) -> float:
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(kernel_name="python3", stderr=subprocess.DEVNULL)
    try:
        _execute(client, "%load_ext container_magic")
        time.sleep(pause_seconds)
        return seconds_of(lambda: _execute(client, f"%%contain {' '.join(WORDS)}\npass"))
    finally:
        client.stop_channels()
        manager.shutdown_kernel()


def streaming(rounds: int) -> Group:
    """Measure how long a printed line is on its way to the front end, from a plain cell and from a contained one."""
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(kernel_name="python3", stderr=subprocess.DEVNULL)
    try:
        _execute(client, "%load_ext container_magic")
        plain = Subject(name="printed line, plain cell", call=lambda: _latency(client, _LINE))
        source = f"%%contain {' '.join(WORDS)}\n{_LINE}"
        contained = Subject(name="printed line, %%contain", call=lambda: _latency(client, source))
        one, other = interleave([plain, contained], rounds)
    finally:
        client.stop_channels()
        manager.shutdown_kernel()
    later = tuple(ours - theirs for theirs, ours in zip(one.samples, other.samples, strict=True))
    return Group(
        title="A printed line on its way into the notebook",
        measurements=(one, other, replace(one, name=_LATER, samples=later)),
        base=plain.name,
        bounds=(Bound(name=_LATER, at_most=0.005),),
    )


def _latency(client: Any, source: str) -> float:
    """Return the seconds from the printing of a time to its arrival here."""
    arrived: list[float] = []

    def take(message: dict[str, Any]) -> None:
        # the line's end may come by itself
        if message["msg_type"] == "stream" and message["content"]["text"].strip():
            arrived.append(time.time() - float(message["content"]["text"]))

    reply = client.execute_interactive(source, output_hook=take, timeout=_CELL_SECONDS)["content"]
    if reply["status"] != "ok" or len(arrived) != 1:
        raise RuntimeError(f"{source!r}: {reply.get('evalue')}, {len(arrived)} lines")
    return arrived[0]


@dataclass(frozen=True, kw_only=True)
class _Contained:
    client: Any
    name: str
    source: str
    starts: list[str] = field(default_factory=list)

    def subject(self) -> Subject:
        return Subject(name=self.name, call=self._call)

    def _call(self) -> float:
        elapsed = seconds_of(lambda: _execute(self.client, self.source))
        self.starts.append(_execute(self.client, "", "_contain.start"))
        return elapsed

    def notes(self, kept: int) -> list[str]:
        count = self.starts[-kept:].count("cold")
        return [f"{self.name}: {count} of {kept} starts were cold"] if count else []


def _execute(client: Any, source: str, expression: str = "None") -> Any:
    """Run a cell and wait until the kernel is idle; return the value of an expression after it."""
    asked = {"value": expression} if expression != "None" else {}
    reply = client.execute_interactive(
        source, output_hook=lambda _: None, timeout=_CELL_SECONDS, user_expressions=asked
    )["content"]
    if reply["status"] != "ok":
        raise RuntimeError(f"{source!r}: {reply.get('evalue')}")
    return ast.literal_eval(reply["user_expressions"]["value"]["data"]["text/plain"]) if asked else None
