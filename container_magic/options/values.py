"""From the text of one option to its value, where ``units`` alone is not enough: mounts, environment, user, choices.

Every function raises ``ValueError`` whose message says what is accepted. Whether a path, a CPU or a device exists is
not asked here: that is the plan's part.
"""

from __future__ import annotations

import keyword
import os
import posixpath
import re
from collections.abc import Callable

from container_magic import units
from container_magic.options.near import nearest
from container_magic.spec import DeviceRate, Mount, Rlimit, Work

MIN_MEMORY_BYTES = 6 * units.MIB
"""Docker's smallest ``--memory``: below it not even a runtime's first process starts."""
MIN_DISK_BYTES = 64 * units.KIB
MAX_SECONDS = 366 * 24 * 3600.0
"""Timers of the kernel and of ``select`` take no arbitrary float."""

VOLUME_ACCEPTED = "accepted: SRC:DST, SRC:DST:ro, SRC:DST:rw, or PATH alone (read-only at the same place)"
MOUNT_ACCEPTED = (
    "accepted: type=bind,source=SRC,destination=DST[,readonly] or "
    "type=tmpfs,destination=DST[,tmpfs-size=SIZE][,tmpfs-mode=OCTAL]"
)
TMPFS_ACCEPTED = "accepted: DST, DST:size=SIZE, DST:size=SIZE,mode=OCTAL"
ENV_ACCEPTED = "accepted: NAME=VALUE, or NAME alone for the caller's value"
USER_ACCEPTED = "accepted: UID, UID:GID, NAME or NAME:GROUP"

Environment = tuple[tuple[str, str], ...]

MOST_WARM = 8
MAX_GLOB_CHARACTERS = 4096


def memory(text: str) -> int | None:
    """``--mem``: bytes, None for ``none``."""
    return units.parse_size(text, minimum=MIN_MEMORY_BYTES, unlimited=("none",))


def memory_swap(text: str) -> int:
    """``--memory-swap``: bytes of memory plus swap, -1 for unlimited swap."""
    size = units.parse_size(text, minimum=MIN_MEMORY_BYTES, unlimited=("-1",))
    return -1 if size is None else size


def size(minimum: int) -> Callable[[str], int | None]:
    """Return a parser of sizes that are at least ``minimum`` bytes."""
    return lambda text: units.parse_size(text, minimum=minimum)


def file_glob(text: str) -> str:
    """``--out-file``: a glob whose path leads down only."""
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if not parts or ".." in parts or len(text) > MAX_GLOB_CHARACTERS:
        raise ValueError("accepted: a file or a pattern such as plots/*.png, relative or absolute, without ..")
    return text


def variables(text: str) -> tuple[str, ...]:
    """``--input`` and ``--output``: names of variables with commas between them."""
    names = tuple(name.strip() for name in text.split(","))
    if not all(name.isidentifier() and not keyword.iskeyword(name) for name in names):
        raise ValueError("accepted: names of variables such as df or x,y")
    return names


def cpuset(text: str) -> str:
    """``--cpuset-cpus`` and ``--cpuset-mems``: the list in the kernel's own spelling."""
    return units.format_cpuset(units.parse_cpuset(text))


def duration(text: str) -> float | None:
    """``--timeout`` and ``--cpu-time``: seconds, None for ``none``."""
    if text.lower() == "none":
        return None
    accepted = f"{units.DURATION_ACCEPTED} or none"
    try:
        seconds = units.parse_duration(text)
    except ValueError:
        raise ValueError(f"not a duration; {accepted}") from None
    if not 0.001 <= seconds <= MAX_SECONDS:
        raise ValueError(f"it must be between 1ms and 366 days; {accepted}")
    return seconds


def whole(minimum: int, maximum: int) -> Callable[[str], int]:
    """Return a parser of whole numbers from ``minimum`` to ``maximum``."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", text) or not minimum <= int(text) <= maximum:
            raise ValueError(f"accepted: a whole number from {minimum} to {maximum}")
        return int(text)

    return parse


def pids(text: str) -> int | None:
    """``--pids``: number of tasks, None for ``-1`` (Docker's unlimited) and ``none``."""
    if text in ("-1", "none"):
        return None
    maximum = 4194304  # PID_MAX_LIMIT of 64-bit kernels, see pid_namespaces(7) and proc(5)
    if not re.fullmatch(r"[0-9]{1,18}", text) or not 1 <= int(text) <= maximum:
        raise ValueError(f"accepted: a whole number from 1 to {maximum}, -1 or none = unlimited")
    return int(text)


def choice(*accepted: str) -> Callable[[str], str]:
    """Return a parser that takes the given words only."""

    def parse(text: str) -> str:
        if text not in accepted:
            near = nearest(text, accepted)
            raise ValueError(f"accepted: {', '.join(accepted)}" + (f"; did you mean {near}?" if near else ""))
        return text

    return parse


def rlimit(text: str) -> Rlimit:
    """``--ulimit``: Docker's name (``nofile``) and two limits."""
    ulimit = units.parse_ulimit(text)
    return Rlimit(name=ulimit.name, soft=ulimit.soft, hard=ulimit.hard)


def device_bps(text: str) -> DeviceRate:
    """``--device-read-bps`` and ``--device-write-bps``; the plan looks the device's numbers up."""
    path, rate = units.parse_device_rate(text, in_bytes=True)
    return DeviceRate(path=path, major=0, minor=0, rate=rate)


def device_iops(text: str) -> DeviceRate:
    """``--device-read-iops`` and ``--device-write-iops``; the plan looks the device's numbers up."""
    path, rate = units.parse_device_rate(text, in_bytes=False)
    return DeviceRate(path=path, major=0, minor=0, rate=rate)


def hostname(text: str) -> str:
    """``--hostname``: letters, digits, ``-`` and ``.``, at most 63 characters (RFC 1123), as in Docker."""
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,61}[A-Za-z0-9])?", text):
        raise ValueError("accepted: up to 63 letters, digits, - and ., with a letter or digit at both ends")
    return text


def user(text: str) -> str:
    """``--user``: ``UID[:GID]`` or ``NAME[:GROUP]``, looked up inside the container."""
    parts = text.split(":")
    if len(parts) > 2 or not all(re.fullmatch(r"[0-9]{1,10}|[A-Za-z_][A-Za-z0-9_.-]{0,31}\$?", part) for part in parts):
        raise ValueError(USER_ACCEPTED)
    if any(part.isdigit() and int(part) > 2**32 - 2 for part in parts):
        raise ValueError(f"the largest id is 2^32 - 2; {USER_ACCEPTED}")
    return text


def workdir(text: str) -> str:
    """``--workdir``: an absolute path inside the container, as in Docker."""
    if not text.startswith("/"):
        raise ValueError("accepted: an absolute path inside the container")
    return _inside(text)


def destination(text: str, accepted: str) -> str:
    """Return the place of a mount inside the container in its shortest spelling; ``/`` is refused."""
    if not text.startswith("/"):
        raise ValueError(f"the place inside the container must be an absolute path; {accepted}")
    if _inside(text) == "/":
        raise ValueError(f"nothing can be mounted over / ; {accepted}")
    return _inside(text)


def _inside(path: str) -> str:
    return "/" + posixpath.normpath(path).lstrip("/")  # normpath keeps two leading slashes (POSIX)


def source(text: str) -> str:
    """Return the absolute path of a bind's source on the host: ``~`` and relative paths are the caller's."""
    return os.path.abspath(os.path.expanduser(text))


def volume(text: str) -> Mount:
    """``--volume``: ``SRC:DST[:ro|rw]`` as in Docker, or ``PATH``: read-only at the same place."""
    first, *rest = text.split(":")
    if not first or len(rest) > 2 or (len(rest) == 2 and rest[1] not in ("ro", "rw")):
        raise ValueError(f"not a volume; {VOLUME_ACCEPTED}")
    if not rest:
        path = source(first)
        return Mount(type="bind", source=path, destination=destination(path, VOLUME_ACCEPTED), readonly=True)
    _refuse_named_volume(first)
    return Mount(
        type="bind",
        source=source(first),
        destination=destination(rest[0], VOLUME_ACCEPTED),
        readonly=rest[1:] == ["ro"],
    )


def _refuse_named_volume(name: str) -> None:
    if "/" not in name and not name.startswith((".", "~")):
        raise ValueError(f"there are no named volumes: write ./{name} for the directory {name} here")


def mount(text: str) -> Mount:
    """``--mount``: Docker's comma-separated ``key=value`` list (RFC 4180 quotes) for ``bind`` and ``tmpfs``."""
    fields = _mount_fields(text)
    kind = fields.pop("type", "")
    if kind not in ("bind", "tmpfs"):
        raise ValueError(f"type must be bind or tmpfs; {MOUNT_ACCEPTED}")
    allowed = {"bind": ("source",), "tmpfs": ("tmpfs-size", "tmpfs-mode")}[kind]
    for key in fields:
        if key not in (*allowed, "destination", "readonly"):
            raise ValueError(f"type={kind} has no {key!r}; {MOUNT_ACCEPTED}")
    readonly = _truth(fields.get("readonly", "false"))
    place = destination(fields.get("destination", ""), MOUNT_ACCEPTED)
    if kind == "tmpfs":
        return _tmpfs(place, fields.get("tmpfs-size"), fields.get("tmpfs-mode"), readonly, MOUNT_ACCEPTED)
    if not fields.get("source"):
        raise ValueError(f"type=bind needs source=; {MOUNT_ACCEPTED}")
    return Mount(type="bind", source=source(fields["source"]), destination=place, readonly=readonly)


def _mount_fields(text: str) -> dict[str, str]:
    import csv  # only --mount needs it

    aliases = {"src": "source", "dst": "destination", "target": "destination", "ro": "readonly"}
    try:
        (items,) = csv.reader([text], strict=True)
    except (csv.Error, ValueError):
        raise ValueError(f"not a comma-separated list; {MOUNT_ACCEPTED}") from None
    fields: dict[str, str] = {}
    for item in items:
        key, separator, value = item.partition("=")
        key = aliases.get(key.lower(), key.lower())
        if key in fields:
            raise ValueError(f"{key} is given twice; {MOUNT_ACCEPTED}")
        if not separator and key != "readonly":
            raise ValueError(f"{item!r} has no value; {MOUNT_ACCEPTED}")
        fields[key] = value if separator else "true"
    return fields


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        raise ValueError(f"readonly must be true or false; {MOUNT_ACCEPTED}")
    return text.lower() in ("true", "1")


def work(text: str) -> Work | None:
    """``--work``: the caller's working directory as it is now; None for ``none``."""
    mode = choice("none", "ro", "overlay", "copy")(text)
    if mode == "none":
        return None
    try:
        path = os.getcwd()
    except OSError as error:
        raise ValueError(f"there is no current directory ({error.strerror}); accepted here: none") from None
    return Work(mode=mode, path=path)  # type: ignore[arg-type]  # one of the words above


def tmpfs(text: str) -> Mount:
    """``--tmpfs``: ``DST[:size=SIZE][,mode=OCTAL][,ro|rw]``."""
    place, _, rest = text.partition(":")
    fields: dict[str, str] = {}
    for item in rest.split(",") if rest else []:
        key, _, value = item.partition("=")
        if item not in ("ro", "rw") and (key not in ("size", "mode") or not value):
            raise ValueError(f"{item!r} is no option of a tmpfs here; {TMPFS_ACCEPTED}")
        fields[key] = value
    return _tmpfs(
        destination(place, TMPFS_ACCEPTED), fields.get("size"), fields.get("mode"), "ro" in fields, TMPFS_ACCEPTED
    )


def _tmpfs(place: str, size_text: str | None, mode: str | None, readonly: bool, accepted: str) -> Mount:
    if mode is not None and not re.fullmatch(r"0?[0-7]{1,4}", mode):
        raise ValueError(f"the mode {mode!r} is not octal; {accepted}")
    try:
        size_bytes = None if size_text is None else units.parse_size(size_text, minimum=units.KIB)
    except ValueError as error:
        raise ValueError(f"the size {size_text!r}: {error}") from None
    return Mount(
        type="tmpfs",
        destination=place,
        readonly=readonly,
        size_bytes=size_bytes,
        mode=None if mode is None else int(mode, 8),
    )


def env(text: str) -> Environment:
    """``--env``: ``NAME=VALUE``; NAME alone takes the caller's value, nothing when there is none, as in Docker."""
    name, separator, value = text.partition("=")
    if not name or any(character.isspace() for character in name):
        raise ValueError(f"a name is not empty and has no blanks; {ENV_ACCEPTED}")
    if separator:
        return ((name, value),)
    return ((name, os.environ[name]),) if name in os.environ else ()


def env_file(text: str) -> Environment:
    """``--env-file``: one ``--env`` per line; empty lines and lines that begin with ``#`` are skipped, as in Docker."""
    try:
        with open(os.path.expanduser(text), encoding="utf-8-sig") as file:
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ValueError(f"cannot be read: {reason}; accepted: a file with NAME=VALUE lines") from None
    found: list[tuple[str, str]] = []
    for number, line in enumerate(lines, 1):
        stripped = line.lstrip()
        if not stripped or stripped.startswith("#"):
            continue
        if "\0" in stripped:
            raise ValueError(f"line {number} holds a NUL character; accepted: a file with NAME=VALUE lines")
        try:
            found += env(stripped)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
    return tuple(found)


def identifier(text: str) -> str:
    """``--result``: a name that Python code can use."""
    if not text.isidentifier() or keyword.iskeyword(text):
        raise ValueError("accepted: a Python name")
    return text


def session_name(text: str) -> str:
    """``--session``: a name as Docker's containers have them."""
    if re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}", text) is None:
        raise ValueError("accepted: letters, digits, . _ -, the first a letter or digit, at most 64")
    return text


def modules(text: str) -> tuple[str, ...]:
    """``--preload``: names of modules, each once, in order."""
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if not all(part.isidentifier() and not keyword.iskeyword(part) for part in name.split(".")):
            raise ValueError("accepted: names of modules with commas between them")
    return tuple(dict.fromkeys(names))


def waiting(text: str) -> int:
    """``--warm``: how many containers wait."""
    if not re.fullmatch(r"[0-9]{1,4}", text) or int(text) > MOST_WARM:
        raise ValueError(f"accepted: a whole number from 0 (every start is cold) to {MOST_WARM}")
    return int(text)


def nonempty(text: str) -> str:
    """Return any text that is not empty."""
    if not text:
        raise ValueError("it is empty")
    return text
