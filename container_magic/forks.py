"""Locks of modules in a process that may be forked while another thread holds them (``multiprocessing`` in a notebook).

Nobody would ever let go of such a lock in the child.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _thread import LockType, RLock


def hold_at_fork(lock: LockType | RLock) -> None:
    """Have every fork of this process wait for ``lock``, which is held for moments only, and free in both then."""
    os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
