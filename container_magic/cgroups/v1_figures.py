"""What the groups of a container say under cgroup v1, read through files that are open already."""

from __future__ import annotations

from container_magic.cgroups import devices, files
from container_magic.cgroups.manager import Handover, Sample
from container_magic.events import Usage

IO_FILE = "blkio.throttle.io_service_bytes_recursive"


class V1Figures:
    """The figures of one container; the files stay whoever's they are.

    Args:
        handover: What another process has counted from; without it nothing is open yet.
    """

    def __init__(self, handover: Handover | None = None) -> None:
        self._open: dict[str, int | None] = {}  # file -> descriptor that is read again and again
        self._cpu_start: tuple[int, ...] = (0, 0, 0, 0)
        self._io_start: devices.Counters | None = None
        self._io_is_counted = False  # for anybody
        self._memory_limit_bytes: int | None = None
        if handover is not None:
            start = handover.start
            self._open.update(handover.fds)
            self._cpu_start, self._io_start = tuple(start["cpu"]), devices.counters_of(start["io"])
            self._io_is_counted, self._memory_limit_bytes = start["io_is_counted"], start["memory_limit_bytes"]

    def hand_over(self) -> Handover | None:
        """Return what lets another process read the same figures; None where they do not tell when a run is over."""
        fds = {name: fd for name, fd in self._open.items() if fd is not None}
        if not {"cpuacct.usage", "memory.usage_in_bytes", "memory.oom_control", "pids.current"} <= fds.keys():
            return None
        start = {
            "cpu": self._cpu_start,
            "io": self._io_start,
            "io_is_counted": self._io_is_counted,
            "memory_limit_bytes": self._memory_limit_bytes,
        }
        return Handover(version=1, fds=fds, start=start)

    def _text(self, name: str) -> str:
        return files.reread(self._open.get(name))

    def _cpu_counters(self) -> tuple[int, int, int, int]:
        """Return total, user, system and throttled nanoseconds."""
        total, user, system = (
            files.number(self._text(name)) or 0 for name in ("cpuacct.usage", "cpuacct.usage_user", "cpuacct.usage_sys")
        )
        return total, user, system, files.keyed(self._text("cpu.stat")).get("throttled_time", 0)

    def _io_counters(self) -> devices.Counters | None:
        """Return bytes read and written by device; None when the kernel does not count them.

        Since Linux 6.10 the counters live only on disks for which some group has a throttle rule: without any, neither
        our file nor the parent's names a device. Buffered writes that the kernel flushes later are nobody's in v1.
        """
        if self._open.get(IO_FILE) is None:
            return None
        text = self._text(IO_FILE)
        if ":" not in text and not self._io_is_counted:
            return None
        return devices.v1_counters(text)

    def sample(self) -> Sample:
        """Return the figures of this moment."""
        cpu = files.number(self._text("cpuacct.usage"))
        return Sample(
            cpu_seconds=None if cpu is None else (cpu - self._cpu_start[0]) / 1e9,
            memory_bytes=files.number(self._text("memory.usage_in_bytes")),
            oom_kills=files.keyed(self._text("memory.oom_control")).get("oom_kill"),  # since Linux 4.13
        )

    def tasks(self) -> int | None:
        """Return how many tasks there are now."""
        return files.number(self._text("pids.current"))

    def usage(self) -> Usage:
        """Return what was used since ``begin``."""
        total, user, system, throttled = (
            (now - then) / 1e9 for now, then in zip(self._cpu_counters(), self._cpu_start, strict=True)
        )
        # user and system are counted in ticks, the total in nanoseconds: split the total as cputime_adjust() does
        user = total * user / (user + system) if user + system > 0 else total
        has_cpu = self._open.get("cpuacct.usage") is not None
        io, io_before = self._io_counters(), self._io_start or {}
        read, written = (None, None) if io is None else devices.total(io)
        read_before, written_before = devices.total(io_before)
        return Usage(
            cpu_seconds=total if has_cpu else None,
            cpu_user_seconds=user if has_cpu else None,
            cpu_system_seconds=total - user if has_cpu else None,
            throttled_seconds=throttled if self._open.get("cpu.stat") is not None else None,
            memory_peak_bytes=files.number(self._text("memory.max_usage_in_bytes")),
            memory_limit_bytes=self._memory_limit_bytes,
            pids_peak=files.number(self._text("pids.peak")),
            io_read_bytes=None if read is None else read - read_before,
            io_write_bytes=None if written is None else written - written_before,
            io_devices=None if io is None else devices.busiest(io, io_before),
        )
