"""The zygote: one warm, clean, single-threaded interpreter that forks a supervisor for each container.

It was executed with a clean environment in a read-only view of the host and has never seen a secret. A request is
one message on its control socket: descriptors by purpose, the plan in a memfd. The socket's end is its own end.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass

MAX_REQUEST_BYTES = 4096
_MAX_FDS = 16


@dataclass(frozen=True, kw_only=True)
class Request:
    """One container to make: the zygote's standing descriptors and those that came with the request, by purpose."""

    fds: dict[str, int]
    standing: dict[str, int]
    zygote_pid: int


def serve(standing: dict[str, int], supervise: Callable[[Request], None]) -> None:
    """Fork a supervisor for each request until the control socket ends.

    ``supervise`` runs in the supervisor and never returns to the zygote's loop.
    """
    control = socket.socket(fileno=standing["control"])
    os.set_inheritable(control.fileno(), False)
    # the kernel reaps the supervisors; each sets the default again before it has children of its own
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.collect()
    gc.freeze()
    zygote_pid = os.getpid()
    control.sendall(b"ready")
    while True:
        message, fds, _, _ = socket.recv_fds(control, MAX_REQUEST_BYTES, _MAX_FDS)
        if not message:
            return
        try:
            _fork(control, message, fds, standing, zygote_pid, supervise)
        finally:
            for fd in fds:
                os.close(fd)


def _fork(
    control: socket.socket,
    message: bytes,
    fds: list[int],
    standing: dict[str, int],
    zygote_pid: int,
    supervise: Callable[[Request], None],
) -> None:
    try:
        pid = os.fork()
    except OSError:
        return  # the client sees its socket close without an event and says so
    if pid:
        return
    status = 1
    try:
        control.close()
        purposes = json.loads(message)
        supervise(Request(fds=dict(zip(purposes, fds, strict=True)), standing=standing, zygote_pid=zygote_pid))
        status = 0
    finally:
        os._exit(status)
