"""Who has a CPU first when one process wakes another (sched(7))."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

_PRIORITY = os.sched_param(0)  # the only one that these policies have


def yield_when_woken() -> bool:
    """Take no CPU from who has it when this thread is woken; its share stays the same (SCHED_BATCH).

    Returns:
        Whether that was changed. A policy that somebody has chosen is left, and so is all where the kernel refuses.
    """
    return _exchange(os.SCHED_OTHER, os.SCHED_BATCH)


@contextlib.contextmanager
def yielding() -> Iterator[None]:
    """Do so within the block."""
    changed = yield_when_woken()
    try:
        yield
    finally:
        if changed:
            _exchange(os.SCHED_BATCH, os.SCHED_OTHER)


def _exchange(policy: int, other: int) -> bool:
    try:
        if os.sched_getscheduler(0) != policy:
            return False
        os.sched_setscheduler(0, other, _PRIORITY)
    except OSError:  # musl has neither; a seccomp filter around everything may forbid it
        return False
    return True
