"""Every way in which a run can end: its verdict, nothing left (``nothing_left``), and the next run works."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import textwrap
import threading
import time
from pathlib import Path

import pytest

import container_magic as cm
from container_magic.cgroups.facts import probe
from container_magic.events import CodeError, Created, Deleted, Exited, Interrupted, Output, Started
from container_magic.folding import ReportBuilder, fold
from container_magic.runtime import client
from container_magic.runtime.state import StateDirectory
from container_magic.runtime.sweep import runtime_directory
from container_magic.verbs.run import open_run, request_for

GONE_SECONDS = 2.0
STUBBORN = """
import signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
print('ready')
while True: time.sleep(1)
"""


def wait_until(condition, seconds=GONE_SECONDS):
    """Return whether ``condition`` came true within ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def alive(pid):
    """Return whether process ``pid`` is there and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def tree(pid):
    """Return ``pid`` and all its descendants."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir() if os.path.exists(f"/proc/{pid}/task") else []:
        for child in (task / "children").read_text().split():
            found += tree(int(child))
    return found


def traces(container_id):
    """Return the state directory and cgroups of a container that are still there."""
    places = [Path(runtime_directory()) / container_id]
    places += [Path(base, f"container_magic-{container_id}") for base in set(probe().bases.values())]
    return [str(place) for place in places if place.exists()]


def check_contract(events):
    """Check the order of the stream: Created once, each Started exactly one Exited, Deleted last if at all."""
    kinds = [type(event) for event in events]
    assert kinds.count(Created) <= 1
    assert kinds.count(Started) == kinds.count(Exited)
    if Deleted in kinds:
        assert kinds[-1] is Deleted and kinds.count(Deleted) == 1


ENDS = {
    "normal": ("print(1)", {}, "OK"),
    "exit": ("import sys; sys.exit(3)", {}, "RUNTIME_ERROR"),
    "exception": ("1/0", {}, "RUNTIME_ERROR"),
    "signal": ("import os; os.kill(os.getpid(), 11)", {}, "SIGNALED"),
    "wall": ("import time; time.sleep(60)", {"timeout": "300ms"}, "TIME_LIMIT"),
    "cpu": ("while True: pass", {"cpu_time": "300ms"}, "TIME_LIMIT"),
    "memory": ("x = bytearray(300 << 20)", {"mem": "64M"}, "MEMORY_LIMIT"),
    "output": ("while True: print('x' * 10000)", {"max_output": "16K"}, "OUTPUT_LIMIT"),
    "crowd": ("import os, time\nfor _ in range(30):\n    if os.fork() == 0: time.sleep(60)\nprint(1)", {}, "OK"),
    "stopped children": (
        "import os, signal\nfor _ in range(5):\n    if os.fork() == 0: os.kill(os.getpid(), signal.SIGSTOP)\n",
        {},
        "OK",
    ),
}


@pytest.mark.parametrize("name", ENDS)
def test_end_has_its_verdict_and_leaves_nothing(run, needs, name):
    """Each end is told from the others; the container goes without being waited for, and the next one works."""
    source, options, verdict = ENDS[name]
    needs(mem="64M")
    report = run(source, **options)

    assert report.verdict == verdict
    assert wait_until(lambda: traces(report.container_id) == [])
    assert run("print('next')").stdout == "next\n"


def test_daemonised_grandchild_dies_with_its_container(run, live):
    """A process that left its session and lost its parent ends when the payload ends."""
    running = live(
        """
        import os, time
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                for fd in (0, 1, 2): os.close(fd)
                while True: time.sleep(0.05)
            os._exit(0)
        os.wait()
        print('ready')
        time.sleep(0.3)
        """
    )
    running.until(lambda event: isinstance(event, Output))
    processes = tree(running.created.pid)
    assert len(processes) >= 3
    report = fold(running.rest())

    assert report.ok
    assert report.usage.wall_seconds < 10
    assert not any(alive(pid) for pid in processes)


def test_grandchild_that_holds_stdout_does_not_hold_the_end(run):
    """A background process with the output pipe open ends with the payload; nobody waits for it."""
    report = run("sleep 60 &\necho started", lang="bash")

    assert (report.verdict, report.stdout) == ("OK", "started\n")
    assert report.usage.wall_seconds < 10


class TestInterrupt:
    """SIGINT first, two seconds later the end."""

    SLEEPER = """
        import container_magic as cm, sys
        for event in cm.stream(open(sys.argv[1]).read(), mem="200M"):
            print(type(event).__name__, event, flush=True)
        """

    def _interrupt(self, client_process, tmp_path, code, times=1, pause=0.3):
        path = tmp_path / "code.py"
        path.write_text(code)
        process = client_process(self.SLEEPER, str(path))
        for line in process.stdout:
            if line.startswith("Output") and "ready" in line:
                break
        time.sleep(0.2)
        begun = time.monotonic()
        for _ in range(times):
            process.send_signal(signal.SIGINT)
            time.sleep(pause)
        output, complaints = process.communicate(timeout=30)
        return output, complaints, time.monotonic() - begun, process.returncode

    def test_sigint_is_keyboard_interrupt_inside(self, client_process, tmp_path):
        """Ctrl-C in the client raises KeyboardInterrupt in the code, which may clean up; the client goes on."""
        code = "import time\nprint('ready')\ntry:\n    time.sleep(60)\nfinally:\n    print('cleaned up')\n"
        output, complaints, seconds, status = self._interrupt(client_process, tmp_path, code)

        assert status == 0, complaints
        assert "cleaned up" in output and "KeyboardInterrupt" in output
        assert "Interrupted(killed=False)" in output
        assert "Exited(exit_code=130" in output
        assert seconds < 15

    def test_code_that_ignores_sigint_is_killed_after_two_seconds(self, client_process, tmp_path):
        """What goes on after SIGINT is ended with its whole cgroup."""
        code = STUBBORN
        output, complaints, seconds, status = self._interrupt(client_process, tmp_path, code)

        assert status == 0, complaints
        assert "Interrupted(killed=True)" in output
        assert "exit_signal=9" in output
        assert 1.5 < seconds < 15

    def test_second_sigint_kills_at_once(self, client_process, tmp_path):
        """Who presses twice does not wait."""
        code = STUBBORN
        output, complaints, seconds, _status = self._interrupt(client_process, tmp_path, code, times=2, pause=0.1)

        assert "Interrupted(killed=True)" in output, complaints
        assert seconds < 1.9

    def test_code_that_catches_the_interrupt_and_ends_is_interrupted(self, client_process, tmp_path):
        """The verdict says that the user asked for the end, whatever the code makes of it."""
        code = "import time\nprint('ready')\ntry:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    print('fine')\n"
        output, complaints, _seconds, _status = self._interrupt(client_process, tmp_path, code)

        assert "Interrupted" in output and "exit_code=0" in output, complaints

    def test_shell_children_get_the_signal_too(self, client_process, tmp_path):
        """SIGINT goes to the payload's process group, as a terminal sends it."""
        code = "import subprocess\nprint('ready', flush=True)\nsubprocess.run(['sleep', '60'])\n"
        output, complaints, seconds, _status = self._interrupt(client_process, tmp_path, code)

        assert "killed=False" in output, complaints
        assert seconds < 15

    def test_interrupt_reaches_another_user(self):
        """Code that runs as a user of its own hears Ctrl-C as any other: KeyboardInterrupt, and no kill."""
        code = (
            # in one write: an interrupt may come as soon as the word is out
            "import time\ntry:\n    print('started\\n', end='')\n    time.sleep(30)\n"
            "except KeyboardInterrupt:\n    print('heard')"
        )
        with open_run(request_for(code, {"user": "65534", "net": "none"})) as running:
            builder = ReportBuilder()
            for event in running:
                builder.add(event)
                if isinstance(event, Output) and b"started" in event.data:
                    running.interrupt()
        report = builder.report()

        assert (report.verdict, report.stdout) == ("INTERRUPTED", "started\nheard\n")
        assert report.exit_signal is None

    def test_interrupt_verdict(self):
        """The report of an interrupted run says INTERRUPTED; the caller's handler is back after it."""
        before = signal.getsignal(signal.SIGINT)
        events = []
        for event in cm.stream("import time; print('ready', end=''); time.sleep(60)", mem="200M"):
            events.append(event)
            if isinstance(event, Output) and event.stream == "stdout":
                time.sleep(0.1)
                signal.raise_signal(signal.SIGINT)

        report = fold(events)
        assert report.verdict == "INTERRUPTED"
        assert any(isinstance(event, Interrupted) for event in events)
        assert any(isinstance(event, CodeError) and event.ename == "KeyboardInterrupt" for event in events)
        assert signal.getsignal(signal.SIGINT) is before

    def test_exception_in_the_consumer_ends_the_container(self):
        """An error of the code that reads the stream leaves no container behind."""
        seen = []

        def consume():
            for event in cm.stream("import time; time.sleep(60)", mem="200M"):
                seen.append(event)
                if isinstance(event, Started):
                    raise RuntimeError("mine")

        with pytest.raises(RuntimeError, match="mine"):
            consume()
        assert wait_until(lambda: traces(seen[0].container_id) == [])


class TestDeaths:
    """Somebody of the chain is killed."""

    CLIENT = """
        import container_magic as cm, json, sys
        from container_magic.events import Created, Started
        from container_magic.runtime import client
        for event in cm.stream(sys.argv[1], mem="200M"):
            if isinstance(event, Created):
                made = event
            if isinstance(event, Started):
                pids = [client._zygotes[()].process.pid, made.supervisor_pid, made.pid]
                print(json.dumps([*pids, made.container_id]), flush=True)
        """
    BUSY = "import os, time\nfor _ in range(3): os.fork()\nwhile True: time.sleep(0.05)"

    def _start(self, client_process):
        process = client_process(self.CLIENT, self.BUSY)
        zygote_pid, _supervisor_pid, _init_pid, container_id = json.loads(process.stdout.readline())
        time.sleep(0.2)
        return process, {zygote_pid, *tree(zygote_pid)}, container_id

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1, signal.SIGABRT])
    def test_client_killed_leaves_nothing(self, client_process, number):
        """When the client dies, its zygote, supervisor and container are gone within two seconds."""
        process, processes, container_id = self._start(client_process)
        assert len(processes) >= 5
        process.send_signal(number)
        process.wait(10)

        assert wait_until(lambda: not any(map(alive, processes))), [pid for pid in processes if alive(pid)]
        assert wait_until(lambda: traces(container_id) == []), traces(container_id)

    def test_client_that_exits_early_leaves_nothing(self, client_process):
        """os._exit without any clean-up in the client is as good as a kill."""
        process = client_process(
            self.CLIENT.replace("for event in", "import os\n        for event in") + "        os._exit(3)\n",
            "import time; time.sleep(0.1)",
        )
        process.communicate(timeout=20)

        assert process.returncode == 3

    def test_client_and_zygote_killed_together(self, client_process):
        """Both at once: the supervisor cleans up all the same."""
        process, processes, container_id = self._start(client_process)
        os.kill(min(processes), signal.SIGKILL)
        process.kill()
        process.wait(10)

        assert wait_until(lambda: not any(map(alive, processes)))
        assert wait_until(lambda: traces(container_id) == []), traces(container_id)

    def test_everybody_but_init_killed_is_swept_by_the_next(self, client_process, run):
        """Client, zygote and supervisor die at once: their processes die too, and the next start sweeps the rest."""
        process = client_process(self.CLIENT, self.BUSY)
        zygote_pid, supervisor_pid, _init_pid, container_id = json.loads(process.stdout.readline())
        processes = tree(zygote_pid)
        os.kill(supervisor_pid, signal.SIGKILL)
        os.kill(zygote_pid, signal.SIGKILL)
        process.kill()
        process.wait(10)

        assert wait_until(lambda: not any(map(alive, processes)))
        client.shutdown()
        assert run("print('next')").stdout == "next\n"
        assert traces(container_id) == []

    def _killed(self, live, run, who):
        running = live("import time\nprint('ready', end='')\nwhile True: time.sleep(0.05)")
        running.until(lambda event: isinstance(event, Output))
        victim, supervisor = who(running), running.created.supervisor_pid
        ends_all = victim in (supervisor, client._zygotes[()].process.pid)
        processes = tree(supervisor if ends_all else running.created.pid)  # it lives on, for the next container
        os.kill(victim, signal.SIGKILL)
        try:
            report = fold(running.rest())
        except cm.InternalError:
            report = None
        check_contract(running.seen)

        assert wait_until(lambda: not any(map(alive, processes)))
        assert wait_until(lambda: traces(running.created.container_id) == []), traces(running.created.container_id)
        assert run("print('next')").stdout == "next\n"
        return report

    def test_zygote_killed(self, live, run):
        """The zygote dies during a run: an internal error, nothing left, the next run starts another zygote."""
        report = self._killed(live, run, lambda running: client._zygotes[()].process.pid)

        assert report is None or report.verdict == "INTERNAL_ERROR"

    def test_supervisor_killed(self, live, run):
        """The supervisor dies: an internal error, its container is gone, the client sweeps what it left."""
        report = self._killed(live, run, lambda running: running.created.supervisor_pid)

        assert report is None or report.verdict == "INTERNAL_ERROR"
        if report is not None:
            assert "supervisor" in report.error.evalue
            assert report.stdout == "ready"

    def test_init_killed(self, live, run):
        """Init dies by a hand from outside: the run is SIGNALED, or an internal error, never OK."""
        report = self._killed(live, run, lambda running: running.created.pid)

        assert report is None or report.verdict in ("SIGNALED", "INTERNAL_ERROR")
        assert report is None or not report.ok

    def test_payload_killed(self, live, run):
        """The payload dies by a signal from outside: SIGNALED with that signal."""
        report = self._killed(
            live,
            run,
            lambda running: int(
                Path(f"/proc/{running.created.pid}/task/{running.created.pid}/children").read_text().split()[0]
            ),
        )

        assert (report.verdict, report.exit_signal) == ("SIGNALED", 9)
        assert not report.oom_killed

    def test_payload_that_kills_its_group_is_signalled(self, run):
        """kill(0) inside ends the code; kill(-1) reaches its children, neither init nor anybody outside."""
        assert run("import os; os.kill(0, 9)").exit_signal == 9
        report = run("import os, time\nif os.fork() == 0: time.sleep(60)\nos.kill(-1, 9); print(os.wait()[1])")
        assert (report.verdict, report.stdout) == ("OK", "9\n")

    def test_stopped_supervisor_does_not_hold_the_next_run(self, live, run):
        """A supervisor that somebody stopped harms its own container only."""
        running = live("import time; time.sleep(60)")
        os.kill(running.created.supervisor_pid, signal.SIGSTOP)
        try:
            assert run("print('next')").stdout == "next\n"
        finally:
            os.kill(running.created.supervisor_pid, signal.SIGCONT)

    def test_zygote_killed_between_runs(self, run):
        """A zygote that died unseen is replaced."""
        run("pass")
        first = client._zygotes[()].process.pid
        os.kill(first, signal.SIGKILL)
        time.sleep(0.1)

        assert run("print('next')").stdout == "next\n"
        assert client._zygotes[()].process.pid != first

    def test_waiting_supervisor_killed(self, run):
        """The supervisor that waits for the next run is killed: at most one run fails, with an internal error."""
        run("pass")
        time.sleep(0.2)
        zygote = client._zygotes[()].process.pid
        for pid in Path(f"/proc/{zygote}/task/{zygote}/children").read_text().split():
            os.kill(int(pid), signal.SIGKILL)
        time.sleep(0.1)
        with contextlib.suppress(cm.InternalError):
            assert run("print('next')").stdout == "next\n"

        assert run("print('next')").stdout == "next\n"


@pytest.mark.alone  # any other start on this host would sweep first what these tests leave
class TestSweep:
    """What a crash left is removed by the next start."""

    def _leave(self, processes=0):
        """Leave what a supervisor does that is killed: all of it is there when its lock is free, for whoever sweeps."""
        container_id = secrets.token_hex(32)
        runtime_fd = os.open(runtime_directory(), os.O_RDONLY | os.O_DIRECTORY)
        state = StateDirectory(runtime_fd, container_id)
        state.write({"id": container_id, "status": "running", "supervisor_pid": 4194300})
        sleepers = [subprocess.Popen(["sleep", "60"]) for _ in range(processes)]
        groups = {Path(base, f"container_magic-{container_id}"): base for base in probe().bases.values()}
        state.write_cgroups([str(group) for group in groups])
        for group, base in groups.items():
            group.mkdir()
            if sleepers and base == probe().bases.get("memory"):
                for sleeper in sleepers:
                    (group / "cgroup.procs").write_text(str(sleeper.pid))
        os.close(state.fileno())
        os.close(runtime_fd)
        return container_id, sleepers

    @pytest.mark.root
    def test_stale_state_and_cgroup_are_swept(self, run):
        """A state directory without a lock, and its cgroups, are removed when the next zygote starts."""
        container_id, _ = self._leave()
        assert traces(container_id)
        client.shutdown()
        run("pass")

        assert traces(container_id) == []

    @pytest.mark.root
    def test_processes_of_a_stale_container_are_killed(self, run):
        """What still runs in a stale cgroup is killed."""
        if "memory" not in probe().bases:
            pytest.skip("no memory controller")
        container_id, sleepers = self._leave(processes=2)
        client.shutdown()
        run("pass")

        assert [sleeper.wait(5) for sleeper in sleepers] == [-signal.SIGKILL] * 2
        assert traces(container_id) == []

    @pytest.mark.root
    @pytest.mark.cgroup_v1
    def test_container_of_another_cgroup_is_swept(self, client_process, run):
        """A client in another cgroup than ours died with all its processes: our start removes its groups, wherever."""
        if "memory" not in probe().bases:
            pytest.skip("no memory controller")
        other = Path(probe().bases["memory"], f"container_magic_test_{os.getpid()}")
        other.mkdir()
        try:
            source = f"open({str(other / 'cgroup.procs')!r}, 'w').write('0')\n" + textwrap.dedent(TestDeaths.CLIENT)
            process = client_process(source, TestDeaths.BUSY)
            zygote_pid, supervisor_pid, _, container_id = json.loads(process.stdout.readline())
            processes = tree(zygote_pid)
            for pid in (process.pid, supervisor_pid, zygote_pid):
                os.kill(pid, signal.SIGKILL)
            process.wait(10)
            assert wait_until(lambda: not any(map(alive, processes)))
            assert (other / f"container_magic-{container_id}").exists()
            client.shutdown()
            run("pass")

            assert [path.name for path in other.iterdir() if path.is_dir()] == []
            assert traces(container_id) == []
        finally:
            for path in [*other.glob("*/"), other]:
                path.rmdir()

    def test_foreign_files_are_left_alone(self, run):
        """A file or a link in the runtime directory is not followed and not removed."""
        directory = Path(runtime_directory())
        stray, link = directory / "stray-file", directory / "stray-link"
        stray.write_text("x")
        link.symlink_to("/etc")
        try:
            client.shutdown()
            assert run("print(1)").ok
            assert stray.read_text() == "x"
            assert os.path.exists("/etc/passwd")
        finally:
            stray.unlink()
            link.unlink()

    def test_running_containers_are_not_swept(self, live, client_process):
        """Another client's start sweeps the dead and leaves the living."""
        running = live("import time; time.sleep(60)")
        other = client_process("import container_magic as cm; print(cm.run('print(1)', mem='200M').stdout)")
        output, complaints = other.communicate(timeout=60)

        assert output == "1\n\n", complaints
        assert alive(running.created.pid)
        assert (Path(runtime_directory()) / running.created.container_id).exists()

    def test_containers_that_are_being_made_are_not_swept(self, run):
        """Sweeps in a tight loop beside many starts never take a living container."""
        stop = threading.Event()
        swept: list[str] = []
        zygote = client.zygote()

        def sweep():
            while not stop.is_set():
                swept.extend(zygote.sweep())

        sweeper = threading.Thread(target=sweep)
        sweeper.start()
        reports: list[cm.RunReport] = []
        try:
            workers = [
                threading.Thread(target=lambda: reports.extend(run("print(1)") for _ in range(8))) for _ in range(4)
            ]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
        finally:
            stop.set()
            sweeper.join()

        assert [report.verdict for report in reports] == ["OK"] * 32
        assert not {report.container_id for report in reports} & set(swept)


def test_fork_of_the_client_uses_a_zygote_of_its_own(client_process):
    """A client that forks: the child does not use, and at its end does not stop, its parent's zygote."""
    process = client_process(
        """
        import os, sys, container_magic as cm
        print(cm.run("print('parent')", mem="200M").stdout, end='', flush=True)
        pid = os.fork()
        if pid == 0:
            print(cm.run("print('child')", mem="200M").stdout, end='', flush=True)
            sys.exit()
        os.waitpid(pid, 0)
        print(cm.run("print('parent again')", mem="200M").stdout, end='', flush=True)
        """
    )
    output, complaints = process.communicate(timeout=60)

    assert output == "parent\nchild\nparent again\n", complaints


def test_run_from_another_thread_can_be_interrupted_by_nobody(run):
    """A run in a worker thread works and leaves the process's signal handlers alone."""
    before = signal.getsignal(signal.SIGINT)
    reports: list[cm.RunReport] = []
    thread = threading.Thread(target=lambda: reports.append(run("print('thread')")))
    thread.start()
    thread.join()

    assert reports[0].stdout == "thread\n"
    assert signal.getsignal(signal.SIGINT) is before
