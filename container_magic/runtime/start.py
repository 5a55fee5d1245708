"""Starts a zygote: boot in a process of its own, in a systemd scope where only that gives a cgroup."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from container_magic.cgroups.facts import CgroupFacts
from container_magic.cgroups.facts import probe as probe_cgroups
from container_magic.cgroups.prepare import open_bases, prepare
from container_magic.cgroups.scope import launcher_environment, scope_launcher, without_scope
from container_magic.errors import HostError, OptionError
from container_magic.host import HostFeatures, with_cgroups, with_subordinate
from container_magic.planner import make_plan
from container_magic.process.boot import BootConfig
from container_magic.process.handshake import dump_plan, memory_file
from container_magic.rootfs.host import HostTree, host_tree, interpreter_prefixes, with_mounts
from container_magic.spec import ContainerSpec

# written out: only the zygote needs what server.py imports
_ENTRY = "from container_magic.runtime.server import main; main()"
_BOOT = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); from container_magic.process.boot import main; main(sys.argv[1])"
)
_START_SECONDS = 60.0
_DEATH_CHECK_SECONDS = 0.05
_MESSAGE_BYTES = 65536


@dataclass(frozen=True, kw_only=True)
class StartedZygote:
    """A zygote that answers: its process, its control socket, and the facts that plans for it are made with."""

    process: subprocess.Popen[bytes]
    control: socket.socket
    features: HostFeatures
    tree: HostTree


def start_zygote(features: HostFeatures, directory: Path, preload: tuple[str, ...] = ()) -> StartedZygote:
    """Start a zygote that has imported ``preload``, and whose containers keep their state in ``directory``.

    What can be done with less is tried with less: without a scope the limits are refused one by one, without
    subordinate ids ``--user`` is.

    Raises:
        HostError: Containers cannot be made on this host; the message says why.
        OptionError: One of the modules cannot be imported.
    """
    launcher = scope_launcher(features.cgroups)
    no_scope = ""
    for ids in dict.fromkeys((features.subordinate, None)):
        # the helpers may be there and refuse (not set-user-ID, a map of their own): one id then
        attempt = with_subordinate(features, ids) if features.rootless else features
        for words in dict.fromkeys((launcher, ())):
            try:
                return _start(attempt if words else _prepared(attempt, no_scope), directory, preload, words)
            except HostError as error:
                failure = error
                no_scope = error.message if words else no_scope
    raise failure


def _prepared(features: HostFeatures, no_scope: str) -> HostFeatures:
    """Return ``features`` with what groups this process can make ready itself; ``no_scope``: why not in a scope."""
    cgroups = prepare(features.cgroups)
    return with_cgroups(features, without_scope(cgroups, no_scope) if no_scope else cgroups)


def _start(features: HostFeatures, directory: Path, preload: tuple[str, ...], launcher: Sequence[str]) -> StartedZygote:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with tempfile.TemporaryFile() as complaints:
        try:
            process = _spawn(theirs, complaints, launcher)
        finally:
            theirs.close()
        try:
            greeting = _Greeting(process=process, control=ours, complaints=complaints)
            tree = host_tree(interpreter_prefixes())
            greeting.receive()
            if launcher:
                features = with_cgroups(features, _cgroups_of(process.pid))
            _send_config(ours, features, tree, directory, preload)
            tree = with_mounts(tree, _checked(greeting.receive()))
        except BaseException:
            process.kill()
            process.wait()
            ours.close()
            raise
    return StartedZygote(process=process, control=ours, features=features, tree=tree)


def _cgroups_of(pid: int) -> CgroupFacts:
    return prepare(probe_cgroups(pid=pid, process=str(pid)), pid)


def _spawn(control: socket.socket, complaints: IO[bytes], launcher: Sequence[str]) -> subprocess.Popen[bytes]:
    package = Path(__file__).resolve().parent.parent
    command = (sys.executable, "-I", "-S", "-B", "-c", _BOOT, str(package.parent), str(control.fileno()))
    return subprocess.Popen(
        [*launcher, *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=complaints,
        pass_fds=[control.fileno()],
        # no variable of the caller's reaches the zygote: tokens live there
        env={"PATH": os.defpath, "LANG": "C.UTF-8", **(launcher_environment() if launcher else {})},
        cwd="/",
        start_new_session=True,
    )


def _checked(answer: dict[str, Any]) -> list[str]:
    """Return the lowers that have mounts below them, unless the zygote could not import what it should."""
    if "failed" in answer:
        raise OptionError(
            f"cannot preload {answer['failed']}: {answer['reason']}",
            hint="it has to be importable in this environment",
        )
    has_mounts: list[str] = answer["has_mounts"]
    return has_mounts


def _send_config(
    control: socket.socket, features: HostFeatures, tree: HostTree, directory: Path, preload: tuple[str, ...]
) -> None:
    """Tell boot what to make, with descriptors of the cgroups' and the state's directories."""
    fds: dict[str, int] = {}
    bases = open_bases(features.cgroups.bases)
    try:
        fds.update({f"cg:{key}": fd for key, fd in bases.items()})
        fds["runtime"] = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        pattern = make_plan(ContainerSpec(), features, tree.lowers, "0" * 64)
        fds["pattern"] = memory_file("pattern", dump_plan(pattern))
        config = _config(features, tree, tuple(fds), preload)
        with contextlib.suppress(BrokenPipeError):  # it died: the wait for its answer says so
            socket.send_fds(control, [json.dumps(dataclasses.asdict(config)).encode()], list(fds.values()))
    finally:
        for fd in set(fds.values()) | set(bases.values()):
            os.close(fd)


def _config(features: HostFeatures, tree: HostTree, fds: tuple[str, ...], preload: tuple[str, ...]) -> BootConfig:
    return BootConfig(
        tree=tree,
        rootless=features.rootless,
        id_mappings=features.id_mappings,
        subordinate=features.subordinate,
        package=str(Path(__file__).resolve().parent.parent),
        executable=sys.executable,
        fds=fds,
        entry=_ENTRY,
        preload=preload,
    )


@dataclass(frozen=True, kw_only=True)
class _Greeting:
    """Waits for messages of a process that may die first."""

    process: subprocess.Popen[bytes]
    control: socket.socket
    complaints: IO[bytes]

    def receive(self) -> dict[str, Any]:
        """Return the next message; boot's first says nothing, the zygote's how far it has come."""
        deadline = time.monotonic() + _START_SECONDS
        # the end of the socket, or the death of a launcher that never knew of it
        while self.process.poll() is None and time.monotonic() < deadline:
            if select.select([self.control], [], [], _DEATH_CHECK_SECONDS)[0]:
                message = b""
                with contextlib.suppress(ConnectionResetError):  # it died with something of ours unread
                    message = self.control.recv(_MESSAGE_BYTES)
                if message:
                    answer: dict[str, Any] = json.loads(message)
                    return answer
                self.process.wait(_START_SECONDS)
        if self.process.poll() is None:
            raise HostError(
                f"cannot start the zygote: no answer within {_START_SECONDS:g} s", hint="try again: the host is slow"
            )
        self.complaints.seek(0)
        lines = self.complaints.read().decode(errors="replace").strip().splitlines()
        reason = lines[-1] if lines else f"exit status {self.process.returncode}"
        raise HostError(f"cannot start the zygote: {reason}", hint="`contain doctor` says what this host can do")
