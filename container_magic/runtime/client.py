"""The client's side of the zygote: one per process, started when it is first needed, gone with the process."""

from __future__ import annotations

import atexit
import json
import os
import socket
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from container_magic.errors import InternalError
from container_magic.host import HostFeatures, probe
from container_magic.rootfs.host import HostTree
from container_magic.runtime.start import start_zygote
from container_magic.runtime.sweep import runtime_directory, sweep

_STOP_SECONDS = 5.0


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
    directory = runtime_directory()
    sweep(directory)
    started = start_zygote(probe(), directory)
    return Zygote(
        process=started.process,
        control=started.control,
        features=started.features,
        tree=started.tree,
        directory=directory,
        owner_pid=os.getpid(),
    )
