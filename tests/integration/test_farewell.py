"""The payload's farewell to init: it saves time, and neither hides anything nor lets anybody else end the run."""

from __future__ import annotations

import os
import signal
import time

import pytest
from leftovers import children

import container_magic as cm
from container_magic.events import Created, Exited
from container_magic.process.init import FAREWELLS

OPTIONS = {"mem": "100M", "pids": 20, "net": "none"}
LEAVE = """
import os, sys, time
frame = sys._getframe()
while not hasattr(frame.f_locals.get("self"), "_slot"):
    frame = frame.f_back
slot = frame.f_locals["self"]._slot
slot[8:12] = bytes([1, 0, 0, 0])
"""
SAY = f"os.kill(1, {int(FAREWELLS[0])})"
RT_SIGQUEUEINFO = {"x86_64": 129, "aarch64": 138}[os.uname().machine]
# the kernel lets a process say of a signal of its own making that it comes from whom it likes (rt_sigqueueinfo(2))
FORGE = f"""
import ctypes, os, struct
libc = ctypes.CDLL(None)
info = struct.pack("=iiiiII", {int(FAREWELLS[0])}, 0, CODE, 0, os.getppid(), 0).ljust(128, b"\\0")
libc.syscall({RT_SIGQUEUEINFO}, 1, {int(FAREWELLS[0])}, info)
"""


def run(code):
    """Run ``code`` under ``OPTIONS``."""
    return cm.run(code, timeout="20s", **OPTIONS)


@pytest.mark.parametrize(("code", "exit_code"), [("pass", 0), ("1 / 0", 1), ("raise SystemExit(3)", 3)])
def test_exit_codes_are_those_of_the_code(code, exit_code):
    """0 and 1 are said by a farewell, others by wait."""
    assert run(code).exit_code == exit_code


def test_whoever_says_farewell_and_stays_is_killed_at_once():
    """Nothing runs on beyond what was measured."""
    report = run(f"{LEAVE}\n{SAY}\ntime.sleep(10)\nprint('still here')")
    assert (report.exit_code, report.stdout) == (0, "")
    assert report.usage.wall_seconds < 5


def test_a_stray_signal_is_no_farewell():
    """The signal alone, sent to what code takes for the host's init, ends nothing."""
    assert run(f"import os, time\n{SAY}\ntime.sleep(0.2)\nraise SystemExit(7)").exit_code == 7


def test_another_process_cannot_say_farewell_for_the_payload():
    """The kernel says whose signal it is."""
    report = run(
        f"{LEAVE}\nif os.fork() == 0:\n    {SAY}\n    os._exit(0)\nos.wait()\ntime.sleep(0.2)\nraise SystemExit(7)"
    )
    assert report.exit_code == 7


@pytest.mark.parametrize("code", [-1, -6, 0])  # SI_QUEUE, SI_TKILL, SI_USER
def test_a_forged_sender_is_not_believed(code):
    """What sigqueue(3) says of itself does not count."""
    forger = "\n".join(f"    {line}" for line in FORGE.replace("CODE", str(code)).strip().splitlines())
    report = run(
        f"{LEAVE}\nif os.fork() == 0:\n{forger}\n    os._exit(0)\nos.wait()\ntime.sleep(0.2)\nraise SystemExit(7)"
    )
    assert report.exit_code == 7


def test_a_flood_of_farewells_from_a_child_ends_nothing():
    """Init reads them all, and the payload ends as it would."""
    report = run(
        f"{LEAVE}\npid = os.fork()\nif pid == 0:\n"
        f"    while True: os.kill(1, {int(FAREWELLS[1])})\n"
        f"time.sleep(0.5)\nos.kill(pid, {int(signal.SIGKILL)})\nos.wait()"
    )
    assert report.exit_code == 0


def test_a_fork_that_reaches_the_end_of_the_code_does_not_end_the_run():
    """A child that runs to the end of the cell is no payload."""
    report = run("import os, time\nif os.fork():\n    os.wait()\n    time.sleep(0.2)\n    raise SystemExit(9)")
    assert report.exit_code == 9


def test_a_few_milliseconds_of_cpu_are_counted():
    """What runs up to the farewell is in the figures when they are read."""
    code = "import time\nbegun = time.process_time()\nwhile time.process_time() - begun < 0.003: pass"
    used = [run(code).usage.cpu_seconds for _ in range(5)]
    assert all(seconds is not None and seconds >= 0.003 for seconds in used), used


def test_what_a_child_that_stays_behind_uses_until_the_end_is_counted():
    """With more processes than the payload the figures wait for their end."""
    code = "import os, time\nif os.fork() == 0:\n    while True: pass\ntime.sleep(0.5)"
    report = run(code)
    assert report.exit_code == 0
    assert report.usage.cpu_seconds > 0.3


def test_children_do_not_outlive_the_farewell():
    """They are killed as soon as the payload leaves."""
    begun = time.monotonic()
    report = run("import os, time\nif os.fork() == 0:\n    time.sleep(10)\n    print('late')")
    assert (report.exit_code, report.stdout) == (0, "")
    assert time.monotonic() - begun < 8


def test_large_memory_is_free_when_the_run_is_over():
    """Whoever starts the next run can have it."""
    init, left_bytes = 0, None
    for event in cm.stream("x = b'x' * (400 << 20)", **{**OPTIONS, "mem": "500M"}):
        if isinstance(event, Created):
            init = event.pid
        elif isinstance(event, Exited):
            left_bytes = sum(map(_resident_bytes, children(init)))
    assert init
    assert left_bytes < 64 << 20  # whoever holds less is not waited for; who has died meanwhile may not be reaped yet


def _resident_bytes(pid):
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
