"""What the container's first processes take along from the supervisor, and how they say that a step failed."""

from __future__ import annotations

import mmap
import os
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING, NoReturn

from container_magic.deferred import dataclass
from container_magic.linux import syscalls
from container_magic.linux.seccomp import SockFprog
from container_magic.process import handshake
from container_magic.rootfs.host import Lower

if TYPE_CHECKING:
    from container_magic.linux.syscalls import Call
    from container_magic.plan import Plan
    from container_magic.rootfs.operations import Operation


@dataclass(frozen=True, kw_only=True)
class Inheritance:
    """All that the child takes along through the clone; it closes what it does not need itself."""

    lowers: tuple[Lower, ...]
    mounts: tuple[Call, ...]
    """What is mounted whatever the plan says (``operations.calls_ahead``)."""
    network: str
    deny_setgroups: bool
    sync: socket.socket
    start: socket.socket
    seccomp: SockFprog
    last_capability: int
    slot: mmap.mmap
    """Where the payload leaves word of itself; the supervisor reads it too."""
    plan: Plan
    """The plan, or one like it with another id."""
    is_likely: bool
    """Whether it is only expected, because it was not known before the clone: then another may come."""
    operations: tuple[Operation, ...] | None
    """The plan's mounts, when it was known."""


def keep_only(sockets: Iterable[socket.socket]) -> None:
    """Close every descriptor but the standard streams and these."""
    first = 3
    for fd in sorted([end.fileno() for end in sockets]):
        if fd > first:
            syscalls.close_range(first, fd - 1)
        first = fd + 1
    syscalls.close_range(first)


def fail(sock: socket.socket, step: str, error: BaseException) -> NoReturn:
    """Tell the supervisor which step failed and why, and end."""
    text = str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
    try:
        sock.send(handshake.FAILED + f"{step}: {text}".encode(errors="backslashreplace")[:4096])
    finally:
        os._exit(1)
