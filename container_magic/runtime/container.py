"""One container, seen from its supervisor: from ``create`` to ``delete``."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from typing import Any

from container_magic.cgroups import CgroupManager
from container_magic.cgroups.none import NoCgroupManager
from container_magic.errors import ContainError, InternalError, OptionError, StateError
from container_magic.events import Created, Deleted, Exited, Failed, Started
from container_magic.plan import Plan
from container_magic.process import handshake
from container_magic.process.interpreter import main_path
from container_magic.rootfs.changes import Layers, Place
from container_magic.rootfs.work import LAYERED, UPPER
from container_magic.runtime.clone import HANDED_OVER, Child, adopt, clone_child
from container_magic.runtime.cloner import Cloner
from container_magic.runtime.collect import Collector, RootHandle
from container_magic.runtime.connection import Connection, Order
from container_magic.runtime.control import Control
from container_magic.runtime.ground import Ground, new_ground
from container_magic.runtime.high_mark import HighMark
from container_magic.runtime.measure import Gauge, cpu_before_seconds
from container_magic.runtime.parting import offer
from container_magic.runtime.records import write_record
from container_magic.runtime.session_watch import SessionWatcher
from container_magic.runtime.shortage import Shortages
from container_magic.runtime.sources import MOST_HANDED_OVER, any_removed
from container_magic.runtime.state import StateDirectory
from container_magic.runtime.volumes import Trees, copy_trees
from container_magic.runtime.watch import Watcher

_SETUP_SECONDS = 30.0


class Container:
    """One container; each method is one of OCI's operations.

    ``fds`` are the request's, by purpose: ``plan`` holds the plan that ``plan`` is another life of, and there may be a
    child that was made elsewhere. ``pattern`` is a plan of this zygote, the one that a child made ahead expects.
    """

    def __init__(
        self,
        plan: Plan,
        fds: Mapping[str, int],
        standing: Mapping[str, int],
        connection: Connection,
        pattern: Plan,
        cloner: Cloner | None = None,
        ground: Ground | None = None,
    ) -> None:
        self._plan = plan
        self._fds = fds
        self._standing = standing
        self._connection = connection
        self._pattern = pattern
        self._cloner = cloner
        self._ground = ground
        self._parts: dict[str, float] = {}
        self._clock = time.monotonic()
        self._state: StateDirectory | None = None
        self._cgroup: CgroupManager = NoCgroupManager()
        self._child: Child | None = None
        self._trees = Trees()
        self._layers: Layers | None = None
        self._control: Control | None = None
        self._run = 0
        self._order: Order | None = None
        self._root: RootHandle | None = None
        self._is_likely = False
        self.waited = False
        """Whether it was in ``created`` before it was asked for."""
        self._running = False  # started, and not reaped
        self._payload_pid = 0
        self._cpu_before_seconds = 0.0

    @property
    def _init(self) -> Child:
        if self._child is None:
            raise StateError("the container has no process")
        return self._child

    def _mark(self, part: str) -> None:
        now = time.monotonic()
        self._parts[part] = round(now - self._clock, 6)
        self._clock = now

    def create(self, ahead: Child | None) -> None:
        """Make namespaces, rootfs and cgroup, up to a payload that waits for code.

        ``ahead`` is a child in fresh namespaces, in its root; of no use to who wants the host's network, or layers
        that have to be laid before that root is entered, nor when it has died meanwhile.
        """
        self._child = ahead
        network = self._plan.spec.network
        has_layers = any(mount.type in LAYERED for mount in self._plan.spec.mounts)
        if network != "none" or has_layers or (ahead is not None and ahead.is_broken()):
            self._kill()
            self._reap()
        self._is_likely = self._child is not None and self._plan.is_alike_inside(self._pattern)
        born_inside = "cg:unified" in self._standing
        if born_inside:
            self._make_cgroup()
        if HANDED_OVER[0] in self._fds:
            self._child = adopt(self._fds)
        elif self._cloner is not None:
            self._child = self._cloner.clone(self._cgroup.clone_fd())
        elif self._child is None:
            self._child = clone_child(self._pattern, network, self._cgroup.clone_fd(), plan=self._plan)
        self._mark("clone")
        self._let_go()
        if not born_inside:
            self._make_cgroup()
        self._let_in()
        init = self._init
        layers = self._plan.spec.shows_changes
        self._payload_pid = self._connection.await_ready(
            init.start, init.sync, init.pidfd, _SETUP_SECONDS, layers=layers
        )
        if self._connection.layers_fd is not None:
            self._layers = Layers(self._connection.layers_fd, self._plan.lowers, self._work_place())
            self._connection.layers_fd = None
        self._mark("setup")
        self._cgroup.begin()  # whoever waits in there sleeps
        self._cpu_before_seconds = cpu_before_seconds(self._cgroup, init.pid, self._payload_pid)
        self.waited = not self._connection.asked()
        if not self.waited:  # the code first, then the news
            return
        with self._parting() as (told, fds):
            self._connection.send_with(told, {**self._way_to_payload(), **fds}, self._created())
        self._write_state("created")

    def _way_to_payload(self) -> dict[str, int]:
        """Return what the client starts the code with, and looks at before; empty: there is more to do, here."""
        sources = self._trees.fds
        if self._layers is not None or self._plan.spec.process.session or len(sources) > MOST_HANDED_OVER:
            return {}
        return {"order": self._init.start.fileno(), **{f"source {n}": fd for n, fd in enumerate(sources)}}

    @contextlib.contextmanager
    def _parting(self) -> Iterator[tuple[dict[str, Any], dict[str, int]]]:
        """Yield what the client can see the payload off with; nothing without a channel, or to collect things."""
        process = self._plan.spec.process
        collects = self._layers is not None or self._root is not None
        if collects or process.session or process.shell not in ("plain", "ipython"):
            yield {}, {}
            return
        with offer(self._cgroup, self._init.pid, self._payload_pid, self._init.start) as (told, fds):
            yield told, fds

    def _let_go(self) -> None:
        """Copy the mounts, and hand the child its plan."""
        self._trees = copy_trees(self._plan, self._standing)
        message, fds = handshake.GO + self._plan.container_id.encode(), [self._fds["plan"]]
        if self._is_likely:
            message, fds = handshake.LIKELY + handshake.DISK_BYTES.pack(self._plan.spec.root.disk_bytes or 0), []
        with contextlib.suppress(OSError):  # a child that is dead has said why
            socket.send_fds(self._init.sync, [message], [*fds, *self._trees.fds])
        self._mark("volumes")

    def _let_in(self) -> None:
        """Hand the child its way into the cgroup, which was made while it mounted, unless it was born there."""
        born_inside = self._cgroup.clone_fd() is not None and not self._init.adopted
        entry_fds = () if born_inside else self._cgroup.entry_fds()
        with contextlib.suppress(OSError):
            socket.send_fds(self._init.sync, [handshake.ENTER], entry_fds)

    def _make_cgroup(self) -> None:
        ground, self._ground = self._ground, None
        if ground is not None and not ground.fits(self._plan):
            ground.remove()
            ground = None
        ground = ground or new_ground(self._plan, self._standing)
        self._state, self._cgroup = ground.state, ground.cgroup
        self._cgroup.require(self._plan.cgroup_controllers)
        self._cgroup.create(self._plan.spec.resources)
        self._mark("cgroup")

    def await_start(self) -> Order:
        """Wait for the client's order.

        Raises:
            InternalError: The container died.
            ClientGoneError: The client's end is closed.
        """
        return self._connection.await_start(self._init.sync, self._init.pidfd)

    def start(self, order: Order) -> None:
        """Give the payload its code; usage and time count from here.

        Raises:
            StateError: What a volume shows was removed since the container was made.
            InternalError: The container is dead.
        """
        # a client that has started the code itself has looked; by now it may be done with the result, and the source
        if order.begun is None and any_removed(self._trees.fds):
            raise StateError("the source of a volume was removed after the container was created")
        if self._layers is not None:
            self._layers.begin()
        if self._plan.spec.process.session and self._state is not None:
            with contextlib.suppress(OSError):  # it can do without, and nobody can ask it then
                self._control = Control(self._state.fileno(), self._answer)
        if order.globs:
            self._root = RootHandle(self._init.pid)
        self._running = True
        self._run = order.run
        self._order = order
        if order.begun is not None:
            self._begun = order.begun
            return
        if self.waited:
            # first the news, then the deed: the payload may take this CPU from the supervisor as soon as it can run
            self._connection.send(Started(start="warm"))
        self._begun = time.monotonic()
        if self.waited:
            self._send_order(order, handshake.TO_INIT)
        else:
            with self._parting() as (told, fds):
                self._send_order(order, handshake.TO_CLIENT if fds else handshake.TO_INIT)
                began = {**told, "begun": self._begun}
                self._connection.send_with(began, fds, self._created(), Started(start="cold"))
            self._write_state("running")

    def _send_order(self, order: Order, farewell_to: bytes) -> None:
        try:
            handshake.send_start(self._init.start, order.fds, farewell_to=farewell_to)
        except OSError as error:
            self._running = self.waited  # else nobody has heard of a start
            raise InternalError("the container died before it was started") from error
        for fd in order.fds:
            os.close(fd)

    def _created(self) -> Created:
        return Created(
            container_id=self._plan.container_id,
            downgrades=self._trees.downgrades,
            pid=self._init.pid,
            supervisor_pid=os.getpid(),
            startup=self._parts,
        )

    def _write_state(self, status: str) -> None:
        if self._state is not None:
            plan = self._plan
            names = {"id": plan.container_id, "status": status, "cgroup": plan.cgroup_name}
            pids = {"pid": self._init.pid, "supervisor_pid": os.getpid()}
            self._state.write({**names, **pids, "created": time.time()})

    def watch(self) -> None:
        """Wait for the end, holding the limits."""
        init, plan = self._init, self._plan
        gauge = Gauge(self._cgroup, init.pid, self._cpu_before_seconds)
        memory_bytes = plan.substitutes.watched_memory_bytes
        watcher = (SessionWatcher if plan.spec.process.session else Watcher)(
            plan.spec.watch,
            gauge,
            self._connection,
            init.sync,
            init.pidfd,
            memory_bytes,
            payload_pid=self._payload_pid,
            run=self._run,
            slot=init.slot if plan.spec.process.shell != "script" else None,
            shortages=Shortages(gauge, init.pid, plan.spec.root.disk_bytes),
            high_mark=_high_mark(plan, gauge),
            control=self._control,
        )
        dead = watcher.run(self._begun, lambda: self._write_state("running"))
        if dead:
            self._count(gauge)
        if self._root is not None and not dead:
            # nobody may be left who changes what is collected
            self._kill()
            self._count(gauge)
            dead = True
        self._running = False
        if self._layers is not None and plan.spec.root.list_changes:
            self._connection.send(self._layers.changes(self._own_file()))
        self._collect()
        self._connection.send(*watcher.last_events())
        if dead:
            self._forget_child()

    def _own_file(self) -> bytes:
        """Return the file that the runtime itself may have written after the start."""
        process = self._plan.spec.process
        return os.fsencode(main_path(process.args)) if process.kind == "python" else b""

    def _work_place(self) -> Place | None:
        """Return the layer that ``--work`` has on the writable layer."""
        shown = [mount for mount in self._plan.spec.mounts if mount.source]
        for number, mount in enumerate(shown):
            if mount.type in ("overlay", "copy"):
                lower = self._trees.fds[number] if mount.type == "overlay" else ""
                return Place(name=UPPER, path=os.fsencode(mount.destination), lower=lower)
        return None

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer another process of this user.

        Raises:
            OptionError: It asks for what there is not.
        """
        if request.get("op") != "diff" or self._layers is None:
            raise OptionError(f"a container's supervisor does not know {str(request.get('op'))[:40]!r}")
        return dataclasses.asdict(self._layers.diff(self._own_file()))

    def _keep_record(self) -> None:
        """Leave word of what a session has changed; nobody is left who could change more."""
        if self._control is None or self._layers is None:
            return
        if "records" in self._fds:
            diff = self._layers.diff(self._own_file())
            with contextlib.suppress(OSError):  # it is a comfort
                write_record(self._fds["records"], self._plan.container_id, diff.changes, complete=diff.complete)
        self._control.close()  # after that: whoever asks in vain finds the record

    def _collect(self) -> None:
        """Hand over the files that were asked for; every process of the container is dead."""
        order = self._order
        if self._root is not None and order is not None and order.files is not None:
            collector = Collector(client=order.files, wakeup=self._connection.wakeup)
            collector.collect(self._root.fd, self._plan.spec.process.cwd, order.globs)
        self._let_go_of_files()

    def _let_go_of_files(self) -> None:
        if self._root is not None:
            self._root.close()
            self._root = None
        if self._order is not None and self._order.files is not None:
            self._order.files.close()

    def _count(self, gauge: Gauge) -> None:
        """Reap init, and keep what only its parent is told of it."""
        if self._init.adopted:
            self._init.reap()
        else:
            gauge.reap(self._init.pid)

    def delete(self) -> None:
        """End what is left, remove cgroup and state; every step is tried whatever the others do."""
        failures = []
        if self._running:
            self._kill()
            self._connection.send(Exited(exit_signal=signal.SIGKILL))
        for step in (
            self._kill,
            self._reap,
            self._keep_record,
            self._cgroup.delete,
            self._remove_state,
            self._remove_ground,
        ):
            try:
                step()
            except (ContainError, OSError) as error:
                failures.append(str(error))
        self._trees.close()
        if self._layers is not None:
            self._layers.close()
        self._let_go_of_files()
        if failures:
            self._connection.send(Failed(message=f"cannot remove the container: {'; '.join(failures)}"))
        else:
            self._connection.send(Deleted())

    def _remove_ground(self) -> None:
        if self._ground is not None:
            self._ground.remove()

    def _remove_state(self) -> None:
        if self._state is not None:
            self._state.remove()

    def _kill(self) -> None:
        if self._child is not None:
            self._child.kill()

    def _reap(self) -> None:
        if self._child is not None:
            self._child.reap()
            self._forget_child()

    def _forget_child(self) -> None:
        self._init.close()
        self._child = None


def _high_mark(plan: Plan, gauge: Gauge) -> HighMark | None:
    resources, substitutes = plan.spec.resources, plan.substitutes
    high_bytes = resources.memory_high_bytes or substitutes.watched_memory_high_bytes
    limit_bytes = resources.memory_bytes or substitutes.watched_memory_bytes
    if high_bytes is None or limit_bytes is None:
        return None
    return HighMark(gauge, high_bytes=high_bytes, limit_bytes=limit_bytes)
