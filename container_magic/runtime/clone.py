"""The clone: a child of the supervisor in fresh namespaces, on its way to be a container's init."""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
from dataclasses import dataclass

from container_magic.linux import constants as c
from container_magic.linux import syscalls
from container_magic.linux.capabilities import last_capability
from container_magic.linux.seccomp import default_program, sock_fprog
from container_magic.linux.userns import write_maps
from container_magic.plan import Plan
from container_magic.process import child, handshake
from container_magic.process.inheritance import Inheritance
from container_magic.process.slot import new_slot

_NAMESPACES = c.CLONE_NEWUSER | c.CLONE_NEWNS | c.CLONE_NEWPID | c.CLONE_NEWIPC | c.CLONE_NEWUTS


@dataclass(frozen=True, kw_only=True)
class Child:
    """The supervisor's hold on a container's first processes: its pid, its ends of their sockets, their shared slot."""

    pid: int
    pidfd: int
    sync: socket.socket
    start: socket.socket
    slot: mmap.mmap

    def close(self) -> None:
        """Close what this process holds of a child that is dead."""
        self.sync.close()
        self.start.close()
        self.slot.close()
        os.close(self.pidfd)


def clone_child(pattern: Plan, network: str, cgroup_fd: int | None = None) -> Child:
    """Clone a child into fresh namespaces and write its id maps; it then mounts its root and waits for a plan.

    Raises:
        OSError: The kernel refuses the namespaces or the maps.
    """
    sync, init_sync = handshake.pair()
    start, payload_start = handshake.pair()
    slot = new_slot()
    inheritance = Inheritance(
        lowers=pattern.lowers,
        network=network,
        deny_setgroups=pattern.deny_setgroups,
        sync=init_sync,
        start=payload_start,
        seccomp=sock_fprog(default_program()),
        last_capability=last_capability(),
        slot=slot,
    )
    network_flag = 0 if network == "host" else c.CLONE_NEWNET
    pid = syscalls.clone(_NAMESPACES | network_flag, cgroup_fd)
    if pid == 0:
        child.live(inheritance)
    for end in (init_sync, payload_start):
        end.close()
    pidfd = os.pidfd_open(pid)
    write_maps(pid, pattern.id_mappings, pattern.id_mappings, deny_setgroups=pattern.deny_setgroups)
    with contextlib.suppress(OSError):  # a child that is dead has said why
        sync.send(handshake.MAPPED)
    return Child(pid=pid, pidfd=pidfd, sync=sync, start=start, slot=slot)
