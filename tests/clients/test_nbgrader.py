"""A course graded by nbgrader with its kernel in a container, and a submission that means harm."""

import csv
import hashlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from container_magic.cgroups.facts import probe
from container_magic.kernel.kernelspec import Installation, install

pytestmark = [pytest.mark.xdist_group("nbgrader"), pytest.mark.slow, pytest.mark.timeout(600)]

NBGRADER = Path(sys.executable).with_name("nbgrader")
LIMITS = ("--mem", "512M", "--pids", "64") if "memory" in probe().controllers else ("--best-effort",)
SOLUTION = "def square(x):\n    ### BEGIN SOLUTION\n    return x * x  # the solution\n    ### END SOLUTION"
TESTS = "assert square(3) == 9\n### BEGIN HIDDEN TESTS\nassert square(12) == 144\n### END HIDDEN TESTS"
GOOD = "def square(x):\n    return x ** 2"
CHEATED = "def square(x):\n    return 9"
DEADLY = "import os\ndef square(x):\n    os._exit(0)"
HUNGRY = "def square(x):\n    hoard = []\n    while True: hoard.append(bytearray(4_000_000))"
HOSTILE = """
import glob, os, socket, subprocess, sys
found = []
near = glob.glob("/tmp/**", recursive=True) + glob.glob("*") + glob.glob("../*")
near = [path for path in near if os.path.isfile(path)]
for path in {targets!r} + near:
    try:
        found.append(b"the " b"solution" in open(path, "rb").read(1_000_000) or path in {targets!r})
    except OSError:
        pass
print("READ", any(found))
for path in ["../../pwned", "../../../pwned", {course!r} + "/pwned", {course!r} + "/gradebook.db"]:
    try:
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        open(path, "w").write("pwned")
    except OSError:
        pass
try:
    socket.create_connection(("127.0.0.1", {port}), 2).sendall(b"solution")
except OSError:
    pass
print("all tests passed: score 3/3", file=sys.stderr)
print('{{"score": 3, "max_score": 3, "points": 3}}')
for _ in range(500):
    try:
        if os.fork() == 0:
            while True: pass
    except OSError:
        break
def square(x):
    return "forged"
"""


def cell(source, grade_id, **nbgrader):
    """Return a cell as nbgrader's extension writes it."""
    described = {"schema_version": 3, "task": False, "grade_id": grade_id, **nbgrader}
    return nbformat.v4.new_code_cell(source, metadata={"nbgrader": described})


def write(path, solution, tests=TESTS):
    """Write the assignment's notebook."""
    path.parent.mkdir(parents=True)
    cells = [
        cell(solution, "square", solution=True, grade=False, locked=False),
        cell(tests, "test_square", solution=False, grade=True, locked=True, points=3),
    ]
    spec = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=spec), path)


class Course:
    """A course directory, and nbgrader in it."""

    def __init__(self, home, kernel):
        self.root, self._home = home / "course", home
        self.root.mkdir()
        (self.root / "nbgrader_config.py").write_text(
            f"c = get_config()\nc.CourseDirectory.course_id = 'course'\nc.CourseDirectory.root = {str(self.root)!r}\n"
            f"c.ExecutePreprocessor.kernel_name = {kernel!r}\nc.ExecutePreprocessor.timeout = 60\n"
        )

    def run(self, *words):
        """Run nbgrader and return what it says."""
        environment = os.environ | {
            "PATH": f"{NBGRADER.parent}:{os.environ['PATH']}",  # it calls alembic
            "HOME": str(self._home),
            "JUPYTER_DATA_DIR": str(self._home / "data"),
            "JUPYTER_RUNTIME_DIR": str(self._home / "runtime"),
            "JUPYTER_CONFIG_DIR": str(self._home / "config"),
        }
        return subprocess.run(
            [NBGRADER, *words], cwd=self.root, env=environment, capture_output=True, text=True, timeout=300, check=False
        )

    def submit(self, student, solution):
        """Put a student's notebook where the collected ones are."""
        write(self.root / "submitted" / student / "ps1" / "problem.ipynb", solution, TESTS.partition("###")[0])

    def grade(self):
        """Grade all that were submitted; return what nbgrader says, and the score of each student."""
        done = self.run("autograde", "ps1", "--create")
        self.run("export", "--to", "grades.csv")
        with (self.root / "grades.csv").open() as file:
            return done, {row["student_id"]: float(row["score"]) for row in csv.DictReader(file)}

    def graded(self, student):
        """Return the text of what a student's graded notebook shows."""
        return (self.root / "autograded" / student / "ps1" / "problem.ipynb").read_text()

    def sources(self):
        """Return what must not change: every file of the teacher's, by what is in it."""
        files = [*(self.root / "source").rglob("*"), *(self.root / "release").rglob("*")]
        return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.is_file()}


@pytest.fixture
def course(tmp_path):
    """Return a course with one assignment, released."""
    kernels = str(tmp_path / "data" / "kernels")
    install(Installation(name="contained", display_name="contained", kernels_directory=kernels, words=LIMITS))
    course = Course(tmp_path, "contained")
    write(course.root / "source" / "ps1" / "problem.ipynb", SOLUTION)
    done = course.run("generate_assignment", "ps1", "--create")
    assert done.returncode == 0, done.stderr
    return course


def test_honest_and_failing_submissions_get_their_points(course):
    """Three points or none; hidden tests count, and a kernel that dies or is killed costs its own points alone."""
    for student, solution in {"good": GOOD, "cheat": CHEATED, "deadly": DEADLY, "hungry": HUNGRY}.items():
        course.submit(student, solution)
    done, scores = course.grade()
    assert (scores["good"], scores["cheat"]) == (3, 0), done.stderr
    assert not scores.get("deadly")
    assert not scores.get("hungry")
    assert "memory limit 512 MB reached" in done.stderr + course.graded("hungry") or LIMITS == ("--best-effort",)


def test_hostile_submission_reads_writes_reaches_and_forges_nothing(course):
    """Solution, gradebook and network are out of its reach, nothing of the host changes, and its points are none."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)
        targets = [str(course.root / "source/ps1/problem.ipynb"), str(course.root / "gradebook.db")]
        port = listener.getsockname()[1]
        course.submit("hostile", HOSTILE.format(targets=targets, course=str(course.root), port=port))
        course.submit("good", GOOD)
        before = course.sources()
        done, scores = course.grade()
        with pytest.raises(TimeoutError):
            listener.accept()
    assert (scores["hostile"], scores["good"]) == (0, 3), done.stderr
    assert course.sources() == before
    assert not list(course.root.parent.rglob("pwned"))
    shown = course.graded("hostile")
    assert "READ False" in shown
