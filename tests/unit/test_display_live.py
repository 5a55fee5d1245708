"""The line of a long run: what it says and when, in a terminal and in a cell."""

import os
import pty

import pytest

from container_magic.display import cell as cell_module
from container_magic.display.cell import MOST_CHARACTERS, CellLine
from container_magic.display.live import Progress, Screen
from container_magic.events import Created, Limit, Sampled, Started

MIB = 1024**2


class Clock:
    """A clock that is set."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        """Return the time."""
        return self.now


def started(clock):
    """Return the progress of a run whose code has just been started."""
    progress = Progress(clock)
    progress.add(Started())
    return progress


@pytest.fixture
def clock():
    """Return a clock."""
    return Clock()


def test_line_comes_after_two_seconds_and_not_more_often_than_every_half(clock):
    """Short runs have none."""
    progress = started(clock)
    said = []
    for tenth in range(31):
        clock.now = 100 + tenth / 10
        said.append(progress.due())
    assert [number for number, text in enumerate(said) if text] == [20, 25, 30]
    assert said[20] == "running  2.0 s"


def test_time_counts_from_the_start_of_the_code(clock):
    """A zygote that takes long to start is no long run."""
    progress = Progress(clock)
    clock.now += 60
    assert progress.due() == ""
    progress.add(Started())
    clock.now += 1.9
    assert progress.due() == ""
    clock.now += 0.1
    assert progress.due() == "running  2.0 s"


def test_line_has_cpus_and_memory_of_the_limit(clock):
    """From the last two samples; what is unknown is left out."""
    progress = started(clock)
    progress.add(Created(container_id="c", limits=(Limit(name="memory", value=200 * MIB, by="x"),)))
    progress.add(Sampled(time=1.0, cpu_seconds=0.5, memory_bytes=10 * MIB))
    progress.add(Sampled(time=2.0, cpu_seconds=1.0, memory_bytes=20 * MIB))
    progress.add(Sampled(time=3.0, cpu_seconds=2.5, memory_bytes=152 * MIB))
    clock.now += 75
    assert progress.due() == "running  1m15s  1.5 CPUs  152 MB of 200 MB"
    progress.add(Sampled(time=4.0))
    clock.now += 1
    assert progress.due() == "running  1m16s"


def test_unlimited_memory_has_no_limit_in_the_line(clock):
    """-1 is no size."""
    progress = started(clock)
    progress.add(Created(container_id="c", limits=(Limit(name="memory", value=-1, by="x"),)))
    progress.add(Sampled(time=1.0, memory_bytes=MIB))
    clock.now += 3
    assert progress.due() == "running  3.0 s  1 MB"


class Written(Screen):
    """A screen that keeps what it writes, in the foreground."""

    def __init__(self, clock):
        self.written = b""
        super().__init__(9, self.keep, started(clock))

    def keep(self, fd, data):
        """Take what is written."""
        assert fd == 9
        self.written += data

    def _in_foreground(self):
        return True


def test_terminal_line_is_erased_before_output_and_at_the_end(clock):
    """Nothing of it is left between the program's lines."""
    screen = Written(clock)
    clock.now += 2
    screen.tick()
    screen.tick()
    assert screen.written == b"\r\x1b[Krunning  2.0 s"
    screen.make_way(b"out\n")
    assert screen.written.endswith(b"2.0 s\r\x1b[K")
    clock.now += 1
    screen.tick()
    screen.erase()
    screen.erase()
    assert screen.written.endswith(b"3.0 s\r\x1b[K")


def test_terminal_line_leaves_an_unfinished_line_alone(clock):
    """A prompt or a progress bar of the program is not painted over."""
    screen = Written(clock)
    screen.make_way(b"Name? ")
    clock.now += 3
    screen.tick()
    assert screen.written == b""
    screen.make_way(b"ok\n")
    clock.now += 1
    screen.tick()
    assert b"running" in screen.written


def test_terminal_line_is_not_longer_than_the_terminal(clock, monkeypatch):
    """A line that wraps could not be erased."""
    monkeypatch.setenv("COLUMNS", "12")
    screen = Written(clock)
    clock.now += 2
    screen.tick()
    assert screen.written == b"\r\x1b[Krunning  2."


def test_job_in_the_background_writes_no_line(clock):
    """A terminal that is another process group's is left alone."""
    master, slave = pty.openpty()
    written = []
    screen = Screen(slave, lambda fd, data: written.append(data), started(clock))
    clock.now += 2
    screen.tick()
    os.close(master)
    os.close(slave)
    assert written == []


@pytest.fixture
def page(monkeypatch, capsys):
    """Return what a notebook's cell is told, in order."""
    told = []

    class Handle:
        def update(self, data, raw):
            told.append(("update", data["text/plain"]))

    def display(data, raw, display_id):
        told.append(("display", data["text/plain"]))
        return Handle()

    monkeypatch.setattr(cell_module, "display", display)
    monkeypatch.setattr(cell_module, "clear_output", lambda wait: told.append(("clear", wait)))
    monkeypatch.setattr(cell_module, "_write", lambda stream, text: told.append((stream, text)))
    return told


def test_cell_line_goes_and_what_the_cell_showed_is_published_again(page, clock):
    """Text of one stream is one output, in order; another output stays in its place."""
    line = CellLine(started(clock))
    line.wrote("stdout", "a")
    line.wrote("stdout", "b")
    clock.now += 2
    line.tick()
    clock.now += 0.1
    line.tick()
    clock.now += 0.5
    line.tick()
    line.wrote("stderr", "e")
    line.published(lambda: page.append(("figure", "")), 10)
    line.wrote("stderr", "f")
    line.finish()
    line.finish()
    assert page == [
        ("display", "running  2.0 s"),
        ("update", "running  2.6 s"),
        ("clear", True),
        ("stdout", "ab"),
        ("stderr", "e"),
        ("figure", ""),
        ("stderr", "f"),
    ]


def test_cell_line_alone_is_cleared_at_once(page, clock):
    """With nothing to follow nobody would clear it later."""
    line = CellLine(started(clock))
    clock.now += 2
    line.tick()
    line.finish()
    assert page[1:] == [("clear", False)]


def test_short_cell_clears_nothing(page, clock):
    """Without a line nothing is published twice."""
    line = CellLine(started(clock))
    line.wrote("stdout", "x")
    line.finish()
    assert page == []


def test_cell_with_much_output_loses_its_line_and_publishes_a_bounded_part_again(page, clock):
    """What comes later is not kept."""
    line = CellLine(started(clock))
    clock.now += 2
    line.tick()
    line.wrote("stdout", "x" * (MOST_CHARACTERS + 1))
    line.wrote("stdout", "y")
    clock.now += 2
    line.tick()
    line.finish()
    assert [kind for kind, _ in page] == ["display", "clear", "stdout"]
    assert page[-1] == ("stdout", "x" * (MOST_CHARACTERS + 1))


def test_outputs_that_the_code_cleared_are_not_published_again(page, clock):
    """The line comes anew after it."""
    line = CellLine(started(clock))
    line.wrote("stdout", "gone")
    clock.now += 2
    line.tick()
    line.cleared()
    clock.now += 1
    line.tick()
    line.finish()
    assert page == [("display", "running  2.0 s"), ("display", "running  3.0 s"), ("clear", False)]
