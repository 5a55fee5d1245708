"""What was asked: ``ContainerSpec`` and its parts, immutable and JSON-able (OCI runtime-spec words).

Sizes are bytes, times are seconds, ``None`` means "not limited" or "not asked". A spec never says how
something is done: that is the plan's part.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import field
from typing import Any, TypeVar

from container_magic.deferred import dataclass

T = TypeVar("T")

NetworkMode = typing.Literal["none", "host"]
ProcessKind = typing.Literal["python", "exec"]
ShellName = typing.Literal["script", "plain", "ipython", "live", "kernel"]


@dataclass(frozen=True, kw_only=True)
class Rlimit:
    """One POSIX resource limit; ``-1`` is unlimited (OCI ``process.rlimits``)."""

    name: str
    soft: int
    hard: int


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A mount that the user asked for (OCI ``mounts``).

    ``source`` is an absolute path of the host, and empty for ``tmpfs``; ``size_bytes`` and ``mode`` belong to
    ``tmpfs``; a bind takes the mounts below the source along. ``overlay`` shows the directory ``source`` and keeps what
    is written on the container's writable layer; ``copy`` is a copy of it there. Only the plan makes these two.
    """

    type: typing.Literal["bind", "tmpfs", "overlay", "copy"]
    destination: str
    source: str = ""
    readonly: bool = False
    size_bytes: int | None = None
    mode: int | None = None
    own: bool = False
    """Whether the files of the source's owner belong to the container's user inside, where ids can be mapped."""
    hide_dotted: bool = False
    """Whether names with a leading dot, in the source itself, are left out (``overlay``, ``copy``)."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """The caller's working directory, visible inside at the same place and the working directory there."""

    mode: typing.Literal["ro", "overlay", "copy"]
    path: str


@dataclass(frozen=True, kw_only=True)
class DeviceRate:
    """An I/O rate for one block device: bytes or operations per second (OCI ``throttle*Device``)."""

    path: str
    major: int
    minor: int
    rate: int


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Limits that a cgroup holds (OCI ``linux.resources``)."""

    memory_bytes: int | None = None
    memory_swap_bytes: int | None = None
    """Memory plus swap, Docker's and OCI's meaning; None = equal to ``memory_bytes``; -1 = unlimited swap."""
    memory_high_bytes: int | None = None
    """Below ``memory_bytes``: where the code is interrupted, so that its state survives (v2's ``memory.high``)."""
    cpus: float | None = None
    """CPU seconds per second (``cpu.max``)."""
    cpuset_cpus: str | None = None
    cpuset_mems: str | None = None
    cpu_shares: int | None = None
    pids: int | None = None
    blkio_weight: int | None = None
    device_read_bps: tuple[DeviceRate, ...] = ()
    device_write_bps: tuple[DeviceRate, ...] = ()
    device_read_iops: tuple[DeviceRate, ...] = ()
    device_write_iops: tuple[DeviceRate, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Watch:
    """Limits that the supervisor and the client watch over."""

    wall_seconds: float | None = None
    cpu_seconds: float | None = None
    output_bytes: int = 8 * 1024 * 1024
    idle_seconds: float | None = 3600.0
    """How long a session waits for its next cell."""
    interrupt_seconds: float | None = 2.0
    """How long after an interrupt code that goes on is killed; None: it may go on, and is interrupted between cells."""


@dataclass(frozen=True, kw_only=True)
class Root:
    """The root file system (OCI ``root``): the host tree by allow-list, a writable layer of ``disk_bytes`` over it."""

    readonly: bool = False
    disk_bytes: int | None = None
    list_changes: bool = False
    """Whether the report says which files the run changed."""


@dataclass(frozen=True, kw_only=True)
class Process:
    """What runs (OCI ``process``).

    ``python`` runs source in a fork of the warm interpreter; ``exec`` executes ``args``. When ``stdin_is_code``
    is set, the source is what ``args`` reads on standard input (a shell, another interpreter).
    """

    kind: ProcessKind = "python"
    args: tuple[str, ...] = ()
    stdin_is_code: bool = False
    env: tuple[tuple[str, str], ...] = ()
    cwd: str = ""
    """Working directory inside; empty = the home directory of the container."""
    user: str = ""
    """``UID[:GID]`` or ``NAME[:GROUP]``; empty = container root, without any capability."""
    rlimits: tuple[Rlimit, ...] = ()
    session: bool = False
    """Whether the interpreter lives on after its first cell and waits for the next."""
    preload: tuple[str, ...] = ()
    """Modules that the interpreter has imported before it is forked."""
    print_traceback: bool = True
    """Whether an uncaught Python exception is also printed to standard error; a notebook shows it as an error."""
    shell: ShellName = "script"
    """How ``python`` runs its source: as a file, or as a cell whose values are shown, with or without IPython.

    ``live`` is the caller's own shell, in a copy of its process (``--snapshot``); ``kernel`` is a whole ipykernel.
    """


@dataclass(frozen=True, kw_only=True)
class ContainerSpec:
    """Everything that was asked of one container.

    ``explicit`` names the options that the user gave, as opposed to defaults: a default which the host cannot
    enforce is a recorded downgrade, a wish which it cannot enforce is an error (unless ``best_effort``).
    """

    process: Process = field(default_factory=Process)
    root: Root = field(default_factory=Root)
    mounts: tuple[Mount, ...] = ()
    work: Work | None = None
    resources: Resources = field(default_factory=Resources)
    watch: Watch = field(default_factory=Watch)
    network: NetworkMode = "none"
    hostname: str = ""
    best_effort: bool = False
    explicit: tuple[str, ...] = ()

    @property
    def shows_changes(self) -> bool:
        """Whether the supervisor is to know what is written on the writable layer."""
        return self.root.list_changes or self.process.session

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ContainerSpec:
        """Rebuild a spec from ``to_dict`` (also after a trip through JSON).

        Raises:
            TypeError: A key is unknown or a value has another type than the field.
        """
        return build(cls, data)


def build(cls: type[T], data: dict[str, Any]) -> T:
    """Rebuild the frozen dataclass ``cls`` from plain JSON types, nested dataclasses and tuples included.

    Raises:
        TypeError: A key is unknown or a value has another type than the field.
    """
    if not isinstance(data, dict):
        raise TypeError(f"{cls.__name__}: expected an object, got {type(data).__name__}")
    hints = _hints(cls)
    unknown = set(data) - set(hints)
    if unknown:
        raise TypeError(f"{cls.__name__}: unknown field {sorted(unknown)[0]!r}")
    return cls(**{name: _value(hints[name], value, f"{cls.__name__}.{name}") for name, value in data.items()})


_hints_of: dict[type, dict[str, Any]] = {}


def _hints(cls: type) -> dict[str, Any]:
    if cls not in _hints_of:
        _hints_of[cls] = typing.get_type_hints(cls)
    return _hints_of[cls]


def _value(hint: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return _union(hint, value, where)
    if origin is tuple:
        return _tuple(typing.get_args(hint), value, where)
    if origin is typing.Literal:
        if value not in typing.get_args(hint):
            raise TypeError(f"{where}: {value!r} is none of {', '.join(map(str, typing.get_args(hint)))}")
        return value
    if origin is dict or hint is Any:
        return value
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, typing.cast(type, hint)) else build(typing.cast(type, hint), value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise TypeError(f"{where}: expected {hint.__name__}, got {type(value).__name__}")
    return value


def _union(hint: Any, value: Any, where: str) -> Any:
    members = typing.get_args(hint)
    if value is None and type(None) in members:
        return None
    *others, last = (member for member in members if member is not type(None))
    for member in others:
        try:
            return _value(member, value, where)
        except TypeError:
            continue
    return _value(last, value, where)


def _tuple(members: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"{where}: expected a list, got {type(value).__name__}")
    if len(members) == 2 and members[1] is Ellipsis:
        return tuple(_value(members[0], item, where) for item in value)
    if len(members) != len(value):
        raise TypeError(f"{where}: expected {len(members)} items, got {len(value)}")
    return tuple(_value(member, item, where) for member, item in zip(members, value, strict=True))
