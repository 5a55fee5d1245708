"""``logs``: the whole output of a run that wrote more than was shown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from container_magic.errors import NotFoundError, OptionError
from container_magic.runtime.logs import Log, kept_logs, read_log

__all__ = ["HELP", "Log", "find_log", "kept_ids", "parse_words", "read"]

HELP = """\
usage: contain logs [--raw] [ID]

Show the whole output of a run that wrote more than --max-output; without ID, of the last such run. Standard output
and error stand as they came, escape sequences reduced to colours.

  --raw  the bytes as they were written: what a program writes can make a terminal do more than show text
"""

HELP = """\
usage: contain logs [--raw] [ID]

Show the whole output of a run that wrote more than --max-output; without ID, of the last such run. Standard output
and error stand as they came, escape sequences reduced to colours.

  --raw  the bytes as they were written: what a program writes can make a terminal do more than show text
"""


def parse_words(words: Sequence[str]) -> tuple[str, bool]:
    """Return the container that ``logs WORDS`` names (empty: the last one), and whether ``--raw`` was given.

    Raises:
        OptionError: There is more than one name, or an option that is none.
    """
    names = [word for word in words if word != "--raw"]
    if len(names) > 1 or any(name.startswith("-") for name in names):
        raise OptionError(f"contain logs does not take {' '.join(words)!r}; accepted: --raw, one id or none")
    return (names[0] if names else ""), "--raw" in words


def find_log(name: str = "") -> Log:
    """Return the log of the container whose id begins with ``name``; the latest log when that is empty.

    Raises:
        OptionError: ``name`` can be no id, or several ids begin so.
        NotFoundError: There is no such log.
    """
    if not re.fullmatch(r"[0-9a-f]{0,64}", name):
        raise OptionError(f"{name[:80]!r} is no container's id; accepted: up to 64 of the characters 0-9 and a-f")
    found = [log for log in kept_logs() if log.container_id.startswith(name)]
    if not found:
        which = f"of a container {name}" if name else "yet"
        raise NotFoundError(
            f"there is no log {which}", hint="a run has one when it writes more than --max-output; the last 20 are kept"
        )
    if name and len(found) > 1:
        raise OptionError(f"{name} begins {len(found)} ids: {', '.join(log.container_id[:12] for log in found[:5])}")
    return found[0]


def kept_ids() -> list[str]:
    """Return the short ids of the containers that have a log, the latest first."""
    return [log.container_id[:12] for log in kept_logs()]


def read(log: Log) -> Iterator[bytes]:
    """Yield the bytes of ``log`` as they were written.

    Raises:
        NotFoundError: It was removed meanwhile, or cannot be read.
    """
    try:
        yield from read_log(log)
    except OSError as error:
        raise NotFoundError(f"cannot read {log.path}: {error.strerror}") from None
