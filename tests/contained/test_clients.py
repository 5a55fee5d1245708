"""Notebooks in the contained kernel by the programs that people run them with."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import nbclient
import nbformat
import pexpect
import pytest
from contained import LIMITS, NAME, write_spec

pytestmark = pytest.mark.xdist_group("kernel_clients")

BIN = Path(sys.executable).parent
CELLS = ["x = 6\nprint('printed')", "import pandas\npandas.DataFrame({'a': [1, 2]})", "x * 7"]


def notebook_file(path, *cells, kernel=NAME):
    """Write a notebook that names its kernel, and return its path."""
    spec = {"kernelspec": {"name": kernel, "display_name": kernel, "language": "python"}}
    code = [cell if isinstance(cell, dict) else nbformat.v4.new_code_cell(cell) for cell in cells]
    nbformat.write(nbformat.v4.new_notebook(cells=code, metadata=spec), path)
    return path


def run(*words, **keywords):
    """Run a program of this environment."""
    command = [str(BIN / words[0]), *map(str, words[1:])]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, **keywords)


def texts(notebook):
    """Return what the outputs of each cell have as text."""
    return [
        "".join(output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in cell.outputs)
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def test_nbclient_runs_a_notebook(tmp_path):
    """Outputs, tables as HTML and counts are in the notebook as with any kernel."""
    notebook = nbformat.read(notebook_file(tmp_path / "n.ipynb", *CELLS), as_version=4)
    nbclient.NotebookClient(notebook, timeout=60).execute()
    printed, table, result = texts(notebook)
    assert (printed, result) == ("printed\n", "42")
    assert "a" in table and "<table" in notebook.cells[1].outputs[0].data["text/html"]
    assert [cell.execution_count for cell in notebook.cells] == [1, 2, 3]
    nbformat.validate(notebook)


def test_nbclient_interrupts_a_cell_at_its_own_time_limit(tmp_path):
    """Its ``timeout`` with ``interrupt_on_timeout`` goes to the kernel as an interrupt; the next cell runs."""
    notebook = nbformat.read(notebook_file(tmp_path / "n.ipynb", "while True: pass", "print('next')"), as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=2, interrupt_on_timeout=True, allow_errors=True)
    client.execute()
    assert [output.ename for output in notebook.cells[0].outputs if "ename" in output] == ["KeyboardInterrupt"]
    assert texts(notebook)[1] == "next\n"


def test_nbconvert_executes_a_notebook(tmp_path):
    """``jupyter nbconvert --execute`` with the kernel's name writes a page with the outputs."""
    path = notebook_file(tmp_path / "n.ipynb", *CELLS, kernel="python3")
    named = f"--ExecutePreprocessor.kernel_name={NAME}"
    done = run("jupyter-nbconvert", "--to", "html", "--execute", named, path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "n.html").read_text()
    assert "printed" in page
    assert re.search(r"<pre>42</pre>|>42<", page)


def test_papermill_runs_a_notebook_with_parameters(tmp_path):
    """Parameters are injected, outputs written, and a failing notebook fails with its own error."""
    cell = nbformat.v4.new_code_cell("number = 1", metadata={"tags": ["parameters"]})
    path = notebook_file(tmp_path / "n.ipynb", cell, "print(number * 2)", "raise ValueError('at the end')")
    done = run("papermill", path, tmp_path / "out.ipynb", "-p", "number", "21", "--kernel", NAME, cwd=tmp_path)
    written = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    assert done.returncode == 1
    assert "ValueError: at the end" in done.stderr
    assert "42\n" in "".join(texts(written))


def test_papermill_says_why_a_kernel_died(jupyter, tmp_path):
    """The limit is named where papermill shows its errors, and in the notebook that it writes."""
    name = write_spec(jupyter, "short", (*LIMITS, "--timeout", "1s"))
    path = notebook_file(tmp_path / "n.ipynb", "import time; time.sleep(60)", kernel=name)
    done = run("papermill", path, tmp_path / "out.ipynb", cwd=tmp_path)
    assert done.returncode != 0
    assert "wall limit 1 s reached" in done.stderr
    assert "wall limit 1 s reached" in (tmp_path / "out.ipynb").read_text()


@pytest.fixture
def console(tmp_path):
    """Return ``jupyter console`` on a terminal, at its first prompt."""
    environment = os.environ | {"TERM": "dumb", "HOME": str(tmp_path), "PROMPT_TOOLKIT_NO_CPR": "1"}
    words = ["--kernel", NAME, "--simple-prompt", "--ZMQTerminalInteractiveShell.kernel_timeout=60"]
    child = pexpect.spawn(str(BIN / "jupyter-console"), words, env=environment, encoding="utf-8", timeout=60)
    try:
        child.expect(r"In \[1\]:")
        yield child
    finally:
        child.close(force=True)


def test_console_runs_asks_interrupts_and_exits(console):
    """A session by hand: a result, ``input()``, Ctrl-C in a cell that runs for ever, and ``exit``."""
    console.sendline("6 * 7")
    console.expect(r"Out\[1\]: 42")
    console.expect(r"In \[2\]:")
    console.sendline("print(input('name? ').upper())")
    console.expect(r"name\? ")
    console.sendline("ada")
    console.expect("ADA\r")
    console.expect(r"In \[3\]:")
    console.sendline("import time; print('loop' 'ing', flush=True); time.sleep(60)")
    console.expect("looping")
    time.sleep(0.5)
    console.sendintr()
    console.expect("KeyboardInterrupt")
    console.expect(r"In \[4\]:")
    console.sendline("exit")
    console.expect(pexpect.EOF)


def test_jupyter_run_executes_a_script(tmp_path):
    """``jupyter run`` sends a file to a kernel and prints what comes."""
    path = tmp_path / "script.py"
    path.write_text("import socket\nprint([name for _, name in socket.if_nameindex()])\n")
    done = run("jupyter-run", f"--kernel={NAME}", path, cwd=tmp_path)
    assert (done.stdout, done.returncode) == ("['lo']\n", 0), done.stderr


class Slider:
    """The front end's part of a widget: the models that the kernel has opened, by the protocol of ipywidgets."""

    def __init__(self, kernel):
        self.kernel, self.models = kernel, {}

    def run(self, code):
        """Run a cell and take what it opens and changes."""
        cell = self.kernel.run(code)
        assert cell.reply["status"] == "ok", cell.reply
        for content in cell.of("comm_open"):
            self.models[content["comm_id"]] = content["data"]["state"]
        for content in cell.of("comm_msg"):
            self.models.get(content["comm_id"], {}).update(content["data"].get("state", {}))
        return cell

    def find(self, model):
        """Return the id of the one model of a kind."""
        (found,) = [comm for comm, state in self.models.items() if state.get("_model_name") == model]
        return found

    def move(self, comm, value):
        """Change the value as somebody who drags it does."""
        data = {"method": "update", "state": {"value": value}, "buffer_paths": []}
        return self.kernel.messages(self.kernel.request("comm_msg", {"comm_id": comm, "data": data}))


def test_slider_goes_both_ways_where_widgets_are_allowed(start):
    """A value that the front end sets is there inside, callbacks run, and what the code sets comes back."""
    front = Slider(start(*LIMITS, "--allow-widgets"))
    shown = front.run(
        "import ipywidgets\nslider = ipywidgets.IntSlider(value=3, max=50)\nseen = []\n"
        "slider.observe(lambda change: (seen.append(change['new']), print('now', change['new'])), 'value')\nslider"
    )
    comm = front.find("IntSliderModel")
    assert front.models[comm]["value"] == 3
    (result,) = shown.of("execute_result") or shown.of("display_data")
    assert result["data"]["application/vnd.jupyter.widget-view+json"]["model_id"] == comm

    messages = front.move(comm, 42)
    assert front.kernel.value("slider.value, seen") == "(42, [42])"
    assert "now 42" in "".join(message["content"].get("text", "") for message in messages)

    changed = front.run("slider.value = 7")
    assert changed.of("comm_msg")[0]["data"]["state"]["value"] == 7


def test_comms_do_not_leave_a_kernel_that_has_no_widgets(kernel):
    """Without ``--allow-widgets`` nothing is opened in the page, and the cell says that it was left out."""
    cell = kernel.run("import ipywidgets\nslider = ipywidgets.IntSlider(value=3)\nslider")
    foreign = kernel.run("from comm import create_comm\nmine = create_comm('evil', {'a': 1})\nmine.send({'b': 2})")
    for one in (cell, foreign):
        assert one.reply["status"] == "ok"
        assert not {kind for _, kind, _ in one.arrived} & {"comm_open", "comm_msg", "comm_close"}
    assert not any("widget-view" in json.dumps(content) for content in cell.of("execute_result"))


def test_foreign_comm_target_stays_inside_also_with_widgets(start):
    """Widgets are one target of comms: any other name could be an extension's that acts."""
    kernel = start(*LIMITS, "--allow-widgets")
    cell = kernel.run("from comm import create_comm\nmine = create_comm('evil', {'a': 1})\nmine.send({'b': 2})")
    assert not {kind for _, kind, _ in cell.arrived} & {"comm_open", "comm_msg", "comm_close"}
