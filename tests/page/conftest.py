"""JupyterLab in headless Chromium; where one of them is missing, the tests say so and are skipped."""

import ctypes
import importlib.util
import os
import shutil
import time
from pathlib import Path

import psutil
import pytest
from canary import Canary
from lab import Lab, Notebook
from leftovers import is_locked

from container_magic.runtime.sweep import runtime_directory

PICTURES = Path(__file__).resolve().parents[2] / "build" / "page"
CHROMIUM = shutil.which("chromium")
PATIENCE_SECONDS = 10
_PR_SET_CHILD_SUBREAPER = 36


def pytest_runtest_setup(item):
    """Skip what cannot run without the page's parts, and say how they come."""
    missing = [name for name in ("jupyterlab", "playwright") if importlib.util.find_spec(name) is None]
    missing += [] if CHROMIUM else ["chromium"]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed: make test-page")


@pytest.fixture(scope="session")
def nothing_left():
    """Adopt whatever loses its parent, and fail when a process or a container's state is left at the end."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before = set(psutil.Process().children(recursive=True)), set(Path(runtime_directory()).iterdir())
    yield
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (left := _left(*before)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left


def _left(processes, states):
    """Return what there is now and was not before; the dead that were adopted are reaped."""
    living = [child for child in psutil.Process().children(recursive=True) if child not in processes]
    for child in living:
        if child.status() == psutil.STATUS_ZOMBIE and child.ppid() == os.getpid():
            child.wait(0)
    stale = [path for path in Path(runtime_directory()).iterdir() if path not in states and _is_stale(path)]
    return [str(child) for child in living if child.is_running()] + [str(path) for path in stale]


def _is_stale(path):
    """Return whether the supervisor of a state directory is dead."""
    try:
        return not is_locked(path)
    except OSError:
        return False  # gone meanwhile


@pytest.fixture(scope="session")
def lab(nothing_left, tmp_path_factory):
    """Return a JupyterLab server with directories of its own."""
    lab = Lab(tmp_path_factory.mktemp("lab"))
    yield lab
    lab.stop()


@pytest.fixture(scope="session")
def browser(nothing_left):
    """Return Chromium without a window."""
    from playwright.sync_api import sync_playwright

    # Chromium's own sandbox refuses root
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def notebook(lab, browser):
    """Return a function that opens a notebook of the given cells in a page; the extension is loaded by its first.

    With a contained ``kernel`` there is no such cell.
    """
    opened = []

    def notebook(name, *cells, theme="light", kernel="python3", **keywords):
        context = browser.new_context(viewport={"width": 1000, "height": 900}, device_scale_factor=1)
        cells = (["%load_ext container_magic"] if kernel == "python3" else []) + [*cells]
        opened.append((context, Notebook(lab, context, name, cells, kernel=kernel, **keywords)))
        if theme == "dark":
            opened[-1][1].command("apputils:change-theme", theme="JupyterLab Dark")
        return opened[-1][1]

    yield notebook
    for context, page in opened:
        page.close()
        context.close()


@pytest.fixture
def canary():
    """Return a server that records what is asked of it."""
    with Canary() as canary:
        yield canary
