"""cgroup v2: an outer group with the limits, an inner one that the container joins (kernel ``admin-guide/cgroup-v2``).

The inner group becomes the root of the container's cgroup namespace, so the files that hold its limits are out of its
sight.
"""

from __future__ import annotations

import os
import select

from container_magic.cgroups import files
from container_magic.cgroups.manager import DELETE_SECONDS, MemoryUse, nothing_half_made
from container_magic.cgroups.settings import Setting, v2_settings
from container_magic.cgroups.v2_figures import V2Figures
from container_magic.spec import Resources

PAYLOAD = "payload"
"""Name of the inner group."""


class V2Manager(V2Figures):
    """The group ``name`` of one container below the directory descriptor ``base``, which stays the caller's."""

    def __init__(self, base: int, name: str) -> None:
        super().__init__()
        self._base = base
        self._name = name
        self._made = False
        self._outer: int | None = None
        self._inner: int | None = None
        self._entry: int | None = None
        self._alarm: int | None = None
        self._codes: list[Setting] = []

    def require(self, controllers: tuple[str, ...]) -> None:
        """Do nothing: one group is all controllers'."""

    def prepare(self) -> None:
        """Make both groups, without any limit; nothing half-made stays behind when it raises.

        Raises:
            HostError: A group cannot be made.
        """
        with nothing_half_made(self):
            files.make(self._base, self._name)
            self._made = True
            outer = self._outer = files.open_dir(self._base, self._name)
            if files.exists(outer, "memory.oom.group"):  # since Linux 4.19: all of the container dies, not a part
                files.write(outer, "memory.oom.group", "1")
            files.make(outer, PAYLOAD)
            self._inner = files.open_dir(outer, PAYLOAD)
            self._entry = files.open_write(self._inner, "cgroup.procs")
            for name in ("cpu.stat", "memory.current", "memory.events", "pids.current", "pids.peak", "io.stat"):
                self._open[name] = files.open_read(outer, name)
            self._open["memory.peak"] = _open_peak(outer)

    def create(self, resources: Resources) -> None:
        """Make both groups, unless they were prepared, and set the limits; nothing stays behind when it raises.

        Raises:
            HostError: A group cannot be made, or the kernel refuses a limit.
        """
        if self._outer is None:
            self.prepare()
        outer = self._outer
        assert outer is not None
        with nothing_half_made(self):
            settings = v2_settings(resources, lambda file: files.exists(outer, file))
            self._codes = [setting for setting in settings if setting.is_the_codes]
            for setting in settings:
                if not setting.is_the_codes:
                    files.write(outer, setting.file, setting.text)
            self._memory_limit_bytes = files.number(files.read(outer, "memory.max"))

    def entry_fds(self) -> tuple[int, ...]:
        """Return the descriptor of the inner group's ``cgroup.procs``."""
        return () if self._entry is None else (self._entry,)

    def clone_fd(self) -> int | None:
        """Return the inner group's directory: a process born in it costs no move (``clone3``, since Linux 5.7)."""
        return self._inner

    def begin(self) -> None:
        """Set what limits the code alone, and take the baseline.

        The memory peak starts anew since Linux 6.12; before it covers the set-up, too.
        """
        for setting in self._codes if self._outer is not None else ():
            files.write(self._outer, setting.file, setting.text)
        self.restart_peak()
        self._cpu_start = files.keyed(self._text("cpu.stat"))
        self._io_start = self._io_counters()

    def restart_peak(self) -> bool:
        """Let the memory peak count from here; False before Linux 6.12: it counts from the making of the group."""
        fd = self._open.get("memory.peak")
        if fd is None:
            return False
        try:
            os.write(fd, b"0")
        except OSError:
            return False
        return True

    def memory_use(self) -> MemoryUse | None:
        """Return what the memory of this moment consists of."""
        usage = files.number(self._text("memory.current"))
        if usage is None or self._outer is None:
            return None
        stat = files.keyed(files.read(self._outer, "memory.stat"))
        inactive = stat.get("inactive_file", 0)
        cached = inactive + stat.get("active_file", 0) + stat.get("slab_reclaimable", 0)
        swapped = files.number(files.read(self._outer, "memory.swap.current")) or 0
        return MemoryUse(
            usage_bytes=usage,
            working_set_bytes=max(0, usage - inactive),
            held_bytes=max(0, usage - cached) + swapped,
        )

    def memory_alarm(self, mark_bytes: int) -> tuple[int, int] | None:
        """Move ``memory.high``, which slows down who passes it and is told in ``memory.events`` each time."""
        if self._outer is None:
            return None
        files.write(self._outer, "memory.high", str(mark_bytes))
        if self._alarm is None:
            # a descriptor of its own: each remembers what it has read, and samples read the other
            self._alarm = files.open_read(self._outer, "memory.events")
            self.alarm_heard()
        return None if self._alarm is None else (self._alarm, select.POLLPRI)

    def alarm_heard(self) -> None:
        """Read ``memory.events``: the next event is news."""
        files.reread(self._alarm)

    def tasks_refused(self) -> int | None:
        """Return how often a fork was refused (``pids.events``; the inner group has no limit of its own)."""
        return None if self._outer is None else files.keyed(files.read(self._outer, "pids.events")).get("max")

    def close(self) -> None:
        """Close all descriptors that the manager opened; the groups stay."""
        for fd in (*self._open.values(), self._entry, self._inner, self._outer, self._alarm):
            if fd is not None:
                os.close(fd)
        self._open, self._entry, self._inner, self._outer, self._alarm = {}, None, None, None, None

    def delete(self) -> None:
        """Remove the inner and the outer group, then close.

        Raises:
            InternalError: They are still in use after some seconds.
        """
        try:
            if self._made:
                files.remove_tree(self._base, self._name, DELETE_SECONDS)
                self._made = False
        finally:
            self.close()


def _open_peak(outer: int) -> int | None:
    """Open ``memory.peak`` (since Linux 5.19) for reading and, where it can be reset, for writing."""
    fd = files.open_read(outer, "memory.peak", os.O_RDWR)
    return fd if fd is not None else files.open_read(outer, "memory.peak")
