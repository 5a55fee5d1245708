"""What contained code shows, in a real ipykernel: order, results, figures, updates, input, tracebacks."""

import base64
import re
import time

import nbclient
import nbformat
import pytest

from container_magic.rootfs.marker import HINT, NO_NESTING

TIMEOUT_SECONDS = 60
RUN = "%%contain --mem 300M --net none --quiet"
PNG = b"\x89PNG\r\n\x1a\n"


def plain(lines):
    """Return a traceback as text without colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(lines))


def test_last_expression_is_the_cells_result(kernel):
    """The value is an execute_result with the number of the notebook's cell; a semicolon hushes it."""
    cell = kernel.run(f"{RUN}\nx = 6\nx * 7")
    (content,) = cell.of("execute_result")
    assert content["data"]["text/plain"] == "42"
    assert content["execution_count"] == cell.reply["execution_count"]
    assert kernel.run(f"{RUN}\n6 * 7;").of("execute_result") == []
    assert kernel.run(f"{RUN}\nNone").of("execute_result") == []


def test_result_does_not_become_a_value_of_the_notebook(kernel):
    """``_`` and ``Out`` of the notebook know nothing of it."""
    kernel.run("'mine'")
    kernel.run(f"{RUN}\n'theirs'")
    assert kernel.value("_") == "'mine'"


def test_displays_stand_between_what_was_printed_before_and_after(kernel):
    """Prints, what a child process writes, and displays come in the order in which the code made them."""
    code = """
import subprocess
for i in range(20):
    print(f"out {i}")
    subprocess.run(["sh", "-c", f"echo child {i}"])
    display(i)
print("end")
"50"
"""
    expected = []
    for i in range(20):
        expected += [f"out {i}\nchild {i}\n", ("display_data", str(i))]
    assert kernel.run(f"{RUN}\n{code}").kinds() == [*expected, "end\n", ("execute_result", "'50'")]


def test_displays_stand_between_standard_error_before_and_after(kernel):
    """The same holds for the other stream; of the two among themselves nothing is promised."""
    code = "import sys\nfor i in range(20):\n    print(i, file=sys.stderr)\n    display(i)"
    expected = [item for i in range(20) for item in (f"{i}\n", ("display_data", str(i)))]
    assert kernel.run(f"{RUN}\n{code}").kinds() == expected


def test_pandas_table_arrives(kernel):
    """A frame is the result, as text and as a table that has lost nothing but its style sheet."""
    cell = kernel.run(f"{RUN}\nimport pandas as pd\npd.DataFrame({{'column': [1, 2]}})")
    (content,) = cell.of("execute_result")
    assert "column" in content["data"]["text/plain"]
    assert "<table" in content["data"]["text/html"]
    assert "<style" not in content["data"]["text/html"]


def test_html_is_made_safe_as_asked(kernel):
    """Without scripts by default, as text, or whole in a frame that is cut off; what is missing is said, once."""
    code = "from IPython.display import HTML\nhtml = HTML('<b>bold</b><script>parent.alert(1)</script>')"
    code += "\ndisplay(html)\ndisplay(html)"
    safe, text, framed = (kernel.run(f"{RUN} --html {how}\n{code}") for how in ("safe", "text", "iframe"))
    assert [content["data"]["text/html"] for content in safe.of("display_data")] == ["<b>bold</b>"] * 2
    assert safe.text("stderr").count("script") == 1
    assert "text/html" not in text.of("display_data")[0]["data"]
    assert "<iframe sandbox" in framed.of("display_data")[0]["data"]["text/html"]
    assert "allow-same-origin" not in framed.of("display_data")[0]["data"]["text/html"]


def test_what_cannot_be_made_safe_is_a_note(kernel):
    """JavaScript, widgets and unknown types do not reach the page."""
    bundle = {"application/javascript": "alert(1)", "application/vnd.custom+json": {"a": 1}}
    cell = kernel.run(f"{RUN}\ndisplay({bundle}, raw=True)")
    (content,) = cell.of("display_data")
    assert set(content["data"]) == {"text/plain"}
    assert "application/javascript was not shown" in content["data"]["text/plain"]


def test_matplotlib_figure_arrives_as_png(kernel):
    """A figure that a cell leaves open is shown at its end, after what it printed."""
    cell = kernel.run(f"{RUN}\nimport matplotlib.pyplot as plt\nplt.plot([1, 2])\nprint('drawn');")
    assert cell.text("stdout") == "drawn\n"
    (content,) = cell.of("display_data")
    assert base64.b64decode(content["data"]["image/png"]).startswith(PNG)
    assert cell.time_of("stream", "drawn") <= cell.time_of("display_data", "png")


def test_display_is_updated_under_an_id_of_our_own(kernel):
    """The code's id is no id of the notebook; an update reaches what its own cell showed."""
    code = "h = display('one', display_id='mine')\nh.update('two')"
    cell = kernel.run(f"{RUN}\n{code}")
    (shown,), (updated,) = cell.of("display_data"), cell.of("update_display_data")
    assert shown["transient"]["display_id"] == updated["transient"]["display_id"] != "mine"
    assert (shown["data"]["text/plain"], updated["data"]["text/plain"]) == ("'one'", "'two'")
    assert kernel.value("[output['data']['text/plain'] for output in _contain.outputs]") == "[\"'two'\"]"


def test_displays_of_other_cells_cannot_be_updated(kernel):
    """An id of the notebook's own, and one of another contained cell, mean nothing in a contained cell."""
    own = kernel.run("from IPython.display import display\nh = display('own', display_id='known')").of("display_data")
    assert own[0]["transient"]["display_id"] == "known"
    theirs = kernel.run(f"{RUN}\ndisplay('first', display_id='shared');").of("display_data")[0]["transient"][
        "display_id"
    ]
    code = "from IPython.display import update_display\n"
    code += "".join(f"update_display('forged', display_id={name!r})\n" for name in ("known", "shared", theirs))
    cell = kernel.run(f"{RUN}\n{code}")
    assert cell.reply["status"] == "ok"
    assert cell.of("update_display_data") == []


def test_clear_output_clears_the_cell(kernel):
    """The front end is told, with and without waiting; the report keeps what was left."""
    code = "from IPython.display import clear_output\ndisplay(1)\nclear_output()\n"
    code += "display(2)\nclear_output(wait=True)\ndisplay(3)"
    cell = kernel.run(f"{RUN}\n{code}")
    assert cell.kinds() == [
        ("display_data", "1"),
        ("clear_output", ""),
        ("display_data", "2"),
        ("clear_output", ""),
        ("display_data", "3"),
    ]
    assert [content["wait"] for content in cell.of("clear_output")] == [False, True]
    assert kernel.value("[output['data']['text/plain'] for output in _contain.outputs]") == "['3']"


def test_traceback_is_coloured_and_has_the_cells_lines(kernel):
    """Frames of the cell with their numbers and source, nothing of what runs it."""
    cell = kernel.run(f"{RUN}\nx = 1\n\ndef broken():\n    raise ValueError('bad value')\n\nbroken()")
    (content,) = cell.of("error")
    assert (content["ename"], content["evalue"]) == ("ValueError", "bad value")
    assert any("\x1b[" in line for line in content["traceback"])
    text = plain(content["traceback"])
    assert "File <cell>, line 6" in text
    assert "File <cell>, line 4, in broken()" in text
    assert "----> 4     raise ValueError('bad value')" in text
    assert "container_magic" not in text
    assert "hidden" not in text


@pytest.mark.parametrize(
    ("code", "name", "line"),
    [
        ("x = 1\nprint('a'))", "SyntaxError", "line 2"),
        ("x = 1\nreturn", "SyntaxError", "line 2"),
        ("raise ExceptionGroup('two', [ValueError('a')])", "ExceptionGroup", "line 1"),
        ("%no_such_magic", "UsageError", "no_such_magic"),
        ("%%time\n1 / 0", "ZeroDivisionError", "division"),
        ("import asyncio\nawait asyncio.sleep(0)\n1 / 0", "ZeroDivisionError", "line 3"),
        ("class Odd(Exception):\n    def __str__(self): 1 / 0\nraise Odd()", "Odd", "line 3"),
    ],
)
def test_every_way_to_fail_is_an_error_of_the_cell(kernel, code, name, line):
    """The error has its name and its place, and no frame of ours."""
    cell = kernel.run(f"{RUN}\n{code}")
    (content,) = cell.of("error")
    assert content["ename"] == name
    assert line in plain(content["traceback"])
    assert "container_magic" not in plain(content["traceback"])


def test_figure_and_output_of_a_failing_cell_are_shown(kernel):
    """What was there before the error is not lost."""
    cell = kernel.run(f"{RUN}\nimport matplotlib.pyplot as plt\nplt.plot([1])\ndisplay('before')\n1 / 0")
    assert [kind for kind, _ in cell.kinds()] == ["display_data", "display_data", "error"]


def test_top_level_await_works(kernel):
    """A cell may await."""
    assert kernel.run(f"{RUN}\nimport asyncio\nawait asyncio.sleep(0, 'awaited')").kinds() == [
        ("execute_result", "'awaited'")
    ]


def test_magics_and_shell_commands_work_inside(kernel):
    """``!``, ``%`` and ``%%`` are those of an IPython inside; what a command writes comes in order."""
    cell = kernel.run(f"{RUN}\nprint('a')\n!echo b\nprint('c')\nfiles = !echo d\nfiles[0]")
    assert cell.kinds() == ["a\nb\nc\n", ("execute_result", "'d'")]
    timed = kernel.run(f"{RUN}\n%%time\nx = 1\nx + 1")
    assert "Wall time" in timed.text("stdout")
    assert timed.of("execute_result")[0]["data"]["text/plain"] == "2"
    assert kernel.run(f"{RUN}\n%%bash\necho $((6 * 7))").text("stdout") == "42\n"


def test_containers_do_not_nest(kernel):
    """One line says so."""
    cell = kernel.run(f"{RUN}\n%%contain\n1")
    (content,) = cell.of("error")
    assert content["traceback"] == [f"UsageError: {NO_NESTING}; {HINT}"]


def test_exit_ends_the_cell_with_its_code(kernel):
    """``exit``, ``quit(3)`` and ``sys.exit`` are a script's."""
    assert kernel.run(f"{RUN}\nexit").kinds() == []
    assert kernel.run(f"{RUN}\nexit()\nprint('not reached')").kinds() == []
    kernel.run(f"{RUN}\nquit(3)")
    assert kernel.value("_contain.exit_code") == "3"


def test_input_is_asked_in_the_front_end(kernel):
    """``input`` and ``getpass`` go to whoever runs the notebook, after what was printed before."""
    code = "import getpass\nprint('hello')\nname = input('name? ')\nword = getpass.getpass('word? ')\nname, word"
    cell, asked = kernel.run_and_answer(f"{RUN}\n{code}", "Ada", "secret")
    assert asked == [{"prompt": "name? ", "password": False}, {"prompt": "word? ", "password": True}]
    assert cell.kinds() == ["hello\n", ("execute_result", "('Ada', 'secret')")]


def test_input_that_nobody_can_answer_is_the_end_of_the_file(kernel):
    """A front end without standard input: EOFError, at the line that asks."""
    (content,) = kernel.run(f"{RUN}\nx = 1\ninput('?')").of("error")
    assert content["ename"] == "EOFError"
    assert "File <cell>, line 2" in plain(content["traceback"])
    assert "container_magic" not in plain(content["traceback"])


def test_input_reads_what_was_given_and_asks_nobody(kernel):
    """With ``--stdin`` ``input()`` is the built-in one; at the end of the text it says so."""
    cell = kernel.run(f"{RUN} --stdin '3 4'\na, b = map(int, input('? ').split())\nprint(a + b)\ninput()")
    assert cell.text("stdout").startswith("? 7\n")
    (content,) = cell.of("error")
    assert (content["ename"], content["evalue"]) == ("EOFError", "EOF when reading a line")
    assert "line 3" in plain(content["traceback"])


def test_text_of_the_notebook_is_given_as_input(kernel, tmp_path):
    """IPython puts a variable in, lines and all; a file is named by another option; an empty text is at its end."""
    kernel.run("numbers = '1\\n2\\n3\\n'")
    assert kernel.run(f"{RUN} --stdin '{{numbers}}'\nimport sys\nsum(map(int, sys.stdin))").kinds() == [
        ("execute_result", "6")
    ]
    (tmp_path / "1.in").write_text("from a file")
    assert kernel.run(f"{RUN} --stdin-file {tmp_path}/1.in\nprint(input())").text("stdout") == "from a file\n"
    assert kernel.run(f"{RUN} --stdin ''\ninput()").reply["ename"] == "EOFError"


def test_session_is_given_no_text(kernel):
    """A session's cells ask; nothing is started."""
    cell = kernel.run(f"{RUN} --session fed --stdin x\n1")
    assert cell.reply["ename"] == "OptionError"
    assert "--stdin is for one run" in cell.reply["evalue"]
    assert "fed" not in kernel.run("%contain sessions").text("stdout")


def test_nbclient_answers_no_questions():
    """A notebook runner has no standard input, and does not hang."""
    cells = ["%load_ext container_magic", f"{RUN}\ntry:\n    input()\nexcept EOFError:\n    print('nobody')\n3"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(notebook, timeout=TIMEOUT_SECONDS, kernel_name="python3").execute()
    stream, result = notebook.cells[1].outputs
    assert (stream["text"], result["output_type"], result["data"]["text/plain"]) == ("nobody\n", "execute_result", "3")
    assert result["execution_count"] == notebook.cells[1].execution_count
    nbformat.validate(notebook)


def test_interrupt_while_a_question_is_open_ends_the_cell(kernel):
    """The question goes, and with it the code that asked; the notebook goes on."""
    request = kernel.send(f"{RUN}\ninput('?')", allow_stdin=True)
    kernel.client.get_stdin_msg(timeout=TIMEOUT_SECONDS)
    begun = time.monotonic()
    kernel.manager.interrupt_kernel()
    cell = kernel.collect(request)
    assert time.monotonic() - begun < 10
    assert cell.reply["ename"] in ("KeyboardInterrupt", "Interrupted")
    assert kernel.run(f"{RUN}\n1").kinds() == [("execute_result", "1")]


def test_interrupted_cell_shows_where_it_was(kernel):
    """Ctrl-C is the code's own KeyboardInterrupt."""
    request = kernel.send(f"{RUN}\nimport time\nprint('started')\nwhile True: time.sleep(1)")
    kernel.collect(request, until="started")
    kernel.manager.interrupt_kernel()
    (content,) = kernel.collect(request).of("error")
    assert content["ename"] == "KeyboardInterrupt"
    assert re.search("line [23]", plain(content["traceback"]))  # the word may be here before the print is over


def test_shell_inside_leaves_nothing_and_shows_nothing_of_ours(kernel):
    """No profile, no history, no thread, no module of this package."""
    code = """
import os, sys, threading
(
    os.path.exists(os.path.expanduser("~/.ipython")),
    [name for name in sys.modules if "container_magic" in name],
    [path for path in sys.path if "container_magic" in path],
    threading.active_count(),
    [name for name in dir() if not name.startswith("_") and name not in ("os", "sys", "threading")],
    len(In),
)
"""
    assert kernel.run(f"{RUN}\n{code}").kinds() == [
        ("execute_result", "(False, [], [], 1, ['In', 'Out', 'exit', 'get_ipython', 'open', 'quit'], 2)")
    ]


def test_cell_is_the_first_of_its_shell(kernel):
    """The rehearsals before it have left no inputs, no results, no count and no names."""
    code = """
own = [name for name in dir() if name.startswith("_") and not name.startswith("__")]
print(In[:-1], Out, (_, __, _i, _ii), get_ipython().execution_count, *own)
"""
    shown = "[''] {} ('', '', '', '') 2 _ _dh _i _i1 _ih _ii _iii _oh\n"
    assert kernel.run(f"{RUN}\n{code}").text("stdout") == shown


def test_forked_child_shows_as_text(kernel):
    """The channel is the parent's: a child's display is printed, and the parent's goes on."""
    code = "import os\nif os.fork() == 0:\n    display('child')\n    os._exit(0)\nos.wait()\ndisplay('parent')"
    assert kernel.run(f"{RUN}\n{code}").kinds() == ["'child'\n", ("display_data", "'parent'")]


def test_functions_of_the_cell_can_be_pickled_and_spawned(kernel):
    """``__main__`` is the cell's module, for pickle and for multiprocessing."""
    code = """
import multiprocessing
def square(x):
    return x * x
if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(2) as pool:
        print(pool.map(square, range(4)))
"""
    assert kernel.run(f"{RUN}\n{code}").text("stdout") == "[0, 1, 4, 9]\n"
