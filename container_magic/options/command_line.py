"""From a line or an argument vector to the texts of options, by keyword: one argparse parser per front."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import field, replace
from typing import TYPE_CHECKING, Any, NoReturn

from container_magic.deferred import dataclass
from container_magic.errors import OptionError
from container_magic.options.for_kernel import why_not
from container_magic.options.near import nearest
from container_magic.options.option import Front, Option
from container_magic.options.table import OPTIONS, options_of

if TYPE_CHECKING:
    import argparse

_DASHES = "\0--"
"""Stands for ``--`` inside argparse, whose own treatment of it differs between Python 3.11 and 3.13 (gh-59317).
No argument can be this word: a NUL ends it on a command line, and every option refuses one."""

_FRONT_NAMES: dict[Front, str] = {
    "magic": "%%contain",
    "cli": "contain run",
    "api": "a Python call",
    "kernel": "contain kernel",
}


@dataclass(frozen=True, kw_only=True)
class ParsedLine:
    """Options by keyword, as text (a list where repeatable, True for a flag), and the words after the options."""

    texts: dict[str, Any] = field(default_factory=dict)
    rest: tuple[str, ...] = ()
    dashes: bool = False
    """``--`` stood before ``rest``."""
    help: bool = False


def split_line(line: str) -> list[str]:
    """Split a magic's line as a POSIX shell does.

    Raises:
        OptionError: A quote is not closed.
    """
    return list(_split(line))


@functools.lru_cache(maxsize=128)
def _split(line: str) -> list[str]:
    import shlex

    try:
        return shlex.split(line, posix=True)
    except ValueError as error:
        raise OptionError(f"the line {shorten(line)} cannot be split into words: {str(error).lower()}") from None


def parse_line(argv: Sequence[str], front: Front) -> ParsedLine:
    """Take options from ``argv`` up to the first word that is none, as Docker does; their texts are not looked at.

    Raises:
        OptionError: An option is unknown, or lacks its value.
    """
    line = _parse(tuple(argv), front)
    # a cell is run again and again with the same line: its texts are the caller's to change
    return replace(
        line, texts={key: list(text) if isinstance(text, list) else text for key, text in line.texts.items()}
    )


@functools.lru_cache(maxsize=128)
def _parse(argv: tuple[str, ...], front: Front) -> ParsedLine:
    import argparse

    words = [_DASHES if word == "--" else word for word in argv]
    try:
        found, unknown = _parser(front).parse_known_args(words)
    except argparse.ArgumentError as error:
        raise _misused(str(error.argument_name).split("/")[0], error.message, argv, front) from None
    if unknown:
        raise OptionError(_unknown(unknown[0].partition("=")[0], front))
    texts = {key: _restore(value) for key, value in vars(found).items()}
    rest = texts.pop("rest", [])
    _refuse_one_dash(argv[: len(argv) - len(rest)], front)
    dashes = vars(found).get("rest", [""])[0] == _DASHES
    return ParsedLine(texts=texts, rest=tuple(rest[dashes:]), dashes=dashes, help=texts.pop("help", False))


def _refuse_one_dash(words: Sequence[str], front: Front) -> None:
    """Refuse ``-mem 200M``, which would be ``-m em`` and an argument."""
    long_names = {name for option in options_of(front) for name in option.names if name.startswith("--")}
    for word in words:
        name = word.partition("=")[0]
        if name.startswith("-") and f"-{name}" in long_names:
            raise OptionError(f"unknown option {name}; did you mean -{name}?")


def _restore(value: Any) -> Any:
    if isinstance(value, list):
        return [_restore(item) for item in value]
    return "--" if value == _DASHES else value


@functools.cache
def _parser(front: Front) -> argparse.ArgumentParser:
    import argparse

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> NoReturn:  # argparse would print usage and exit
            raise OptionError(message)

    parser = Parser(
        prog="contain", add_help=False, allow_abbrev=False, exit_on_error=False, argument_default=argparse.SUPPRESS
    )
    for option in options_of(front):
        action = "store_true" if option.flag else "append" if option.repeatable else "store"
        parser.add_argument(*option.names_on(front), dest=key_of(option), action=action)
    if front == "cli":
        parser.add_argument("--help", action="store_true")
    # PARSER is "one word and all that follows it, options included"; nothing at all is fine too
    parser.add_argument("rest", nargs=argparse.PARSER).required = False
    return parser


def key_of(option: Option) -> str:
    """Return the key of ``option`` among texts: its keyword; ``-c CODE`` has none and goes by its field."""
    return option.keyword if option.keywords else option.field


def _misused(name: str, message: str, argv: Sequence[str], front: Front) -> OptionError:
    option = next(option for option in options_of(front) if name in option.names)
    if option.flag:
        given = message.rpartition("explicit argument ")[2]
        return OptionError(f"{option.name} {given}: it takes no value; accepted: {option.name} alone")
    such_as = f" such as {option.examples[0]}" if option.examples else ""
    following = [after for word, after in itertools.pairwise(argv) if word in option.names]
    problem = (
        f"{shorten(following[-1])} looks like an option, not like its value" if following else "its value is missing"
    )
    return OptionError(
        f"{option.name}: {problem}; accepted: {option.metavar}{such_as}, {option.name}=VALUE where VALUE begins with -"
    )


def _unknown(name: str, front: Front) -> str:
    if front == "magic" and name in ("--help", "-h"):
        return f"unknown option {name}; %%contain? shows the options"
    for option in OPTIONS:
        if name in option.names and front not in option.fronts:
            if front == "kernel":
                return why_not(name, option)
            owners = " and ".join(_FRONT_NAMES[owner] for owner in sorted(option.fronts))
            return f"{name} is not an option of {_FRONT_NAMES[front]}, only of {owners}"
    near = nearest(name, [spelling for option in options_of(front) for spelling in option.names_on(front)])
    return f"unknown option {shorten(name)}; " + (f"did you mean {near}?" if near else see_help(front))


def see_help(front: Front) -> str:
    """Return where the options of ``front`` are listed."""
    return {
        "magic": "%%contain? shows all",
        "cli": "contain run --help shows all",
        "api": "see docs/options.md",
        "kernel": "contain kernel install --help shows all",
    }[front]


def shorten(value: object) -> str:
    """Return ``value`` as a message shows it: one line, at most 80 characters."""
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:60]}...{shown[-15:]}"
