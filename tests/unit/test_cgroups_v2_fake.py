"""The v2 manager over a fake cgroup file system: what it writes and how it reads."""

from __future__ import annotations

import os
import select
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from container_magic.cgroups import files
from container_magic.cgroups.v2 import V2Manager
from container_magic.errors import HostError
from container_magic.spec import Resources

NEW_GROUP = {
    "cgroup.procs": "",
    "memory.max": "max\n",
    "memory.swap.max": "max\n",
    "memory.current": "4096\n",
    "memory.peak": "8192\n",
    "memory.oom.group": "0\n",
    "memory.high": "max\n",
    "memory.stat": "anon 1000\nfile 3000\ninactive_file 2000\nactive_file 500\nslab_reclaimable 96\n",
    "memory.swap.current": "0\n",
    "pids.current": "2\n",
    "memory.events": "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\n",
    "cpu.max": "max 100000\n",
    "cpu.stat": "usage_usec 100\nuser_usec 60\nsystem_usec 40\nthrottled_usec 5\n",
    "pids.max": "max\n",
    "pids.peak": "3\n",
    "pids.events": "max 0\n",
    "io.stat": "",
}


@pytest.fixture
def fake_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a base directory in which a new group appears with its files."""

    def make(dir_fd: int | None, name: str) -> None:
        os.mkdir(name, dir_fd=dir_fd)
        fd = os.open(name, os.O_RDONLY, dir_fd=dir_fd)
        for file, text in NEW_GROUP.items():
            Path(f"/proc/self/fd/{fd}/{file}").write_text(text)
        os.close(fd)

    def remove_tree(dir_fd: int | None, name: str, timeout_seconds: float) -> None:
        shutil.rmtree(f"/proc/self/fd/{dir_fd}/{name}")

    monkeypatch.setattr(files, "make", make)
    monkeypatch.setattr(files, "remove_tree", remove_tree)
    yield tmp_path


@pytest.fixture
def base(fake_kernel: Path) -> Iterator[int]:
    """Give the base's descriptor."""
    fd = os.open(fake_kernel, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def test_limits_are_on_the_outer_group_and_the_inner_one_is_joined(fake_kernel: Path, base: int) -> None:
    """The group that the container sees as its root holds no limit of its own."""
    manager = V2Manager(base, "container_magic-a")
    manager.create(Resources(memory_bytes=1 << 20, pids=9))
    outer = fake_kernel / "container_magic-a"
    assert (outer / "memory.max").read_text().startswith(str(1 << 20))
    assert (outer / "memory.swap.max").read_text().startswith("0")
    assert (outer / "memory.oom.group").read_text().startswith("1")
    assert (outer / "pids.max").read_text().startswith("9")
    assert (outer / "payload/memory.max").read_text() == "max\n"
    (entry,) = manager.entry_fds()
    os.write(entry, b"0")
    assert (outer / "payload/cgroup.procs").read_text() == "0"
    clone_fd = manager.clone_fd()
    assert clone_fd is not None
    assert os.path.samestat(os.fstat(clone_fd), (outer / "payload").stat())
    manager.delete()
    assert list(fake_kernel.iterdir()) == []


def test_figures_count_from_begin(fake_kernel: Path, base: int) -> None:
    """CPU and I/O before the start are the set-up's, not the code's."""
    manager = V2Manager(base, "container_magic-a")
    manager.create(Resources(memory_bytes=1 << 20))
    outer = fake_kernel / "container_magic-a"
    (outer / "io.stat").write_text("254:0 rbytes=10 wbytes=20 rios=1\n")
    manager.begin()
    (outer / "memory.max").write_text("1048576\n")
    (outer / "memory.peak").write_text("9000\n")
    (outer / "cpu.stat").write_text("usage_usec 2000100\nuser_usec 1500060\nsystem_usec 500040\nthrottled_usec 1005\n")
    (outer / "memory.events").write_text("oom 1\noom_kill 2\n")
    (outer / "io.stat").write_text("254:0 rbytes=110 wbytes=220 rios=9\n8:0 rbytes=1 wbytes=2\n")
    sample = manager.sample()
    assert (sample.cpu_seconds, sample.memory_bytes, sample.oom_kills) == (2.0, 4096, 2)
    usage = manager.usage()
    assert (usage.cpu_seconds, usage.cpu_user_seconds, usage.cpu_system_seconds) == (2.0, 1.5, 0.5)
    assert usage.throttled_seconds == 0.001
    assert (usage.io_read_bytes, usage.io_write_bytes) == (101, 202)
    assert (usage.memory_peak_bytes, usage.memory_limit_bytes, usage.pids_peak) == (9000, 1048576, 3)
    assert usage.wall_seconds is None
    assert manager.tasks_refused() == 0
    (outer / "pids.events").write_text("max 4\n")
    assert manager.tasks_refused() == 4
    manager.delete()


@pytest.mark.parametrize("missing", ["memory.peak", "pids.peak", "io.stat", "memory.current"])
def test_figure_that_the_kernel_lacks_is_none(
    missing: str, fake_kernel: Path, base: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be known is None, never 0."""
    monkeypatch.delitem(NEW_GROUP, missing)
    manager = V2Manager(base, "container_magic-a")
    manager.create(Resources())
    manager.begin()
    figures = {**vars(manager.usage()), "memory_bytes": manager.sample().memory_bytes}
    names = {
        "memory.peak": "memory_peak_bytes",
        "pids.peak": "pids_peak",
        "io.stat": "io_read_bytes",
        "memory.current": "memory_bytes",
    }
    assert figures[names[missing]] is None
    manager.delete()


def test_refused_limit_leaves_nothing_behind(fake_kernel: Path, base: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """When one limit cannot be set, the group and every descriptor are gone."""
    monkeypatch.delitem(NEW_GROUP, "pids.max")
    before = os.listdir("/proc/self/fd")
    with pytest.raises(HostError, match=r"pids\.max"):
        V2Manager(base, "container_magic-a").create(Resources(memory_bytes=1 << 20, pids=9))
    assert list(fake_kernel.iterdir()) == []
    assert os.listdir("/proc/self/fd") == before


def test_memory_is_told_apart(fake_kernel: Path, base: int) -> None:
    """The working set is Docker's; what is held is what the kernel cannot take back, swapped out or not."""
    manager = V2Manager(base, "container_magic-a")
    manager.create(Resources(memory_bytes=1 << 20))
    outer = fake_kernel / "container_magic-a"
    (outer / "memory.swap.current").write_text("7\n")
    use = manager.memory_use()
    assert use is not None
    assert (use.usage_bytes, use.working_set_bytes, use.held_bytes) == (4096, 2096, 1500 + 7)
    assert manager.tasks() == 2
    manager.delete()
    assert manager.memory_use() is None


def test_mark_is_memory_high_and_moves(fake_kernel: Path, base: int) -> None:
    """It is set with the limits, each new mark is written, one descriptor tells, and it goes with the manager."""
    before = os.listdir("/proc/self/fd")
    manager = V2Manager(base, "container_magic-a")
    manager.create(Resources(memory_bytes=1 << 20, memory_high_bytes=1 << 19))
    high = fake_kernel / "container_magic-a/memory.high"
    assert high.read_text().startswith(str(1 << 19))
    first, second = manager.memory_alarm(600_000), manager.memory_alarm(700_000)
    assert high.read_text().startswith("700000")
    assert first is not None
    assert first == second
    assert first[1] == select.POLLPRI
    manager.delete()
    assert os.listdir("/proc/self/fd") == before
