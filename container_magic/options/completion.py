"""What may stand at the cursor of a line of options: for Tab in a notebook and in a shell."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from container_magic.options.option import Front, Option
from container_magic.options.table import options_of

MOST_PATHS = 200
"""How many names of a directory are offered."""


def at_cursor(before: Sequence[str], current: str, front: Front, variables: Iterable[str] = ()) -> list[str]:
    """Return the words that ``current`` may become, after the words ``before``; sorted where the table has no order.

    ``variables`` are the names that the caller's session has.
    """
    named, separator, value = current.partition("=")
    option = _option(named, front) if separator else None
    if option is not None:
        return [f"{named}={word}" for word in value_words(option, value, variables)]
    option = _option(before[-1], front) if before else None
    if option is not None:
        return value_words(option, current, variables)
    names = (name for option in options_of(front) for name in option.names_on(front))
    return sorted(name for name in names if name.startswith("--") and name.startswith(current))


def _option(name: str, front: Front) -> Option | None:
    """Return the option of this spelling when it takes a value."""
    found = (option for option in options_of(front) if name in option.names_on(front))
    return next((option for option in found if not option.flag), None)


def value_words(option: Option, current: str, variables: Iterable[str] = ()) -> list[str]:
    """Return the values of ``option`` that begin with ``current``, as far as they can be listed."""
    if option.completes == "path":
        return paths(current)
    if option.completes == "volume":
        return _volumes(current)
    if option.completes == "cpus":
        words = _cpus(current)
    elif option.completes == "variables":
        head = current[: current.rfind(",") + 1]
        words = [head + name for name in sorted(variables) if name not in head.split(",")]
    else:
        words = list(option.choices)
    return [word for word in words if word.startswith(current)]


def _cpus(current: str) -> list[str]:
    """Return lists of this process's CPUs: what stands before the last comma or dash, and one CPU or range more."""
    cpus = sorted(os.sched_getaffinity(0))
    cut = max(current.rfind(","), current.rfind("-")) + 1
    head, opened = current[:cut], current[cut - 1 : cut] == "-"
    first = current[current.rfind(",") + 1 : cut - 1] if opened else ""
    later = [cpu for cpu in cpus if not first.isdecimal() or cpu > int(first)]
    words = [f"{head}{cpu}" for cpu in (later if opened else cpus)]
    if not opened and len(cpus) > 1:
        words.append(f"{head}{cpus[0]}-{cpus[-1]}")
    return words


def _volumes(current: str) -> list[str]:
    """Return ``SRC``, then nothing (a place inside is free), then ``ro`` and ``rw``."""
    parts = current.split(":")
    if len(parts) == 1:
        return paths(current)
    head = current[: current.rfind(":") + 1]
    return [word for word in (f"{head}ro", f"{head}rw") if word.startswith(current)] if len(parts) == 3 else []


def paths(current: str) -> list[str]:
    """Return the paths that begin with ``current``, directories with a slash; hidden ones only when asked for."""
    head, base = current[: current.rfind("/") + 1], current[current.rfind("/") + 1 :]
    try:
        with os.scandir(os.path.expanduser(head) or ".") as entries:
            found = [
                entry.name + ("/" if entry.is_dir() else "")
                for entry in entries
                if entry.name.startswith(base) and (base or not entry.name.startswith("."))
            ]
    except OSError:
        return []
    return [head + name for name in sorted(found)[:MOST_PATHS]]
