"""Figures on request: a supervisor answers at once, between cells too, and samples as it would without."""

from __future__ import annotations

import time

import pytest

from container_magic.events import Exited, Sampled, Started
from container_magic.options import from_keywords
from container_magic.runtime.run import Run, RunRequest
from container_magic.verbs.sessions import session_spec

MB = 1 << 20


@pytest.fixture
def running(needs):
    """Return a function that begins a session's first cell as a client of events does."""
    needs(mem="256M")
    runs = []

    def begin(code, **options):
        spec = session_spec(from_keywords({"mem": "256M", "timeout": "60s", **options}).spec)
        request = RunRequest(spec=spec, code=code.encode())
        runs.append(Run(request))
        return runs[-1], request

    yield begin
    for run in runs:
        run.close()


def until(run, wanted):
    """Return the events up to the first that is ``wanted``."""
    seen = []
    for event in run:
        seen.append(event)
        if wanted(event):
            return seen
    raise AssertionError(f"never came: {seen}")


def answer_of(run):
    """Return the answer that a client gets which waits on the run's descriptor; no other sample comes meanwhile."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for event in run.take():
            if isinstance(event, Sampled) and event.asked:
                return event
        time.sleep(0.001)
    raise AssertionError("no answer")


def test_idle_session_answers_with_its_figures(running):
    """Between cells: what is held, the tasks, and the CPU time of all cells."""
    run, request = running("import threading, time\nx = bytearray(60 << 20)")
    until(run, lambda event: isinstance(event, Exited))
    run.ask_sample()
    answer = answer_of(run)
    run.next_cell(RunRequest(spec=request.spec, code=b"del x\nthreading.Thread(target=time.sleep, args=(30,)).start()"))
    until(run, lambda event: isinstance(event, Exited))
    run.ask_sample()
    later = answer_of(run)

    assert 60 * MB <= answer.working_set_bytes <= answer.memory_bytes < 256 * MB
    assert answer.cpu_seconds > 0
    assert later.working_set_bytes < answer.working_set_bytes - 50 * MB
    assert later.cpu_seconds > answer.cpu_seconds
    assert later.pids == answer.pids + 1


def test_running_cell_answers_beside_its_own_samples(running):
    """Many questions leave the curve as it is: the report's points are those that nobody has asked for."""
    run, _ = running("import time\ntime.sleep(1)")
    seen = until(run, lambda event: isinstance(event, Started))
    for _ in range(20):
        run.ask_sample()
    seen += until(run, lambda event: isinstance(event, Exited))
    from container_magic.folding import fold

    answers = [event for event in seen if isinstance(event, Sampled) and event.asked]
    curve = [event for event in seen if isinstance(event, Sampled) and not event.asked]
    assert len(answers) == 20
    assert all(answer.pids >= 1 and answer.working_set_bytes > 0 for answer in answers)
    assert list(fold(seen).usage.samples) == curve
    assert 2 <= len(curve) <= 21  # one in 50 ms and none more


def test_answer_is_not_lost_on_who_looks_whether_the_session_lives(running):
    """``is_alive`` reads the same socket, and leaves the answer to who waits for it; no cell begins with an old one."""
    run, request = running("pass")
    until(run, lambda event: isinstance(event, Exited))
    run.ask_sample()
    deadline = time.monotonic() + 20
    while not run._events and time.monotonic() < deadline:
        assert run.is_alive()
    assert answer_of(run).asked
    run.ask_sample()
    while not run._events and time.monotonic() < deadline:
        assert run.is_alive()
    run.next_cell(RunRequest(spec=request.spec, code=b"pass"))
    assert type(next(run)).__name__ == "Created"


def test_one_shot_answers_too(needs):
    """The question is not a session's alone."""
    needs(mem="256M")
    spec = from_keywords({"mem": "256M"}).spec
    with Run(RunRequest(spec=spec, code=b"import time\ntime.sleep(0.5)")) as run:
        until(run, lambda event: isinstance(event, Started))
        run.ask_sample()
        seen = until(run, lambda event: isinstance(event, Exited))

    assert [event.asked for event in seen if isinstance(event, Sampled)].count(True) == 1
