"""From texts and keywords to ``RunOptions``: built-in defaults < profile < session defaults < what was given."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from container_magic.errors import OptionError
from container_magic.options.command_line import key_of, nearest, parse_line, see_help, shorten
from container_magic.options.option import Front, Option
from container_magic.options.table import OPTIONS, PROFILES, options_of
from container_magic.spec import ContainerSpec, Process, Resources, Root, Watch
from container_magic.units import Cpus, format_cpuset, format_size

_PARTS = {"process": Process, "root": Root, "resources": Resources, "watch": Watch}
_ALTERNATIVES = {"lang": "interpreter", "interpreter": "lang"}


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Everything that was said about one run: what is asked of the container, and what is done with its report."""

    spec: ContainerSpec
    lang: str = "python"
    """``python``, ``bash``, ``sh``, or the path that ``--interpreter`` named."""
    result: str | None = None
    report: str = "line"
    raise_error: bool = True
    quiet: bool = False
    dry_run: bool = False
    report_file: str | None = None
    code: str | None = None
    """What ``-c`` said on the command line."""


def from_argv(argv: Sequence[str], front: Front, defaults: Mapping[str, Any] | None = None) -> RunOptions:
    """Return what a line says; ``defaults`` are keywords of the session (values as in ``from_keywords``).

    Raises:
        OptionError: An option is unknown or malformed, or a word is no option.
    """
    line = parse_line(argv, front)
    if line.rest or line.dashes:
        word = line.rest[0] if line.rest else "--"
        raise OptionError(f"unexpected argument {shorten(word)}; accepted: options only ({see_help(front)})")
    return from_keywords(line.texts, defaults, front=front)


def keywords_from_argv(argv: Sequence[str], front: Front) -> dict[str, Any]:
    """Return what a line says as checked keywords, ready to be kept as ``defaults``: ``{"mem": "512M"}``.

    Raises:
        OptionError: As ``from_argv``.
    """
    from_argv(argv, front)
    return parse_line(argv, front).texts


def from_keywords(
    keywords: Mapping[str, Any], defaults: Mapping[str, Any] | None = None, *, front: Front = "api"
) -> RunOptions:
    """Return what keywords say: texts as on a line, or numbers, paths, lists, a dict for ``env``; None = not given.

    Raises:
        OptionError: A keyword is unknown, or its value malformed or of a wrong type.
    """
    given, session = _layer(keywords, front), _layer(defaults or {}, front)
    merged = _Merged()
    merged.add(_builtin(), explicit=False)
    profile = given.scalars.get("profile", session.scalars.get("profile"))
    if profile is not None:
        merged.add(_profile(profile))
    merged.add(session)
    merged.add(given)
    return merged.options()


@dataclass(kw_only=True)
class _Layer:
    """Parsed values: ``scalars`` by keyword, ``lists`` by field and there by what identifies an item."""

    scalars: dict[str, Any] = field(default_factory=dict)
    lists: dict[str, dict[str, Any]] = field(default_factory=dict)
    explicit: set[str] = field(default_factory=set)


def _layer(keywords: Mapping[str, Any], front: Front) -> _Layer:
    layer = _Layer()
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
    if option.flag:
        if not isinstance(value, bool):
            raise OptionError(f"{_label(option, front)} {shorten(value)}: accepted: True or False")
        return value
    return _parsed(option, _text(option, value, front), front)


def _parsed(option: Option, text: str, front: Front) -> Any:
    assert option.parse is not None
    try:
        if "\0" in text and option.field != "code":
            raise ValueError("it holds a NUL character")
        return option.parse(text)
    except ValueError as error:
        raise OptionError(f"{_label(option, front)} {shorten(text)}: {error}") from None


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


def _add_items(layer: _Layer, option: Option, value: Any, front: Front) -> None:
    items = layer.lists.setdefault(option.field, {})
    for text in _texts(option, value, front):
        parsed = _parsed(option, text, front)
        if option.field == "spec.process.env":
            items.update({name: (name, content) for name, content in parsed})
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
    return str(next(getattr(item, name) for name in ("destination", "name", "path") if hasattr(item, name)))


def _refuse_contradictions(layer: _Layer, front: Front) -> None:
    scalars, dashes = layer.scalars, "" if front == "api" else "--"
    if "lang" in scalars and "interpreter" in scalars:
        raise OptionError(f"{dashes}lang and {dashes}interpreter both say what runs the code; accepted: one of them")
    if "cpuset_cpus" in scalars and _is_range(scalars.get("cpus")):
        other = "cpuset_cpus" if front == "api" else "--cpuset-cpus"
        raise OptionError(
            f"{dashes}cpus and {other} both name CPUs; accepted: one of them, or an amount for {dashes}cpus"
        )


def _is_range(cpus: Cpus | None) -> bool:
    return cpus is not None and cpus.cpuset is not None


@functools.cache
def _builtin() -> _Layer:
    layer = _Layer()
    for option in OPTIONS:
        if option.default is not None:
            layer.scalars[key_of(option)] = _scalar(option, option.default, "magic")
    return layer


@functools.cache
def _profile(name: str) -> _Layer:
    settings = PROFILES[name]
    return _layer({key: True if text == "true" else text for key, text in settings.items()}, "magic")


class _Merged(_Layer):
    """Layers over each other: a later scalar replaces an earlier one, lists grow and replace by identity."""

    def add(self, layer: _Layer, *, explicit: bool = True) -> None:
        if "cpuset_cpus" in layer.scalars and _is_range(self.scalars.get("cpus")):
            self._forget("cpus")
        for keyword in layer.scalars:
            self._forget(_ALTERNATIVES.get(keyword, ""))
        self.scalars |= layer.scalars
        for name, items in layer.lists.items():
            self.lists[name] = {**self.lists.get(name, {}), **items}
        if explicit:
            self.explicit |= layer.explicit

    def _forget(self, keyword: str) -> None:
        self.scalars.pop(keyword, None)
        self.explicit.discard(keyword)

    def options(self) -> RunOptions:
        """Return the sum as ``RunOptions``."""
        self._check_swap()
        scalars = dict(self.scalars)
        parts: dict[str, dict[str, Any]] = {name: {} for name in _PARTS}
        whole: dict[str, Any] = {}
        for option in OPTIONS:
            path = option.field.split(".")
            if path[0] == "spec" and key_of(option) in scalars:
                target = parts[path[1]] if len(path) == 3 else whole
                target[path[-1]] = scalars.pop(key_of(option))
        for name, items in self.lists.items():
            path = name.split(".")
            (parts[path[1]] if len(path) == 3 else whole)[path[-1]] = tuple(items.values())
        if "mounts" in whole:  # outer places first, as in Docker: /data must not hide /data/in
            whole["mounts"] = tuple(sorted(whole["mounts"], key=lambda mount: mount.destination.count("/")))
        self._spread_cpus(parts["resources"])
        lang = scalars.pop("interpreter", None) or scalars.pop("lang")
        parts["process"] |= _language("interpreter" in self.scalars, lang)
        spec = ContainerSpec(
            **{name: _PARTS[name](**values) for name, values in parts.items()},
            **whole,
            explicit=tuple(sorted(self.explicit)),
        )
        raise_error = not scalars.pop("no_raise_error", False)
        scalars.pop("profile", None)
        return RunOptions(spec=spec, lang=lang, raise_error=raise_error, **scalars)

    def _check_swap(self) -> None:
        memory, swap = self.scalars.get("mem"), self.scalars.get("memory_swap")
        if swap is None or (swap == -1 and memory is not None):
            return
        if memory is None:
            raise OptionError("--memory-swap is memory plus swap and means nothing without a limit; give --mem too")
        if swap < memory:
            raise OptionError(
                f"--memory-swap {format_size(swap)}: it is memory plus swap; "
                f"accepted: at least --mem, which is {format_size(memory)}, or -1"
            )

    def _spread_cpus(self, resources: dict[str, Any]) -> None:
        cpus: Cpus | None = resources.pop("cpus", None)
        if cpus is None:
            return
        if cpus.cpuset is not None:
            resources["cpuset_cpus"] = format_cpuset(cpus.cpuset)
            self.explicit.add("cpuset_cpus")
        else:
            resources["cpus"] = cpus.amount


def _language(is_path: bool, lang: str) -> dict[str, Any]:
    if lang == "python" and not is_path:
        return {}
    return {"kind": "exec", "args": (lang,), "stdin_is_code": True}
