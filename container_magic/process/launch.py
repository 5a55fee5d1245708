"""Starts boot: in an interpreter of its own, or in a fork of the client, which saves who runs once a second start.

Either way boot executes the zygote anew: nothing of the client's memory, environment or descriptors gets further.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, NoReturn, Protocol

from container_magic.forks import importing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_BOOT = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); from container_magic.process.boot import main; main(sys.argv[1])"
)
_ENVIRONMENT = {"PATH": os.defpath, "LANG": "C.UTF-8"}
_POLL_SECONDS = 0.005
_CONTROL_FD = 3
_MAX_COMPLAINT_BYTES = 65536


class Process(Protocol):
    """What is used of ``subprocess.Popen``."""

    pid: int
    returncode: int | None

    def poll(self) -> int | None:
        """Return the exit code, None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit code; ``TimeoutError`` or a relative after ``timeout`` seconds."""

    def kill(self) -> None:
        """Send SIGKILL, unless it is known to have ended."""


class Forked:
    """A child of this process that was forked, with the face of ``subprocess.Popen``."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, None while it runs."""
        return self._reap(os.WNOHANG)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit code.

        Raises:
            TimeoutError: It did not end within ``timeout`` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self._reap(0 if deadline is None else os.WNOHANG)) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"process {self.pid} did not end within {timeout} s")
            time.sleep(_POLL_SECONDS)
        return code

    def kill(self) -> None:
        """Send SIGKILL, unless it is known to have ended."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def _reap(self, flags: int) -> int | None:
        if self.returncode is None:
            try:
                pid, status = os.waitpid(self.pid, flags)
            except ChildProcessError:  # somebody else has reaped it
                self.returncode = 0
            else:
                self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode


class Boot:
    """A boot that runs: its process, the client's end of its control socket, and what it writes to standard error."""

    def __init__(self, process: Process, control: socket.socket, complaints: int, *, told: bool) -> None:
        self.process = process
        self.control = control
        self._complaints = complaints
        self.told = told
        """Whether it knows what to make, because it is a fork of this process."""

    def complaint(self) -> str:
        """Return the last line that it wrote, empty when there is none."""
        lines = os.pread(self._complaints, _MAX_COMPLAINT_BYTES, 0).decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def close_complaints(self) -> None:
        """Let go of what it writes: it has come far enough."""
        os.close(self._complaints)

    def abandon(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        self.control.close()
        self.close_complaints()


def spawn(launcher: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> Boot:
    """Start boot in an interpreter of its own, by the words ``launcher`` if there are any; it waits for its config.

    Args:
        launcher: What to put before the command, as ``systemd-run`` has it.
        environment: Variables for the launcher. No other of the caller's reaches the zygote: tokens live there.
    """
    with importing:  # by the first run, of whichever thread
        import subprocess

    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    ours, theirs = _pair()
    complaints = _memory_file()
    with theirs:
        command = (sys.executable, "-I", "-S", "-B", "-c", _BOOT, package, str(theirs.fileno()))
        process = subprocess.Popen(
            [*launcher, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=complaints,
            pass_fds=[theirs.fileno()],
            env={**_ENVIRONMENT, **(environment or {})},
            cwd="/",
            start_new_session=True,
        )
    return Boot(process, ours, complaints, told=False)


def fork(preload: tuple[str, ...] = ()) -> Boot | None:
    """Fork boot, which makes the view for this process's own host tree and ids at once; None with several threads.

    The zygote that it becomes imports ``preload`` before it is told anything.

    A fork of a process with threads can deadlock, and is refused a user namespace.
    """
    if len(os.listdir("/proc/self/task")) > 1:
        return None
    ours, theirs = _pair()
    complaints = _memory_file()
    # Ctrl-C goes to all processes of a terminal: the child would go on with the client's code where it meets it here
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        pid = os.fork()
        if pid == 0:
            _be_boot(theirs, complaints, preload)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    theirs.close()
    return Boot(Forked(pid), ours, complaints, told=True)


_early: list[Boot] = []


def begin_early(preload: tuple[str, ...] = ()) -> None:
    """Fork boot now, for the one zygote that this process will ask for, before what that takes is even imported.

    Not on pure cgroup v2: the own group has to hold this process alone until it is divided.
    """
    if not os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        boot = fork(preload)
        if boot is not None:
            _early.append(boot)


def take_early() -> Boot | None:
    """Return the boot that has begun, None when there is none (any more)."""
    return _early.pop() if _early else None


def end_early() -> None:
    """End the boot that has begun and was not taken."""
    boot = take_early()
    if boot is not None:
        boot.abandon()


def _be_boot(control: socket.socket, complaints: int, preload: tuple[str, ...]) -> NoReturn:
    try:
        _leave_client(control.detach(), complaints)
        from container_magic.process.boot import make_view, own_config

        make_view(own_config(preload), _CONTROL_FD)
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode(errors="backslashreplace"))
    finally:
        os._exit(1)


def _leave_client(control: int, complaints: int) -> None:
    """Keep nothing of the client but what its memory holds, which the exec takes away: no descriptor, no variable."""
    from container_magic.linux.syscalls import close_range

    os.setsid()
    os.chdir("/")
    high = [os.dup(complaints), os.dup(control), os.open("/dev/null", os.O_RDWR)]
    while min(high) <= _CONTROL_FD:  # the caller's may be closed, and these in their places
        high = [os.dup(fd) for fd in high]
    for target, source in ((0, high[2]), (1, high[2]), (2, high[0]), (_CONTROL_FD, high[1])):
        os.dup2(source, target)
    close_range(_CONTROL_FD + 1)  # all there are, also those above a limit that was lowered since
    os.environ.clear()
    os.environ.update(_ENVIRONMENT)


def _pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _memory_file() -> int:
    return os.memfd_create("container_magic-complaints", os.MFD_CLOEXEC)
