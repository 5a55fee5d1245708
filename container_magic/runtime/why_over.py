"""Why a session is over, in words."""

from __future__ import annotations

from container_magic.events import Event, Exited, Failed, LimitReached

_LIMITS_IN_WORDS = {
    "memory": "its memory limit was reached",
    "wall": "a cell took longer than its --timeout",
    "cpu": "its CPU time was used up",
    "output": "a cell wrote more than anybody can want",
    "idle": "it has waited too long for a cell",
}


def why_over(event: Event, known: str) -> str:
    """Return why a session is over after ``event``, ``known`` being what was known before."""
    if isinstance(event, LimitReached) and event.limit in _LIMITS_IN_WORDS:
        return _LIMITS_IN_WORDS[event.limit]
    if isinstance(event, Failed):
        return event.message
    if isinstance(event, Exited) and not event.alive and not known:
        by = f"with exit code {event.exit_code}" if event.exit_signal is None else f"by signal {event.exit_signal}"
        return f"its interpreter was ended {by}"
    return known
