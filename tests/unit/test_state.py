"""Locks of directories."""

import fcntl
import os
import signal

import pytest

from container_magic.runtime.state import locked


@pytest.fixture
def directory(tmp_path):
    """Return a descriptor of a directory."""
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def test_lock_is_not_kept_by_who_was_forked_meanwhile(directory):
    """The process that a notebook forks while another thread holds the lock has its descriptor too, for good."""
    with locked(directory, fcntl.LOCK_EX):
        pid = os.fork()
        if pid == 0:
            signal.pause()
    try:
        own_fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=directory)
        fcntl.flock(own_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError where somebody has it
        os.close(own_fd)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_lock_keeps_others_out(directory):
    """As long as it is held."""
    own_fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=directory)
    with locked(directory, fcntl.LOCK_EX), pytest.raises(BlockingIOError):
        fcntl.flock(own_fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    fcntl.flock(own_fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    os.close(own_fd)
