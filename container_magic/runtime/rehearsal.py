"""A rehearsal of the supervisor's part, in the zygote, before the first request.

CPython fills its method caches, tags its types and specialises its bytecode while code runs. What the zygote has not
run, every child would do again, on pages that it has to copy first: about a tenth of the cost of a container. So the
zygote makes and removes a cgroup and a state directory a few times, talks to itself over the sockets, and runs the
empty cell; it starts no process and mounts nothing.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time

from container_magic.cgroups import open_manager
from container_magic.errors import ContainError
from container_magic.events import Created, Deleted, Started
from container_magic.process import handshake, init
from container_magic.process.interpreter import Interpreter, open_streams_ahead
from container_magic.process.slot import new_slot, read_error
from container_magic.rootfs.operations import operations_ahead, operations_of
from container_magic.runtime.connection import Connection
from container_magic.runtime.measure import Gauge
from container_magic.runtime.state import StateDirectory
from container_magic.runtime.watch import Watcher
from container_magic.spec import Process, ShellName, Watch

_SHELLS: tuple[ShellName, ...] = ("script", "plain")
# CPython 3.11 quickens a function at its eighth call and specialises in the next few
_TIMES = 12


def rehearse(plan_fd: int, standing: dict[str, int]) -> None:
    """Go through a container's life ``_TIMES`` times, without a container.

    A host where that fails is none of its business: the first real container says what is wrong.
    """
    with contextlib.suppress(ContainError, OSError):
        for _ in range(_TIMES):
            _once(plan_fd, standing)
        open_streams_ahead()
        main = sys.modules["__main__"]
        with new_slot() as slot:
            for shell in _SHELLS:
                for _ in range(_TIMES):
                    Interpreter(Process(shell=shell), slot).touch()
                    read_error(slot)
        sys.modules["__main__"] = main


def _once(plan_fd: int, standing: dict[str, int]) -> None:
    plan = handshake.load_plan(plan_fd)
    name = os.urandom(32).hex()
    state = StateDirectory(standing["runtime"], name)
    bases = {key[3:]: fd for key, fd in standing.items() if key.startswith("cg:")}
    cgroup = open_manager(plan.cgroup_setup, bases, f"container_magic-{name}", plan.cgroup_controllers)
    with contextlib.ExitStack() as stack:
        stack.callback(state.remove)
        stack.callback(cgroup.delete)
        state.write_cgroups(plan.cgroup_paths)
        state.write({"id": name, "status": "creating", "created": time.time()})
        cgroup.create(plan.spec.resources)
        cgroup.entry_fds()
        ours, theirs = handshake.pair()
        client, served = socket.socketpair()
        for end in (ours, theirs, client):
            stack.callback(end.close)
        operations_ahead(plan.lowers, "none")
        operations_of(plan.spec, plan.lowers, plan.files)
        connection = Connection(served.detach(), wakeup_fd=plan_fd)
        stack.callback(connection.socket.close)
        client.sendall(handshake.frame({"op": "start"}))
        connection.receive()
        connection.send(
            Created(container_id=name, limits=plan.limits, downgrades=plan.downgrades, startup={"clone": 0.001}),
            Started(),
        )
        cgroup.begin()
        _watch(Gauge(cgroup, os.getpid()), connection, ours, theirs)
        connection.send(Deleted())


def _watch(gauge: Gauge, connection: Connection, ours: socket.socket, theirs: socket.socket) -> None:
    with open(f"/proc/{os.getpid()}/stat", "rb") as anything:
        watcher = Watcher(Watch(), gauge, connection, ours, anything.fileno(), None)
        watcher.tick()
        theirs.send(handshake.EXITED + init.EXIT.pack(0, 0, True))
        watcher.read_exit()
        connection.send(*watcher.last_events())
