"""Where a run has its container from: a zygote, and a worker there that waits or is new."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from container_magic.errors import ContainError
from container_magic.runtime.client import Zygote, modules_of, zygote, zygote_for_one
from container_magic.runtime.ends import Ends
from container_magic.runtime.plans import planned
from container_magic.runtime.pool import PoolKey, pool_key
from container_magic.runtime.request import RunRequest
from container_magic.runtime.worker import Worker

if TYPE_CHECKING:
    from container_magic.runtime.stem import Stem


class Source:
    """What one run uses of a zygote: it counts as running there until ``leave``.

    Raises:
        ContainError: There is no zygote to be had; as ``client.zygote``.
    """

    def __init__(self, request: RunRequest) -> None:
        self._request = request
        self._key: PoolKey | None = None
        self._stem: Stem | None = None
        self.waited = False
        """Whether the worker that was taken had a container, or was to have one, before it was asked for."""
        self._zygote = self._find(unasked=True)

    def _find(self, *, unasked: bool = False) -> Zygote:
        modules = modules_of(self._request.spec.process)
        found = zygote_for_one(modules) if self._request.once else zygote(modules, unasked=unasked)
        found.runs.add(id(self))
        return found

    def take(self) -> Worker:
        """Return a worker that waits, or a new one.

        Raises:
            ContainError: As ``make_plan``, or the zygote is gone.
        """
        if self._request.warm > 0 and self._request.spec.process.shell != "live":
            try:
                self._key = pool_key(self._request.spec)
            except OSError:
                self._key = None  # what is wrong with a volume, the planner says better
        found = self._zygote.pool.take(self._key) if self._key is not None else None
        if found is not None:
            self.waited = True
            return found
        if not self._zygote.usable():
            self._change()
        return self._new()

    def take_another(self) -> Worker:
        """Return a new worker, where the one that waited was no good; remove what that has left.

        Raises:
            ContainError: As ``take``.
        """
        self.waited = False
        self.sweep()
        self._change()
        return self._new()

    def _change(self) -> None:
        self._zygote.runs.discard(id(self))
        self._zygote = self._find()

    def _new(self) -> Worker:
        spec = self._request.spec
        if spec.process.shell == "live":
            from container_magic.runtime.stem import forked_stem  # all of a container's own side, for few

            snapshot = planned(spec, self._zygote)
            with forked_stem(snapshot.plan, self._zygote.process.pid) as self._stem:
                return Worker(self._zygote, snapshot, keep=False, child=self._stem.child)
        return Worker(self._zygote, planned(spec, self._zygote), keep=self._key is not None)

    def ends(self) -> Ends:
        """Return pipes and channel for the run.

        Raises:
            OSError: There is no descriptor left.
        """
        return self._zygote.ends.take()

    def is_own(self) -> bool:
        """Whether the run is this process's, and not that of the process which forked this one."""
        return self._zygote.is_own()

    def tend(self) -> None:
        """See to what the next run needs."""
        with contextlib.suppress(ContainError, OSError):
            self._zygote.control.tell()
            self._zygote.pool.tend()
            if not self._request.once:
                self._zygote.ends.make()

    def sweep(self) -> None:
        """Remove what dead supervisors have left."""
        with contextlib.suppress(ContainError, OSError):
            self._zygote.sweep()

    def give_back(self, worker: Worker, *, is_over: bool) -> None:
        """Keep a worker for the next run, and have as many more as are to wait; end one whose run is not over."""
        if not is_over or self._stem is not None:
            worker.end()
            self.reap()
            return
        size = self._request.warm if self._key is not None else 0
        missing = self._zygote.pool.put(self._key, worker, size)
        with contextlib.suppress(ContainError):  # what goes wrong with the next container is not this one's affair
            for _ in range(missing):
                self._zygote.pool.put(self._key, self._new(), size)

    def reap(self) -> None:
        """Wait for the end of what a snapshot was cloned from, which follows that of its container."""
        if self._stem is not None:
            self._stem.reap()

    def leave(self) -> None:
        """Run there no more; once more does nothing."""
        self._zygote.runs.discard(id(self))
