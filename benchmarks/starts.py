"""What a start costs: through the API, from the shell, with modules preloaded, and where its time goes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import container_magic as cm
from benchmarks import peers
from benchmarks.floor import TWO, TWO_INTERPRETERS, floors
from benchmarks.measure import PAUSE_SECONDS, Bound, Collector, Group, Subject, command, interleave, printed_seconds
from benchmarks.ours import OPTIONS, WORDS, OneShot, notes_on_starts
from container_magic.events import Created, Deleted, Event, Exited, Started, until_exited

WARM = "cm.run, warm"
COLD = "cm.run, cold"

_CONTAIN = "contain run -c pass"
_PRELOADED = "cm.run, warm, preloaded"
_MODULES = "numpy,pandas"
_IMPORT = "import numpy, pandas"
_IMPORT_OURS = "import container_magic"
_LOAD = "%load_ext container_magic"
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


def one_shot(rounds: int, found: Sequence[peers.Peer]) -> Group:
    """Measure one run of ``pass`` in a process whose zygote is up: warm, cold, and by each of the others."""
    ours = [OneShot(name=WARM), OneShot(name=COLD, options={"warm": 0})]
    with floors() as least:
        subjects = [*(one.subject() for one in ours), *least, peers.bare(), *(peer.subject() for peer in found)]
        measurements = interleave(subjects, rounds)
    return Group(
        title="One-shot: run `pass` and know how it ended",
        measurements=measurements,
        base=peers.BARE,
        bounds=(
            Bound(name=WARM, peer=peers.BARE, at_most=0.15),
            Bound(name=WARM, peer=peers.BARE, quantile="p95", at_most=0.4),
            Bound(name=COLD, peer=peers.BWRAP, at_most=0.5),
        ),
        notes=notes_on_starts(ours, rounds),
    )


def preloaded(rounds: int) -> Group:
    """Measure a run that imports numpy and pandas, which the zygote has imported before."""
    ours = [
        OneShot(name=_PRELOADED, source=_IMPORT, options={"preload": _MODULES}),
        OneShot(name="cm.run, cold, preloaded", source=_IMPORT, options={"preload": _MODULES, "warm": 0}),
    ]
    bare = Subject(name=f'python3 -c "{_IMPORT}"', call=command([sys.executable, "-c", _IMPORT]))
    return Group(
        title="One-shot: import numpy and pandas",
        measurements=interleave([*(one.subject() for one in ours), bare], rounds),
        base=bare.name,
        bounds=(Bound(name=_PRELOADED, peer=bare.name, at_most=0.02),),
        notes=notes_on_starts(ours, rounds),
    )


def contain_command() -> list[str]:
    """Return the ``contain`` program of this environment."""
    script = Path(sys.executable).parent / "contain"
    return [str(script)] if script.exists() else [sys.executable, "-m", "container_magic"]


def shell(rounds: int, found: Sequence[peers.Peer]) -> Group:
    """Measure what starts a zygote: the command line, beside the others', and the first run of a process."""
    source = _FIRST.format(options=", ".join(f"{key}={value!r}" for key, value in OPTIONS.items()))
    subjects = [
        Subject(name=_CONTAIN, call=command([*contain_command(), "run", *WORDS, "-c", "pass"])),
        *(peer.subject() for peer in found),
        peers.bare(),
        Subject(name=TWO_INTERPRETERS, call=command([sys.executable, "-c", TWO])),
        Subject(name="first cm.run of a process", call=lambda: printed_seconds([sys.executable, "-c", source])),
    ]
    return Group(
        title="From the shell: the zygote is started too",
        measurements=interleave(subjects, rounds, 1),
        base=peers.RUNC,
        bounds=(Bound(name=_CONTAIN, peer=peers.RUNC, at_most=1.5),),
    )


def imports(rounds: int, directory: Path) -> Group:
    """Measure the import (as the difference to an interpreter that imports nothing) and ``%load_ext``."""
    plain, importing = (command([sys.executable, "-c", source]) for source in ("pass", _IMPORT_OURS))
    environment = {"IPYTHONDIR": str(directory)}
    subjects = [
        Subject(name=_IMPORT_OURS, call=lambda: -plain() + importing()),
        Subject(name=_LOAD, call=lambda: printed_seconds([sys.executable, "-c", _LOAD_EXT], environment)),
    ]
    return Group(
        title="Imports",
        measurements=interleave(subjects, rounds, 1),
        bounds=(Bound(name=_IMPORT_OURS, at_most=0.050), Bound(name=_LOAD, at_most=0.300)),
    )


def parts(rounds: int) -> tuple[Group, ...]:
    """Measure where the time of a run goes, warm and cold, from the events as the client sees them."""
    return (
        _parts("Where the time of a warm cm.run goes", _warm_parts, rounds),
        _parts("Where the time of a cold cm.run goes, removal included", _cold_parts, rounds),
    )


def _parts(title: str, take: Callable[[], dict[str, float]], rounds: int) -> Group:
    kept = Collector()
    for number in range(rounds + 2):
        time.sleep(PAUSE_SECONDS)
        for name, seconds in take().items():
            if number >= 2:
                kept.add(name, seconds)
    return Group(title=title, measurements=kept.measurements(), base="whole run")


def _warm_parts() -> dict[str, float]:
    begun = time.perf_counter()
    events: Any = cm.stream("pass", **OPTIONS)
    asked = time.perf_counter()
    at, seen = _follow(until_exited(events))
    events.close()
    ended = time.perf_counter()
    wall = seen[Exited].usage.wall_seconds or 0.0
    return {
        "options and spec": asked - begun,
        "a container of the pool is found, and told to start": at[Started] - asked,
        "run: start to exit of the code": wall,
        "the code's end, usage read": at[Exited] - at[Started] - wall,
        "back to the pool": ended - at[Exited],
        "whole run": ended - begun,
    }


def _cold_parts() -> dict[str, float]:
    begun = time.perf_counter()
    events = cm.stream("pass", warm=0, **OPTIONS)
    asked = time.perf_counter()
    at, seen = _follow(events)
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


def _follow(events: Any) -> tuple[dict[type, float], dict[type, Any]]:
    at: dict[type, float] = {}
    seen: dict[type, Event] = {}
    for event in events:
        at[type(event)], seen[type(event)] = time.perf_counter(), event
    return at, seen
