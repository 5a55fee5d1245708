"""Where the tests run: outside as some user, and inside of a container as the same ids; command lines and results."""

import json
import os
import re
import signal
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
# the base interpreter: a virtual environment has no `test` package of its own, and the tests compare prefixes
PREFIX = sys.base_prefix
PYTHON = f"{PREFIX}/bin/python{sys.version_info[0]}.{sys.version_info[1]}"
PATHS = f"{PREFIX}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LIMITS = ("--mem", "2G", "--pids", "512", "--disk", "1G")
MODULE_SECONDS = 300
NO_PRIVILEGES = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs")
WORST_FIRST = ("failed", "skipped", "passed")


@dataclass(frozen=True, kw_only=True)
class Identity:
    """One user on both sides: ``prefix`` becomes it outside, ``options`` inside."""

    name: str
    prefix: tuple[str, ...]
    options: tuple[str, ...]


def has_tests(module):
    """Return whether this interpreter was installed with ``module`` (3.11.7 leaves some of them out)."""
    tests = Path(PYTHON).parents[1] / "lib" / Path(PYTHON).name / "test"
    return (tests / f"{module}.py").exists() or (tests / module).is_dir()


def identities():
    """Return the users that this caller can compare.

    Root against the container's root: the same uid 0, both without any capability and with ``no_new_privs``. An
    ordinary user against ``--user``. Who is not root can only compare himself with the root of his containers.
    """
    if os.geteuid() != 0:
        return {"self": Identity(name="self", prefix=("setpriv", "--no-new-privs"), options=("--best-effort",))}
    become = (*NO_PRIVILEGES, "--reuid=1000", "--regid=1000", "--clear-groups")
    return {
        "root": Identity(name="root", prefix=NO_PRIVILEGES, options=()),
        "user": Identity(name="user", prefix=become, options=("--user", "1000:1000")),
    }


@dataclass(kw_only=True)
class ModuleResult:
    """What one module did on one side: the outcome and the reasons of each test, and how regrtest ended."""

    outcomes: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, list[str]] = field(default_factory=dict)
    ending: str = "passed"
    log: str = ""

    def outcome(self, test):
        """Return what became of ``test``; a class or module that was skipped or failed as a whole speaks for it."""
        if test in self.outcomes:
            return self.outcomes[test]
        whole = test.rpartition(".")[0]
        for holder in (f"setUpClass ({whole})", f"setUpModule ({whole.rpartition('.')[0]})"):
            if holder in self.outcomes:
                return self.outcomes[holder]
        return "skipped" if self.ending == "skipped" else "absent"

    def reason(self, test):
        """Return why, as far as the test said."""
        whole = test.rpartition(".")[0]
        return "; ".join(self.reasons.get(test) or self.reasons.get(f"setUpClass ({whole})") or [])


class Workspace:
    """A directory that both sides can write: record.py, results, home and temporary directories."""

    def __init__(self, directory, ignored):
        self._ignored = [word for pattern in ignored for word in ("--ignore", pattern)]
        self.directory = Path(directory)
        self.directory.chmod(0o1777)  # sticky: record.py stays as it is
        (self.directory / "record.py").write_bytes((HERE / "record.py").read_bytes())

    def run(self, identity, inside, module, attempt):
        """Run ``module`` on one side and return its results."""
        label = f"{identity.name}-{'inside' if inside else 'outside'}-{module}-{attempt}"
        results = self.directory / f"{label}.jsonl"
        command = [
            PYTHON,
            "-u",
            f"{self.directory}/record.py",
            str(results),
            "--timeout",
            str(MODULE_SECONDS - 60),
            *self._ignored,
            module,
        ]
        if inside:
            command = self._inside(identity, command)
            path = filter(None, (os.environ.get("PYTHONPATH"), str(ROOT)))
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
        else:
            command, environment = self._outside(identity, command, label)
        status, output = _execute(command, environment)
        results.with_suffix(".log").write_text(f"{output}\nexit status {status}\n", encoding="utf-8")
        return _read(results, status, output)

    def _inside(self, identity, command):
        volume = ("-v", f"{self.directory}:{self.directory}")
        end = ("--timeout", str(MODULE_SECONDS))
        return [
            sys.executable,
            "-m",
            "container_magic",
            "run",
            *LIMITS,
            *end,
            *volume,
            *identity.options,
            "--",
            *command,
        ]

    def _outside(self, identity, command, label):
        home = self.directory / f"{label}-home"
        temporary = self.directory / f"{label}-tmp"
        for path in (home, temporary):
            path.mkdir()
            path.chmod(0o777)
        environment = {"PATH": PATHS, "LANG": "C.UTF-8", "HOME": str(home), "TMPDIR": str(temporary)}
        command = [*identity.prefix, *command]
        closed = _closed_directory(PREFIX) if identity.name == "user" else None
        return [*(self._opened(closed) if closed else ()), *command], environment

    def _opened(self, closed):
        """Show the interpreter at its path to a user who may not pass ``closed``, in a mount namespace of its own."""
        aside = self.directory / "prefix"
        aside.mkdir(exist_ok=True)
        script = (
            'mount --bind "$1" "$2" && mount -t tmpfs -o mode=755 none "$3" && mkdir -p "$1" && '
            'mount --bind "$2" "$1" && umount "$2" && shift 3 && exec "$@"'
        )
        return "unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", PREFIX, str(aside), closed


def _closed_directory(path):
    """Return the topmost directory above ``path`` that other users may not pass, if there is one."""
    above = [str(parent) for parent in Path(path).parents][::-1]
    return next((parent for parent in above if not os.stat(parent).st_mode & 0o001), None)


def _execute(command, environment):
    """Run ``command`` away from terminal and session of the caller; return (status, output)."""
    process = subprocess.Popen(
        command,
        env=environment,
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=MODULE_SECONDS + 30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
    return process.returncode, output.decode(errors="replace")


def _read(path, status, output):
    found, reasons = defaultdict(set), defaultdict(list)
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            note = json.loads(line)
            found[note["id"]].add(note["outcome"])
            if note["reason"]:
                reasons[note["id"]].append(note["reason"])
    outcomes = {test: next(kind for kind in WORST_FIRST if kind in kinds) for test, kinds in found.items()}
    return ModuleResult(outcomes=outcomes, reasons=dict(reasons), ending=_ending(status, output), log=output)


def _ending(status, output):
    if re.search(r"^\S+ skipped( --|$)", output, re.MULTILINE):
        return "skipped"
    return "passed" if status == 0 else f"failed ({status})"
