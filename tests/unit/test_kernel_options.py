"""What `contain kernel start` understands: options of a run, a connection file, and what belongs to ipykernel."""

import pytest

from container_magic.errors import OptionError
from container_magic.kernel.options import check_words, parse_kernel
from container_magic.options import OPTIONS, from_keywords, options_of
from container_magic.options.for_kernel import KERNEL_DEFAULTS, NOT_FOR_A_KERNEL


def kernel(line):
    """Return what a line of words with a connection file asks for."""
    return parse_kernel([*line.split(), "-f", "/run/kernel.json"])


@pytest.mark.parametrize(
    "spelled", (["-f", "/a b.json"], ["--connection-file", "/a b.json"], ["-f=/a b.json"], ["--f=/a b.json"],
                ["--f", "/a b.json"], ["--connection-file=/a b.json"]),
)  # fmt: skip
def test_connection_file_ends_our_words(spelled):
    """Every spelling is understood, and what stands behind it is handed to ipykernel as it is."""
    ours = ["--mem", "1G"]
    behind = ["--HistoryManager.hist_file=:memory:", "--mem", "2G", "--debug"]
    found = parse_kernel([*ours, *spelled, *behind])
    assert (found.connection_file, found.arguments) == ("/a b.json", tuple(behind))
    assert found.spec.resources.memory_bytes == 2**30


def test_defaults_are_those_of_a_run_but_for_reports_and_idle_time():
    """Limits are the same as of a cell; no report is shown, and a kernel waits for its next cell for ever."""
    found, run = kernel(""), from_keywords({})
    assert (found.report, found.html, found.allow_widgets) == ("none", "safe", False)
    assert found.spec.resources == run.spec.resources
    assert found.spec.watch.idle_seconds is None
    assert found.spec.watch.wall_seconds is None
    assert found.spec.explicit == ()
    assert (run.report, run.spec.watch.idle_seconds) == ("line", 3600.0)


def test_kernel_is_a_session():
    """Its interpreter is kept from cell to cell, and shows its own tracebacks."""
    process = kernel("").spec.process
    assert (process.kind, process.session, process.print_traceback) == ("python", True, False)


def test_options_of_a_kernel_reach_their_fields():
    """Reports, widgets, HTML and an idle time can be asked for; --timeout is a limit of the spec."""
    found = kernel("--report full --allow-widgets --html iframe --idle 2h --timeout 10s --profile strict --mem 1G")
    assert (found.report, found.html, found.allow_widgets) == ("full", "iframe", True)
    assert (found.spec.watch.idle_seconds, found.spec.watch.wall_seconds) == (7200.0, 10.0)
    assert (found.spec.resources.memory_bytes, found.spec.root.readonly) == (2**30, True)


@pytest.mark.parametrize("name", [name for option in OPTIONS if "kernel" not in option.fronts for name in option.names])
def test_option_of_one_run_is_refused_with_a_reason(name):
    """Every spelling of an option that makes no sense in a kernel is named, and why."""
    with pytest.raises(OptionError, match=f"^{name} is not an option of a kernel: .{{10}}"):
        parse_kernel([name, "-f", "x"])


def test_each_option_is_either_a_kernels_or_has_a_reason():
    """The reasons and the table name the same options; a default that is another one belongs to an option."""
    taken = {option.name for option in options_of("kernel")}
    assert taken.isdisjoint(NOT_FOR_A_KERNEL)
    assert taken | set(NOT_FOR_A_KERNEL) == {option.name for option in OPTIONS}
    of_table = {option.keyword for option in options_of("kernel")} & set(KERNEL_DEFAULTS)
    assert {"report", "idle"} <= of_table


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no connection file"),
        (["--mem", "1G"], "no connection file"),
        (["-f"], "-f: its value is missing"),
        (["--f="], "--f: its value is missing"),
        (["-f", "a", "-f", "b"], "a second connection file"),
        (["-f", "a", "--IPKernelApp.connection_file=b"], "a second connection file"),
        (["--mem", "-f", "a"], "--mem: its value is missing"),
        (["--mem", "lots", "-f", "a"], "--mem 'lots'"),
        (["notebook.ipynb", "-f", "a"], "unexpected argument 'notebook.ipynb'"),
        (["--", "-f", "a"], "unexpected argument '--'"),
        (["--mmem", "1G", "-f", "a"], "did you mean --mem"),
        (["-mem", "1G", "-f", "a"], "did you mean --mem"),
        (["--allow-widgets=yes", "-f", "a"], "it takes no value"),
    ],
)
def test_malformed_words_are_refused(words, message):
    """One line names the option, its value and what is accepted."""
    with pytest.raises(OptionError, match=message):
        parse_kernel(words)


def test_words_of_an_installed_kernel_hold_no_connection_file():
    """`install` takes the same options without the file that Jupyter gives at start."""
    assert check_words(["--mem", "1G", "--allow-widgets"]).allow_widgets
    for word in ("-f", "--f=x", "--connection-file=x"):
        with pytest.raises(OptionError, match="is what Jupyter gives a kernel when it starts"):
            check_words(["--mem", "1G", word])
