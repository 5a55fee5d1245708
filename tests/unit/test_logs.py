"""Logs of output beyond the cap: what is written, what is kept, what is found."""

import os
import stat
from pathlib import Path

import pytest

from container_magic.errors import NotFoundError, OptionError
from container_magic.runtime import logs
from container_magic.runtime.logs import OutputLog, kept_logs, log_directory
from container_magic.verbs.logs import find_log, kept_ids, parse_words, read

ID = "ab" * 32


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    """Give each test a directory for state of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


def write(container_id=ID, *pieces, keep=True, exceeded=True):
    """Write a log and return its path."""
    log = OutputLog()
    for piece in pieces or (b"x",):
        log.feed(piece, container_id, exceeded=exceeded)
    return log.finish(keep=keep)


def test_nothing_is_written_below_the_cap(state):
    """A run that keeps to its cap touches no file."""
    assert write(ID, b"a", b"b", exceeded=False, keep=False) == ""
    assert not state.exists()


def test_log_begins_with_what_was_shown_before_the_cap_was_passed():
    """The file is whole."""
    log = OutputLog()
    log.feed(b"head ", ID, exceeded=False)
    log.feed(b"middle ", ID, exceeded=True)
    log.feed(b"\xff\x1b[2J tail", ID, exceeded=True)
    path = log.finish(keep=True)
    assert Path(path).read_bytes() == b"head middle \xff\x1b[2J tail"
    assert path == f"{log_directory()}/{ID}.log"
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(log_directory()).st_mode) == 0o700
    assert log.finish(keep=True) == ""


def test_large_output_waits_in_a_file_that_goes_when_the_cap_holds(monkeypatch):
    """A cap of a gigabyte does not mean a gigabyte of memory."""
    monkeypatch.setattr(logs, "HELD_BYTES", 10)
    log = OutputLog()
    log.feed(b"x" * 11, ID, exceeded=False)
    assert os.listdir(log_directory()) == [f"{ID}.log"]
    assert not log._held
    assert log.finish(keep=False) == ""
    assert os.listdir(log_directory()) == []


def test_size_of_one_log_is_bounded(monkeypatch):
    """What is beyond is counted in its last line."""
    monkeypatch.setattr(logs, "LARGEST_BYTES", 10)
    assert Path(write(ID, b"12345678", b"9abcd", b"e")).read_bytes() == b"123456789a\n[... 4 bytes not shown ...]\n"


def test_oldest_logs_beyond_the_number_are_removed(monkeypatch):
    """The last ones stay, and files that are no logs."""
    monkeypatch.setattr(logs, "KEPT_LOGS", 2)
    ids = [f"{number:x}" * 64 for number in range(1, 5)]
    for number, container_id in enumerate(ids):
        os.utime(write(container_id), (number, number))
    Path(f"{log_directory()}/notes.txt").touch()
    os.utime(write("f" * 64))
    assert [log.container_id for log in kept_logs()] == ["f" * 64, ids[3]]
    assert os.path.exists(f"{log_directory()}/notes.txt")


def test_oldest_logs_beyond_the_size_are_removed(monkeypatch):
    """The newest is kept whatever its size."""
    os.utime(write("1" * 64, b"x" * 6), (1, 1))
    os.utime(write("2" * 64, b"x" * 6), (2, 2))
    monkeypatch.setattr(logs, "KEPT_BYTES", 15)
    write("3" * 64, b"x" * 6)
    assert {log.container_id[0] for log in kept_logs()} == {"3", "2"}
    write("4" * 64, b"x" * 60)
    assert {log.container_id[0] for log in kept_logs()} == {"4"}


@pytest.mark.parametrize("kind", ["file", "link", "missing home"])
def test_run_goes_on_where_no_log_can_be_written(state, monkeypatch, tmp_path, kind):
    """A directory that is a file or a link, no home directory: no log and no error."""
    if kind == "file":
        state.write_text("")
    elif kind == "link":
        (state / "container_magic").mkdir(parents=True)
        (tmp_path / "elsewhere").mkdir()
        (state / "container_magic/logs").symlink_to(tmp_path / "elsewhere")
    else:
        monkeypatch.delenv("XDG_STATE_HOME")
        monkeypatch.setenv("HOME", "/nonexistent/home")
    log = OutputLog()
    log.feed(b"x", ID, exceeded=True)
    log.feed(b"y", ID, exceeded=True)
    assert log.finish(keep=True) == ""
    assert not log._held
    assert not (tmp_path / "elsewhere").exists() or not os.listdir(tmp_path / "elsewhere")


def test_full_disk_leaves_no_half_log(monkeypatch):
    """A write that fails removes what was written."""
    log = OutputLog()
    log.feed(b"x", ID, exceeded=True)
    os.close(log._fd)
    log._fd = os.open("/dev/full", os.O_WRONLY)
    log.feed(b"y", ID, exceeded=True)
    log.feed(b"z", ID, exceeded=True)
    assert log.finish(keep=True) == ""
    assert kept_logs() == []


def test_a_link_among_the_logs_is_no_log(tmp_path):
    """Nobody's file is shown as a log."""
    write()
    os.symlink("/etc/passwd", f"{log_directory()}/{'c' * 64}.log")
    assert [log.container_id for log in kept_logs()] == [ID]


def test_log_is_found_by_the_beginning_of_its_id():
    """The last one without a name; one that is not there and one that is not clear are errors."""
    with pytest.raises(NotFoundError, match="no log yet"):
        find_log()
    os.utime(write("ab" * 32), (1, 1))
    os.utime(write("ac" * 32), (2, 2))
    assert find_log().container_id == "ac" * 32
    assert find_log("ab").container_id == "ab" * 32
    assert kept_ids() == ["acacacacacac", "abababababab"]
    assert b"".join(read(find_log("ab"))) == b"x"
    with pytest.raises(OptionError, match="a begins 2 ids"):
        find_log("a")
    with pytest.raises(NotFoundError, match="of a container ff"):
        find_log("ff")
    with pytest.raises(OptionError, match="no container's id"):
        find_log("../../etc/passwd")


def test_log_that_is_removed_meanwhile_is_not_found():
    """Reading says so in one line."""
    log = find_log(write() and "")
    os.unlink(log.path)
    with pytest.raises(NotFoundError, match="cannot read"):
        list(read(log))


@pytest.mark.parametrize("words", [["a", "b"], ["--tail"], ["--raw", "-x"]])
def test_words_that_mean_nothing_are_refused(words):
    """One id and ``--raw``, nothing else."""
    assert parse_words(["--raw", "ab"]) == ("ab", True)
    assert parse_words([]) == ("", False)
    with pytest.raises(OptionError, match="contain logs does not take"):
        parse_words(words)
