"""``diff``: what a container that lives on has changed in its file systems, or had changed when it ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from container_magic.deferred import dataclass
from container_magic.errors import NotFoundError, OptionError, StateError
from container_magic.runtime.asking import ask, containers, find
from container_magic.runtime.records import kept_records, read_record

__all__ = ["Changes", "diff", "known_ids", "parse_words"]

HELP = """\
usage: contain diff [--format json] CONTAINER

Show what a session or a kernel has changed in its file systems: A added, C changed, D deleted, a line each, as
docker diff does. Volumes and file systems in memory (--tmpfs, /dev/shm) are not looked at. CONTAINER is an id or the
beginning of one. Of the last 20 that wrote over the current directory (--work overlay or copy) it says so also after
their end.

  --format json  the same as JSON
"""
_KINDS = ("A", "C", "D")


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What ``container_id`` has changed, by path; ``running``: it may change more, ``complete``: that is all."""

    container_id: str
    running: bool
    complete: bool
    changes: tuple[tuple[str, str], ...]


def parse_words(words: Sequence[str]) -> tuple[str, bool]:
    """Return the container that ``diff WORDS`` names, and whether JSON is wanted.

    Raises:
        OptionError: There is not exactly one name, or an option that is none.
    """
    rest = [part for word in words for part in (word.split("=", 1) if word.startswith("--format=") else [word])]
    json_format = False
    if "--format" in rest:
        place = rest.index("--format")
        json_format = rest[place + 1 : place + 2] == ["json"]
        if json_format:
            del rest[place : place + 2]
    if len(rest) != 1 or rest[0].startswith("-"):
        raise OptionError(f"contain diff does not take {' '.join(words)!r}; accepted: --format json, and one id")
    return rest[0], json_format


def diff(name: str) -> Changes:
    """Return what the container whose id begins with ``name`` has changed.

    Raises:
        OptionError: ``name`` can be no id, or several ids begin so.
        NotFoundError: There is no such container, and no record of one.
        StateError: It is one that does not answer.
    """
    living = containers()
    found = find(name, [*living, *kept_records()])
    if found in living:
        try:
            return _changes(found, ask(found, {"op": "diff"}), running=True)
        except NotFoundError:
            pass  # it has ended meanwhile, and may have left a record
    if found:
        try:
            return _changes(found, read_record(found), running=False)
        except (OSError, ValueError):
            raise NotFoundError(f"container {found[:12]} is gone, and there is no record of it") from None
    if find(name, containers(that_answer=False)):
        raise StateError(
            f"container {name} is that of a single run, which nobody can ask",
            hint="--changes names the files that a run changed in its report",
        )
    raise NotFoundError(
        f"there is no container {name}", hint="sessions and kernels can be asked; %contain sessions shows their ids"
    )


def known_ids() -> list[str]:
    """Return the short ids of the containers that ``diff`` knows of, those that live first."""
    return [name[:12] for name in (*containers(), *kept_records())]


def _changes(container_id: str, said: dict[str, Any], *, running: bool) -> Changes:
    changes = tuple((str(kind), str(path)) for kind, path in said["changes"] if kind in _KINDS)
    return Changes(container_id=container_id, running=running, complete=said.get("complete") is True, changes=changes)
