"""The supervisor: one per container, on the host's side (containerd-shim's job).

It owns the cgroup, the state directory, the clock and the exit status, makes the container (``create``), lets it run
(``start``), watches its limits, and removes everything. All that the report says of the run comes from here; nothing
that the payload writes can change it. A client that is gone ends the container.
"""

from __future__ import annotations

import os
import signal
import socket
import time

from container_magic.cgroups import CgroupManager, open_manager
from container_magic.cgroups.none import NoCgroupManager
from container_magic.errors import ContainError
from container_magic.events import Created, Deleted, Exited, Failed, Started
from container_magic.linux import constants as c
from container_magic.linux import syscalls
from container_magic.linux.capabilities import last_capability
from container_magic.linux.seccomp import default_program, sock_fprog
from container_magic.linux.userns import write_maps
from container_magic.process import child, handshake
from container_magic.process.inheritance import Inheritance
from container_magic.process.zygote import Request, Seat
from container_magic.runtime.connection import ClientGoneError, Connection, Wakeup
from container_magic.runtime.measure import Gauge
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
    connection = Connection(request.fds["client"], wakeup.fd)
    supervisor = Supervisor(request, seat.standing, connection)
    try:
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
        supervisor.delete()
        connection.flush()


class Supervisor:
    """One container from ``create`` to ``delete``; each method is one of OCI's operations."""

    def __init__(self, request: Request, standing: dict[str, int], connection: Connection) -> None:
        self._request = request
        self._standing = standing
        self._connection = connection
        self._parts: dict[str, float] = {}
        self._clock = time.monotonic()
        self._state: StateDirectory | None = None
        self._cgroup: CgroupManager = NoCgroupManager()
        self._init_pid = 0
        self.init_pidfd = -1
        self._started = False
        self._exited = False

    def _mark(self, part: str) -> None:
        now = time.monotonic()
        self._parts[part] = round(now - self._clock, 6)
        self._clock = now

    def create(self) -> None:
        """Make namespaces, rootfs and cgroup, up to a payload that waits for code.

        The child is cloned first and sets up what it can while its cgroup is being made; only where it is born into
        the cgroup (v2) that comes before.
        """
        born_inside = "cg:unified" in self._standing
        if born_inside:
            self._make_cgroup()
        sync, init_sync = handshake.pair()
        self._start, payload_start = handshake.pair()
        self._sync = sync
        fds = self._request.fds
        inheritance = Inheritance(
            plan_fd=fds["plan"],
            sync=init_sync,
            start=payload_start,
            stdio=(fds["stdin"], fds["stdout"], fds["stderr"]),
            seccomp=sock_fprog(default_program()),
            last_capability=last_capability(),
        )
        network = 0 if self._request.network == "host" else c.CLONE_NEWNET
        pid = syscalls.clone(_NAMESPACES | network, self._cgroup.clone_fd())
        if pid == 0:
            child.live(inheritance)
        self._init_pid = pid
        self.init_pidfd = os.pidfd_open(pid)
        for end in (init_sync, payload_start):
            end.close()
        for fd in inheritance.stdio:
            os.close(fd)
        self._mark("clone")
        self._let_go(sync, made=born_inside)
        self._connection.await_ready(self._start, sync, self.init_pidfd, _SETUP_SECONDS)
        self._mark("setup")

    def _let_go(self, sync: socket.socket, *, made: bool) -> None:
        """Write the id maps, make the cgroup, copy the mounts, and hand the child its way into them."""
        rootless = self._request.rootless
        mappings = self._request.id_mappings
        write_maps(self._init_pid, mappings, mappings, deny_setgroups=rootless)
        sync.send(handshake.MAPPED)
        self._mark("maps")
        if not made:
            self._make_cgroup()
        trees = copy_trees(self._plan.spec.mounts, self._standing)
        entry_fds = self._cgroup.entry_fds() if self._cgroup.clone_fd() is None else ()
        socket.send_fds(sync, [handshake.GO], [*trees, *entry_fds])
        for fd in trees:
            os.close(fd)
        self._mark("volumes")

    def _make_cgroup(self) -> None:
        self._plan = plan = handshake.load_plan(self._request.fds["plan"])
        self._state = StateDirectory(self._standing["runtime"], plan.container_id)
        self._state.write_cgroups(plan.cgroup_paths)
        bases = {key[3:]: fd for key, fd in self._standing.items() if key.startswith("cg:")}
        cgroup = open_manager(plan.cgroup_setup, bases, plan.cgroup_name, plan.cgroup_controllers)
        cgroup.create(plan.spec.resources)
        self._cgroup = cgroup
        self._mark("cgroup")

    def start(self) -> None:
        """Give the payload its code; usage and time count from here."""
        self._cgroup.begin()
        self._started = True
        self._begun = time.monotonic()
        handshake.send_start(self._start, self._request.fds["code"])
        self._start.close()
        self._write_state("running")  # the code is running already: nobody waits for this
        self._connection.send(self._created(), Started(start="cold"))

    def _created(self) -> Created:
        plan = self._plan
        return Created(
            container_id=plan.container_id,
            limits=plan.limits,
            downgrades=plan.downgrades,
            pid=self._init_pid,
            supervisor_pid=os.getpid(),
            startup=self._parts,
        )

    def _write_state(self, status: str) -> None:
        if self._state is not None:
            plan = self._plan
            names = {"id": plan.container_id, "status": status, "cgroup": plan.cgroup_name}
            pids = {"pid": self._init_pid, "supervisor_pid": os.getpid()}
            self._state.write({**names, **pids, "created": time.time()})

    def watch(self) -> None:
        """Wait for the end, holding the limits."""
        gauge = Gauge(self._cgroup, self._init_pid)
        memory_bytes = self._plan.substitutes.watched_memory_bytes
        watcher = Watcher(self._plan.spec.watch, gauge, self._connection, self._sync, self.init_pidfd, memory_bytes)
        watcher.run(self._begun)
        self._init_pid, pid = 0, self._init_pid
        gauge.reap(pid)
        self._exited = True
        self._connection.send(*watcher.last_events())

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
        for step in (self._kill, self._reap, self._cgroup.delete, self._remove_state):
            try:
                step()
            except (ContainError, OSError) as error:
                failures.append(str(error))
        if failures:
            self._connection.send(Failed(message=f"cannot remove the container: {'; '.join(failures)}"))
        else:
            self._connection.send(Deleted())

    def _remove_state(self) -> None:
        if self._state is not None:
            self._state.remove()

    def _kill(self) -> None:
        # the death of a pid namespace's init takes every process in it along (pid_namespaces(7))
        if self._init_pid and self.init_pidfd >= 0:
            signal.pidfd_send_signal(self.init_pidfd, signal.SIGKILL)
