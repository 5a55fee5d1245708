"""Sessions: interpreters that live on from cell to cell, each in its container; by name, in this process."""

from __future__ import annotations

import functools
import math
import numbers
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Any

from container_magic.deferred import dataclass
from container_magic.errors import NotFoundError, OptionError, StateError
from container_magic.events import Usage, until_exited
from container_magic.folding import ReportBuilder
from container_magic.options import for_shell, from_keywords
from container_magic.options.table import OPTIONS
from container_magic.report import RunReport
from container_magic.runtime.interrupts import interruptible
from container_magic.runtime.request import RunRequest
from container_magic.runtime.run import Run
from container_magic.spec import ContainerSpec
from container_magic.verbs.run import code_of, variables_for


@dataclass(frozen=True, kw_only=True)
class SessionInfo:
    """What ``%contain sessions`` shows of one session."""

    name: str
    container_id: str
    state: str
    cells: int
    idle_seconds: float
    usage: Usage | None


class Session:
    """An interpreter in a container, kept from cell to cell; ``with`` ends it.

    Each cell has its own report; the limits hold over all of them, ``timeout`` for each. What the cells define stays,
    also when one fails or is interrupted.

    Args:
        **options: The options of a run, as for ``cm.run``.

    Raises:
        OptionError: An option is unknown or malformed; nothing was started.
    """

    def __init__(self, **options: Any) -> None:
        chosen = from_keywords(options)
        if chosen.outputs:
            raise OptionError("output: it belongs to a cell; accepted: session.run(source, output=...)")
        if chosen.stdin is not None:
            raise OptionError("stdin is for one run, not for a session; accepted: cm.run(..., stdin=...)")
        _refuse_files(chosen.out_files)
        self._request = RunRequest(spec=session_spec(chosen.spec), code=None, html=chosen.html)
        self._keeper = _Keeper()

    @property
    def alive(self) -> bool:
        """Whether the interpreter waits for a cell."""
        return self._keeper.is_alive()

    @property
    def ended_because(self) -> str:
        """Why it is over; empty while it is not, or before its first cell."""
        return self._keeper.ended_because()

    def run(
        self,
        source: str | bytes,
        *,
        timeout_seconds: float | None = None,
        input: Mapping[str, Any] | None = None,
        output: str | Sequence[str] = (),
    ) -> RunReport:
        """Run a cell and return its report; ``report.session`` is what the session has used so far.

        ``input`` and ``output`` are variables in and out, as for ``cm.run``.

        Raises:
            StateError: The session is over; the message says why.
            OptionError: A variable cannot go in, ``output`` holds what is no name, ``source`` is no source or
                ``timeout_seconds`` no time.
            ContainError: The container cannot be made.
        """
        request = replace(self._request, code=code_of(source))
        if timeout_seconds is not None:
            _check_seconds(timeout_seconds)
            watch = replace(request.spec.watch, wall_seconds=timeout_seconds)
            request = replace(request, spec=replace(request.spec, watch=watch))
        if self._keeper.began and not self.alive:
            raise StateError(f"the session is over: {self.ended_because}", hint="make a new cm.Session")
        wanted = from_keywords({"output": output}).outputs
        request = replace(request, variables=variables_for(request.spec, input, wanted))
        builder = ReportBuilder()
        with self._keeper.cell(request) as cell:
            for event in until_exited(cell):
                builder.add(event)
        return builder.report()

    def interrupt(self) -> None:
        """Stop the cell that runs, from another thread: KeyboardInterrupt inside; the second time it is killed."""
        self._keeper.interrupt()

    def stop(self) -> None:
        """End the interpreter and remove its container; once more does nothing."""
        self._keeper.stop("it was stopped")

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _check_seconds(seconds: float) -> None:
    if isinstance(seconds, bool) or not isinstance(seconds, numbers.Real) or not 0 < seconds < math.inf:
        raise OptionError(f"timeout_seconds {seconds!r}: accepted: a number of seconds above 0")


class _Keeper:
    """One session's run, kept between its cells."""

    def __init__(self) -> None:
        self._run: Run | None = None
        self._stopped_because = ""
        self._busy = threading.Lock()
        self._since = time.monotonic()
        self.spec: ContainerSpec | None = None
        self.cells = 0

    @property
    def began(self) -> bool:
        return self._run is not None

    def is_alive(self) -> bool:
        """Whether a cell runs or can run; what is left of a session that is over is let go."""
        if self._run is None or self._busy.locked():
            return self._run is not None
        alive = self._run.is_alive()
        if not alive:
            self._run.close()
        return alive

    def ended_because(self) -> str:
        if self._run is None or self.is_alive():
            return ""
        return self._stopped_because or self._run.ended_because or "its process was killed"

    @contextmanager
    def cell(self, request: RunRequest) -> Iterator[Run]:
        """Begin a cell; inside ``with`` the run's events are the cell's, and Ctrl-C goes to it.

        Leaving it before ``Exited`` ends the session.
        """
        if not self._busy.acquire(blocking=False):
            raise StateError("the session is running another cell", hint="wait for it, or stop the session")
        try:
            if self._run is None:
                self._run, self.spec = Run(request), request.spec
            else:
                self._run.next_cell(request)
            self.cells += 1
            interruptible.add(self._run)
            try:
                yield self._run
            finally:
                interruptible.remove(self._run)
                self._since = time.monotonic()
                if not self._run.is_alive():
                    self._run.close()
        finally:
            self._busy.release()

    def interrupt(self) -> None:
        if self._run is not None and self._busy.locked():
            self._run.on_sigint()

    def stop(self, reason: str) -> None:
        if self._run is not None:
            if self._run.is_alive():
                self._stopped_because = reason
            self._run.close()

    def info(self, name: str) -> SessionInfo:
        busy = self._busy.locked()
        return SessionInfo(
            name=name,
            container_id=self._run.container_id if self._run is not None else "",
            state="running" if busy else "idle" if self.is_alive() else f"over: {self.ended_because()}",
            cells=self.cells,
            idle_seconds=0.0 if busy else time.monotonic() - self._since,
            usage=self._run.session_usage if self._run is not None else None,
        )


_FIXED = ("spec.process", "spec.root", "spec.mounts", "spec.work", "spec.resources", "spec.network", "spec.hostname")
_ALSO = {"spec.resources.cpus": ("spec.resources.cpuset_cpus",)}
_named: dict[str, _Keeper] = {}


def session_spec(spec: ContainerSpec) -> ContainerSpec:
    """Return ``spec`` for a session: IPython's shell, kept.

    Raises:
        OptionError: Something else than Python is to run the code.
    """
    if spec.process.kind != "python":
        raise OptionError(f"a session runs Python: {spec.process.args[0]} cannot be kept from cell to cell")
    spec = for_shell(spec, "ipython")
    return replace(spec, process=replace(spec.process, session=True, print_traceback=False))


def _refuse_files(globs: Sequence[str]) -> None:
    if globs:
        raise OptionError(
            "--out-file: files come out when a container ends, and a session lives on",
            hint="--output takes variables out after each cell",
        )


@contextmanager
def open_cell(name: str, request: RunRequest) -> Iterator[tuple[Run, str]]:
    """Begin a cell of the session ``name``, which is made if need be; yield its run and a note to be shown.

    Raises:
        OptionError: The session was started with other options, or files are wanted of it.
        ContainError: The container cannot be made.
    """
    _refuse_files(request.out_files)
    request = replace(request, spec=session_spec(request.spec))
    keeper, note = _named.get(name), ""
    if keeper is not None and keeper.began and not keeper.is_alive():
        note = f"session {name!r} is over: {keeper.ended_because()}; a new one begins"
        keeper = None
    if keeper is None:
        keeper = _named[name] = _Keeper()
    elif keeper.spec is not None:
        _check_same(name, keeper.spec, request.spec)
    try:
        with keeper.cell(request) as run:
            yield run, note
    finally:
        if not keeper.began:
            del _named[name]


def _check_same(name: str, before: ContainerSpec, now: ContainerSpec) -> None:
    """Refuse options that a container which stands cannot take on; limits of time and output are each cell's."""
    for option in OPTIONS:
        if not set(option.keywords) & set(now.explicit) or not option.field.startswith(_FIXED):
            continue
        fields = [option.field, *_ALSO.get(option.field, ())]
        if any(_field(now, field) != _field(before, field) for field in fields):
            raise OptionError(
                f"session {name!r} was started with another {option.name}",
                hint=f"%contain stop {name}, then begin it anew; or leave the option away",
            )


def _field(spec: ContainerSpec, path: str) -> Any:
    return functools.reduce(getattr, path.split(".")[1:], spec)


def list_sessions() -> list[SessionInfo]:
    """Return the sessions of this process, those that are over included until their names are used again."""
    return [keeper.info(name) for name, keeper in _named.items()]


def stop_session(name: str) -> None:
    """End the session ``name`` and forget it.

    Raises:
        NotFoundError: There is none of that name.
    """
    keeper = _named.pop(name, None)
    if keeper is None:
        known = ", ".join(_named) or "none"
        raise NotFoundError(f"no session {name!r}; sessions here: {known}")
    keeper.stop("it was stopped")


def stop_all() -> None:
    """End every session of this process."""
    for name in list(_named):
        stop_session(name)
