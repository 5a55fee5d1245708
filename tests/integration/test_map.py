"""``cm.map``: one source over many inputs, a bounded number at a time."""

import threading
import time
from pathlib import Path

import pytest
from defaults import DEFAULTS
from leftovers import waiting

import container_magic as cm
from container_magic.runtime.pool import MOST_WAITING


def square(text):
    """Return the square of a number; its source is sent."""
    return int(text) ** 2


def reports(source, inputs, **options):
    """Return the reports of ``cm.map`` by index."""
    found = list(cm.map(source, inputs, **{**DEFAULTS, **options}))
    return dict(sorted((report.index, report) for report in found))


def test_each_input_is_standard_input_of_a_run_of_its_own():
    """Text, bytes and the path of a file; every run in its own container."""
    found = reports("print(int(input()) ** 2)", [str(number) for number in range(7)])

    assert [report.stdout for report in found.values()] == [f"{number**2}\n" for number in range(7)]
    assert len({report.container_id for report in found.values()}) == 7


def test_inputs_may_be_bytes_and_paths(tmp_path):
    """As they are, whatever their encoding."""
    (tmp_path / "in").write_bytes(b"\xff\n")
    found = reports("import sys; print(sys.stdin.buffer.read())", [b"\x00\xfe", tmp_path / "in", ""])

    assert [report.stdout for report in found.values()] == ["b'\\x00\\xfe'\n", "b'\\xff\\n'\n", "b''\n"]


def test_input_that_is_too_large_or_not_there_is_refused(tmp_path):
    """It is named by its number; and what a run reads is not said twice."""
    with pytest.raises(cm.OptionError, match=r"^input 1: cannot be read: No such file or directory; accepted: a file$"):
        reports("print(input())", ["1", tmp_path / "missing"])
    with pytest.raises(cm.OptionError, match=r"^input 0: it is too large; accepted: at most 64M"):
        reports("print(input())", [Path("/dev/zero")])
    with pytest.raises(cm.OptionError, match=r"^stdin says what one run reads"):
        reports("print(input())", ["1"], stdin="2")


def test_commands_and_functions_can_be_mapped():
    """The words of a command, and a function by its own source."""
    assert [report.stdout for report in reports(["wc", "-c"], ["abc", ""]).values()] == ["3\n", "0\n"]
    found = reports(square, ["3", "x"])
    assert found[0].stdout == "9\n"
    assert (found[1].verdict, found[1].error.ename) == ("RUNTIME_ERROR", "ValueError")


def test_reports_come_in_order_of_completion():
    """The quick one is there while the slow one runs."""
    order = [report.index for report in cm.map("import time; time.sleep(float(input()))", ["1.5", "0"], **DEFAULTS)]

    assert order == [1, 0]


@pytest.mark.parametrize("workers", [1, 3])
def test_never_more_than_the_workers_are_under_way(workers):
    """Inputs are taken as runs begin: all but the running ones are over when one is taken."""
    taken, ended = [], []

    def inputs():
        for number in range(9):
            assert len(taken) - len(ended) <= workers
            taken.append(number)
            yield str(number)

    for report in cm.map("pass", inputs(), workers=workers, **DEFAULTS):
        ended.append(report.index)

    assert sorted(ended) == taken == list(range(9))


def test_endless_inputs_can_be_left():
    """Closing the iterator ends the runs that are under way, and takes no further input."""

    def endless():
        while True:
            yield "x"

    iterator = cm.map("import sys, time; time.sleep(0 if sys.stdin.read() else 0)", endless(), **DEFAULTS)
    assert [next(iterator).verdict for _ in range(3)] == ["OK"] * 3
    iterator.close()


def test_failing_runs_do_not_end_the_others():
    """Each verdict is that of its own run."""
    code = "import os\nexec(input())"
    found = reports(code, ["print(1)", "1 / 0", "os.abort()", "x = bytearray(900 << 20)", "os._exit(3)", "print(2)"])

    verdicts = [report.verdict for report in found.values()]
    assert verdicts[:3] == ["OK", "RUNTIME_ERROR", "SIGNALED"]
    assert verdicts[4:] == ["RUNTIME_ERROR", "OK"]
    assert verdicts[3] in ("MEMORY_LIMIT", "OK")  # OK where nothing can hold the limit


def test_error_of_the_inputs_is_the_callers_and_ends_all():
    """What the iterable raises comes out, and nothing runs on."""

    def broken():
        yield "1"
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        list(cm.map("pass", broken(), **DEFAULTS))


@pytest.mark.parametrize("inputs", ["abc", b"abc", 5, None])
def test_what_is_no_list_of_inputs_is_refused(inputs):
    """A text alone is one input, and would be a run for each of its letters."""
    with pytest.raises(cm.OptionError, match=r"^inputs: accepted: a list"):
        cm.map("pass", inputs)


@pytest.mark.parametrize("workers", [0, -1, 65, True, "2", 1.5])
def test_number_of_workers_is_checked_before_anything_starts(workers):
    """One line with what is accepted."""
    with pytest.raises(cm.OptionError, match="accepted: a whole number from 1 to 64"):
        cm.map("pass", ["1"], workers=workers)


@pytest.mark.parametrize("source", [len, lambda text: text, int])
def test_what_has_no_source_of_its_own_is_refused(source):
    """Built-ins, classes and lambdas."""
    with pytest.raises(cm.OptionError, match="accepted: "):
        cm.map(source, ["1"])


def test_options_are_checked_before_anything_starts():
    """An unknown option is an error of the call, not of the first ``next``."""
    with pytest.raises(cm.OptionError, match="unknown option"):
        cm.map("pass", ["1"], memm="1G")


def test_supervisors_are_used_again_and_few_wait_afterwards():
    """Most starts of a long batch are warm; the pool stays small."""
    found = reports("print(input())", [str(number) for number in range(40)], workers=2, warm=2)

    assert sum(report.start == "warm" for report in found.values()) > 5
    assert len(waiting()) <= MOST_WAITING


def test_batches_in_two_threads_keep_apart():
    """Each gets its own reports."""
    seen = {}

    def batch(word):
        seen[word] = {report.stdout for report in cm.map("print(input())", [word] * 10, **DEFAULTS)}

    threads = [threading.Thread(target=batch, args=(word,)) for word in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert seen == {"one": {"one\n"}, "two": {"two\n"}}
    time.sleep(0.05)
