"""What happened: the events that come up from a container, in order, and nothing else comes up.

The contract, held by tests: ``Created`` comes once and before all others but ``Failed``; every ``Started`` gets
exactly one ``Exited``, whatever dies; ``Deleted``, if it comes, is last. Times are seconds of the supervisor's
monotonic clock since ``Started`` unless a field says otherwise.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from dataclasses import field
from typing import Any, Literal, get_args

from container_magic.deferred import dataclass

LimitName = Literal["memory", "wall", "cpu", "output", "idle", "pids", "disk"]
StreamName = Literal["stdout", "stderr"]


@dataclass(frozen=True, kw_only=True)
class Limit:
    """One limit as it is enforced: ``value`` in the unit of the option, ``by`` the file or mechanism that holds it."""

    name: str
    value: float | str
    by: str


@dataclass(frozen=True, kw_only=True)
class Downgrade:
    """A wish that is met less than fully: what was asked, what is done instead, why."""

    name: str
    asked: str
    got: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class DeviceIO:
    """Bytes that were read from and written to one block device."""

    device: str
    read_bytes: int
    written_bytes: int


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a container has used since ``Started``; a figure that the host cannot give is None, never 0."""

    wall_seconds: float | None = None
    cpu_seconds: float | None = None
    cpu_user_seconds: float | None = None
    cpu_system_seconds: float | None = None
    throttled_seconds: float | None = None
    memory_peak_bytes: int | None = None
    memory_limit_bytes: int | None = None
    pids_peak: int | None = None
    io_read_bytes: int | None = None
    io_write_bytes: int | None = None
    io_devices: tuple[DeviceIO, ...] | None = None
    """The devices with most bytes, the busiest first; those without any are left out."""


@dataclass(frozen=True, kw_only=True)
class Created:
    """Namespaces, rootfs and cgroup stand; the process waits for code (OCI status ``created``)."""

    container_id: str
    limits: tuple[Limit, ...] = ()
    downgrades: tuple[Downgrade, ...] = ()
    pid: int = 0
    """Process id of the container's init in the runtime namespace."""
    supervisor_pid: int = 0
    startup: dict[str, float] = field(default_factory=dict)
    """Seconds spent in each part of ``create``, by name."""


@dataclass(frozen=True, kw_only=True)
class Started:
    """The code is running."""

    start: Literal["cold", "warm"] = "cold"
    startup_seconds: float = 0.0
    """From the request of this run to here, as the client saw it."""


@dataclass(frozen=True, kw_only=True)
class Output:
    """Bytes that the container wrote, cut at any place; ``dropped_bytes`` counts what was left out before them."""

    stream: StreamName
    data: bytes
    dropped_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Displayed:
    """Something rich that the code showed, made safe: ``data`` and ``metadata`` by MIME type, as in nbformat.

    ``display_id`` is the code's own name for it; with ``update`` it takes the place of what was shown under that name.
    ``result``: it is the value of the last expression. ``notes`` say what was left out, and why.
    """

    data: dict[str, Any]
    metadata: dict[str, Any] = field(default_factory=dict)
    display_id: str | None = None
    update: bool = False
    result: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Cleared:
    """The code cleared what it had shown; with ``wait`` when the next thing is shown."""

    wait: bool = False


@dataclass(frozen=True, kw_only=True)
class InputAsked:
    """The code waits for a line of input; the text is its own. Without ``Run.reply`` it waits for ever."""

    prompt: str
    password: bool = False


@dataclass(frozen=True, kw_only=True)
class Returned:
    """A variable that was wanted of the code, checked and decoded; all of them come, or none."""

    name: str
    value: Any = field(repr=False, compare=False)


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """One point of the run's curve; or, ``asked``, an answer to ``Run.ask_sample``, which is no point of it."""

    time: float
    cpu_seconds: float | None = None
    """Of the container since its first ``Started``, a session's earlier cells included."""
    memory_bytes: int | None = None
    """All that is charged, cached files included."""
    working_set_bytes: int | None = None
    """Of an answer: memory without files that were cached and not used again, as Docker's ``stats`` has it."""
    pids: int | None = None
    """Of an answer: tasks, threads and the container's init included."""
    asked: bool = False


@dataclass(frozen=True, kw_only=True)
class MemoryHigh:
    """The code's memory has reached ``--mem-high``: it gets a SIGINT; ``Interrupted`` follows. Once per cell."""

    limit_bytes: int
    usage_bytes: int
    """What it held then: cached files, which the kernel takes back, not counted."""


@dataclass(frozen=True, kw_only=True)
class LimitReached:
    """A limit ended the run, or (``output``) was passed by it, or (``pids``, ``disk``) refused what a failed run asked.

    ``disk`` is not always found out: only what is full at the end is.
    """

    limit: LimitName


@dataclass(frozen=True, kw_only=True)
class Interrupted:
    """The user, or ``MemoryHigh``, asked the run to stop; ``killed`` when it had to be ended by SIGKILL."""

    killed: bool = False


@dataclass(frozen=True, kw_only=True)
class CodeError:
    """The error that contained code ended with, as it says itself: informative, never a basis for the verdict."""

    ename: str
    evalue: str
    traceback: tuple[str, ...] = ()
    printed: bool = False
    """Whether these are lines that the code's interpreter wrote to standard error itself."""


@dataclass(frozen=True, kw_only=True)
class Collected:
    """A file of the container was written to the caller's directory (``--out-file``); ``path`` is relative to it."""

    path: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class NotCollected:
    """A file, or what a glob names, was not written to the caller's directory, and why."""

    path: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Exited:
    """The process ended: exactly one of ``exit_code`` and ``exit_signal`` is set, as ``wait`` said."""

    exit_code: int | None = None
    exit_signal: int | None = None
    oom_killed: bool = False
    usage: Usage = field(default_factory=Usage)
    session: Usage | None = None
    """Of a session's cell: what the session has used so far."""
    alive: bool = False
    """Of a session's cell: the process goes on and waits for the next."""
    line: int | None = None
    """Of a cell that was ended: where its last statement of the top level begins, as it says itself; informative."""


@dataclass(frozen=True, kw_only=True)
class FilesChanged:
    """Files that the run changed in the container's own layer, volumes not counted; ``complete``: all were seen."""

    count: int
    written: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    """Both together are the first few of ``count``: paths inside, as printable text."""
    complete: bool = True


@dataclass(frozen=True, kw_only=True)
class LogKept:
    """The whole output lies in the file ``path`` of the client's host, because more was written than is shown."""

    path: str


@dataclass(frozen=True, kw_only=True)
class Failed:
    """The sandbox broke or could not be made; ``kind`` is the name of the ``ContainError`` class to raise."""

    message: str
    hint: str = ""
    kind: str = "InternalError"


@dataclass(frozen=True, kw_only=True)
class Deleted:
    """Processes, cgroup and state directory are gone."""


Event = (
    Created
    | Started
    | Output
    | Displayed
    | Cleared
    | InputAsked
    | Returned
    | Sampled
    | MemoryHigh
    | LimitReached
    | Interrupted
    | CodeError
    | FilesChanged
    | LogKept
    | Collected
    | NotCollected
    | Exited
    | Failed
    | Deleted
)

_TYPES: dict[str, type] = {cls.__name__: cls for cls in get_args(Event)}


def until_exited(running: Iterable[Event]) -> Iterator[Event]:
    """Yield the events up to ``Exited``: all that a report needs; the removal goes on without the caller."""
    for event in running:
        yield event
        if isinstance(event, Exited):
            return


def _usage_to_dict(usage: Usage) -> dict[str, Any]:
    devices = usage.io_devices
    return vars(usage) | {"io_devices": devices and [vars(device) for device in devices]}


def _usage_from_dict(fields: dict[str, Any]) -> Usage:
    devices = fields.get("io_devices")
    return Usage(**fields | {"io_devices": None if devices is None else tuple(DeviceIO(**one) for one in devices)})


def to_dict(event: Event) -> dict[str, Any]:
    """Return ``event`` as plain JSON types; ``type`` names its class, ``data`` of an ``Output`` is base64.

    What was ``Returned`` is any value: its text stands for it.
    """
    fields = {"type": type(event).__name__, **vars(event)}
    if isinstance(event, Output):
        fields["data"] = base64.b64encode(event.data).decode("ascii")
    elif isinstance(event, Returned):
        fields["value"] = repr(event.value)
    elif isinstance(event, Exited):
        fields["usage"] = _usage_to_dict(event.usage)
        fields["session"] = None if event.session is None else _usage_to_dict(event.session)
    elif isinstance(event, Created):
        fields["limits"] = [vars(limit) for limit in event.limits]
        fields["downgrades"] = [vars(downgrade) for downgrade in event.downgrades]
    return fields


def from_dict(data: dict[str, Any]) -> Event:
    """Rebuild an event from ``to_dict``; values are not checked: they come from this package's own supervisor.

    Raises:
        TypeError: The type or a field is unknown.
    """
    fields = dict(data)
    cls = _TYPES.get(fields.pop("type", ""))
    if cls is None:
        raise TypeError(f"unknown event {data.get('type')!r}")
    if cls is Output:
        fields["data"] = base64.b64decode(fields["data"], validate=True)
    elif cls is CodeError:
        fields["traceback"] = tuple(fields["traceback"])
    elif cls is FilesChanged:
        fields |= {name: tuple(fields[name]) for name in ("written", "deleted")}
    elif cls is Displayed:
        fields["notes"] = tuple(fields["notes"])
    elif cls is Exited:
        fields["usage"] = _usage_from_dict(fields["usage"])
        fields["session"] = None if fields["session"] is None else _usage_from_dict(fields["session"])
    elif cls is Created:
        fields["limits"] = tuple(Limit(**limit) for limit in fields["limits"])
        fields["downgrades"] = tuple(Downgrade(**downgrade) for downgrade in fields["downgrades"])
    event: Event = cls(**fields)
    return event
