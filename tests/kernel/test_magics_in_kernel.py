"""``%%contain`` in a real ipykernel over the Jupyter protocol, as a notebook uses it."""

import os
import time

import nbclient
import nbformat
import pytest

TIMEOUT_SECONDS = 60
LIMITS = "--mem 200M --net none"


def test_load_ext_takes_less_than_300_ms(kernel):
    """Loading is quick in a kernel that has never seen the package."""
    code = (
        "import subprocess, sys\n"
        "print(subprocess.run([sys.executable, '-c', '''\n"
        "import time\n"
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "shell = InteractiveShell.instance()\n"
        "start = time.perf_counter()\n"
        'shell.run_line_magic("load_ext", "container_magic")\n'
        "print(time.perf_counter() - start)\n"
        "'''], capture_output=True, text=True).stdout)"
    )
    # the quickest of three: a machine may be busy with something else
    assert min(float(kernel.run(code).text("stdout")) for _ in range(3)) < 0.3


def test_output_streams_while_the_cell_runs(kernel):
    """The first line is in the notebook long before the cell is idle."""
    code = "import time\nprint('first', flush=True)\ntime.sleep(1.5)\nprint('second')"
    cell = kernel.run(f"%%contain {LIMITS}\n{code}")
    assert cell.reply["status"] == "ok"
    assert cell.text("stdout") == "first\nsecond\n"
    assert cell.time_of("status", "idle") - cell.time_of("stream", "first") > 0.7


def test_stdout_and_stderr_come_apart(kernel):
    """Each stream is its own; colours stay, cursor moves go."""
    code = "import sys\nprint('out')\nprint('\\x1b[31merr\\x1b[0m\\x1b[2J', file=sys.stderr)"
    cell = kernel.run(f"%%contain {LIMITS}\n{code}")
    assert cell.text("stdout") == "out\n"
    assert cell.text("stderr") == "\x1b[31merr\x1b[0m\n"


def test_report_is_one_display_with_text_and_html(kernel):
    """After the output comes one display: a line of text and its HTML, with wall time and memory."""
    cell = kernel.run(f"%%contain {LIMITS}\nprint('x')")
    (content,) = cell.of("display_data")
    assert set(content["data"]) == {"text/plain", "text/html"}
    assert content["data"]["text/plain"].startswith("OK  ")
    assert " wall" in content["data"]["text/plain"]
    assert " of 200 MB" in content["data"]["text/plain"]
    assert cell.time_of("stream", "x") <= cell.time_of("display_data", "OK")


def test_report_stands_below_what_the_cell_wrote(kernel):
    """The text of a stream comes before it, whichever stream; a cell that writes nothing has its report alone."""
    for code in ("print('out')", "import sys; print('err', file=sys.stderr)", "display('shown')"):
        cell = kernel.run(f"%%contain\n{code}")
        kinds = [kind for _, kind, _ in cell.arrived if kind in ("stream", "display_data")]
        assert kinds[-1] == "display_data" and len(kinds) == 2, kinds
        assert "OK" in cell.of("display_data")[-1]["data"]["text/plain"]
    (alone,) = kernel.run("%%contain\npass").of("display_data")
    assert set(alone["data"]) == {"text/plain", "text/html"}


def test_report_of_a_silent_cell_can_be_captured(kernel):
    """Who takes outputs of a cell gets the report too, and the page does not: %%capture, and what ipywidgets do."""
    captured = kernel.run("%%capture taken\nget_ipython().run_cell_magic('contain', '', 'pass')")
    assert captured.of("display_data") == []
    assert kernel.value("[sorted(one.data) for one in taken.outputs]") == "[['text/html', 'text/plain']]"
    hooked = kernel.run(
        "hooked = []\npublisher = get_ipython().display_pub\npublisher.register_hook(hooked.append)\n"
        "get_ipython().run_cell_magic('contain', '', 'pass')\npublisher.unregister_hook(hooked.append)"
    )
    assert hooked.of("display_data") == []
    assert kernel.value("[one['msg_type'] for one in hooked]") == "['display_data']"


def test_quiet_shows_output_only(kernel):
    """No report with ``--quiet``."""
    cell = kernel.run(f"%%contain {LIMITS} --quiet\nprint('x')")
    assert (cell.text("stdout"), cell.of("display_data")) == ("x\n", [])


def test_failing_cell_is_an_error_with_the_containers_traceback(kernel):
    """One error output with the contained name, message and traceback; nothing of the magic's frames."""
    cell = kernel.run(f"%%contain {LIMITS}\nx = 1\ndef broken():\n    raise ValueError('bad value')\nbroken()")
    (content,) = cell.of("error")
    assert (content["ename"], content["evalue"]) == ("ValueError", "bad value")
    traceback = "\n".join(content["traceback"])
    assert "broken" in traceback
    assert "line 3" in traceback
    assert "line 4" in traceback
    assert "container_magic" not in traceback
    assert "magics.py" not in traceback
    assert cell.reply["status"] == "error"
    assert (cell.reply["ename"], cell.reply["evalue"]) == ("ValueError", "bad value")
    assert cell.of("display_data")[0]["data"]["text/plain"].startswith("RUNTIME_ERROR")
    assert kernel.value("_contain.error.ename") == "'ValueError'"


def test_syntax_error_is_the_cells_own(kernel):
    """A cell that does not parse fails as it does without the magic; since Python 3.13 the error has another name."""
    outside, inside = kernel.run("print('a'\n"), kernel.run(f"%%contain {LIMITS}\nprint('a'\n")
    assert inside.of("error")[0]["ename"] == outside.of("error")[0]["ename"]


def test_exit_zero_is_no_error(kernel):
    """``sys.exit(0)`` ends the cell well, ``sys.exit(3)`` does not."""
    assert kernel.run(f"%%contain {LIMITS}\nimport sys\nsys.exit(0)").reply["status"] == "ok"
    assert kernel.run(f"%%contain {LIMITS}\nimport sys\nsys.exit(3)").reply["status"] == "error"
    assert kernel.value("_contain.exit_code") == "3"


def test_wall_limit_is_an_error_named_after_it(kernel):
    """The sentence has the limit, and where the cell was."""
    cell = kernel.run(f"%%contain {LIMITS} --timeout 1s\nimport time\ntime.sleep(30)")
    assert (cell.reply["ename"], cell.reply["evalue"]) == (
        "TimeLimit",
        "wall limit 1 s reached in line 2: time.sleep(30); try --timeout 2s",
    )


def test_memory_limit_is_an_error_named_after_it(kernel):
    """The sentence has the limit, where the cell was, and what to try."""
    cell = kernel.run("%%contain --mem 64M --net none\nx = bytearray(200_000_000)")
    assert cell.reply["ename"] == "MemoryLimit"
    assert cell.reply["evalue"].startswith("memory limit 64 MB reached in line 1: x = bytearray(200_000_000); peak ")
    assert cell.reply["evalue"].endswith("; try --mem 128M")


def test_failing_cell_stops_the_cells_queued_behind_it(kernel):
    """Run-all stops: what was sent together with the failing cell is not run."""
    failing, queued = kernel.send(f"%%contain {LIMITS}\n1 / 0"), kernel.send("print('not reached')")
    assert kernel.reply(failing)["status"] == "error"
    assert kernel.reply(queued)["status"] == "aborted"


def test_no_raise_error_lets_the_queue_go_on(kernel):
    """The error is shown on stderr and the next cell runs."""
    failing, queued = kernel.send(f"%%contain {LIMITS} --no-raise-error\n1 / 0"), kernel.send("print('reached')")
    cell = kernel.collect(failing)
    assert cell.reply["status"] == "ok"
    assert "ZeroDivisionError" in cell.text("stderr")
    assert cell.of("error") == []
    assert kernel.collect(queued).text("stdout") == "reached\n"


def test_nbclient_stops_at_a_failing_cell():
    """A notebook runner sees the contained error as the cell's."""
    cells = ["%load_ext container_magic", f"%%contain {LIMITS}\n1 / 0", "print('not reached')"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    with pytest.raises(nbclient.exceptions.CellExecutionError) as caught:
        nbclient.NotebookClient(notebook, timeout=TIMEOUT_SECONDS, kernel_name="python3").execute()
    assert caught.value.ename == "ZeroDivisionError"
    assert notebook.cells[2].outputs == []


def test_report_is_kept_in_the_session(kernel):
    """``_contain`` is the last report, ``--result`` names one."""
    kernel.run(f"%%contain {LIMITS} --result r\nprint('kept')")
    assert kernel.value("(r.verdict, r.stdout, _contain is r)") == "('OK', 'kept\\n', True)"
    kernel.run(f"%%contain {LIMITS}\npass")
    assert kernel.value("_contain is r") == "False"
    shown = kernel.run("r").of("execute_result")[0]["data"]
    assert set(shown) == {"text/plain", "text/html"}


def test_session_defaults_hold(kernel):
    """``%contain --mem`` sets what later cells get; ``%contain`` shows it."""
    assert kernel.run("%contain --mem 150M --net none").reply["status"] == "ok"
    assert "--mem 150M" in kernel.run("%contain").text("stdout")
    kernel.run("%%contain\npass")
    assert kernel.value("_contain.usage.memory_limit_bytes == 150 * 1024**2") == "True"


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("--mem banana", "banana"),
        ("--mem 1K", "1K"),
        ("--cpus 9999", "9999"),
        ("--cpus 3-1", "3-1"),
        ("--net foo", "foo"),
        ("-v /does-not-exist:/x", "/does-not-exist"),
        ("--nothing-like-it", "--nothing-like-it"),
    ],
)
def test_bad_option_is_one_message(kernel, line, named):
    """One error without a traceback that names the value; no report, nothing ran."""
    cell = kernel.run(f"%%contain {line}\nprint('not run')")
    (content,) = cell.of("error")
    assert named in content["evalue"]
    assert len(content["traceback"]) <= 2
    assert not any("File" in text or "---" in text for text in content["traceback"])
    assert cell.reply["status"] == "error"
    assert (cell.text("stdout"), cell.of("display_data")) == ("", [])


def test_empty_cell_is_one_message(kernel):
    """A cell without code is said to be empty."""
    cell = kernel.run("%%contain --mem 200M\n\n")
    assert cell.reply["status"] == "error"
    assert "empty" in cell.reply["evalue"]


def test_interrupt_ends_the_cell_and_the_next_one_works(kernel):
    """The kernel's interrupt reaches the contained code, the cell fails, the kernel goes on."""
    request = kernel.send(f"%%contain {LIMITS}\nimport time\nprint('started', flush=True)\ntime.sleep(60)")
    kernel.collect(request, until="started")
    asked = time.monotonic()
    kernel.manager.interrupt_kernel()
    cell = kernel.collect(request)
    assert time.monotonic() - asked < 10
    assert cell.reply["status"] == "error"
    assert cell.reply["ename"] in ("KeyboardInterrupt", "Interrupted")
    assert kernel.value("_contain.verdict") == "'INTERRUPTED'"
    assert kernel.run(f"%%contain {LIMITS}\nprint('works')").text("stdout") == "works\n"


def test_code_that_ignores_the_interrupt_is_killed(kernel):
    """After the grace period the whole container ends, whatever the code does with SIGINT."""
    code = "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('started')\ntime.sleep(60)"
    request = kernel.send(f"%%contain {LIMITS}\n{code}")
    kernel.collect(request, until="started")
    kernel.manager.interrupt_kernel()
    cell = kernel.collect(request)
    assert (cell.reply["ename"], cell.reply["evalue"]) == ("Interrupted", "interrupted and killed")
    assert kernel.run("print('alive')").text("stdout") == "alive\n"


def test_odd_bytes_arrive(kernel):
    """NUL and bytes that are no UTF-8 are shown, replaced where need be, and nothing after them is lost."""
    code = "import sys\nsys.stdout.buffer.write(b'a\\x00b\\xff\\xfec\\n')\nprint('end')"
    assert kernel.run(f"%%contain {LIMITS}\n{code}").text("stdout") == "a\0b\ufffd\ufffdc\nend\n"


def test_dry_run_prints_the_plan(kernel):
    """What would be enforced, a line each; nothing ran."""
    cell = kernel.run(f"%%contain {LIMITS} --dry-run\nprint('not run')")
    assert "memory" in cell.text("stdout")
    assert "not run" not in cell.text("stdout")
    assert kernel.value("'_contain' in globals()") == "False"


def test_doctor_verb_prints_checks(kernel):
    """``%contain doctor`` is ``contain doctor``."""
    cell = kernel.run("%contain doctor")
    assert cell.reply["status"] == "ok"
    assert len(cell.text("stdout").splitlines()) > 3


def test_tab_completes_options(kernel):
    """The kernel answers a completion request with the options."""
    line = "%%contain --cpu-t"
    reply = kernel.reply(kernel.client.complete(line, len(line)))
    assert reply["matches"] == ["--cpu-time"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("%%contain --report f", ["full"]),
        ("%%contain --cpus 0-", None),
        ("%%contain -v /usr/inc", ["/usr/include/"]),
        ("%contain doctor --self", ["--self-test"]),
    ],
)
def test_tab_completes_values_and_words_of_verbs(kernel, line, expected):
    """The kernel answers with values, paths and what a verb takes."""
    reply = kernel.reply(kernel.client.complete(line, len(line)))
    assert reply["status"] == "ok"
    if expected is None:
        cpus = sorted(os.sched_getaffinity(0))
        expected = [f"0-{cpu}" for cpu in cpus if cpu > 0]
    whole = [line[: reply["cursor_start"]] + match for match in reply["matches"]]
    assert whole == [line[: line.rfind(" ") + 1] + word for word in expected]


def test_long_cell_has_a_line_while_it_runs(kernel):
    """It comes once the cell has run for two seconds, is brought up to date, and the cell's output stays in order."""
    code = "import time\nprint('before')\ntime.sleep(3.2)\nprint('after')"
    cell = kernel.run(f"%%contain {LIMITS}\n{code}")
    running, report = cell.of("display_data")
    assert running["data"]["text/plain"].startswith("running  2.")
    assert " of 200 MB" in running["data"]["text/plain"]
    assert running["transient"]["display_id"]
    updates = cell.of("update_display_data")
    assert 1 <= len(updates) <= 4
    assert {update["transient"]["display_id"] for update in updates} == {running["transient"]["display_id"]}
    assert report["data"]["text/plain"].startswith("OK  ")
    kinds = [kind for _, kind, _ in cell.arrived if kind not in ("status", "execute_input")]
    assert set(kinds[: kinds.index("display_data")]) == {"stream"}
    assert kinds[-3:] == ["clear_output", "stream", "display_data"]
    assert cell.of("stream")[-1]["text"] == "before\nafter\n"


def test_no_line_in_a_cell_that_has_other_outputs(kernel):
    """A magic that is called from a cell of Python must not clear what that cell shows."""
    code = "import time\ntime.sleep(2.8)"
    cell = kernel.run(f"print('mine')\nget_ipython().run_cell_magic('contain', {LIMITS!r}, {code!r})")
    assert (cell.text("stdout"), cell.of("clear_output"), len(cell.of("display_data"))) == ("mine\n", [], 1)


@pytest.mark.parametrize("option", ["--quiet", "--report none"])
def test_no_line_where_no_report_is_wanted(kernel, option):
    """The cell's output and nothing else."""
    cell = kernel.run(f"%%contain {LIMITS} {option}\nimport time\ntime.sleep(2.8)\nprint('x')")
    assert (cell.text("stdout"), cell.of("display_data"), cell.of("clear_output")) == ("x\n", [], [])


def test_saved_notebook_has_no_trace_of_the_line():
    """What nbclient keeps of long cells is what it keeps of short ones: output, error, report, in order."""
    silent = f"%%contain {LIMITS} --no-raise-error\nimport time\ntime.sleep(2.8)"
    mixed = (
        f"%%contain {LIMITS}\nimport sys, time\nprint('one')\nprint('two', file=sys.stderr)\n"
        "time.sleep(2.8)\nprint('three')\n1 / 0"
    )
    cells = [nbformat.v4.new_code_cell(text) for text in ("%load_ext container_magic", silent, mixed)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(notebook, timeout=TIMEOUT_SECONDS, kernel_name="python3", allow_errors=True).execute()
    nbformat.validate(notebook)
    (report,) = notebook.cells[1].outputs
    assert report["data"]["text/plain"].startswith("OK  ")
    outputs = notebook.cells[2].outputs
    assert [output.get("text", "") for output in outputs[:3]] == ["one\n", "two\n", "three\n"]
    assert [output["output_type"] for output in outputs[3:]] == ["display_data", "error"]
    assert "running" not in nbformat.writes(notebook)


def test_session_keeps_names_and_ends_by_name(kernel):
    """Two cells share an interpreter; the table names it; after ``stop`` the name begins anew."""
    kernel.run(f"%%contain {LIMITS} --session work\nx = 20 + 22")
    second = kernel.run("%%contain --session work\nx")
    table = kernel.run("%contain sessions")
    stopped = kernel.run("%contain stop work")
    anew = kernel.run("%%contain --session work\nprint('x' in dir())")
    kernel.run("%contain stop work")

    assert second.of("execute_result")[0]["data"]["text/plain"] == "42"
    assert "work" in table.text("stdout") and "idle" in table.text("stdout")
    assert stopped.text("stdout") == "work\n"
    assert anew.text("stdout") == "False\n"


def test_session_that_died_says_why_and_begins_anew(kernel):
    """The cell that it died in has the verdict, the next one a note."""
    kernel.run(f"%%contain {LIMITS} --session fragile\nkept = 1")
    died = kernel.run("%%contain --session fragile --timeout 500ms\nimport time\ntime.sleep(20)")
    anew = kernel.run("%%contain --session fragile\nprint('alive', 'kept' in dir())")
    kernel.run("%contain stop fragile")

    assert died.of("error")[0]["ename"] == "TimeLimit"
    assert "session 'fragile' is over" in anew.text("stderr") and "--timeout" in anew.text("stderr")
    assert anew.text("stdout") == "alive False\n"


def test_session_with_other_options_is_refused(kernel):
    """A container that stands cannot take on other limits; nothing is lost."""
    kernel.run(f"%%contain {LIMITS} --session firm\nx = 1")
    refused = kernel.run("%%contain --mem 100M --session firm\nx = 2")
    after = kernel.run(f"%%contain {LIMITS} --session firm\nprint(x)")
    kernel.run("%contain stop firm")

    assert "another --mem" in refused.of("error")[0]["evalue"]
    assert after.text("stdout") == "1\n"


def test_interrupt_of_a_sessions_cell_keeps_its_state(kernel):
    """The stop button ends the cell, with the line where it was."""
    kernel.run(f"%%contain {LIMITS} --session held\nx = 'kept'")
    request = kernel.send("%%contain --session held\nimport time\nprint('started')\ntime.sleep(30)")
    kernel.collect(request, until="started")
    kernel.manager.interrupt_kernel()
    stopped = kernel.collect(request)
    after = kernel.run("%%contain --session held\nprint(x)")
    kernel.run("%contain stop held")

    (error,) = stopped.of("error")
    assert error["ename"] == "KeyboardInterrupt"
    assert "sleep" in "\n".join(error["traceback"])
    assert after.text("stdout") == "kept\n"
