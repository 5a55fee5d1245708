"""Locks in a process that may be forked while another thread holds them (``multiprocessing`` in a notebook).

Nobody would ever let go of such a lock in the child. So a fork takes them first, and both processes let go of them.
"""

from __future__ import annotations

import _thread
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _thread import LockType, RLock

importing = _thread.RLock()
"""To be held by a thread that imports much: the lock of each module would stay locked in the child as well."""
_others: list[LockType | RLock] = []
_held: list[LockType | RLock] = []
"""By the fork that is under way; ``importing`` is the first, and the last to go."""


def hold_at_fork(lock: LockType | RLock) -> None:
    """Have every fork of this process wait for ``lock``, which is held for moments only, and be free in both then.

    The latest is taken first: whoever holds a module's lock may ask for that of a module which was imported before.
    """
    _others.append(lock)


def _take() -> None:
    importing.acquire()
    _held.append(importing)
    # looked at only now: what was imported while this waited has added to them. A hook of each module's own would be
    # called after this fork without having been called before it
    for lock in reversed(_others):
        lock.acquire()
        _held.append(lock)


def _let_go() -> None:
    while _held:
        _held.pop().release()


os.register_at_fork(before=_take, after_in_parent=_let_go, after_in_child=_let_go)
