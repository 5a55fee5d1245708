"""The pool: containers in ``created`` that wait for code, for the specs in use.

Its members are supervisors, each with one container after the plan of its key, used once and then made anew; so a pool
fills itself, beside whatever the client does next. It is the client's: when that is gone the supervisors notice.
"""

from __future__ import annotations

import itertools
import os
import select
import threading
import warnings
from collections import OrderedDict
from dataclasses import field

from container_magic.deferred import dataclass
from container_magic.forks import hold_at_fork
from container_magic.remembered import by_identity
from container_magic.runtime.worker import Worker
from container_magic.spec import ContainerSpec
from container_magic.workdir import homes

MOST_WAITING = 8
"""Containers that wait in all of one zygote's pools; the least recently used go first."""


PoolKey = int | tuple[int, tuple[tuple[int, ...], ...], tuple[int, int, int] | None]
"""What two runs have in common that can use each other's containers."""
_MOST_NUMBERS = 256
_numbers: dict[tuple[ContainerSpec, str | None], int] = {}
_next_number = itertools.count()
_numbering = threading.Lock()
hold_at_fork(_numbering)


@by_identity
def _number_of(spec: ContainerSpec, time_zone: str | None) -> int:
    """Return a number that stands for all equal specs: to hash one takes longer than to find what it is for."""
    with _numbering:
        number = _numbers.setdefault((spec, time_zone), next(_next_number))
        if len(_numbers) > _MOST_NUMBERS:
            del _numbers[next(iter(_numbers))]
        return number


def simple_key(spec: ContainerSpec) -> int | None:
    """Return the key of a spec that names no path of this host and does not use its network; None for others."""
    if spec.work is not None or spec.mounts or spec.network == "host":
        return None
    return _number_of(spec, os.environ.get("TZ"))


def pool_key(spec: ContainerSpec) -> PoolKey | None:
    """Return what two runs must have in common to use each other's containers; None = they cannot.

    The spec, and what of the host a plan is made of at that moment: the time zone, the files and directories that
    stand at the paths of volumes, the name servers. A copy that was made ahead would be one of what once was.

    Raises:
        OSError: A volume's source is not there.
    """
    simple = simple_key(spec)
    if simple is not None:
        return simple
    if spec.work is not None and spec.work.mode == "copy":
        return None
    sources: tuple[tuple[int, ...], ...] = tuple(_identity(mount.source) for mount in spec.mounts if mount.source)
    if spec.work is not None:
        # the names that are hidden in a home are those of the moment when the container is made
        written = (os.stat(spec.work.path).st_mtime_ns,) if spec.work.path in homes() else ()
        sources += ((*_identity(spec.work.path), *written),)
    resolver = _resolver() if spec.network == "host" else None
    return _number_of(spec, os.environ.get("TZ")), sources, resolver


def _shows_paths(key: PoolKey) -> bool:
    return isinstance(key, tuple) and bool(key[1])


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _resolver() -> tuple[int, int, int] | None:
    try:
        status = os.stat("/etc/resolv.conf")
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns


@dataclass(kw_only=True)
class Pool:
    """Waiting workers by key, the least recently used key first, and workers that are removing their last container."""

    _waiting: OrderedDict[PoolKey, list[Worker]] = field(default_factory=OrderedDict)
    _ending: list[Worker] = field(default_factory=list)
    _mounts: MountWatch | None = None
    _closed: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, key: PoolKey) -> Worker | None:
        """Return a worker for ``key``, one whose container stands if there is; None when there is no worker."""
        with self._lock:
            return None if self._closed else self._take(key)

    def tend(self) -> None:
        """Drop workers that have died, and what they have left; let the others get ready."""
        with self._lock:
            self._tend()
            for worker in self.workers():
                worker.hurry()

    def _tend(self) -> None:
        self._ending = [worker for worker in self._ending if _is_alive(worker)]
        for key in tuple(self._waiting):
            alive = [worker for worker in self._waiting[key] if _is_alive(worker)]
            if alive:
                self._waiting[key] = alive
            else:
                del self._waiting[key]

    def _take(self, key: PoolKey) -> Worker | None:
        self._drop_if_mounts_changed(key)
        # those that wait longest come first; what the others have said since can be heard when it is their turn
        waiting, asked = self._waiting.pop(key, []), []
        chosen = None
        while waiting and chosen is None:
            worker = waiting.pop(0)
            if _is_alive(worker):
                asked.append(worker)
                chosen = worker if worker.created is not None else None
        if chosen is None and asked:
            chosen = asked[0]
        waiting = [*(worker for worker in asked if worker is not chosen), *waiting]
        if waiting:
            self._waiting[key] = waiting
        return chosen

    def put(self, key: PoolKey | None, worker: Worker, size: int) -> int:
        """Keep a worker whose run is over, if ``size`` has room for it; return how many are missing then.

        Without a key it is kept until it has removed its container.
        """
        worker.leave()
        with self._lock:
            return self._put(key, worker, size)

    def _put(self, key: PoolKey | None, worker: Worker, size: int) -> int:
        if self._closed:
            worker.close()
            return 0
        self._ending = [ending for ending in self._ending if _is_alive(ending)]
        if key is None:
            self._ending.append(worker)
            return 0
        workers = self._waiting.get(key, [])
        if worker.lost or len(workers) >= size:
            worker.close()
        else:
            self._waiting[key] = [*workers, worker]
            self._waiting.move_to_end(key)
            self._trim()
        return size - len(self._waiting.get(key, ()))

    def _trim(self) -> None:
        while len(self.workers()) > MOST_WAITING:
            oldest, workers = next(iter(self._waiting.items()))
            workers.pop().close()
            if not workers:
                del self._waiting[oldest]

    def _drop_if_mounts_changed(self, key: PoolKey) -> None:
        """A waiting container has the mounts below a volume's source as they were when it was made."""
        if not _shows_paths(key):
            return
        if self._mounts is None:
            self._mounts = MountWatch()
        elif self._mounts.changed():
            for other in filter(_shows_paths, tuple(self._waiting)):
                for worker in self._waiting.pop(other):
                    worker.close()

    def workers(self) -> list[Worker]:
        """Return the workers that wait."""
        return [worker for workers in self._waiting.values() for worker in workers]

    def empty(self) -> None:
        """Let every worker go."""
        with self._lock:  # a worker that another thread is taking is its own
            self._empty()

    def _empty(self) -> None:
        for worker in [*self._ending, *self.workers()]:
            worker.close()
        self._waiting.clear()
        self._ending.clear()

    def close(self) -> None:
        """Let every worker go, and each that is put here later."""
        with self._lock:
            self._closed = True
            self._empty()
            if self._mounts is not None:
                self._mounts.close()
                self._mounts = None


def _is_alive(worker: Worker) -> bool:
    """Take note of what has come, say what went wrong when nobody listened, and close what is of no more use."""
    worker.settle()
    if worker.failure:
        warnings.warn(worker.failure, RuntimeWarning, stacklevel=2)
    if worker.lost or worker.broken:
        if worker.keep:  # it was to live on: killed, or its container was
            worker.zygote.sweep()
        worker.close()
        return False
    return True


class MountWatch:
    """Whether the mounts of this process's namespace have changed since it was last asked (proc_pid_mountinfo(5))."""

    def __init__(self) -> None:
        self._fd = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLPRI)
        self.changed()

    def changed(self) -> bool:
        """Return whether something was mounted, unmounted or remounted; the next answer counts from here."""
        return bool(self._poll.poll(0))

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._fd)
