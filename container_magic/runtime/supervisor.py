"""The supervisor: one per container, on the host's side (containerd-shim's job).

It owns the cgroup, the state directory, the clock and the exit status, makes the container (``create``), lets it run
(``start``), watches its limits, and removes everything. All that the report says of the run comes from here; nothing
that the payload writes can change it. A client that is gone ends the container.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time

from container_magic.cgroups import CgroupManager, open_manager
from container_magic.cgroups.none import NoCgroupManager
from container_magic.errors import ContainError
from container_magic.events import Created, Deleted, Exited, Failed, Started
from container_magic.plan import Plan
from container_magic.process import handshake
from container_magic.process.zygote import Request, Seat
from container_magic.runtime.clone import Child, clone_child
from container_magic.runtime.connection import ClientGoneError, Connection, Wakeup
from container_magic.runtime.measure import Gauge
from container_magic.runtime.state import StateDirectory
from container_magic.runtime.volumes import copy_trees
from container_magic.runtime.watch import Watcher

_SETUP_SECONDS = 30.0


def supervise(seat: Seat, *, pattern: Plan) -> None:
    """Make what can be made ahead, wait for the one request, then run and remove its container; never raises.

    ``pattern`` is a plan like those to come: id maps and lowers are the same in all of one zygote.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    wakeup = Wakeup(seat.zygote_pid)
    # where a child can be born into its cgroup (v2), that has to be there first: nothing is made ahead
    ahead = None if "cg:unified" in seat.standing else _try_ahead(pattern)
    request = seat.await_request()
    if request is None:
        return  # and the child ahead with it: it dies with this process
    connection = Connection(request.fds["client"], wakeup.fd)
    supervisor = Supervisor(request, seat.standing, connection, pattern)
    try:
        supervisor.create(ahead)
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


def _try_ahead(pattern: Plan) -> Child | None:
    try:
        return clone_child(pattern, "none")
    except OSError:
        return None  # the request will meet the same error, and have a client to tell it to


class Supervisor:
    """One container from ``create`` to ``delete``; each method is one of OCI's operations."""

    def __init__(self, request: Request, standing: dict[str, int], connection: Connection, pattern: Plan) -> None:
        self._request = request
        self._standing = standing
        self._connection = connection
        self._pattern = pattern
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

    def create(self, ahead: Child | None) -> None:
        """Make namespaces, rootfs and cgroup, up to a payload that waits for code.

        ``ahead`` is a child in fresh namespaces with the root mounted, of no use to who wants the host's network.
        """
        self._adopt(ahead)
        if self._request.network != "none":
            self._kill()
            self._reap()
        self._plan = handshake.load_plan(self._request.fds["plan"])
        if "cg:unified" in self._standing:
            self._make_cgroup()
        if not self._init_pid:
            self._adopt(clone_child(self._pattern, self._request.network, self._cgroup.clone_fd()))
        self._mark("clone")
        self._let_go()
        self._let_in()
        self._connection.await_ready(self._start, self._sync, self.init_pidfd, _SETUP_SECONDS)
        self._mark("setup")

    def _adopt(self, child: Child | None) -> None:
        if child is not None:
            self._init_pid, self.init_pidfd = child.pid, child.pidfd
            self._sync, self._start = child.sync, child.start

    def _let_go(self) -> None:
        """Copy the mounts, and hand the child its plan."""
        trees, self._downgrades = copy_trees(self._plan.spec.mounts, self._standing)
        fds = self._request.fds
        stdio = [fds[name] for name in ("stdin", "stdout", "stderr")]
        with contextlib.suppress(OSError):  # a child that is dead has said why
            socket.send_fds(self._sync, [handshake.GO], [fds["plan"], *stdio, *trees])
        for fd in (*stdio, *trees):
            os.close(fd)
        self._mark("volumes")

    def _let_in(self) -> None:
        """Make the cgroup while the child mounts, and hand the child its way into it, unless it was born there."""
        if "cg:unified" not in self._standing:
            self._make_cgroup()
        entry_fds = self._cgroup.entry_fds() if self._cgroup.clone_fd() is None else ()
        with contextlib.suppress(OSError):
            socket.send_fds(self._sync, [handshake.ENTER], entry_fds)

    def _make_cgroup(self) -> None:
        plan = self._plan
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
            downgrades=(*plan.downgrades, *self._downgrades),
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
