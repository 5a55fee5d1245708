"""The payload before it runs: sheds everything it must not have, then waits for its code in ``created``.

Init forks it before it mounts anything, so that it can write to its pages meanwhile.
"""

from __future__ import annotations

import mmap
import os
import signal
import socket
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from container_magic.linux import capabilities, syscalls
from container_magic.linux import constants as c
from container_magic.process import handshake, sigint
from container_magic.process.confine import confine, join, limit_code, rehearse
from container_magic.process.inheritance import Inheritance, fail, keep_only
from container_magic.process.interpreter import Interpreter, rehearse_forgetting
from container_magic.process.slot import leave_error
from container_magic.rootfs.accounts import look_up
from container_magic.spec import Process

if TYPE_CHECKING:
    from container_magic.plan import Plan

_START_FD = 3
_START_FDS = 4
_MOST_ENTRY_FDS = 16
USER = struct.Struct("=II")
"""The user and group that the code runs as, ids of the container."""


def live(own: Inheritance, word: socket.socket) -> NoReturn:
    """Wait for init's word, shed privileges and descriptors, say READY, wait for START, and become the code.

    ``word`` is init's socket to here: the plan comes over it, and when the root stands who the user is.
    """
    error_slot = own.slot
    step = "descriptors"
    start = own.start
    try:
        keep_only((start, word))
        _rehearse()
        touched = _touch(own.plan.spec.process, error_slot)
        os.setsid()
        step = "plan"
        plan, cell = _get_ready(own, word)
        process = plan.spec.process
        step = "environment"
        if cell is not None and _opens_nothing(process):
            cell.prepare(touched=touched)
        user, entry_fds = _await_word(word)
        step = "join the cgroup"
        join(entry_fds)
        step = "descriptors"
        start = _keep_only_start(start)
        for name in confine(own, plan, process.rlimits):
            step = name
        step = "privileges"
        _prefer_as_oom_victim()
        _shed(user)
        step = "working directory"
        os.chdir(process.cwd)
        step = "interpreter"
        if cell is not None and not _opens_nothing(process):
            cell.prepare()
        sigint.put_off()  # what comes behind the order means the code
        most_fds = _START_FDS + 2 * (process.shell != "script")
        start.send(handshake.READY)
        step = "code"
        source, fds, farewell_to = _await_start(start, most_fds)
        limit_code(process.rlimits)
    except BaseException as error:
        fail(start, step, error)
    if cell is not None:
        if source is None:
            source = os.pread(fds[0], os.fstat(fds[0]).st_size, 0)
            os.close(fds.pop(0))
        cell.run_cell(source, *fds, tells_client=farewell_to == handshake.TO_CLIENT)
    _run(process, fds[0], error_slot)


def _opens_nothing(process: Process) -> bool:
    """Whether the interpreter can be made ready before descriptors are closed: who knows what IPython's shells open."""
    return process.shell in ("script", "plain")


def _touch(process: Process, slot: mmap.mmap) -> str:
    """Run an empty cell, so that the pages which every cell writes to are this process's own when there is a plan.

    Returns:
        The shell that has run it.
    """
    if process.kind != "python" or not _opens_nothing(process):
        return ""
    Interpreter(process, slot).touch()
    return process.shell


def _get_ready(own: Inheritance, word: socket.socket) -> tuple[Plan, Interpreter | None]:
    """Return the plan, and an interpreter for its code; before it is known, make ready what is likely."""
    cell = _interpreter(own.plan.spec.process, own.slot)
    if not own.is_likely:
        return own.plan, cell
    handshake.read_plan(handshake.dump_plan(own.plan))  # for the pages that another one's reading writes to
    rehearse_forgetting()
    rehearse()
    with open("/dev/null", "w", encoding="utf-8") as file:  # the way of _prefer_as_oom_victim
        file.write("0")
    message, fds, _, _ = socket.recv_fds(word, 128, 1)
    if message[:1] == handshake.LIKELY:
        return own.plan, cell
    if message[:1] != handshake.GO:
        os._exit(1)
    plan = handshake.load_plan(fds[0])
    os.close(fds[0])
    return plan, _interpreter(plan.spec.process, own.slot)


def _interpreter(process: Process, slot: mmap.mmap) -> Interpreter | None:
    """Set the environment, and return who runs Python; None for a program."""
    set_environment(process.env)
    return Interpreter(process, slot) if process.kind == "python" else None


def _await_word(word: socket.socket) -> tuple[tuple[int, int], list[int]]:
    message, fds, _, _ = socket.recv_fds(word, 64, _MOST_ENTRY_FDS)
    if message[:1] != handshake.ENTER:
        os._exit(1)
    uid, gid = USER.unpack(message[1:])
    return (uid, gid), fds


def _rehearse() -> None:
    """Take an order from oneself, so that the real one finds its pages written to."""
    near, far = handshake.pair()
    with near, open("/dev/null", "r+b", buffering=0) as null:
        handshake.send_start(near, [null.fileno()] * _START_FDS, b"1")
        for fd in _await_start(far, _START_FDS + 1)[1]:
            os.close(fd)


def _await_start(start: socket.socket, most_fds: int) -> tuple[bytes | None, list[int], bytes]:
    """Wait for START or CODE; put the standard streams in their places.

    Returns:
        The code, or None and a descriptor of it; the descriptors of channel and variables; who hears the farewell. A
        shell is given its channel, and variables if the cell has any: which, only the order says.
    """
    message, fds, _, _ = socket.recv_fds(start, 2 + handshake.MAX_CODE_BYTES, most_fds)
    kind, farewell_to = message[:1], message[1:2]
    code = message[2:] if kind == handshake.CODE else None
    if code is not None:
        fds.insert(0, -1)  # where that of the code would be
    elif kind != handshake.START:
        os._exit(1)
    if not min(most_fds, _START_FDS + 1) <= len(fds) <= most_fds:
        os._exit(1)
    start.close()
    code_fd, *stdio = fds[:_START_FDS]
    for target, source in enumerate(stdio):
        os.dup2(source, target)
        os.close(source)
    others = fds[_START_FDS:]
    return code, [code_fd, *others] if code is None else others, farewell_to


def _run(process: Process, code_fd: int, error_slot: mmap.mmap) -> NoReturn:
    if process.stdin_is_code:
        os.dup2(code_fd, 0)
    os.close(code_fd)
    _execute(process.args, error_slot)


def _execute(args: Sequence[str], error_slot: mmap.mmap) -> NoReturn:
    """Execute ``args``; one that is not there ends with 127, one that cannot be executed with 126 (Docker's)."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)  # CPython ignores them; a program expects the default
    sigint.let_in_for_program()
    try:
        os.execvp(args[0], list(args))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        leave_error(error_slot, type(error).__name__, f"{args[0]}: {reason}", [])
        os.write(2, f"contain: cannot execute {args[0]}: {reason}\n".encode(errors="backslashreplace"))
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)


def _keep_only_start(start: socket.socket) -> socket.socket:
    fd = start.detach()
    if fd != _START_FD:
        os.dup2(fd, _START_FD, inheritable=False)
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    syscalls.close_range(_START_FD + 1)
    return socket.socket(fileno=_START_FD)


def set_environment(env: Sequence[tuple[str, str]]) -> None:
    """Make ``os.environ`` what ``env`` says; the zygote's is close to it, so that little has to be written."""
    wanted = dict(env)
    for name in [name for name in os.environ if name not in wanted]:
        del os.environ[name]
    for name, value in env:
        if os.environ.get(name) != value:
            os.environ[name] = value


def _prefer_as_oom_victim() -> None:
    """Let the kernel take contained processes before those of the host; raising the score needs no privilege."""
    # /proc/self belongs to the caller only while it is dumpable; the change of ids has switched that off
    syscalls.prctl(c.PR_SET_DUMPABLE, 1)
    with open("/proc/self/oom_score_adj", "w", encoding="utf-8") as file:
        file.write("500")


def become(user: tuple[int, int]) -> None:
    """Take on (uid, gid), for good."""
    uid, gid = user
    if user != (0, 0):
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)


def _shed(user: tuple[int, int]) -> None:
    become(user)
    capabilities.clear()
    syscalls.prctl(c.PR_SET_DUMPABLE, 1)


def resolve_user(user: str) -> tuple[int, int]:
    """Return (uid, gid) for Docker's ``UID[:GID]`` or ``NAME[:GROUP]``, names looked up inside the container."""
    if not user:
        return 0, 0
    with open("/etc/passwd", encoding="utf-8") as passwd, open("/etc/group", encoding="utf-8") as group:
        return look_up(user, passwd.read(), group.read())
