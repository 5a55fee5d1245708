"""What a user of JupyterLab sees of a notebook whose kernel is contained."""

import pytest
from conftest import PICTURES

pytestmark = [pytest.mark.xdist_group("page"), pytest.mark.slow]


def picture(page, name):
    """Keep what is seen for those who want to look."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.page.screenshot(path=PICTURES / f"{name}.png")


def test_notebook_runs_with_tables_figures_and_errors(notebook):
    """Text, a table, a figure and a traceback are where they are with any kernel."""
    page = notebook(
        "kernel-runs",
        "import socket\nprint([name for _, name in socket.if_nameindex()])",
        "import pandas\npandas.DataFrame({'column': [1, 2]})",
        "%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot([1, 3, 2]);",
        "1 / 0",
        "print('not reached')",
        kernel="contained",
    )
    page.run()
    assert page.shown(0) == "['lo']\n" or page.shown(0).strip() == "['lo']"
    assert "column" in page.cell(1).locator("table").inner_text()
    figure = page.cell(2).locator("img")
    assert figure.evaluate("image => image.decode().then(() => image.naturalWidth)") > 100
    assert "ZeroDivisionError" in page.shown(3)
    assert page.outputs(4) == []
    picture(page, "kernel-runs")


def test_stop_button_interrupts_and_the_next_cell_runs(notebook):
    """The cell shows a KeyboardInterrupt, and names live on."""
    code = "import time\nkept = 'kept'\nprint('started', flush=True)\ntime.sleep(60)"
    page = notebook("kernel-stop", code, "", kernel="contained")
    page.start()
    page.cell(0).get_by_text("started", exact=True).wait_for()
    page.page.locator("[data-command='notebook:interrupt-kernel']").click()
    page.finish()
    assert "KeyboardInterrupt" in page.shown(0)
    assert "kept" in page.run_cell(1, "print(kept)")


def test_restart_gives_a_fresh_container(notebook):
    """The kernel is idle again, and what was there is not."""
    page = notebook("kernel-restart", "old = 1\nopen('/tmp/old', 'w').close()", "", kernel="contained")
    page.run()
    page.page.evaluate("() => jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
    page.page.wait_for_function("jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'idle'")
    shown = page.run_cell(1, "import os; print('old' in globals(), os.path.exists('/tmp/old'))")
    assert shown.strip() == "False False"


def test_memory_limit_is_named_in_the_cell_and_the_kernel_comes_back(notebook):
    """The cell has the reason, JupyterLab says that the kernel died, and the next cell runs in a fresh one."""
    code = "hoard = []\nwhile True: hoard.append(bytearray(4_000_000))"
    page = notebook("kernel-memory", code, "", kernel="contained")
    page.start()
    page.cell(0).get_by_text("memory limit 300 MB reached").first.wait_for()
    dialog = page.page.locator(".jp-Dialog", has_text="died")
    dialog.wait_for()
    picture(page, "kernel-memory")
    dialog.get_by_role("button", name="Ok", exact=False).click()
    page.page.wait_for_function("jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'idle'")
    assert page.run_cell(1, "print('fresh', 'hoard' in globals())").strip() == "fresh False"


def test_slider_in_the_page_sets_the_value_inside(notebook):
    """It is shown, a key moves it, the callback's text appears, and the code finds the value."""
    code = (
        "import ipywidgets\nslider = ipywidgets.IntSlider(value=3, max=50)\nout = ipywidgets.Output()\n"
        "slider.observe(lambda change: out.append_stdout(f\"now {change['new']};\"), 'value')\n"
        "display(slider, out)"
    )
    page = notebook("kernel-slider", code, "", kernel="widgets")
    page.run()
    handle = page.cell(0).locator(".noUi-handle")
    handle.wait_for()
    handle.focus()
    for _ in range(4):
        page.page.keyboard.press("ArrowRight")
    page.cell(0).get_by_text("now 7;").wait_for()
    assert page.run_cell(1, "print('value', slider.value)").strip() == "value 7"
    picture(page, "kernel-slider")
