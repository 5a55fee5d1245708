"""The v2 manager against a real cgroup v2 tree: with controllers where there are any, its mechanics everywhere."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from container_magic.cgroups.facts import CgroupFacts, probe
from container_magic.cgroups.mounts import hierarchies
from container_magic.cgroups.prepare import prepare
from container_magic.cgroups.sweep import remove_stale
from container_magic.cgroups.v2 import V2Manager
from container_magic.errors import HostError
from container_magic.spec import Resources

MB = 1 << 20

_FOUND = probe()
_TREE = next((hierarchy for hierarchy in hierarchies(Path("/proc")) if hierarchy.v2), None)

needs_controllers = pytest.mark.skipif(
    _FOUND.setup != "unified" or "memory" not in _FOUND.controllers,
    reason=f"needs a cgroup v2 tree that gives the memory controller (setup here: {_FOUND.setup})",
)
needs_tree = pytest.mark.skipif(
    _TREE is None or not os.access(_TREE.own, os.W_OK), reason="needs a cgroup v2 tree that may be written"
)
pytestmark = pytest.mark.cgroup_v2


class Box:
    """One group of this test in ``base``, and children that enter it."""

    def __init__(self, base: str) -> None:
        self.base, self.name = base, f"container_magic-test-{os.getpid()}-{time.monotonic_ns()}"
        self.fd = os.open(base, os.O_RDONLY | os.O_DIRECTORY)
        self.manager = V2Manager(self.fd, self.name)

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
        """Return the exit code of a child that did ``work``; negative for a signal."""
        return os.waitstatus_to_exitcode(os.waitpid(self.spawn(work), 0)[1])

    def close(self) -> None:
        """Remove whatever the test left."""
        self.manager.close()
        remove_stale({"unified": self.base}, self.name)
        os.close(self.fd)


@pytest.fixture(scope="module")
def facts() -> CgroupFacts:
    """Look at this machine once."""
    return prepare(_FOUND)


@pytest.fixture
def limited(facts: CgroupFacts) -> Iterator[Box]:
    """A box below the base that `prepare` made."""
    assert "unified" in facts.bases, facts.refusals
    box = Box(facts.bases["unified"])
    yield box
    box.close()


@pytest.fixture
def bare() -> Iterator[Box]:
    """A box in the caller's own v2 group, controllers or not."""
    assert _TREE is not None
    box = Box(_TREE.own)
    yield box
    box.close()


def burn(seconds: float) -> None:
    """Use CPU time."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


@needs_tree
def test_payload_group_is_entered_and_cpu_counts_from_begin(bare: Box) -> None:
    """A child that writes 0 is in the inner group; CPU time is known even without the controller."""
    bare.manager.create(Resources())
    bare.run(lambda: burn(0.2))
    bare.manager.begin()
    read_end, write_end = os.pipe()
    bare.run(lambda: (os.write(write_end, Path("/proc/self/cgroup").read_bytes()), burn(0.3)))
    os.close(write_end)
    with open(read_end, "rb") as stream:
        assert f"/{bare.name}/payload\n" in stream.read().decode()
    assert bare.manager.sample().cpu_seconds == pytest.approx(0.32, abs=0.08)
    usage = bare.manager.usage()
    assert usage.cpu_user_seconds is not None
    assert usage.cpu_system_seconds is not None
    assert usage.cpu_user_seconds + usage.cpu_system_seconds == pytest.approx(usage.cpu_seconds, abs=0.01)


@needs_tree
def test_v2_delete_leaves_no_group_and_no_descriptor(bare: Box) -> None:
    """Inner and outer group go, and every descriptor."""
    before = os.listdir("/proc/self/fd")
    bare.manager.create(Resources())
    assert os.path.isdir(f"{bare.base}/{bare.name}/payload")
    bare.manager.delete()
    assert not os.path.exists(f"{bare.base}/{bare.name}")
    assert os.listdir("/proc/self/fd") == before


@needs_tree
def test_v2_limit_without_its_controller_is_an_error(bare: Box) -> None:
    """Where the group has no memory.max, a memory limit raises and nothing stays."""
    assert _TREE is not None
    if "memory" in Path(_TREE.own, "cgroup.subtree_control").read_text().split():
        pytest.skip("groups here have the memory controller")
    with pytest.raises(HostError, match=r"memory\.max"):
        bare.manager.create(Resources(memory_bytes=32 * MB))
    assert not os.path.exists(f"{bare.base}/{bare.name}")


@needs_tree
def test_v2_sweep_kills_and_removes(bare: Box) -> None:
    """What a dead supervisor left is killed and removed, inner group included."""
    bare.manager.create(Resources())
    pid = bare.spawn(lambda: time.sleep(60))
    procs = Path(bare.base, bare.name, "payload/cgroup.procs")
    deadline = time.monotonic() + 5
    while str(pid) not in procs.read_text() and time.monotonic() < deadline:
        time.sleep(0.001)
    remove_stale({"unified": bare.base}, bare.name)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert not os.path.exists(f"{bare.base}/{bare.name}")


@needs_controllers
def test_v2_limits_land_in_their_files(limited: Box) -> None:
    """Each limit stands in the outer group's file."""
    limited.manager.create(Resources(memory_bytes=64 * MB, pids=32, cpus=0.5, cpu_shares=1024))
    outer = Path(limited.base, limited.name)
    assert (outer / "memory.max").read_text() == f"{64 * MB}\n"
    assert (outer / "memory.oom.group").read_text() == "1\n"
    assert (outer / "pids.max").read_text() == "32\n"
    assert (outer / "cpu.weight").read_text() == "100\n"
    assert (outer / "cpu.max").read_text() == "max 100000\n"
    limited.manager.begin()
    assert (outer / "cpu.max").read_text() == "50000 100000\n"
    if (outer / "memory.swap.max").exists():
        assert (outer / "memory.swap.max").read_text() == "0\n"
    assert limited.manager.usage().memory_limit_bytes == 64 * MB


@needs_controllers
def test_v2_memory_hog_is_killed_and_counted(limited: Box) -> None:
    """A process beyond the limit dies by SIGKILL and the sample says why."""
    limited.manager.create(Resources(memory_bytes=32 * MB))
    limited.manager.begin()
    assert limited.manager.sample().oom_kills == 0
    assert limited.run(lambda: b"x" * (128 * MB)) == -signal.SIGKILL
    assert (limited.manager.sample().oom_kills or 0) >= 1


@needs_controllers
def test_v2_pids_limit_stops_forks(limited: Box) -> None:
    """The task beyond the limit cannot be started."""
    limited.manager.create(Resources(pids=1))

    def fork() -> None:
        with pytest.raises(BlockingIOError):
            os.fork()

    assert limited.run(fork) == 0


@needs_controllers
def test_v2_cpu_quota_throttles_and_says_so(limited: Box) -> None:
    """0.3 s of CPU at a quarter of a CPU take more than a second, and the throttled time shows."""
    limited.manager.create(Resources(cpus=0.25))
    limited.manager.begin()
    started = time.monotonic()
    limited.run(lambda: burn(0.3))
    assert time.monotonic() - started > 0.8
    assert (limited.manager.usage().throttled_seconds or 0) > 0.3
