"""The stem: a short-lived fork of the notebook's process, from which a snapshot's container is cloned.

Only the thread that forks is there in a fork: the stem imports nothing, takes no lock, runs no exit handler and speaks
to nobody but its parent. It goes where a supervisor stands (the zygote's view of the host), clones a container's init
as a supervisor does, hands it over, and waits for its end. It dies with the notebook's process, and init with it.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import io
import os
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import NoReturn

from container_magic.deferred import dataclass, make_all
from container_magic.errors import HostError, InternalError, OptionError
from container_magic.linux import constants as c
from container_magic.linux import syscalls
from container_magic.linux.capabilities import last_capability
from container_magic.linux.seccomp import default_program
from container_magic.linux.signals import reset_signals
from container_magic.plan import Plan
from container_magic.process import handshake, launch, shells
from container_magic.process.own_memory import make_private
from container_magic.process.slot import slot_file
from container_magic.runtime.clone import HANDED_OVER, clone_child

_END_SECONDS = 5.0
_MOST_WORDS_BYTES = 4096
_NAMESPACES = ("user", "mnt")
_INSIDE = (shells.LIVE_SHELL, shells.EXCHANGE)
"""What runs in the copy and is asked for by name; this package is not there to be imported from."""


@dataclass(frozen=True, kw_only=True)
class Stem:
    """A stem that has cloned its child: its process, and descriptors for the supervisor that adopts the child."""

    process: launch.Forked
    child: dict[str, int]

    def reap(self) -> None:
        """Wait for its end, which follows that of its child."""
        try:
            self.process.wait(_END_SECONDS)
        except TimeoutError:
            _end(self.process)


_unreaped: list[launch.Forked] = []
"""Stems of runs that were left in the middle; a notebook may be interrupted at any moment."""


@contextlib.contextmanager
def forked_stem(plan: Plan, zygote_pid: int) -> Iterator[Stem]:
    """Fork this process; yield when a container's init was cloned from the fork, for a supervisor to adopt it.

    The child's descriptors are closed at the end; where that comes by an exception, the child ends as well.

    Raises:
        OptionError: This is not the main thread.
        HostError: The kernel refuses the fork or the namespaces.
        InternalError: The fork died.
    """
    if threading.current_thread() is not threading.main_thread():
        raise OptionError("--snapshot copies the process by a fork, which only its main thread can do safely")
    _unreaped[:] = [process for process in _unreaped if process.poll() is None]
    for name in _INSIDE:
        importlib.import_module(name)
    sys.modules[shells.LIVE_SHELL].prepare()
    default_program()
    last_capability()
    make_all()  # the lock under which classes are made may be another thread's when the process is copied
    with _uninterrupted(), contextlib.ExitStack() as stack:
        stem = _stem(plan, zygote_pid)
        for fd in stem.child.values():
            stack.callback(os.close, fd)
        try:
            yield stem
        except BaseException:
            _end(stem.process)
            raise


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Put off Ctrl-C.

    An interrupt goes to the process group: it may neither end the stem before it has left the group, nor come when
    nobody would know of the stem.
    """
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _stem(plan: Plan, zygote_pid: int) -> Stem:
    ours, theirs = handshake.pair()
    with ours, theirs, contextlib.ExitStack() as stack:
        view = [_open_namespace(zygote_pid, name) for name in _NAMESPACES]
        for fd in view:
            stack.callback(os.close, fd)
        pid = _fork()
        if pid == 0:
            _be_stem(plan, theirs, view)
        process = launch.Forked(pid)
        _unreaped.append(process)
        theirs.close()
        try:
            return Stem(process=process, child=_await_child(ours))
        except BaseException:
            _end(process)
            raise


def _end(process: launch.Forked) -> None:
    process.kill()
    process.wait()


def _open_namespace(pid: int, name: str) -> int:
    try:
        return os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise InternalError(f"cannot look at the zygote's namespaces: {error}") from error


def _fork() -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    with warnings.catch_warnings():
        # since Python 3.12 for every fork of a process with threads: what can be done about that is done here
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            pid = os.fork()
        except OSError as error:
            raise HostError(
                f"cannot make a snapshot: fork: {error.strerror}", hint="the process may be too large to be copied"
            ) from error
    if pid == 0:
        syscalls.prctl(c.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
    return pid


def _await_child(ours: socket.socket) -> dict[str, int]:
    message, fds, _, _ = socket.recv_fds(ours, _MOST_WORDS_BYTES, len(HANDED_OVER))
    if not message:
        raise InternalError("the fork of the notebook's process died")
    if message != handshake.READY:
        raise HostError(f"cannot make a snapshot: {message.decode(errors='replace')}")
    return dict(zip(HANDED_OVER, fds, strict=True))


def _be_stem(plan: Plan, parent: socket.socket, view: list[int]) -> NoReturn:
    try:
        _leave_notebook([parent.fileno(), *view])
        make_private()
        _enter(view)
        syscalls.prctl(c.PR_SET_PDEATHSIG, signal.SIGKILL)  # once more: a change of credentials clears it
        pid = _clone(plan, parent)
        parent.close()
        os.waitpid(pid, 0)
    except BaseException as error:
        with contextlib.suppress(OSError):
            parent.send(f"{type(error).__name__}: {error}".encode(errors="backslashreplace")[:_MOST_WORDS_BYTES])
    finally:
        os._exit(0)


def _leave_notebook(kept: list[int]) -> None:
    """Keep the memory and these descriptors, nothing else."""
    gc.freeze()  # what came along is never gone through: that would write to, and so copy, every page of it
    atexit._clear()
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # one that has come with the old process group is none of ours
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    reset_signals()
    sys.stdout, sys.stderr = io.StringIO(), io.StringIO()  # the kernel's own would wait for a thread
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    first = 3
    for fd in sorted(kept):
        if fd > first:
            syscalls.close_range(first, fd - 1)
        first = fd + 1
    syscalls.close_range(first)


def _enter(view: list[int]) -> None:
    """Go where the zygote stands; its user namespace is this process's own unless that has no privilege."""
    user, mount = view
    if not os.path.samestat(os.fstat(user), os.stat("/proc/self/ns/user")):
        syscalls.setns(user, c.CLONE_NEWUSER)
    syscalls.setns(mount, c.CLONE_NEWNS)
    for fd in view:
        os.close(fd)


def _clone(plan: Plan, parent: socket.socket) -> int:
    """Clone the child, hand it over, and return its pid."""
    slot = slot_file()
    child = clone_child(plan, plan.spec.network, slot_fd=slot, plan=plan)
    fds = [child.sync.fileno(), child.start.fileno(), child.pidfd, slot]
    socket.send_fds(parent, [handshake.READY], fds)
    child.close()
    os.close(slot)
    return child.pid
