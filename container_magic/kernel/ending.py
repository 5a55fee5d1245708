"""Why a kernel is dead, in the words that a client shows."""

from __future__ import annotations

from typing import Any

from container_magic.display.failure import failure
from container_magic.display.text import ending
from container_magic.report import RunReport

EXIT_FAILED = 1
EXIT_TIME_LIMIT = 124
EXIT_MEMORY_LIMIT = 137
_LOST = "The kernel is gone, and with it what it held; a restart begins anew."
_CODES = {"TIME_LIMIT": EXIT_TIME_LIMIT, "MEMORY_LIMIT": EXIT_MEMORY_LIMIT}


def error_content(report: RunReport) -> dict[str, Any]:
    """Return the content of the ``error`` that stands in the cell."""
    if report.verdict == "INTERNAL_ERROR" and report.error is None:
        return _ended("the kernel's process ended between two cells")
    found = failure(report)
    if found is None or report.verdict in ("RUNTIME_ERROR", "INTERRUPTED"):
        return _ended(f"the kernel's process ended: {ending(report)}")
    return {"ename": type(found).__name__, "evalue": str(found), "traceback": [*found.lines, _LOST]}


def _ended(message: str) -> dict[str, Any]:
    return {"ename": "KernelEnded", "evalue": message, "traceback": [f"KernelEnded: {message}", _LOST]}


def exit_code(report: RunReport) -> int:
    """Return what the launcher ends with: 124 a time limit, 137 the memory limit, as ``contain run`` has it."""
    return _CODES.get(report.verdict, EXIT_FAILED)
