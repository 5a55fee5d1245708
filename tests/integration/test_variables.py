"""Variables in and out of containers: there and back, without copies of what is large, and in hostile hands."""

from __future__ import annotations

import datetime
import os
import resource

import numpy as np
import pandas as pd
import pytest

import container_magic as cm
from container_magic.events import Exited, Returned

MB = 1_000_000

# finds the channel as an attacker would: there is no other socket
HOSTILE = """
import json, os, stat, struct
def is_socket(fd):
    try:
        return stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError:
        return False
(fd,) = [fd for fd in map(int, os.listdir("/proc/self/fd")) if is_socket(fd)]
def value(name, body=b"", **fields):
    head = json.dumps({"op": "value", "seq": 0, "name": name, **fields}).encode()
    return struct.pack("=II", len(head), len(body)) + head + body
def stream(tree, *buffers):
    lengths = b"".join(struct.pack("=Q", len(buffer)) for buffer in buffers)
    return struct.pack("=QQ", len(tree), len(buffers)) + lengths + tree + b"".join(buffers)
def write(data):
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view):]
"""

VALUES = {
    "nested": {"a": [1, 2.5, None, True, {"b": (b"\x00\xff", "ü", {3})}], 5: "x" * 100_000},
    "time": datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.UTC),
    "integer": 10**400,
    "surrogate": "\ud800",
}


def run_large(source, **options):
    """Run with limits for large data."""
    return cm.run(source, mem="3G", timeout="100s", preload="pandas", **options)


class TestThereAndBack:
    """What goes in comes out as it was."""

    def test_plain_values_come_back(self, run):
        """Containers of everything that is plain."""
        report = run("pass", input=VALUES, output=list(VALUES))
        assert report.ok
        assert report.values == VALUES

    def test_arrays_and_tables_come_back(self, run):
        """NumPy and pandas, of several dtypes, writable."""
        array = np.arange(24.0).reshape(2, 3, 4)[:, ::2]
        table = pd.DataFrame(
            {"n": [1, 2], "t": ["a", None], "d": pd.to_datetime(["2024-01-01", None]), "c": pd.Categorical(["x", "y"])},
            index=pd.Index(["k", "l"], name="key"),
        )
        report = run("array2, table2 = array, table", input={"array": array, "table": table}, output="array2,table2")
        np.testing.assert_array_equal(report.values["array2"], array)
        pd.testing.assert_frame_equal(report.values["table2"], table)
        report.values["array2"][0, 0, 0] = 9
        assert array[0, 0, 0] == 0

    def test_function_of_the_caller_goes_in(self, run):
        """Functions that no module inside has are taken along."""
        report = run("y = list(map(f, range(3)))", input={"f": lambda x: x * 10}, output=["y"])
        assert report.values == {"y": [0, 10, 20]}

    def test_what_inputs_share_they_share_inside(self, run):
        """One object under two names stays one."""
        shared = [1]
        report = run("same = a[0] is b", input={"a": [shared], "b": shared}, output="same")
        assert report.values == {"same": True}

    def test_copy_of_the_caller_stays_untouched(self, run):
        """What the code writes to is its own, also where nothing was copied."""
        array = np.zeros(1_000_000)
        report = run("array[:] = 1; s = float(array.sum())", input={"array": array}, output="s")
        assert report.values == {"s": 1e6}
        assert array.sum() == 0

    def test_stream_has_them_as_events(self):
        """Before ``Exited``."""
        events = list(cm.stream("y = x + 1", input={"x": 1}, output="y", timeout="60s"))
        (returned,) = [event for event in events if isinstance(event, Returned)]
        assert (returned.name, returned.value) == ("y", 2)
        assert events.index(returned) < next(n for n, event in enumerate(events) if isinstance(event, Exited))

    def test_warm_container_takes_them_and_does_without(self, run):
        """A container that waits does not know which it will be."""
        for number in range(3):
            assert run("y = x", input={"x": number}, output="y").values == {"y": number}
            assert run("x = 1").values == {}
            assert run("y = 2", output="y").values == {"y": 2}

    def test_report_keeps_values_out_of_its_json(self, run):
        """They are any objects; the report without them is whole."""
        report = run("x = b'1'", output="x")
        assert "values" not in report.to_dict()
        assert cm.RunReport.from_dict(report.to_dict()) == report
        assert "b'1'" not in repr(report)

    def test_exit_with_zero_returns(self, run):
        """``sys.exit()`` is a good end."""
        assert run("x = 1\nraise SystemExit", output="x").values == {"x": 1}

    def test_no_descriptor_is_left(self, run):
        """Neither here nor inside, where a mapping has one of its own until nothing needs it."""
        run("pass", input={"x": 1})
        before = os.listdir("/proc/self/fd")
        links = "[os.readlink(f'/proc/self/fd/{fd}') for fd in range(100) if os.path.exists(f'/proc/self/fd/{fd}')]"
        source = f"import os\nfull = {links}\ndel x\nempty = {links}"
        report = run(source, input={"x": np.zeros(1_000_000)}, output="full,empty")
        assert sum("memfd" in link for link in report.values["full"]) == 1
        assert sum("memfd" in link for link in report.values["empty"]) == 0
        assert len(os.listdir("/proc/self/fd")) <= len(before)


class TestRefused:
    """Nothing is started, or nothing comes out."""

    def test_what_cannot_go_in_starts_nothing(self, run):
        """The error names variable, type and reason."""
        with pytest.raises(cm.OptionError, match=r"--input lock: a _thread.lock cannot go into a container"):
            run("pass", input={"lock": __import__("threading").Lock()})

    def test_inputs_are_a_mapping(self, run):
        """A list of names has no values."""
        with pytest.raises(cm.OptionError, match=r"accepted: a mapping of names to values.*not list"):
            run("pass", input=["x"])

    @pytest.mark.parametrize("options", [{"input": {"x": 1}}, {"output": "x"}])
    def test_commands_and_other_languages_have_no_variables(self, run, options):
        """They are said to be for Python."""
        for source, more in ((["true"], {}), ("true", {"lang": "sh"})):
            with pytest.raises(cm.OptionError, match="only a cell of Python has variables"):
                run(source, **options, **more)

    def test_map_has_no_variables(self):
        """Its runs are scripts."""
        with pytest.raises(cm.OptionError, match="only a cell of Python"):
            cm.map("pass", ["1"], output="x")

    def test_name_that_the_code_did_not_define_is_its_error(self, run):
        """And the others do not come either."""
        report = run("x = 1", output="x,nope")
        assert (report.verdict, report.error.ename, report.values) == ("RUNTIME_ERROR", "NameError", {})
        assert "--output nope" in report.error.evalue

    def test_kind_that_cannot_come_out_is_the_codes_error_with_a_remedy(self, run):
        """Type and what to do instead."""
        report = run("class A: pass\nx, y = 1, [A()]", output="x,y")
        assert (report.verdict, report.error.ename, report.values) == ("RUNTIME_ERROR", "OutputError", {})
        assert "--output y: a '__main__.A' cannot come out of a container" in report.error.evalue
        assert "hint: return " in report.error.evalue
        assert "container_magic" not in report.stderr

    def test_failing_code_returns_nothing(self, run):
        """Its variables are half done."""
        report = run("x = 1\n1 / 0", output="x")
        assert (report.error.ename, report.values) == ("ZeroDivisionError", {})

    def test_module_that_is_missing_inside_is_the_codes_error(self, run, tmp_path, monkeypatch):
        """The message names the module."""
        (tmp_path / "only_out_here.py").write_text("class Thing: pass")
        monkeypatch.syspath_prepend(tmp_path)
        import only_out_here

        report = run("print('ran')", input={"thing": only_out_here.Thing()})
        assert (report.verdict, report.error.ename, report.stdout) == ("RUNTIME_ERROR", "InputError", "")
        assert "needs the module 'only_out_here'" in report.error.evalue

    def test_code_that_ends_itself_before_is_said_to(self, run):
        """``os._exit(0)`` is a good end without values: the report says what is missing."""
        report = run("import os\nx = 1\nos._exit(0)", output="x")
        assert (report.verdict, report.values) == ("OK", {})
        assert report.error.evalue == "--output: the code ended before it could return x"


class TestLarge:
    """Gigabytes in, hundreds of megabytes out."""

    def test_gigabyte_that_is_read_takes_no_memory_inside(self):
        """A table of 1 GB is summed up; the peak is less than 50 MB above that of the same run with a small one."""
        source = "s = float(df.sum().sum())"
        small = run_large(source, input={"df": pd.DataFrame(np.ones((10, 10)))}, output="s")
        large = run_large(source, input={"df": pd.DataFrame(np.ones((12_500_000, 10)))}, output="s")
        assert (small.values, large.values) == ({"s": 100.0}, {"s": 125e6})
        if large.usage.memory_peak_bytes is None:
            pytest.skip("this host does not tell the peak")
        assert large.usage.memory_peak_bytes - small.usage.memory_peak_bytes < 50 * MB

    def test_200_megabytes_come_out(self):
        """Byte for byte."""
        report = run_large("import numpy\nx = numpy.arange(25_000_000)", output="x")
        assert report.ok, report.error
        assert report.values["x"].nbytes == 200 * MB
        assert (report.values["x"] == np.arange(25_000_000)).all()

    def test_more_than_the_cap_is_the_codes_error(self):
        """Two halves of what is too much; nothing was sent of the first."""
        source = (
            "import mmap\nx = memoryview(mmap.mmap(-1, 600 << 20))\nimport numpy\nx = y = numpy.frombuffer(x, 'u1')"
        )
        report = run_large(source, output="x,y")
        assert (report.error.ename, report.values) == ("OutputError", {})
        assert "--out-file" in report.error.evalue

    def test_code_that_is_stopped_while_it_returns_is_stopped(self):
        """The limits hold to the end."""
        report = cm.run("x = [[0]] * 1_900_000", output="x", timeout="500ms")
        assert (report.verdict, report.values) == ("TIME_LIMIT", {})


@pytest.mark.parametrize(
    ("attack", "said"),
    [
        ("write(value('y', stream(b'1')))", "nobody waits for a variable 'y'"),
        ("write((value('x', stream(b'1')) + value('x', last=True)) * 2)", "nobody waits"),
        ("write(value('x', stream(b'1')[:-1], last=True))", "cut short"),
        ("write(value('x', stream(b'1') + b'more'))", "belong to nothing"),
        ("write(value('x', struct.pack('=QQ', 2**63, 1)))", "is too much"),
        ("write(value('x', struct.pack('=QQQ', 1, 1, 2**62)))", "is too much"),
        ("write(value('x', stream(b'{\"pickle\": 0}', b'cos\\nsystem\\n.'), last=True))", "no known kind"),
        ("write(value('x', stream(b'[' * 100_000), last=True))", "nested deeper"),
        ("write(value('x', stream(b'{\"array\": [\"|O\", [1], 0]}', bytes(8)), last=True))", ""),
        ("while True: write(value('x') * 1000)", "too many pieces"),
        ("write(value('x', b'1', extra=1))", "cannot be understood"),
        ("write(value(7))", "cannot be understood"),
    ],
)
def test_hostile_frame_ends_the_container(run, attack, said):
    """Whatever the code goes on to do: its verdict is OUTPUT_LIMIT, and no value is taken from it."""
    report = run(HOSTILE + attack + "\nx = 1\nimport time; time.sleep(60)", output="x", timeout="40s")
    assert (report.verdict, report.error.ename, report.values) == ("OUTPUT_LIMIT", "ChannelError", {})
    assert said in report.error.evalue


def test_values_that_nobody_wants_are_not_kept(run):
    """A run without outputs takes none."""
    report = run(HOSTILE + "write(value('x', stream(b'1'), last=True))\nimport time; time.sleep(60)")
    assert (report.verdict, report.values) == ("OUTPUT_LIMIT", {})


def test_memory_that_is_announced_is_not_taken(run):
    """A length of one gigabyte without the bytes."""
    run("x = 1", output="x")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    report = run(HOSTILE + "write(value('x', struct.pack('=QQQ', 2, 1, 2**29)))\nos._exit(0)", output="x")
    assert (report.verdict, report.values) == ("OK", {})
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024


class TestSessions:
    """Each cell has variables of its own."""

    def test_every_cell_takes_and_returns(self):
        """In the first cell and in later ones."""
        with cm.Session(mem="256M") as work:
            assert work.run("y = x * 2", input={"x": 4}, output="y").values == {"y": 8}
            assert work.run("z = x + y + w", input={"w": 1}, output="y,z").values == {"y": 8, "z": 13}
            assert work.run("z").values == {}
            array = np.ones(1_000_000)
            assert work.run("s = float(a.sum())", input={"a": array}, output=["s"]).values == {"s": 1e6}

    def test_session_lives_on_when_a_value_is_refused(self):
        """The cell fails, its names are there."""
        with cm.Session(mem="256M") as work:
            report = work.run("x = object()", output="x")
            assert (report.error.ename, work.alive) == ("OutputError", True)
            report = work.run("print(type(x).__name__)", output="nope")
            assert (report.stdout, report.error.ename) == ("object\n", "NameError")
            with pytest.raises(cm.OptionError, match="cannot go into a container"):
                work.run("pass", input={"lock": __import__("threading").Lock()})
            assert work.run("1").ok

    def test_hostile_cell_of_a_session_ends_it(self):
        """A value that was wanted of the cell before is not wanted of this one."""
        with cm.Session(mem="256M") as work:
            assert work.run("x = 1", output="x").values == {"x": 1}
            report = work.run(HOSTILE + "write(value('x', stream(b'1')))\nimport time; time.sleep(60)")
            assert (report.verdict, report.values, work.alive) == ("OUTPUT_LIMIT", {}, False)

    def test_what_belongs_to_a_cell_is_refused_for_a_session(self):
        """Outputs are said with the cell, files come out at the end of a container."""
        with pytest.raises(cm.OptionError, match=r"session.run\(source, output=...\)"):
            cm.Session(output="x")
        with pytest.raises(cm.OptionError, match="a session lives on"):
            cm.Session(out_file="*.csv")
