"""What contained code shows, through ``cm.run`` and ``cm.stream``; and a channel in hostile hands."""

import resource

import pytest

import container_magic as cm
from container_magic.events import Cleared, Displayed, Output
from container_magic.options import for_shell, from_keywords
from container_magic.runtime import client
from container_magic.runtime.request import RunRequest
from container_magic.runtime.run import Run

# finds the channel as an attacker would: there is no other socket
HOSTILE = """
import json, os, stat, struct
def is_socket(fd):
    try:
        return stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError:
        return False
(fd,) = [fd for fd in map(int, os.listdir("/proc/self/fd")) if is_socket(fd)]
def frame(header, body=b""):
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("=II", len(head), len(body)) + head + body
def show(text, **fields):
    return frame({"op": "display", "seq": 1, "parts": [["text/plain", "text", len(text)]], **fields}, text)
def write(data):
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view):]
print("before")
"""


def texts(report):
    """Return the text of each output."""
    return [output["data"]["text/plain"] for output in report.outputs]


class TestPlainShell:
    """``cm.run`` and ``cm.stream`` run source in the plain shell."""

    def test_last_expression_is_an_output(self, run):
        """The value is an execute_result; what is None or hushed is not shown, and nothing is printed."""
        report = run("x = 6\nx * 7")
        assert report.outputs == ({"output_type": "execute_result", "data": {"text/plain": "42"}, "metadata": {}},)
        assert report.stdout == ""
        for source in ("x = 1", "None", "6 * 7;", "6 * 7  ;  # hushed", "", "# nothing", "def f(): pass"):
            assert run(source).outputs == ()

    def test_display_and_clear_output_are_there(self, run):
        """Built-in names, without an import; updates and clears end in what a front end would hold."""
        report = run(
            """
            display("gone")
            clear_output()
            name = display(1, 2, display_id=True)
            display("new", display_id=name, update=True)
            clear_output(wait=True)
            clear_output(wait=True)
            display("last", "of all")
            """
        )
        assert texts(report) == ["'last'", "'of all'"]

    def test_update_takes_the_place_of_what_has_its_name(self, run):
        """Every output of that name changes, where it stands; an update of nothing shows nothing."""
        code = "display(1, display_id='a')\ndisplay(2)\ndisplay(3, display_id='a')\n"
        code += "display('x', display_id='a', update=True)\ndisplay('y', display_id='b', update=True)"
        assert texts(run(code)) == ["'x'", "2", "'x'"]

    def test_objects_show_themselves(self, run):
        """A repr that fails is a text, a method that fails is left out."""
        report = run(
            """
            class Odd:
                def __repr__(self): raise ValueError("no")
                def _repr_html_(self): raise ValueError("no")
            class Bundle:
                def _repr_mimebundle_(self, include=None, exclude=None): return {"text/plain": "from a bundle"}
            display(Odd, Bundle())
            Odd()
            """
        )
        assert texts(report)[1:] == ["from a bundle", "<Odd: repr failed: ValueError>"]

    def test_events_come_in_the_order_of_the_code(self):
        """Output, displays and clears of a stream are in the order in which they were made."""
        code = "print('a')\ndisplay(1)\nprint('b')\nclear_output()\nprint('c')\n2"
        seen = [""]
        for event in cm.stream(code, timeout="60s"):
            if isinstance(event, Output):
                seen[-1] += event.data.decode()
            elif isinstance(event, (Displayed, Cleared)):
                seen += [event, ""]
        assert [seen[0], seen[2], seen[4]] == ["a\n", "b\n", "c\n"]
        assert [type(event) for event in seen[1::2]] == [Displayed, Cleared, Displayed]

    def test_python_means_what_it_means_in_a_file(self, run):
        """Futures hold for all of the source, errors of syntax come before anything runs, strings are no output."""
        futures = "'''doc'''\nfrom __future__ import annotations\n'not doc'\n"
        futures += "def f(x: nothing): pass\n__doc__, f.__annotations__"
        assert texts(run(futures)) == ["('doc', {'x': 'nothing'})"]
        broken = run("print('not run')\nreturn 1")
        assert (broken.stdout, broken.error.ename) == ("", "SyntaxError")
        late = run("print('not run')\nfrom __future__ import annotations")
        assert (late.stdout, late.error.ename) == ("", "SyntaxError")
        assert run("import warnings\nx = 1 is 1").stderr.count("SyntaxWarning") == 1

    def test_traceback_has_only_the_code(self, run):
        """Of a statement that runs alone the numbers are those of the source."""
        report = run("x = 1\n\ndef f():\n    raise ValueError('bad')\n\nf()")
        assert report.stderr.splitlines()[:3] == [
            "Traceback (most recent call last):",
            '  File "<cell>", line 6, in <module>',
            "    f()",
        ]
        assert report.error.ename == "ValueError"
        assert "container_magic" not in report.stderr

    def test_figure_is_an_output(self, run):
        """A figure that is open at the end is shown, also when the code fails."""
        code = "import matplotlib\nmatplotlib.use('agg')\nimport matplotlib.pyplot as plt\nplt.plot([1, 2]);\n"
        assert texts(run(code)) == ["<Figure size 640x480 with 1 Axes>"]
        assert texts(run(code + "1 / 0")) == ["<Figure size 640x480 with 1 Axes>"]

    def test_input_reads_standard_input(self, run):
        """There is nobody to ask: the end of the file, at once."""
        assert run("input()").error.ename == "EOFError"

    def test_map_and_commands_have_no_channel(self):
        """What runs as a script shows nothing, and has no descriptor for it."""
        (report,) = cm.map("import os\nprint(len(os.listdir('/proc/self/fd')))\n7", [""], timeout="60s")
        assert (report.stdout, report.outputs) == ("4\n", ())


class TestWhereItWas:
    """A cell that is ended says which line it was at."""

    def test_limits_name_the_line(self, run, needs):
        """The first line of the statement of the top level, for wall time, memory and signals."""
        assert run("x = 1\nwhile True:\n    pass", timeout="300ms").line == 2
        assert run("import os\n\n@(lambda f: f)\ndef f():\n    pass\nos.kill(os.getpid(), 9)").line == 6
        needs(mem="64M")
        report = run("x = 1\n\ny = bytearray(\n    500_000_000)", mem="64M")
        assert (report.verdict, report.line) == ("MEMORY_LIMIT", 3)
        assert "memory limit 64 MB reached in line 3" in str(report)

    def test_who_ends_by_itself_names_none(self, run):
        """An error has its own traceback."""
        assert run("x = 1").line is None
        assert run("1 / 0").line is None

    def test_line_is_bounded_whatever_the_code_writes(self, run):
        """The slot is the code's to write: nonsense is no line."""
        code = """
        import ctypes, os, re
        for line in open("/proc/self/maps"):
            if "rw-s" in line and ("/dev/zero" in line or "memfd:" in line):
                begin, end = (int(word, 16) for word in line.split()[0].split("-"))
                ctypes.memset(begin, 0xFF, end - begin)
                os.kill(os.getpid(), 9)
        """
        report = run(code)
        assert (report.verdict, report.line, report.error) == ("SIGNALED", None, None)


BROKEN = {
    "a header's length that lies": 'write(struct.pack("=II", 2**32 - 1, 5) + b"x" * 100)',
    "a body's length that lies": 'write(struct.pack("=II", 5, 2**31))',
    "no JSON": 'write(frame(b"hello"))',
    "an unknown op": 'write(frame({"op": "execute", "seq": 1}))',
    "NaN": """write(frame(b'{"op":"display","seq":1,"parts":[],"metadata":{"a":NaN}}'))""",
    "deep nesting": """write(frame(b'{"op":"display","seq":1,"parts":[],"metadata":{"a":' + b"[" * 400000))""",
    "parts that lie": 'write(frame({"op": "display", "seq": 1, "parts": [["text/plain", "text", 9]]}, b"x"))',
    "random bytes": "write(b'\\xff' + os.urandom(100_000))",
    "a flood": "data = show(b'x' * (60 << 20))\nwhile True: write(data)",
}


class TestHostileChannel:
    """Whatever is written to the channel, the client is unharmed and the verdict is right."""

    @pytest.mark.parametrize("code", BROKEN.values(), ids=BROKEN)
    def test_what_is_no_frame_ends_the_container(self, run, code):
        """OUTPUT_LIMIT, with an error that says what was wrong; what was printed before is there."""
        # the header that is cut short has to be whole to be looked at
        code = code.replace('b"[" * 400000)', 'b"[" * 400000 + b"]" * 400000 + b"}}")')
        report = run(HOSTILE + code + "\nwhile True: pass")
        assert (report.verdict, report.error.ename) == ("OUTPUT_LIMIT", "ChannelError")
        assert report.stdout == "before\n"
        assert run("1").ok

    def test_verdict_is_right_when_the_code_ends_first(self, run):
        """A broken frame is no less broken because its writer is gone."""
        report = run(HOSTILE + 'write(frame(b"hello"))\nos._exit(0)')
        assert (report.verdict, report.error.ename) == ("OUTPUT_LIMIT", "ChannelError")

    def test_half_a_frame_is_lost_and_no_crime(self, run):
        """A process may die while it shows something."""
        report = run(HOSTILE + 'write(show(b"whole"))\nwrite(show(b"half")[:-1])\nos._exit(0)')
        assert (report.verdict, texts(report)) == ("OK", ["whole"])

    def test_flood_of_outputs_is_counted(self, run):
        """A hundred thousand outputs: the first are shown, the rest is a number."""
        report = run(HOSTILE + "data = show(b'x') * 1000\nfor _ in range(100): write(data)")
        assert report.ok
        assert texts(report)[:1000] == ["x"] * 1000
        assert texts(report)[1000:] == ["[... 99,000 outputs not shown: a cell shows 1,000, of 64 MB ...]"]

    def test_outputs_of_the_same_name_are_updated_once_each(self, run):
        """Duplicate ids cost nothing but what the caps allow."""
        report = run(
            HOSTILE + "write(show(b'x', display_id='a') * 900)\nwrite(show(b'y', display_id='a', update=True))"
        )
        assert texts(report) == ["y"] * 900

    def test_memory_of_the_client_is_bounded(self, run):
        """Gigabytes of frames do not stay."""
        run("1")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        run(HOSTILE + "data = show(b'x' * (4 << 20))\nfor _ in range(200): write(data)")
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024

    def test_questions_that_nobody_answers_hold_nothing_up(self, run):
        """A question in a run whose caller knows of none is ignored, and the run ends as it would."""
        report = run(HOSTILE + "for _ in range(1000): write(frame({'op': 'input', 'seq': 1}))")
        assert report.ok

    def test_closed_channel_is_no_channel(self, run):
        """Code that closes all its descriptors still runs, and shows what it shows as text."""
        report = run("import os\nos.closerange(3, 1000)\ndisplay('text')\n5")
        assert (report.verdict, report.stdout, report.outputs) == ("OK", "'text'\n5\n", ())

    def test_answers_that_are_not_read_hold_nothing_up(self, run):
        """The client never waits for the payload to read."""
        report = run(HOSTILE + "for _ in range(20_000): write(frame({'op': 'clear', 'seq': 1}))\nprint('end')")
        assert (report.verdict, report.stdout) == ("OK", "before\nend\n")


def test_shells_of_notebooks_have_a_zygote_of_their_own():
    """The plain zygote never loads IPython, and the other one has it before a cell comes."""
    spec = for_shell(from_keywords({"timeout": "60s"}).spec, "ipython")
    with Run(RunRequest(spec=spec, code=b"import sys\nprint('IPython.core.ultratb' in sys.modules)")) as run:
        output = [event.data for event in run if isinstance(event, Output)]
    assert b"".join(output) == b"True\n"
    assert cm.run("import sys\n'IPython' in sys.modules", timeout="60s").outputs[0]["data"]["text/plain"] == "False"
    client._forget(client.modules_of(spec.process))
