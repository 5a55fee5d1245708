"""The clone: a child of the supervisor in fresh namespaces, on its way to be a container's init."""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import signal
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
from container_magic.rootfs.operations import calls_ahead, operations_of

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

    def is_broken(self) -> bool:
        """Whether it has died while it waited, or the payload that it has forked."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        poll.register(self.start, 0)  # that the payload's end is closed comes unasked
        return bool(poll.poll(0))

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
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="utf-8") as file:
        pid = next(int(line.split()[1]) for line in file if line.startswith("Pid:"))
    if pid <= 0:
        raise InternalError("the snapshot's init died while it was being made")
    return pid


def clone_child(
    pattern: Plan,
    network: str,
    cgroup_fd: int | None = None,
    slot_fd: int | None = None,
    *,
    plan: Plan | None = None,
) -> Child:
    """Clone a child into fresh namespaces and write its id maps; it then mounts its root and waits for a plan.

    ``slot_fd`` is a file for the slot, where the child is to be handed over; ``plan`` is its plan, if that is known.

    Raises:
        OSError: The kernel refuses the namespaces or the maps.
    """
    sync, init_sync = handshake.pair()
    start, payload_start = handshake.pair()
    handshake.expect_sender(start)
    slot = new_slot() if slot_fd is None else mmap.mmap(slot_fd, SLOT_BYTES)
    taken_along = inheritance(pattern, network, init_sync, payload_start, slot, plan)
    pid = syscalls.clone(flags_of(network), cgroup_fd)
    if pid == 0:
        forget_signals()
        child.live(taken_along)
    for end in (init_sync, payload_start):
        end.close()
    return let_live(pid, pattern, sync, start, slot)


def flags_of(network: str) -> int:
    """Return the namespaces of a container as flags of clone(2)."""
    return _NAMESPACES | (0 if network == "host" else c.CLONE_NEWNET)


def inheritance(
    pattern: Plan, network: str, sync: socket.socket, start: socket.socket, slot: mmap.mmap, plan: Plan | None
) -> Inheritance:
    """Return what a child is to take along."""
    return Inheritance(
        lowers=pattern.lowers,
        mounts=calls_ahead(pattern.lowers, network),
        network=network,
        deny_setgroups=pattern.deny_setgroups,
        sync=sync,
        start=start,
        seccomp=sock_fprog(default_program()),
        last_capability=last_capability(),
        slot=slot,
        plan=plan or pattern,
        is_likely=plan is None,
        operations=None if plan is None else tuple(operations_of(plan.spec, plan.lowers, plan.files)),
    )


def forget_signals() -> None:
    """Let go of what a supervisor does with signals; a container's processes begin with the default action."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def let_live(pid: int, pattern: Plan, sync: socket.socket, start: socket.socket, slot: mmap.mmap) -> Child:
    """Write the id maps of the child ``pid``, which waits for them, and return the hold on it."""
    pidfd = os.pidfd_open(pid)
    write_maps(pid, pattern.id_mappings, pattern.id_mappings, deny_setgroups=pattern.deny_setgroups)
    with contextlib.suppress(OSError):  # a child that is dead has said why
        sync.send(handshake.MAPPED)
    return Child(pid=pid, pidfd=pidfd, sync=sync, start=start, slot=slot)
