"""A real ipykernel over the Jupyter protocol, as a notebook uses it."""

import pytest
from jupyter_client.manager import start_new_kernel
from kernels import Kernel


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """Start one kernel for this module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPYTHONDIR", str(tmp_path_factory.mktemp("ipython")))
        manager, client = start_new_kernel(kernel_name="python3")
    yield Kernel(manager, client)
    client.stop_channels()
    manager.shutdown_kernel(now=True)


@pytest.fixture
def kernel(started):
    """Return the kernel with fresh session defaults."""
    loaded = started.run("%reload_ext container_magic\nget_ipython().user_ns.pop('_contain', None)\nNone")
    assert loaded.reply["status"] == "ok"
    return started
