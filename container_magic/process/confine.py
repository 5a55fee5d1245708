"""What a container's processes put on themselves before they are ready: init and the payload, each its own."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from container_magic.linux import capabilities, syscalls
from container_magic.linux import constants as c
from container_magic.linux.rlimits import MOST, hard_limit, number_of
from container_magic.linux.seccomp import sock_fprog

if TYPE_CHECKING:
    from container_magic.plan import Plan
    from container_magic.process.inheritance import Inheritance
    from container_magic.spec import Rlimit

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
    for name, most in MOST.items():
        hard = hard_limit(name)
        value = most if hard is None else min(most, hard)
        resource.setrlimit(number_of(name), (value, value))
    capabilities.drop_bounding_set(own.last_capability)
    syscalls.prctl(c.PR_SET_NO_NEW_PRIVS, 1)


def rehearse() -> None:
    """Go the way of ``confine`` without any effect: so its pages are written to while nobody waits."""
    syscalls.unshare(0)
    with contextlib.suppress(OSError):  # a program of no instructions is refused
        syscalls.seccomp_set_mode_filter(_NO_PROGRAM)


def confine(own: Inheritance, plan: Plan, rlimits: Sequence[Rlimit] = ()) -> Iterator[str]:
    """Confine this process, which has joined the cgroup and given up gains; yield each step's name before it.

    ``rlimits`` are the code's own, and have to be possible; they are put on when it begins (``limit_code``).
    """
    yield "enter a cgroup namespace"
    # after joining, so that the namespace's root is the container's own group
    syscalls.unshare(c.CLONE_NEWCGROUP)
    yield "set resource limits"
    _set_substitutes(plan)
    for limit in rlimits:
        if _is_above(limit.hard, hard_limit(limit.name)):
            raise OSError(f"{limit.name}: not allowed to raise the hard limit to {limit.hard}")
    yield "filter system calls"
    syscalls.seccomp_set_mode_filter(own.seccomp)


def _set_substitutes(plan: Plan) -> None:
    if plan.substitutes.pids is not None:
        resource.setrlimit(resource.RLIMIT_NPROC, (plan.substitutes.pids, plan.substitutes.pids))
    if plan.substitutes.affinity:
        os.sched_setaffinity(0, plan.substitutes.affinity)


def limit_code(rlimits: Sequence[Rlimit]) -> None:
    """Limit this process as the code is to be limited, which begins now: what comes before it may need more."""
    for limit in rlimits:
        resource.setrlimit(number_of(limit.name), (limit.soft, limit.hard))


def _is_above(wanted: int, hard: int | None) -> bool:
    return hard is not None and (wanted == resource.RLIM_INFINITY or wanted > hard)
