"""The pool: containers that wait in created, each used once, refilled beside the notebook, of no cost to anybody."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

import pytest
from defaults import DEFAULTS
from leftovers import children, descendants, made_ahead, waiting, zygote_pid

import container_magic as cm
from container_magic.cgroups.facts import probe
from container_magic.events import Created, Deleted, Exited, Failed, Output, Started, until_exited
from container_magic.options import from_keywords
from container_magic.runtime import client
from container_magic.runtime.pool import MOST_WAITING, MountWatch, pool_key
from container_magic.runtime.sweep import runtime_directory
from container_magic.runtime.worker import Worker
from container_magic.verbs.run import open_run, request_for


def wait_for(count, seconds=20.0, *, or_more=False):
    """Wait until ``count`` containers stand in this process's pools; return them."""
    deadline = time.monotonic() + seconds
    while (found := len(waiting())) != count and not (or_more and found > count):
        assert time.monotonic() < deadline, f"{len(waiting())} wait, not {count}"
        time.sleep(0.01)
    return waiting()


def _is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


@pytest.fixture
def fresh():
    """Begin, and end, without a zygote: nothing waits."""
    client.shutdown()
    yield
    client.shutdown()


@pytest.fixture
def warm(fresh):
    """Return ``cm.run`` with one container that waits, after a first run has filled the pool."""

    def run(source, **options):
        keywords = {**DEFAULTS, "warm": 1, **options}
        cm.run("pass", **keywords)
        wait_for(keywords["warm"], or_more=True)  # those that nobody will ask for again wait as well
        return cm.run(source, **keywords)

    return run


@pytest.fixture
def child():
    """Return a function that has a fork of this process do something, and returns one that waits for its exit code."""
    pids = []

    def fork(does):
        pids.append(os.fork())
        if pids[-1] == 0:
            try:
                does()
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        return lambda: os.waitstatus_to_exitcode(os.waitpid(pids.pop(), 0)[1])

    yield fork
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


class TestStarts:
    """What the report calls warm and cold."""

    def test_second_run_with_the_same_options_is_warm(self, warm):
        """The first is cold, the pool follows, the next finds a container that waits."""
        report = warm("print(6 * 7)")

        assert (report.stdout, report.start, report.verdict) == ("42\n", "warm", "OK")

    def test_run_with_another_option_is_cold(self, warm):
        """A container that was made for other options is not used."""
        assert warm("pass").start == "warm"
        assert cm.run("pass", **{**DEFAULTS, "warm": 1, "pids": 77}).start == "cold"

    def test_warm_0_is_cold_and_leaves_nothing_waiting(self, fresh, run):
        """No pool is made."""
        assert [run("pass", warm=0).start for _ in range(2)] == ["cold", "cold"]
        time.sleep(0.3)
        assert waiting() == []

    @pytest.mark.parametrize("count", [1, 3])
    def test_as_many_wait_as_asked_for(self, fresh, run, count):
        """``--warm N``."""
        run("pass", warm=count)

        assert len({created.container_id for created in wait_for(count)}) == count

    def test_pools_of_many_options_stay_small_together(self, fresh, run):
        """The least recently used containers go."""
        for pids in range(40, 40 + MOST_WAITING + 3):
            run("pass", pids=pids, warm=2)

        time.sleep(0.5)
        assert len(wait_for(MOST_WAITING)) == MOST_WAITING
        assert run("pass", pids=40, warm=2).start == "cold"

    def test_only_the_supervisor_yields_its_cpu(self, warm):
        """It looks on while client and code run; what it makes is as ever, the containers after its first one too."""
        warm("pass")
        (created,) = wait_for(1)
        (payload,) = children(created.pid)
        policies = [os.sched_getscheduler(pid) for pid in (created.supervisor_pid, created.pid, payload)]
        reports = [warm("import os; print(os.sched_getscheduler(0))") for _ in range(2)]

        assert policies == [os.SCHED_BATCH, os.SCHED_OTHER, os.SCHED_OTHER]
        assert [report.stdout for report in reports] == [f"{os.SCHED_OTHER}\n"] * 2

    def test_start_of_a_warm_container_has_no_parts(self, warm):
        """What was done before anybody asked is no part of the start."""
        report = warm("pass")

        assert 0 < report.usage.startup_seconds < 5
        assert report.usage.startup == {}


class TestOnce:
    """A container is used by one run."""

    def test_every_run_has_a_container_of_its_own(self, warm, run):
        """Ids, host names, files and namespaces are new each time."""
        look = (
            "import os, socket\n"
            "print(socket.gethostname(), os.path.exists('/tmp/mark'), os.readlink('/proc/self/ns/net'),"
            " open('/etc/hostname').read().strip())\nopen('/tmp/mark', 'w').close()"
        )
        reports = [warm(look)]
        for _ in range(4):
            wait_for(1)
            reports.append(run(look))
        assert [report.start for report in reports] == ["warm"] * 5
        seen = [report.stdout.split() for report in reports]
        assert len({report.container_id for report in reports}) == 5
        for report, (name, mark, _net, file) in zip(reports, seen, strict=True):
            assert name == file == report.container_id[:12]
            assert mark == "False"

    def test_usage_of_a_warm_run_begins_with_its_code(self, warm):
        """What making the container took, and what the run before used, is in nobody's report."""
        heavy = warm("x = bytearray(80 << 20)\nimport time\nwhile time.process_time() < 0.3: pass")
        wait_for(1)
        light = cm.run("pass", **{**DEFAULTS, "warm": 1})

        assert heavy.usage.cpu_seconds >= 0.25
        assert light.start == "warm"
        assert light.usage.cpu_seconds < 0.2
        assert light.usage.memory_peak_bytes is None or light.usage.memory_peak_bytes < 40 << 20

    def test_wall_limit_counts_from_the_code(self, warm):
        """Time that a container has waited is not the code's."""
        warm("pass", timeout="2s")
        time.sleep(2.5)

        report = cm.run("print('here')", **{**DEFAULTS, "warm": 1, "timeout": "2s"})

        assert (report.start, report.verdict, report.stdout) == ("warm", "OK", "here\n")

    def test_limits_hold_in_a_warm_container(self, warm, needs):
        """Memory, as an example: the next one is whole again."""
        needs(mem="64M")
        report = warm("x = bytearray(500 << 20)", mem="64M")

        assert (report.start, report.verdict, report.oom_killed) == ("warm", "MEMORY_LIMIT", True)
        wait_for(1)
        assert cm.run("print(1)", **{**DEFAULTS, "warm": 1, "mem": "64M"}).verdict == "OK"

    def test_random_numbers_differ_between_containers(self, warm, run):
        """Generators of preloaded modules have a seed of their own in each."""
        pytest.importorskip("numpy")
        code = "import random, numpy, uuid\nprint(random.random(), numpy.random.random(), uuid.uuid1(), uuid.uuid4())"
        seen = [warm(code, preload="random,numpy.random,uuid").stdout]
        for _ in range(3):
            wait_for(1)
            seen.append(run(code, preload="random,numpy.random,uuid").stdout)

        assert all(len(set(column)) == 4 for column in zip(*map(str.split, seen), strict=True))


class TestVolumes:
    """A volume shows what is at its path when the code starts."""

    def test_directory_that_was_made_anew_is_seen(self, warm, tmp_path):
        """The old directory, which the waiting container has, is gone; its inode number may be used again."""
        source = tmp_path / "data"
        for text in ("first", "second", "third"):
            source.mkdir()
            (source / "x").write_text(text)
            report = warm("print(open('/d/x').read())", volume=f"{source}:/d")
            assert report.stdout == f"{text}\n", report.start
            subprocess.run(["rm", "-r", str(source)], check=True)

    def test_removed_directory_is_found_out_where_its_number_is_used_again(self, warm, tmp_path, monkeypatch):
        """The waiting container's directory is gone, and nothing about the path tells: its link count does."""
        monkeypatch.setattr("container_magic.runtime.pool._identity", lambda _path: (1, 1))
        source = tmp_path / "data"
        source.mkdir()
        (source / "x").write_text("first")
        code = "print(open('/d/x').read())"
        assert warm(code, volume=f"{source}:/d").stdout == "first\n"
        (waiting_now,) = wait_for(1)
        subprocess.run(["rm", "-r", str(source)], check=True)
        source.mkdir()
        (source / "x").write_text("second")
        report = cm.run(code, **{**DEFAULTS, "warm": 1}, volume=f"{source}:/d")

        assert (report.verdict, report.stdout, report.start) == ("OK", "second\n", "cold")
        assert report.container_id != waiting_now.container_id

    @pytest.mark.parametrize(("code", "exit_code"), [("print(1)", 0), ("print(1)\nraise SystemExit(3)", 3)])
    def test_source_that_goes_before_the_supervisor_hears_of_the_run_takes_nothing_from_it(
        self, warm, tmp_path, code, exit_code
    ):
        """The client starts the code by itself; whoever has its output may clean up behind it."""
        source = tmp_path / "data"
        source.mkdir()
        warm("pass", volume=f"{source}:/d")
        (created,) = wait_for(1)
        os.kill(created.supervisor_pid, signal.SIGSTOP)
        events = []
        for event in cm.stream(code, **{**DEFAULTS, "warm": 1}, volume=f"{source}:/d"):
            events.append(event)
            if isinstance(event, Output) and source.exists():
                source.rmdir()
                os.kill(created.supervisor_pid, signal.SIGCONT)
        (zygote,) = client._zygotes.values()
        while zygote.pool.workers():  # the next one has no source; that is no news, and here a warning is an error
            assert waiting() == []

        assert [event.exit_code for event in events if isinstance(event, Exited)] == [exit_code]
        assert not [event for event in events if isinstance(event, Failed)]
        assert created.container_id == next(e.container_id for e in events if isinstance(e, Created))

    def test_what_fails_with_the_next_container_is_nothing_of_a_run_that_is_read_late(self, warm, tmp_path):
        """The end of the one and the failure of the next come in one message."""
        source = tmp_path / "data"
        source.mkdir()
        warm("pass", volume=f"{source}:/d")
        seen = []
        for event in cm.stream("print(1)", **{**DEFAULTS, "warm": 1}, volume=f"{source}:/d"):
            seen.append(event)
            if isinstance(event, Exited):
                source.rmdir()
                time.sleep(0.5)  # the supervisor has told of the removal and gone on

        assert [type(event) for event in seen if isinstance(event, (Created, Deleted, Failed))] == [Created, Deleted]

    def test_file_that_was_replaced_is_seen(self, warm, tmp_path):
        """As editors save: another file is renamed to the name."""
        source = tmp_path / "x"
        source.write_text("first")
        assert warm("print(open('/x').read())", volume=f"{source}:/x").stdout == "first\n"
        wait_for(1)
        (tmp_path / "new").write_text("second")
        (tmp_path / "new").rename(source)

        assert cm.run("print(open('/x').read())", **{**DEFAULTS, "warm": 1}, volume=f"{source}:/x").stdout == "second\n"

    def test_volume_that_is_gone_is_refused(self, warm, tmp_path):
        """The same error as for a cold start."""
        source = tmp_path / "data"
        source.mkdir()
        warm("pass", volume=f"{source}:/d")
        source.rmdir()

        with pytest.raises(cm.OptionError, match="does not exist"):
            cm.run("pass", **{**DEFAULTS, "warm": 1}, volume=f"{source}:/d")

    @pytest.mark.root
    def test_changes_of_mounts_are_noticed(self):
        """In a mount namespace of one's own, because the host's mounts are not ours."""
        code = (
            "import ctypes, os\nfrom container_magic.runtime.pool import MountWatch\nlibc = ctypes.CDLL(None)\n"
            "assert libc.unshare(0x20000) == 0\nwatch = MountWatch()\nprint(watch.changed(), end=' ')\n"
            "assert libc.mount(b'none', b'/mnt', b'tmpfs', 0, None) == 0\nprint(watch.changed(), watch.changed())"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

        assert done.stdout == "False True False\n"
        assert not MountWatch().changed()

    def test_key_is_of_the_environment_too(self, monkeypatch):
        """The time zone goes into the plan, so a container of another one is not used."""
        spec = from_keywords({}).spec
        monkeypatch.setenv("TZ", "UTC")
        first = pool_key(spec)
        monkeypatch.setenv("TZ", "Asia/Tokyo")

        assert pool_key(spec) != first


def is_held_here(name):
    """Return whether a process below this one, and not of tests beside it, has the state directory ``name`` open."""
    held = set()
    for pid in descendants():
        with contextlib.suppress(OSError):
            held |= {path.readlink() for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()}
    return any(path.name == name or path.parent.name == name for path in held)


class TestDeaths:
    """Who dies while a container waits."""

    @pytest.mark.parametrize("victim", ["supervisor", "init", "payload"])
    def test_dead_container_is_not_used(self, warm, victim):
        """The run begins with another one, cold, what it reads included, and what the dead one had is swept."""
        warm("pass", stdin="")
        (created,) = wait_for(1)
        children = Path(f"/proc/{created.pid}/task/{created.pid}/children").read_text().split()
        pid = {"supervisor": created.supervisor_pid, "init": created.pid, "payload": int(children[0])}[victim]
        dying = os.pidfd_open(pid)
        os.kill(pid, signal.SIGKILL)
        select.select([dying], [], [], 10)
        os.close(dying)
        time.sleep(0.1)  # until init has told of its payload's end
        report = cm.run("print(input())", **{**DEFAULTS, "warm": 1, "stdin": "alive"})

        assert (report.verdict, report.stdout) == ("OK", "alive\n")
        assert report.container_id != created.container_id

    def test_code_that_runs_is_not_run_again_when_its_supervisor_dies(self, warm):
        """The client starts it by itself; a supervisor that never heard of it has to be one that was killed."""
        warm("pass")
        (created,) = wait_for(1)
        os.kill(created.supervisor_pid, signal.SIGSTOP)
        endless = cm.stream("print(1)\nimport time; time.sleep(60)", **{**DEFAULTS, "warm": 1})
        with contextlib.closing(endless) as events:
            seen = [next(event for event in events if isinstance(event, Output))]
            os.kill(created.supervisor_pid, signal.SIGKILL)
            seen += events

        assert b"".join(event.data for event in seen if isinstance(event, Output)) in (b"1", b"1\n")
        assert "supervisor of the container was killed" in next(e.message for e in seen if isinstance(e, Failed))
        assert [event.exit_signal for event in seen if isinstance(event, Exited)] == [signal.SIGKILL]

    def test_death_of_the_zygote_behind_a_run_is_no_news(self, warm, monkeypatch):
        """The container is removed as ever, only sooner; a warning, here an error, is for what cannot be removed."""

        def leave(worker):
            monkeypatch.undo()
            os.kill(zygote_pid(), signal.SIGKILL)
            time.sleep(0.3)  # the supervisor hears of that before it hears that its run is over
            worker.leave()

        warm("pass")
        (created,) = wait_for(1)
        os.kill(created.pid, signal.SIGSTOP)  # nor does init tell it
        monkeypatch.setattr(Worker, "leave", leave)
        reports = [cm.run("pass", **{**DEFAULTS, "warm": 1}) for _ in range(2)]

        assert [(report.verdict, report.start) for report in reports] == [("OK", "warm"), ("OK", "cold")]

    def test_word_that_follows_a_start_at_once_is_obeyed(self, warm):
        """The supervisor reads both together, and the code runs already."""
        warm("pass")
        (created,) = wait_for(1)
        os.kill(created.supervisor_pid, signal.SIGSTOP)
        begun = time.monotonic()
        with open_run(request_for("import time; time.sleep(60)", {**DEFAULTS, "warm": 1}, "plain")) as running:
            running.kill()
            os.kill(created.supervisor_pid, signal.SIGCONT)
            *_, last = until_exited(running)

        assert last.exit_signal == signal.SIGKILL
        assert time.monotonic() - begun < 30

    def test_runs_go_on_without_the_process_that_clones(self, warm):
        """The supervisor whose cloner was killed can make no more: others take its place."""
        warm("pass")
        (created,) = wait_for(1)
        (cloner,) = [pid for pid in children(created.supervisor_pid) if pid != created.pid]
        os.kill(cloner, signal.SIGKILL)
        reports = [cm.run("print(1)", **{**DEFAULTS, "warm": 1}) for _ in range(4)]

        assert [(report.verdict, report.stdout) for report in reports] == [("OK", "1\n")] * 4

    def test_what_was_made_ahead_is_removed_when_the_zygote_dies(self, warm):
        """The supervisor that waits for a request has groups and a directory, and no container."""
        warm("pass")
        deadline = time.monotonic() + 10
        while not (held := {name for name in made_ahead() if is_held_here(name)}):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        places = [Path(runtime_directory()) / name for name in held]
        places += [Path(base, f"container_magic-{name}") for base in set(probe().bases.values()) for name in held]
        assert any(place.exists() for place in places)
        os.kill(zygote_pid(), signal.SIGKILL)

        while any(place.exists() for place in places):
            assert time.monotonic() < deadline + 10, places
            time.sleep(0.01)

    @pytest.mark.parametrize("child_of_client", [False, True])
    def test_containers_end_with_the_client(self, child_of_client):
        """SIGKILL for the notebook: its pool goes, and what runs; that a child of it lives on helps neither."""
        code = f"""
import container_magic as cm, os, sys, time
from container_magic.events import Created
from container_magic.runtime import client
cm.run("pass", warm=2, best_effort=True)
workers = client.zygote().pool.workers()
while not all(worker.created for worker in workers):
    for worker in workers: worker.settle()
running = cm.stream("import time; time.sleep(60)", pids=50, best_effort=True)
names = [next(event.container_id for event in running if isinstance(event, Created))]
child = {"os.fork()" if child_of_client else "-1"}
if not child:
    time.sleep(60)
print(child, *names, *(worker.created.container_id for worker in workers), flush=True)
time.sleep(60)
"""
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
            child, *ids = process.stdout.readline().split()
            process.kill()

        assert len(ids) == 3
        deadline = time.monotonic() + 10
        places = [Path(runtime_directory()) / name for name in ids]
        try:
            while any(place.exists() for place in places):
                assert time.monotonic() < deadline, places
                time.sleep(0.05)
        finally:
            if child_of_client:
                os.kill(int(child), signal.SIGKILL)

    def test_fork_of_the_client_leaves_the_pool_to_the_parent(self, warm):
        """A child that inherited the sockets, and ends, ends no container."""
        warm("pass")
        (created,) = wait_for(1)
        pid = os.fork()
        if pid == 0:
            client.shutdown()
            os._exit(0)
        os.waitpid(pid, 0)
        report = cm.run("print(1)", **{**DEFAULTS, "warm": 1})

        assert (report.start, report.container_id) == ("warm", created.container_id)

    def test_fork_of_a_client_whose_other_thread_takes_from_the_pool_can_have_its_own(self, warm, child):
        """The lock that this thread holds, here for all of the child's life, is no lock of the child."""
        warm("pass")
        (zygote,) = client._zygotes.values()

        def run():
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(20)
            assert cm.run("print(1)", **{**DEFAULTS, "warm": 0}).stdout == "1\n"

        with zygote.pool._lock:
            assert child(run)() == 0

    def test_client_that_forks_while_its_threads_run_containers_has_children_that_do_too(self):
        """From the first import on, at any moment."""
        source = """
import faulthandler, os, threading, time
import container_magic as cm
over = threading.Event()
def work(number):
    while not over.is_set():
        assert cm.run("pass", pids=50 + number).verdict == "OK"
threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
for thread in threads:
    thread.start()
statuses = []
for number in range(10):
    pid = os.fork()
    if pid == 0:
        faulthandler.dump_traceback_later(30, exit=True)
        os._exit(cm.run(f"print({number})").stdout != f"{number}\\n")
    statuses.append(os.waitpid(pid, 0)[1])
    time.sleep(0.013 * number)
over.set()
print(statuses)
"""
        words = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", source]  # "fork may lead to deadlocks"
        done = subprocess.run(words, capture_output=True, text=True, timeout=110, check=False)

        assert (done.stdout, done.stderr, done.returncode) == (f"{[0] * 10}\n", "", 0)

    def test_thread_imports_only_what_a_fork_waits_for(self):
        """The lock of a module that a thread is importing, a codec's too, would stay locked in the child for good."""
        source = """
import sys, threading
import container_magic as cm
from container_magic.forks import importing
class Finder:
    def find_spec(self, name, path=None, target=None):
        if threading.current_thread() is thread and not importing._is_owned():
            print(doing, name)
sys.meta_path.insert(0, Finder())
def work():
    global doing
    for doing in ("pass", "1 / 0", "while True: pass", "bytearray(1 << 30)", "display('shown')"):
        str(cm.run(doing, mem="100M", timeout="2s"))
    doing = "another language"
    cm.run("exit 1", lang="bash")
    doing = "variables"
    cm.run("y = x", input={"x": 1}, output=["y"])
    doing = "many"
    list(cm.map("pass", ["a", "b"]))
    doing = "a session"
    with cm.Session() as session:
        session.run("x = 1")
thread = threading.Thread(target=work)
thread.start()
thread.join()
print("over")
"""
        done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=110, check=False)

        assert (done.stdout, done.stderr) == ("over\n", "")

    def test_child_of_the_client_closes_nothing_that_it_has_inherited(self, warm, child):
        """What its parent let go of at that moment has a number that is another file's by now, perhaps."""
        warm("pass")
        wait_for(1)

        def run():
            inherited = [fd for fd in range(256) if _is_open(fd)]
            assert cm.run("print(1)", **{**DEFAULTS, "warm": 0}).stdout == "1\n"
            client.shutdown()
            assert all(map(_is_open, inherited))

        assert child(run)() == 0

    def test_child_of_the_client_that_lives_on_keeps_nobody_waiting(self, warm, child):
        """It has the sockets, too: what the client lets go of is told so, and not only left by it."""
        warm("pass")
        (created,) = wait_for(1)
        (zygote,) = client._zygotes.values()
        child(signal.pause)
        zygote.pool.empty()
        place, deadline = Path(runtime_directory()) / created.container_id, time.monotonic() + 10
        while place.exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        client.shutdown()

        assert zygote.process.returncode == 0  # by itself, and not killed when seconds had gone

    @pytest.mark.parametrize("when", ["begins", "listens", "ends"])
    def test_child_of_the_client_that_leaves_a_run_takes_nothing_of_it(self, warm, child, when):
        """The run is its parent's: what it writes is heard when it is written, and its worker waits for the next."""
        warm("pass")
        (created,) = wait_for(1)
        (zygote,) = client._zygotes.values()
        # print() writes a line's end by itself
        source = "import os, time; os.write(1, b'1\\n'); time.sleep(0.5); os.write(1, b'2\\n'); time.sleep(0.5)"
        heard = {}
        with open_run(request_for(source, {**DEFAULTS, "warm": 1}, "plain")) as running:
            if when == "begins":
                assert child(running.close)() == 0
            for event in until_exited(running):
                heard.setdefault(event.data if isinstance(event, Output) else type(event), time.monotonic())
                if when == "listens" and heard.keys() == {Created, Started, b"1\n"}:
                    assert child(running.close)() == 0
            if when == "ends":
                assert child(running.close)() == 0

        assert running.container_id == created.container_id  # and no other was begun in its place
        assert heard[Exited] - heard[b"2\n"] > 0.3
        assert len(zygote.pool.workers()) == 1
        assert cm.run("print(3)", **{**DEFAULTS, "warm": 1}).stdout == "3\n"


class TestPreload:
    """Modules that are imported once."""

    def test_module_is_there_already(self, run):
        """In ``sys.modules`` before the code runs; without the option it is not."""
        code = "import sys; print('colorsys' in sys.modules)"

        assert run(code, preload="colorsys").stdout == "True\n"
        assert run(code).stdout == "False\n"

    @pytest.mark.parametrize("name", ["no_such_module", "antigravity.nothing", "this.that"])
    def test_module_that_cannot_be_imported_is_an_option_error(self, run, name):
        """The reason is Python's own; nothing is left waiting."""
        with pytest.raises(cm.OptionError, match=f"cannot preload {name}: ModuleNotFoundError"):
            run("pass", preload=name)
        assert (name,) not in client._zygotes

    def test_few_zygotes_are_kept(self, run):
        """The least recently used one goes, the plain one stays."""
        run("pass")
        for name in ("colorsys", "tabnanny", "sched", "nturl2path", "stringprep"):
            run("pass", preload=name, warm=0)

        assert len(client._zygotes) == client.MOST_ZYGOTES
        assert () in client._zygotes and ("colorsys",) not in client._zygotes

    def test_what_a_cell_does_to_a_preloaded_module_stays_in_it(self, run):
        """The next container has the module as it was imported."""
        run("import colorsys; colorsys.ONE_THIRD = 'changed'", preload="colorsys")

        assert run("import colorsys; print(colorsys.ONE_THIRD < 1)", preload="colorsys").stdout == "True\n"


@pytest.mark.root
@pytest.mark.cgroup_v1
def test_waiting_containers_are_in_groups_of_their_own(warm):
    """Their memory is charged to themselves, with the limit set already."""
    warm("pass")
    (created,) = wait_for(1)
    group = Path(probe().bases["memory"], f"container_magic-{created.container_id}")

    assert int((group / "memory.limit_in_bytes").read_text()) == 256 << 20
    assert str(created.pid) in (group / "cgroup.procs").read_text().split()
