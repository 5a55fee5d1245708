"""Options as words that mean the same wherever, and whenever, they are read again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from container_magic.errors import OptionError
from container_magic.options import values
from container_magic.options.command_line import key_of, shorten
from container_magic.options.option import Front
from container_magic.options.table import options_of


def portable_words(texts: Mapping[str, Any], front: Front) -> list[str]:
    """Return checked ``texts`` of a line as words in which every path of the host is absolute.

    A variable that is named without a value stays so: its value is whoever's reads the words.

    Raises:
        OptionError: Two volumes are the same place, or a path cannot be written down.
    """
    words: list[str] = []
    for option in options_of(front):
        said = texts.get(key_of(option))
        spell = _WITH_PATHS.get(option.name, str)
        for text in said if isinstance(said, list) else [] if said is None else [said]:
            words += [option.name] if option.flag else _pair(option.name, spell(text))
    return words


def _pair(name: str, text: str) -> list[str]:
    return [f"{name}={text}"] if text.startswith("-") else [name, text]


def _volume(text: str) -> str:
    mount = values.volume(text)
    if ":" in mount.source:
        raise OptionError(
            f"--volume {shorten(text)}: the path {mount.source} holds a colon; "
            f"accepted: --mount type=bind,src={mount.source},dst={mount.destination}"
        )
    return f"{mount.source}:{mount.destination}:{'ro' if mount.readonly else 'rw'}"


def _mount(text: str) -> str:
    import csv
    import io

    mount = values.mount(text)
    if mount.type == "tmpfs":
        return text
    fields = ["type=bind", f"src={mount.source}", f"dst={mount.destination}", *(["readonly"] if mount.readonly else [])]
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(fields)
    return line.getvalue()


_WITH_PATHS: dict[str, Callable[[str], str]] = {"--volume": _volume, "--mount": _mount, "--env-file": values.source}
"""The options whose value holds a path of the host; those of devices are absolute anyway."""
