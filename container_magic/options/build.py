"""From texts and keywords to ``RunOptions``: built-in defaults < session < what was given, each over its profile."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any, Literal

from container_magic.deferred import dataclass
from container_magic.errors import OptionError
from container_magic.languages import LANGUAGES
from container_magic.options.command_line import key_of, parse_line, see_help, shorten
from container_magic.options.for_kernel import default_of
from container_magic.options.layers import Layer, is_range, layer_of
from container_magic.options.limits import check_high
from container_magic.options.option import Front
from container_magic.options.profiles import PROFILES
from container_magic.options.table import OPTIONS
from container_magic.spec import ContainerSpec, Process, Resources, Root, Watch
from container_magic.units import Cpus, format_cpuset, format_size

_PARTS = {"process": Process, "root": Root, "resources": Resources, "watch": Watch}
_OWN_FIELDS = (
    "warm",
    "html",
    "session",
    "snapshot",
    "result",
    "report",
    "quiet",
    "dry_run",
    "report_file",
    "code",
    "allow_widgets",
)
_OWN_LISTS = ("inputs", "outputs", "out_files")
_NOT_IN_A_SNAPSHOT = ("session", "lang", "interpreter", "preload", "input")
_ALTERNATIVES = {"lang": "interpreter", "interpreter": "lang", "stdin": "stdin_file", "stdin_file": "stdin"}


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Everything that was said about one run: what is asked of the container, and what is done with its report."""

    spec: ContainerSpec
    lang: str = "python"
    """``python``, one of ``LANGUAGES``, or the path that ``--interpreter`` named."""
    warm: int = 0
    """Containers like this one that wait for the next run."""
    html: Literal["text", "safe", "iframe"] = "safe"
    session: str | None = None
    """Name of the session whose next cell it is."""
    snapshot: bool = False
    """Whether it runs on a copy of the caller's own process."""
    result: str | None = None
    report: str = "line"
    raise_error: bool = True
    quiet: bool = False
    dry_run: bool = False
    report_file: str | None = None
    out_files: tuple[str, ...] = ()
    """Globs, each relative to the working directory inside or absolute."""
    inputs: tuple[str, ...] = ()
    """Names of the variables that the code is given."""
    outputs: tuple[str, ...] = ()
    """Names of the variables that are wanted of it."""
    code: str | None = None
    """What ``-c`` said on the command line."""
    allow_widgets: bool = False
    """Whether the standard widgets of a kernel may talk to the page."""
    stdin: bytes | None = field(default=None, repr=False)
    """What the code reads on standard input; None = nothing was said of it."""


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
    if _is_plain(keywords) and (not defaults or _is_plain(defaults)):
        return _remembered(front, _items(keywords), _items(defaults) if defaults else _NONE)
    return _from_keywords(keywords, defaults or {}, front)


_NOT_REMEMBERED = frozenset(
    keyword
    for option in OPTIONS
    if option.repeatable or option.field in ("stdin", "spec.work")
    for keyword in option.keywords
)
_PLAIN = frozenset((str, int, float, bool, type(None)))
_Items = tuple[tuple[tuple[str, Any], ...], tuple[type, ...]]
_NONE: _Items = ((), ())


def _is_plain(keywords: Mapping[str, Any]) -> bool:
    """Whether the same keywords mean the same whenever they are said: no path, no variable of the caller's, no data."""
    return _NOT_REMEMBERED.isdisjoint(keywords) and _PLAIN.issuperset(map(type, keywords.values()))


def _items(keywords: Mapping[str, Any]) -> _Items:
    return tuple(keywords.items()), tuple(map(type, keywords.values()))  # the types, because 1 == True


@functools.lru_cache(maxsize=128)
def _remembered(front: Front, keywords: _Items, defaults: _Items) -> RunOptions:
    return _from_keywords(dict(keywords[0]), dict(defaults[0]), front)


def _from_keywords(keywords: Mapping[str, Any], defaults: Mapping[str, Any], front: Front) -> RunOptions:
    given, session = layer_of(keywords, front), layer_of(defaults, front)
    merged = _Merged()
    merged.add(_builtin(front), explicit=False)
    # a profile named on the line is a wish of the line: the session's `--net host` must not undo `--profile strict`
    if "profile" in given.scalars:
        session.scalars.pop("profile", None)
    for layer in (session, given):
        if "profile" in layer.scalars:
            merged.add(_profile(layer.scalars["profile"]))
        merged.add(layer)
    return merged.options()


@functools.cache
def _builtin(front: Front) -> Layer:
    defaults = {key_of(option): default_of(option, front) for option in OPTIONS if option.default is not None}
    return layer_of(defaults, "magic")


@functools.cache
def _profile(name: str) -> Layer:
    settings = PROFILES[name]
    return layer_of({key: True if text == "true" else text for key, text in settings.items()}, "magic")


class _Merged(Layer):
    """Layers over each other: a later scalar replaces an earlier one, lists grow and replace by identity."""

    def add(self, layer: Layer, *, explicit: bool = True) -> None:
        if "cpuset_cpus" in layer.scalars and is_range(self.scalars.get("cpus")):
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
        if "mem" in self.scalars:  # else the planner knows what it is
            check_high(self.scalars.get("mem_high"), self.scalars["mem"])
        self._check_stdin()
        self._check_snapshot()
        parts, whole = self._fields()
        self._spread_cpus(parts["resources"])
        is_path = "interpreter" in self.scalars
        lang = self.scalars["interpreter" if is_path else "lang"]
        if self.scalars.get("report") == "full":
            parts["root"]["list_changes"] = True
        parts["process"] |= _language(is_path, lang)
        spec = ContainerSpec(
            **{name: _PARTS[name](**values) for name, values in parts.items()},
            **whole,
            explicit=tuple(sorted(self.explicit)),
        )
        raise_error = not self.scalars.get("no_raise_error", False)
        own = {name: self.scalars[name] for name in _OWN_FIELDS if name in self.scalars}
        own |= {name: tuple(self.lists.get(name, {})) for name in _OWN_LISTS}
        stdin = self.scalars.get("stdin", self.scalars.get("stdin_file"))
        return RunOptions(spec=spec, lang=lang, raise_error=raise_error, stdin=stdin, **own)

    def _fields(self) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
        """Return what goes into the parts of the spec, by part, and into the spec itself."""
        parts: dict[str, dict[str, Any]] = {name: {} for name in _PARTS}
        whole: dict[str, Any] = {}
        values = {option.field: self.scalars[key_of(option)] for option in OPTIONS if key_of(option) in self.scalars}
        values |= {name: tuple(items.values()) for name, items in self.lists.items()}
        for name, value in values.items():
            path = name.split(".")
            if path[0] == "spec":
                (parts[path[1]] if len(path) == 3 else whole)[path[-1]] = value
        if "mounts" in whole:  # outer places first, as in Docker: /data must not hide /data/in
            whole["mounts"] = tuple(sorted(whole["mounts"], key=lambda mount: mount.destination.count("/")))
        return parts, whole

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

    def _check_stdin(self) -> None:
        name = next(
            (option.name for option in OPTIONS if option.field == "stdin" and key_of(option) in self.scalars), ""
        )
        if not name:
            return
        if "session" in self.scalars:
            raise OptionError(
                f"{name} is for one run, and a session's cells ask for their input; accepted: one of them"
            )
        program = self.scalars["interpreter" if "interpreter" in self.scalars else "lang"]
        if program != "python":
            raise OptionError(
                f"{name} cannot reach the code: {program} reads the code itself as standard input; "
                f"accepted: python, or a command"
            )

    def _check_snapshot(self) -> None:
        if not self.scalars.get("snapshot"):
            return
        for keyword in _NOT_IN_A_SNAPSHOT:
            if keyword in self.explicit:
                raise OptionError(
                    f"--snapshot is a copy of the notebook's process and everything in it: "
                    f"--{keyword} contradicts that; accepted: one of them"
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
    args = (lang,) if is_path else (lang, *LANGUAGES[lang].reads)
    return {"kind": "exec", "args": args, "stdin_is_code": True, "preload": ()}
