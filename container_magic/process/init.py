"""Process 1 of a container: reaps, forwards signals, reports how the payload ended, and takes the rest with it.

It holds two descriptors, its socket to the supervisor and one that it reads signals from, and is not dumpable, so that
nothing inside can look into it. Signals from inside do not reach it, because a pid namespace's init only gets those
that it has a handler for or blocks, and of those it listens to two: a payload that is about to exit says so with
``FAREWELLS``. To free the memory of an interpreter takes the kernel a millisecond, which nobody has to wait for. What
it says is no more than exit(2) would say: the kernel tells whose signal it is, and who has sent one is killed.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import signal
import socket
import struct
from typing import NoReturn

from container_magic.linux import capabilities, syscalls
from container_magic.linux import constants as c
from container_magic.process import handshake
from container_magic.process.slot import is_leaving, read_error

_SYNC_FD = 3
FAREWELLS = (signal.SIGRTMAX - 1, signal.SIGRTMAX)
"""From the payload, which has said so in the slot: it exits now, with code 0 or 1."""
EXIT = struct.Struct("=ii?")
"""Exit code, signal, and whether no other process was left."""


def live(sync: socket.socket, error_slot: mmap.mmap, payload_pid: int) -> NoReturn:
    """Watch over ``payload_pid`` until it ends, report, and end; the kernel then ends all other processes."""
    syscalls.prctl(c.PR_SET_DUMPABLE, 0)
    sync = _keep_only_sync(sync)
    signals = syscalls.signal_fd((signal.SIGCHLD, *FAREWELLS))
    capabilities.clear()
    sync.send(handshake.READY)  # the code starts when init, too, has nothing left to be taken
    code, number = _watch(sync, signals, payload_pid, error_slot)
    alone = _is_alone()
    sync.send(handshake.EXITED + EXIT.pack(code, number, alone) + read_error(error_slot))
    if alone:
        # the supervisor kills this process when it has told the client: to take down the namespaces costs more time
        # than a short cell, and would take a CPU from both
        sync.recv(1)
    os._exit(0)


def rehearse(error_slot: mmap.mmap) -> None:
    """Write to the pages that ``live`` will write to, while nobody waits; the payload has been forked already.

    A payload forked after it would begin with these signals blocked.
    """
    signals = syscalls.signal_fd((signal.SIGCHLD, *FAREWELLS))
    os.kill(os.getpid(), signal.SIGCHLD)
    _farewell(signals, 0)
    _reap(0)
    handshake.EXITED + EXIT.pack(0, 0, _is_alone()) + read_error(error_slot)
    os.close(signals)


def _is_alone() -> bool:
    """Whether this process has no child: whoever loses its parent in here becomes one."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    return False


def _keep_only_sync(sync: socket.socket) -> socket.socket:
    """Close everything but the socket to the supervisor."""
    os.dup2(sync.fileno(), _SYNC_FD)
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    syscalls.close_range(_SYNC_FD + 1)
    return socket.socket(fileno=_SYNC_FD)


def _watch(sync: socket.socket, signals: int, payload_pid: int, error_slot: mmap.mmap) -> tuple[int, int]:
    """Wait for the payload's death; return its exit code, or the signal that has killed it."""
    poll = select.poll()
    poll.register(sync, select.POLLIN)
    poll.register(signals, select.POLLIN)
    farewell: int | None = None
    while True:
        status = _reap(payload_pid)
        if status is not None:
            code = os.waitstatus_to_exitcode(status) if farewell is None else farewell
            return (code, 0) if code >= 0 else (0, -code)
        for fd, _ in poll.poll():
            if fd != signals:
                _forward(sync.recv(64), payload_pid)
            else:
                said = _farewell(signals, payload_pid)
                if said is not None and farewell is None and is_leaving(error_slot):
                    farewell = said
                    _see_off(sync, farewell, error_slot)


def _farewell(signals: int, payload_pid: int) -> int | None:
    """Read signals; return the exit code that the payload has told with one."""
    for number, sender in syscalls.read_signals(signals):
        if number in FAREWELLS and sender == payload_pid:
            return FAREWELLS.index(number)
    return None


def _see_off(sync: socket.socket, code: int, error_slot: mmap.mmap) -> None:
    """Kill whatever is left, so that it stays with what was said, and pass it on."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    sync.send(handshake.LEAVING + EXIT.pack(code, 0, False) + read_error(error_slot))


def _reap(payload_pid: int) -> int | None:
    """Reap every dead child; return the payload's wait status once it is among them."""
    found = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        if pid == payload_pid:
            found = status


def _forward(message: bytes, payload_pid: int) -> None:
    """Send a signal to the payload's process group, as a terminal does; the supervisor's end ends this process."""
    if not message:
        os._exit(1)
    if message[:1] == handshake.SIGNAL and len(message) == 2:
        try:
            os.killpg(payload_pid, message[1])
        except (ProcessLookupError, PermissionError):
            return
