"""How a kernel ends, and who is told why: the client, the log of the server, the manager."""

import os
import signal
import time

import nbclient
import nbformat
import pytest
from contained import LIMITS, write_spec
from leftovers import children, descendants

from container_magic.cgroups.facts import probe

pytestmark = pytest.mark.xdist_group("kernel_ends")

needs_memory = pytest.mark.skipif("memory" not in probe().controllers, reason="needs a memory controller")
# touched page by page: memory that is only asked for is no memory
HOG = "import sys\nprint('filling', flush=True)\nhoard = []\nwhile True: hoard.append(bytearray(4_000_000))"

# what is printed in the moment of a crash is lost with any kernel: it may still be inside
FIRST = "print('last words', flush=True)\nimport time; time.sleep(0.3)\n"

ENDS = [
    pytest.param(
        ("--mem", "128M"), HOG, ["memory limit 128 MB reached", "peak 128"], 137, marks=needs_memory, id="oom"
    ),
    pytest.param((*LIMITS, "--cpu-time", "3s"), "while True: pass", ["CPU time limit 3 s reached"], 124, id="cpu-time"),
    pytest.param(
        (*LIMITS, "--timeout", "1s"), "import time; time.sleep(60)", ["wall limit 1 s reached"], 124, id="wall"
    ),
    pytest.param(LIMITS, "import os; os._exit(7)", ["7"], 1, id="exit"),
    pytest.param(LIMITS, "import os; os.kill(os.getpid(), 11)", ["SIGSEGV"], 1, id="signal"),
    pytest.param(LIMITS, "import ctypes; ctypes.string_at(0)", ["SIGSEGV"], 1, id="segfault"),
    pytest.param(LIMITS, "import os; os.kill(os.getpid(), 9)", ["SIGKILL"], 1, id="sigkill"),
]


@pytest.mark.parametrize(("options", "code", "reason", "exit_code"), ENDS)
def test_death_has_its_reason_in_the_cell_and_in_the_log(start, options, code, reason, exit_code):
    """An error in the cell, an error as reply, idle behind it; the same words on standard error; then the end."""
    kernel = start(*options)
    process = kernel.manager.provisioner.process
    kernel.run("before = 1")
    request, waiting = kernel.send(FIRST + code), kernel.send("print('never')")
    cell = kernel.collect(request)
    (error,) = cell.of("error")

    assert cell.text("stdout").startswith("last words\n")
    assert [cell.reply[key] for key in ("status", "ename", "evalue")] == ["error", error["ename"], error["evalue"]]
    for words in reason:
        assert words in error["evalue"]
    assert error["evalue"] in "\n".join(error["traceback"])
    assert kernel.reply(waiting)["status"] == "aborted"
    kernel.wait_until_dead(20)
    assert error["evalue"] in kernel.stderr
    assert process.poll() == exit_code


@needs_memory
def test_memory_of_a_child_ends_the_kernel_with_the_same_reason(start):
    """The limit is the container's: which of its processes the kernel chose to kill does not matter."""
    kernel = start("--mem", "128M")
    code = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {HOG!r}])\nimport time\ntime.sleep(20)"
    assert "memory limit 128 MB reached" in kernel.run(code).reply["evalue"]
    kernel.wait_until_dead(20)


def test_death_between_two_cells_is_seen_and_explained(start):
    """Nobody waits for a reply: the log has the reason, and the manager sees that the kernel is dead."""
    kernel = start()
    kernel.run("import os, threading\nthreading.Timer(0.5, os._exit, [3]).start()")
    kernel.wait_until_dead(20)
    assert "contain kernel:" in kernel.stderr
    assert "The kernel is gone" in kernel.stderr
    assert "SIGKILL" not in kernel.stderr  # nobody has killed it


def test_cell_after_the_death_of_the_kernel_is_not_run_elsewhere(start):
    """A request to a dead kernel has no answer and no effect; a restart brings a fresh one on the same ports."""
    kernel = start()
    kernel.run("import os; os._exit(1)")
    kernel.wait_until_dead(20)
    kernel.manager.restart_kernel(now=True)
    kernel.client.wait_for_ready(timeout=60)
    assert kernel.run("print('again')").text("stdout") == "again\n"


def test_timeout_is_each_cells_own(start):
    """Cells that are short are not counted together, and waiting for the user is nobody's time."""
    kernel = start(*LIMITS, "--timeout", "2s")
    for _ in range(3):
        assert kernel.run("import time; time.sleep(1)").reply["status"] == "ok"
    time.sleep(2.5)
    assert kernel.run("print('alive')").text("stdout") == "alive\n"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        pytest.param(HOG, "memory limit 128 MB reached", marks=needs_memory),
        ("import os; os._exit(7)", "7"),
    ],
)
def test_nbclient_sees_the_reason(jupyter, code, reason):
    """A notebook that is executed has the reason as the error of the cell, in the notebook and in the exception."""
    name = write_spec(jupyter, "mortal", ("--mem", "128M"))
    cells = [nbformat.v4.new_code_cell(source) for source in ("print('one')", code, "print('three')")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    with pytest.raises((nbclient.exceptions.CellExecutionError, nbclient.exceptions.DeadKernelError)) as raised:
        nbclient.NotebookClient(notebook, kernel_name=name, timeout=60).execute()
    outputs = notebook.cells[1].outputs
    assert notebook.cells[0].outputs[0]["text"] == "one\n"
    assert any(reason in output.get("evalue", "") for output in outputs)
    assert reason in str(raised.value)
    assert notebook.cells[2].outputs == []


REFUSED = [
    pytest.param(("--cpuset-cpus", "4000"), ["4000"], id="cpus"),
    pytest.param(("--volume", "/nowhere/at/all:/data"), ["/nowhere/at/all"], id="volume"),
]


@pytest.mark.parametrize(("options", "words"), REFUSED)
def test_kernel_that_this_host_cannot_run_says_so_in_every_cell(start, options, words):
    """It stays instead of dying again and again: each cell is the same error, the log has it, nothing was started."""
    kernel = start(*options)
    process = kernel.manager.provisioner.process
    first, second = kernel.run("print('one')"), kernel.run("print('two')")
    for cell in (first, second):
        assert cell.text("stdout") == ""
        assert cell.reply["status"] == "error"
        assert all(word in cell.reply["evalue"] for word in words)
        assert cell.of("error")[0]["evalue"] == cell.reply["evalue"]
    assert first.reply["evalue"] in kernel.stderr
    assert not [text for text in descendants().values() if "supervisor" in text]
    kernel.manager.shutdown_kernel()
    assert process.poll() == 125


@pytest.mark.parametrize(
    "words", [["--nothing"], ["--mem", "lots"], ["--cpus", "x"], ["--net", "nowhere"], ["--timeout", "-1s"]]
)
def test_malformed_option_is_refused_before_anything_starts(contain, words, tmp_path):
    """One line that names option and value, Docker's exit status, and the connection file is not touched."""
    path = tmp_path / "connection.json"
    done = contain("kernel", "start", *words, "-f", path)
    assert done.returncode == 125
    (line,) = done.stderr.decode().strip().splitlines()[:1]
    assert words[0] in line
    assert not path.exists()


# Who is killed from outside.

SLEEP = "import subprocess\nchild = subprocess.Popen(['sleep', '80'])\nprint('started', flush=True)\nchild.wait()"


def below(pid):
    """Return the launcher and the processes below it by role; the interpreter inside is the last."""
    found = {"launcher": pid}
    for role in ("supervisor", "init", "payload"):
        (pid,) = children(pid)
        found[role] = pid
    return found


@pytest.mark.parametrize("victim", ["launcher", "supervisor", "init", "payload"])
@pytest.mark.parametrize("busy", [True, False], ids=["busy", "idle"])
def test_whoever_is_killed_takes_all_of_it_along(start, victim, busy):
    """No process, cgroup, mount or directory is left; who is left to speak says why to whom waits."""
    kernel = start()
    roles = below(kernel.pid)
    request = kernel.send(SLEEP) if busy else None
    if busy:
        kernel.collect(request, until="started")
    os.kill(roles[victim], signal.SIGKILL)
    if busy and victim != "launcher":
        cell = kernel.collect(request)
        assert cell.reply["status"] == "error"
        assert cell.reply["evalue"]
        assert cell.reply["evalue"] in kernel.stderr
    kernel.wait_until_dead(30)


def test_client_that_vanishes_takes_its_kernel_along(jupyter, tmp_path):
    """The process that wanted the kernel is killed: a kernel that nobody can reach does not stay."""
    import subprocess
    import sys

    source = (
        "import sys, time\nfrom jupyter_client.manager import start_new_kernel\n"
        "manager, client = start_new_kernel(kernel_name='contained')\n"
        "client.execute('import time; time.sleep(90)')\nprint(manager.provisioner.process.pid, flush=True)\n"
        "time.sleep(90)\n"
    )
    with subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as client:
        launcher = int(client.stdout.readline())
        client.kill()
    deadline = time.monotonic() + 20
    while launcher in descendants():
        assert time.monotonic() < deadline, "the kernel outlives who has started it"
        time.sleep(0.05)
