"""What comes from a payload, in the order that was meant, whenever the client looks."""

import os
import select

import pytest

from container_magic.events import CodeError, Displayed, LimitReached, Output
from container_magic.process.channel import LENGTHS
from container_magic.runtime.ends import new_ends
from container_magic.runtime.intake import Intake

HEADER = b'{"op":"display","seq":1,"parts":[["text/plain","text",1]]}'
FRAME = LENGTHS.pack(len(HEADER), 1) + HEADER + b"x"


@pytest.fixture
def payload():
    """Return an intake, its poll, the payload's ends (stdout, stderr, channel), and how often the run was ended."""
    ended = []
    with select.epoll() as poll:
        intake = Intake(
            poll,
            8 << 20,
            end_run=lambda: ended.append(True),
            cell_begun=lambda: None,
            cell_over=lambda code: None,
            overhear=lambda *written: None,
        )
        ends = new_ends()
        far_ends = ends.pipes[0][1], ends.pipes[1][1], ends.channel[1].fileno()
        intake.open(ends, "safe")
        yield intake, poll, far_ends, ended
        intake.close()


def test_all_that_was_written_before_a_display_stands_before_it(payload):
    """More than one read brings, on both pipes."""
    intake, poll, (out, err, channel), _ = payload
    for fd in (out, err):
        os.set_blocking(fd, False)
        assert os.write(fd, b"o" * 900_000) == 900_000
    os.write(channel, FRAME)
    intake.listen()
    (ready,) = [fd for fd, _ in poll.poll(0) if intake.rank(fd) == 1]
    *before, shown = intake.take(ready)
    assert isinstance(shown, Displayed)
    assert sum(len(event.data) for event in before if isinstance(event, Output)) == 1_800_000


def test_pipes_come_before_the_channel_and_that_before_the_rest(payload):
    """The rank says it."""
    intake, poll, (out, _, channel), _ = payload
    intake.listen()
    os.write(out, b"x")
    os.write(channel, FRAME)
    assert sorted(intake.rank(fd) for fd, _ in poll.poll(0)) == [0, 1]
    assert intake.rank(out) == 2


def test_what_is_no_frame_ends_the_run_once_and_is_said_at_the_end(payload):
    """The error comes after all else, with the limit that the verdict rests on."""
    intake, poll, (out, _, channel), ended = payload
    intake.listen()
    os.write(channel, b"\xff" * 100)
    (fd,) = [fd for fd, _ in poll.poll(0)]
    assert list(intake.take(fd)) == []
    assert ended == [True]
    os.write(out, b"last")
    output, error, limit = intake.drain()
    assert (output, limit) == (Output(stream="stdout", data=b"last"), LimitReached(limit="output"))
    assert (type(error), error.ename) == (CodeError, "ChannelError")


def test_frames_that_nobody_looked_at_are_in_the_rest(payload):
    """A display just before the end is not lost."""
    intake, _, (_, _, channel), _ = payload
    intake.listen()
    os.write(channel, FRAME * 3)
    assert [event.data for event in intake.drain()] == [{"text/plain": "x"}] * 3


def test_script_has_no_channel():
    """Of the channel nothing is loaded or stays open."""
    with select.epoll() as poll:
        intake = Intake(
            poll,
            100,
            end_run=lambda: None,
            cell_begun=lambda: None,
            cell_over=lambda code: None,
            overhear=lambda *written: None,
        )
        ends = new_ends()
        intake.open(ends, None)
        assert ends.channel[0].fileno() < 0
        intake.close()
