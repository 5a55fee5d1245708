"""Fixtures of the companion kernel: directories of Jupyter's own, and kernels that are ended after a test."""

import contextlib

import pytest
from command import contain  # noqa: F401 - a fixture
from contained import LIMITS, NAME, running, write_spec
from leftovers import adopt_orphans, nothing_left  # noqa: F401 - fixtures


@pytest.fixture(scope="module", autouse=True)
def jupyter(tmp_path_factory):
    """Give Jupyter directories of its own; return that of the kernelspecs."""
    home = tmp_path_factory.mktemp("jupyter")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DATA", "RUNTIME", "CONFIG"):
            (home / name.lower()).mkdir()
            patch.setenv(f"JUPYTER_{name}_DIR", str(home / name.lower()))
        patch.setenv("JUPYTER_PREFER_ENV_PATH", "0")  # these directories come before the environment's own
        patch.setenv("IPYTHONDIR", str(home / "ipython"))
        write_spec(home / "data" / "kernels", NAME, LIMITS)
        yield home / "data" / "kernels"


@pytest.fixture(scope="module")
def kernel(jupyter, tmp_path_factory):
    """Return one kernel for this module: its tests leave it alive and idle."""
    with running(tmp_path_factory.mktemp("kernel") / "stderr") as kernel:
        yield kernel


@pytest.fixture
def start(jupyter, tmp_path):
    """Return a function that starts a kernel with options of ``contain kernel start``; each is ended after the test."""
    with contextlib.ExitStack() as stack:
        started = []

        def start(*options, **keywords):
            started.append(options)
            name = write_spec(jupyter, f"own{len(started)}", options or LIMITS)
            log = tmp_path / f"stderr{len(started)}"
            if keywords.get("transport") == "ipc":  # else its sockets are those of every other in this directory
                keywords["ip"] = str(tmp_path / "kernel-ipc")
            return stack.enter_context(running(log, name, **keywords))

        yield start
