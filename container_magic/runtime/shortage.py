"""What a run came short of without being ended for it: tasks, and room in its writable layer.

Looked at from outside and only when a run has failed: the code's own error says what it could not do, this says why.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from container_magic.events import LimitName
from container_magic.runtime.measure import Gauge


class Shortages:
    """Limits that refuse instead of ending: ``--pids`` and ``--disk`` (of ``disk_bytes``) of one container."""

    def __init__(self, gauge: Gauge, init_pid: int, disk_bytes: int | None) -> None:
        self._gauge = gauge
        self._init_pid = init_pid
        self._disk_bytes = disk_bytes
        self._refused_before = 0

    def begin_cell(self) -> None:
        """Count from here; a run of its own begins with nothing refused."""
        self._refused_before = self._gauge.tasks_refused()

    def met(self, *, alive: bool) -> Iterator[LimitName]:
        """Yield the limits that were met; the disk's is only known while init is alive."""
        if self._gauge.tasks_refused() > self._refused_before:
            yield "pids"
        if alive and self._disk_is_full():
            yield "disk"

    def _disk_is_full(self) -> bool:
        """Whether the layer has no block or no inode left; what was deleted before the end is not seen."""
        if self._disk_bytes is None:
            return False
        with contextlib.suppress(OSError):
            # the root's overlay answers for the layer that all of them write to
            found = os.statvfs(f"/proc/{self._init_pid}/root")
            is_ours = 0 <= found.f_blocks * found.f_frsize - self._disk_bytes < os.sysconf("SC_PAGE_SIZE")
            return is_ours and 0 in (found.f_bavail, found.f_favail)
        return False
