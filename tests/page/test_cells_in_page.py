"""What a user sees of contained cells in JupyterLab."""

import pytest

pytestmark = [pytest.mark.xdist_group("page"), pytest.mark.slow]

LIMITS = "--mem 300M --net none"


def test_output_is_seen_while_the_cell_runs(notebook):
    """The first line is in the page, and the cell still runs; the second comes when it is told to."""
    code = "import time\nprint('first', flush=True)\ntime.sleep(2)\nprint('second')"
    page = notebook("streams", f"%%contain {LIMITS}\n{code}")
    page.start()
    page.cell(1).get_by_text("first", exact=True).wait_for()
    assert "[*]" in page.cell(1).locator(".jp-InputPrompt").inner_text()
    assert "second" not in page.shown(1)
    page.finish()
    assert page.shown(1).startswith("first\nsecond\n")


def test_report_line_stands_below_the_output(notebook):
    """The verdict and the figures are in the page, after what was printed."""
    page = notebook("report", f"%%contain {LIMITS}\nprint('printed')")
    page.run()
    printed, line = filter(None, page.shown(1).splitlines())
    assert printed == "printed"
    assert line.startswith("OK")
    assert " wall" in line
    assert " of 300 MB" in line


def test_full_report_shows_its_picture(notebook):
    """The table has its labels, and the picture of memory and CPU is an image that was loaded."""
    code = "import time\nx = bytearray(50_000_000)\ntime.sleep(0.5)"
    page = notebook("full", f"%%contain {LIMITS} --report full\n{code}")
    page.run()
    assert {"memory", "limits", "container"} <= set(page.cell(1).locator("th").all_inner_texts())
    picture = page.cell(1).locator("img[alt='memory and CPU over time']")
    picture.wait_for()
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 100


def test_failing_cell_shows_its_traceback_and_stops_the_cells_below(notebook):
    """The traceback has the cell's own lines, and what was queued behind it has not run."""
    page = notebook(
        "fails", f"%%contain {LIMITS}\ndef broken():\n    raise ValueError('bad')\nbroken()", "print('not')"
    )
    page.run()
    error = page.cell(1).locator("[data-mime-type='application/vnd.jupyter.stderr']").inner_text()
    assert "line 2, in broken" in error
    assert "ValueError: bad" in error
    assert "container_magic" not in error
    assert page.outputs(2) == []


def test_stop_button_interrupts_the_contained_code(notebook):
    """The cell shows a KeyboardInterrupt, and the next one works."""
    code = "import time\nprint('started', flush=True)\ntime.sleep(60)"
    page = notebook("stop", f"%%contain {LIMITS}\n{code}")
    page.start()
    page.cell(1).get_by_text("started", exact=True).wait_for()
    page.page.locator("[data-command='notebook:interrupt-kernel']").click()
    page.finish()
    assert "KeyboardInterrupt" in page.shown(1)
    assert "INTERRUPTED" in page.shown(1)


def test_page_stays_usable_when_a_cell_prints_100_mb(notebook, lab):
    """While and after it is printed keys are answered, what is left out is said, and the notebook hardly grows."""
    cells = [
        f"%%contain {LIMITS}\nprint('warmed up')",
        "import psutil\nbefore = psutil.Process().memory_info().rss",
        f"%%contain {LIMITS}\nfor _ in range(1_000_000):\n    print('x' * 99)",
        "print(psutil.Process().memory_info().rss - before)",
        "",
    ]
    page = notebook("flood", *cells)
    page.start()
    page.cell(3).get_by_text("xxx").first.wait_for()
    page.type_into(5, "during ")
    page.finish()
    page.type_into(5, "after")
    assert page.sources()[5] == "during after"
    assert "of output not shown" in page.shown(3)
    assert int(page.shown(4)) < 50 * 1024**2
