"""Sessions: an interpreter that lives on, each cell with its own report, the limits over all of them."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

import container_magic as cm
from container_magic.runtime import client
from container_magic.verbs.sessions import list_sessions, stop_all

OPTIONS = {"mem": "256M", "net": "none"}


def test_names_live_on_from_cell_to_cell(session):
    """What one cell defines the next one finds; each report has its own output."""
    work = session()
    first = work.run("x = 41\nprint('first')")
    second = work.run("x += 1\nprint(x)\nx")

    assert (first.verdict, first.stdout) == ("OK", "first\n")
    assert (second.verdict, second.stdout) == ("OK", "42\n")
    assert second.outputs[0]["data"]["text/plain"] == "42"
    assert second.container_id == first.container_id


def test_state_survives_a_cell_that_fails(session):
    """An exception ends its cell and nothing else; its lines are those of its cell."""
    work = session()
    work.run("kept = 'here'\ndef divide(n):\n    return 1 / n")
    failed = work.run("\n\ndivide(0)")
    after = work.run("print(kept)")

    assert (failed.verdict, failed.error.ename) == ("RUNTIME_ERROR", "ZeroDivisionError")
    trace = "\n".join(failed.error.traceback)
    assert "<cell 2>" in trace and "<cell>" in trace  # where it was called, and where it was defined
    assert (after.verdict, after.stdout, after.error) == ("OK", "here\n", None)


def test_usage_is_the_cells_own_and_the_sessions(session):
    """CPU seconds are counted for each cell, and all together."""
    work = session()
    heavy = work.run("import time\nend = time.process_time() + 0.4\nwhile time.process_time() < end: pass")
    light = work.run("pass")

    assert heavy.usage.cpu_seconds > 0.3
    assert light.usage.cpu_seconds < 0.2
    assert light.session.cpu_seconds >= heavy.usage.cpu_seconds + light.usage.cpu_seconds - 1e-6
    assert light.usage.wall_seconds < heavy.usage.wall_seconds


def interrupt_when_it_runs(work, times=1, after_seconds=0.0):
    """Return a thread that presses Ctrl-C, so to say, once the cell runs; a later press comes half a second later."""
    cells = work._keeper.cells

    def press():
        deadline = time.monotonic() + 20
        while not (work._keeper.cells > cells and work._keeper._run._started) and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(after_seconds)
        for _ in range(times):
            work.interrupt()
            time.sleep(0.5)

    thread = threading.Thread(target=press)
    thread.start()
    return thread


@pytest.mark.parametrize("cells", [1, 2])
def test_state_survives_an_interrupt(session, cells):
    """It ends the cell with its traceback, however early it comes; two seconds later nothing is killed."""
    work = session()
    for _ in range(cells):
        work.run("x = 'kept'")
    thread = interrupt_when_it_runs(work)
    stopped = work.run("import time\nprint('asleep')\ntime.sleep(30)")
    thread.join()
    later = work.run("import time\ntime.sleep(2.5)\nprint(x)")

    assert (stopped.verdict, stopped.error.ename) == ("INTERRUPTED", "KeyboardInterrupt")
    assert (later.verdict, later.stdout) == ("OK", "kept\n")


def test_second_interrupt_kills_the_session(session):
    """Code that does not listen is ended, and the session with it."""
    work = session()
    work.run("import signal, time")
    thread = interrupt_when_it_runs(work, times=2, after_seconds=1.0)
    deaf = """
signal.signal(signal.SIGINT, signal.SIG_IGN)
while True:
    try:
        time.sleep(30)
    except BaseException:
        pass
"""
    report = work.run(deaf)
    thread.join()

    assert report.verdict == "INTERRUPTED" and report.usage.wall_seconds < 10
    assert not work.alive


def test_memory_limit_ends_the_session_and_says_why(session, needs):
    """The limit holds over the session; its end has a reason, and the next cell is refused with it."""
    needs(mem="256M")
    work = session()
    work.run("kept = bytearray(150 << 20)")
    report = work.run("pass\nmore = bytearray(150 << 20)")

    assert (report.verdict, report.oom_killed, report.line) == ("MEMORY_LIMIT", True, 2)
    assert not work.alive
    with pytest.raises(cm.StateError, match="memory limit"):
        work.run("1")


def test_cpu_time_is_of_the_whole_session(session):
    """Two cells together use up what neither does alone."""
    work = session(cpu_time="1s")
    burn = "import time\nend = time.process_time() + 0.6\nwhile time.process_time() < end: pass"
    first, second = work.run(burn), work.run(burn)

    assert (first.verdict, second.verdict) == ("OK", "TIME_LIMIT")
    assert "CPU" in work.ended_because


def test_timeout_is_each_cells(session):
    """Two cells that take longer together than the limit are within it."""
    work = session(timeout="1s")
    reports = [work.run("import time\ntime.sleep(0.7)") for _ in range(2)]
    late = work.run("import time\ntime.sleep(20)")

    assert [report.verdict for report in reports] == ["OK", "OK"]
    assert (late.verdict, late.line) == ("TIME_LIMIT", 2)


def test_idle_session_ends_by_itself(session):
    """Nobody asks it for long enough: it is gone, and says why."""
    work = session(idle="300ms")
    work.run("pass")
    deadline = time.monotonic() + 20
    while work.alive and time.monotonic() < deadline:
        time.sleep(0.02)

    assert not work.alive
    assert "waited too long" in work.ended_because


def test_exit_ends_the_session_with_its_code(session):
    """``exit`` in a cell ends the interpreter."""
    work = session()
    report = work.run("import sys\nsys.exit(3)")

    assert (report.verdict, report.exit_code) == ("RUNTIME_ERROR", 3)
    assert not work.alive


def test_killed_process_is_told_of(session):
    """The interpreter kills itself: that cell has a verdict, the session is over."""
    work = session()
    work.run("pass")
    report = work.run("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")

    assert (report.verdict, report.exit_signal) == ("SIGNALED", signal.SIGKILL)
    assert not work.alive


def test_supervisor_that_was_killed_between_cells_is_noticed(session):
    """Nothing hangs, nothing is left, and the next cell is refused."""
    work = session()
    work.run("pass")
    os.kill(work._keeper._run._created.supervisor_pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while work.alive and time.monotonic() < deadline:
        time.sleep(0.01)

    with pytest.raises(cm.StateError):
        work.run("1")


def test_output_between_cells_comes_with_the_next(session):
    """A thread that goes on writing is heard at the next cell."""
    work = session()
    work.run("import threading, time\nlate = lambda: (time.sleep(1), print('late'))\nt = threading.Thread(target=late)")
    work.run("t.start()")
    time.sleep(1.5)
    report = work.run("t.join()\nprint('now')")

    assert report.stdout.splitlines() == ["late", "now"]


def test_thread_that_shows_between_cells_does_not_block_them(session):
    """It waits for somebody to take what it shows, and the next cell runs all the same."""
    work = session()
    work.run("import threading\nt = threading.Timer(0.2, lambda: display('shown late'))\nt.start()")
    time.sleep(0.6)
    report = work.run("t.join()\nprint('now')")

    assert report.stdout == "now\n"
    assert "shown late" in str(report.outputs)


def test_forged_end_of_a_cell_forges_no_figures(session):
    """A cell that says it is over before it is gets its word, and the supervisor's figures."""
    work = session()
    forge = """
import glob, json, os, socket, struct, time
for fd in range(3, 64):
    try:
        end = socket.socket(fileno=os.dup(fd))
    except OSError:
        continue
    head = json.dumps({"op": "done", "seq": 0, "code": 0}).encode()
    end.sendall(struct.pack("=II", len(head), 0) + head)
while time.process_time() < 0.3:
    pass
"""
    first = work.run(forge)
    second = work.run("print('second')")

    assert first.verdict in ("OK", "RUNTIME_ERROR")
    assert second.session.cpu_seconds >= 0.25
    assert second.session.cpu_seconds >= first.usage.cpu_seconds


def test_two_sessions_do_not_see_each_other(session):
    """Each has a container of its own."""
    one, other = session(), session()
    one.run("open('/tmp/mark', 'w').write('one')\nx = 1")
    report = other.run("import os\nprint(os.path.exists('/tmp/mark'), 'x' in globals())")

    assert report.stdout == "False False\n"


def test_cell_in_a_busy_session_is_refused(session):
    """One interpreter runs one cell at a time."""
    work = session()
    thread = threading.Thread(target=work.run, args=("import time\ntime.sleep(1.5)",))
    thread.start()
    deadline = time.monotonic() + 10
    while not work._keeper._busy.locked() and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(cm.StateError, match="another cell"):
        work.run("1")
    thread.join()

    assert work.run("print('free')").stdout == "free\n"


def test_other_languages_are_refused():
    """A shell cannot be kept from cell to cell."""
    with pytest.raises(cm.OptionError, match="session runs Python"):
        cm.Session(lang="bash")


def test_session_that_nobody_stopped_ends_with_its_client():
    """The registry is this process's; shutting its zygotes down ends what is left."""
    work = cm.Session(**OPTIONS)
    work.run("pass")
    client.shutdown()
    deadline = time.monotonic() + 10
    while work.alive and time.monotonic() < deadline:
        time.sleep(0.01)

    assert not work.alive
    stop_all()
    assert list_sessions() == []


def test_cell_that_was_refused_something_says_so_and_the_next_does_not(session):
    """Tasks are counted from cell to cell; a disk that stays full stays full."""
    work = session(pids=20, disk="4M")
    crowd = (
        "import threading\nstop = threading.Event()\n"
        "for _ in range(100): threading.Thread(target=stop.wait, daemon=True).start()"
    )
    assert work.run(crowd).limits_reached == ("pids",)
    assert work.run("stop.set()\n1 / 0").limits_reached == ()
    full = "open('/tmp/x', 'wb').write(bytes(8 << 20))"
    assert [work.run(full).limits_reached, work.run("1 / 0").limits_reached] == [("disk",), ("disk",)]
    assert work.run("import os\nos.unlink('/tmp/x')\n1 / 0").limits_reached == ()
    assert work.alive


@pytest.mark.parametrize("seconds", [0, -1, "5s", True, float("nan"), float("inf")])
def test_time_limit_of_a_cell_that_is_none_is_refused(seconds):
    """Before anything happens to the session."""
    with cm.Session(mem="200M", net="none") as session:
        session.run("x = 1")
        with pytest.raises(cm.OptionError, match=f"^timeout_seconds {seconds!r}: accepted"):
            session.run("pass", timeout_seconds=seconds)
        assert session.run("print(x)").stdout == "1\n"


@pytest.mark.parametrize("source", [None, 5, ["print(1)"]])
def test_what_is_no_source_is_refused(source):
    """A cell is text or bytes."""
    with (
        cm.Session(mem="200M", net="none") as session,
        pytest.raises(cm.OptionError, match=r"^source: accepted: text or bytes"),
    ):
        session.run(source)
