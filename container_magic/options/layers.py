"""From keywords to one layer of parsed values: what one line, one session or one profile said."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any

from container_magic.deferred import dataclass
from container_magic.errors import OptionError
from container_magic.options.command_line import key_of, see_help, shorten
from container_magic.options.near import nearest
from container_magic.options.option import Front, Option
from container_magic.options.standard_input import standard_input
from container_magic.options.table import OPTIONS, options_of
from container_magic.units import Cpus


@dataclass(kw_only=True)
class Layer:
    """Parsed values: ``scalars`` by keyword, ``lists`` by field and there by what identifies an item."""

    scalars: dict[str, Any] = field(default_factory=dict)
    lists: dict[str, dict[str, Any]] = field(default_factory=dict)
    explicit: set[str] = field(default_factory=set)


def layer_of(keywords: Mapping[str, Any], front: Front) -> Layer:
    """Return ``keywords`` as checked and parsed values; None = not given.

    Raises:
        OptionError: A keyword is unknown, its value malformed or of a wrong type, or two contradict each other.
    """
    layer = Layer()
    by_keyword = _by_keyword(front)
    spelled: dict[str, str] = {}
    for keyword in keywords:
        if keyword not in by_keyword:
            raise OptionError(_unknown_keyword(keyword, front))
    for keyword, value in sorted(keywords.items(), key=lambda item: _RANK[key_of(by_keyword[item[0]])]):
        option = by_keyword[keyword]
        if value is None:
            continue
        key = key_of(option)
        if key in spelled:
            raise OptionError(f"{spelled[key]} and {keyword} are the same option; accepted: one of them")
        spelled[key] = keyword
        if option.repeatable:
            _add_items(layer, option, value, front)
        else:
            layer.scalars[key] = _scalar(option, value, front)
        layer.explicit.update(option.keywords)
    _refuse_contradictions(layer, front)
    return layer


_RANK = {key_of(option): rank for rank, option in enumerate(OPTIONS)} | {"env_file": -1}  # --env goes before it


@functools.cache
def _by_keyword(front: Front) -> dict[str, Option]:
    return {word: option for option in options_of(front) for word in (option.keywords or (option.field,))}


def _unknown_keyword(keyword: str, front: Front) -> str:
    if any(keyword in option.keywords for option in OPTIONS):
        return f"{keyword} is not an option of {'a Python call' if front == 'api' else 'this front end'}"
    near = nearest(keyword, list(_by_keyword(front)))
    return f"unknown option {shorten(keyword)}; " + (f"did you mean {near}?" if near else see_help(front))


def _scalar(option: Option, value: Any, front: Front) -> Any:
    if key_of(option) == "stdin" and not isinstance(value, (str, int, float)):
        return _checked(option, value, front, standard_input)
    if option.flag:
        if not isinstance(value, bool):
            raise OptionError(f"{_label(option, front)} {shorten(value)}: accepted: True or False")
        return value
    return _parsed(option, _text(option, value, front), front)


def _parsed(option: Option, text: str, front: Front) -> Any:
    assert option.parse is not None
    if "\0" in text and key_of(option) not in ("code", "stdin"):
        raise OptionError(f"{_label(option, front)} {shorten(text)}: it holds a NUL character")
    return _checked(option, text, front, option.parse)


def _checked(option: Option, value: Any, front: Front, parse: Callable[[Any], Any]) -> Any:
    try:
        return parse(value)
    except ValueError as error:
        raise OptionError(f"{_label(option, front)} {shorten(value)}: {error}") from None


def _label(option: Option, front: Front) -> str:
    return key_of(option) if front == "api" else option.name


def _text(option: Option, value: Any, front: Front) -> str:
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    examples = f" such as {', '.join(map(repr, option.examples))}" if option.examples else ""
    raise OptionError(f"{_label(option, front)} {shorten(value)}: accepted: text{examples}")


def _add_items(layer: Layer, option: Option, value: Any, front: Front) -> None:
    items = layer.lists.setdefault(option.field, {})
    for text in _texts(option, value, front):
        parsed = _parsed(option, text, front)
        if option.field == "spec.process.env":
            items.update({name: (name, content) for name, content in parsed})
            continue
        if isinstance(parsed, tuple):
            items.update({name: name for name in parsed})
            continue
        name = _identity(parsed)
        if option.field == "spec.mounts" and name in items:
            raise OptionError(f"{_label(option, front)} {shorten(text)}: something else is mounted at {name} already")
        items[name] = parsed


def _texts(option: Option, value: Any, front: Front) -> list[str]:
    if isinstance(value, Mapping) and option.keyword == "env":
        return [
            _text(option, k, front) + ("" if v is None else f"={_text(option, v, front)}") for k, v in value.items()
        ]
    if isinstance(value, (list, tuple)):
        return [_text(option, item, front) for item in value]
    return [_text(option, value, front)]


def _identity(item: Any) -> str:
    """Return what a later layer replaces an item by: place of a mount, name of a limit, path of a device."""
    if isinstance(item, str):
        return item
    return str(next(getattr(item, name) for name in ("destination", "name", "path") if hasattr(item, name)))


def _refuse_contradictions(layer: Layer, front: Front) -> None:
    scalars, dashes = layer.scalars, "" if front == "api" else "--"
    if "stdin" in scalars and "stdin_file" in scalars:
        other = "stdin_file" if front == "api" else "--stdin-file"
        raise OptionError(f"{dashes}stdin and {other} both say what the code reads; accepted: one of them")
    if "lang" in scalars and "interpreter" in scalars:
        raise OptionError(f"{dashes}lang and {dashes}interpreter both say what runs the code; accepted: one of them")
    if "cpuset_cpus" in scalars and is_range(scalars.get("cpus")):
        other = "cpuset_cpus" if front == "api" else "--cpuset-cpus"
        raise OptionError(
            f"{dashes}cpus and {other} both name CPUs; accepted: one of them, or an amount for {dashes}cpus"
        )


def is_range(cpus: Cpus | None) -> bool:
    """Return whether ``--cpus`` named CPUs, not an amount."""
    return cpus is not None and cpus.cpuset is not None
