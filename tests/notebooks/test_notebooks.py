"""Every notebook of the repository, run in a real Jupyter kernel; what its cells say is checked."""

import base64
import functools
import importlib.util
import re
from pathlib import Path

import nbformat
import pytest

from container_magic.sanitize.escapes import plain_text

# one worker runs them all: each notebook is run once
pytestmark = pytest.mark.xdist_group("notebooks")

DIRECTORY = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = sorted(DIRECTORY.glob("*.ipynb"))
CONTAINED_NOTEBOOK = "06_the_contained_kernel.ipynb"


def load_runner():
    """Return the script that `make demo` runs, as a module."""
    spec = importlib.util.spec_from_file_location("run_notebook", DIRECTORY / "run_notebook.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RUNNER = load_runner()


@functools.cache
def executed(path):
    """Return the notebook with its outputs; each is run once per test process."""
    return RUNNER.run(path)


@functools.cache
def cells(name):
    """Return text of the outputs of each code cell of a notebook, by cell id."""
    notebook = executed(DIRECTORY / name)
    return {
        cell.id: "".join(RUNNER.output_text(output) for output in cell.outputs)
        for cell in notebook.cells
        if cell.cell_type == "code"
    }


def first(cell_id):
    """Return what a cell of the first notebook put out."""
    return cells("01_first_cell.ipynb")[cell_id]


def warm(cell_id):
    """Return what a cell of the notebook on warm starts put out."""
    return cells("07_warm_starts.ipynb")[cell_id]


def variables(cell_id):
    """Return what a cell of the third notebook put out."""
    return cells("02_variables_and_sessions.ipynb")[cell_id]


def risky(cell_id):
    """Return what a cell of the fifth notebook put out."""
    return cells("05_undo_a_risky_cell.ipynb")[cell_id]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_is_stored_without_outputs(path):
    """What is in the repository is valid and clean: no output, no count, the kernel every Jupyter has, or ours."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [(cell.outputs, cell.execution_count) for cell in code] == [([], None)] * len(code)
    contained = path.name == CONTAINED_NOTEBOOK
    assert notebook.metadata.kernelspec.name == (RUNNER.CONTAINED if contained else "python3")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_runs_from_top_to_bottom(path):
    """Every cell is run, and none ends with an error but those that say so by their tag."""
    notebook = executed(path)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not RUNNER.failed(notebook)
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))


@pytest.mark.parametrize(
    ("cell_id", "verdict"),
    [
        ("first", "OK"),
        ("sees", "OK"),
        ("write", "OK"),
        ("memory", "MEMORY_LIMIT"),
        ("time", "TIME_LIMIT"),
        ("error", "RUNTIME_ERROR"),
        ("full", "OK"),
        ("use-defaults", "OK"),
    ],
)
def test_contained_cell_reports_its_verdict(cell_id, verdict):
    """The report's line says how each contained cell ended."""
    assert re.search(rf"^{verdict}  .*\d m?s wall  .* of 200 MB", first(cell_id), re.MULTILINE)


def test_first_cell_prints_its_answer():
    """The output of the code comes before its report."""
    assert first("first").startswith("42\n")


def test_contained_cell_sees_a_system_of_its_own():
    """Root without the notebook's token, variables, network devices, processes and directories."""
    seen = first("sees")
    for line in (
        r"id +uid=0\(root\) gid=0\(root\)",
        r"hostname +[0-9a-f]{12}$",
        r"token +None$",
        r"variable +False$",
        r"networks +\['lo'\]$",
        r"processes +\['1', '2'\]$",
        r"CPUs +\[0, 1\]$",
        r"users +\['root', 'daemon', 'user', 'nobody'\]$",
        r"directory +/root$",
        r"files +bin .*dev etc home .*root run .*usr var",
    ):
        assert re.search(f"^{line}", seen, re.MULTILINE), line


def test_what_a_cell_deletes_is_deleted_for_itself_only():
    """IPython is gone inside the container and whole outside."""
    before, after = re.findall(r"files in IPython \w+: +(\d+)", first("write"))
    (here,) = re.findall(r"files in IPython here: +(\d+)", first("still-there"))
    assert (after, here) == ("0", before)


def test_memory_limit_is_named_with_a_remedy():
    """The cell that ran out of memory printed nothing and is told what to ask for."""
    said = first("memory")
    assert "never printed" not in said
    assert "MemoryLimit: memory limit 200 MB reached in line 1: hoard" in said
    assert "; peak 200 MB; try --mem 400M" in said


def test_output_until_the_time_limit_is_kept():
    """The ticks of the first second are there, the others never happened."""
    said = first("time")
    assert "tick 0\ntick 1\n" in said
    assert "tick 4" not in said
    assert "wall limit 1 s reached" in said


def test_error_of_a_cell_is_its_own():
    """The notebook gets the container's exception with lines of the cell, and nothing of the magic's."""
    notebook = executed(DIRECTORY / "01_first_cell.ipynb")
    (cell,) = (cell for cell in notebook.cells if cell.id == "error")
    (error,) = (output for output in cell.outputs if output.output_type == "error")
    assert (error.ename, error.evalue) == ("ZeroDivisionError", "division by zero")
    text = plain_text("\n".join(error.traceback))
    assert "line 2, in mean" in text
    assert "return sum(values) / len(values)" in text
    assert "container_magic" not in text


def test_error_of_a_cell_is_shown_once():
    """The traceback is the cell's error output and not also text on its standard error."""
    assert plain_text(first("error")).count("ZeroDivisionError: division by zero") == 1


def test_report_is_an_object():
    """``_contain`` and ``--result`` hold what the line shows."""
    assert first("report").startswith("RUNTIME_ERROR ZeroDivisionError 1\n")
    assert first("result") == "(True, True)\n"


def test_full_report_names_what_holds_each_limit():
    """Every figure has a line, and the memory of 120 MB is measured as such."""
    said = first("full")
    for label in ("wall", "CPU", "memory", "tasks", "I/O", "start", "limits", "container"):
        assert re.search(rf"^{label} +\S", said, re.MULTILINE), label
    assert re.search(r"memory 200 MB, held by memory\.", said)
    (peak,) = re.findall(r"^memory +peak ([\d.]+) MB of 200 MB$", said, re.MULTILINE)
    assert 114 < float(peak) < 160


def test_defaults_of_the_session_hold_for_the_next_cell():
    """``%contain`` shows what was set, and a cell without options runs under it."""
    assert "  --mem 200M\n  --cpus 0-1\n  --timeout 30s\n" in first("set-defaults")
    assert first("use-defaults").startswith("with the defaults of the session\nOK  ")


def test_page_of_the_demo_shows_figures_without_script(tmp_path):
    """The HTML page holds the report's table and its picture as an image, and the notebook beside it has outputs."""
    notebook = executed(DIRECTORY / "01_first_cell.ipynb")
    stored, page = RUNNER.write(notebook, "first", tmp_path / "build")
    html = page.read_text(encoding="utf-8")
    assert 'alt="memory and CPU over time"' in html
    assert "data:image/svg+xml;base64," in html
    assert nbformat.read(stored, as_version=4) == notebook


@pytest.mark.parametrize(
    ("cell_id", "start"),
    [
        ("cold", "cold"),
        ("warm", "warm"),
        ("leave", "warm"),
        ("other", "cold"),
        ("none", "cold"),
        ("preload", "cold"),
    ],
)
def test_report_says_how_the_cell_was_started(cell_id, start):
    """The last word of the report's line: cold for the first cell with its options and for ``--warm 0``, else warm."""
    assert re.search(rf"^OK  .*  {start}$", warm(cell_id), re.MULTILINE)


def test_start_of_the_last_cell_is_in_its_report():
    """``_contain.start`` and ``startup_seconds`` are there for the cells that show them."""
    for cell_id, start in (("cold-start", "cold"), ("warm-start", "warm")):
        assert re.fullmatch(rf"{start} [\d.]+ ms\n", warm(cell_id))


def test_warm_start_finds_nothing_of_the_cell_before():
    """The file that one cell wrote is not there for the next with the same options."""
    # where the checkout itself lies in /tmp, the way to its environment is there too
    assert "'trace'" in warm("leave").splitlines()[0]
    assert "'trace'" not in warm("look").splitlines()[0]


def test_preloaded_module_is_there_before_its_import():
    """``--preload`` has imported what the cell imports, and it works."""
    assert warm("preload").startswith("pandas is there before the import: True\n42\n")


def test_three_ways_to_the_same_import_are_shown():
    """Each set of options has its start in the notebook's last cell."""
    assert re.findall(r"^(cold|warm) ", warm("python"), re.MULTILINE) == ["cold", "cold", "warm"]


def test_variables_go_in_and_come_out():
    """The table's summary is the notebook's; its own table is what it was, and a large one took no memory inside."""
    assert re.search(r"longest: \d\d\.\d km", variables("summary"))
    assert all(place in variables("summary") for place in ("hill", "lake", "town"))
    assert variables("change").startswith("0\n")
    assert variables("unchanged") == "True\n"
    assert variables("large-peak") == "25000000.0 True\n"
    assert "array([ 0,  1,  4,  9, 16])" in variables("python")


def test_object_that_cannot_come_out_is_an_error_with_a_remedy():
    """And its description can."""
    assert "--output model: a '__main__.Model' cannot come out of a container" in variables("refused")
    assert "{'slope': 2.5}" in variables("model")


def test_files_come_out():
    """The report names what the notebook reads."""
    assert variables("read").startswith("['tables/summary.csv']\nplace,count,mean\n")


def test_session_goes_on_in_the_next_cell():
    """What the first cell kept, the second finds; the list names the session until it is stopped."""
    assert variables("session-first").startswith("True\n")
    assert "['hill', 'lake', 'town']" in variables("session-second")
    assert "study" in variables("sessions")


def rich(cell_id):
    """Return what a cell of the notebook on rich output put out."""
    return cells("03_rich_output.ipynb")[cell_id]


def bundles(cell_id):
    """Return the types that a cell of that notebook shows, its report left out."""
    notebook = executed(DIRECTORY / "03_rich_output.ipynb")
    (cell,) = (cell for cell in notebook.cells if cell.id == cell_id)
    return [output.data for output in cell.outputs if "data" in output][:-1]


def test_every_cell_of_rich_output_ends_well():
    """Nothing that is left out makes a cell fail."""
    contained = [text for cell_id, text in cells("03_rich_output.ipynb").items() if cell_id not in ("load", "outputs")]
    assert all(re.search(r"^OK  ", text, re.MULTILINE) for text in contained)


def test_values_tables_and_figures_are_shown():
    """The last expression, a table as HTML with its colours, a figure as a picture."""
    assert rich("value").startswith("[0, 1, 4, 9, 16, 25, 36, 49]\n")
    assert bundles("hushed") == []
    assert "Oslo" in bundles("table")[0]["text/html"]
    assert "darkgreen" in bundles("styled")[0]["text/html"]
    assert base64.b64decode(bundles("figure")[0]["image/png"]).startswith(b"\x89PNG")


def test_outputs_are_in_order_and_change():
    """Text around a display, a display that was updated, a line that was rewritten, output that was cleared."""
    assert rich("order").startswith("before\nin between\nafter\n")
    assert rich("update").startswith("done: 499,999,500,000\n")
    assert "step 0" not in rich("clear")
    assert rich("clear").startswith("step 2\n")
    assert rich("progress").startswith("loading 100 %\n")
    assert "\x1b[32mpassed\x1b[0m" in rich("colours")


def test_script_does_not_reach_the_page():
    """It is left out with a line that says so; in a frame it is whole and the frame is a sandbox."""
    assert "application/javascript was not shown" in rich("script")
    assert list(bundles("script")[0]) == ["text/plain"]
    (html,) = (data["text/html"] for data in bundles("handler"))
    assert "<b>bold</b> stays" in html
    assert not any(word in html for word in ("onclick", "alert", "example.org"))
    assert list(bundles("text")[0]) == ["text/plain"]
    assert bundles("iframe")[0]["text/html"].startswith('<iframe sandbox="allow-scripts"')
    assert rich("outputs") == "[('execute_result', ['text/html', 'text/plain'])]\n"


@pytest.mark.parametrize(
    ("cell_id", "line", "advice"),
    [
        ("error", r"RUNTIME_ERROR  exit code 1  ", "ZeroDivisionError: division by zero"),
        ("exit", r"RUNTIME_ERROR  exit code 3  ", "RuntimeFailure: exit code 3$"),
        (
            "memory",
            r"MEMORY_LIMIT  memory limit 200 MB reached in line 2  ",
            r"MemoryLimit: .* in line 2: for number in range\(1_000_000\); peak 200 MB; try --mem 400M$",
        ),
        (
            "timeout",
            r"TIME_LIMIT  wall limit 1 s reached in line 4  ",
            r"TimeLimit: .* in line 4: time.sleep\(60\); try --timeout 2s$",
        ),
        (
            "cpu-time",
            r"TIME_LIMIT  CPU time limit 0.5 s reached in line 2  ",
            r"TimeLimit: .* in line 2: while True; try --cpu-time 1s$",
        ),
        ("pids", r"RUNTIME_ERROR  task limit 32 reached, exit code 1  ", "hint: task limit 32 reached; try --pids 64$"),
        ("threads", r"RUNTIME_ERROR  task limit 32 reached, ", "RuntimeError: can't start new thread"),
        (
            "disk",
            r"RUNTIME_ERROR  disk limit 10 MB reached, exit code 1  ",
            "hint: disk limit 10 MB reached; try --disk 20M$",
        ),
        (
            "flood",
            r"OUTPUT_LIMIT  output limit 100 B reached  .*  210 B of output not shown \(contain logs ",
            r"line 9\nline \n\[\.\.\. 210 bytes not shown \.\.\.\]\n\nline 37$",
        ),
        ("endless", r"OUTPUT_LIMIT  ", "OutputLimit: output limit 100 B reached; try --max-output 200B$"),
    ],
)
def test_failing_cell_says_why_and_what_would_help(cell_id, line, advice):
    """The report's line has the reason, the error's last line what to ask for; "Run all" goes on."""
    said = plain_text(cells("04_when_things_go_wrong.ipynb")[cell_id])
    assert re.search(line, said)
    assert re.search(advice, said, re.MULTILINE)


def test_rest_of_what_goes_wrong_is_told():
    """The log is whole, a wrong option starts nothing, the report is an object."""
    wrong = cells("04_when_things_go_wrong.ipynb")
    assert wrong["logs"].split("\n")[:40] == [f"line {number}" for number in range(40)]
    assert wrong["option"] == "unknown option '--memm'; did you mean --mem?\n"
    assert wrong["value"].startswith("--mem 'banana': not a size; accepted: ")
    assert wrong["report"] == "TIME_LIMIT ('wall',) in line 1\nexit code None signal 9\n"


def test_a_risky_cell_is_undone():
    """The copy is spoiled in little memory, the session is as it was, and what was chosen has come back."""
    assert risky("risk").startswith("[-1. -1. -1.] ['name'] {} False\n")
    assert float(re.search(r"([\d.]+) MB of 200 MB", risky("risk"))[1]) < 100
    assert risky("whole") == "[0. 1. 2.] ['name', 'value'] 42.0 True\n"
    assert risky("kept") == "2 4\n"


def test_a_snapshot_that_goes_wrong_leaves_the_session_alive():
    """Too much memory and a lock that nobody gives back end the copy alone."""
    assert "memory limit 200 MB reached in line 1" in risky("memory")
    assert "wall limit 1 s reached in line 1" in risky("hangs")
    assert risky("alive") == "alive, 50000000 values\n"


def contained(cell_id):
    """Return what a cell of the notebook on the contained kernel put out."""
    return plain_text(cells(CONTAINED_NOTEBOOK)[cell_id])


def test_contained_notebook_runs_in_a_container_of_its_own():
    """Few processes, an empty home, no network."""
    assert "of [1, 2]" in contained("where")
    assert "home: []" in contained("where")
    assert "not reached: " in contained("network")


def test_contained_notebook_writes_its_folder_inside_only():
    """It reads what stands beside it, and what it writes is not there afterwards."""
    assert "01_first_cell.ipynb" in contained("folder")
    assert "['written_inside.txt']" in contained("folder")
    assert not (DIRECTORY / "written_inside.txt").exists()


def test_contained_notebook_keeps_its_state_when_memory_gets_short():
    """The cell is interrupted below the limit, and the next one has what was there before."""
    assert "--mem-high" in contained("memory")
    assert "KeyboardInterrupt" in contained("memory")
    assert "{'kept': 42}" in contained("after")


def test_contained_notebook_says_that_containers_do_not_nest():
    """One line, and nothing was run."""
    assert "cannot be started inside a container" in contained("nesting")
    assert "Traceback" not in contained("nesting")
    assert "never printed" not in contained("nesting")
