"""The process that clones a supervisor's next containers, all after one plan.

A clone makes every page of the process that it copies one to be copied at the next write. The supervisor, which reads,
counts and tells, would pay that for each of its containers, some 500 pages; this process wakes up for each, does as
little as it can, and sleeps. What is the same for all of them it does before the first.

The containers are the supervisor's own children all the same (``CLONE_PARENT``): it reaps them, and they die with it.
"""

from __future__ import annotations

import mmap
import os
import signal
import socket
from typing import NoReturn

from container_magic.errors import InternalError
from container_magic.linux import constants as c
from container_magic.linux import syscalls
from container_magic.plan import Plan
from container_magic.process import child, handshake
from container_magic.process.inheritance import Inheritance
from container_magic.process.interpreter import forget_ourselves
from container_magic.process.payload import set_environment
from container_magic.process.slot import SLOT_BYTES, slot_file
from container_magic.runtime.clone import Child, flags_of, forget_signals, inheritance, let_live

_MOST_WORDS_BYTES = 4096
_PID_BYTES = 4
_END_FD = 3
_CHILD_FDS = (4, 5)
"""The child's ends of its two sockets; perhaps the cgroup that it is to be born into follows."""
_MOST_FDS = 3


class Cloner:
    """The supervisor's hold on it."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._slot_fd = slot_file()
        self._end, theirs = handshake.pair()
        parent = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            _live(plan, theirs, self._slot_fd, parent)
        theirs.close()

    def clone(self, cgroup_fd: int | None) -> Child:
        """Return a child in fresh namespaces; ``cgroup_fd`` is the v2 cgroup that it is to be born into.

        The container before is gone: they have their slot one after the other.

        Raises:
            InternalError: It cannot be cloned; the message says why.
            OSError: The kernel refuses the id maps.
        """
        sync, init_sync = handshake.pair()
        start, payload_start = handshake.pair()
        handshake.expect_sender(start)
        slot = mmap.mmap(self._slot_fd, SLOT_BYTES)
        slot.madvise(mmap.MADV_REMOVE)  # whatever the one before has left there
        with init_sync, payload_start:
            given = [init_sync.fileno(), payload_start.fileno()]
            pid = self._order(given if cgroup_fd is None else [*given, cgroup_fd])
        return let_live(pid, self._plan, sync, start, slot)

    def _order(self, fds: list[int]) -> int:
        try:
            socket.send_fds(self._end, [b"C"], fds)
            message = self._end.recv(_MOST_WORDS_BYTES)
        except OSError:
            message = b""
        if len(message) != _PID_BYTES:
            reason = message[_PID_BYTES:].decode(errors="replace") or "the process that clones was killed"
            raise InternalError(f"cannot clone the next container: {reason}")
        return int.from_bytes(message, "little")

    def close(self) -> None:
        """End it."""
        self._end.close()
        os.close(self._slot_fd)
        os.waitpid(self._pid, 0)


def _live(plan: Plan, end: socket.socket, slot_fd: int, parent: int) -> NoReturn:
    try:
        syscalls.prctl(c.PR_SET_PDEATHSIG, signal.SIGKILL)
        forget_signals()
        slot = mmap.mmap(slot_fd, SLOT_BYTES)
        _move_to(_END_FD, end)
        if os.getppid() == parent:  # else it died before the first line
            set_environment(plan.spec.process.env)
            forget_ourselves()
            _serve(plan, slot)
    finally:
        os._exit(0)


def _move_to(fd: int, end: socket.socket) -> None:
    """Keep nothing but the standard streams and ``end``, as ``fd``, the first one behind them."""
    if end.fileno() != fd:
        os.dup2(end.fileno(), fd, inheritable=False)
    syscalls.close_range(fd + 1)
    end.detach()


def _serve(plan: Plan, slot: mmap.mmap) -> None:
    """Clone whenever that is asked for.

    What is received lies always on the same descriptors, the lowest: so a child finds its sockets made already.
    """
    flags = flags_of(plan.spec.network) | c.CLONE_PARENT
    taken_along: Inheritance | None = None
    with _message_socket(_END_FD) as end:
        while True:
            message, fds, _, _ = socket.recv_fds(end, 16, _MOST_FDS)
            if not message or tuple(fds[: len(_CHILD_FDS)]) != _CHILD_FDS:
                return
            if taken_along is None:
                sync, start = map(_message_socket, _CHILD_FDS)
                taken_along = inheritance(plan, plan.spec.network, sync, start, slot, plan)
            try:
                pid = syscalls.clone(flags, *fds[len(_CHILD_FDS) :])
            except OSError as error:
                reason = str(error).encode(errors="backslashreplace")
                end.send((bytes(_PID_BYTES) + reason)[:_MOST_WORDS_BYTES])
            else:
                if pid == 0:
                    child.live(taken_along)
                end.send(pid.to_bytes(_PID_BYTES, "little"))
            for fd in fds:
                os.close(fd)


def _message_socket(fd: int) -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fd)
