"""``-i`` and ``-o`` of ``%%contain`` in a real ipykernel."""

import pytest

RUN = "%%contain --mem 300M --net none --quiet"


def test_table_goes_in_and_result_comes_out(kernel):
    """Into the notebook's names; the notebook's own table stays as it was."""
    kernel.run("import pandas as pd\ndf = pd.DataFrame({'a': [1, 2]})")
    cell = kernel.run(f"{RUN} -i df -o result,total\ndf['b'] = df.a * 2\nresult = df\ntotal = int(df.b.sum())\ntotal")
    assert cell.reply["status"] == "ok", cell.reply
    assert cell.of("execute_result")[0]["data"]["text/plain"] == "6"
    assert kernel.value("result.b.tolist(), total, list(df), _contain.values['total']") == "([2, 4], 6, ['a'], 6)"


def test_function_of_the_notebook_goes_in(kernel):
    """``__main__`` inside is another one: its code is taken along."""
    kernel.run("factor = 3\ndef times(x):\n    return x * factor")
    kernel.run(f"{RUN} --input times --output y\ny = times(14)")
    assert kernel.value("y") == "42"


@pytest.mark.parametrize(
    ("code", "ename"),
    [
        ("kept = 'new'\n1 / 0", "ZeroDivisionError"),
        ("kept = 'new'\nother = object()", "OutputError"),
        ("kept = 'new'", "NameError"),
        ("kept = other = 'new'\nimport os\nos._exit(0)", "OutputError"),
    ],
)
def test_nothing_is_assigned_when_something_is_missing(kernel, code, ename):
    """Neither of two, and the cell fails."""
    kernel.run("kept = other = 'old'")
    cell = kernel.run(f"{RUN} -o kept,other\n{code}")
    assert (cell.reply["status"], cell.reply["ename"]) == ("error", ename)
    assert kernel.value("kept, other") == "('old', 'old')"


def test_undefined_input_is_one_message(kernel):
    """Nothing is started."""
    cell = kernel.run(f"{RUN} -i nowhere\nprint('ran')")
    assert (cell.reply["ename"], cell.text("stdout")) == ("OptionError", "")
    assert "--input nowhere: no variable of this name is defined" in cell.reply["evalue"]


def test_session_takes_and_returns_with_each_cell(kernel):
    """Variables go into an interpreter that is there, and come out of it."""
    kernel.run("first, second = 1, 2")
    kernel.run(f"{RUN} --session vars -i first -o a\na = first * 10")
    kernel.run(f"{RUN} --session vars -i second -o b\nb = a + first + second")
    assert kernel.value("a, b") == "(10, 13)"
    kernel.run("%contain stop vars")


def test_tab_completes_variables(kernel):
    """Names of the notebook, after a comma as well."""
    kernel.run("completed_name = 1\ncompleted_other = 2")
    line = "%%contain -i completed_name,completed_o"
    reply = kernel.reply(kernel.client.complete(line, len(line)))
    assert any(match.endswith("completed_other") for match in reply["matches"]), reply["matches"]
