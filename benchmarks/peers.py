"""The others: a bare interpreter, bwrap, runc, podman, docker; those that are not here are left out with a reason."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import Subject, base_python, command

BARE = "python3 -I -S -c pass"
BWRAP = "bwrap"
RUNC = "runc run"

_FLAGS = ["-I", "-S", "-c"]
_CODE = [*_FLAGS, "pass"]
_PROBE_SECONDS = 20
_MEMORY_BYTES = 200 * 1024 * 1024
_SYSTEM_DIRECTORIES = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64")


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A tool that works here, and the command by which it runs ``pass``."""

    name: str
    words: tuple[str, ...]

    def subject(self) -> Subject:
        """Return what is measured: the command, from spawn to reaped."""
        return Subject(name=self.name, call=command(self.words))


def bare() -> Subject:
    """Return a bare interpreter, uncontained: the floor of everything that executes one."""
    return Subject(name=BARE, call=command([base_python(), *_CODE]))


def find(scratch: Path, image: str) -> tuple[tuple[Peer, ...], list[str]]:
    """Return the container tools that work here, and a line for each that does not."""
    candidates = {BWRAP: _bwrap(_CODE), RUNC: _runc(scratch)}
    candidates |= {tool: _engine(tool, image) for tool in ("podman", "docker")}
    found, left_out = [], []
    for name, words in candidates.items():
        reason = _reason_against(words)
        if reason:
            left_out.append(f"{name}: left out, {reason}")
        else:
            found.append(Peer(name=name, words=tuple(words)))
    return tuple(found), left_out


def shell_loops(code: str, runs: int, loops: int) -> Callable[[], float]:
    """Return a function that grades ``runs`` inputs as a shell script does, and returns the runs per second.

    The inputs are numbers; each is read by ``code`` in a bwrap of its own. ``loops`` scripts share them, at once.
    """
    words = " ".join(shlex.quote(word) for word in _bwrap([*_FLAGS, code]))
    loop = f"i=0; while [ $i -lt {runs // loops} ]; do echo $i | {words} >/dev/null || exit 1; i=$((i+1)); done"
    run = command(["/bin/sh", "-c", loop if loops == 1 else f"({loop}) & " * loops + "wait"])
    return lambda: runs // loops * loops / run()


def _reason_against(words: list[str]) -> str:
    program = shutil.which(words[0])
    if program is None:
        return "not installed"
    words[0] = program
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_PROBE_SECONDS)
    except subprocess.TimeoutExpired:
        return f"it did not end within {_PROBE_SECONDS} s"
    if done.returncode:
        complaint = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return f"it does not work here: {complaint[0][:200]}"
    return ""


def _bwrap(arguments: Sequence[str]) -> list[str]:
    view = ["--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
    return ["bwrap", "--unshare-all", *view, base_python(), *arguments]


def _engine(tool: str, image: str) -> list[str]:
    limits = ["--memory", "200m", "--cpuset-cpus", "0", "--network", "none"]
    return [tool, "run", "--rm", "--pull", "never", *limits, image, "python3", *_CODE]


def _runc(scratch: Path) -> list[str]:
    """Return the command, its bundle made below ``scratch``: the host's programs read-only, the same limits as ours."""
    words = ["runc", "--root", str(scratch / "runc"), "run", "--bundle", str(scratch), f"benchmark-{os.getpid()}"]
    if shutil.which("runc") is None:
        return words
    subprocess.run(["runc", "spec", "--bundle", str(scratch)], check=True)
    path = scratch / "config.json"
    config = json.loads(path.read_text())
    rootfs = scratch / "rootfs"
    rootfs.mkdir()
    config["root"] = {"path": str(rootfs), "readonly": False}
    config["process"].update(terminal=False, args=[base_python(), *_CODE], cwd="/")
    config["mounts"] += list(_binds(rootfs))
    config["linux"]["resources"].update(memory={"limit": _MEMORY_BYTES}, pids={"limit": 256})
    config["linux"]["cgroupsPath"] = f"/container_magic-benchmark-{os.getpid()}"
    path.write_text(json.dumps(config))
    return words


def _binds(rootfs: Path) -> Iterator[dict[str, Any]]:
    prefix = os.path.realpath(sys.base_prefix)
    for path in (*_SYSTEM_DIRECTORIES, prefix):
        if os.path.islink(path):
            os.symlink(os.readlink(path), rootfs / path[1:])
        elif os.path.isdir(path) and not (path == prefix and prefix.startswith("/usr")):
            yield {"destination": path, "type": "bind", "source": path, "options": ["rbind", "ro"]}
