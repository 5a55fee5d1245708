"""The companion kernel as root or an ordinary user, on cgroup v1 or v2; with jupyter_client and nothing else."""

import contextlib
import sys

import pytest
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import KernelManager

from container_magic.cgroups.facts import probe

PATIENCE_SECONDS = 90
needs_memory = pytest.mark.skipif("memory" not in probe().controllers, reason="needs a memory controller")


@contextlib.contextmanager
def started(*options):
    """Give the client of a kernel that answers."""
    words = [sys.executable, "-P", "-m", "container_magic", "kernel", "start", *options, "-f", "{connection_file}"]
    manager = KernelManager(kernel_name="contained")
    manager._kernel_spec = KernelSpec(argv=words, language="python", interrupt_mode="message")
    manager.start_kernel()
    client = manager.client()
    try:
        client.start_channels()
        client.wait_for_ready(timeout=PATIENCE_SECONDS)
        yield client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def run(client, code):
    """Run a cell; return its reply, and the texts and errors that it showed."""
    shown = []
    reply = client.execute_interactive(code, timeout=PATIENCE_SECONDS, output_hook=shown.append, allow_stdin=False)
    text = "".join(str(message["content"].get("text", message["content"].get("evalue", ""))) for message in shown)
    return reply, text


def test_cell_runs_in_a_container_and_is_counted():
    """Its processes are few, its state lives on, and the reply has its figures."""
    with started("--best-effort") as client:
        run(client, "kept = 42")
        reply, text = run(
            client, "import os\nprint(kept, len([name for name in os.listdir('/proc') if name.isdigit()]))"
        )
    assert text == "42 2\n"
    assert reply["metadata"]["container_magic"]["usage"]["wall_seconds"] > 0


@needs_memory
def test_memory_limit_is_named_in_the_cell():
    """The kernel is dead, and the cell says why."""
    with started("--mem", "128M") as client:
        reply, text = run(client, "hoard = []\nwhile True: hoard.append(bytearray(1 << 20))")
    assert reply["content"]["ename"] == "MemoryLimit"
    assert "memory limit 128 MB reached; peak 128" in text
