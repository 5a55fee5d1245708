"""``--mem-high``: the code is interrupted below the memory limit, and its state survives."""

from __future__ import annotations

import os

import pytest

import container_magic as cm
from container_magic.events import MemoryHigh, Started

MB = 1 << 20
OPTIONS = {"mem": "256M", "mem_high": "120M", "timeout": "60s"}
GROW = "while True:\n    held.append({})"
GROW_SLOWLY = f"import time\n{GROW}\n    time.sleep(0.001)"
"""A supervisor that has to wait for a CPU comes in time; that a tight loop is met, too, one test shows."""


@pytest.fixture(autouse=True)
def memory_controller(needs):
    """Skip where no cgroup limits memory."""
    needs(mem="256M")


@pytest.mark.parametrize("piece", ["bytearray(1 << 20)", "numpy.ones(1 << 17)", "[0] * (1 << 14)"])
def test_session_that_grows_is_interrupted_and_keeps_its_state(session, piece):
    """A tight loop ends in KeyboardInterrupt between the mark and the limit; the next cell finds what it has made."""
    work = session()
    module = piece.partition(".")[0] if "." in piece else "os"
    if not work.run(f"import {module}\nheld = []").ok:
        pytest.skip(f"no {module} in this environment")
    stopped = work.run(GROW.format(piece))
    after = work.run("print(len(held) > 0)")

    assert (stopped.verdict, stopped.error.ename) == ("INTERRUPTED", "KeyboardInterrupt")
    assert isinstance(stopped.memory_high, MemoryHigh)
    assert stopped.memory_high.limit_bytes == 120 * MB <= stopped.memory_high.usage_bytes < 256 * MB
    assert not stopped.oom_killed
    assert (after.verdict, after.stdout, after.memory_high) == ("OK", "True\n", None)
    assert after.container_id == stopped.container_id


def test_cell_that_begins_above_the_mark_runs_and_is_interrupted_when_it_grows(session):
    """What is held already interrupts nobody; half of what is left up to the limit does, cell after cell."""
    work = session()
    work.run("held = []")
    work.run(GROW_SLOWLY.format("bytearray(1 << 20)"))
    quiet = work.run("import time\ntime.sleep(0.3)\nprint('ran')")
    first = work.run(GROW_SLOWLY.format("bytearray(1 << 20)"))
    second = work.run(GROW_SLOWLY.format("bytearray(1 << 18)"))
    freed = work.run("del held\nprint('ran')")
    again = work.run("held = []\n" + GROW_SLOWLY.format("bytearray(1 << 18)"))  # by looks now and then

    assert (quiet.verdict, quiet.stdout, quiet.memory_high) == ("OK", "ran\n", None)
    assert [cell.verdict for cell in (first, second)] == ["INTERRUPTED"] * 2
    assert 150 * MB < first.memory_high.usage_bytes < second.memory_high.usage_bytes < 256 * MB
    assert freed.ok
    assert (again.verdict, again.memory_high.usage_bytes < first.memory_high.usage_bytes) == ("INTERRUPTED", True)


def test_memory_that_is_freed_after_an_interrupt_is_given_back(session):
    """Whoever was interrupted for memory frees some: the next cell has it, and not malloc."""
    work = session()
    work.run("held = []")
    assert work.run(GROW.format("bytearray(100_000)")).verdict == "INTERRUPTED"
    work.run("last = bytearray(100_000)\ndel held")  # malloc keeps what lies below its last piece
    resident = work.run("print(int(open('/proc/self/statm').read().split()[1]) * 4096)")
    assert int(resident.stdout) < 80 * MB


def test_one_shot_is_interrupted_and_says_so(run):
    """The run ends as by Ctrl-C; event, report and texts name the mark."""
    events = list(cm.stream("held = []\n" + GROW.format("bytearray(1 << 20)"), **OPTIONS))
    report = run("held = []\n" + GROW.format("bytearray(1 << 20)"), **OPTIONS)

    assert [event.limit_bytes for event in events if isinstance(event, MemoryHigh)] == [120 * MB]
    assert (report.verdict, report.error.ename, report.oom_killed) == ("INTERRUPTED", "KeyboardInterrupt", False)
    assert "memory 120 MB (--mem-high) reached: interrupted" in str(report)
    assert any(limit.name == "memory_high" and limit.value == 120 * MB for limit in report.limits)


def test_one_allocation_beyond_the_limit_is_out_of_memory(run):
    """Who jumps over mark and limit at once is killed; the verdict is the limit's."""
    report = run("x = bytearray(600 << 20)", **OPTIONS)

    assert (report.verdict, report.oom_killed) == ("MEMORY_LIMIT", True)


def test_code_that_does_not_listen_meets_the_limit_and_no_clock(session):
    """A session that ignores the interrupt is not killed for it."""
    work = session()
    work.run("import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)")
    deaf = work.run(
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\nx = bytearray(130 << 20)\ntime.sleep(3)\nprint('on')"
    )

    assert (deaf.stdout, deaf.exit_code, work.alive) == ("on\n", 0, True)
    assert deaf.memory_high is not None


def test_reading_big_files_interrupts_nobody(run, tmp_path):
    """Cached files are charged to the container and do not count: the kernel takes them back."""
    big = tmp_path / "big"
    with big.open("wb") as file:
        for _ in range(220):
            file.write(os.urandom(MB))
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    read = "import time\nwith open('/data/big', 'rb') as file:\n    while file.read(1 << 20): pass\ntime.sleep(0.5)"
    report = run(read, volume=f"{tmp_path}:/data:ro", **OPTIONS)
    if report.usage.memory_peak_bytes < 110 * MB:
        pytest.skip("files of this file system are not charged to who reads them")

    assert (report.verdict, report.memory_high) == ("OK", None)


def test_who_has_read_big_files_is_still_interrupted(session, tmp_path):
    """With the memory in use above the mark for its cached files, growth is noticed all the same."""
    (tmp_path / "big").write_bytes(b"")
    with (tmp_path / "big").open("r+b") as file:
        file.truncate(400 * MB)
    work = session(volume=f"{tmp_path}:/data:ro")
    read = work.run("held = []\nwith open('/data/big', 'rb') as file:\n    while file.read(1 << 20): pass")
    stopped = work.run(GROW_SLOWLY.format("bytearray(1 << 18)"))

    assert (read.verdict, read.memory_high) == ("OK", None)
    assert (stopped.verdict, stopped.oom_killed) == ("INTERRUPTED", False)
    assert work.run("print(len(held) > 0)").stdout == "True\n"


@pytest.mark.parametrize("options", [{"mem": "120M"}, {"mem": "100M"}, {"mem": "none"}])
def test_mark_that_is_not_below_the_limit_is_refused(options):
    """Before anything starts, with both values."""
    with pytest.raises(cm.OptionError, match="--mem-high 120M: accepted: less than --mem, which is"):
        cm.run("pass", **{**OPTIONS, **options})


def test_mark_above_the_default_limit_is_refused():
    """The default of --mem is known when the plan is made."""
    with pytest.raises(cm.OptionError, match="--mem-high 900T: accepted: less than --mem"):
        cm.run("pass", mem_high="900T")


def test_mark_is_no_news_for_who_stays_below(live):
    """Without growth there is no event; the group's own file has the mark."""
    running = live("x = bytearray(50 << 20)", **OPTIONS)
    events = running.rest()

    assert any(isinstance(event, Started) for event in events)
    assert not [event for event in events if isinstance(event, MemoryHigh)]


def test_doctor_names_the_file_that_holds_the_mark():
    """One line of the doctor is the mark's."""
    from container_magic.verbs.doctor import doctor

    check = next(check for check in doctor() if check.name == "--mem-high")
    assert check.ok
    assert "memory." in check.detail
