"""The zygote: one warm, clean, single-threaded interpreter that forks a supervisor for each container.

It was executed with a clean environment in a read-only view of the host and has never seen a secret. A request is
one message: descriptors by purpose, the plan in a memfd. The end of its control socket is the zygote's own end, and so
is the client's death: a child that the client has forked may hold the socket's other end open.

One supervisor is forked ahead and waits: the fork, and the page faults that follow it, are over when a request comes.
The client has the way to it; it takes one request and is replaced, a moment later: whoever has asked has the CPUs
first. A client that finds none there asks the zygote for one.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
from collections.abc import Callable
from typing import NoReturn

from container_magic.deferred import dataclass
from container_magic.process import handshake

MAX_REQUEST_BYTES = 4096
_MAX_FDS = 16
_SPARE_SECONDS = 0.03
"""Longer than a container takes from its request to the start of its code."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """Containers to make: the kind of their network, whether there is a next one, and descriptors by purpose."""

    fds: dict[str, int]
    network: str
    keep: bool


@dataclass(frozen=True, kw_only=True)
class Seat:
    """A supervisor's place: the zygote's standing descriptors by purpose, and where its one request comes from."""

    standing: dict[str, int]
    zygote_pid: int
    channel: socket.socket

    def is_asked(self) -> bool:
        """Whether a request has come already."""
        return bool(select.select([self.channel], [], [], 0)[0])

    def await_request(self, wakeup: int) -> Request | None:
        """Wait for the request; None when nobody can make one any more, or ``wakeup`` tells that the zygote died."""
        with self.channel:
            if wakeup in select.select([self.channel.fileno(), wakeup], [], [])[0]:
                return None
            message, fds, _, _ = socket.recv_fds(self.channel, MAX_REQUEST_BYTES, _MAX_FDS)
        if not message:
            return None
        header = json.loads(message)
        return Request(
            fds=dict(zip(header["fds"], fds, strict=True)),
            network=header["network"],
            keep=header["keep"],
        )


def serve(standing: dict[str, int], supervise: Callable[[Seat], None], greeting: bytes) -> None:
    """Say ``greeting``, then hand each request to a supervisor until the control socket ends or the client is dead.

    ``supervise`` runs in the supervisor's process.
    """
    control = socket.socket(fileno=standing["control"])
    os.set_inheritable(control.fileno(), False)
    client = standing["client"]
    # the kernel reaps the supervisors; each sets the default again before it has children of its own
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.collect()
    gc.freeze()
    zygote_pid = os.getpid()
    spare = _fork_supervisor(control, standing, zygote_pid, supervise)
    control.sendall(greeting)
    waits = _hand_out(control, spare)
    while client not in select.select([control.fileno(), client], [], [])[0]:
        message, fds, _, _ = socket.recv_fds(control, MAX_REQUEST_BYTES, _MAX_FDS)
        if not message:
            return
        if message == handshake.USED:
            waits = False
        else:
            # the spare was killed, or there was no process to be had then; when there is none now either, the client
            # sees its socket close and says so
            _hand_over(_fork_supervisor(control, standing, zygote_pid, supervise), message, fds)
        for fd in fds:
            os.close(fd)
        if not waits and not select.select([control], [], [], _SPARE_SECONDS)[0]:
            waits = _hand_out(control, _fork_supervisor(control, standing, zygote_pid, supervise))


def serve_once(standing: dict[str, int], supervise: Callable[[Seat], None], greeting: bytes) -> NoReturn:
    """Say ``greeting`` and be the supervisor of the only request; what would serve a second one is left out."""
    control = socket.socket(fileno=standing["control"])
    os.set_inheritable(control.fileno(), False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.freeze()
    control.sendall(greeting)
    # the client stands where else the zygote does: its death is a signal as well as the end of its socket
    _be_supervisor(Seat(standing=standing, zygote_pid=os.getppid(), channel=control), supervise)


def _hand_over(supervisor: socket.socket | None, message: bytes, fds: list[int]) -> None:
    if supervisor is not None:
        with supervisor, contextlib.suppress(OSError):
            socket.send_fds(supervisor, [message], fds)


def _hand_out(control: socket.socket, supervisor: socket.socket | None) -> bool:
    """Give the client the way to a supervisor that waits, if there is one; once that is closed, it ends."""
    if supervisor is None:
        return False
    with supervisor, contextlib.suppress(OSError):  # a client that is gone is noticed by who reads next
        socket.send_fds(control, [handshake.SPARE], [supervisor.fileno()])
    return True


def _fork_supervisor(
    control: socket.socket, standing: dict[str, int], zygote_pid: int, supervise: Callable[[Seat], None]
) -> socket.socket | None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        pid = os.fork()
    except OSError:  # a pids limit on the whole session, or no memory
        ours.close()
        theirs.close()
        return None
    if pid == 0:
        ours.close()
        control.close()
        _be_supervisor(Seat(standing=standing, zygote_pid=zygote_pid, channel=theirs), supervise)
    theirs.close()
    return ours


def _be_supervisor(seat: Seat, supervise: Callable[[Seat], None]) -> NoReturn:
    status = 1
    os.close(seat.standing["client"])
    try:
        supervise(seat)
        status = 0
    finally:
        os._exit(status)
