"""Who has a CPU first: a policy of ours where nobody has chosen one, given back at the end."""

import os
import subprocess
import sys

import pytest

from container_magic.linux import scheduling
from container_magic.process import channel

_OTHER, _BATCH = str(os.SCHED_OTHER), str(os.SCHED_BATCH)


def told(code):
    """Return the words that ``code`` prints in a process of its own, whose policy it may change."""
    head = "import os\nfrom container_magic.linux.scheduling import *\nfrom container_magic.process import channel\n"
    tail = "policy = lambda: os.sched_getscheduler(0)\n"
    return subprocess.run(
        [sys.executable, "-c", head + tail + code], check=True, capture_output=True, text=True
    ).stdout.split()


def test_block_yields_and_gives_back():
    """The policy is as before behind it."""
    assert told("with yielding(): print(policy())\nprint(policy())") == [_BATCH, _OTHER]


def test_block_within_another_leaves_the_end_to_that():
    """Only who has changed it gives it back."""
    assert told("with yielding():\n with yielding(): pass\n print(policy())\nprint(policy())") == [_BATCH, _OTHER]


def test_policy_that_somebody_has_chosen_is_left():
    """``chrt --idle 0 jupyter lab`` means what it starts, too."""
    code = "os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))\nprint(yield_when_woken(), policy())"

    assert told(code) == ["False", str(os.SCHED_IDLE)]


def test_refusal_of_the_kernel_is_no_error(monkeypatch):
    """A filter around everything is none of this process's making, and cannot be taken off again."""

    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refuse)

    with scheduling.yielding():
        assert os.sched_getscheduler(0) == os.SCHED_OTHER


@pytest.mark.parametrize("way", ["the real one", "a rehearsal"])
def test_farewell_yields_and_its_rehearsal_leaves_no_trace(way):
    """Who says farewell is killed next; who rehearses lives on."""
    real = (
        "import socket\nnear, far = socket.socketpair()\nfar.close()\nchannel.Channel(near.detach()).say_farewell()\n"
    )
    code = real if way == "the real one" else "channel.rehearse()\n"

    assert told(code + "print(policy())") == [_BATCH if way == "the real one" else _OTHER]


def test_rehearsal_of_a_farewell_closes_what_it_opens():
    """No descriptor more."""
    before = os.listdir("/proc/self/fd")
    channel.rehearse()

    assert os.listdir("/proc/self/fd") == before
