"""The line of a long run in a real terminal: there while it runs, gone at the end; never where there is no terminal."""

import os
import pty
import select
import subprocess
import sys
import time

import pytest

CODE = "import time\nprint('before')\ntime.sleep(3)\nprint('after')"
LINE = b"\r\x1b[Krunning  2."
SECONDS = 60


def in_terminal(*words, stdout_too=True):
    """Return what ``contain`` with ``words`` writes to a terminal that is its own."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "container_magic", *words],
        stdin=slave,
        stdout=slave if stdout_too else subprocess.DEVNULL,
        stderr=slave,
        env=os.environ | {"TERM": "xterm"},
        start_new_session=True,
        preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),  # makes it the controlling terminal
    )
    os.close(slave)
    seen, deadline = b"", time.monotonic() + SECONDS
    while select.select([master], [], [], max(0, deadline - time.monotonic()))[0]:
        try:
            seen += os.read(master, 65536)
        except OSError:  # EIO: the last one who had it open is gone
            break
    os.close(master)
    assert process.wait(SECONDS) == 0
    return seen


def screen_of(seen):
    """Return the lines that are left on the screen: what stood before an erasing return is gone."""
    return [line.rpartition(b"\r\x1b[K")[2].rstrip(b"\r") for line in seen.split(b"\n")]


@pytest.mark.parametrize("stdout_too", [True, False])
def test_line_is_there_while_it_runs_and_gone_at_the_end(stdout_too):
    """Output lines and report are whole."""
    seen = in_terminal("run", "-c", CODE, stdout_too=stdout_too)
    assert LINE in seen
    left = [line for line in screen_of(seen) if line]
    assert left[:-1] == ([b"before", b"after"] if stdout_too else [])
    assert left[-1].startswith(b"OK  ")


@pytest.mark.parametrize("option", [["--quiet"], ["--report", "none"]])
def test_no_line_where_no_report_is_wanted(option):
    """The terminal has the output alone."""
    assert in_terminal("run", *option, "-c", CODE) == b"before\r\nafter\r\n"


def test_no_line_without_a_terminal(contain):
    """A pipe gets the report and no control characters."""
    done = contain("run", "-c", CODE)
    assert done.stdout == b"before\nafter\n"
    assert done.stderr.startswith(b"OK  ")
