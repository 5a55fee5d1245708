"""The client's side of the zygote: one per process, started when it is first needed, gone with the process."""

from __future__ import annotations

import atexit
import dataclasses
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from container_magic.cgroups.prepare import open_bases, prepare
from container_magic.errors import HostError, InternalError
from container_magic.host import HostFeatures, probe, with_cgroups, with_subordinate
from container_magic.planner import make_plan
from container_magic.process.boot import BootConfig
from container_magic.process.handshake import dump_plan
from container_magic.rootfs.host import HostTree, host_tree, interpreter_prefixes, with_mounts
from container_magic.runtime.sweep import runtime_directory, sweep
from container_magic.spec import ContainerSpec

# written out: only the zygote needs what server.py imports
_ENTRY = "from container_magic.runtime.server import main; main()"
_BOOT = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); from container_magic.process.boot import main; main(sys.argv[1])"
)
_START_SECONDS = 60.0
_STOP_SECONDS = 5.0
_DEATH_CHECK_SECONDS = 0.05
_GREETING_BYTES = 65536


@dataclass(frozen=True, kw_only=True)
class Zygote:
    """A running zygote, and the facts that plans for it are made with."""

    process: subprocess.Popen[bytes]
    control: socket.socket
    features: HostFeatures
    tree: HostTree
    directory: Path
    owner_pid: int

    def request(self, network: str, fds: Mapping[str, int]) -> None:
        """Ask for a supervisor that has these descriptors, by purpose.

        Raises:
            InternalError: The zygote is gone.
        """
        message = json.dumps({"fds": list(fds), "network": network}).encode()
        try:
            with _lock:
                socket.send_fds(self.control, [message], list(fds.values()))
        except OSError as error:
            raise InternalError(f"the zygote is gone: {error.strerror}") from error

    def usable(self) -> bool:
        """Whether it runs and is this process's own (and not that of the process which forked this one)."""
        return self.owner_pid == os.getpid() and self.process.poll() is None

    def sweep(self) -> list[str]:
        """Remove what dead supervisors left; return their containers' ids."""
        return sweep(self.directory)


_lock = threading.RLock()
_current: Zygote | None = None


def zygote() -> Zygote:
    """Return this process's zygote, started when there is none or the last one died.

    Raises:
        HostError: Containers cannot be made on this host; the message says why.
    """
    global _current
    with _lock:
        if _current is None or not _current.usable():
            _forget()
            _current = _start()
            atexit.register(shutdown)
        return _current


def shutdown() -> None:
    """End this process's zygote, and with it every container of this process that is not detached."""
    with _lock:
        _forget()


def _forget() -> None:
    global _current
    if _current is None:
        return
    _current.control.close()
    if _current.owner_pid == os.getpid():
        try:
            _current.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            _current.process.kill()
            _current.process.wait()
    _current = None
    atexit.unregister(shutdown)


def _start() -> Zygote:
    features = probe()
    features = with_cgroups(features, prepare(features.cgroups))
    try:
        return _start_with(features)
    except HostError:
        if features.subordinate is None:
            raise
        # the helpers are there and refuse (not set-user-ID, a map of their own): one id is enough for all but --user
        return _start_with(with_subordinate(features, None))


def _start_with(features: HostFeatures) -> Zygote:
    directory = runtime_directory()
    sweep(directory)
    tree = host_tree(interpreter_prefixes())
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    bases = open_bases(features.cgroups.bases)
    runtime_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    pattern = memory_file("pattern", dump_plan(make_plan(ContainerSpec(), features, tree.lowers, "0" * 64)))
    fds = {"control": theirs.fileno(), "runtime": runtime_fd, "pattern": pattern}
    fds.update({f"cg:{key}": fd for key, fd in bases.items()})
    try:
        process, has_mounts = _boot(features, tree, fds, ours)
    finally:
        theirs.close()
        for fd in {runtime_fd, pattern, *bases.values()}:
            os.close(fd)
    tree = with_mounts(tree, has_mounts)
    return Zygote(
        process=process, control=ours, features=features, tree=tree, directory=directory, owner_pid=os.getpid()
    )


def memory_file(name: str, data: bytes) -> int:
    """Return a descriptor of an anonymous file that holds ``data``, read position at its beginning."""
    fd = os.memfd_create(f"container_magic-{name}", os.MFD_CLOEXEC)
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _boot(
    features: HostFeatures, tree: HostTree, fds: dict[str, int], ours: socket.socket
) -> tuple[subprocess.Popen[bytes], list[str]]:
    package = Path(__file__).resolve().parent.parent
    config = BootConfig(
        tree=tree,
        rootless=features.rootless,
        id_mappings=features.id_mappings,
        subordinate=features.subordinate,
        package=str(package),
        executable=sys.executable,
        fds=fds,
        entry=_ENTRY,
    )
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(
            [
                sys.executable,
                "-I",
                "-S",
                "-B",
                "-c",
                _BOOT,
                str(package.parent),
                json.dumps(dataclasses.asdict(config)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=complaints,
            pass_fds=list(set(fds.values())),
            # no variable of the caller's reaches the zygote: tokens live there
            env={"PATH": os.defpath, "LANG": "C.UTF-8"},
            cwd="/",
            start_new_session=True,
        )
        return process, _await_greeting(process, ours, complaints)


def _await_greeting(process: subprocess.Popen[bytes], ours: socket.socket, complaints: IO[bytes]) -> list[str]:
    """Wait for the zygote's first message: the lowers that have mounts below them."""
    deadline = time.monotonic() + _START_SECONDS
    # our own copy of the other end is open, so a death does not read as an end: look for it as well
    while process.poll() is None and time.monotonic() < deadline:
        if select.select([ours], [], [], _DEATH_CHECK_SECONDS)[0]:
            has_mounts: list[str] = json.loads(ours.recv(_GREETING_BYTES))
            return has_mounts
    late = process.poll() is None
    process.kill()
    process.wait()
    if late:
        raise HostError(
            f"cannot start the zygote: no answer within {_START_SECONDS:g} s", hint="try again: the host is slow"
        )
    complaints.seek(0)
    lines = complaints.read().decode(errors="replace").strip().splitlines()
    reason = lines[-1] if lines else f"exit status {process.returncode}"
    raise HostError(f"cannot start the zygote: {reason}", hint="`contain doctor` says what this host can do")
