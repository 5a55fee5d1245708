"""Locks of modules in a process that forks while another thread holds them."""

import os
import signal
import threading
import time

import pytest

from container_magic import deferred
from container_magic.forks import hold_at_fork, importing
from container_magic.runtime import pool

SECONDS = 10
# Python 3.12 says that a fork of a process with threads is dangerous, which is what this is about
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


def exit_code_of_child(does):
    """Fork, have the child do something, and return its exit code; -14 where that took too long."""
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(SECONDS)
        try:
            does()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.fixture
def hold():
    """Return a function that has another thread hold a lock until a moment after this one has begun to fork."""
    threads = []

    def hold(lock):
        held, over = threading.Event(), threading.Event()

        def work():
            with lock:
                held.set()
                over.wait(0.2)

        threads.append(threading.Thread(target=work))
        threads[-1].start()
        held.wait()

    yield hold
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("lock", [deferred._lock, pool._numbering, importing], ids=["class", "spec", "import"])
def test_lock_that_another_thread_holds_is_free_in_a_child(hold, lock):
    """The fork waits for it."""

    def take():
        with lock:
            pass

    hold(lock)
    assert exit_code_of_child(take) == 0
    take()


def test_lock_that_becomes_known_while_a_fork_waits_is_free_in_the_child():
    """A thread that imports makes a lock known, and takes it, before the fork may begin."""
    lock, held, over = threading.Lock(), threading.Event(), threading.Event()

    def work():
        with importing:
            held.set()
            time.sleep(0.2)  # the fork waits by now
            hold_at_fork(lock)
            lock.acquire()
        over.wait(0.2)
        lock.release()

    thread = threading.Thread(target=work)
    thread.start()
    held.wait()

    def take():
        with lock:
            pass

    assert exit_code_of_child(take) == 0
    thread.join()
    take()


def test_thread_that_forks_keeps_no_lock():
    """Other threads get it, here and there."""
    lock = threading.RLock()
    hold_at_fork(lock)

    def taken_elsewhere():
        got = []

        def take():
            if lock.acquire(timeout=SECONDS):
                got.append(lock)
                lock.release()  # which every later fork of this process takes, too

        thread = threading.Thread(target=take)
        thread.start()
        thread.join()
        assert got

    assert exit_code_of_child(taken_elsewhere) == 0
    taken_elsewhere()
