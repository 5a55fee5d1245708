"""Figures of a container: from its cgroup, and from the processes themselves where the cgroup cannot give them.

All is read from outside by the supervisor; a process inside can hide nothing of this from its ancestors (proc(5)).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace

from container_magic.cgroups import CgroupManager, MemoryUse, Sample
from container_magic.deferred import dataclass
from container_magic.errors import ContainError
from container_magic.events import Usage

_READ_BYTES = 16384
LITTLE_BYTES = 64 * 1024 * 1024
"""The kernel frees so much in some milliseconds."""
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, kw_only=True)
class Aftermath:
    """What the kernel added up for a dead init and all that it, or its children, waited for."""

    io_read_bytes: int | None
    io_write_bytes: int | None
    cpu_user_seconds: float | None = None
    cpu_system_seconds: float | None = None


class Gauge:
    """Reads the figures of one container; what neither its cgroup nor its processes can tell stays None.

    ``cpu_before_seconds`` is what its processes have used to be made, where their figures begin with that.
    """

    def __init__(self, cgroup: CgroupManager, init_pid: int, cpu_before_seconds: float = 0.0) -> None:
        self._cgroup = cgroup
        self._init_pid = init_pid
        self._cpu_before_seconds = cpu_before_seconds
        self._aftermath: Aftermath | None = None
        self._seen_cpu_seconds = 0.0
        self._last: Sample | None = None

    def sample(self) -> Sample:
        """Return the figures of this moment."""
        sample = self._cgroup.sample()
        if sample.cpu_seconds is None and self._aftermath is None:
            self._seen_cpu_seconds = max(self._seen_cpu_seconds, cpu_seconds(self._init_pid))
            sample = replace(sample, cpu_seconds=self._since_start(self._seen_cpu_seconds))
        if sample.memory_bytes is None and self._aftermath is None:
            sample = replace(sample, memory_bytes=memory_bytes(self._init_pid))
        return sample

    def memory_use(self) -> MemoryUse:
        """Return what the memory of this moment consists of; the processes' sum where there is no cgroup."""
        use = self._cgroup.memory_use()
        if use is None:
            total = memory_bytes(self._init_pid)
            use = MemoryUse(usage_bytes=total, working_set_bytes=total, held_bytes=total)
        return use

    def memory_alarm(self, mark_bytes: int) -> tuple[int, int] | None:
        """Return a descriptor and the poll event that tells of memory beyond the mark; None: it has to be looked at."""
        try:
            return self._cgroup.memory_alarm(mark_bytes)
        except (ContainError, OSError):
            return None

    def alarm_heard(self) -> None:
        """Let the alarm wait for the next time."""
        self._cgroup.alarm_heard()

    def tasks(self) -> int:
        """Return how many tasks there are now."""
        tasks = self._cgroup.tasks()
        return tasks if tasks is not None else sum(map(_threads, _tree(self._init_pid)))

    def restart_peak(self) -> bool:
        """Let the memory peak count from here; False where the kernel cannot."""
        return self._cgroup.restart_peak()

    def reap(self, pid: int) -> None:
        """Reap the dead init and keep what the kernel says of it."""
        self._aftermath = reap(pid)

    def settle(self, leaving_pid: int | None = None) -> bool:
        """Take the last figures of a container of which only init is left; False where they need a death.

        ``leaving_pid`` is the payload that is about to exit: what it has used is not init's before that waits for it.
        Who holds much memory is waited for: the next run may need it.
        """
        last = self._cgroup.sample()
        if last.cpu_seconds is None:
            return False
        pids = [self._init_pid]
        if leaving_pid is not None:
            pids.append(leaving_pid)
            if self.tasks() > len(pids) or (last.memory_bytes or 0) > LITTLE_BYTES:
                return False
        counters = [_keyed(f"/proc/{pid}/io") for pid in pids]
        if not all(counters):
            return False
        self._last = last
        self._aftermath = _with_io({key: sum(each[key] for each in counters) for key in counters[0]})
        return True

    def oom_kills(self) -> int:
        """Return how many processes the kernel has killed because the container's memory ran out."""
        try:
            return (self._last or self._cgroup.sample()).oom_kills or 0
        except (ContainError, OSError):
            return 0

    def tasks_refused(self) -> int:
        """Return how often the limit of tasks has refused one, as far as the host can tell."""
        try:
            return self._cgroup.tasks_refused() or 0
        except (ContainError, OSError):
            return 0

    def usage(self) -> Usage:
        """Return what was used in all, after ``reap``."""
        try:
            usage = self._cgroup.usage()
        except (ContainError, OSError):
            usage = Usage()
        after = self._aftermath
        if after is None:
            return usage
        if usage.cpu_seconds is None:
            usage = self._with_cpu(usage, after)
        if usage.io_read_bytes is None:
            usage = replace(usage, io_read_bytes=after.io_read_bytes, io_write_bytes=after.io_write_bytes)
        return usage

    def _with_cpu(self, usage: Usage, after: Aftermath) -> Usage:
        user, system = after.cpu_user_seconds or 0.0, after.cpu_system_seconds or 0.0
        if user + system >= self._seen_cpu_seconds:
            total = self._since_start(user + system)
            # how much of what came before was which, nobody counts as finely as the sum
            user = total * user / (user + system) if user + system > 0 else 0.0
            return replace(usage, cpu_seconds=total, cpu_user_seconds=user, cpu_system_seconds=total - user)
        # nobody waits for processes that a dying pid namespace ends: what was last seen of them is all there is
        return replace(usage, cpu_seconds=self._since_start(self._seen_cpu_seconds))

    def _since_start(self, cpu_seconds: float) -> float:
        return max(0.0, cpu_seconds - self._cpu_before_seconds)


def reap(pid: int) -> Aftermath:
    """Wait for the child ``pid`` and return its figures, dead descendants included (getrusage(2), proc_pid_io(5))."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    counters = _keyed(f"/proc/{pid}/io")
    _, _, usage = os.wait4(pid, 0)
    return replace(_with_io(counters), cpu_user_seconds=usage.ru_utime, cpu_system_seconds=usage.ru_stime)


def _with_io(counters: dict[str, int]) -> Aftermath:
    return Aftermath(io_read_bytes=counters.get("read_bytes"), io_write_bytes=counters.get("write_bytes"))


def cpu_before_seconds(cgroup: CgroupManager, *pids: int) -> float:
    """Return the CPU seconds of these processes, of one thread each, where no cgroup counts from a baseline; else 0.

    To the nanosecond, where the kernel tells (``/proc/PID/schedstat``, Documentation/scheduler/sched-stats.rst).
    """
    if cgroup.sample().cpu_seconds is not None:
        return 0.0
    nanoseconds = 0
    for pid in pids:
        with contextlib.suppress(OSError, IndexError, ValueError):
            nanoseconds += int(_read(f"/proc/{pid}/schedstat").split()[0])
    return nanoseconds / 1e9


def cpu_seconds(init_pid: int) -> float:
    """Return CPU seconds of init and its descendants so far, dead and waited-for children included."""
    ticks = 0
    for pid in _tree(init_pid):
        with contextlib.suppress(OSError, IndexError, ValueError):
            # utime, stime, cutime, cstime; the name before them may hold anything but ends at the last bracket
            fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / _TICKS_PER_SECOND


def memory_bytes(init_pid: int) -> int:
    """Return the proportional share of memory of init and its descendants, and of files on their tmpfs none."""
    return sum(_keyed(f"/proc/{pid}/smaps_rollup").get("Pss", 0) for pid in _tree(init_pid)) * 1024


def _tree(pid: int) -> Iterator[int]:
    pending = [pid]
    while pending:
        current = pending.pop()
        yield current
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{current}/task"):
                pending += map(int, _read(f"/proc/{current}/task/{task}/children").split())


def _threads(pid: int) -> int:
    with contextlib.suppress(OSError):
        return len(os.listdir(f"/proc/{pid}/task"))
    return 0


def _keyed(path: str) -> dict[str, int]:
    """Return ``key: number ...`` lines as a dict; empty when the file cannot be read."""
    with contextlib.suppress(OSError):
        return numbers_of(_read(path))
    return {}


def numbers_of(text: str) -> dict[str, int]:
    """Return ``key: number ...`` lines as a dict (proc_pid_io(5), proc_pid_smaps(5)); other lines are left out."""
    found = {}
    for line in text.splitlines():
        key, _, rest = line.partition(":")
        number = rest.split()[:1]
        if number and number[0].isdecimal():
            found[key] = int(number[0])
    return found


def _read(path: str) -> str:
    # not open(): that asks four more times what kind of file it is, once for each container that ends
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        pieces = [os.read(fd, _READ_BYTES)]
        while pieces[-1]:
            pieces.append(os.read(fd, _READ_BYTES))
    finally:
        os.close(fd)
    return b"".join(pieces).decode(errors="replace")
