"""What the group of a container says under cgroup v2, read through files that are open already."""

from __future__ import annotations

from container_magic.cgroups import devices, files
from container_magic.cgroups.manager import Handover, Sample
from container_magic.events import Usage


class V2Figures:
    """The figures of one container; the files stay whoever's they are.

    Args:
        handover: What another process has counted from; without it nothing is open yet.
    """

    def __init__(self, handover: Handover | None = None) -> None:
        self._open: dict[str, int | None] = {}  # file -> descriptor that is read again and again
        self._cpu_start: dict[str, int] = {}
        self._io_start: devices.Counters = {}
        self._memory_limit_bytes: int | None = None
        if handover is not None:
            start = handover.start
            self._open.update(handover.fds)
            self._cpu_start, self._io_start = start["cpu"], devices.counters_of(start["io"]) or {}
            self._memory_limit_bytes = start["memory_limit_bytes"]

    def hand_over(self) -> Handover | None:
        """Return what lets another process read the same figures; None where they do not tell when a run is over."""
        fds = {name: fd for name, fd in self._open.items() if fd is not None}
        if not {"cpu.stat", "memory.current", "memory.events", "pids.current"} <= fds.keys():
            return None
        start = {"cpu": self._cpu_start, "io": self._io_start, "memory_limit_bytes": self._memory_limit_bytes}
        return Handover(version=2, fds=fds, start=start)

    def _text(self, name: str) -> str:
        return files.reread(self._open.get(name))

    def _cpu_since_start(self, now: dict[str, int], key: str) -> float | None:
        return (now[key] - self._cpu_start.get(key, 0)) / 1e6 if key in now else None

    def _io_counters(self) -> devices.Counters:
        return devices.v2_counters(self._text("io.stat"))

    def sample(self) -> Sample:
        """Return the figures of this moment."""
        return Sample(
            cpu_seconds=self._cpu_since_start(files.keyed(self._text("cpu.stat")), "usage_usec"),
            memory_bytes=files.number(self._text("memory.current")),
            oom_kills=files.keyed(self._text("memory.events")).get("oom_kill"),
        )

    def tasks(self) -> int | None:
        """Return how many tasks there are now."""
        return files.number(self._text("pids.current"))

    def usage(self) -> Usage:
        """Return what was used since ``begin``."""
        cpu = files.keyed(self._text("cpu.stat"))
        has_io = self._open.get("io.stat") is not None
        io = self._io_counters()
        (read, written), (read_before, written_before) = devices.total(io), devices.total(self._io_start)
        return Usage(
            cpu_seconds=self._cpu_since_start(cpu, "usage_usec"),
            cpu_user_seconds=self._cpu_since_start(cpu, "user_usec"),
            cpu_system_seconds=self._cpu_since_start(cpu, "system_usec"),
            throttled_seconds=self._cpu_since_start(cpu, "throttled_usec"),
            memory_peak_bytes=files.number(self._text("memory.peak")),
            memory_limit_bytes=self._memory_limit_bytes,
            pids_peak=files.number(self._text("pids.peak")),
            io_read_bytes=read - read_before if has_io else None,
            io_write_bytes=written - written_before if has_io else None,
            io_devices=devices.busiest(io, self._io_start) if has_io else None,
        )
