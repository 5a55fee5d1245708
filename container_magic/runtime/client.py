"""The client's zygotes: one for each set of preloaded modules, started when needed, gone with the process."""

from __future__ import annotations

import atexit
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import field
from typing import TYPE_CHECKING

from container_magic.deferred import dataclass
from container_magic.errors import InternalError
from container_magic.host import HostFeatures, probe
from container_magic.process import launch, shells
from container_magic.rootfs.host import HostTree
from container_magic.rootfs.marker import refuse_nesting
from container_magic.runtime.ends import EndsAhead
from container_magic.runtime.pool import Pool
from container_magic.runtime.requests import Requests
from container_magic.runtime.start import Wish, start_zygote
from container_magic.runtime.sweep import runtime_directory, sweep
from container_magic.spec import Process

if TYPE_CHECKING:
    from container_magic.plan import Plan
    from container_magic.runtime.plans import Planned

_STOP_SECONDS = 5.0
MOST_ZYGOTES = 4
"""Zygotes of one process: each has other modules preloaded."""


@dataclass(frozen=True, kw_only=True)
class Zygote:
    """A running zygote, and the facts that plans for it are made with."""

    process: launch.Process
    control: Requests
    features: HostFeatures
    tree: HostTree
    directory: str
    owner_pid: int
    pool: Pool = field(default_factory=Pool)
    ends: EndsAhead = field(default_factory=EndsAhead)
    runs: set[int] = field(default_factory=set)
    """``id()`` of each run that is not over."""
    plans: dict[int, Planned] = field(default_factory=dict)

    def request(self, plan: Plan, fds: Mapping[str, int], *, keep: bool) -> None:
        """Ask for a supervisor that has these descriptors, by purpose; ``keep``: for more than one container.

        Raises:
            InternalError: The zygote is gone.
        """
        header = {"fds": list(fds), "network": plan.spec.network, "keep": keep}
        message = json.dumps(header).encode()
        try:
            with _lock:
                self.control.send(message, list(fds.values()))
        except OSError as error:
            raise InternalError(f"the zygote is gone: {error.strerror}") from error

    def is_own(self) -> bool:
        """Whether it is this process's, and not that of the process which forked this one."""
        return self.owner_pid == os.getpid()

    def usable(self, *, unasked: bool = False) -> bool:
        """Whether it is this process's own, and runs; ``unasked``: that it runs is taken for granted."""
        return self.is_own() and (unasked or self.process.poll() is None)

    def sweep(self) -> list[str]:
        """Remove what dead supervisors left; return their containers' ids."""
        return sweep(self.directory)


_lock = threading.RLock()
_zygotes: OrderedDict[tuple[str, ...], Zygote] = OrderedDict()  # by preloaded modules, the least recently used first
_parents: list[Zygote] = []


def _begin_anew() -> None:
    """Have none of the parent's, in a child: their locks may be held, and what a thread did there is half done."""
    global _lock
    _lock = threading.RLock()
    _parents.extend(_zygotes.values())  # not to be closed: a number that was let go of may be another file's by now
    _zygotes.clear()


os.register_at_fork(after_in_child=_begin_anew)


def zygote(preload: tuple[str, ...] = (), *, unasked: bool = False) -> Zygote:
    """Return this process's zygote with these modules, started when there is none or the last one died.

    ``unasked``: one that has died is returned, too. Who takes a container that waits in its pool will notice.

    Raises:
        HostError: Containers cannot be made on this host; the message says why.
        OptionError: One of the modules cannot be imported.
    """
    with _lock:
        found = _zygotes.get(preload)
        if found is None or not found.usable(unasked=unasked):
            refuse_nesting()
            _forget(preload)
            found = _zygotes[preload] = _start(preload)
            atexit.register(shutdown)
        if len(_zygotes) > 1:
            _zygotes.move_to_end(preload)
            _trim()
        return found


def zygote_for_one(preload: tuple[str, ...] = ()) -> Zygote:
    """Return a new zygote that serves one request, and is gone when that container is; nothing waits for it.

    Raises:
        HostError, OptionError: As ``zygote``.
    """
    refuse_nesting()
    return _start(preload, once=True)


_SHELLS = {"ipython": (shells.IPYTHON_SHELL,), "kernel": (shells.KERNEL_SHELL,)}


def modules_of(process: Process) -> tuple[str, ...]:
    """Return what a zygote has imported that is to fork such a process."""
    return _SHELLS.get(process.shell, ()) + process.preload


def shutdown() -> None:
    """End this process's zygotes, and with them every container of this process that is not detached."""
    with _lock:
        for preload in tuple(_zygotes):
            _forget(preload)
        atexit.unregister(shutdown)


def _trim() -> None:
    """End the least recently used zygotes beyond a few; the plain one, and any with a running container, stay."""
    for preload in tuple(_zygotes)[:-1]:
        if len(_zygotes) > MOST_ZYGOTES and preload and not _zygotes[preload].runs:
            _forget(preload)


def _forget(preload: tuple[str, ...]) -> None:
    ending = _zygotes.pop(preload, None)
    if ending is None:
        return
    ending.pool.close()
    ending.ends.close()
    ending.control.close()
    try:
        ending.process.wait(_STOP_SECONDS)
    except Exception:  # TimeoutExpired, TimeoutError: each kind of process has its own
        ending.process.kill()
        ending.process.wait()


def _start(preload: tuple[str, ...], *, once: bool = False) -> Zygote:
    directory = runtime_directory()
    sweep(directory)
    started = start_zygote(
        probe(), Wish(directory=directory, preload=preload, once=once), launch.take_early() if once else None
    )
    return Zygote(
        process=started.process,
        control=Requests(started.control),
        features=started.features,
        tree=started.tree,
        directory=directory,
        owner_pid=os.getpid(),
    )
