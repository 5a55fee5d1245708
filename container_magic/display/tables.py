"""What verbs return, as text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from container_magic.display.text import human_bytes, human_seconds

if TYPE_CHECKING:
    from container_magic.verbs.diff import Changes
    from container_magic.verbs.doctor import Check
    from container_magic.verbs.sessions import SessionInfo


def checks_text(checks: Sequence[Check]) -> str:
    """Return the checks of ``contain doctor``, a line each, with the remedy for what this host cannot do."""
    marks = {True: "yes", False: "no", None: "-"}
    width = max((len(check.name) for check in checks), default=0)
    lines = []
    for check in checks:
        remedy = f"; remedy: {check.remedy}" if check.remedy else ""
        lines.append(f"{marks[check.ok]:<4}{check.name:<{width}}  {check.detail}{remedy}")
    return "\n".join(lines)


def checks_json(checks: Sequence[Check]) -> str:
    """Return the checks of ``contain doctor`` as a JSON list of objects."""
    fields = ("name", "ok", "detail", "remedy")
    return json.dumps([{field: getattr(check, field) for field in fields} for check in checks], indent=2)


def changes_text(changes: Changes) -> str:
    """Return what a container has changed as Docker's diff shows it, a line each."""
    lines = [f"{kind} {path}" for kind, path in changes.changes]
    return "\n".join(lines if changes.complete else [*lines, "... and more, which was not looked at"])


def changes_json(changes: Changes) -> str:
    """Return what a container has changed as a JSON object."""
    listed = [{"kind": kind, "path": path} for kind, path in changes.changes]
    about = {"container_id": changes.container_id, "running": changes.running, "complete": changes.complete}
    return json.dumps({**about, "changes": listed}, indent=2)


def sessions_text(sessions: Sequence[SessionInfo]) -> str:
    """Return the sessions of this process as a table."""
    if not sessions:
        return "no sessions; %%contain --session NAME begins one"
    head = ("NAME", "CONTAINER ID", "CELLS", "CPU", "MEMORY PEAK", "IDLE", "STATUS")
    return columns(head, [_session_row(session) for session in sessions])


def columns(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Return ``rows`` below ``head``, each column as wide as its widest cell, the last as it is."""
    table = [head, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(head) - 1)]
    return "\n".join(
        "   ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]) for row in table
    )


def _session_row(session: SessionInfo) -> tuple[str, ...]:
    usage = session.usage
    return (
        session.name,
        session.container_id[:12],
        str(session.cells),
        human_seconds(usage.cpu_seconds) if usage else "-",
        human_bytes(usage.memory_peak_bytes) if usage else "-",
        human_seconds(session.idle_seconds),
        session.state,
    )
