"""Containers for tests, and the check that nothing of them is left: processes, mounts, cgroups, state, interfaces."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import container_magic as cm
from container_magic.cgroups.facts import probe
from container_magic.events import Created, Event, Started
from container_magic.options import from_keywords
from container_magic.runtime import client
from container_magic.runtime.sweep import runtime_directory
from container_magic.verbs.run import dry_run

# without a memory controller of its own an ordinary user has only what best effort gives
DEFAULTS: dict[str, Any] = {
    "timeout": "60s",
    "warm": 1,  # the pool is on; more than one would only take time from the next test
    **({"mem": "256M"} if "memory" in probe().controllers else {"best_effort": True}),
}
PATIENCE_SECONDS = 20.0
_PR_SET_CHILD_SUBREAPER = 36


@pytest.fixture(scope="session", autouse=True)
def adopt_orphans() -> Iterator[None]:
    """Become the parent of whatever loses its own, so that every process of a test can be found from here."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    yield
    client.shutdown()
    left = _wait_until_gone(lambda: {f"process {pid}: {text}" for pid, text in descendants().items()})
    assert not left, f"left behind by the session: {sorted(left)}"


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a process, mount, cgroup, state directory or interface; others of this host may go on."""
    before = _present()
    yield
    left = _wait_until_gone(lambda: _present() - before)
    assert not left, "left behind:\n" + "\n".join(sorted(left))


def _wait_until_gone(look: Callable[[], set[str]]) -> set[str]:
    """Return what ``look`` saw every time until the patience was over: what comes and goes belongs to others."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    left = look()
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        left &= look()
    return left


def _present() -> set[str]:
    foreign = _foreign_containers() | {created.container_id for created in waiting()}
    standing = _standing()
    found = {f"process {pid}: {text}" for pid, text in descendants().items() if pid not in standing}
    found |= {f"mount {line}" for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    found |= {f"interface {name}" for _, name in socket.if_nameindex()}
    found |= {f"state {path}" for path in state_directories() if path.name not in foreign}
    found |= {f"cgroup {path}" for path in cgroup_directories() if path.name.partition("-")[2] not in foreign}
    return found


def zygote_pid() -> int:
    """Return the process id of this process's zygote, 0 when there is none."""
    return client._zygotes[()].process.pid if () in client._zygotes else 0


def waiting() -> list[Created]:
    """Return the containers that wait in this process's pools."""
    for zygote in client._zygotes.values():
        zygote.pool.tend()
    workers = [worker for zygote in client._zygotes.values() for worker in zygote.pool.workers()]
    return [worker.created for worker in workers if worker.created is not None]


def _standing() -> set[int]:
    """Return what stays from run to run: zygotes, the supervisor that each has forked ahead, pools, and children."""
    zygotes = [zygote.process.pid for zygote in client._zygotes.values()]
    pooled = [created.supervisor_pid for created in waiting()]
    standing = {*zygotes, *pooled}
    for pid in zygotes:
        spares = [child for child in children(pid) if child not in pooled and not _has_state(child)]
        standing |= {*spares[-1:], *(child for spare in spares[-1:] for child in children(spare))}
    for supervisor in pooled:
        for init in children(supervisor):
            standing |= {init, *children(init)}
    return standing


def children(pid: int) -> list[int]:
    """Return the children of a process with one thread."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _has_state(supervisor_pid: int) -> bool:
    for path in state_directories():
        with contextlib.suppress(OSError, ValueError, KeyError):
            if json.loads((path / "state.json").read_text())["supervisor_pid"] == supervisor_pid:
                return True
    return False


def descendants() -> dict[int, str]:
    """Return pid -> command line of every living descendant; the dead ones that were adopted are reaped."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError, IndexError):
            pid = int(entry.name)
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            parents[pid] = int(fields[1])
            if fields[0] == "Z" and parents[pid] == os.getpid() and pid != zygote_pid():
                os.waitpid(pid, os.WNOHANG)
                del parents[pid]
    found = {}
    for pid in parents:
        ancestor = pid
        while ancestor in parents and ancestor != os.getpid():
            ancestor = parents[ancestor]
        if ancestor == os.getpid() and pid != os.getpid():
            found[pid] = _command(pid)
    return found


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ")[:200]
    except OSError:
        return ""


def state_directories() -> list[Path]:
    """Return the state directories of all containers of this user."""
    return list(runtime_directory().iterdir())


def cgroup_directories() -> list[Path]:
    """Return the containers' groups below this process's bases; tests of cgroups alone use names of other kinds."""
    bases = {Path(base) for base in probe().bases.values()}
    return [path for base in bases for path in base.glob("container_magic-*") if len(path.name.partition("-")[2]) == 64]


def _foreign_containers() -> set[str]:
    """Return the ids of running containers whose supervisors are no descendants of this process."""
    own, foreign = descendants(), set()
    for path in state_directories():
        with contextlib.suppress(OSError, ValueError, KeyError):
            state = json.loads((path / "state.json").read_text())
            if state["supervisor_pid"] not in own and is_locked(path):
                foreign.add(path.name)
    return foreign


def is_locked(path: Path) -> bool:
    """Return whether a supervisor holds the lock of the state directory ``path``."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


@pytest.fixture
def run() -> Callable[..., cm.RunReport]:
    """Return ``cm.run`` for indented source, with a memory limit and a time limit unless others are given."""

    def run(source: Any, **options: Any) -> cm.RunReport:
        return cm.run(_source(source), **{**DEFAULTS, **options})

    return run


@pytest.fixture
def inside(run: Callable[..., cm.RunReport]) -> Callable[..., Any]:
    """Return a function that runs code in a container and returns what it hands to ``answer(...)``, through JSON."""

    def inside(source: str, **options: Any) -> Any:
        report = run("import json as _json\n_answer = {}\n" + textwrap.dedent(_HELPERS) + _source(source), **options)
        assert report.ok, f"{report.verdict}: {report.stderr or report.error}"
        return json.loads(report.stdout.rsplit("\x1e", 1)[1])

    return inside


_HELPERS = '''
import errno as _errno
def answer(value):
    print("\\x1e" + _json.dumps(value))
def error_of(function, *args, **keywords):
    """Return the errno name of the OSError that the call raises, None when it succeeds."""
    try:
        function(*args, **keywords)
    except OSError as error:
        return _errno.errorcode.get(error.errno, str(error.errno))
    return None
'''


def _source(source: Any) -> Any:
    return textwrap.dedent(source) if isinstance(source, str) else source


@pytest.fixture
def needs() -> Callable[..., None]:
    """Return a function that skips the test when this host cannot enforce the given options."""

    def needs(**options: Any) -> None:
        try:
            dry_run(from_keywords(options).spec)
        except cm.HostError as error:
            pytest.skip(str(error))

    return needs


@dataclass
class Live:
    """A container that runs: its events so far and those to come."""

    iterator: Iterator[Event]
    created: Created
    seen: list[Event]

    def rest(self) -> list[Event]:
        """Return all events once it has ended."""
        self.seen += self.iterator
        return self.seen

    def until(self, wanted: Callable[[Event], bool]) -> Event:
        """Return the next event that is ``wanted``."""
        for event in self.iterator:
            self.seen.append(event)
            if wanted(event):
                return event
        raise AssertionError(f"never came: {self.seen}")


@pytest.fixture
def live() -> Iterator[Callable[..., Live]]:
    """Return a function that starts a container and returns once its code runs; it is ended after the test."""
    opened: list[Iterator[Event]] = []

    def live(source: Any, **options: Any) -> Live:
        iterator = cm.stream(_source(source), **{**DEFAULTS, **options})
        opened.append(iterator)
        seen: list[Event] = []
        for event in iterator:
            seen.append(event)
            if isinstance(event, Started):
                break
        created = next(event for event in seen if isinstance(event, Created))
        return Live(iterator=iterator, created=created, seen=seen)

    yield live
    for iterator in opened:
        iterator.close()  # type: ignore[attr-defined]


@pytest.fixture
def client_process(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Return a function that starts a Python process of its own which uses the package; killed after the test."""
    started: list[subprocess.Popen[str]] = []

    def client_process(source: str, *args: str, **keywords: Any) -> subprocess.Popen[str]:
        path = tmp_path / f"client{len(started)}.py"
        path.write_text(textwrap.dedent(source))
        keywords = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **keywords}
        process = subprocess.Popen([sys.executable, "-u", path, *args], env=dict(os.environ), **keywords)
        started.append(process)
        return process

    yield client_process
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.communicate()


@pytest.fixture
def contain() -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """Return a function that runs ``contain`` with words and returns the finished process, output as bytes."""

    def contain(*words: Any, **keywords: Any) -> subprocess.CompletedProcess[bytes]:
        keywords = {"stdin": subprocess.DEVNULL} | keywords if "input" not in keywords else keywords
        command = [sys.executable, "-m", "container_magic", *map(os.fspath, words)]
        return subprocess.run(command, capture_output=True, timeout=100, check=False, **keywords)

    return contain
