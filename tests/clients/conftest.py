"""Programs around Jupyter that are too heavy for every run of the tests: ``make test-clients`` brings them."""

import importlib.util

import pytest
from leftovers import adopt_orphans, nothing_left  # noqa: F401 - fixtures

PROGRAMS = {"test_jupyterhub": "jupyterhub", "test_nbgrader": "nbgrader", "test_otter": "otter"}


def pytest_runtest_setup(item):
    """Skip what cannot run without its program, and say how it comes."""
    program = PROGRAMS[item.module.__name__.rpartition(".")[2]]
    if importlib.util.find_spec(program) is None:
        pytest.skip(f"{program} not installed: make test-clients")
