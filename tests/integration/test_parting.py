"""A client sees a payload off by itself: nobody waits for the supervisor, and nobody gets away with anything."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from leftovers import children

import container_magic as cm
from container_magic.cgroups.v1_figures import V1Figures
from container_magic.cgroups.v2_figures import V2Figures
from container_magic.events import Created, Deleted, Exited, Interrupted, Started, until_exited
from container_magic.process.channel import FAREWELL
from container_magic.runtime.client import zygote
from container_magic.runtime.parting import Parting
from container_magic.verbs.run import open_run, request_for

OPTIONS = {"mem": "100M", "pids": 20, "net": "none"}
SAY = f"""
import os, sys, time
frame = sys._getframe()
while not hasattr(frame.f_locals.get("self"), "_tells_client"):
    frame = frame.f_back
say = lambda: frame.f_locals["self"]._channel._socket.send({FAREWELL!r})
"""
SLOW = "if os.fork() == 0: __import__('time').sleep(9)"
PRINTS = "print('seen off')"


def run(code, **options):
    """Run ``code`` under ``OPTIONS``."""
    return cm.run(code, timeout="20s", **OPTIONS, **options)


def with_supervisor_stopped(warm, seconds):
    """Return the events of a run whose supervisor is stopped as soon as it has begun, for so long at most."""
    supervisor, going_on, seen = 0, threading.Timer(0, int), []
    for event in cm.stream("import time\ntime.sleep(0.2)\nprint('done')", warm=warm, **OPTIONS):
        seen.append(event)
        if isinstance(event, Created):
            supervisor = event.supervisor_pid
        elif isinstance(event, Started):
            going_on = threading.Timer(seconds, os.kill, (supervisor, signal.SIGCONT))
            os.kill(supervisor, signal.SIGSTOP)
            going_on.start()
        elif isinstance(event, Exited):
            going_on.cancel()
            os.kill(supervisor, signal.SIGCONT)
    return seen


@pytest.mark.parametrize("warm", [0, 2])
def test_a_run_is_over_while_its_supervisor_is_stopped(warm):
    """What it has printed, its exit code and its figures are there; the supervisor removes the container later.

    Unless the machine is so busy that this process does not run for 20 ms; not many times one after the other.
    """
    for _ in range(20):
        while run("pass", warm=warm).start != ("warm" if warm else "cold"):
            time.sleep(0.2)
        time.sleep(0.5)
        seen = with_supervisor_stopped(warm, 2)
        ends = [event for event in seen if isinstance(event, Exited)]
        assert [(end.exit_code, end.exit_signal, end.oom_killed) for end in ends] == [(0, None, False)]
        assert isinstance(seen[-1], Deleted)
        if ends[0].usage.wall_seconds < 1.5:
            break
    assert 0.2 <= ends[0].usage.wall_seconds < 1.5
    assert ends[0].usage.cpu_seconds > 0
    assert isinstance(seen[-2], Exited)


def test_client_that_hears_of_its_first_payload_too_late_sees_the_next_ones_off():
    """Of one that is dead it cannot be known whether this user may; all others of its worker are of this user, too."""
    zygote().pool.empty()
    with open_run(request_for("pass", {**OPTIONS, "warm": 1}, "plain")) as running:
        time.sleep(1)
        assert [event.exit_code for event in running if isinstance(event, Exited)] == [0]
    (worker,) = zygote().pool.workers()
    wait_for_container(worker)
    assert worker._parting is not None


def test_figures_are_the_same_ones_that_a_supervisor_gives():
    """With a child left behind, the supervisor has to tell."""
    own, supervisors = (run(code).usage for code in ("pass", "import os, time\nif os.fork() == 0: time.sleep(9)"))
    unknown = [[name for name, value in vars(usage).items() if value is None] for usage in (own, supervisors)]
    assert unknown[0] == unknown[1]


def test_what_was_written_is_counted(tmp_path):
    """By the counters of init and payload, where no cgroup has any."""
    code = f"import os\nfd = os.open('{tmp_path}/x', os.O_WRONLY | os.O_CREAT)\nos.write(fd, bytes(1 << 20))"
    counted = [run(f"{code}\n{more}", volume=f"{tmp_path}:{tmp_path}").usage.io_write_bytes for more in ("", SLOW)]
    assert counted[0] == counted[1]


def test_whoever_says_farewell_and_stays_is_killed_at_once(tmp_path):
    """Nothing runs on beyond what was measured, also before the supervisor hears of it."""
    stays = f"print('before', flush=True)\nsay()\nfor n in range(10**9): open('{tmp_path}/x', 'a').write('x')"
    options = {**OPTIONS, "timeout": "20s", "volume": f"{tmp_path}:{tmp_path}"}
    with open_run(request_for(f"{SAY}\n{stays}", a_warm_run(options), "plain")) as running:
        events = list(until_exited(running))
        time.sleep(0.3)
        written = (tmp_path / "x").stat().st_size if (tmp_path / "x").exists() else 0
        time.sleep(0.3)
        assert written == ((tmp_path / "x").stat().st_size if written else 0)
    assert (events[-1].exit_code, events[-1].usage.wall_seconds < 10) == (0, True)


def test_farewell_of_code_that_its_supervisor_has_started_is_the_supervisors_to_tell(tmp_path, monkeypatch):
    """Whose clock alone knows when that was: a client's would count from whenever."""
    monkeypatch.chdir(tmp_path)
    code = f"{SAY}\nopen('made', 'w').close()\nsay()\ntime.sleep(0.3)"
    with open_run(request_for(code, a_warm_run({**OPTIONS, "out_file": "made"}), "plain")) as running:
        (end,) = (event for event in running if isinstance(event, Exited))
    assert end.exit_code == 0
    assert 0.3 <= end.usage.wall_seconds < 10


def a_warm_run(options):
    """Return ``options`` when a container waits for the next run with them."""
    zygote().pool.empty()
    cm.run("pass", **options)
    for worker in zygote().pool.workers():
        wait_for_container(worker)
    return options


def test_a_thread_cannot_hide_behind_a_farewell():
    """It is counted as a task, so that the supervisor has to tell; and nothing of it is left."""
    code = f"{SAY}\nimport threading\nthreading.Thread(target=time.sleep, args=(0.5,)).start()\nsay()\ntime.sleep(0.4)"
    report = run(code)
    assert (report.exit_code, report.usage.wall_seconds >= 0.4) == (0, True)


def test_another_process_cannot_say_farewell_for_the_payload():
    """With it there are more than two."""
    report = run(f"{SAY}\nif os.fork() == 0:\n    say()\n    os._exit(0)\ntime.sleep(0.2)\nraise SystemExit(7)")
    assert report.exit_code == 7


def test_an_orphan_cannot_say_farewell_for_the_payload():
    """The payload is dead, and cannot be killed any more: its own exit code counts, whichever is heard first."""
    orphan = "if os.fork() == 0:\n    while True: say()"
    assert [run(f"{SAY}\n{orphan}\nos._exit(7)").exit_code for _ in range(20)] == [7] * 20


def test_a_farewell_in_a_session_means_nothing():
    """Nobody is seen off, and the next cell runs."""
    with cm.Session(**OPTIONS) as session:
        say = f"get_ipython().channel._socket.send({FAREWELL!r})"
        first = session.run(f"import time\nx = 'kept'\nn = {say}\ntime.sleep(0.2)\nprint('still here', n)")
        assert (first.exit_code, first.stdout) == (0, f"still here {len(FAREWELL)}\n")
        assert session.run("print(x)").stdout == "kept\n"


def test_a_farewell_of_code_that_was_interrupted_is_the_supervisors_to_tell():
    """The report says that it was interrupted."""
    code = "import time\ntry:\n    time.sleep(10)\nexcept KeyboardInterrupt:\n    pass"
    seen = []
    with open_run(request_for(code, OPTIONS, "plain")) as running:
        for event in until_exited(running):
            seen.append(event)
            if isinstance(event, Started):
                time.sleep(0.3)
                running.interrupt()
    assert [event.killed for event in seen if isinstance(event, Interrupted)] == [False]
    assert seen[-1].exit_code == 0


def test_a_client_that_is_slow_does_not_make_a_run_longer():
    """Then its supervisor hears of the end, and stops the clock."""
    usage = None
    for event in cm.stream("import time\ntime.sleep(0.1)\nprint('x')", **OPTIONS):
        if isinstance(event, Started):
            time.sleep(1)
        elif isinstance(event, Exited):
            usage = event.usage
    assert usage is not None
    assert 0.1 <= usage.wall_seconds < 0.9


@pytest.mark.parametrize("owner", [Parting, V1Figures, V2Figures])
@pytest.mark.parametrize("warm", [0, 2])
def test_a_client_that_gets_no_cpu_after_it_has_killed_the_payload_tells_how_the_code_ended(monkeypatch, owner, warm):
    """By then the supervisor has heard of a death by SIGKILL, told it, and removed the group with its figures."""
    name = "_has_company" if owner is Parting else "usage"
    at_once = getattr(owner, name)

    def late(self):
        if getattr(self, "has_killed", True):
            time.sleep(0.3)
        return at_once(self)

    monkeypatch.setattr(owner, name, late)
    report = run(PRINTS, warm=warm)
    assert (report.verdict, report.exit_code, report.exit_signal, report.line) == ("OK", 0, None, None)
    assert report.stdout == "seen off\n"
    assert report.usage.cpu_seconds > 0


def test_one_supervisor_serves_runs_that_follow_at_once():
    """The order for the next container comes while its supervisor still watches the last one."""
    for number in range(30):
        report = run(f"print({number})", warm=1)
        assert (report.exit_code, report.stdout) == (0, f"{number}\n")


def test_supervisor_that_hears_of_two_runs_at_once_gives_each_its_own_descriptors():
    """It finds one run's order, its end and the next one's order in one read; that has the next one's descriptors."""
    zygote().pool.empty()
    while run("pass", warm=1).start != "warm":
        time.sleep(0.2)
    (supervisor,) = (wait_for_container(worker) for worker in zygote().pool.workers())
    os.kill(supervisor, signal.SIGSTOP)
    going_on = threading.Timer(10, os.kill, (supervisor, signal.SIGCONT))
    going_on.start()
    begun = time.monotonic()
    # it waits longer than others, which say farewell to init when a client on a busy machine comes too late
    reports = [run(f"{SAY}\nprint(1)\nsay()\ntime.sleep(9)", warm=1)]
    assert time.monotonic() - begun < 9  # it was seen off
    following = threading.Thread(target=lambda: reports.append(run("print(2)", warm=1)))
    following.start()
    time.sleep(0.3)
    going_on.cancel()
    os.kill(supervisor, signal.SIGCONT)
    following.join()
    assert [(report.exit_code, report.stdout) for report in reports] == [(0, "1\n"), (0, "2\n")]


def test_many_threads_get_each_its_own_output():
    """Workers go from thread to thread, and are ordered again before their supervisors have heard of the last end."""
    with ThreadPoolExecutor(20) as threads:
        reports = list(threads.map(lambda number: run(f"print({number})", warm=4), range(200)))
    assert [(report.exit_code, report.stdout) for report in reports] == [(0, f"{number}\n") for number in range(200)]


def wait_for_container(worker):
    """Return the pid of a worker's supervisor when its container waits."""
    while worker.created is None:
        time.sleep(0.05)
        zygote().pool.tend()
    return worker.created.supervisor_pid


@pytest.mark.parametrize("volumes", [0, 2, 13])
def test_descriptors_of_a_client_do_not_grow(volumes, tmp_path):
    """Those of a container that waits, its volumes' among them, are closed when its run is over."""
    shown = {"volume": [f"{tmp_path}:/shown{number}:ro" for number in range(volumes)], "warm": 1}
    for _ in range(4):
        assert run(PRINTS, **shown).stdout == "seen off\n"
    time.sleep(0.5)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        run(PRINTS, **shown)
    time.sleep(0.5)
    run(PRINTS, **shown)
    assert len(os.listdir("/proc/self/fd")) <= before + 22  # what hangs on one container more that waits


@pytest.mark.parametrize("wait", [False, True])
def test_a_supervisor_takes_the_clients_word_for_the_end(wait):
    """It does not ask init, which may be stopped: the container goes, whether somebody waits for that or not."""
    init = 0
    code = f"{SAY}\ntime.sleep(0.2)\nsay()\ntime.sleep(9)"  # longer than others: nobody but the client would hear of it
    with open_run(request_for(code, a_warm_run({**OPTIONS, "timeout": "20s"}), "plain")) as running:
        for event in running if wait else until_exited(running):
            if isinstance(event, Created):
                init = event.pid
            elif isinstance(event, Started):
                os.kill(init, signal.SIGSTOP)
    until = time.monotonic() + 8
    while os.path.exists(f"/proc/{init}") and time.monotonic() < until:
        time.sleep(0.05)
    assert not os.path.exists(f"/proc/{init}")


def test_nothing_of_a_run_that_was_seen_off_is_left():
    """Init and payload are gone when the stream ends."""
    init = 0
    for event in cm.stream("pass", **OPTIONS):
        if isinstance(event, Created):
            init = event.pid
    assert init
    assert children(init) == []
