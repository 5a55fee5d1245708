"""What ``%load_ext`` starts, so that nobody waits for it at the first contained cell."""

import time
from pathlib import Path

import pytest
from jupyter_client.manager import start_new_kernel
from kernels import Kernel

from container_magic.cgroups.facts import probe
from container_magic.magics import STARTER

ZYGOTES = "[one.process.pid for one in __import__('container_magic.runtime.client', fromlist=['_'])._zygotes.values()]"
THREADS = "[thread.name for thread in __import__('threading').enumerate()]"


def wait_for_zygotes(kernel):
    """Return the pids of the zygotes when there are any."""
    end = time.monotonic() + 30
    while (found := kernel.value(ZYGOTES)) == "[]":
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


@pytest.fixture
def cold_by_default(kernel):
    """Have the session's configuration say that nothing waits."""
    kernel.run("get_ipython().config.ContainMagics.warm = 0")
    yield
    kernel.run("del get_ipython().config.ContainMagics.warm")


def test_loading_starts_the_zygote_of_the_first_cell(kernel):
    """It is there before any cell is contained, and the cell uses it."""
    kernel.run("%reload_ext container_magic")
    found = wait_for_zygotes(kernel)
    assert kernel.run("%%contain\nprint('here')").text("stdout") == "here\n"
    assert kernel.value(ZYGOTES) == found


def test_cell_that_comes_at_once_waits_for_the_zygote_that_starts(kernel):
    """One is started, not two."""
    cell = kernel.run("%reload_ext container_magic\nget_ipython().run_cell_magic('contain', '', 'print(1)')")
    assert cell.text("stdout") == "1\n"
    assert kernel.value(f"len({ZYGOTES})") == "1"


@pytest.mark.usefixtures("cold_by_default")
def test_nothing_is_started_where_nothing_is_to_wait(kernel):
    """``warm`` is 0: the first cell starts what it needs."""
    kernel.run("%reload_ext container_magic")
    assert STARTER not in kernel.value(THREADS)
    assert kernel.value(ZYGOTES) == "[]"
    assert kernel.run("%%contain\nprint(1)").text("stdout") == "1\n"


def test_unloading_ends_what_loading_has_just_begun(kernel):
    """Nothing comes after the end."""
    kernel.run("%reload_ext container_magic\n%unload_ext container_magic")
    assert STARTER not in kernel.value(THREADS)
    assert kernel.value(ZYGOTES) == "[]"


def test_fork_of_a_notebook_that_starts_a_zygote_can_have_its_own(kernel):
    """Who holds the lock is not in the child."""
    code = """%reload_ext container_magic
import os
reader, writer = os.pipe()
pid = os.fork()
if pid == 0:
    try:
        import container_magic as cm
        os.write(writer, cm.run("print('own')").stdout.encode())
    finally:
        os._exit(0)
os.close(writer)
print(os.read(reader, 100), os.waitpid(pid, 0)[1])
os.close(reader)"""
    assert kernel.run(code).text("stdout") == "b'own\\n' 0\n"


def test_fork_while_the_thread_imports_can_import_the_same(request):
    """A lock of a module that another thread holds would stay locked in the child."""
    manager, client = start_new_kernel(kernel_name="python3")
    request.addfinalizer(manager.shutdown_kernel)
    request.addfinalizer(client.stop_channels)
    code = """%load_ext container_magic
import os, select
pidfd = os.pidfd_open(pid := os.fork() or (__import__('container_magic.verbs.run'), os._exit(0)))
print(bool(select.select([pidfd], [], [], 20)[0]))
__import__('signal').pidfd_send_signal(pidfd, 9)
os.waitpid(pid, 0)"""
    assert Kernel(manager, client).run(code).text("stdout") == "True\n"


def probes():
    """Return the groups that somebody makes for a moment, to see which files they have."""
    return {path for base in set(probe().bases.values()) for path in Path(base).glob("container_magic-probe-*")}


def test_kernel_that_ends_while_the_zygote_starts_leaves_no_group():
    """Its end waits for what it has begun, whenever that is."""
    before = probes()
    for milliseconds in (0, 60, 120, 180, 240):
        manager, client = start_new_kernel(kernel_name="python3")
        client.execute("%load_ext container_magic")
        time.sleep(milliseconds / 1000)
        client.stop_channels()
        manager.shutdown_kernel()
    left, end = probes() - before, time.monotonic() + 5
    while left and time.monotonic() < end:  # those of others come and go
        time.sleep(0.05)
        left &= probes()
    assert not left
