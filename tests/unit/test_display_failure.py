"""The failure of contained code as an exception with the container's own name."""

import pytest

from container_magic.display.failure import NAME_LIMIT, CellError, failure
from container_magic.events import CodeError, Limit
from container_magic.report import ReportUsage, RunReport

MIB = 1024**2
ERROR = CodeError(ename="ValueError", evalue="bad", traceback=("Traceback", "  cell line 1", "ValueError: bad"))


def test_failing_code_has_its_own_name_message_and_traceback():
    """The class is called as the container's, ``str`` is its message, the lines are its traceback."""
    error = failure(RunReport(verdict="RUNTIME_ERROR", exit_code=1, error=ERROR))
    assert isinstance(error, CellError)
    assert (type(error).__name__, str(error)) == ("ValueError", "bad")
    assert not isinstance(error, ValueError)
    assert error._render_traceback_() == list(ERROR.traceback)


@pytest.mark.parametrize(
    "report",
    [
        RunReport(verdict="OK", exit_code=0),
        RunReport(verdict="OK", exit_code=0, error=ERROR),
        RunReport(verdict="OUTPUT_LIMIT", exit_code=0, truncated=True),
    ],
)
def test_code_that_ends_with_zero_does_not_fail(report):
    """What the code claims of itself, and output that was cut, are no failures."""
    assert failure(report) is None


@pytest.mark.parametrize(
    ("fields", "name", "sentence"),
    [
        ({"verdict": "RUNTIME_ERROR", "exit_code": 3}, "RuntimeFailure", "exit code 3"),
        ({"verdict": "SIGNALED", "exit_signal": 11}, "Signaled", "signal 11 (SIGSEGV)"),
        (
            {"verdict": "TIME_LIMIT", "limits_reached": ("wall",)},
            "TimeLimit",
            "wall limit 2 s reached; try --timeout 4s",
        ),
        ({"verdict": "OUTPUT_LIMIT", "exit_signal": 13}, "OutputLimit", "output limit reached"),
        ({"verdict": "INTERRUPTED", "exit_signal": 2}, "Interrupted", "interrupted"),
        ({"verdict": "INTERNAL_ERROR"}, "InternalError", "ended, but nobody knows how"),
        (
            {
                "verdict": "MEMORY_LIMIT",
                "usage": ReportUsage(memory_limit_bytes=200 * MIB, memory_peak_bytes=200 * MIB),
            },
            "MemoryLimit",
            "memory limit 200 MB reached; peak 200 MB; try --mem 400M",
        ),
    ],
)
def test_end_without_error_of_the_code_is_named_by_verdict(fields, name, sentence):
    """Limits, signals and interrupts say in one sentence what happened, with the figure."""
    error = failure(RunReport(**fields, limits=(Limit(name="timeout", value=2.0, by="supervisor"),)))
    assert (type(error).__name__, str(error)) == (name, sentence)
    assert error._render_traceback_() == [f"{name}: {sentence}"]


@pytest.mark.parametrize(
    ("line", "source", "sentence"),
    [
        (2, "x = 1\ny =   f(x)", "wall limit reached in line 2: y = f(x)"),
        (1, "x" * 81, f"wall limit reached in line 1: {'x' * 80}..."),
        (1, "while True:\n    pass", "wall limit reached in line 1: while True"),
        (3, "x = 1\n", "wall limit reached in line 3"),
        (2, "", "wall limit reached in line 2"),
        (None, "x = 1", "wall limit reached"),
    ],
)
def test_cell_that_was_ended_says_where(line, source, sentence):
    """The number, and the line of the source if it has one there."""
    error = failure(RunReport(verdict="TIME_LIMIT", limits_reached=("wall",), line=line), source)
    assert str(error) == sentence


def test_line_is_said_where_it_explains_something():
    """Not of code that ended by itself."""
    assert str(failure(RunReport(verdict="RUNTIME_ERROR", exit_code=3, line=2), "a\nb")) == "exit code 3"
    sentence = "signal 11 (SIGSEGV) in line 2: b"
    assert str(failure(RunReport(verdict="SIGNALED", exit_signal=11, line=2), "a\nb")) == sentence


def test_broken_channel_is_a_failure_whatever_the_exit_code():
    """The error says what was wrong."""
    error = CodeError(ename="ChannelError", evalue="no frame")
    failed = failure(RunReport(verdict="OUTPUT_LIMIT", exit_code=0, error=error, limits_reached=("output",)))
    assert (type(failed).__name__, str(failed)) == ("ChannelError", "no frame")
    assert failed.lines[-1] == "OutputLimit: rich output that cannot be understood"


def test_limit_is_named_below_the_error_of_the_code():
    """Code that saw its child killed for memory shows its own error, and what was behind it."""
    error = failure(RunReport(verdict="MEMORY_LIMIT", exit_code=1, oom_killed=True, error=ERROR))
    assert type(error).__name__ == "ValueError"
    assert error._render_traceback_() == [*ERROR.traceback, "MemoryLimit: memory limit reached"]


def test_error_without_traceback_shows_name_and_message():
    """The notebook always has at least one line."""
    error = failure(RunReport(verdict="RUNTIME_ERROR", exit_code=1, error=CodeError(ename="E", evalue="why")))
    assert error._render_traceback_() == ["E: why"]


@pytest.mark.parametrize(
    ("ename", "name"),
    [
        ("", "Error"),
        ("\0", "Error"),
        ("A\0\x1b[31mB\n C", "ABC"),
        ("X" * 9999, "X" * NAME_LIMIT),
        ("módulo.É", "módulo.É"),
    ],
)
def test_hostile_names_become_class_names(ename, name):
    """Whatever the container calls its error, it can be raised and shown."""
    error = failure(RunReport(verdict="RUNTIME_ERROR", exit_code=1, error=CodeError(ename=ename, evalue="")))
    assert type(error).__name__ == name


def test_traceback_and_message_keep_colours_at_most():
    """Escape sequences of a traceback are reduced; the message has none."""
    hostile = CodeError(ename="E", evalue="\x1b[31mred\x1b]0;t\x07", traceback=("\x1b[31mline\x1b[0m\x1b[2J\0",))
    error = failure(RunReport(verdict="RUNTIME_ERROR", exit_code=1, error=hostile))
    assert str(error) == "red"
    assert error._render_traceback_() == ["\x1b[31mline\x1b[0m"]


def test_limit_that_refused_something_is_a_hint_below_the_error():
    """The error stays the code's own; what it was refused stands in the last line, with what would help."""
    limits = (Limit(name="pids", value=64, by="pids.max"),)
    fields = {"verdict": "RUNTIME_ERROR", "exit_code": 1, "limits_reached": ("pids",), "limits": limits}
    error = failure(RunReport(**fields, error=ERROR))
    assert (type(error).__name__, str(error)) == ("ValueError", "bad")
    assert error.lines == [*ERROR.traceback, "hint: task limit 64 reached; try --pids 128"]
    assert failure(RunReport(**fields)).lines == ["RuntimeFailure: task limit 64 reached, exit code 1; try --pids 128"]
