"""A report is a fold over events."""

import dataclasses
import itertools
import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from container_magic.events import (
    Cleared,
    CodeError,
    Created,
    Deleted,
    Displayed,
    Downgrade,
    Exited,
    Failed,
    Interrupted,
    Limit,
    LimitReached,
    MemoryHigh,
    Output,
    Returned,
    Sampled,
    Started,
    Usage,
)
from container_magic.folding import SAMPLES_KEPT, ReportBuilder, fold
from container_magic.report import ReportUsage, RunReport

CREATED = Created(
    container_id="c1",
    limits=(Limit(name="mem", value=209715200.0, by="memory.max"), Limit(name="cpus", value="0-1", by="cpuset.cpus")),
    downgrades=(Downgrade(name="disk", asked="1G", got="none", reason="no quota"),),
    startup={"namespaces": 0.002},
)
STARTED = Started(start="cold", startup_seconds=0.001)


def run(*events, exited=None):
    """Return the report of a whole run with ``events`` in its middle."""
    return fold([CREATED, STARTED, *events, exited or Exited(exit_code=0), Deleted()])


def test_good_run_reports_every_figure():
    """Everything that the events said stands in the report."""
    usage = Usage(wall_seconds=1.0, cpu_seconds=0.5, memory_peak_bytes=100, memory_limit_bytes=200)
    sample = Sampled(time=0.1, cpu_seconds=0.05, memory_bytes=90)
    report = run(
        Output(stream="stdout", data=b"out\n"),
        sample,
        Output(stream="stderr", data=b"err\n"),
        exited=Exited(exit_code=0, usage=usage),
    )
    assert report.ok
    assert (report.verdict, report.exit_code, report.exit_signal) == ("OK", 0, None)
    assert (report.stdout, report.stderr) == ("out\n", "err\n")
    assert (report.container_id, report.start) == ("c1", "cold")
    assert (report.limits, report.downgrades) == (CREATED.limits, CREATED.downgrades)
    assert report.usage == ReportUsage(
        **dataclasses.asdict(usage), startup_seconds=0.001, startup={"namespaces": 0.002}, samples=(sample,)
    )


def test_warm_start_has_no_parts():
    """What was done before anybody asked is no part of the start."""
    report = fold([CREATED, Started(start="warm", startup_seconds=0.001), Exited(exit_code=0)])

    assert (report.start, report.usage.startup_seconds, report.usage.startup) == ("warm", 0.001, {})


@pytest.mark.parametrize(
    ("events", "exited", "verdict"),
    [
        ([], Exited(exit_code=0), "OK"),
        ([], Exited(exit_code=1), "RUNTIME_ERROR"),
        ([], Exited(exit_signal=11), "SIGNALED"),
        ([LimitReached(limit="output")], Exited(exit_code=0), "OUTPUT_LIMIT"),
        ([LimitReached(limit="output")], Exited(exit_signal=9), "OUTPUT_LIMIT"),
        ([LimitReached(limit="wall")], Exited(exit_signal=9), "TIME_LIMIT"),
        ([LimitReached(limit="cpu")], Exited(exit_signal=9), "TIME_LIMIT"),
        ([LimitReached(limit="output"), LimitReached(limit="wall")], Exited(exit_signal=9), "TIME_LIMIT"),
        ([], Exited(exit_signal=9, oom_killed=True), "MEMORY_LIMIT"),
        ([LimitReached(limit="memory")], Exited(exit_signal=9), "MEMORY_LIMIT"),
        ([LimitReached(limit="wall"), LimitReached(limit="memory")], Exited(exit_signal=9), "MEMORY_LIMIT"),
        ([LimitReached(limit="memory"), Interrupted(killed=True)], Exited(exit_signal=9), "INTERRUPTED"),
        ([Interrupted(), Failed(message="gone")], Exited(exit_code=0), "INTERNAL_ERROR"),
    ],
)
def test_verdict_follows_host_side_facts_in_order(events, exited, verdict):
    """The first rule that holds gives the verdict; only OK is ok."""
    report = run(*events, exited=exited)
    assert report.verdict == verdict
    assert report.ok == (verdict == "OK")


def test_error_that_code_claims_does_not_change_verdict():
    """Contained code can say what it likes: exit code 0 is OK, and 1 is not."""
    error = CodeError(ename="MemoryError", evalue="", traceback=("line",))
    assert run(error).verdict == "OK"
    report = run(error, exited=Exited(exit_code=1))
    assert (report.verdict, report.error) == ("RUNTIME_ERROR", error)


@pytest.mark.parametrize("events", [[], [CREATED], [CREATED, STARTED, Interrupted()]])
def test_stream_without_exit_is_internal_error(events):
    """A run of which nobody knows how it ended did not end well."""
    report = fold(events)
    assert (report.verdict, report.exit_code, report.usage.wall_seconds) == ("INTERNAL_ERROR", None, None)


def test_failure_of_sandbox_is_named():
    """The report carries the message and the hint of the sandbox's own failure."""
    report = fold([Failed(message="no overlay", hint="contain doctor", kind="HostError")])
    assert report.error == CodeError(ename="HostError", evalue="no overlay\nhint: contain doctor")


@pytest.mark.parametrize(("limit", "timed_out"), [("wall", True), ("cpu", True), ("memory", False), ("output", False)])
def test_time_limits_set_timed_out(limit, timed_out):
    """``timed_out`` is for wall and CPU time; ``limits_reached`` says which."""
    report = run(LimitReached(limit=limit), LimitReached(limit=limit))
    assert (report.timed_out, report.limits_reached) == (timed_out, (limit,))


def test_dropped_output_is_marked_counted_and_truncated():
    """A line stands where bytes were left out; the count is exact."""
    report = run(
        Output(stream="stdout", data=b"head"),
        Output(stream="stderr", data=b"", dropped_bytes=5),
        Output(stream="stdout", data=b"tail", dropped_bytes=1234567),
    )
    assert report.stdout == "head\n[... 1,234,567 bytes not shown ...]\ntail"
    assert report.stderr == "\n[... 5 bytes not shown ...]\n"
    assert (report.truncated, report.dropped_bytes) == (True, 1234572)


def shown(report):
    """Return the text of each output."""
    return [output["data"]["text/plain"] for output in report.outputs]


def show(text, **fields):
    """Return something that was shown."""
    return Displayed(data={"text/plain": text}, **fields)


def test_outputs_are_in_nbformats_shape():
    """Displays and results, in the order in which they were shown."""
    report = run(show("a", metadata={"isolated": True}), show("b", result=True))
    assert report.outputs == (
        {"output_type": "display_data", "data": {"text/plain": "a"}, "metadata": {"isolated": True}},
        {"output_type": "execute_result", "data": {"text/plain": "b"}, "metadata": {}},
    )


def test_update_takes_the_place_of_every_output_of_its_name():
    """And of no other; one whose name nothing has is nothing."""
    events = [show("1", display_id="a"), show("2"), show("3", display_id="a"), show("4", display_id="b")]
    updates = [show("x", display_id="a", update=True), show("y", display_id="c", update=True)]
    assert shown(run(*events, *updates)) == ["x", "2", "x", "4"]


def test_clear_takes_what_was_shown_before():
    """At once, or when the next thing comes, be it text or a display; an update is no next thing."""
    assert shown(run(show("1"), Cleared(), show("2"))) == ["2"]
    assert shown(run(show("1"), Cleared(wait=True))) == ["1"]
    assert shown(run(show("1"), Cleared(wait=True), show("2"), show("3"))) == ["2", "3"]
    assert shown(run(show("1"), Cleared(wait=True), Output(stream="stdout", data=b"x"))) == []
    assert shown(run(show("1"), Cleared(wait=True), show("x", display_id="a", update=True))) == ["1"]


def test_line_is_that_of_the_exit():
    """The report says what the supervisor found."""
    assert run(exited=Exited(exit_signal=9, line=7)).line == 7


def test_output_limit_alone_is_truncated():
    """The output limit says that something is missing even before a count came."""
    assert run(LimitReached(limit="output")).truncated
    assert not run().truncated


@given(st.text(), st.data())
def test_characters_cut_between_events_stay_whole(text, data):
    """UTF-8 text comes back however its bytes were cut."""
    raw = text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=6)))
    pieces = [raw[start:end] for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    assert run(*(Output(stream="stdout", data=piece) for piece in pieces)).stdout == text


def test_bytes_that_are_no_text_are_replaced():
    """NUL stays, what is not UTF-8 becomes U+FFFD, nothing is lost."""
    assert run(Output(stream="stdout", data=b"a\0b\xff\xfec")).stdout == "a\0b\ufffd\ufffdc"


def test_lone_surrogates_of_error_are_replaced():
    """An error text that UTF-8 cannot carry does not break what shows it."""
    report = run(CodeError(ename="E", evalue="\ud800", traceback=("\udfff",)), exited=Exited(exit_code=1))
    assert (report.error.evalue, report.error.traceback) == ("?", ("?",))


@pytest.mark.parametrize("count", [0, 1, SAMPLES_KEPT, SAMPLES_KEPT + 1, 5 * SAMPLES_KEPT + 3])
def test_curve_is_bounded_and_keeps_its_peak(count):
    """A run of any length has a curve of bounded size, in order, with its highest point."""
    peak = count // 2
    memory = [10**9 if number == peak else number for number in range(count)]
    samples = [Sampled(time=number / 10, memory_bytes=memory[number]) for number in range(count)]
    kept = run(*samples).usage.samples
    assert len(kept) <= SAMPLES_KEPT
    assert len(kept) >= min(count, SAMPLES_KEPT // 2)
    assert list(kept) == sorted(kept, key=lambda sample: sample.time)
    assert count == 0 or samples[peak] in kept


def test_thinned_curve_is_even():
    """A long run's curve is as fine at its beginning as at its end."""
    samples = [Sampled(time=float(number), memory_bytes=number) for number in range(5 * SAMPLES_KEPT)]
    times = [sample.time for sample in run(*samples).usage.samples]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert set(gaps) == {8.0}


FLOATS = st.none() | st.floats(0, 1e9)
COUNTS = st.none() | st.integers(0, 2**62)
SAMPLES = st.builds(Sampled, time=st.floats(0, 1e6), cpu_seconds=FLOATS, memory_bytes=COUNTS)
USAGES = st.builds(
    ReportUsage,
    wall_seconds=FLOATS,
    cpu_seconds=FLOATS,
    memory_peak_bytes=COUNTS,
    pids_peak=COUNTS,
    startup_seconds=FLOATS,
    startup=st.dictionaries(st.text(), st.floats(0, 10), max_size=3),
    samples=st.lists(SAMPLES, max_size=3).map(tuple),
)
REPORTS = st.builds(
    RunReport,
    verdict=st.sampled_from(["OK", "SIGNALED", "INTERNAL_ERROR"]),
    exit_code=st.none() | st.integers(0, 255),
    stdout=st.text(),
    outputs=st.lists(st.dictionaries(st.text(), st.text(), max_size=2), max_size=2).map(tuple),
    error=st.none() | st.builds(CodeError, ename=st.text(), evalue=st.text(), traceback=st.tuples(st.text())),
    usage=USAGES,
    limits=st.lists(
        st.builds(Limit, name=st.text(), value=st.floats(0, 1e9) | st.text(), by=st.text()), max_size=2
    ).map(tuple),
    limits_reached=st.lists(st.sampled_from(["memory", "wall"]), max_size=2).map(tuple),
    downgrades=st.just(CREATED.downgrades),
    start=st.sampled_from([None, "cold", "warm"]),
)


@given(REPORTS)
def test_report_survives_json(report):
    """``from_dict`` gives back the report that ``to_json`` wrote, and ``ok`` is in it for other readers."""
    data = json.loads(report.to_json())
    assert data["ok"] == report.ok
    assert RunReport.from_dict(data) == report


def test_unknown_field_is_refused():
    """A report of another version is an error and not half a report."""
    with pytest.raises(TypeError, match="colour"):
        RunReport.from_dict({"verdict": "OK", "colour": "red"})


def test_report_is_frozen():
    """What happened cannot be changed afterwards."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        run().verdict = "OK"


def test_builder_reports_while_the_run_goes_on():
    """A report of an unfinished run holds what is known so far."""
    builder = ReportBuilder()
    builder.add(CREATED)
    builder.add(Output(stream="stdout", data=b"so far"))
    assert builder.report().stdout == "so far"


def test_report_shows_itself_as_text_and_html():
    """``str`` is one line; the MIME bundle has text and HTML."""
    report = run()
    assert str(report).startswith("OK")
    assert "\n" not in str(report)
    assert str(report) in repr(report)
    bundle = report._repr_mimebundle_()
    assert bundle["text/html"] == report._repr_html_()
    assert bundle["text/plain"].startswith("OK")


def test_importing_report_does_not_import_display():
    """Ring 0 stays light: how a report looks is loaded when one is shown."""
    code = "import sys, container_magic.report; print('container_magic.display' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_values_are_those_of_a_run_that_ended_well():
    """Of code that was interrupted and ended with 0 nonetheless nothing is known; cut output is no error."""
    returned = [Returned(name="x", value=[1]), Returned(name="y", value=b"2")]
    assert run(*returned).values == {"x": [1], "y": b"2"}
    assert run(*returned, LimitReached(limit="output")).values == {"x": [1], "y": b"2"}
    assert run(*returned, Interrupted()).values == {}
    assert run(*returned, exited=Exited(exit_code=1)).values == {}


def test_values_are_in_no_json():
    """They may be anything, of any size; the rest of the report makes the trip."""
    report = run(Returned(name="x", value=object()))
    assert "values" not in json.loads(report.to_json())
    assert RunReport.from_dict(json.loads(report.to_json())) == report


def test_interrupt_at_the_memory_mark_is_an_interrupt_with_its_reason() -> None:
    """The report has what was held; who is killed at the limit all the same has reached the limit."""
    high = MemoryHigh(limit_bytes=100, usage_bytes=110)
    stopped = run(high, Interrupted(), exited=Exited(exit_code=1))
    assert (stopped.verdict, stopped.memory_high) == ("INTERRUPTED", high)
    killed = run(high, Interrupted(), exited=Exited(exit_signal=9, oom_killed=True))
    assert killed.verdict == "MEMORY_LIMIT"
    assert RunReport.from_dict(json.loads(stopped.to_json())).memory_high == high


def test_answers_to_a_question_are_no_points_of_the_curve() -> None:
    """Who asks does not change what the report shows."""
    point = Sampled(time=0.1, memory_bytes=5)
    report = run(point, Sampled(time=0.2, memory_bytes=9, working_set_bytes=8, pids=2, asked=True))
    assert report.usage.samples == (point,)
