"""``%%contain --snapshot`` in a real ipykernel: the cell runs on a copy of the notebook's process."""

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest

from container_magic.runtime.sweep import runtime_directory

SNAPSHOT = "%%contain --snapshot --quiet"
PATIENCE_SECONDS = 20
MB = 1024 * 1024


def children(pid):
    """Return the pids of the children of a process."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += map(int, path.read_text().split())
        except OSError:
            continue
    return found


def descendants(pid):
    """Return the pids of all that descends from a process."""
    return {one for child in children(pid) for one in ({child} | descendants(child))}


def runs(pid):
    """Return whether a process is there; one that is dead is its parent's affair, who may be anybody's reaper."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def eventually(look):
    """Return the first value of ``look`` that is true; fail when there is none."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := look()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
    return found


def settled(look):
    """Return what ``look`` says once it has said the same for half a second: a supervisor goes, a spare one comes."""
    since, value = time.monotonic(), look()
    while time.monotonic() - since < 0.5:
        time.sleep(0.01)
        if (now := look()) != value:
            since, value = time.monotonic(), now
    return value


def state_of(pid):
    """Return the state of the container whose init is ``pid``, None before it is written."""
    for path in Path(runtime_directory()).glob("*/state.json"):
        try:
            state = json.loads(path.read_text())
        except (OSError, ValueError):
            continue
        if state.get("pid") == pid:  # another's may be in the making
            return {**state, "directory": path.parent}
    return None


def groups(state):
    """Return the cgroups of a container that are there."""
    # not Path.glob(): that fails when somebody else's group goes while it looks
    return [top for top, names, _ in os.walk("/sys/fs/cgroup") if state["cgroup"] in names]


def text(cell):
    """Return the traceback of a cell, without colours."""
    (error,) = cell.of("error")
    return re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error["traceback"]))


@pytest.fixture
def kernel_pid(kernel):
    """The pid of the kernel, which has as many descendants after the test as before: the zygote and its own."""
    kernel.run(f"{SNAPSHOT}\npass")
    pid = int(kernel.value("__import__('os').getpid()"))
    before = settled(lambda: len(descendants(pid)))
    yield pid
    kernel.run(f"{SNAPSHOT}\npass")  # a zygote that was killed is there again
    eventually(lambda: settled(lambda: len(descendants(pid))) == before)


class Running:
    """A snapshot whose code runs, and its processes."""

    def __init__(self, kernel, kernel_pid, options=""):
        self.kernel = kernel
        self.request = kernel.send(f"{SNAPSHOT} {options}\nprint('begun', flush=True)\nimport time\ntime.sleep(600)")
        kernel.collect(self.request, until="begun")
        stems = {pid: children(pid) for pid in children(kernel_pid)}
        # the stem's command line is the kernel's own: it is a fork that has executed nothing
        own = Path(f"/proc/{kernel_pid}/cmdline").read_bytes()
        (self.stem,) = [pid for pid in stems if Path(f"/proc/{pid}/cmdline").read_bytes() == own]
        (self.init,) = stems[self.stem]
        self.state = eventually(lambda: state_of(self.init))
        self.supervisor = self.state["supervisor_pid"]
        self.zygote = int(re.search(r"PPid:\s+(\d+)", Path(f"/proc/{self.supervisor}/status").read_text())[1])
        (self.payload,) = children(self.init)

    def cell(self):
        """Return what the kernel sent for the cell from now on."""
        return self.kernel.collect(self.request)


def test_variables_are_seen_and_stay_as_they_were(kernel, tmp_path):
    """Names, lists, dicts, arrays in place, environment, files and figures: nothing of what the cell does is left."""
    kernel.run(
        "import os, numpy as np, matplotlib.pyplot as plt\n"
        "number, items, table, array = 1, [1, 2], {'a': 1}, np.zeros(1000)\n"
        "def double(n):\n    return 2 * n"
    )
    cell = kernel.run(
        f"{SNAPSHOT}\nprint(double(number), items, table, array.sum())\n"
        "number = 5\nitems.append(3)\ntable.clear()\narray[:] = 7\nos.environ['CHANGED'] = 'yes'\ndel double\n"
        f"os.makedirs({str(tmp_path)!r}, exist_ok=True)\nopen({str(tmp_path / 'written')!r}, 'w').write('x')\n"
        "plt.rcParams['lines.linewidth'] = 99\nprint(items, array.sum(), os.path.exists('/tmp'))"
    )
    assert cell.text("stdout") == "2 [1, 2] {'a': 1} 0.0\n[1, 2, 3] 7000.0 True\n"
    assert kernel.value("number, items, table, float(array.sum()), double(1), 'CHANGED' in os.environ") == (
        "(1, [1, 2], {'a': 1}, 0.0, 2, False)"
    )
    assert kernel.value("plt.rcParams['lines.linewidth'] == 99, plt.get_fignums()") == "(False, [])"
    assert not (tmp_path / "written").exists()


def test_memory_that_is_shared_for_good_is_private_inside(kernel, tmp_path):
    """Memory maps of files, anonymous ones and shared_memory are written to inside, and not outside."""
    kernel.run(
        "import mmap, numpy as np\nfrom multiprocessing.shared_memory import SharedMemory\n"
        f"mapped = np.memmap({str(tmp_path / 'map')!r}, dtype='u1', mode='w+', shape=(8192,))\n"
        "anonymous, shared = mmap.mmap(-1, 4096), SharedMemory(create=True, size=4096)\n"
        "mapped[1] = anonymous[1] = shared.buf[1] = 3"
    )
    cell = kernel.run(
        f"{SNAPSHOT}\nprint(mapped[1], anonymous[1], shared.buf[1])\n"
        "mapped[0] = anonymous[0] = shared.buf[0] = 9\nprint(mapped[0], anonymous[0], shared.buf[0])"
    )
    found = kernel.value("int(mapped[0]), anonymous[0], shared.buf[0]")
    kernel.run("shared.close(); shared.unlink()")
    assert cell.text("stdout") == "3 3 3\n9 9 9\n"
    assert found == "(0, 0, 0)"
    assert (tmp_path / "map").read_bytes()[:2] == b"\x00\x03"


def test_variables_are_not_copied(kernel):
    """500 MB of an array and many objects are there in a limit of 60 MB: only what is written to is the container's.

    The garbage collector writes to every object that it looks at: it leaves the notebook's alone.
    """
    kernel.run("import numpy as np\nbig = np.ones(500 * 1024 * 1024 // 8)\nrecords = [[i] for i in range(1_000_000)]")
    cell = kernel.run(f"{SNAPSHOT} --mem 60M\nprint(big.sum(), len(records), __import__('gc').collect() < 10**6)")
    peak = int(kernel.value("_contain.usage.memory_peak_bytes"))
    kernel.run("del big, records")
    assert cell.text("stdout") == "65536000.0 1000000 True\n"
    assert peak < 50 * MB


def test_memory_limit_ends_the_snapshot_alone(kernel):
    """The kernel lives on, and says in which line it was."""
    cell = kernel.run(f"{SNAPSHOT} --mem 60M\nimport numpy as np\nlarge = np.ones(100_000_000)")
    assert "memory limit 60 MB reached in line 2" in text(cell)
    assert kernel.value("_contain.verdict, 1 + 1") == "('MEMORY_LIMIT', 2)"


def test_it_is_contained_as_any_cell(kernel, tmp_path):
    """No network, no home, no capability, no variable of the environment, nothing to be killed."""
    (tmp_path / "secret").write_text("x")
    kernel.run(f"import os\nos.environ['TOKEN'] = 'secret'\nsecret = {str(tmp_path / 'secret')!r}")
    cell = kernel.run(
        f"{SNAPSHOT}\nimport os, socket\n"
        "print(os.environ.get('TOKEN'), os.path.exists(secret), sorted(os.listdir('/sys/class/net')), os.getppid())\n"
        "status = dict(line.split(':', 1) for line in open('/proc/self/status'))\n"
        "print(*(status[name].strip() for name in ('CapEff', 'CapBnd', 'NoNewPrivs', 'Seccomp')))\n"
        "print(sorted(name for name in os.listdir('/proc') if name.isdigit()))\n"
        "try:\n    open('/proc/1/environ').read()\nexcept OSError as error:\n    print(type(error).__name__)\n"
        "try:\n    socket.create_connection(('192.0.2.1', 80), 1)\nexcept OSError as error:\n    print(error.strerror)"
    )
    assert cell.text("stdout").splitlines() == [
        "None False ['lo'] 1",
        "0000000000000000 0000000000000000 1 2",
        "['1', '2']",
        "PermissionError",
        "Network is unreachable",
    ]


def test_no_descriptor_of_the_notebook_is_inside(kernel):
    """Neither the kernel's sockets nor a file that the notebook has open: the standard streams and the channel."""
    kernel.run("import os\nopened = open(os.path.realpath('/proc/self/exe'), 'rb')")
    cell = kernel.run(
        f"{SNAPSHOT}\nimport os\nfrom IPython import get_ipython\n"
        "fds = {int(n) for n in os.listdir('/proc/self/fd') if os.path.exists(f'/proc/self/fd/{n}')}\n"
        "print(len(fds), opened.fileno() in fds, get_ipython().kernel.shell_stream)"
    )
    kernel.run("opened.close()")
    assert cell.text("stdout").startswith("4 False")


def test_lock_that_a_thread_of_the_notebook_holds_is_a_hang_that_ends(kernel):
    """The thread is not there to let go of it: the time limit ends the cell, and 60 s is its default."""
    kernel.run(
        "import threading\nlock, over = threading.Lock(), threading.Event()\n"
        "def hold():\n    with lock:\n        over.wait()\n"
        "holder = threading.Thread(target=hold)\nholder.start()"
    )
    cell = kernel.run(f"{SNAPSHOT} --timeout 1s\nwith lock:\n    pass")
    kernel.run("over.set(); holder.join()")
    assert "wall limit 1 s reached in line 1" in text(cell)
    assert "limit timeout = 60.0 by" in kernel.run("%%contain --snapshot --dry-run\n1").text("stdout")
    assert "limit timeout" not in kernel.run("%%contain --snapshot --timeout none --dry-run\n1").text("stdout")


def test_blas_computes_after_it_has_computed_in_the_notebook(kernel):
    """Its threads are made anew; one may also start threads of one's own."""
    kernel.run("import numpy as np\nmatrix = np.ones((600, 600))\n_product = matrix @ matrix")
    cell = kernel.run(
        f"{SNAPSHOT}\nprint((matrix @ matrix)[0, 0])\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(2) as pool:\n    print(list(pool.map(abs, [-1, 2])))"
    )
    assert cell.text("stdout") == "600.0\n[1, 2]\n"


def test_openmp_of_gnu_computes_with_one_thread_and_says_so_once(kernel):
    """It would wait for threads that the fork did not bring along."""
    loaded = kernel.run(
        "import ctypes\ntry:\n    gomp = ctypes.CDLL('libgomp.so.1')\nexcept OSError:\n    print('none')\nelse:\n"
        "    seen = []\n    body = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: seen.append(1))\n"
        "    def parallel():\n        seen.clear(); gomp.GOMP_parallel(body, None, 0, 0); return len(seen)\n"
        "    parallel()"
    )
    if "none" in loaded.text("stdout"):
        pytest.skip("no libgomp on this host")
    first = kernel.run(f"{SNAPSHOT} --timeout 20s\nprint(parallel())")
    second = kernel.run(f"{SNAPSHOT} --timeout 20s\nprint(parallel())")
    assert (first.text("stdout"), second.text("stdout")) == ("1\n", "1\n")
    assert "libgomp" in first.text("stderr") and second.text("stderr") == ""


def test_chosen_results_come_back(kernel):
    """``-o`` brings variables out, and nothing else of what the cell has done."""
    kernel.run("import numpy as np\nstarted, vector = 1, np.arange(3.0)")
    kernel.run(
        f"{SNAPSHOT} -o doubled,counted\nstarted = 2\ndoubled = vector * 2\nvector[:] = 0\ncounted = len(vector)"
    )
    assert (
        kernel.value("started, vector.tolist(), doubled.tolist(), counted")
        == "(1, [0.0, 1.0, 2.0], [0.0, 2.0, 4.0], 3)"
    )


def test_random_numbers_are_those_that_the_notebook_would_get(kernel):
    """A rehearsal of a cell draws what the cell will draw."""
    kernel.run("import random, numpy as np\nrandom.seed(4); np.random.seed(4)")
    inside = kernel.run(f"{SNAPSHOT}\nprint(random.random(), float(np.random.rand()))").text("stdout")
    assert kernel.run("print(random.random(), float(np.random.rand()))").text("stdout") == inside


def test_error_has_the_lines_of_cell_and_notebook(kernel):
    """A function of the notebook is quoted from the notebook's cell."""
    kernel.run("one = 1\n\ndef divide(n):\n    return one / n")
    shown = text(kernel.run(f"{SNAPSHOT}\nzero = 0\ndivide(zero)"))
    assert "ZeroDivisionError" in shown
    assert "File <cell>, line 2" in shown
    assert re.search(r"Cell In\[\d+\], line 4, in divide\(n\)", shown)
    assert "return one / n" in shown


def test_what_is_shown_arrives_in_order(kernel):
    """Prints, displays, a log of the notebook's, a child's output, await, a figure, a result."""
    kernel.run("import logging\nlogging.basicConfig(force=True)\nlog = logging.getLogger('mine')")
    cell = kernel.run(
        f"{SNAPSHOT}\nprint('one')\ndisplay('two')\nawait __import__('asyncio').sleep(0)\n!echo three\n"
        "log.warning('four')\nimport matplotlib.pyplot as plt\nplt.figure()\nplt.show()\n'five'"
    )
    assert cell.text("stderr") == "WARNING:mine:four\n"
    shown = [item.replace("WARNING:mine:four\n", "") if isinstance(item, str) else item for item in cell.kinds()]
    assert shown[:3] == ["one\n", ("display_data", "'two'"), "three\n"]
    assert shown[3][1].startswith("<Figure") and shown[4] == ("execute_result", "'five'")


def test_history_and_results_of_the_notebook_know_nothing_of_it(kernel):
    """``_`` and ``Out`` are the notebook's; inside they are seen."""
    kernel.run("'mine'")
    assert kernel.run(f"{SNAPSHOT}\nprint(_)\n'theirs'").text("stdout") == "mine\n"
    assert kernel.value("_") == "'mine'"


def test_input_is_asked_in_the_front_end(kernel):
    """As in any contained cell."""
    cell, asked = kernel.run_and_answer(f"{SNAPSHOT}\nprint('hello', input('name? '))", "Ada")
    assert [question["prompt"] for question in asked] == ["name? "]
    assert cell.text("stdout") == "hello Ada\n"


def test_widgets_reach_no_front_end(kernel):
    """A message on the kernel's own sockets would pass by the filter: there is none, and no hang."""
    cell = kernel.run(
        f"{SNAPSHOT} --net host\nfrom IPython import get_ipython\nkernel = get_ipython().kernel\n"
        "kernel.session.send(kernel.iopub_socket, 'stream', {'name': 'stdout', 'text': 'forged'})\nprint('over')"
    )
    assert cell.text("stdout") == "over\n"


def test_it_does_not_nest(kernel):
    """A container is no place for containers."""
    assert "inside a container" in text(kernel.run(f"{SNAPSHOT}\nget_ipython().run_cell_magic('contain', '', '1')"))


def test_exit_ends_the_snapshot_and_not_the_notebook(kernel):
    """``exit`` is the interpreter's end, there."""
    kernel.run(f"{SNAPSHOT} --no-raise-error\nexit(3)")
    assert kernel.value("_contain.exit_code") == "3"


def test_exit_handlers_of_the_notebook_do_not_run(kernel, tmp_path):
    """They are the notebook's; those of the cell do."""
    kernel.run("import atexit\natexit.register(print, 'the notebook ends')")
    cell = kernel.run(f"{SNAPSHOT}\nimport atexit\natexit.register(print, 'the cell ends')")
    kernel.run("atexit.unregister(print)")
    assert cell.text("stdout") == "the cell ends\n"


@pytest.mark.parametrize(
    "words",
    ["--session work", "--lang bash", "--interpreter /bin/sh", "--preload json", "--input one"],
    ids=lambda words: words[2:6],
)
def test_what_contradicts_it_is_refused(kernel, words):
    """Both options are named, and nothing is started."""
    cell = kernel.run(f"{SNAPSHOT} {words}\n1")
    (error,) = cell.of("error")
    assert error["ename"] == "OptionError"
    assert "--snapshot" in error["evalue"] and words.split()[0] in error["evalue"]


def test_only_the_main_thread_forks(kernel):
    """A fork of another thread would leave the main one's locks and state behind."""
    cell = kernel.run(
        "import threading\nfound = []\ndef work():\n"
        "    try:\n        get_ipython().run_cell_magic('contain', '--snapshot', '1')\n"
        "    except Exception as error:\n        found.append(str(error))\n"
        "thread = threading.Thread(target=work)\nthread.start()\nthread.join()\nprint(*found)"
    )
    assert "main thread" in cell.text("stdout")


def test_thirty_in_a_row_leave_nothing(kernel, kernel_pid):
    """No process, no descriptor, no thread more than before."""
    # IPython's history is written by a thread of its own, whose files come and go, between two looks too
    look = (
        "import os, threading\nfds = os.listdir('/proc/self/fd')\n"
        "names = [os.path.realpath(f'/proc/self/fd/{fd}') for fd in fds]\n"
        "names = [name for name in names if 'history.sqlite' not in name and not os.path.basename(name).isdigit()]\n"
        "print(len(names), threading.active_count())"
    )
    kernel.run(f"{SNAPSHOT}\npass")  # the first one starts the zygote, which stays
    before = kernel.run(look).text("stdout").split()
    for number in range(30):
        assert kernel.run(f"{SNAPSHOT}\nprint({number})").text("stdout") == f"{number}\n"
    after = kernel.run(look).text("stdout").split()
    assert all(int(now) <= int(then) for now, then in zip(after, before, strict=True)), (before, after)


def test_interrupt_ends_the_cell_alone(kernel, kernel_pid):
    """Ctrl-C goes to the code as KeyboardInterrupt."""
    running = Running(kernel, kernel_pid)
    kernel.manager.interrupt_kernel()
    assert "KeyboardInterrupt" in text(running.cell())
    assert kernel.value("1 + 1") == "2"


@pytest.mark.parametrize("victim", ["stem", "supervisor", "zygote", "init", "payload"])
def test_who_is_killed_takes_the_rest_along(kernel, kernel_pid, victim):
    """The cell fails, the kernel lives, nothing is left, the next one works."""
    running = Running(kernel, kernel_pid)
    os.kill(getattr(running, victim), signal.SIGKILL)
    assert running.cell().reply["status"] == "error"
    assert kernel.run(f"{SNAPSHOT}\nprint('next')").text("stdout") == "next\n"
    eventually(lambda: not running.state["directory"].exists() and not groups(running.state))
    eventually(lambda: not any(runs(pid) for pid in (running.init, running.payload, running.stem)))


STEPS = [
    ("container_magic.runtime.stem", "make_private"),
    ("container_magic.runtime.stem", "_enter"),
    ("container_magic.runtime.stem", "clone_child"),
    ("container_magic.runtime.clone", "write_maps"),
    ("container_magic.process.child", "_Setup.keep_only_sockets"),
    ("container_magic.process.child", "_Setup.mount_the_root"),
    ("container_magic.process.child", "_Setup.join_the_cgroup"),
    ("container_magic.process.child", "_Setup.fork_the_payload"),
    ("container_magic.process.payload", "set_environment"),
    ("container_magic.process.child", "_Setup.tell_the_payload"),
    ("container_magic.process.payload", "_await_word"),
    ("container_magic.process.confine", "_set_substitutes"),
    ("container_magic.process.payload", "_shed"),
    ("container_magic.process.interpreter", "_open_streams"),
]


@pytest.mark.parametrize(("module", "name"), STEPS, ids=lambda value: value.rpartition(".")[2])
@pytest.mark.parametrize("how", ["killed", "failing"])
def test_death_at_any_step_of_the_start_leaves_nothing(kernel, kernel_pid, module, name, how):
    """The copy runs the notebook's own modules, so a step can be made to die there; the next snapshot works."""
    holder, _, attribute = f"module.{name}".rpartition(".")
    deed = "os.kill(os.getpid(), 9); os._exit(9)" if how == "killed" else "raise OSError(5, 'made to fail')"
    kernel.run(
        f"import os, importlib, time\nmodule = importlib.import_module({module!r})\nholder = {holder}\n"
        f"original = holder.{attribute}\nnotebook = os.getpid()\ndef dying(*_a, **_k):\n    {deed}\n"
        f"holder.{attribute} = dying"
    )
    cell = kernel.run(f"{SNAPSHOT}\nprint('ran')")
    kernel.run(f"holder.{attribute} = original")
    assert cell.reply["status"] == "error"
    assert "ran" not in cell.text("stdout")
    assert kernel.run(f"{SNAPSHOT}\nprint('next')").text("stdout") == "next\n"
