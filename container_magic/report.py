"""``RunReport``: what is known of a run when it is over; ``folding`` makes it of the run's events.

A figure that the host could not give is None, never 0.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
from dataclasses import field
from typing import Any, Literal

from container_magic.deferred import dataclass
from container_magic.events import (
    CodeError,
    Collected,
    Downgrade,
    FilesChanged,
    Limit,
    LimitName,
    MemoryHigh,
    NotCollected,
    Sampled,
    Usage,
)
from container_magic.forks import importing
from container_magic.spec import build

Verdict = Literal[
    "OK",
    "RUNTIME_ERROR",
    "SIGNALED",
    "TIME_LIMIT",
    "MEMORY_LIMIT",
    "OUTPUT_LIMIT",
    "INTERRUPTED",
    "INTERNAL_ERROR",
]


@dataclass(frozen=True, kw_only=True)
class ReportUsage(Usage):
    """``Usage`` at the end of the run, what the start took (in parts, by name), and the curve."""

    startup_seconds: float | None = None
    startup: dict[str, float] = field(default_factory=dict)
    samples: tuple[Sampled, ...] = ()


@dataclass(frozen=True, kw_only=True, repr=False)
class RunReport:
    """What a run did, how it ended, what it used, and what held it."""

    verdict: Verdict
    exit_code: int | None = None
    exit_signal: int | None = None
    oom_killed: bool = False
    timed_out: bool = False
    truncated: bool = False
    """Output was left out; ``dropped_bytes`` says how much."""
    stdout: str = ""
    stderr: str = ""
    outputs: tuple[dict[str, Any], ...] = ()
    """What the code showed, as nbformat has it (``output_type``, ``data``, ``metadata``), made safe; in the order in
    which it was shown, after what it cleared and updated."""
    error: CodeError | None = None
    """The error as the code itself says it; for ``INTERNAL_ERROR`` the name and message of the sandbox's own."""
    files: tuple[Collected, ...] = ()
    """Files that ``--out-file`` has taken out, in the order in which they were written."""
    files_refused: tuple[NotCollected, ...] = ()
    """What ``--out-file`` named and did not take out, and why."""
    usage: ReportUsage = field(default_factory=ReportUsage)
    limits: tuple[Limit, ...] = ()
    limits_reached: tuple[LimitName, ...] = ()
    memory_high: MemoryHigh | None = None
    """What the code held when ``--mem-high`` had it interrupted; None when it was not."""
    downgrades: tuple[Downgrade, ...] = ()
    container_id: str = ""
    start: Literal["cold", "warm"] | None = None
    dropped_bytes: int = 0
    changes: FilesChanged | None = None
    """Files that the run changed; None unless it was asked for."""
    log_path: str | None = None
    """File on the host with the whole output, when some of it was left out here."""
    session: Usage | None = None
    """What the session has used so far, when the run is a session's cell; ``usage`` is the cell's own."""
    line: int | None = None
    """Of code that was ended: the line of its last statement, as it says itself; an error's traceback has its own."""
    values: dict[str, Any] = field(default_factory=dict, compare=False)
    """Variables that were wanted of the code, by name: all when it ended well, else none; never in JSON."""
    index: int | None = None
    """Number of the input, from 0, when the run is one of ``map``."""

    @property
    def ok(self) -> bool:
        """True when the code ended by itself, with exit code 0, inside its limits."""
        return self.verdict == "OK"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types: ``ok``, and every field but ``values``."""
        # not copied with the rest: they may be large, and what they are made of is theirs
        fields = dataclasses.asdict(dataclasses.replace(self, values={}))
        del fields["values"]
        return {"ok": self.ok, **fields}

    def to_json(self) -> str:
        """Return ``to_dict`` as one line of ASCII JSON."""
        return json.dumps(self.to_dict())

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> RunReport:
        """Rebuild a report from ``to_dict`` (also after a trip through JSON).

        Raises:
            TypeError: A key is unknown or a value has another type than the field.
        """
        return build(cls, {name: value for name, value in data.items() if name != "ok"})

    def __str__(self) -> str:
        line: str = _display("container_magic.display.text").report_line(self)
        return line

    def __repr__(self) -> str:
        return f"<RunReport {self}>"

    def _repr_html_(self) -> str:
        page: str = _display("container_magic.display.html").report_full_html(self)
        return page

    def _repr_mimebundle_(self, **_options: Any) -> dict[str, str]:
        return {
            "text/plain": _display("container_magic.display.text").report_full(self),
            "text/html": self._repr_html_(),
        }


def _display(module: str) -> Any:
    # How a report looks is ring 7's business. It is named here as a string and loaded when a report is shown,
    # so that importing ring 0 imports nothing above it.
    with importing:
        return importlib.import_module(module)


def dropped_marker(dropped_bytes: int) -> str:
    """Return the line that stands where output was left out."""
    return f"\n[... {dropped_bytes:,} bytes not shown ...]\n"
