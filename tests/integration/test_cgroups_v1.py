"""The v1 manager against the real hierarchies of this machine."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from container_magic.cgroups import CgroupManager, open_manager
from container_magic.cgroups import prepare as prepare_module
from container_magic.cgroups.enforce import assess
from container_magic.cgroups.facts import CgroupFacts, probe
from container_magic.cgroups.manager import DELETE_SECONDS
from container_magic.cgroups.prepare import open_bases, prepare
from container_magic.cgroups.sweep import remove_stale
from container_magic.errors import HostError
from container_magic.spec import DeviceRate, Resources

MB = 1 << 20

_FOUND = probe() if os.geteuid() == 0 else CgroupFacts()
pytestmark = [
    pytest.mark.root,
    pytest.mark.cgroup_v1,
    pytest.mark.skipif(
        _FOUND.setup not in ("legacy", "hybrid") or "memory" not in _FOUND.bases,
        reason=f"needs root and writable cgroup v1 controllers (setup here: {_FOUND.setup})",
    ),
]


class Box:
    """One group of this test, and children that enter it."""

    def __init__(self, facts: CgroupFacts, name: str) -> None:
        self.facts, self.name = facts, name
        self.fds = open_bases(facts.bases)

    def create(self, **limits: object) -> CgroupManager:
        """Make the group; every wish has to be enforceable here."""
        resources = Resources(**limits)  # type: ignore[arg-type]
        self.assessment = assess(self.facts, resources)
        assert self.assessment.refusals == ()
        self.manager = open_manager(self.facts.setup, self.fds, self.name, self.assessment.controllers)
        self.manager.create(resources)
        return self.manager

    def spawn(self, work: Callable[[], object]) -> int:
        """Fork a child that enters the group and then does ``work``."""
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                for fd in self.manager.entry_fds():
                    os.write(fd, b"0")
                work()
                code = 0
            finally:
                os._exit(code)
        return pid

    def run(self, work: Callable[[], object]) -> int:
        """Return the exit code of a child that did ``work`` in the group; negative for a signal."""
        return os.waitstatus_to_exitcode(os.waitpid(self.spawn(work), 0)[1])

    def file(self, controller: str, name: str) -> Path:
        """Return the path of a file of the group."""
        return Path(self.facts.bases[controller], self.name, name)

    def left(self) -> list[str]:
        """Return the bases in which the group still is."""
        return [base for base in self.facts.bases.values() if os.path.exists(f"{base}/{self.name}")]

    def close(self) -> None:
        """Remove whatever the test left."""
        remove_stale(self.facts.bases, self.name)
        for fd in set(self.fds.values()):
            os.close(fd)


@pytest.fixture(scope="module")
def facts() -> CgroupFacts:
    """Look at this machine once."""
    return prepare(_FOUND)


@pytest.fixture
def box(facts: CgroupFacts) -> Iterator[Box]:
    """Give a group that is removed whatever happens."""
    box = Box(facts, f"container_magic-test-{os.getpid()}-{time.monotonic_ns()}")
    yield box
    box.close()


def burn(seconds: float) -> None:
    """Use CPU time."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def root_disk() -> DeviceRate | None:
    """Return the whole disk under the root file system as a rate of 4 MB per second."""
    device = os.stat("/").st_dev
    here = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve()
    for path in (here, here.parent):
        number = (path / "dev").read_text().strip() if (path / "dev").exists() else ""
        if number and number in _FOUND.disks:
            major, minor = map(int, number.split(":"))
            return DeviceRate(path=f"/dev/{path.name}", major=major, minor=minor, rate=4 * MB)
    return None


@pytest.mark.alone  # others look at the host in the same way and at the same time
def test_facts_of_this_machine_are_complete(facts: CgroupFacts) -> None:
    """Every base is a directory, and a real new group has shown its files; nothing of the look stays."""
    assert all(os.path.isdir(base) for base in facts.bases.values())
    assert "cpu.cfs_quota_us" in facts.optional_files
    assert facts.memory_total_bytes > 0
    assert facts.cpus
    for base in facts.bases.values():
        assert not [name for name in os.listdir(base) if name.startswith("container_magic-probe")]


def test_limits_land_in_their_files(box: Box) -> None:
    """Each limit stands in the file that the assessment names."""
    box.create(memory_bytes=64 * MB, cpus=0.5, cpu_shares=512, pids=32, cpuset_cpus="0")
    assert box.file("memory", "memory.limit_in_bytes").read_text() == f"{64 * MB}\n"
    if box.facts.swap_accounting:
        assert box.file("memory", "memory.memsw.limit_in_bytes").read_text() == f"{64 * MB}\n"
    assert box.file("cpu", "cpu.cfs_period_us").read_text() == "100000\n"
    assert box.file("cpu", "cpu.shares").read_text() == "512\n"
    assert box.file("pids", "pids.max").read_text() == "32\n"
    assert box.file("cpuset", "cpuset.cpus").read_text() == "0\n"
    assert box.file("cpu", "cpu.cfs_quota_us").read_text() == "-1\n"
    box.manager.begin()
    assert box.file("cpu", "cpu.cfs_quota_us").read_text() == "50000\n"
    assert box.file("cpuset", "cpuset.mems").read_text().strip() == box.facts.mems
    for limit in box.assessment.limits:
        controller = limit.by.partition(".")[0]
        assert box.file(controller, limit.by).exists()
    assert box.manager.usage().memory_limit_bytes == 64 * MB


def test_refused_share_of_cpu_time_does_not_wait_for_the_tasks(box: Box) -> None:
    """More than a group above allows is refused (EINVAL) at once; the group stays for whoever ends what is in it."""
    box.create(cpus=0.5).begin()
    base = os.open(box.file("cpu", ""), os.O_RDONLY | os.O_DIRECTORY)
    inner = open_manager(box.facts.setup, {"cpu": base}, f"{box.name}-inner", ("cpu",))
    inner.create(Resources(cpus=1.0))
    pid = os.fork()
    if pid == 0:
        os.write(inner.entry_fds()[0], b"0")
        signal.pause()
    until = time.monotonic() + 5
    while str(pid) not in box.file("cpu", f"{box.name}-inner/tasks").read_text().split():
        assert time.monotonic() < until
    try:
        begun = time.monotonic()
        with pytest.raises(HostError, match="cfs_quota_us"):
            inner.begin()
        assert time.monotonic() - begun < DELETE_SECONDS / 2
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        inner.delete()
        os.close(base)


def test_prepared_groups_take_limits_and_further_controllers_later(box: Box) -> None:
    """Made ahead without any limit; whoever then wants CPUs of its own gets the group for that as well."""
    before = assess(box.facts, Resources())
    box.manager = open_manager(box.facts.setup, box.fds, box.name, before.controllers)
    box.manager.prepare()
    entries = box.manager.entry_fds()
    assert "cpuset" not in before.controllers
    assert not box.file("cpuset", "cpuset.cpus").exists()
    resources = Resources(memory_bytes=64 * MB, cpuset_cpus="0")
    box.manager.require(assess(box.facts, resources).controllers)
    box.manager.create(resources)

    assert box.file("memory", "memory.limit_in_bytes").read_text() == f"{64 * MB}\n"
    assert box.file("cpuset", "cpuset.cpus").read_text() == "0\n"
    assert len(box.manager.entry_fds()) == len(entries) + 1
    assert box.run(lambda: os.sched_getaffinity(0) == {0} or os._exit(3)) == 0


def test_swap_beside_memory_is_set(box: Box) -> None:
    """Memory plus swap above memory is taken in one go."""
    if not box.facts.swap_accounting:
        pytest.skip("this kernel does not account for swap")
    box.create(memory_bytes=64 * MB, memory_swap_bytes=96 * MB)
    assert box.file("memory", "memory.memsw.limit_in_bytes").read_text() == f"{96 * MB}\n"


def test_child_enters_every_hierarchy_by_itself(box: Box) -> None:
    """A single thread that writes 0 into each entry is in the group of each joined controller, before anything else."""
    box.create(pids=5)
    read_end, write_end = os.pipe()
    box.run(lambda: os.write(write_end, Path("/proc/self/cgroup").read_bytes()))
    os.close(write_end)
    with open(read_end, "rb") as stream:
        lines = stream.read().decode().splitlines()
    inside = {name for line in lines if line.endswith(f"/{box.name}") for name in line.split(":")[1].split(",")}
    assert inside == set(box.assessment.controllers)


def test_refused_tasks_are_counted(box: Box) -> None:
    """Each fork beyond the limit counts; without a limit none does."""
    manager = box.create(pids=1)
    assert manager.tasks_refused() == 0

    def fork_twice() -> None:
        for _ in range(2):
            with contextlib.suppress(BlockingIOError):
                os.fork()

    assert box.run(fork_twice) == 0
    assert manager.tasks_refused() == 2


def test_memory_hog_is_killed_and_counted(box: Box) -> None:
    """A process beyond the limit dies by SIGKILL, the sample says why, the peak stays at the limit."""
    manager = box.create(memory_bytes=32 * MB)
    manager.begin()
    assert manager.sample().oom_kills == 0
    assert box.run(lambda: bytearray(128 * MB)) == -signal.SIGKILL
    assert manager.sample().oom_kills == 1
    peak = manager.usage().memory_peak_bytes
    assert peak is not None
    assert 30 * MB < peak <= 32 * MB


def test_memory_peak_is_that_of_the_run(box: Box) -> None:
    """begin() forgets the peak of the set-up; touching 20 MB shows as 20 MB and a little."""
    manager = box.create(memory_bytes=256 * MB)
    assert box.run(lambda: bytearray(100 * MB)) == 0
    manager.begin()
    assert box.run(lambda: b"x" * (20 * MB)) == 0
    peak = manager.usage().memory_peak_bytes
    assert peak is not None
    assert 20 * MB < peak < 40 * MB


def test_memory_sample_follows_the_process(box: Box) -> None:
    """The sample shows what is in use now."""
    manager = box.create(memory_bytes=256 * MB)
    manager.begin()
    pid = box.spawn(lambda: (b"x" * (50 * MB), time.sleep(30)))
    try:
        deadline = time.monotonic() + 10
        while (manager.sample().memory_bytes or 0) < 50 * MB and time.monotonic() < deadline:
            time.sleep(0.01)
        assert 50 * MB <= (manager.sample().memory_bytes or 0) < 80 * MB
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_cpu_time_counts_from_begin_and_includes_the_dead(box: Box) -> None:
    """Half a second burnt after begin() is half a second, whatever was burnt before."""
    manager = box.create()
    box.run(lambda: burn(0.3))
    manager.begin()
    box.run(lambda: burn(0.5))
    sample, usage = manager.sample(), manager.usage()
    assert sample.cpu_seconds == pytest.approx(0.53, abs=0.06)
    assert usage.cpu_seconds == pytest.approx(0.53, abs=0.06)
    assert usage.cpu_user_seconds is not None
    assert usage.cpu_system_seconds is not None
    assert usage.cpu_user_seconds + usage.cpu_system_seconds == pytest.approx(usage.cpu_seconds)
    assert usage.throttled_seconds == 0


@pytest.mark.alone
def test_cpu_quota_throttles_and_says_so(box: Box) -> None:
    """0.3 s of CPU at a quarter of a CPU take more than a second, and the throttled time shows."""
    manager = box.create(cpus=0.25)
    manager.begin()
    started = time.monotonic()
    box.run(lambda: burn(0.3))
    assert time.monotonic() - started > 0.8
    assert (manager.usage().throttled_seconds or 0) > 0.3


def test_pids_limit_stops_threads_and_peak_shows_it(box: Box) -> None:
    """The task beyond the limit cannot be started; the peak is the limit."""
    manager = box.create(pids=4)
    manager.begin()

    def threads() -> None:
        stop = threading.Event()
        started = []
        try:
            for _ in range(10):
                thread = threading.Thread(target=stop.wait)
                thread.start()
                started.append(thread)
        except RuntimeError:
            pass
        stop.set()
        assert len(started) == 3

    assert box.run(threads) == 0
    has_peak = box.file("pids", "pids.peak").exists()
    assert manager.usage().pids_peak == (4 if has_peak else None)


def test_cpuset_holds_the_process(box: Box) -> None:
    """The process inside may run on the asked CPU only and cannot change that."""
    box.create(cpuset_cpus="1" if "1" in box.facts.cpus or "-" in box.facts.cpus else "0")
    asked = int(box.file("cpuset", "cpuset.cpus").read_text())

    def look() -> None:
        assert os.sched_getaffinity(0) == {asked}
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, {asked + 1, asked - 1 if asked else 0})
        assert os.sched_getaffinity(0) == {asked}

    assert box.run(look) == 0


def direct_write(path: Path, size: int) -> None:
    """Write past the page cache, so that the bytes are the process's own."""
    block = mmap.mmap(-1, MB)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_DIRECT)
    for offset in range(0, size, MB):
        os.pwritev(fd, [block], offset)
    os.close(fd)


def test_device_write_rate_slows_and_bytes_are_counted(box: Box, tmp_path: Path) -> None:
    """8 MB at 4 MB per second take about two seconds, and the usage shows them."""
    disk = root_disk()
    if disk is None or os.stat(tmp_path).st_dev != os.stat("/").st_dev:
        pytest.skip("the temporary directory is not on a whole disk that this machine knows")
    manager = box.create(device_write_bps=(disk,))
    assert box.file("blkio", "blkio.throttle.write_bps_device").read_text() == f"{disk.major}:{disk.minor} {4 * MB}\n"
    manager.begin()
    started = time.monotonic()
    assert box.run(lambda: direct_write(tmp_path / "data", 8 * MB)) == 0
    assert 1.0 < time.monotonic() - started < 10
    assert (manager.usage().io_write_bytes or 0) >= 8 * MB


def test_rate_for_what_is_no_disk_is_an_error_that_names_it(box: Box) -> None:
    """The kernel's refusal carries file and value, and the half-made groups are gone."""
    manager = open_manager(box.facts.setup, box.fds, box.name, ("memory", "blkio"))
    rate = DeviceRate(path="/dev/none", major=240, minor=77, rate=1)
    with pytest.raises(HostError, match=r"cannot write '240:77 1' to .*read_bps_device"):
        manager.create(Resources(memory_bytes=32 * MB, device_read_bps=(rate,)))
    assert box.left() == []


def test_wish_for_a_controller_that_is_not_joined_is_an_error(box: Box) -> None:
    """A limit is never dropped silently."""
    manager = open_manager(box.facts.setup, box.fds, box.name, ("memory",))
    with pytest.raises(HostError, match=r"pids\.max"):
        manager.create(Resources(pids=3))
    assert box.left() == []


def test_second_group_of_the_same_name_is_an_error_and_the_first_stays(box: Box) -> None:
    """Two containers never share a group."""
    box.create(pids=3)
    second = open_manager(box.facts.setup, box.fds, box.name, ("memory", "pids"))
    with pytest.raises(HostError, match="File exists"):
        second.create(Resources())
    assert box.file("pids", "pids.max").read_text() == "3\n"


def test_delete_leaves_no_group_and_no_descriptor(box: Box) -> None:
    """After delete() the machine is as before; a second one is harmless."""
    before = os.listdir("/proc/self/fd")
    manager = box.create(memory_bytes=32 * MB, cpuset_cpus="0", pids=9)
    manager.begin()
    box.run(lambda: burn(0.01))
    assert box.left() != []
    manager.delete()
    assert box.left() == []
    assert os.listdir("/proc/self/fd") == before
    manager.delete()


def test_delete_waits_for_tasks_that_are_exiting(box: Box) -> None:
    """A group whose process ends a little later is removed all the same."""
    manager = box.create()
    pid = box.spawn(lambda: time.sleep(0.3))
    deadline = time.monotonic() + 5
    while not box.file("pids", "cgroup.procs").read_text() and time.monotonic() < deadline:
        time.sleep(0.001)
    manager.delete()
    assert box.left() == []
    os.waitpid(pid, 0)


def test_sweep_kills_and_removes_what_a_dead_supervisor_left(box: Box) -> None:
    """Processes in the group are killed, ours alone; a second sweep finds nothing."""
    manager = box.create()
    inside = box.spawn(lambda: time.sleep(60))
    outside = os.fork()
    if outside == 0:
        time.sleep(60)
        os._exit(0)
    try:
        deadline = time.monotonic() + 5
        while str(inside) not in box.file("pids", "cgroup.procs").read_text() and time.monotonic() < deadline:
            time.sleep(0.001)
        manager.close()
        remove_stale(box.facts.bases, box.name)
        assert box.left() == []
        assert os.waitstatus_to_exitcode(os.waitpid(inside, 0)[1]) == -signal.SIGKILL
        assert os.waitpid(outside, os.WNOHANG) == (0, 0)
        remove_stale(box.facts.bases, box.name)
    finally:
        os.kill(outside, signal.SIGKILL)
        os.waitpid(outside, 0)


def test_group_is_made_from_a_read_only_view_of_the_host(box: Box) -> None:
    """Descriptors of the bases that were opened before keep working when every mount has turned read-only."""
    libc = ctypes.CDLL(None, use_errno=True)
    clone_newns, ms_rec, ms_private, ms_rdonly, ms_remount, ms_bind = 0x20000, 0x4000, 1 << 18, 1, 32, 4096
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            assert libc.unshare(clone_newns) == 0
            assert libc.mount(None, b"/", None, ms_rec | ms_private, None) == 0
            base = box.facts.bases["pids"]
            top = base
            while not os.path.ismount(top):
                top = os.path.dirname(top)
            assert libc.mount(None, top.encode(), None, ms_remount | ms_bind | ms_rdonly, None) == 0
            try:
                os.mkdir(f"{base}/{box.name}")
            except OSError:
                manager = open_manager(box.facts.setup, box.fds, box.name, ("pids",))
                manager.create(Resources(pids=3))
                manager.delete()
                code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert box.left() == []


@pytest.mark.alone  # it takes away the groups of others who look now
def test_probe_group_of_a_killed_process_is_removed(monkeypatch) -> None:
    """A group that a client left when it was killed while it looked at the host goes with the next look."""
    facts = probe()
    left = Path(facts.bases["pids"], "container_magic-probe-left")
    left.mkdir()
    young = prepare(facts)
    assert left.exists(), young
    monkeypatch.setattr(prepare_module, "_OLD_SECONDS", -1.0)

    prepare(facts)

    assert not left.exists()
