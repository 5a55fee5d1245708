"""Programs around Jupyter that are too heavy for every run of the tests: ``make test-clients`` brings them."""

import importlib.util

import pytest
from leftovers import adopt_orphans, nothing_left  # noqa: F401 - fixtures


def pytest_runtest_setup(item):
    """Skip what cannot run without its program, and say how it comes."""
    if importlib.util.find_spec("nbgrader") is None:
        pytest.skip("nbgrader not installed: make test-clients")
