"""The round trip of a cell in a real Jupyter kernel, contained and plain."""

from __future__ import annotations

from functools import partial
from typing import Any

from benchmarks.measure import Group, Subject, interleave, seconds_of

_OPTIONS = "--mem 200M --cpus 0-1 --net none"
_CELL_SECONDS = 60


def cells(rounds: int) -> Group:
    """Measure a contained cell, without and with its report, and a plain one in the same kernel."""
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(kernel_name="python3")
    try:
        _execute(client, "%load_ext container_magic")
        sources = {
            "%%contain, --report none": f"%%contain {_OPTIONS} --report none\npass",
            "%%contain": f"%%contain {_OPTIONS}\npass",
            "plain cell": "pass",
        }
        subjects = [Subject(name=name, call=partial(_round_trip, client, source)) for name, source in sources.items()]
        return Group(title="A cell in a Jupyter kernel", measurements=interleave(subjects, rounds), base="plain cell")
    finally:
        client.stop_channels()
        manager.shutdown_kernel()


def _round_trip(client: Any, source: str) -> float:
    return seconds_of(lambda: _execute(client, source))


def _execute(client: Any, source: str) -> None:
    reply = client.execute_interactive(source, output_hook=lambda _: None, timeout=_CELL_SECONDS)
    if reply["content"]["status"] != "ok":
        raise RuntimeError(f"{source!r}: {reply['content'].get('evalue')}")
