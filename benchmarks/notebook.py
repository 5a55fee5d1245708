"""The round trip of a cell in a real Jupyter kernel, contained and plain."""

from __future__ import annotations

import ast
import subprocess
from dataclasses import dataclass, field
from typing import Any

from benchmarks.measure import Bound, Group, Subject, interleave, seconds_of
from benchmarks.ours import WORDS

_CELL_SECONDS = 60
_WARM = "%%contain, warm"
_PLAIN = "plain cell"


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
