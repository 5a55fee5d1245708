"""The supervisor: one per container, on the host's side (containerd-shim's job).

It owns the cgroup, the state directory, the clock and the exit status, makes the container (``create``), lets it run
(``start``), watches its limits, and removes everything. All that the report says of the run comes from here; nothing
that the payload writes can change it. A client that is gone ends the container.
"""

from __future__ import annotations

import os
import signal
import time

from container_magic.cgroups import open_manager
from container_magic.errors import ContainError
from container_magic.events import Created, Deleted, Exited, Failed, Started
from container_magic.linux import constants as c
from container_magic.linux import syscalls
from container_magic.linux.capabilities import last_capability
from container_magic.linux.seccomp import default_program
from container_magic.linux.userns import write_maps
from container_magic.process import child, handshake
from container_magic.process.inheritance import Inheritance
from container_magic.process.zygote import Seat
from container_magic.rootfs.operations import NEW_ROOT, SCRATCH, mount_operations
from container_magic.runtime.connection import ClientGoneError, Connection, Wakeup
from container_magic.runtime.state import StateDirectory
from container_magic.runtime.volumes import copy_trees
from container_magic.runtime.watch import Watcher

_SETUP_SECONDS = 30.0
_NAMESPACES = c.CLONE_NEWUSER | c.CLONE_NEWNS | c.CLONE_NEWPID | c.CLONE_NEWIPC | c.CLONE_NEWUTS


def supervise(seat: Seat) -> None:
    """Wait for the one request, then make, run and remove the container that it asks for; never raises."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    wakeup = Wakeup(seat.zygote_pid)
    request = seat.await_request()
    if request is None:
        return
    connection = Connection(request.fds["client"], wakeup)
    supervisor = None
    try:
        supervisor = Supervisor(request.fds, seat.standing, connection)
        supervisor.create()
        connection.await_start(supervisor.init_pidfd)
        supervisor.start()
        supervisor.watch()
    except ClientGoneError:
        pass
    except ContainError as error:
        connection.send(Failed(message=error.message, hint=error.hint, kind=type(error).__name__))
    except BaseException as error:
        connection.send(Failed(message=f"the supervisor failed: {type(error).__name__}: {error}"))
    finally:
        if supervisor is not None:
            supervisor.delete()
        connection.flush()


class Supervisor:
    """One container from ``create`` to ``delete``; each method is one of OCI's operations."""

    def __init__(self, fds: dict[str, int], standing: dict[str, int], connection: Connection) -> None:
        self._fds = fds
        self._standing = standing
        self._connection = connection
        self._parts: dict[str, float] = {}
        self._clock = time.monotonic()
        with open(fds["plan"], "rb") as file:
            self._plan = handshake.load_plan(file.read())
        self._state = StateDirectory(standing["runtime"], self._plan.container_id)
        bases = {key[3:]: fd for key, fd in standing.items() if key.startswith("cg:")}
        self._cgroup = open_manager(
            self._plan.cgroup_setup, bases, self._plan.cgroup_name, self._plan.cgroup_controllers
        )
        self._init_pid = 0
        self.init_pidfd = -1
        self._started = False
        self._exited = False
        self._mark("state")

    def _mark(self, part: str) -> None:
        now = time.monotonic()
        self._parts[part] = round(now - self._clock, 6)
        self._clock = now

    def _write_state(self, status: str, **more: int) -> None:
        plan = self._plan
        names = {"id": plan.container_id, "status": status, "cgroup": plan.cgroup_name}
        self._state.write({**names, "supervisor_pid": os.getpid(), "created": time.time(), **more})

    def create(self) -> None:
        """Make namespaces, rootfs and cgroup, up to a payload that waits for code."""
        plan = self._plan
        self._cgroup.create(plan.spec.resources)
        self._mark("cgroup")
        trees = copy_trees(plan.spec.mounts, self._standing)
        self._mark("volumes")
        sync, init_sync = handshake.pair()
        self._start, payload_start = handshake.pair()
        self._sync = sync
        network = 0 if plan.spec.network == "host" else c.CLONE_NEWNET
        entry_fds = self._cgroup.entry_fds()
        inheritance = Inheritance(
            spec=plan.spec,
            operations=mount_operations(plan.spec, plan.lowers, plan.files),
            new_root=NEW_ROOT,
            scratch=SCRATCH,
            sync=init_sync,
            start=payload_start,
            stdio=(self._fds["stdin"], self._fds["stdout"], self._fds["stderr"]),
            trees=trees,
            cgroup_entry_fds=entry_fds,
            deny_setgroups=plan.deny_setgroups,
            seccomp_program=default_program(),
            last_capability=last_capability(),
        )
        pid = syscalls.clone(_NAMESPACES | network, self._cgroup.clone_fd())
        if pid == 0:
            sync.close()
            self._start.close()
            child.live(inheritance)
        self._init_pid = pid
        self.init_pidfd = os.pidfd_open(pid)
        for end in (init_sync, payload_start):
            end.close()
        for fd in (*trees, *inheritance.stdio):
            os.close(fd)
        write_maps(pid, plan.id_mappings, deny_setgroups=plan.deny_setgroups)
        sync.send(handshake.GO)
        self._mark("clone")
        self._connection.await_ready(self._start, sync, self.init_pidfd, _SETUP_SECONDS)
        self._mark("setup")
        self._connection.send(
            Created(
                container_id=plan.container_id,
                limits=plan.limits,
                downgrades=plan.downgrades,
                pid=pid,
                supervisor_pid=os.getpid(),
                startup=self._parts,
            )
        )

    def start(self) -> None:
        """Give the payload its code; usage and time count from here."""
        self._write_state("running", pid=self._init_pid)
        self._cgroup.begin()
        self._started = True
        self._begun = time.monotonic()
        handshake.send_start(self._start, self._fds["code"])
        self._start.close()
        self._connection.send(Started(start="cold"))

    def watch(self) -> None:
        """Wait for the end, holding the limits."""
        watcher = Watcher(self._plan.spec, self._cgroup, self._connection, self._sync, self.init_pidfd, self._begun)
        watcher.run()
        self._reap()
        self._exit(watcher)

    def _exit(self, watcher: Watcher) -> None:
        self._exited = True
        for event in watcher.last_events():
            self._connection.send(event)

    def _reap(self) -> None:
        if self._init_pid:
            os.waitpid(self._init_pid, 0)
            self._init_pid = 0

    def delete(self) -> None:
        """End what is left, remove cgroup and state; every step is tried whatever the others do."""
        failures = []
        if self._started and not self._exited:
            self._kill()
            self._connection.send(Exited(exit_signal=signal.SIGKILL))
        for step in (self._kill, self._reap, self._cgroup.delete, self._state.remove):
            try:
                step()
            except (ContainError, OSError) as error:
                failures.append(str(error))
        if failures:
            self._connection.send(Failed(message=f"cannot remove the container: {'; '.join(failures)}"))
        else:
            self._connection.send(Deleted())

    def _kill(self) -> None:
        # the death of a pid namespace's init takes every process in it along (pid_namespaces(7))
        if self._init_pid and self.init_pidfd >= 0:
            signal.pidfd_send_signal(self.init_pidfd, signal.SIGKILL)
