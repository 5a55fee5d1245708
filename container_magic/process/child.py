"""The container's first process: from the clone to a payload that waits for code, one step after the other.

Every step fails closed: an error is sent to the supervisor with the step's name and the process ends; what was made
until then ends with it. Ids inside ``clone``d namespaces, the order is that of runc's and bubblewrap's inits.
"""

from __future__ import annotations

import mmap
import os
import resource
import select
import signal
import socket
from collections.abc import Callable
from typing import NoReturn

from container_magic.linux import capabilities, syscalls
from container_magic.linux import constants as c
from container_magic.linux.mounts import Place
from container_magic.linux.seccomp import sock_fprog
from container_magic.network import bring_up_loopback
from container_magic.process import handshake, init, payload
from container_magic.process.inheritance import Inheritance, fail


def live(own: Inheritance) -> NoReturn:
    """Set the container up and be its init until the payload ends; never returns."""
    step = "start"
    try:
        for name, act in _STEPS:
            step = name
            act(own)
        step = "fork"
        error_slot = mmap.mmap(-1, handshake.ERROR_SLOT_BYTES)
        pid = os.fork()
        if pid == 0:
            payload.live(own, error_slot)
        init.live(own, error_slot, pid)
    except BaseException as error:
        fail(own.sync, step, error)


def _join_cgroup(own: Inheritance) -> None:
    # "0" moves the writer itself, and moving a single thread does not take cgroup_threadgroup_rwsem
    for fd in own.cgroup_entry_fds:
        os.write(fd, b"0")


def _await_maps(own: Inheritance) -> None:
    if own.sync.recv(64) != handshake.GO:
        os._exit(1)


def _become_root(own: Inheritance) -> None:
    if not own.deny_setgroups:
        os.setgroups([])
    # the maps alone leave the kernel ids of the supervisor in the credentials: files made on a tmpfs would then
    # belong to an id that this namespace cannot express (EOVERFLOW)
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def _die_with_supervisor(own: Inheritance) -> None:
    syscalls.prctl(c.PR_SET_PDEATHSIG, signal.SIGKILL)
    # it may have died before the line above; inside a pid namespace getppid() is 0 either way
    poll = select.poll()
    poll.register(own.sync, select.POLLHUP)
    if any(event & select.POLLHUP for _, event in poll.poll(0)):
        os._exit(1)


def _leave_session(own: Inheritance) -> None:
    del own
    os.setsid()
    os.umask(0o022)
    syscalls.new_session_keyring()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)


def _name_host(own: Inheritance) -> None:
    if own.spec.hostname:
        socket.sethostname(own.spec.hostname)


def _network(own: Inheritance) -> None:
    if own.spec.network == "none":
        bring_up_loopback()


def _lock_user_namespaces(own: Inheritance) -> None:
    # per user namespace since Linux 4.9: no further one below this one, whatever seccomp would say
    del own
    with open("/proc/sys/user/max_user_namespaces", "w", encoding="ascii") as file:
        file.write("0")


def _mount(own: Inheritance) -> None:
    place = Place(root=own.new_root, scratch=own.scratch, trees=own.trees)
    for operation in own.operations:
        if operation.before_pivot:
            operation.apply(place)
    os.chdir(own.new_root)
    syscalls.pivot_root(".", ".")
    # the old root now lies over the new one at "."; nothing of it may propagate anywhere (runc rootfs_linux.go)
    syscalls.umount(".")
    os.chdir("/")
    for operation in own.operations:
        if not operation.before_pivot:
            operation.apply(place)


def _cgroup_namespace(own: Inheritance) -> None:
    # after joining, so that the namespace's root is the container's own group
    del own
    syscalls.unshare(c.CLONE_NEWCGROUP)


def _make_cwd(own: Inheritance) -> None:
    if own.spec.process.cwd:
        os.makedirs(own.spec.process.cwd, exist_ok=True)


def _bound(own: Inheritance) -> None:
    """What init and payload have in common: an exec gains nothing, and the system calls are filtered."""
    capabilities.drop_bounding_set(own.last_capability)
    syscalls.prctl(c.PR_SET_NO_NEW_PRIVS, 1)
    syscalls.seccomp_set_mode_filter(sock_fprog(own.seccomp_program))


def _lower_limits(own: Inheritance) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for limit in own.spec.process.rlimits:
        resource.setrlimit(getattr(resource, f"RLIMIT_{limit.name.upper()}"), (limit.soft, limit.hard))


_STEPS: tuple[tuple[str, Callable[[Inheritance], None]], ...] = (
    ("join the cgroup", _join_cgroup),
    ("wait for the id maps", _await_maps),
    ("become the container's root", _become_root),
    ("die with the supervisor", _die_with_supervisor),
    ("leave the session", _leave_session),
    ("set the hostname", _name_host),
    ("set lo up", _network),
    ("lock user namespaces", _lock_user_namespaces),
    ("mount", _mount),
    ("enter a cgroup namespace", _cgroup_namespace),
    ("make the working directory", _make_cwd),
    ("set resource limits", _lower_limits),
    ("filter system calls", _bound),
)
