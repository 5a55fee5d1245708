"""The container's first process: from the clone to a payload that waits for code, one step after the other.

Every step fails closed: an error is sent to the supervisor with the step's name and the process ends; what was made
until then ends with it. The order is that of runc's and bubblewrap's inits; what needs no id maps comes first, so
that it is done while the supervisor writes them. What is the same for every container (``_AHEAD``) may be done before
there is a request; the rest begins with its plan.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from container_magic.linux import constants as c
from container_magic.linux import syscalls
from container_magic.linux.mounts import Files, Place, Resize
from container_magic.network import bring_up_loopback, open_low_ports
from container_magic.process import handshake, init, payload
from container_magic.process.confine import confine, give_up_gains, join, rehearse
from container_magic.process.inheritance import Inheritance, fail, keep_only
from container_magic.rootfs.operations import NEW_ROOT, SCRATCH, Operation, calls_of, operations_of, resize_of

if TYPE_CHECKING:
    from container_magic.plan import Plan

_MAX_FDS = 250
_USER_SYSCTLS = {"max_user_namespaces": b"0", "max_inotify_instances": b"32", "max_inotify_watches": b"8192"}


def live(own: Inheritance) -> NoReturn:
    """Set the container up and be its init until the payload ends; never returns."""
    step = "start"
    try:
        setup = _Setup(own)
        for name in _STEPS:
            step = name
            getattr(setup, name)()
        for name in confine(own, setup.plan):
            step = name
        # the payload's user, for without a capability it could not pass signals on to another
        step = "user"
        payload.become(setup.user)
        setup.die_with_the_supervisor()  # once more: a change of ids clears it (prctl(2))
        init.live(own.sync, own.slot, setup.payload_pid)
    except BaseException as error:
        fail(own.sync, step.replace("_", " "), error)


class _Setup:
    """The steps, in the order of ``_STEPS``."""

    def __init__(self, own: Inheritance) -> None:
        self.own = own
        self.has_root = False
        self.later: list[Callable[[], None]] = []
        self.operations: tuple[Operation, ...] = ()

    def keep_only_sockets(self) -> None:
        """Close all that came through the clone but the sockets.

        Later steps follow paths that code of an earlier run may have left links on: /proc/self/fd must lead nowhere
        (CVE-2024-21626). With its own copies of the supervisor's ends gone the child also notices the supervisor's end.
        """
        keep_only((self.own.sync, self.own.start))

    def leave_session(self) -> None:
        os.setsid()
        os.umask(0o022)

    def set_lo_up(self) -> None:
        if self.own.network == "none":
            bring_up_loopback()
            open_low_ports()

    def wait_for_the_id_maps(self) -> None:
        if self.own.sync.recv(64) != handshake.MAPPED:
            os._exit(1)

    def become_the_containers_root(self) -> None:
        if not self.own.deny_setgroups:
            os.setgroups([])
        # the maps alone leave the kernel ids of the supervisor in the credentials: files made on a tmpfs would then
        # belong to an id that this namespace cannot express (EOVERFLOW)
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        # after that, so that the keyring is the container's and counts against its own quota
        syscalls.new_session_keyring()

    def die_with_the_supervisor(self) -> None:
        syscalls.prctl(c.PR_SET_PDEATHSIG, signal.SIGKILL)
        # it may have died before the line above; inside a pid namespace getppid() is 0 either way
        poll = select.poll()
        poll.register(self.own.sync, select.POLLHUP)
        if any(event & select.POLLHUP for _, event in poll.poll(0)):
            os._exit(1)

    def lock_user_namespaces(self) -> None:
        # per user namespace since Linux 4.9: no further one below this one, whatever seccomp would say; and what else
        # is counted for the namespace's owner too, so that a container cannot use up what the owner needs on the host
        for name, value in _USER_SYSCTLS.items():
            with contextlib.suppress(FileNotFoundError):  # the inotify ones: since Linux 4.10 and 5.12
                fd = os.open(f"/proc/sys/user/{name}", os.O_WRONLY | os.O_CLOEXEC)
                os.write(fd, value)
                os.close(fd)

    def give_up_gains(self) -> None:
        give_up_gains(self.own)

    def fork_the_payload(self) -> None:
        """Fork it now: what it can do without a plan, it does while this process mounts."""
        self.word, far_end = handshake.pair()
        self.payload_pid = os.fork()
        if self.payload_pid == 0:
            payload.live(self.own, far_end)
        far_end.close()
        self.own.start.close()

    def mount_the_root(self) -> None:
        for function, arguments in self.own.mounts:
            function(*arguments)

        self.scratch_fd = os.open(SCRATCH, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def exchange_the_root(self) -> None:
        """Make the new root the root, unless the plan has layers, which are laid below the runtime's view.

        A child whose plan is not known is not used for such a plan.
        """
        if not any(operation.before_pivot for operation in self.own.operations or ()):
            self._exchange()

    def _exchange(self) -> None:
        os.chdir(NEW_ROOT)
        syscalls.pivot_root(".", ".")
        # the old root now lies over the new one at "."; nothing of it may propagate anywhere (runc rootfs_linux.go)
        syscalls.umount(".")
        os.chdir("/")
        self.has_root = True

    def do_what_is_likely(self) -> None:
        """Do what the expected plan asks for; of another, the pages that this writes to are this process's own then."""
        if self.own.is_likely:
            self._take(handshake.read_plan(handshake.dump_plan(self.own.plan)), self.own.plan.container_id)
            self._set_hostname()
            self._call(self.files, Place(root="", scratch=""))
            rehearse()
        init.rehearse(self.own.slot)

    def wait_for_the_plan(self) -> None:
        message, fds, _, _ = socket.recv_fds(self.own.sync, 128, _MAX_FDS)
        self.is_likely = message[:1] == handshake.LIKELY
        if not self.is_likely and message[:1] != handshake.GO:
            os._exit(1)
        plan_fds, self.tree_fds = ([], fds) if self.is_likely else (fds[:1], fds[1:])
        if self.own.is_likely:
            with contextlib.suppress(OSError):  # a payload that is dead has said why
                socket.send_fds(self.word, [message], plan_fds)
        if self.is_likely:
            (disk_bytes,) = handshake.DISK_BYTES.unpack(message[1:])
            rest = [operation for operation in self.operations if not isinstance(operation, (Resize, Files))]
            self.operations = (resize_of(disk_bytes), *rest)
            return
        plan = handshake.load_plan(plan_fds[0]) if self.own.is_likely else self.own.plan
        self._take(plan, message[1:].decode())
        os.close(plan_fds[0])

    def _take(self, plan: Plan, container_id: str) -> None:
        self.plan = plan
        self.hostname, files = plan.names_of(container_id)
        self.files = Files(texts=files)
        self.operations = self.own.operations or tuple(operations_of(plan.spec, self.own.lowers, files))

    def join_the_cgroup(self) -> None:
        message, self.entry_fds, _, _ = socket.recv_fds(self.own.sync, 64, _MAX_FDS)
        if message != handshake.ENTER:
            os._exit(1)
        if not self.later:
            self._tell_the_payload()  # now: both can join at the same time
        join(self.entry_fds)

    def lay_the_layers(self) -> None:
        if self.plan.spec.shows_changes:
            socket.send_fds(self.own.sync, [handshake.LAYER], [self.scratch_fd])
        if not self.has_root:
            self._mount(Place(root=NEW_ROOT, scratch=SCRATCH, trees=self.tree_fds, later=self.later), before_pivot=True)
            self._exchange()

    def mount_what_was_asked_for(self) -> None:
        place = Place(root="", scratch="", scratch_fd=self.scratch_fd, trees=self.tree_fds)
        self._mount(place, before_pivot=False)
        os.close(self.scratch_fd)

    def _mount(self, place: Place, *, before_pivot: bool) -> None:
        for operation in self.operations:
            if operation.before_pivot is before_pivot:
                # the plan's are those of another container's name
                self._call(self.files if type(operation) is Files else operation, place)

    def _call(self, operation: Operation, place: Place) -> None:
        for function, arguments in calls_of((operation,), place):
            function(*arguments)

    def set_hostname(self) -> None:
        if not self.is_likely:
            self._set_hostname()

    def _set_hostname(self) -> None:
        if self.hostname:
            socket.sethostname(self.hostname)

    def do_what_is_paid_for(self) -> None:
        for call in self.later:
            call()

    def make_the_working_directory(self) -> None:
        path = self.plan.spec.process.cwd
        if not os.path.isdir(path):
            os.makedirs(path, exist_ok=True)

    def tell_the_payload(self) -> None:
        if self.later:
            self._tell_the_payload()
        for end in (self.word.detach(), *self.entry_fds):
            os.close(end)

    def _tell_the_payload(self) -> None:
        """Let it join the cgroup and confine itself: the root is what it will see."""
        self.user = payload.resolve_user(self.plan.spec.process.user)
        with contextlib.suppress(OSError):
            socket.send_fds(self.word, [handshake.ENTER + payload.USER.pack(*self.user)], self.entry_fds)


_AHEAD = (
    "keep_only_sockets",
    "die_with_the_supervisor",
    "leave_session",
    "set_lo_up",
    "wait_for_the_id_maps",
    "become_the_containers_root",
    "die_with_the_supervisor",  # once more: a change of ids clears it (prctl(2))
    "lock_user_namespaces",
    "give_up_gains",
    "fork_the_payload",
    "mount_the_root",
    "exchange_the_root",
    "do_what_is_likely",
)
_STEPS = (
    *_AHEAD,
    "wait_for_the_plan",
    "lay_the_layers",
    "mount_what_was_asked_for",
    "set_hostname",
    "make_the_working_directory",
    "join_the_cgroup",
    "do_what_is_paid_for",
    "tell_the_payload",
)
