"""Files and groups are written, read and removed relative to directory descriptors."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from container_magic.cgroups import files, open_manager
from container_magic.cgroups.none import NoCgroupManager
from container_magic.cgroups.sweep import remove_stale
from container_magic.cgroups.v1 import V1Manager
from container_magic.cgroups.v2 import V2Manager
from container_magic.errors import HostError, InternalError
from container_magic.events import Usage
from container_magic.spec import Resources


@pytest.fixture
def group(tmp_path: Path) -> Iterator[int]:
    """Give a directory descriptor."""
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def test_write_failure_names_file_value_and_kernel_error(tmp_path: Path, group: int) -> None:
    """The message has what was written, where, and what the kernel said."""
    with pytest.raises(HostError) as caught:
        files.write(group, "memory.max", "17")
    assert caught.value.message == f"cannot write '17' to {tmp_path}/memory.max: No such file or directory"
    assert caught.value.hint


def test_write_follows_no_link(tmp_path: Path, group: int) -> None:
    """A link in the place of a cgroup file is an error, and its target stays as it is."""
    target = tmp_path / "target"
    target.write_text("before")
    (tmp_path / "pids.max").symlink_to(target)
    with pytest.raises(HostError):
        files.write(group, "pids.max", "5")
    assert target.read_text() == "before"


def test_reread_sees_the_present_value(tmp_path: Path, group: int) -> None:
    """A descriptor that is kept open gives the figure of now."""
    (tmp_path / "memory.current").write_text("1\n")
    fd = files.open_read(group, "memory.current")
    assert fd is not None
    assert files.reread(fd) == "1\n"
    (tmp_path / "memory.current").write_text("22\n")
    assert files.reread(fd) == "22\n"
    os.close(fd)


def test_missing_figure_is_none(group: int) -> None:
    """A file that the kernel lacks has no descriptor, no text and no number: never 0."""
    assert files.open_read(group, "memory.peak") is None
    assert files.reread(None) == ""
    assert files.number("") is None


@pytest.mark.parametrize("text", ["max", "9223372036854771712", "9223372036854775807", ""])
def test_no_limit_is_none(text: str) -> None:
    """Both versions' words for "no limit" are None."""
    assert files.number(text) is None


def test_remove_tree_takes_children_first_and_is_idempotent(
    tmp_path: Path, group: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Groups below go before their parent; a second removal finds nothing and is content."""
    (tmp_path / "container_magic-a/payload/deeper").mkdir(parents=True)
    rmdir = os.rmdir

    def busy_as_cgroupfs_says(name: str, *, dir_fd: int | None = None) -> None:
        try:
            rmdir(name, dir_fd=dir_fd)
        except OSError as error:
            if error.errno == errno.ENOTEMPTY:
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY)) from error
            raise

    monkeypatch.setattr(os, "rmdir", busy_as_cgroupfs_says)
    files.remove_tree(group, "container_magic-a", 1.0)
    assert not (tmp_path / "container_magic-a").exists()
    files.remove_tree(group, "container_magic-a", 1.0)


def test_remove_tree_gives_up_after_its_time(group: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A group that stays in use is an error of ours that says so."""

    def busy(name: str, *, dir_fd: int | None = None) -> None:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    monkeypatch.setattr(os, "rmdir", busy)
    with pytest.raises(InternalError, match="busy"):
        files.remove_tree(group, "container_magic-a", 0.01)


@pytest.mark.parametrize("name", ["", "init.scope", "container_magic", "container_magic-x/../y", "user.slice"])
def test_sweep_leaves_foreign_names_alone(tmp_path: Path, name: str) -> None:
    """Only names that this package gives are ever removed."""
    (tmp_path / "init.scope").mkdir()
    with pytest.raises(InternalError, match="left alone"):
        remove_stale({"memory": str(tmp_path)}, name)
    assert (tmp_path / "init.scope").is_dir()


def test_sweep_kills_only_who_is_still_in_the_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pid that left the group between reading and holding it is not signalled: its number may be another's."""
    (tmp_path / "container_magic-a").mkdir()
    answers = iter([[os.getpid()], []])
    monkeypatch.setattr("container_magic.cgroups.sweep._pids", lambda group: next(answers))
    sent: list[int] = []
    monkeypatch.setattr(signal, "pidfd_send_signal", lambda fd, number: sent.append(number))
    remove_stale({"memory": str(tmp_path)}, "container_magic-a")
    assert sent == []
    assert not (tmp_path / "container_magic-a").exists()


def test_manager_is_chosen_by_facts(group: int) -> None:
    """Setup and bases decide; where nothing can be made stands the manager that refuses limits."""
    assert isinstance(open_manager("unified", {"unified": group}, "n", ()), V2Manager)
    assert isinstance(open_manager("hybrid", {"memory": group}, "n", ("memory",)), V1Manager)
    for setup, bases in (("none", {}), ("unified", {}), ("hybrid", {}), ("legacy", {})):
        assert isinstance(open_manager(setup, bases, "n", ("memory",)), NoCgroupManager)


def test_no_cgroup_manager_fails_closed_and_knows_nothing() -> None:
    """A limit is an error, no limit is fine, every figure is None."""
    manager = NoCgroupManager()
    manager.create(Resources())
    assert manager.sample().cpu_seconds is None
    assert manager.usage() == Usage()
    assert manager.entry_fds() == ()
    with pytest.raises(HostError, match="pids"):
        manager.create(Resources(pids=3))
