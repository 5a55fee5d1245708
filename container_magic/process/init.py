"""Process 1 of a container: reaps, forwards signals, reports how the payload ended, and takes the rest with it.

It holds one descriptor, its socket to the supervisor, and is not dumpable, so that nothing inside can look into it;
signals from inside do not reach it, because a pid namespace's init only gets those that it has a handler for.
"""

from __future__ import annotations

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
from container_magic.process.slot import read_error

_SYNC_FD = 3
EXIT = struct.Struct("=ii?")
"""Exit code, signal, and whether no other process was left."""


def live(sync: socket.socket, error_slot: mmap.mmap, payload_pid: int) -> NoReturn:
    """Watch over ``payload_pid`` until it ends, report, and end; the kernel then ends all other processes."""
    syscalls.prctl(c.PR_SET_DUMPABLE, 0)
    sync, wakeup = _keep_only_sync(sync)
    capabilities.clear()
    _rehearse(error_slot)
    sync.send(handshake.READY)  # the code starts when init, too, has nothing left to be taken
    status = _watch(sync, wakeup, payload_pid)
    code, number = (os.waitstatus_to_exitcode(status), 0)
    if code < 0:
        code, number = 0, -code
    alone = _is_alone()
    sync.send(handshake.EXITED + EXIT.pack(code, number, alone) + read_error(error_slot))
    if alone:
        # the supervisor kills this process when it has told the client: to take down the namespaces costs more time
        # than a short cell, and would take a CPU from both
        sync.recv(1)
    os._exit(0)


def _rehearse(error_slot: mmap.mmap) -> None:
    """Write to the pages that the end will write to, while nobody waits for it."""
    _reap(0)
    handshake.EXITED + EXIT.pack(0, 0, _is_alone()) + read_error(error_slot)


def _is_alone() -> bool:
    """Whether this process has no child: whoever loses its parent in here becomes one."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    return False


def _keep_only_sync(sync: socket.socket) -> tuple[socket.socket, int]:
    """Close everything but the socket to the supervisor and a wake-up pipe for SIGCHLD."""
    os.dup2(sync.fileno(), _SYNC_FD)
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    syscalls.close_range(_SYNC_FD + 1)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    return socket.socket(fileno=_SYNC_FD), reader


def _watch(sync: socket.socket, wakeup: int, payload_pid: int) -> int:
    poll = select.poll()
    poll.register(sync, select.POLLIN)
    poll.register(wakeup, select.POLLIN)
    while True:
        status = _reap(payload_pid)
        if status is not None:
            return status
        for fd, _ in poll.poll():
            if fd == wakeup:
                os.read(wakeup, 512)
            else:
                _forward(sync.recv(64), payload_pid)


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
