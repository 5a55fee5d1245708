"""cgroup v1: one group per hierarchy (kernel ``admin-guide/cgroup-v1``)."""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Mapping, Set

from container_magic.cgroups import files
from container_magic.cgroups.manager import DELETE_SECONDS, MemoryUse, nothing_half_made
from container_magic.cgroups.settings import Setting, v1_settings
from container_magic.cgroups.v1_figures import IO_FILE, V1Figures
from container_magic.errors import ContainError, HostError
from container_magic.spec import Resources


class V1Manager(V1Figures):
    """The groups ``name`` of one container, one in each hierarchy of ``controllers``.

    Args:
        bases: Controller -> descriptor of the directory in which the group is made; they stay the caller's.
        name: Name of the group.
        controllers: The controllers to join.
    """

    def __init__(self, bases: Mapping[str, int], name: str, controllers: tuple[str, ...]) -> None:
        super().__init__()
        self._name = name
        self._all_bases = bases
        self._bases: dict[str, int] = {}
        self._groups: dict[str, int] = {}  # controller -> descriptor of our group
        self._by_directory: dict[tuple[int, int], int] = {}  # device and inode of a base -> the same
        self._made: list[int] = []  # bases in which our group was made, each hierarchy once
        self._entries: list[int] = []
        self._alarm: int | None = None
        self._codes: list[Setting] = []
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
            settings = v1_settings(resources, self._has_memory_file_or_weight)
            self._codes = [setting for setting in settings if setting.is_the_codes]
            for setting in settings:
                if not setting.is_the_codes:
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
            ("blkio", (IO_FILE,)),
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
        """Set what limits the code alone, and take the baseline; the memory peak is reset to the present usage."""
        for setting in self._codes:
            self._apply(setting)
        self.restart_peak()
        self._cpu_start = self._cpu_counters()
        if "blkio" in self._groups:
            self._io_is_counted = ":" in files.read(self._bases["blkio"], IO_FILE)
        self._io_start = self._io_counters()

    def restart_peak(self) -> bool:
        """Let the memory peak count from here."""
        if "memory" not in self._groups:
            return False
        files.write(self._groups["memory"], "memory.max_usage_in_bytes", "0")
        return True

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

    def tasks_refused(self) -> int | None:
        """Return how often a fork was refused (``pids.events``, since Linux 4.8)."""
        group = self._groups.get("pids")
        return None if group is None else files.keyed(files.read(group, "pids.events")).get("max")

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
