"""What a container's processes put on themselves before they are ready: init and the payload, each its own."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from container_magic.linux import capabilities, syscalls
from container_magic.linux import constants as c
from container_magic.linux.seccomp import sock_fprog

if TYPE_CHECKING:
    from container_magic.plan import Plan
    from container_magic.process.inheritance import Inheritance

# counted for the user on the host as well, or a way past the CPU controller
_RLIMITS = (
    # not 0: that does not keep the kernel from piping a dump to a program of the host, 1 does (fs/coredump.c); for a
    # dump to a file both are too little. The seccomp profile keeps it there
    (resource.RLIMIT_CORE, 1),
    (resource.RLIMIT_MSGQUEUE, 256 * 1024),
    (resource.RLIMIT_NICE, 0),
    (resource.RLIMIT_RTPRIO, 0),
    (resource.RLIMIT_SIGPENDING, 1024),
)
_NO_PROGRAM = sock_fprog(b"")


def join(entry_fds: Sequence[int]) -> None:
    """Move this process into its cgroups.

    Each moves itself: "0" means the writer, and that alone does not take ``cgroup_threadgroup_rwsem``, which costs an
    RCU grace period.
    """
    for fd in entry_fds:
        os.write(fd, b"0")


def give_up_gains(own: Inheritance) -> None:
    """Let this process and its children hold little for the user, and no exec of theirs gain anything.

    What it may do now, it may still do.
    """
    for number, most in _RLIMITS:
        _, hard = resource.getrlimit(number)
        value = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(number, (value, value))
    capabilities.drop_bounding_set(own.last_capability)
    syscalls.prctl(c.PR_SET_NO_NEW_PRIVS, 1)


def rehearse() -> None:
    """Go the way of ``confine`` without any effect: so its pages are written to while nobody waits."""
    syscalls.unshare(0)
    with contextlib.suppress(OSError):  # a program of no instructions is refused
        syscalls.seccomp_set_mode_filter(_NO_PROGRAM)


def confine(own: Inheritance, plan: Plan) -> Iterator[str]:
    """Confine this process, which has joined the cgroup and given up gains; yield each step's name before it."""
    yield "enter a cgroup namespace"
    # after joining, so that the namespace's root is the container's own group
    syscalls.unshare(c.CLONE_NEWCGROUP)
    yield "set resource limits"
    _set_resource_limits(plan)
    yield "filter system calls"
    syscalls.seccomp_set_mode_filter(own.seccomp)


def _set_resource_limits(plan: Plan) -> None:
    if plan.substitutes.pids is not None:
        resource.setrlimit(resource.RLIMIT_NPROC, (plan.substitutes.pids, plan.substitutes.pids))
    if plan.substitutes.affinity:
        os.sched_setaffinity(0, plan.substitutes.affinity)
    for limit in plan.spec.process.rlimits:
        resource.setrlimit(getattr(resource, f"RLIMIT_{limit.name.upper()}"), (limit.soft, limit.hard))
