"""When Ctrl-C comes: it meets the code however early it is, and nothing of what is done before and behind the code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from defaults import DEFAULTS
from leftovers import waiting

from container_magic.events import Interrupted, Output, Started, until_exited
from container_magic.folding import ReportBuilder
from container_magic.runtime import client
from container_magic.runtime.plans import planned
from container_magic.runtime.pool import pool_key
from container_magic.runtime.run import Run
from container_magic.runtime.worker import Worker
from container_magic.verbs.run import open_run, request_for

OPTIONS = {**DEFAULTS, "warm": 1}
FOREVER = "import time\nwhile True:\n    time.sleep(0.01)"


@pytest.fixture
def waits():
    """Return a function that runs something with the same options first, and returns the container that waits then."""
    client.shutdown()

    def fill(run):
        run()
        wait_until(waiting)
        return waiting()[0]

    yield fill
    client.shutdown()


def stopped_payload(created):
    """Stop the process that waits for code; return its pid when it has."""
    pid = int(Path(f"/proc/{created.pid}/task/{created.pid}/children").read_text().split()[0])
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: "(stopped)" in status_of(pid, "State"))
    return pid


def go_on_when_interrupted(pid):
    """Wait until a SIGINT is pending, and let the process see that first of all."""
    wait_until(lambda: int(status_of(pid, "ShdPnd"), 16) >> (signal.SIGINT - 1) & 1)
    os.kill(pid, signal.SIGCONT)


def status_of(pid, name):
    """Return what /proc/PID/status says of ``name``."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.partition(":")[2] for line in lines if line.startswith(f"{name}:"))


def wait_until(condition):
    """Wait until ``condition`` holds."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.parametrize(
    ("shell", "options"),
    [("script", {}), ("plain", {}), ("ipython", {}), ("script", {"lang": "bash"})],
    ids=["script", "plain", "ipython", "bash"],
)
def test_interrupt_that_comes_before_the_code_ends_the_code(waits, shell, options):
    """The process has its order and has not looked at it: the code ends by SIGINT, two seconds before a kill would."""
    source = "sleep 30" if options else FOREVER

    def request(text):
        return request_for(text, {**OPTIONS, **options}, shell=shell)

    def run():
        with open_run(request("true" if options else "pass")) as running:
            list(running)

    pid = stopped_payload(waits(run))
    builder, killed = ReportBuilder(), []
    with open_run(request(source)) as running:
        for event in running:
            builder.add(event)
            killed += [event.killed] if isinstance(event, Interrupted) else []
            if isinstance(event, Started):
                running.interrupt()
                go_on_when_interrupted(pid)
    report = builder.report()

    assert (report.verdict, report.start, killed) == ("INTERRUPTED", "warm", [False])
    if options:
        assert report.exit_signal == signal.SIGINT
    else:
        assert (report.exit_code, report.error.ename) == (130, "KeyboardInterrupt")


def test_interrupt_before_a_sessions_first_cell_ends_the_cell_alone(waits, session):
    """As above; and the session goes on."""
    work = session()
    work._request = request = replace(work._request, warm=1)
    found = client.zygote(client.modules_of(request.spec.process))

    def put_one_ahead():
        found.pool.put(pool_key(request.spec), Worker(found, planned(request.spec, found), keep=True), 1)

    pid = stopped_payload(waits(put_one_ahead))

    def press():
        wait_until(lambda: work._keeper._run and work._keeper._run._started)
        work.interrupt()
        go_on_when_interrupted(pid)

    thread = threading.Thread(target=press)
    thread.start()
    stopped = work.run(FOREVER)
    thread.join()
    later = work.run("print('alive')")

    assert (stopped.verdict, stopped.error.ename, stopped.stderr) == ("INTERRUPTED", "KeyboardInterrupt", "")
    assert (later.verdict, later.stdout) == ("OK", "alive\n")


HOOKS = """
import ast, time
def hook(word, seconds):
    def show_and_wait(*_):
        print(word, flush=True)
        time.sleep(seconds)
    return show_and_wait
class Between(ast.NodeTransformer):
    visit = lambda self, tree: (hook("before", 0.5)(), tree)[1]
def slow_compiler():
    kind = type(get_ipython().compile)
    compiles = kind.__call__
    kind.__call__ = lambda self, *given, **named: (hook("compiles", 0.2)(), compiles(self, *given, **named))[1]
register = get_ipython().events.register
"""


def interrupted_at(work, word, source):
    """Run a cell and interrupt it when it has printed ``word``; return its report."""
    builder, text, heard = ReportBuilder(), b"", False
    with work._keeper.cell(replace(work._request, code=source.encode())) as cell:
        for event in until_exited(cell):
            builder.add(event)
            text += event.data if isinstance(event, Output) else b""
            if word in text and not heard:
                heard = True
                cell.interrupt()
    return builder.report()


@pytest.mark.parametrize(
    ("hook", "word"),
    [
        ("register('pre_execute', hook('before', 0.5))", b"before"),
        ("get_ipython().ast_transformers.append(Between())", b"before"),
        ("slow_compiler()", b"first\ncompiles"),
    ],
    ids=["hook", "transformer", "compiler"],
)
def test_interrupt_meets_the_code_and_not_what_ipython_does_before_it(session, hook, word):
    """IPython swallows one that comes in a hook, and is confused by one that comes in other places."""
    work = session()
    work.run(HOOKS + hook)
    stopped = interrupted_at(work, word, "print('first', flush=True)\nprint('second', flush=True)\n" + FOREVER)
    later = work.run("print('alive')")

    assert (stopped.verdict, stopped.error.ename, stopped.stderr) == ("INTERRUPTED", "KeyboardInterrupt", "")
    assert stopped.stdout.endswith(word.decode() + "\n")
    assert "show_and_wait" not in "".join(stopped.error.traceback)
    assert (later.verdict, later.stdout.splitlines()[-1]) == ("OK", "alive")


def test_interrupt_ends_what_shows_figures_behind_the_code(session):
    """It may take long, and is the cell's; IPython says which hook it was."""
    work = session()
    work.run(HOOKS)
    stopped = interrupted_at(work, b"behind", "register('post_execute', hook('behind', 20))")
    later = work.run("get_ipython().events.callbacks['post_execute'].clear()\nprint('alive')")

    assert (stopped.verdict, stopped.usage.wall_seconds < 2) == ("INTERRUPTED", True)
    assert (later.verdict, later.stdout) == ("OK", "alive\n")


@pytest.mark.parametrize(
    "source",
    [
        "get_ipython().run_cell('1')\nprint('runs', flush=True)\nwhile True: pass",
        "import asyncio\nawait asyncio.sleep(0)\nprint('runs', flush=True)\nawait asyncio.sleep(30)",
        "import threading\nthreading.Thread(target=time.sleep, args=(3,), daemon=True).start()\n"
        "print('runs', flush=True)\nwhile True: pass",
        "class Slow(Exception):\n    def __str__(self, waits=[1]):\n"
        "        while waits:\n            print('runs'[: 4 * waits.pop()], flush=True)\n            while True: pass\n"
        "        return ''\nraise Slow",
        "try:\n    1 / 0\nfinally:\n    print('runs', flush=True)\n    while True: pass",
    ],
    ids=["behind a cell in the cell", "awaiting", "beside a thread", "showing an error", "in a handler"],
)
def test_interrupt_ends_code_that_does_what_moves_signals_about(session, source):
    """What is let in for a statement is let in for the whole of it."""
    work = session()
    work.run("import time")
    stopped = interrupted_at(work, b"runs", source)
    later = work.run("print('alive')")

    assert (stopped.verdict, stopped.error.ename) == ("INTERRUPTED", "KeyboardInterrupt")
    assert later.stdout == "alive\n"


def test_handler_of_the_codes_own_is_left_in_place_for_the_cell(session):
    """From one statement to the next; the next cell begins as any does."""
    work = session()
    first = work.run(
        "import os, signal, time\n"
        "signal.signal(signal.SIGINT, lambda *_: print('mine'))\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
        "print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    )
    second = work.run("print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)")

    assert (first.stdout, second.stdout) == ("mine\nFalse\n", "True\n")


def test_children_of_the_code_begin_with_the_default_for_sigint(session):
    """Neither kept nor ignored, in the first cell and in a later one."""
    work = session()
    code = "import signal, subprocess, sys\nprint(subprocess.run(['sh', '-c', 'kill -INT $$; echo no']).returncode)"

    assert [work.run(code).stdout for _ in range(2)] == ["-2\n", "-2\n"]


def test_interrupt_when_a_cell_is_all_but_over_ends_the_cell_alone(session):
    """It comes as the function returns that has run the code, and looks after exceptions no more."""
    work = session()
    late = work.run(
        "import os, signal, sys\n"
        "def at_return(frame, event, _):\n"
        "    if event == 'return' and frame.f_code.co_name == '_execute':\n"
        "        sys.setprofile(None)\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.setprofile(at_return)"
    )
    later = work.run("print('alive')")

    assert (late.exit_code, late.error.ename) == (130, "KeyboardInterrupt")
    assert (later.verdict, later.stdout) == ("OK", "alive\n")


def test_interrupt_from_another_thread_while_a_cell_begins_to_listen_is_passed_on(session, monkeypatch):
    """One thread has found that the cell does not listen; the other hears that it does meanwhile."""
    begun, pressed = threading.Event(), []

    class Held(Run):
        @property
        def _hears(self):
            value = self.__dict__["_hears_now"]
            if not value and pressed and threading.current_thread() is pressed[0]:
                reading.set()
                begun.wait(10)
            return value

        @_hears.setter
        def _hears(self, value):
            self.__dict__["_hears_now"] = value

        def _hear_begun(self):
            reading.wait(10)
            super()._hear_begun()
            begun.set()

    monkeypatch.setattr("container_magic.verbs.sessions.Run", Held)
    reading = threading.Event()
    work = session()
    work.run("pass")
    cells = work._keeper.cells

    def press():
        wait_until(lambda: work._keeper.cells > cells)
        work._keeper._run.interrupt()

    pressed.append(threading.Thread(target=press))
    pressed[0].start()
    report = work.run("while True: pass", timeout_seconds=10)
    pressed[0].join()

    assert reading.is_set() and begun.is_set()
    assert (report.verdict, report.error.ename) == ("INTERRUPTED", "KeyboardInterrupt")


def test_child_that_meets_ctrl_c_at_its_fork_does_not_go_on_as_the_client():
    """The real signal, as early as there is a child: boot ends by it, and nobody else prints."""
    source = """
import ctypes, functools, os, signal
from container_magic.process import launch
os.register_at_fork(after_in_child=functools.partial(ctypes.CDLL(None)["raise"], int(signal.SIGINT)))
client = os.getpid()
try:
    boot = launch.fork()
except KeyboardInterrupt:
    print("goes on", "as the client" if os.getpid() != client else "")
else:
    print(boot.process.wait(10))
    boot.abandon()
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=False)

    assert (done.stdout, done.stderr) == (f"{-signal.SIGINT}\n", "")
