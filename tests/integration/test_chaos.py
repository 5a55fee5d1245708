"""Chaos: every process of the chain is killed at random moments, hundreds of times, and nothing stays or hangs.

``CONTAINER_MAGIC_CHAOS`` multiplies the number of kills (default 1), ``CONTAINER_MAGIC_CHAOS_SEED`` chooses another
sequence. What is left behind is looked for by the fixtures of ``conftest.py`` after each test.
"""

from __future__ import annotations

import contextlib
import os
import queue
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from leftovers import descendants, is_locked, state_directories

from container_magic.cgroups import prepare as prepare_module
from container_magic.cgroups.facts import probe
from container_magic.runtime import client

pytestmark = [pytest.mark.alone, pytest.mark.slow, pytest.mark.timeout(600)]

SCALE = float(os.environ.get("CONTAINER_MAGIC_CHAOS", "1"))
SEED = int(os.environ.get("CONTAINER_MAGIC_CHAOS_SEED", "20240229"))
PATIENCE_SECONDS = 40.0
ROLES = ("zygote", "supervisor", "init", "payload")
# a victim's own end, or what is said of it; RUNTIME_ERROR and MEMORY_LIMIT would be lies
ALLOWED = {"OK", "SIGNALED", "INTERNAL_ERROR", "InternalError", "HostError"}

DRIVER = """
import os, random, sys, threading
import container_magic as cm
SOURCES = [
    "pass",
    "import time; time.sleep(0.05)",
    "print('x' * 200000)",
    "import os\\nfor _ in range(5):\\n    if os.fork() == 0: os.setsid(); os.execvp('sleep', ['sleep', '60'])",
    "import os, time\\nos.fork(); os.fork(); time.sleep(0.03)",
    "open('/tmp/x', 'wb').write(b'x' * 5000000)",
]
stop = threading.Event()

def once(rng):
    try:
        return cm.run(rng.choice(SOURCES), mem="64M", timeout="30s").verdict
    except cm.ContainError as error:
        return type(error).__name__

def work(number):
    rng = random.Random(f"{sys.argv[2]} {number}")
    while not stop.is_set():
        os.write(1, once(rng).encode() + b"\\n")

threads = [threading.Thread(target=work, args=(number,)) for number in range(int(sys.argv[1]))]
for thread in threads:
    thread.start()
sys.stdin.read()
stop.set()
for thread in threads:
    thread.join()
for _ in range(3):
    os.write(1, f"last {once(random.Random(0))}\\n".encode())
"""


def tree(root: int) -> dict[str, list[int]]:
    """Return the living processes below the client ``root``, by role: one generation each."""
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = Path(f"/proc/{int(entry)}/stat").read_text().rpartition(")")[2].split()
            if fields[0] != "Z":
                parents[int(entry)] = int(fields[1])
    found: dict[str, list[int]] = {}
    generation = [root]
    for role in ROLES:
        generation = [pid for pid, parent in parents.items() if parent in generation]
        found[role] = generation
    return found


def kill(pid: int, root: int) -> bool:
    """SIGKILL ``pid`` if it is, still, a descendant of ``root``."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        # looked at once more, now that the number cannot be given to somebody else
        if any(pid in pids for pids in tree(root).values()):
            signal.pidfd_send_signal(fd, signal.SIGKILL)
            return True
    except OSError:
        return False
    finally:
        os.close(fd)
    return False


class Driver:
    """A client process that runs containers without pause and says a word for each."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.words: Counter[str] = Counter()
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def close(self) -> None:
        """End it, whatever it does, and close its pipes."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join(5)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]

    def _read(self) -> None:
        with contextlib.suppress(ValueError, OSError):
            for line in self.process.stdout:  # type: ignore[union-attr]
                self._lines.put(line.strip())

    def progress(self) -> None:
        """Wait until a run has come to its end since the last look."""
        try:
            self.words[self._lines.get(timeout=PATIENCE_SECONDS)] += 1
        except queue.Empty:
            shown = {pid: text for pid, text in descendants().items() if text}
            pytest.fail(f"hung: no run has ended for {PATIENCE_SECONDS} s; {self.words}; alive: {shown}")
        self.drain()

    def drain(self) -> None:
        """Take what has been said."""
        with contextlib.suppress(queue.Empty):
            while True:
                self.words[self._lines.get_nowait()] += 1

    def finish(self) -> None:
        """Let it end: the runs that are under way come to their ends, and three more are as if nothing had been."""
        self.process.stdin.close()  # type: ignore[union-attr]
        try:
            code = self.process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            pytest.fail(f"hung: the client does not end; {self.words}; alive: {descendants()}")
        errors = self.process.stderr.read()  # type: ignore[union-attr]
        self._reader.join(5)
        self.drain()
        assert (code, errors) == (0, "")
        assert self.words.pop("last OK") == 3
        assert set(self.words) <= ALLOWED, self.words


@pytest.fixture
def start() -> Iterator[Callable[[int, object], Driver]]:
    """Return a function that starts a client with so many threads; it is ended after the test."""
    started: list[Driver] = []

    def start(threads: int, seed: object) -> Driver:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen([sys.executable, "-c", DRIVER, str(threads), str(seed)], text=True, **pipes)
        started.append(Driver(process))
        return started[-1]

    yield start
    for running in started:
        running.close()


@pytest.fixture(autouse=True)
def swept(contain, monkeypatch):
    """After the chaos one ordinary command: it sweeps what the dead have left, and then no state is there."""
    yield
    done = contain("run", "--quiet", "-c", "print('swept')")
    assert (done.stdout, done.returncode) == (b"swept\n", 0), done.stderr
    # a locked one has a living supervisor: it belongs to somebody else, for ours are dead
    deadline = time.monotonic() + 2
    while (left := [path for path in state_directories() if not _is_locked(path)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left
    # a client that was killed while it looked at the host leaves an empty group, until somebody looks again later
    monkeypatch.setattr(prepare_module, "_OLD_SECONDS", -1.0)
    prepare_module.prepare(facts := probe())
    assert [path for base in facts.bases.values() for path in Path(base).glob("container_magic-probe-*")] == []


def _is_locked(path: Path) -> bool:
    try:
        return is_locked(path)
    except FileNotFoundError:  # gone meanwhile
        return True


def _strike(running: Driver, rng: random.Random, role: str) -> bool:
    time.sleep(rng.choice((0, rng.uniform(0, 0.004), rng.uniform(0, 0.03), rng.uniform(0, 0.12))))
    victims = tree(running.process.pid)[role]
    return bool(victims) and kill(rng.choice(victims), running.process.pid)


@pytest.mark.parametrize("role", ROLES)
def test_one_after_the_other(start, role):
    """Runs in a row while processes of one role die: in set-up, while the code runs, in clean-up, and waiting."""
    rng = random.Random(f"{SEED} {role}")
    running = start(1, f"{SEED} {role}")
    running.progress()
    wanted = round((30 if role in ("supervisor", "init") else 15) * SCALE)
    killed = 0
    deadline = time.monotonic() + PATIENCE_SECONDS * max(1, SCALE)
    while killed < wanted and time.monotonic() < deadline:
        if _strike(running, rng, role):
            killed += 1
            running.progress()
    running.finish()

    assert killed >= wanted // 3  # a slow machine gets through fewer in the same time


def test_twenty_at_once(start):
    """Twenty threads of one client, processes of every role dying under them."""
    rng = random.Random(f"{SEED} twenty")
    running = start(20, f"{SEED} twenty")
    running.progress()
    wanted = round(90 * SCALE)
    killed: Counter[str] = Counter()
    deadline = time.monotonic() + 30 * max(1, SCALE)
    while sum(killed.values()) < wanted and time.monotonic() < deadline:
        # a zygote takes all twenty along: seldom, so that there is something to be killed, but surely
        role = rng.choices(ROLES, (1, 12, 12, 24))[0] if killed["zygote"] or sum(killed.values()) < 10 else "zygote"
        if _strike(running, rng, role):
            killed[role] += 1
            running.progress()
    running.finish()

    assert sum(killed.values()) >= wanted // 3  # a slow machine gets through fewer in the same time
    assert set(killed) == set(ROLES)


@pytest.mark.parametrize("threads", [1, 6])
def test_clients_die(start, threads):
    """Clients die at any moment of their lives, alone or together with any of their processes; all of it goes."""
    rng = random.Random(f"{SEED} clients {threads}")
    client.shutdown()  # a zygote of this process's own, left by other tests, would be among the descendants
    for number in range(round((14 if threads == 1 else 6) * SCALE)):
        running = start(threads, f"{SEED} {number}")
        time.sleep(rng.uniform(0.05, 1.2))
        root = running.process.pid
        below = [pid for pids in tree(root).values() for pid in pids]
        for pid in rng.sample(below, rng.choice((0, 0, len(below) // 2, len(below)))):
            kill(pid, root)
        running.close()
        # with the client gone its zygote, supervisors and containers go by themselves, within moments
        deadline = time.monotonic() + 5
        while (left := descendants()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not left, f"outlived its client: {left}"
