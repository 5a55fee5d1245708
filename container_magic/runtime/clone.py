"""The clone: a child of the supervisor in fresh namespaces, on its way to be a container's init."""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import socket
from collections.abc import Mapping

from container_magic.deferred import dataclass
from container_magic.errors import InternalError
from container_magic.linux import constants as c
from container_magic.linux import syscalls
from container_magic.linux.capabilities import last_capability
from container_magic.linux.seccomp import default_program, sock_fprog
from container_magic.linux.userns import write_maps
from container_magic.plan import Plan
from container_magic.process import child, handshake
from container_magic.process.inheritance import Inheritance
from container_magic.process.slot import SLOT_BYTES, new_slot

_NAMESPACES = c.CLONE_NEWUSER | c.CLONE_NEWNS | c.CLONE_NEWPID | c.CLONE_NEWIPC | c.CLONE_NEWUTS

HANDED_OVER = ("sync", "start", "pidfd", "slot")
"""What a supervisor needs of a child that it did not make, in this order."""


@dataclass(frozen=True, kw_only=True)
class Child:
    """The supervisor's hold on a container's first processes: its pid, its ends of their sockets, their shared slot."""

    pid: int
    pidfd: int
    sync: socket.socket
    start: socket.socket
    slot: mmap.mmap
    adopted: bool = False
    """Whether another process made it and reaps it."""

    def kill(self) -> None:
        """End it, and with it its pid namespace (pid_namespaces(7))."""
        syscalls.kill_process(self.pidfd)

    def reap(self) -> None:
        """Wait until it is dead, and gone."""
        if not self.adopted:
            os.waitpid(self.pid, 0)
            return
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        poll.poll()

    def end(self) -> None:
        """Kill it, wait for its death, and let go of it."""
        self.kill()
        self.reap()
        self.close()

    def close(self) -> None:
        """Close what this process holds of a child that is dead."""
        self.sync.close()
        self.start.close()
        self.slot.close()
        os.close(self.pidfd)


def adopt(fds: Mapping[str, int]) -> Child:
    """Return the child that another process has made, from what it has handed over of it.

    Raises:
        InternalError: It is dead.
    """
    sync, start, pidfd, slot = (fds[name] for name in HANDED_OVER)
    child = Child(
        pid=_pid_of(pidfd),
        pidfd=pidfd,
        sync=socket.socket(fileno=sync),
        start=socket.socket(fileno=start),
        slot=mmap.mmap(slot, SLOT_BYTES),
        adopted=True,
    )
    os.close(slot)
    return child


def _pid_of(pidfd: int) -> int:
    """Return the pid, in this process's pid namespace (proc_pid_fdinfo(5))."""
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as file:
        pid = next(int(line.split()[1]) for line in file if line.startswith("Pid:"))
    if pid <= 0:
        raise InternalError("the snapshot's init died while it was being made")
    return pid


def clone_child(
    pattern: Plan, network: str, cgroup_fd: int | None = None, slot_fd: int | None = None, plan: Plan | None = None
) -> Child:
    """Clone a child into fresh namespaces and write its id maps; it then mounts its root and waits for a plan.

    ``slot_fd`` is a file for the slot, where the child is to be handed over; ``plan`` is its plan, if that is known.

    Raises:
        OSError: The kernel refuses the namespaces or the maps.
    """
    sync, init_sync = handshake.pair()
    start, payload_start = handshake.pair()
    slot = new_slot() if slot_fd is None else mmap.mmap(slot_fd, SLOT_BYTES)
    inheritance = Inheritance(
        lowers=pattern.lowers,
        network=network,
        deny_setgroups=pattern.deny_setgroups,
        sync=init_sync,
        start=payload_start,
        seccomp=sock_fprog(default_program()),
        last_capability=last_capability(),
        slot=slot,
        plan=plan,
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
