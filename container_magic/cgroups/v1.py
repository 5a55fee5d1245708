"""cgroup v1: one group per hierarchy (kernel ``admin-guide/cgroup-v1``)."""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Mapping, Set

from container_magic.cgroups import devices, files
from container_magic.cgroups.manager import DELETE_SECONDS, MemoryUse, Sample, nothing_half_made
from container_magic.cgroups.settings import Setting, v1_settings
from container_magic.errors import ContainError, HostError
from container_magic.events import Usage
from container_magic.spec import Resources

_IO_FILE = "blkio.throttle.io_service_bytes_recursive"


class V1Manager:
    """The groups ``name`` of one container, one in each hierarchy of ``controllers``.

    Args:
        bases: Controller -> descriptor of the directory in which the group is made; they stay the caller's.
        name: Name of the group.
        controllers: The controllers to join.
    """

    def __init__(self, bases: Mapping[str, int], name: str, controllers: tuple[str, ...]) -> None:
        self._name = name
        self._all_bases = bases
        self._bases: dict[str, int] = {}
        self._groups: dict[str, int] = {}  # controller -> descriptor of our group
        self._by_directory: dict[tuple[int, int], int] = {}  # device and inode of a base -> the same
        self._made: list[int] = []  # bases in which our group was made, each hierarchy once
        self._entries: list[int] = []
        self._open: dict[str, int | None] = {}  # file -> descriptor that is read again and again
        self._cpu_start: tuple[int, int, int, int] = (0, 0, 0, 0)
        self._io_start: devices.Counters | None = None
        self._io_is_counted = False  # for anybody
        self._memory_limit_bytes: int | None = None
        self._alarm: int | None = None
        self.require(controllers)

    def require(self, controllers: tuple[str, ...]) -> None:
        """Join these controllers as well."""
        self._bases |= {name: self._all_bases[name] for name in controllers if name in self._all_bases}

    def prepare(self) -> None:
        """Make the groups that are not there yet, without any limit; nothing half-made stays behind when it raises.

        Raises:
            HostError: A group cannot be made.
        """
        had = set(self._groups)
        entered = set(self._groups.values())
        with nothing_half_made(self):
            self._make_groups()
            new = self._groups.keys() - had
            if "cpuset" in new:
                self._fill_cpuset()
            if "memory" in new:
                self._enable_oom_killer()
            for fd in dict.fromkeys(fd for fd in self._groups.values() if fd not in entered):
                # one thread that moves itself through `tasks` does not write-lock cgroup_threadgroup_rwsem, which a
                # move through cgroup.procs does: an RCU grace period per hierarchy (kernel/cgroup/cgroup-v1.c)
                self._entries.append(files.open_write(fd, "tasks"))
            self._open_figures(new)

    def create(self, resources: Resources) -> None:
        """Make the groups, unless they were prepared, and set the limits; nothing stays behind when it raises.

        Raises:
            HostError: A group cannot be made, or the kernel refuses a limit.
        """
        self.prepare()
        with nothing_half_made(self):
            for setting in v1_settings(resources, self._has_memory_file_or_weight):
                self._apply(setting)
            if "memory" in self._groups:
                self._memory_limit_bytes = files.number(files.read(self._groups["memory"], "memory.limit_in_bytes"))

    def _make_groups(self) -> None:
        for controller in [name for name in self._bases if name not in self._groups]:
            base = self._bases[controller]
            status = os.fstat(base)
            key = (status.st_dev, status.st_ino)  # cpu and cpuacct may be one hierarchy
            if key not in self._by_directory:
                files.make(base, self._name)
                self._made.append(base)
                self._by_directory[key] = files.open_dir(base, self._name)
            self._groups[controller] = self._by_directory[key]

    def _fill_cpuset(self) -> None:
        """Copy CPUs and nodes from the parent: both are empty in a new group, and nobody may enter it so (ENOSPC)."""
        for name in ("cpuset.cpus", "cpuset.mems"):
            files.write(self._groups["cpuset"], name, files.read(self._bases["cpuset"], name))

    def _enable_oom_killer(self) -> None:
        """Switch the OOM killer on where the parent passed on that it is off: tasks would hang instead of dying."""
        group = self._groups.get("memory")
        if group is not None and "oom_kill_disable 1" in files.read(group, "memory.oom_control"):
            files.write(group, "memory.oom_control", "0")

    def _has_memory_file_or_weight(self, file: str) -> bool:
        group = self._groups.get(file.partition(".")[0])
        return group is not None and files.exists(group, file)

    def _apply(self, setting: Setting) -> None:
        group = self._groups.get(setting.controller)
        if group is None:
            raise HostError(
                f"cannot set {setting.file} to {setting.text}: the container joins no {setting.controller} cgroup",
                hint="`contain doctor` says which controllers can be used here",
            )
        files.write(group, setting.file, setting.text)

    def _open_figures(self, controllers: Set[str]) -> None:
        for controller, names in (
            ("cpuacct", ("cpuacct.usage", "cpuacct.usage_user", "cpuacct.usage_sys")),
            ("cpu", ("cpu.stat",)),
            ("memory", ("memory.usage_in_bytes", "memory.oom_control", "memory.max_usage_in_bytes")),
            ("pids", ("pids.current", "pids.peak")),  # the v1 hierarchy has the peak since Linux 6.1 too
            ("blkio", (_IO_FILE,)),
        ):
            if controller in controllers:
                for name in names:
                    self._open[name] = files.open_read(self._groups[controller], name)

    def entry_fds(self) -> tuple[int, ...]:
        """Return descriptors of the ``tasks`` files."""
        return tuple(self._entries)

    def clone_fd(self) -> int | None:
        """Return None: ``CLONE_INTO_CGROUP`` is for cgroup v2."""
        return None

    def begin(self) -> None:
        """Take the baseline; the memory peak is reset to the present usage."""
        self.restart_peak()
        self._cpu_start = self._cpu_counters()
        if "blkio" in self._groups:
            self._io_is_counted = ":" in files.read(self._bases["blkio"], _IO_FILE)
        self._io_start = self._io_counters()

    def restart_peak(self) -> bool:
        """Let the memory peak count from here."""
        if "memory" not in self._groups:
            return False
        files.write(self._groups["memory"], "memory.max_usage_in_bytes", "0")
        return True

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
        if "blkio" not in self._groups:
            return None
        text = self._text(_IO_FILE)
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

    def memory_use(self) -> MemoryUse | None:
        """Return what the memory of this moment consists of."""
        group = self._groups.get("memory")
        usage = files.number(self._text("memory.usage_in_bytes"))
        if group is None or usage is None:
            return None
        stat = files.keyed(files.read(group, "memory.stat"))
        inactive = stat.get("total_inactive_file", 0)
        held = usage - inactive - stat.get("total_active_file", 0)
        return MemoryUse(
            usage_bytes=usage,
            working_set_bytes=max(0, usage - inactive),
            held_bytes=max(0, held) + stat.get("total_swap", 0),
        )

    def memory_alarm(self, mark_bytes: int) -> tuple[int, int] | None:
        """Have an eventfd told when the usage passes ``mark_bytes``, upwards or downwards."""
        if self._alarm is None:
            self._alarm = self._new_alarm(mark_bytes)
        return None if self._alarm is None else (self._alarm, select.POLLIN)

    def _new_alarm(self, mark_bytes: int) -> int | None:
        group, usage = self._groups.get("memory"), self._open.get("memory.usage_in_bytes")
        if group is None or usage is None:
            return None
        alarm = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            files.write(group, "cgroup.event_control", f"{alarm} {usage} {mark_bytes}")
        except HostError:  # deprecated since Linux 6.11: one day it will not be there
            os.close(alarm)
            return None
        return alarm

    def alarm_heard(self) -> None:
        """Set the eventfd back."""
        if self._alarm is not None:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._alarm)

    def tasks(self) -> int | None:
        """Return how many tasks there are now."""
        return files.number(self._text("pids.current"))

    def tasks_refused(self) -> int | None:
        """Return how often a fork was refused (``pids.events``, since Linux 4.8)."""
        group = self._groups.get("pids")
        return None if group is None else files.keyed(files.read(group, "pids.events")).get("max")

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

    def close(self) -> None:
        """Close all descriptors that the manager opened; the groups stay."""
        opened = [fd for fd in self._open.values() if fd is not None]
        for fd in {*opened, *self._entries, *self._groups.values()}:
            os.close(fd)
        if self._alarm is not None:
            os.close(self._alarm)
        self._open, self._entries, self._groups, self._by_directory, self._alarm = {}, [], {}, {}, None

    def delete(self) -> None:
        """Remove the groups in every hierarchy, then close.

        Raises:
            InternalError: A group is still in use after some seconds; the others are removed all the same.
        """
        failure: ContainError | None = None
        for base in self._made:
            try:
                files.remove_tree(base, self._name, DELETE_SECONDS)
            except ContainError as error:
                failure = failure or error
        self.close()
        if failure is not None:
            raise failure
        self._made = []
