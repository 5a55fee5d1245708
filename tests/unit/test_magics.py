"""``%%contain`` and ``%contain`` in a real IPython shell, over a runtime that replays events."""

import atexit
import os
import subprocess
import sys
import types
from dataclasses import dataclass

import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics
from traitlets.config import Config

from container_magic import errors
from container_magic.events import (
    CodeError,
    Created,
    Deleted,
    Exited,
    LimitReached,
    Output,
    Started,
    Usage,
)
from container_magic.magics import ContainMagics
from container_magic.options import options_of

CREATED = Created(container_id="c1")
STARTED = Started(start="warm", startup_seconds=0.001)
EXITED = Exited(exit_code=0, usage=Usage(wall_seconds=1.02, cpu_seconds=0.98))


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """What the magic asks of the runtime."""

    spec: object
    code: bytes | None
    stdin: int | None = None
    warm: int = 0
    html: str = "safe"
    out_files: tuple[str, ...] = ()
    variables: object = None


class FakeRuntime(types.ModuleType):
    """Stands for ``verbs.run``: replays ``events``, raises the exceptions among them, keeps what was asked."""

    RunRequest = RunRequest

    def __init__(self):
        super().__init__("container_magic.verbs.run")
        self.events = [CREATED, STARTED, EXITED, Deleted()]
        self.requests = []

    def ends(self, *events, exited=EXITED):
        """Set what the next run does."""
        self.events = [CREATED, STARTED, *events, exited, Deleted()]

    def open_run(self, request):
        """Return a run."""
        self.requests.append(request)
        return FakeRun(self.events)

    def dry_run(self, spec):
        """Return a plan."""
        return types.SimpleNamespace(describe=lambda: ["limit mem = 1 by memory.max", "network: none"])


class FakeRun:
    """A run that replays events."""

    def __init__(self, events):
        self.events = events

    def when_idle(self, seconds, action):
        """Never: events follow each other."""

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        return None

    def __iter__(self):
        for event in self.events:
            if isinstance(event, Exception):
                raise event
            yield event


@pytest.fixture
def runtime(monkeypatch):
    """Put a fake in the place of the runtime."""
    import container_magic.verbs

    fake = FakeRuntime()
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    monkeypatch.setattr(container_magic.verbs, "run", fake, raising=False)
    return fake


@pytest.fixture
def started(monkeypatch):
    """Return the processes for which a zygote was to be started ahead; none is."""
    found = []
    monkeypatch.setattr("container_magic.magics._start_zygote", found.append)
    return found


@pytest.fixture
def shell(tmp_path, monkeypatch, started):
    """Return a shell with the magics, without history, that leaves nothing in the home directory."""
    assert started == []
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    config = Config()
    config.HistoryManager.enabled = False
    InteractiveShell.clear_instance()
    made = InteractiveShell.instance(config=config)
    made.run_line_magic("load_ext", "container_magic")
    yield made
    made.atexit_operations()
    atexit.unregister(made.atexit_operations)
    InteractiveShell.clear_instance()


def error_of(result):
    """Return name and message of what a cell raised, as a kernel replies it."""
    error = result.error_before_exec or result.error_in_exec
    return type(error).__name__, str(error)


def test_cell_reaches_the_runtime_as_written(shell, runtime):
    """The body is not expanded, not stripped and encoded as UTF-8; options become the spec."""
    shell.user_ns["x"] = 7
    cell = "print('é $x {x}')\n\n"
    assert shell.run_cell(f"%%contain --mem 200M --cpus 0-1 --net none\n{cell}").success
    (request,) = runtime.requests
    assert request.code == cell.encode()
    assert request.spec.resources.memory_bytes == 200 * 1024**2
    assert request.spec.resources.cpuset_cpus == "0-1"


def test_names_in_the_line_are_expanded(shell, runtime):
    """``$name`` in the line is IPython's, as for every magic."""
    shell.user_ns["size"] = "64M"
    assert shell.run_cell("%%contain --mem $size\npass").success
    assert runtime.requests[0].spec.resources.memory_bytes == 64 * 1024**2


def test_output_goes_to_its_stream_and_the_report_follows(shell, runtime, capsys):
    """Safe text of stdout and stderr, then one line."""
    runtime.ends(
        Output(stream="stdout", data=b"caf\xc3"),
        Output(stream="stderr", data=b"\x1b[31mwarn\x1b[0m\x1b[2J\n"),
        Output(stream="stdout", data=b"\xa9\n"),
    )
    assert shell.run_cell("%%contain\npass").success
    captured = capsys.readouterr()
    assert captured.out == "café\nOK  1.02 s wall  0.98 s CPU  warm\n"
    assert captured.err == "\x1b[31mwarn\x1b[0m\n"


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ("", "OK  1.02 s wall  0.98 s CPU  warm\n"),
        ("--report line", "OK  1.02 s wall  0.98 s CPU  warm\n"),
        ("--report none", ""),
        ("--quiet", ""),
        ("--quiet --report full", ""),
    ],
)
def test_report_is_shown_as_asked(shell, runtime, capsys, options, shown):
    """One line by default, nothing when none is wanted."""
    shell.run_cell(f"%%contain {options}\npass")
    assert capsys.readouterr().out == shown


def test_full_report_shows_every_figure(shell, runtime, capsys):
    """``--report full`` is the page."""
    shell.run_cell("%%contain --report full\npass")
    assert "throttled unknown" in capsys.readouterr().out


def test_report_is_a_display_with_text_and_html(shell, runtime, monkeypatch):
    """A notebook gets both representations in one output."""
    published = []
    monkeypatch.setattr(shell.display_pub, "publish", lambda data, *args, **kwargs: published.append(data))
    shell.run_cell("%%contain\npass")
    (data,) = published
    assert set(data) == {"text/plain", "text/html"}
    assert data["text/plain"].startswith("OK")
    assert data["text/html"].startswith("<div")


def test_report_is_stored(shell, runtime):
    """``_contain`` is the last report, ``--result`` gives it a name, and the cell has no value of its own."""
    result = shell.run_cell("%%contain --result r\npass")
    assert result.result is None
    assert shell.user_ns["r"].verdict == "OK"
    assert shell.user_ns["_contain"] is shell.user_ns["r"]
    shell.run_cell("%%contain\npass")
    assert shell.user_ns["_contain"] is not shell.user_ns["r"]


ERROR = CodeError(ename="ValueError", evalue="bad", traceback=("Traceback of the cell", "ValueError: bad"))


def test_failing_cell_fails_with_the_containers_own_error(shell, runtime, capsys):
    """Name, message and traceback are the container's; the report is shown and stored too; no frame of ours."""
    runtime.ends(ERROR, exited=Exited(exit_code=1))
    result = shell.run_cell("%%contain --result r\nraise ValueError('bad')")
    assert error_of(result) == ("ValueError", "bad")
    captured = capsys.readouterr().out
    assert captured == "RUNTIME_ERROR  exit code 1  warm\nTraceback of the cell\nValueError: bad\n"
    assert shell.user_ns["r"].error == ERROR


def test_limit_fails_the_cell_with_a_sentence(shell, runtime):
    """A run that a limit ended raises an error named after the verdict."""
    runtime.ends(LimitReached(limit="wall"), exited=Exited(exit_signal=9))
    assert error_of(shell.run_cell("%%contain\npass")) == ("TimeLimit", "wall limit reached")


def test_cut_output_alone_does_not_fail_the_cell(shell, runtime, capsys):
    """The cell that wrote too much but ended well goes on; the line says what is missing."""
    runtime.ends(LimitReached(limit="output"), Output(stream="stdout", data=b"", dropped_bytes=5))
    assert shell.run_cell("%%contain\npass").success
    assert "OUTPUT_LIMIT" in capsys.readouterr().out


def test_no_raise_error_shows_the_same_and_goes_on(shell, runtime, capsys):
    """The error text goes to stderr and the cell succeeds."""
    runtime.ends(ERROR, exited=Exited(exit_code=1))
    assert shell.run_cell("%%contain --no-raise-error\npass").success
    captured = capsys.readouterr()
    assert captured.err == "Traceback of the cell\nValueError: bad\n"
    assert captured.out.startswith("RUNTIME_ERROR")


def test_quiet_cell_still_fails(shell, runtime, capsys):
    """``--quiet`` leaves out the report, not the error."""
    runtime.ends(ERROR, exited=Exited(exit_code=1))
    assert error_of(shell.run_cell("%%contain --quiet\npass")) == ("ValueError", "bad")
    assert capsys.readouterr().out == "Traceback of the cell\nValueError: bad\n"


def test_broken_sandbox_is_one_message_and_keeps_what_came(shell, runtime, capsys):
    """Output until then is shown, the report says INTERNAL_ERROR, the error is ours and has a hint."""
    runtime.events = [CREATED, Output(stream="stdout", data=b"half\xc3"), errors.HostError("no overlay", hint="doctor")]
    assert error_of(shell.run_cell("%%contain\npass")) == ("HostError", "no overlay\nhint: doctor")
    assert capsys.readouterr().out == "half\ufffdHostError: no overlay\nhint: doctor\n"
    report = shell.user_ns["_contain"]
    assert (report.verdict, report.error.ename) == ("INTERNAL_ERROR", "HostError")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--mem banana", ["--mem", "banana"]),
        ("--frobnicate", ["--frobnicate"]),
        ("--cpus 3-1", ["--cpus", "3-1"]),
        ("--net foo", ["--net", "foo"]),
        ("--hostname 'open", ["open"]),
        ("print(1)", ["print(1)"]),
    ],
)
def test_bad_line_is_one_message_and_starts_nothing(shell, runtime, capsys, line, words):
    """The message names option and value; there is no traceback."""
    name, message = error_of(shell.run_cell(f"%%contain {line}\npass"))
    assert name == "OptionError"
    assert all(word in message for word in words)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("OptionError: ")
    assert len(lines) <= 2
    assert not runtime.requests


@pytest.mark.parametrize("cell", ["\n", "  \n\t\n"])
def test_empty_cell_starts_nothing(shell, runtime, cell):
    """A cell of white space is said to be empty."""
    name, message = error_of(shell.run_cell(f"%%contain\n{cell}"))
    assert (name, "empty" in message) == ("OptionError", True)
    assert not runtime.requests


def test_half_a_surrogate_is_an_option_error(shell, runtime):
    """A cell that UTF-8 cannot carry is refused with the line."""
    with pytest.raises(errors.OptionError, match="line 2"):
        shell.run_cell_magic("contain", "", "x = 1\ny = '\ud800'")
    assert not runtime.requests


def test_dry_run_prints_the_plan_and_starts_nothing(shell, runtime, capsys):
    """A line for each thing that would be done."""
    assert shell.run_cell("%%contain --dry-run\npass").success
    assert capsys.readouterr().out == "limit mem = 1 by memory.max\nnetwork: none\n"
    assert not runtime.requests


def test_session_defaults_hold_until_a_cell_says_otherwise(shell, runtime, capsys):
    """``%contain OPTIONS`` sets defaults, ``%contain`` shows them, the cell's own options win."""
    shell.run_cell("%contain --mem 512M --env A=1 --no-raise-error")
    shell.run_cell("%contain")
    shown = capsys.readouterr().out.splitlines()
    assert shown[:4] == ["session defaults:", "  --mem 512M", "  --env A=1", "  --no-raise-error"]
    assert "--pids 256" in shown[-1]
    shell.run_cell("%%contain\npass")
    shell.run_cell("%%contain --mem 64M\npass")
    first, second = (request.spec for request in runtime.requests)
    assert first.resources.memory_bytes == 512 * 1024**2
    assert second.resources.memory_bytes == 64 * 1024**2
    assert first.process.env == second.process.env == (("A", "1"),)


def test_no_session_defaults_says_how_to_set_some(shell, capsys):
    """``%contain`` alone is never silent."""
    shell.run_cell("%contain")
    assert capsys.readouterr().out.startswith("session defaults: none; set some with")


def test_bad_session_default_changes_nothing(shell, runtime, capsys):
    """Defaults are checked when they are set, together with those that are set already."""
    shell.run_cell("%contain --mem 100M")
    assert error_of(shell.run_cell("%contain --pids 7 --mem banana"))[0] == "OptionError"
    assert error_of(shell.run_cell("%contain --memory-swap 50M"))[0] == "OptionError"
    assert error_of(shell.run_cell("%contain --pids 7 word"))[0] == "OptionError"
    capsys.readouterr()
    shell.run_cell("%contain")
    assert capsys.readouterr().out.splitlines()[:3] == ["session defaults:", "  --mem 100M", built_in_line()]


def test_session_defaults_are_checked_together(shell, runtime):
    """A default may need another one that is set already, and may contradict it."""
    shell.run_cell("%contain --mem 100M --lang sh")
    assert shell.run_cell("%contain --memory-swap 150M").success
    assert error_of(shell.run_cell("%contain --interpreter /usr/bin/perl"))[0] == "OptionError"
    assert shell.run_cell("%%contain\npass").success
    assert runtime.requests[0].spec.resources.memory_swap_bytes == 150 * 1024**2


def built_in_line():
    """Return the line of the built-in defaults, from the table."""
    words = [f"{option.name} {option.default}" for option in options_of("magic") if option.default]
    return f"built in: {' '.join(words)}"


def test_every_option_is_a_trait(shell, runtime):
    """IPython's configuration sets defaults: texts, numbers, lists and flags; no trait hides anything of Magics."""
    config = Config()
    config.ContainMagics.mem = "128M"
    config.ContainMagics.pids = 50
    config.ContainMagics.volume = ["/usr"]
    config.ContainMagics.env = {"A": "1"}
    config.ContainMagics.best_effort = True
    shell.update_config(config)
    shell.register_magics(ContainMagics)
    shell.run_cell("%%contain\npass")
    spec = runtime.requests[0].spec
    assert (spec.resources.memory_bytes, spec.resources.pids) == (128 * 1024**2, 50)
    assert [mount.destination for mount in spec.mounts] == ["/usr"]
    assert spec.process.env == (("A", "1"),)
    assert spec.best_effort
    assert {option.keyword for option in options_of("magic")} <= set(ContainMagics.class_trait_names(config=True))
    assert not [option.keyword for option in options_of("magic") if hasattr(Magics, option.keyword)]


def test_config_magic_sets_a_default(shell, runtime):
    """``%config ContainMagics.mem = ...`` is the same default."""
    shell.run_cell("%config ContainMagics.mem = '96M'")
    shell.run_cell("%%contain\npass")
    assert runtime.requests[0].spec.resources.memory_bytes == 96 * 1024**2


def test_help_lists_every_option(shell):
    """``%%contain?`` is written from the option table."""
    text = ContainMagics.contain.__doc__
    assert all(option.name in text for option in options_of("magic"))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("%%contain --me", {"--mem", "--mem-high", "--memory", "--memory-high", "--memory-swap"}),
        ("%%contain --mem 1G --cpu-t", {"--cpu-time"}),
        ("%contain --dry", {"--dry-run"}),
        ("%%contain --net ", {"none", "host"}),
        ("%%contain --report f", {"full"}),
        ("%%contain --report=f", {"full"}),
        ("%contain doc", {"doctor"}),
        ("%contain doctor --f", {"--format"}),
        ("%contain doctor --format ", {"json"}),
        ("%contain kernel ", {"install", "list", "remove"}),
        ("%contain kernel install --allow", {"--allow-widgets"}),
        ("%contain kernel install --report n", {"none"}),
        ("%contain logs ", {"abababababab"}),
        ("%%contain --cpus 0-", {"0-7"}),
        ("%%contain --cpuset-cpus=0,7", {"7"}),
        ("%%contain -v ./pl", {"./plain/"}),
        ("%%contain -v ./plain:/in:r", {"ro", "rw"}),
        ("%%contain --lang n", {"node"}),
    ],
)
def test_tab_completes(shell, monkeypatch, tmp_path, line, expected):
    """Options everywhere, values where they can be listed, verbs and their words after ``%contain``."""
    (tmp_path / "plain").mkdir()
    (tmp_path / "pl with blank").mkdir()
    (tmp_path / "container_magic/logs").mkdir(parents=True)
    (tmp_path / f"container_magic/logs/{'ab' * 32}.log").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 7})
    with provisionalcompleter():
        found = {completion.text for completion in shell.Completer.completions(f"{line}\nprint(1)", len(line))}
    assert found == expected


def test_unknown_verb_names_the_near_one(shell):
    """A misspelt verb is one message."""
    name, message = error_of(shell.run_cell("%contain docter"))
    assert name == "OptionError"
    assert "docter" in message
    assert "doctor" in message


def test_mistyped_value_names_the_near_one(shell, runtime):
    """As a mistyped option does."""
    message = error_of(shell.run_cell("%%contain --report ful\npass"))[1]
    assert message == "--report 'ful': accepted: line, full, none; did you mean full?"


def test_tab_offers_the_users_own_names(shell, monkeypatch):
    """Names that IPython itself put there, and hidden ones, are not the user's."""
    from container_magic import magics

    monkeypatch.setattr(magics, "get_ipython", lambda: shell)
    shell.run_cell("df = 1; _private = 2")
    assert magics._own_names() == ["df"]


def test_logs_verb_shows_safe_text_with_an_end(shell, capsys, monkeypatch, tmp_path):
    """A long log shows head, tail and where all of it is; raw bytes are for a terminal."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    directory = tmp_path / "container_magic/logs"
    directory.mkdir(parents=True)
    (directory / f"{'ab' * 32}.log").write_bytes(b"short\x1b[2J \x1b[31mred")
    shell.run_cell("%contain logs")
    assert capsys.readouterr().out == "short \x1b[31mred\x1b[0m\n"
    (directory / f"{'cd' * 32}.log").write_bytes(b"head" + b"x" * 5_000_000 + b"tail")
    shell.run_cell("%contain logs cd")
    shown = capsys.readouterr().out
    assert shown.startswith("headxx")
    assert f"tail\n[all 5,000,008 bytes are in {directory}/{'cd' * 32}.log]\n" in shown
    assert len(shown) < 2.2 * 1024**2
    assert "raw" in error_of(shell.run_cell("%contain logs --raw"))[1]
    assert error_of(shell.run_cell("%contain logs ee"))[0] == "NotFoundError"


def test_version_verb_prints_the_version(shell, capsys):
    """``%contain version`` is ``contain version``."""
    import container_magic

    shell.run_cell("%contain version")
    assert container_magic.__version__ in capsys.readouterr().out


def test_loading_does_not_load_the_runtime():
    """``%load_ext`` stays light: what runs containers is loaded by the first cell."""
    code = (
        "import sys, container_magic.magics;"
        "print([m for m in sys.modules if m.startswith(('container_magic.verbs.', 'container_magic.runtime'))])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def wanted_ahead(shell, started):
    """Return shell and modules of the zygotes that were to be started."""
    shell.magics_manager.registry["ContainMagics"].await_ahead()
    return [(process.shell, process.preload) for process in started]


def test_extension_that_a_configuration_loads_starts_nothing(shell, started):
    """All sessions would pay for what some need: who types ``%load_ext`` wants it."""
    assert wanted_ahead(shell, started) == []


def test_extension_that_a_cell_loads_starts_what_the_defaults_need(shell, started):
    """The zygote that has the shell of cells, and what is to be preloaded."""
    shell.config.ContainMagics.preload = "json"
    shell.run_cell("%reload_ext container_magic", store_history=True)
    assert wanted_ahead(shell, started) == [("ipython", ("json",))]


def test_new_defaults_start_what_they_need(shell, started):
    """Modules are imported before the first cell that has them; who wants nothing to wait gets nothing."""
    shell.run_cell("%contain --preload json,csv")
    assert wanted_ahead(shell, started) == [("ipython", ("json", "csv"))]
    shell.run_cell("%contain --warm 0")
    assert len(wanted_ahead(shell, started)) == 1


def test_defaults_that_make_no_sense_do_not_keep_the_extension_from_being_loaded(shell):
    """The first cell says what is wrong with them."""
    shell.config.ContainMagics.mem = "much"
    assert shell.run_cell("%reload_ext container_magic", store_history=True).success
    assert "--mem" in error_of(shell.run_cell("%%contain\npass"))[1]


def test_process_that_may_have_no_more_threads_can_load_the_extension(shell, monkeypatch):
    """What is started ahead is a comfort."""

    def refuse(_thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", refuse)
    assert shell.run_cell("%reload_ext container_magic", store_history=True).success
    assert shell.run_cell("%unload_ext container_magic").success
