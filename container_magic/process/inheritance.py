"""What the container's first processes take along from the supervisor, and what they do alike."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from container_magic.process import handshake

if TYPE_CHECKING:
    from container_magic.linux.mounts import MountOp
    from container_magic.spec import ContainerSpec


@dataclass(frozen=True, kw_only=True)
class Inheritance:
    """All that the child takes along from the supervisor; it closes what it does not need itself."""

    spec: ContainerSpec
    operations: Sequence[MountOp]
    new_root: str
    scratch: str
    sync: socket.socket
    start: socket.socket
    stdio: tuple[int, int, int]
    trees: tuple[int, ...]
    cgroup_entry_fds: tuple[int, ...]
    deny_setgroups: bool
    seccomp_program: bytes
    last_capability: int


def fail(sock: socket.socket, step: str, error: BaseException) -> NoReturn:
    """Tell the supervisor which step failed and why, and end."""
    text = str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
    try:
        sock.send(handshake.FAILED + f"{step}: {text}".encode(errors="backslashreplace")[:4096])
    finally:
        os._exit(1)
