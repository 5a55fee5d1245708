"""How a report looks: a line, a page of text, HTML and a picture."""

import base64
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from container_magic.display.curve import cpu_curve, cpu_limit, memory_curve, resample, scale
from container_magic.display.html import report_full_html, report_line_html
from container_magic.display.svg import WIDTH, usage_svg
from container_magic.display.text import (
    PICTURE_HEIGHT,
    PICTURE_WIDTH,
    advice,
    chart,
    human_bytes,
    human_seconds,
    reason,
    report_full,
    report_line,
)
from container_magic.events import CodeError, Collected, Downgrade, Limit, MemoryHigh, NotCollected, Sampled
from container_magic.options import from_argv
from container_magic.report import ReportUsage, RunReport

MIB = 1024**2
SAMPLES = tuple(Sampled(time=0.1 * i, cpu_seconds=0.1 * i * 1.5, memory_bytes=i * 10 * MIB) for i in range(1, 16))
USAGE = ReportUsage(
    wall_seconds=1.02, cpu_seconds=0.98, memory_peak_bytes=152 * MIB, memory_limit_bytes=200 * MIB, samples=SAMPLES
)
LIMITS = (
    Limit(name="memory", value=200.0 * MIB, by="memory.max"),
    Limit(name="cpus", value="0-1", by="cpuset.cpus"),
    Limit(name="timeout", value=2.0, by="supervisor"),
    Limit(name="cpu_time", value=0.5, by="supervisor"),
    Limit(name="max_output", value=8.0 * MIB, by="supervisor"),
    Limit(name="memory_swap", value=-1.0, by="memory.swap.max"),
    Limit(name="pids", value=64.0, by="pids.max"),
    Limit(name="disk", value=100.0 * MIB, by="tmpfs size"),
)


HIGH = MemoryHigh(limit_bytes=150 * MIB, usage_bytes=151 * MIB)


def report(verdict="OK", **fields):
    """Return a report with figures and limits."""
    return RunReport(
        **{"verdict": verdict, "usage": USAGE, "limits": LIMITS, "start": "warm", "exit_code": 0, **fields}
    )


def test_line_of_a_good_run():
    """Verdict, wall, CPU, peak of limit, kind of start."""
    assert report_line(report()) == "OK  1.02 s wall  0.98 s CPU  152 MB of 200 MB  warm"


def test_line_leaves_out_what_is_unknown():
    """A figure that the host cannot give is not shown as 0."""
    assert report_line(RunReport(verdict="OK", exit_code=0)) == "OK"


def test_full_report_says_what_is_unknown():
    """The page names the figures that the host cannot give."""
    page = report_full(RunReport(verdict="OK", exit_code=0))
    assert re.search(r"^memory +peak unknown$", page, re.MULTILINE)
    assert "0 B" not in page


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"verdict": "OK"}, ""),
        ({"verdict": "RUNTIME_ERROR", "exit_code": 3}, "exit code 3"),
        ({"verdict": "SIGNALED", "exit_code": None, "exit_signal": 11}, "signal 11 (SIGSEGV)"),
        ({"verdict": "SIGNALED", "exit_code": None, "exit_signal": 40}, "signal 40 (real-time)"),
        ({"verdict": "TIME_LIMIT", "limits_reached": ("wall",)}, "wall limit 2 s reached"),
        ({"verdict": "TIME_LIMIT", "limits_reached": ("cpu",)}, "CPU time limit 0.5 s reached"),
        ({"verdict": "TIME_LIMIT", "limits_reached": ("cpu",), "limits": ()}, "CPU time limit reached"),
        (
            {"verdict": "RUNTIME_ERROR", "exit_code": 1, "limits_reached": ("pids",)},
            "task limit 64 reached, exit code 1",
        ),
        (
            {"verdict": "SIGNALED", "exit_code": None, "exit_signal": 7, "limits_reached": ("pids", "disk")},
            "task limit 64 reached, disk limit 100 MB reached, signal 7 (SIGBUS)",
        ),
        (
            {"verdict": "TIME_LIMIT", "limits_reached": ("wall", "pids")},
            "task limit 64 reached, wall limit 2 s reached",
        ),
        ({"verdict": "MEMORY_LIMIT"}, "memory limit 200 MB reached"),
        ({"verdict": "MEMORY_LIMIT", "usage": ReportUsage()}, "memory limit reached"),
        ({"verdict": "OUTPUT_LIMIT"}, "output limit 8 MB reached"),
        ({"verdict": "INTERRUPTED"}, "interrupted"),
        ({"verdict": "INTERRUPTED", "memory_high": HIGH}, "memory 150 MB (--mem-high) reached: interrupted"),
        ({"verdict": "INTERRUPTED", "exit_code": None, "exit_signal": 9}, "interrupted and killed"),
        ({"verdict": "INTERNAL_ERROR"}, "ended, but nobody knows how"),
        ({"verdict": "INTERNAL_ERROR", "error": CodeError(ename="HostError", evalue="no overlay")}, "no overlay"),
    ],
)
def test_reason_names_limit_and_figure(fields, expected):
    """What ended the run is said with the limit and its value, in the sentence and in the line."""
    assert reason(report(**fields)) == expected
    assert expected in report_line(report(**fields))


def test_advice_after_memory_limit_is_twice_the_memory():
    """The next thing to try is an option that can be copied."""
    assert advice(report("MEMORY_LIMIT")) == "peak 152 MB; try --mem 400M"
    assert advice(report()) == ""


@pytest.mark.parametrize(
    ("verdict", "limits_reached", "expected"),
    [
        ("TIME_LIMIT", ("wall",), "try --timeout 4s"),
        ("TIME_LIMIT", ("cpu", "pids"), "try --cpu-time 1s"),
        ("OUTPUT_LIMIT", ("output",), "try --max-output 16M"),
        ("RUNTIME_ERROR", ("pids",), "try --pids 128"),
        ("RUNTIME_ERROR", ("disk",), "try --disk 200M --mem 400M"),
        ("RUNTIME_ERROR", (), ""),
        ("INTERRUPTED", (), ""),
    ],
)
def test_advice_after_a_limit_is_an_option_that_is_accepted(verdict, limits_reached, expected):
    """Twice the limit; a disk of more than half of the memory asks for memory, too."""
    said = advice(report(verdict, limits_reached=limits_reached))
    assert said == expected
    from_argv(said.split()[1:], "magic")


def test_line_names_dropped_output_and_downgrades():
    """What was cut and what is not fully enforced stands in the line."""
    downgrade = Downgrade(name="blkio_weight", asked="500", got="nothing", reason="no io controller")
    line = report_line(report(truncated=True, dropped_bytes=3 * MIB, downgrades=(downgrade,)))
    assert "3 MB of output not shown" in line
    assert "downgraded: blkio-weight" in line


def test_message_of_several_lines_stays_one_line():
    """Whatever the sandbox says, the line is one line."""
    error = CodeError(ename="HostError", evalue="a\n\x1b[2Jhint: b")
    assert "a hint: b" in report_line(report("INTERNAL_ERROR", error=error))


def test_full_report_has_every_figure_and_limit():
    """The page has each figure, what holds each limit, the start with its parts, the downgrades, the container."""
    usage = ReportUsage(
        wall_seconds=75.0,
        cpu_seconds=2.0,
        cpu_user_seconds=1.5,
        cpu_system_seconds=0.5,
        throttled_seconds=0.25,
        pids_peak=7,
        io_read_bytes=1536,
        io_write_bytes=0,
        startup_seconds=0.0012,
        startup={"namespaces": 0.0004},
    )
    downgrade = Downgrade(name="disk", asked="1G", got="no limit", reason="no tmpfs")
    page = report_full(report(usage=usage, downgrades=(downgrade,), container_id="c0ffee", oom_killed=True))
    for text in (
        "exit code 0, out of memory",
        "1m15s",
        "2.00 s (user 1.50 s, system 0.50 s, throttled 0.25 s)",
        "peak 7",
        "read 1.5 KB, written 0 B",
        "warm, 1.2 ms (namespaces 0.4 ms)",
        "memory 200 MB, held by memory.max",
        "cpus 0-1, held by cpuset.cpus",
        "memory-swap unlimited, held by memory.swap.max",
        "disk 1G: no limit instead, no tmpfs",
        "c0ffee",
    ):
        assert text in page


def test_full_report_draws_memory_and_cpu():
    """The pictures are of block characters, of one width, and say what the top is."""
    page = report_full(report())
    assert "memory over 1.50 s, top is 200 MB (the limit)" in page
    assert "CPU over 1.50 s, top is 2 CPUs (the limit)" in page
    assert len([line for line in page.splitlines() if line.startswith("│")]) == 2 * PICTURE_HEIGHT
    assert {len(line) for line in page.splitlines() if line.startswith("│")} == {PICTURE_WIDTH + 2}


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, "unknown"), (0, "0 B"), (900, "900 B"), (1536, "1.5 KB"), (200 * MIB, "200 MB"), (3 * 1024**3, "3 GB")],
)
def test_bytes_are_readable(count, text):
    """Powers of 1024 with the letters that the options use."""
    assert human_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "unknown"), (0.0, "0 ms"), (0.0012, "1.2 ms"), (0.5, "0.50 s"), (59.99, "59.99 s"), (90.0, "1m30s")],
)
def test_times_are_readable(seconds, text):
    """Milliseconds, seconds or minutes, whichever can be read."""
    assert human_seconds(seconds) == text


def test_cpu_curve_is_the_slope():
    """CPUs in use are CPU seconds per second between two samples; a clock that stands still gives no point."""
    samples = [
        Sampled(time=1.0, cpu_seconds=0.5),
        Sampled(time=1.0, cpu_seconds=0.6),
        Sampled(time=1.5, memory_bytes=1),
        Sampled(time=2.0, cpu_seconds=2.5),
    ]
    assert cpu_curve(samples) == [(1.0, 0.5), (2.0, 2.0)]
    assert memory_curve(samples) == [(1.5, 1.0)]


@pytest.mark.parametrize(
    ("limits", "cpus"),
    [
        ((), None),
        ((Limit(name="cpus", value=1.5, by="cpu.max"),), 1.5),
        ((Limit(name="cpus", value="0-1,5", by="cpuset.cpus"),), 3.0),
        ((Limit(name="cpus", value=1.5, by="cpu.max"), Limit(name="cpuset_cpus", value="0", by="cpuset.cpus")), 1.0),
        ((Limit(name="cpus", value="many", by="?"),), None),
    ],
)
def test_cpu_limit_is_the_smallest(limits, cpus):
    """An amount and a set of CPUs both limit; what cannot be read limits nothing."""
    assert cpu_limit(report(limits=limits)) == cpus


def test_limit_far_above_the_curve_is_not_drawn():
    """A small curve under a large limit is still a curve."""
    assert scale([(1.0, 10.0)], 1000.0) == (10.0, False)
    assert scale([(1.0, 50.0)], 100.0) == (100.0, True)
    assert scale([(1.0, 120.0)], 100.0) == (120.0, True)


POINTS = st.lists(st.tuples(st.floats(0.001, 1e6), st.floats(0, 1e12)), max_size=40).map(sorted)


@given(POINTS, st.integers(1, 70))
def test_resampled_curve_keeps_its_highest_point(points, width):
    """Whatever the number of samples, the picture has its width and its peak."""
    values = resample(points, width)
    assert len(values) == (width if points else 0)
    assert not points or max(values) == max(value for _, value in points)


@given(POINTS, st.floats(0, 1e12))
def test_chart_never_leaves_its_box(points, top):
    """Values above the top are cut at the top."""
    lines = chart(points, top)
    assert len(lines) == PICTURE_HEIGHT
    assert {len(line) for line in lines} == {PICTURE_WIDTH if points else 0}


def test_svg_is_xml_with_dashed_limits_and_no_script():
    """The picture is well formed, draws both limits, and holds shapes and text only."""
    root = ElementTree.fromstring(usage_svg(SAMPLES, memory_limit_bytes=200 * MIB, cpus=2.0))
    tags = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert tags == {"svg", "g", "text", "polygon", "polyline", "line"}
    assert len([element for element in root.iter() if element.get("stroke-dasharray")]) == 2
    texts = [element.text for element in root.iter() if element.text]
    assert "memory: highest 150 MB of 200 MB over 1.50 s" in texts
    assert "CPU: highest 1.5 CPUs of 2 CPUs over 1.50 s" in texts


def test_picture_fills_only_below_the_curve():
    """Where no sample was taken yet there is neither line nor area."""
    picture = usage_svg(SAMPLES)
    areas = re.findall(r'<polygon points="([\d.]+),[\d.]+ ([\d.]+),', picture)
    assert areas
    assert all(begin == curve for begin, curve in areas)


@given(POINTS, st.none() | st.integers(1, 2**40))
def test_svg_points_stay_in_the_picture(points, limit):
    """No coordinate is outside, however many samples there are and wherever the limit is."""
    samples = [Sampled(time=time, memory_bytes=int(value)) for time, value in points]
    svg = usage_svg(samples, memory_limit_bytes=limit)
    for x, y in re.findall(r"(-?[0-9.]+),(-?[0-9.]+)", svg):
        assert 0 <= float(x) <= WIDTH
        assert 0 <= float(y) <= 60


def test_too_few_samples_give_no_picture():
    """One point is no curve."""
    assert usage_svg(SAMPLES[:1]) == ""
    assert "<img" not in report_full_html(RunReport(verdict="OK"))
    assert "│" not in report_full(RunReport(verdict="OK"))


class Elements(HTMLParser):
    """Collects tags, attributes and text of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        """Collect a tag."""
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        """Collect text."""
        self.text += data


EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&"


def test_html_escapes_everything_from_outside():
    """No text of a report becomes a tag or an attribute."""
    evil = report(
        "INTERNAL_ERROR",
        error=CodeError(ename=EVIL, evalue=EVIL),
        stdout=EVIL,
        container_id=EVIL,
        limits=(Limit(name=EVIL, value=EVIL, by=EVIL),),
        downgrades=(Downgrade(name=EVIL, asked=EVIL, got=EVIL, reason=EVIL),),
        usage=ReportUsage(startup={EVIL: 1.0}, samples=SAMPLES),
    )
    for page in (report_line_html(evil), report_full_html(evil)):
        elements = Elements(page)
        assert set(elements.tags) <= {"div", "b", "table", "tr", "th", "td", "img"}
        assert {name for name, _ in elements.attributes} <= {"style", "src", "alt"}
        assert EVIL in elements.text


def test_html_has_line_table_and_picture():
    """The page shows what the text shows; the picture is an image of base64 data."""
    page = report_full_html(report())
    elements = Elements(page)
    assert "152 MB of 200 MB" in elements.text
    assert "held by memory.max" in elements.text
    (source,) = [value for name, value in elements.attributes if name == "src"]
    prefix, _, data = source.partition(",")
    assert prefix == "data:image/svg+xml;base64"
    assert ElementTree.fromstring(base64.b64decode(data)).tag.endswith("svg")


@pytest.mark.parametrize(("verdict", "colour"), [("OK", "success"), ("OUTPUT_LIMIT", "warn"), ("SIGNALED", "error")])
def test_html_line_colours_the_verdict(verdict, colour):
    """The verdict has the theme's colour for good, noteworthy and bad."""
    assert f"color:var(--jp-{colour}-color1" in report_line_html(report(verdict))


def test_pictures_are_as_wide_as_asked_and_ascii_where_that_is_all():
    """A terminal's width and encoding; never so narrow that nothing is left."""
    wide = report_full(report(), columns=100)
    assert {len(line) for line in wide.splitlines() if line.startswith("│")} == {100}
    plain = report_full(report(), columns=40, ascii_only=True)
    assert plain.isascii()
    assert {len(line) for line in plain.splitlines() if line.startswith("|")} == {40}
    narrow = report_full(report(), columns=1)
    assert {len(line) for line in narrow.splitlines() if line.startswith("│")} == {12}


def test_files_that_came_out_or_did_not_are_named():
    """The line says that something is missing, the page which files, a few of many."""
    report = RunReport(
        verdict="OK",
        files=tuple(Collected(path=f"plots/{number}.png", size_bytes=2048) for number in range(25)),
        files_refused=(NotCollected(path="d/link", reason="it is a link, not a file"),),
    )

    assert "1 of --out-file not taken" in report_line(report)
    page = report_full(report)
    assert "plots/0.png, 2 KB" in page
    assert "plots/20.png" not in page
    assert "and 5 more" in page
    assert "d/link: it is a link, not a file" in page


@pytest.mark.parametrize(("high", "expected"), [(50, "try --mem-high 100M"), (150, "try --mem-high 300M --mem 400M")])
def test_advice_after_the_memory_mark_raises_it_and_the_limit_with_it(high, expected):
    """Twice the mark, and a limit that leaves room above it."""
    mark = MemoryHigh(limit_bytes=high * MIB, usage_bytes=high * MIB)
    assert advice(report("INTERRUPTED", memory_high=mark)) == expected
