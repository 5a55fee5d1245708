"""Interrupt, restart and shutdown, over tcp and ipc, as front ends do them."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from contained import CONTAIN, LIMITS, Contained, running
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.connect import write_connection_file

pytestmark = pytest.mark.xdist_group("kernel_life")

LOOP = "import time\nprint('looping', flush=True)\nwhile True: time.sleep(0.01)"
DEAF = """
import signal, time
heard = []
before = signal.signal(signal.SIGINT, lambda *_: heard.append(1))
print('looping', flush=True)
end, told = time.monotonic() + 4, 0
while time.monotonic() < end:
    time.sleep(0.05)
    if len(heard) > told:
        told = len(heard)
        print('ignored', flush=True)
signal.signal(signal.SIGINT, before)
print('done')
"""


def interrupt_by_message(kernel):
    """As Jupyter does it with ``interrupt_mode`` message."""
    kernel.manager.interrupt_kernel()


def interrupt_by_signal(kernel):
    """As VS Code does it, and a terminal: SIGINT to the launcher's whole group."""
    os.killpg(os.getpgid(kernel.pid), signal.SIGINT)


INTERRUPTS = [interrupt_by_message, interrupt_by_signal]


@pytest.mark.parametrize("interrupt", INTERRUPTS)
def test_interrupt_is_a_keyboard_interrupt_of_the_cell(kernel, interrupt):
    """The cell ends with KeyboardInterrupt; the kernel and its names live on."""
    kernel.run("kept = 'here'")
    request = kernel.send(LOOP)
    kernel.collect(request, until="looping")
    interrupt(kernel)
    cell = kernel.collect(request)
    assert cell.reply["ename"] == "KeyboardInterrupt"
    assert kernel.run("print(kept)").text("stdout") == "here\n"


@pytest.mark.parametrize("interrupt", INTERRUPTS)
def test_cell_that_ignores_interrupts_is_not_killed(kernel, interrupt):
    """It is told each time and goes on to its end, and so does the kernel."""
    request = kernel.send(DEAF)
    kernel.collect(request, until="looping")
    interrupt(kernel)
    kernel.collect(request, until="ignored")
    interrupt(kernel)
    cell = kernel.collect(request)
    assert cell.reply["status"] == "ok"
    assert cell.text("stdout").endswith("done\n")


@pytest.mark.parametrize("interrupt", INTERRUPTS)
def test_interrupt_of_an_idle_kernel_does_nothing(kernel, interrupt):
    """Neither the kernel nor the next cell is hit."""
    interrupt(kernel)
    time.sleep(0.3)
    assert kernel.run("print('next')").text("stdout") == "next\n"


def test_interrupt_ends_a_program_that_a_cell_waits_for(kernel):
    """What the cell has started is told, too."""
    request = kernel.send("import subprocess\nprint('looping', flush=True)\nsubprocess.run(['sleep', '60'])")
    kernel.collect(request, until="looping")
    time.sleep(0.3)
    kernel.manager.interrupt_kernel()
    assert kernel.collect(request).reply["ename"] == "KeyboardInterrupt"
    assert kernel.run("!ps -e -o comm= | grep -c sleep").text("stdout").strip() == "0"


def test_interrupt_while_input_is_waited_for_ends_the_cell(kernel):
    """The front end's question is given up."""
    request = kernel.send("input('? ')", allow_stdin=True)
    kernel.client.get_stdin_msg(timeout=20)
    kernel.manager.interrupt_kernel()
    assert kernel.collect(request).reply["ename"] == "KeyboardInterrupt"


@pytest.mark.parametrize("now", [False, True])
def test_restart_gives_a_fresh_kernel_on_the_same_ports(start, now):
    """Names are gone, the container is another one, the client goes on with the connection that it has."""
    kernel = start()
    kernel.run("old = 1\nopen('/tmp/old', 'w').close()")
    before = json.loads(Path(kernel.manager.connection_file).read_text())
    kernel.manager.restart_kernel(now=now)
    kernel.client.wait_for_ready(timeout=60)
    cell = kernel.run("import os\nprint('old' in globals(), os.path.exists('/tmp/old'))")
    assert cell.text("stdout") == "False False\n"
    assert json.loads(Path(kernel.manager.connection_file).read_text()) == before


def test_restart_while_a_cell_runs(start):
    """A busy kernel is restarted as an idle one; the cell is gone."""
    kernel = start()
    kernel.collect(kernel.send(LOOP), until="looping")
    kernel.manager.restart_kernel(now=True)
    kernel.client.wait_for_ready(timeout=60)
    assert kernel.run("print('next')").text("stdout") == "next\n"


def test_shutdown_of_an_idle_kernel_needs_no_force(start):
    """The reply comes, the launcher ends by itself with 0 well before the manager would send a signal."""
    kernel = start()
    process = kernel.manager.provisioner.process
    begun = time.monotonic()
    reply = kernel.ask("shutdown_request", {"restart": False}, channel="control")
    code = process.wait(10)
    assert (reply["status"], code) == ("ok", 0)
    assert time.monotonic() - begun < 2  # without load it is some tenths of a second; the manager waits 2.5 s


SLOW_FLUSH = """
import sys, threading, time
flush = sys.stdout.flush
def slow():
    if threading.current_thread().name == 'Control':
        time.sleep(0.2)
    flush()
    if threading.current_thread().name == 'Control':
        open('/out/flushed', 'w').close()
sys.stdout.flush = slow
"""


def test_shutdown_waits_for_no_flush_that_nobody_makes(start, tmp_path):
    """The thread of the control channel flushes behind its reply: what it waits for is there until it has."""
    out = tmp_path / "out"
    out.mkdir()
    out.chmod(0o777)
    kernel = start(*LIMITS, "-v", f"{out}:/out")
    kernel.run(SLOW_FLUSH)
    kernel.ask("shutdown_request", {"restart": False}, channel="control")
    assert kernel.manager.provisioner.process.wait(10) == 0
    assert (out / "flushed").exists()


DEAF_FOR_EVER = """
print('looping', flush=True)
while True:
    try:
        time.sleep(0.01)
    except BaseException:
        pass
"""
HOLDS_THE_LOCK = "import ctypes\nprint('looping', flush=True)\nctypes.PyDLL(None).sleep(60)"


@pytest.mark.parametrize("code", ["import time\n" + DEAF_FOR_EVER, HOLDS_THE_LOCK], ids=["deaf", "holds-the-lock"])
def test_shutdown_of_a_busy_kernel_needs_no_force(start, code):
    """It is answered, even when nothing inside can; the launcher ends by itself with 0, unsignalled."""
    kernel = start()
    process = kernel.manager.provisioner.process
    kernel.collect(kernel.send(code), until="looping")
    time.sleep(0.2)
    reply = kernel.ask("shutdown_request", {"restart": True}, channel="control")
    assert (reply["status"], reply["restart"]) == ("ok", True)
    assert process.wait(10) == 0


@pytest.mark.parametrize("seconds", [0, 0.2, 0.4])
def test_shutdown_of_a_kernel_that_starts_is_answered(tmp_path, seconds):
    """By the relay: there is nothing inside yet that could; what has begun is ended."""
    with running(tmp_path / "log", ready=False) as kernel:
        time.sleep(seconds)
        reply = kernel.ask("shutdown_request", {"restart": True}, channel="control")
        assert (reply["status"], reply["restart"]) == ("ok", True)
        assert kernel.manager.provisioner.process.wait(10) == 0


def test_manager_shuts_down_a_kernel_whose_cell_ignores_everything(start):
    """As a front end does it: the manager interrupts, asks, and finds it gone."""
    kernel = start()
    kernel.collect(kernel.send("import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + DEAF), until="loop")
    kernel.manager.shutdown_kernel()
    assert not kernel.manager.is_alive()


def test_sigterm_ends_the_kernel_in_order(start):
    """What service managers send: everything inside ends, the launcher does too."""
    kernel = start()
    process = kernel.manager.provisioner.process
    process.send_signal(signal.SIGTERM)
    process.wait(10)
    kernel.wait_until_dead()


def test_code_that_exits_ends_the_kernel(start):
    """``exit()`` in a cell is the user's own word: the kernel ends, and the launcher with it."""
    kernel = start()
    kernel.send("exit()")
    kernel.wait_until_dead()


@pytest.mark.parametrize("transport", ["tcp", "ipc"])
def test_transport_of_the_connection_file_is_used(start, transport):
    """A server may have asked for unix sockets: cells, input, control and heartbeat work over them as over tcp."""
    kernel = start(transport=transport)
    cell, asked = kernel.run_and_answer("print(input('? '))", "typed")
    assert (cell.text("stdout"), asked[0]["prompt"]) == ("typed\n", "? ")
    request = kernel.send(LOOP)
    kernel.collect(request, until="looping")
    kernel.manager.interrupt_kernel()
    assert kernel.collect(request).reply["ename"] == "KeyboardInterrupt"
    kernel.client.hb_channel.unpause()
    time.sleep(1.5)
    assert kernel.client.hb_channel.is_beating()


def test_sockets_of_ipc_are_removed_at_the_end(start):
    """The unix sockets beside the connection file are nobody's when the kernel is gone."""
    kernel = start(transport="ipc")
    prefix = Path(kernel.manager.ip)
    assert list(prefix.parent.glob(f"{prefix.name}-*"))
    kernel.manager.shutdown_kernel()
    assert list(prefix.parent.glob(f"{prefix.name}-*")) == []


def test_unknown_trailing_arguments_are_ipykernels(start):
    """Nbclient adds one; what it sets is set inside."""
    kernel = start(arguments=["--HistoryManager.hist_file=:memory:", "--IPKernelApp.extra_extensions=[]"])
    assert kernel.value("get_ipython().history_manager.hist_file") == "':memory:'"


def test_two_kernels_at_once_do_not_see_each_other(start):
    """Names, processes, files: each is in its own container."""
    one, other = start(), start()
    one.run("mine = 1\nopen('/tmp/mine', 'w').close()\nimport subprocess\nchild = subprocess.Popen(['sleep', '70'])")
    code = "import os\nprint('mine' in globals(), os.path.exists('/tmp/mine'))\n!ps -e -o args="
    seen = other.run(code).text("stdout")
    assert seen.startswith("False False\n")
    assert "sleep 70" not in seen
    assert one.run("child.kill(); child.wait()").reply["status"] == "ok"


def test_kernel_is_seen_dead_only_when_it_is(kernel):
    """A busy kernel is alive for its manager."""
    request = kernel.send("import time; time.sleep(1)")
    assert kernel.manager.is_alive()
    kernel.collect(request)
    assert kernel.manager.is_alive()


def test_client_that_comes_back_goes_on(kernel):
    """A page that is reloaded is another client of the same kernel: what ran is still there."""
    kernel.run("kept = 'here'")
    for _ in range(3):
        with kernel.another_client() as page:
            reply = page.execute_interactive("page = kept", output_hook=lambda _: None, timeout=20)
            assert reply["content"]["status"] == "ok"
    assert kernel.run("print(kept)").text("stdout") == "here\n"


def test_front_end_that_knows_only_the_command_starts_it(tmp_path):
    """As VS Code does: it writes the connection file, starts ``argv`` itself, and ends that by SIGTERM."""
    path = tmp_path / "connection.json"
    _, info = write_connection_file(str(path), ip="127.0.0.1", key=b"0123456789abcdef")
    with subprocess.Popen([CONTAIN, "kernel", "start", *LIMITS, "-f", path], stderr=subprocess.DEVNULL) as process:
        client = BlockingKernelClient()
        client.load_connection_info(info)
        try:
            # its heartbeat counts as stopped when the first one is not answered within a second, as in a slow start
            client.start_channels(hb=False)
            client.wait_for_ready(timeout=60)
            assert Contained(None, client, tmp_path).run("print('by hand')").text("stdout") == "by hand\n"
            process.terminate()
            assert process.wait(20) == 0
        finally:
            client.stop_channels()
            client.context.destroy()
            process.kill()


@pytest.mark.parametrize("channel", ["control", "shell"])
def test_request_that_comes_while_the_kernel_starts_is_answered(tmp_path, channel):
    """Nobody has to ask twice, on whichever channel."""
    with running(tmp_path / "log", ready=False) as kernel:
        assert kernel.ask("kernel_info_request", channel=channel)["status"] == "ok"
