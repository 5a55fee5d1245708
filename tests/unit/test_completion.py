"""What Tab offers on a line of options, whichever front asks."""

import os
import shutil
import subprocess
import sys
import types

import pytest

from container_magic import shell_completion
from container_magic.errors import HostError, OptionError
from container_magic.options import OPTIONS, completion, options_of
from container_magic.options.completion import at_cursor, value_words
from container_magic.options.option import Option


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Make a directory with some files the current one."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/one.csv").touch()
    (tmp_path / "data.env").touch()
    (tmp_path / ".hidden").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1, 3})


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--cpu-t", ["--cpu-time"]),
        ("--frob", []),
        ("--net ", ["none", "host"]),
        ("--network h", ["host"]),
        ("--net=h", ["--net=host"]),
        ("--quiet --lang p", ["python", "perl"]),
        ("--profile ", ["grade", "teach", "strict"]),
        ("--report f", ["full"]),
        ("--cpus ", ["0", "1", "3", "0-3"]),
        ("--cpus 0,", ["0,0", "0,1", "0,3", "0,0-3"]),
        ("--cpus 1-", ["1-3"]),
        ("--cpuset-cpus=0,1-", ["--cpuset-cpus=0,1-3"]),
        ("-v ", ["data.env", "data/"]),
        ("-v ./da", ["./data.env", "./data/"]),
        ("-v ~/data/", ["~/data/one.csv"]),
        ("-v .h", [".hidden"]),
        ("-v ./data:/d", []),
        ("-v ./data:/data:", ["./data:/data:ro", "./data:/data:rw"]),
        ("-v ./data:/data:r", ["./data:/data:ro", "./data:/data:rw"]),
        ("--env-file data.", ["data.env"]),
        ("--env-file nowhere/", []),
        ("--mem ", []),
        ("--read-only --hostn", ["--hostname"]),
    ],
)
def test_words_at_the_cursor(files, line, expected):
    """Options, listed values, CPUs of this process, paths; nothing where nothing can be listed."""
    *before, current = line.split(" ")
    assert at_cursor(before, current, "magic") == expected


def test_names_of_the_session_stand_in_lists():
    """A name that is there already is not offered again."""
    option = Option(names=("--input", "-i"), help="", section="", field="x", parse=str, completes="variables")
    assert value_words(option, "", ["df", "x"]) == ["df", "x"]
    assert value_words(option, "df,", ["df", "x"]) == ["df,x"]
    assert value_words(option, "df,y", ["df", "x"]) == []


def test_directory_of_many_files_is_bounded(files, monkeypatch):
    """A page of names, not a million."""
    monkeypatch.setattr(completion, "MOST_PATHS", 1)
    assert at_cursor(["-v"], "", "magic") == ["data.env"]


def test_command_line_has_its_own_options():
    """What a front does not take is not offered there."""
    assert "--report-file" in at_cursor([], "--rep", "cli")
    assert "--report-file" not in at_cursor([], "--rep", "magic")
    assert at_cursor(["-c"], "", "cli") == []


def test_every_accepted_choice_is_offered():
    """What the table lists as choices is what its parser takes."""
    for option in OPTIONS:
        for word in option.choices:
            option.parse(word)  # raises for any other


def complete_in_shell(line, tmp_path):
    """Return what ``contain`` answers when bash asks for ``line``, as argcomplete's script asks it."""
    answer = tmp_path / "answer"
    code = "import sys; sys.argv[0] = 'contain'; from container_magic.cli import main; main()"
    env = os.environ | {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
        "_ARGCOMPLETE_SHELL": "bash",
        "_ARGCOMPLETE_COMP_WORDBREAKS": " \t\n\"'><=;|&(:",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
    }
    subprocess.run([sys.executable, "-c", code], env=env, cwd=tmp_path, check=True, capture_output=True)
    return [word.strip() for word in answer.read_text().split("\n") if word]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("contain ", {"run", "doctor", "kernel", "logs", "diff", "version", "--help", "--version", "--completion"}),
        ("contain --completion ", {"bash", "zsh", "fish"}),
        ("contain doctor --s", {"--self-test"}),
        ("contain doctor --format ", {"json"}),
        ("contain kernel ", {"install", "list", "remove", "start", "--help"}),
        ("contain kernel install --disp", {"--display-name"}),
        ("contain kernel install --report ", {"line", "full", "none"}),
        ("contain kernel install --allow", {"--allow-widgets"}),
        ("contain kernel start --out", set()),
        ("contain kernel list --format ", {"json"}),
        ("contain run --cpu-t", {"--cpu-time"}),
        ("contain run --net ", {"none", "host"}),
        ("contain run --quiet --lang pe", {"perl"}),
        ("contain run --report=f", {"full"}),
        ("contain run --env-file script.e", {"script.env"}),
        ("contain run script.p", {"script.py"}),
        ("contain run --mem 200M scr", {"script.py", "script.env"}),
    ],
)
def test_shell_asks_contain(tmp_path, line, expected):
    """Verbs, options, values and files, through argcomplete's protocol."""
    (tmp_path / "script.py").touch()
    (tmp_path / "script.env").touch()
    assert set(complete_in_shell(line, tmp_path)) == expected


@pytest.mark.parametrize("shell", shell_completion.SHELLS)
def test_script_for_each_shell_is_one_that_it_reads(shell):
    """The script names contain, and the shell, where it is installed, parses it."""
    script = shell_completion.shell_script(shell)
    assert "contain" in script
    if shutil.which(shell):
        done = subprocess.run([shell, "-n"], input=script, text=True, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def test_another_shell_is_refused():
    """The near one is named."""
    with pytest.raises(OptionError) as caught:
        shell_completion.shell_script("bsh")
    assert caught.value.message == "--completion 'bsh': accepted: bash, zsh, fish; did you mean bash?"


def test_without_argcomplete_the_remedy_is_said(monkeypatch):
    """It is an extra."""
    monkeypatch.setitem(sys.modules, "argcomplete", None)
    with pytest.raises(HostError) as caught:
        shell_completion.shell_script("bash")
    assert caught.value.hint == "pip install 'container-magic[completion]'"


def test_answer_names_every_option_of_the_command_line(monkeypatch):
    """The parser that argcomplete is given has the table's options."""
    seen = []
    fake = types.SimpleNamespace(autocomplete=lambda parser, **_: seen.append(parser), FilesCompleter=lambda: None)
    monkeypatch.setitem(sys.modules, "argcomplete", fake)
    shell_completion.answer({"run": ()}, list)
    (subparsers,) = [action for action in seen[0]._actions if action.nargs == "A..."]
    offered = {name for action in subparsers.choices["run"]._actions for name in action.option_strings}
    assert {name for option in options_of("cli") for name in option.names_on("cli")} <= offered
