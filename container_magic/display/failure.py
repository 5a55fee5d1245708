"""The failure of a contained cell as an exception that IPython shows as if the cell itself had raised it."""

from __future__ import annotations

from collections.abc import Sequence

from container_magic.display.text import advice, reason, refusals, says_line
from container_magic.events import CodeError
from container_magic.report import RunReport
from container_magic.sanitize.escapes import plain_text
from container_magic.sanitize.text import sanitize_traceback

NAME_LIMIT = 200
"""Characters of a class name that came out of a container."""
SOURCE_LIMIT = 80
"""Characters of a line of source that a message shows."""

_NAMES = {
    "RUNTIME_ERROR": "RuntimeFailure",
    "SIGNALED": "Signaled",
    "TIME_LIMIT": "TimeLimit",
    "MEMORY_LIMIT": "MemoryLimit",
    "OUTPUT_LIMIT": "OutputLimit",
    "INTERRUPTED": "Interrupted",
    "INTERNAL_ERROR": "InternalError",
}


_REFUSING = frozenset({"pids", "disk"})
"""Limits that end no run."""


class CellError(Exception):
    """Contained code failed; the name of the subclass is the name of the container's own error."""

    def __init__(self, message: str, lines: list[str]) -> None:
        super().__init__(message)
        self.lines = lines

    def _render_traceback_(self) -> list[str]:
        """IPython shows these lines instead of a traceback."""
        return self.lines


def failure(report: RunReport, source: str = "", wanted: Sequence[str] = ()) -> CellError | None:
    """Return what a notebook raises for ``report``: None when the code ended by itself with exit code 0.

    Code that has not returned the variables ``wanted`` has failed, too. ``source`` is what ran, to show the line at
    which it was ended.
    """
    if report.ok or (report.verdict == "OUTPUT_LIMIT" and report.exit_code == 0 and report.error is None):
        missing = ", ".join(name for name in wanted if name not in report.values)
        sentence = f"the code ended before it could return {missing}"
        return _failure("OutputError", sentence, [f"OutputError: {sentence}"]) if missing else None
    name = _NAMES[report.verdict]
    sentence = "; ".join(filter(None, [reason(report) + _source_line(report, source), advice(report)]))
    if report.error is None:
        return _failure(name, sentence, [f"{name}: {sentence}"])
    lines = _traceback(report.error)
    if report.oom_killed or not _REFUSING.issuperset(report.limits_reached):
        lines.append(f"{name}: {sentence}")
    elif refused := refusals(report):
        lines.append("hint: " + "; ".join(filter(None, [", ".join(refused), advice(report)])))
    return _failure(_class_name(report.error.ename), plain_text(report.error.evalue), lines)


def _source_line(report: RunReport, source: str) -> str:
    lines = source.split("\n")
    if not says_line(report) or report.line is None or report.line > len(lines):
        return ""
    line = " ".join(lines[report.line - 1].split()).removesuffix(":")
    return f": {line[:SOURCE_LIMIT]}{'...' if len(line) > SOURCE_LIMIT else ''}"


def _failure(name: str, message: str, lines: list[str]) -> CellError:
    made: type[CellError] = type(name, (CellError,), {"__module__": "container"})
    return made(message, lines)


def _traceback(error: CodeError) -> list[str]:
    # what stands in the cell's output already is not shown once more
    lines = () if error.printed else error.traceback
    return sanitize_traceback(lines or (f"{error.ename}: {error.evalue}",))


def _class_name(ename: str) -> str:
    words = plain_text(ename).replace("\0", "").split()
    return "".join(words)[:NAME_LIMIT] or "Error"
