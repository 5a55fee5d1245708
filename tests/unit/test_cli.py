"""``contain``: words in, exit code and bytes out; the verbs behind it are replaced by scripts of events."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import subprocess
import sys
import threading
import types

import pytest

from container_magic import __version__, cli
from container_magic.errors import HostError, InternalError, NotFoundError
from container_magic.events import (
    Created,
    Deleted,
    Exited,
    Failed,
    Interrupted,
    LimitReached,
    Output,
    Sampled,
    Started,
    Usage,
)

OK = Exited(exit_code=0, usage=Usage(wall_seconds=0.5, cpu_seconds=0.25))


@dataclasses.dataclass(frozen=True, kw_only=True)
class FakeRequest:
    """What the command line hands to the verb."""

    spec: object
    code: bytes | None
    stdin: int | None = None
    out_files: tuple[str, ...] = ()
    once: bool = False


class FakeVerb:
    """Stands for container_magic.verbs.run: plays events, keeps the request."""

    def __init__(self):
        self.events = [Created(container_id="c1"), Started(), OK, Deleted()]
        self.error = None
        self.request = None
        self.closed = False

    def open_run(self, request):
        """Return a run that plays the events."""
        self.request = request
        if self.error:
            raise self.error
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.closed = True

    def __iter__(self):
        return iter(self.events)

    def dry_run(self, spec):
        """Return a plan of two lines."""
        return types.SimpleNamespace(describe=lambda: [f"network {spec.network}", "memory 200M by memory.max"])


@pytest.fixture
def verb(monkeypatch):
    """Put the fake in the place of the verb."""
    fake = FakeVerb()
    module = types.ModuleType("container_magic.verbs.run")
    module.RunRequest, module.open_run, module.dry_run = FakeRequest, fake.open_run, fake.dry_run
    monkeypatch.setitem(sys.modules, "container_magic.verbs.run", module)
    return fake


def played(*events):
    """Return a whole run around ``events``; the last one may be how it ended."""
    end = [] if any(isinstance(event, Exited) for event in events) else [OK]
    return [Created(container_id="c1"), Started(), *events, *end, Deleted()]


# --- bad input: one line, exit code 125, nothing started ---


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--frobnicate"], "unknown option '--frobnicate'; contain run --help shows all"),
        (["--memm", "1G", "x.py"], "unknown option '--memm'; did you mean --mem?"),
        (["-mem", "1G", "x.py"], "unknown option -mem; did you mean --mem?"),
        (["--mem", "banana", "x.py"], "--mem 'banana': not a size; accepted: a size such as 200M, 1.5G or 64KiB"),
        (["--mem", "1K", "x.py"], "--mem '1K': the minimum is 6M; accepted: "),
        (["--cpus", "3-1", "x.py"], "--cpus '3-1': the range 3-1 runs backwards; accepted: "),
        (["--net", "foo", "x.py"], "--net 'foo': accepted: none, host"),
        (["-v", "data:/x", "x.py"], "--volume 'data:/x': there are no named volumes: write ./data"),
        (["--mem"], "--mem: its value is missing; accepted: SIZE such as 200M"),
        (["--result", "r", "x.py"], "--result is not an option of contain run, only of %%contain"),
        ([], "nothing to run; accepted: FILE.py, -c CODE or -- COMMAND ARG..."),
        (["--quiet"], "nothing to run; accepted: FILE.py, -c CODE or -- COMMAND ARG..."),
        (["--"], "the command is empty; accepted: COMMAND ARG..."),
        (["--lang", "sh", "--", "ls"], "--lang says what reads code, and a command is no code; accepted: one of them"),
        (
            ["--report-file", "/does-not-exist/r.json", "-c", "1"],
            "--report-file '/does-not-exist/r.json': cannot be written; ",
        ),
    ],
)
def test_bad_words_are_refused_in_one_line_and_nothing_starts(verb, capfd, words, message):
    """Docker's exit code for what the runtime refuses is 125."""
    assert cli.main(["run", *words]) == 125
    out, err = capfd.readouterr()
    assert err.startswith(f"contain: {message}")
    assert (out, err.count("\n"), verb.request) == ("", 1, None)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rnu"], "unknown verb 'rnu'; did you mean contain run?"),
        (
            ["frobnicate"],
            "unknown verb 'frobnicate'; accepted: run, doctor, kernel, logs, diff, version, --help, --version",
        ),
        (["--verson"], "unknown option '--verson'; did you mean contain --version?"),
        (["version", "x"], "unexpected argument 'x'; accepted: no argument"),
        (
            ["doctor", "--format=xml"],
            "contain doctor does not take '--format=xml'; accepted: --format json, --self-test",
        ),
        (["doctor", "now"], "contain doctor does not take 'now'; accepted: --format json, --self-test"),
    ],
)
def test_bad_verbs_and_their_arguments_are_refused_in_one_line(capfd, words, message):
    """An unknown word names what was probably meant."""
    assert cli.main(words) == 125
    assert capfd.readouterr() == ("", f"contain: {message}\n")


def test_file_as_verb_is_told_to_run(tmp_path, monkeypatch, capfd):
    """``contain x.py`` is a common slip."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.py").write_text("")
    assert cli.main(["x.py"]) == 125
    assert capfd.readouterr().err == "contain: unknown verb 'x.py'; did you mean contain run x.py?\n"


def test_missing_file_is_127_and_a_command_without_dashes_is_explained(verb, tmp_path, monkeypatch, capfd):
    """Docker's code for not found."""
    monkeypatch.chdir(tmp_path)
    assert cli.main(["run", "nope.py"]) == 127
    assert capfd.readouterr().err == "contain: cannot run nope.py: no such file\n"
    assert cli.main(["run", "ls", "-l"]) == 127
    assert capfd.readouterr().err.splitlines()[1] == "hint: a command follows two dashes: contain run -- ls"
    assert verb.request is None


def test_file_that_cannot_be_read_is_126(verb, tmp_path, capfd):
    """Docker's code for what cannot be invoked."""
    assert cli.main(["run", str(tmp_path)]) == 126
    assert capfd.readouterr().err == f"contain: cannot read {tmp_path}: Is a directory\n"


# --- what reaches the verb ---


def test_file_is_read_here_and_its_arguments_become_argv(verb, tmp_path):
    """The code crosses as bytes, whatever they are; the program keeps the caller's standard input."""
    file = tmp_path / "x.py"
    file.write_bytes(b"print('\xff\0')\n" * 10)
    assert cli.main(["run", "--mem", "200M", str(file), "--mem", "-x"]) == 0
    request = verb.request
    assert (request.code, request.stdin) == (file.read_bytes(), 0)
    assert request.spec.process.args == (str(file), "--mem", "-x")
    assert request.spec.resources.memory_bytes == 200 * 1024**2


def test_code_and_command_reach_the_verb(verb):
    """``-c CODE ARG`` is Python's, ``-- COMMAND ARG`` is executed as it is."""
    cli.main(["run", "-c", "print(6*7)", "a", "-b"])
    assert (verb.request.code, verb.request.stdin) == (b"print(6*7)", 0)
    assert (verb.request.spec.process.kind, verb.request.spec.process.args) == ("python", ("-c", "a", "-b"))
    cli.main(["run", "--", "/bin/ls", "-l", "--", "--mem"])
    assert (verb.request.code, verb.request.stdin) == (None, 0)
    assert (verb.request.spec.process.kind, verb.request.spec.process.args) == (
        "exec",
        ("/bin/ls", "-l", "--", "--mem"),
    )


def test_shell_reads_the_code_as_its_standard_input(verb, tmp_path):
    """So the caller's standard input is not passed."""
    file = tmp_path / "x.sh"
    file.write_bytes(b"echo $1")
    assert cli.main(["run", "--lang", "bash", str(file), "a"]) == 0
    process = verb.request.spec.process
    assert (verb.request.code, verb.request.stdin) == (b"echo $1", None)
    assert (process.kind, process.args, process.stdin_is_code) == ("exec", ("bash", "/dev/stdin", "a"), True)


def test_dash_reads_the_code_from_standard_input(verb, monkeypatch):
    """The code used it up, so the program gets none."""
    reader, writer = os.pipe()
    os.write(writer, b"print(1)")
    os.close(writer)
    real_open = open
    monkeypatch.setattr(
        "builtins.open", lambda name, *args, **more: real_open(reader if name == 0 else name, *args, **more)
    )
    assert cli.main(["run", "-", "a"]) == 0
    assert (verb.request.code, verb.request.stdin) == (b"print(1)", None)
    assert verb.request.spec.process.args == ("-", "a")
    os.close(reader)


def test_closed_standard_input_is_not_passed(verb):
    """``contain run ... <&-`` runs with none."""
    saved = os.dup(0)
    os.close(0)
    try:
        assert cli.main(["run", "-c", "1"]) == 0
    finally:
        os.dup2(saved, 0)
        os.close(saved)
    assert verb.request.stdin is None


# --- what comes out ---


def test_output_is_passed_on_as_raw_bytes_to_its_own_stream(verb, capfdbinary):
    """No decoding, no line buffering, nothing added to stdout."""
    verb.events = played(
        Output(stream="stdout", data=b"\xc3"),
        Output(stream="stderr", data=b"err\x00"),
        Output(stream="stdout", data=b"\xa9\xff"),
    )
    assert cli.main(["run", "--report", "none", "-c", "1"]) == 0
    assert capfdbinary.readouterr() == (b"\xc3\xa9\xff", b"err\x00")


def test_output_that_was_cut_is_said_on_stderr_only(verb, capfd):
    """Standard output may be data for another program."""
    verb.events = played(Output(stream="stdout", data=b"tail", dropped_bytes=1234))
    cli.main(["run", "--report", "none", "-c", "1"])
    assert capfd.readouterr() == ("tail", "\n[... 1,234 bytes not shown ...]\n")
    cli.main(["run", "--quiet", "-c", "1"])
    assert capfd.readouterr() == ("tail", "")


def test_report_goes_to_stderr_as_a_line_or_in_full_or_not_at_all(verb, capfd):
    """One line by default; --quiet and --report none show nothing."""
    lines = {}
    for words in ((), ("--report", "line"), ("--report", "full"), ("--report", "none"), ("--quiet",)):
        assert cli.main(["run", *words, "-c", "1"]) == 0
        out, err = capfd.readouterr()
        assert out == ""
        lines[words] = err.count("\n")
    assert lines[()] == lines[("--report", "line")] == 1
    assert lines[("--report", "full")] > 3
    assert lines[("--report", "none")] == lines[("--quiet",)] == 0


def test_report_file_holds_the_report_as_json(verb, tmp_path):
    """Also when the program failed."""
    verb.events = played(Output(stream="stdout", data=b"hi"), Exited(exit_code=3))
    file = tmp_path / "r.json"
    assert cli.main(["run", "--quiet", "--report-file", str(file), "-c", "1"]) == 3
    report = json.loads(file.read_text())
    assert (report["verdict"], report["exit_code"], report["stdout"]) == ("RUNTIME_ERROR", 3, "hi")


def test_dry_run_prints_the_plan_and_starts_nothing(verb, capfd):
    """The plan's own lines, on stdout."""
    assert cli.main(["run", "--dry-run", "--net", "host", "-c", "1"]) == 0
    assert capfd.readouterr() == ("network host\nmemory 200M by memory.max\n", "")
    assert verb.request is None


@pytest.mark.parametrize(
    ("events", "code"),
    [
        ([Exited(exit_code=0)], 0),
        ([Exited(exit_code=1)], 1),
        ([Exited(exit_code=255)], 255),
        ([Exited(exit_signal=15)], 143),
        ([Exited(exit_signal=11)], 139),
        ([LimitReached(limit="wall"), Exited(exit_signal=9)], 124),
        ([LimitReached(limit="cpu"), Exited(exit_signal=9)], 124),
        ([LimitReached(limit="memory"), Exited(exit_signal=9, oom_killed=True)], 137),
        ([LimitReached(limit="output"), Exited(exit_code=4)], 4),
        ([Interrupted(), Exited(exit_code=1)], 130),
        ([Interrupted(killed=True), Exited(exit_signal=9)], 130),
    ],
)
def test_exit_code_says_how_the_run_ended(verb, events, code):
    """Docker's codes, and timeout(1)'s for a time limit."""
    verb.events = played(*events)
    assert cli.main(["run", "--quiet", "-c", "1"]) == code


def test_run_without_an_end_is_125(verb):
    """No ``Exited`` means that the sandbox broke."""
    verb.events = [Created(container_id="c1"), Started()]
    assert cli.main(["run", "--quiet", "-c", "1"]) == 125


def test_sandbox_that_breaks_on_the_way_is_125_and_says_why_even_when_quiet(verb, capfd):
    """``--quiet`` leaves out the report, not our own failure."""
    verb.events = [Created(container_id="c1"), Started(), Failed(message="the supervisor died", hint="contain doctor")]
    assert cli.main(["run", "--quiet", "-c", "1"]) == 125
    assert capfd.readouterr() == ("", "contain: the supervisor died\nhint: contain doctor\n")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (HostError("no memory controller", hint="contain doctor"), 125),
        (InternalError("zygote died"), 125),
        (NotFoundError("no program x"), 127),
    ],
)
def test_error_of_the_runtime_is_one_message_with_its_hint(verb, capfd, error, code):
    """Message and hint on stderr, no traceback."""
    verb.error = error
    assert cli.main(["run", "-c", "1"]) == code
    hint = f"hint: {error.hint}\n" if error.hint else ""
    assert capfd.readouterr() == ("", f"contain: {error.message}\n{hint}")


def test_interrupt_before_the_run_is_130(verb):
    """Ctrl-C while things are set up ends quietly."""
    verb.error = KeyboardInterrupt()
    assert cli.main(["run", "-c", "1"]) == 130


def test_reader_that_goes_away_ends_the_run(verb, monkeypatch):
    """EPIPE leaves the run's ``with``, which ends the container; the code is that of SIGPIPE."""
    verb.events = played(*(Output(stream="stdout", data=b"x" * 1000) for _ in range(10)))
    reader, writer = os.pipe()
    os.close(reader)
    real_write = os.write
    monkeypatch.setattr(cli.os, "write", lambda fd, data: real_write(writer if fd == 1 else fd, data))
    assert cli.main(["run", "--quiet", "-c", "1"]) == 141
    assert verb.closed
    os.close(writer)


def test_writing_survives_short_writes_and_a_descriptor_that_does_not_block():
    """Every byte arrives, in order, on a full non-blocking pipe."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    data, got = os.urandom(1 << 20), io.BytesIO()

    def read():
        while chunk := os.read(reader, 5000):
            got.write(chunk)

    thread = threading.Thread(target=read)
    thread.start()
    cli.write_all(writer, data)
    os.close(writer)
    thread.join(10)
    os.close(reader)
    assert got.getvalue() == data


# --- help, version, doctor ---


def test_help_of_run_lists_the_option_table(capfd):
    """From the table, with the three ways to say what runs."""
    assert cli.main(["run", "--mem", "banana", "--help"]) == 0
    out = capfd.readouterr().out
    for words in (
        "contain run [OPTIONS] -- COMMAND [ARG...]",
        "--mem, --memory, -m SIZE",
        "-c CODE",
        "137 memory limit",
    ):
        assert words in out


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_help_lists_every_verb(capfd, words):
    """The verb table is what is shown."""
    assert cli.main(words) == 0
    out = capfd.readouterr().out
    assert all(f"  {name} " in out for name in cli.VERBS)


@pytest.mark.parametrize("name", list(cli.VERBS))
def test_each_verb_has_help(capfd, name):
    """``contain VERB --help`` never starts anything."""
    assert cli.main([name, "--help"]) == 0
    assert capfd.readouterr().out.startswith(f"usage: contain {name}")


@pytest.mark.parametrize("words", [["--version"], ["version"]])
def test_version_is_the_packages(capfd, words):
    """One line."""
    assert cli.main(words) == 0
    assert capfd.readouterr().out == f"contain {__version__}\n"


@pytest.fixture
def doctor(monkeypatch):
    """Put three checks in the place of the host's."""
    check = dataclasses.make_dataclass("Check", ["name", "ok", "detail", "remedy"])
    checks = [
        check(name="overlay", ok=True, detail="mounts in a user namespace", remedy=""),
        check(name="memory", ok=False, detail="no memory controller", remedy="boot with cgroup_enable=memory"),
        check(name="io", ok=None, detail="not a block device", remedy=""),
    ]
    module = types.ModuleType("container_magic.verbs.doctor")
    module.doctor = lambda: checks
    monkeypatch.setitem(sys.modules, "container_magic.verbs.doctor", module)


@pytest.mark.usefixtures("doctor")
def test_doctor_prints_one_line_per_check_with_the_remedy(capfd):
    """yes, no, or - where the host cannot say."""
    assert cli.main(["doctor"]) == 0
    assert capfd.readouterr().out.splitlines() == [
        "yes overlay  mounts in a user namespace",
        "no  memory   no memory controller; remedy: boot with cgroup_enable=memory",
        "-   io       not a block device",
    ]


@pytest.mark.usefixtures("doctor")
@pytest.mark.parametrize("words", [["--format", "json"], ["--format=json"]])
def test_doctor_prints_json(capfd, words):
    """The same facts for programs."""
    assert cli.main(["doctor", *words]) == 0
    checks = json.loads(capfd.readouterr().out)
    assert checks[1] == {
        "name": "memory", "ok": False, "detail": "no memory controller", "remedy": "boot with cgroup_enable=memory",
    }  # fmt: skip


def test_command_line_loads_no_ipython():
    """Neither importing it nor showing its help."""
    code = "import sys; from container_magic import cli; cli.main(['run', '--help'])"
    code += "; sys.exit(any(name.split('.')[0] in ('IPython', 'traitlets', 'ipykernel') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_module_is_the_command():
    """``python -m container_magic`` is ``contain``."""
    done = subprocess.run(
        [sys.executable, "-m", "container_magic", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"contain {__version__}\n"


@pytest.mark.parametrize(("encoding", "frame"), [("utf-8", "│"), ("ascii", "|"), ("latin-1", "|")])
def test_full_report_is_drawn_for_the_terminal(verb, capfd, monkeypatch, encoding, frame):
    """As wide as it is, with characters that it has."""
    samples = [Sampled(time=n / 10, cpu_seconds=n / 20, memory_bytes=n * 1000) for n in range(1, 9)]
    verb.events = [Created(container_id="c1"), Started(), *samples, OK, Deleted()]
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    monkeypatch.setenv("COLUMNS", "70")
    assert cli.main(["run", "--report", "full", "-c", "1"]) == 0
    pictures = [line for line in capfd.readouterr().err.splitlines() if line[0:1] in ("│", "|")]
    assert {line[0] for line in pictures} == {frame}
    assert {len(line) for line in pictures} == {70}


def test_inside_a_container_nothing_is_forked_ahead(monkeypatch, capsys):
    """``contain run`` has nobody make ready what cannot be."""
    begun = []
    monkeypatch.setattr(cli, "is_inside", lambda: True)
    monkeypatch.setattr(cli.launch, "begin_early", lambda _preload: begun.append("boot"))
    monkeypatch.setattr(cli.gc, "disable", lambda: None)
    monkeypatch.setattr(cli.gc, "freeze", lambda: None)
    monkeypatch.setattr(sys, "argv", ["contain", "run", "--help"])
    assert cli.main() == 0
    assert begun == []
    monkeypatch.setattr(cli, "is_inside", lambda: False)
    assert cli.main() == 0
    assert begun == ["boot"]
