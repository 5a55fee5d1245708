"""The launcher before it has a container: whose kernel it is."""

import os
import select
import subprocess
import sys

import pytest

from container_magic.errors import StateError
from container_magic.kernel import launcher


@pytest.mark.parametrize("wanted", ["", "1"])
def test_nobody_is_watched_where_nobody_says_who_wants_the_kernel(monkeypatch, wanted):
    """As in ipykernel, 1 says so too."""
    monkeypatch.setenv("JPY_PARENT_PID", wanted)
    assert launcher._parent() is None


def test_parent_of_another_pid_namespace_is_not_watched(monkeypatch):
    """The first process of a container has no parent that it could name."""
    monkeypatch.setenv("JPY_PARENT_PID", "4711")
    monkeypatch.setattr(os, "getppid", lambda: 0)
    assert launcher._parent() is None


def test_parent_that_is_gone_wants_no_kernel(monkeypatch):
    """Its child was given to process 1, and would live for ever."""
    monkeypatch.setenv("JPY_PARENT_PID", "4711")
    monkeypatch.setattr(os, "getppid", lambda: 1)
    with pytest.raises(StateError, match="process 4711"):
        launcher._parent()


def test_end_of_the_parent_is_told(monkeypatch):
    """The descriptor becomes readable then and not before."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as parent:
        monkeypatch.setenv("JPY_PARENT_PID", str(parent.pid))
        monkeypatch.setattr(os, "getppid", lambda: parent.pid)
        watched = launcher._parent()
        assert select.select([watched], [], [], 0)[0] == []
        parent.stdin.close()
        assert select.select([watched], [], [], 10)[0] == [watched]
        os.close(watched)
