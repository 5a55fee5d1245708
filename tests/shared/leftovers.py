"""The check that nothing of a container is left: processes, mounts, cgroups, state, interfaces."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from container_magic.cgroups.facts import probe
from container_magic.events import Created
from container_magic.runtime import client
from container_magic.runtime.sweep import runtime_directory

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
    foreign = _foreign_containers() | {created.container_id for created in waiting()} | made_ahead()
    standing = _standing()
    found = {f"process {pid}: {text}" for pid, text in descendants().items() if pid not in standing}
    found |= {f"mount {line}" for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    found |= {f"interface {name}" for _, name in socket.if_nameindex()}
    found |= {f"state {path}" for path in state_directories() if path.name not in foreign}
    found |= {f"cgroup {path}" for path in cgroup_directories() if path.name.partition("-")[2] not in foreign}
    return found


def made_ahead() -> set[str]:
    """Return the ids that supervisors hold who have no container yet."""
    held = set()
    for path in state_directories():
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if not (path / "state.json").exists() and is_locked(path):
                held.add(path.name)
    return held


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
        standing |= set(spares[-1:])
        pooled += spares[-1:]
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
    return list(Path(runtime_directory()).iterdir())


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
