"""Tab for ``contain`` in bash, zsh and fish, by argcomplete: the shell asks ``contain`` itself what may follow.

https://kislyuk.github.io/argcomplete/ has the protocol between the two.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from container_magic.deferred import dataclass
from container_magic.errors import HostError, OptionError
from container_magic.options import options_of
from container_magic.options.completion import paths, value_words
from container_magic.options.near import nearest
from container_magic.options.option import Front, Option

SHELLS = ("bash", "zsh", "fish")
_DIRECTORIES = ("--prefix", "--dir")


def shell_script(shell: str) -> str:
    """Return what ``eval "$(contain --completion SHELL)"`` wants.

    Raises:
        OptionError: ``shell`` is none of ``SHELLS``.
        HostError: argcomplete is not installed.
    """
    if shell not in SHELLS:
        near = nearest(shell, SHELLS)
        more = f"; did you mean {near}?" if near else ""
        raise OptionError(f"--completion {shell!r}: accepted: {', '.join(SHELLS)}{more}")
    script: str = _argcomplete().shellcode(["contain"], shell=shell)
    return script


Names = Callable[[], Iterable[str]]


@dataclass(frozen=True, kw_only=True)
class KernelWord:
    """A word behind ``kernel``: its own options, whether it takes those of a kernel too, and names it can be given."""

    words: tuple[str, ...] = ()
    options: bool = False
    names: Names | None = None


def answer(
    verbs: Mapping[str, tuple[str, ...]],
    names: Mapping[str, Names],
    kernel_words: Mapping[str, KernelWord] | None = None,
) -> None:
    """Tell the shell what may stand at its cursor, and end the process.

    Args:
        verbs: The verbs, and the words that each but ``run`` takes.
        names: What gives the containers that a verb can name, by verb.
        kernel_words: What may stand behind ``kernel``.

    Raises:
        HostError: argcomplete is not installed.
    """
    argcomplete = _argcomplete()
    parser = argparse.ArgumentParser(prog="contain", add_help=False, allow_abbrev=False)
    for name in ("--help", "--version"):
        parser.add_argument(name, action="store_true")
    parser.add_argument("--completion", choices=SHELLS)
    found = parser.add_subparsers()
    for verb, words in verbs.items():
        below = _add(found, verb, words)
        if verb == "run":
            _add_options(below, "cli")
            _with(below.add_argument("rest", nargs="*"), argcomplete.FilesCompleter())
        elif verb == "kernel":
            _add_kernel(below, kernel_words or {})
        elif verb in names:
            _with(below.add_argument("id", nargs="?"), _listing(names[verb]))
    argcomplete.autocomplete(parser, always_complete_options="long")


def _add(found: Any, verb: str, words: Iterable[str]) -> argparse.ArgumentParser:
    below: argparse.ArgumentParser = found.add_parser(verb, add_help=False, allow_abbrev=False)
    below.add_argument("--help", action="store_true")
    for word in words:
        if word == "--format":
            below.add_argument(word, choices=("json",))
        elif word in _DIRECTORIES:
            _with(below.add_argument(word), lambda prefix, **_: paths(prefix))
        else:
            below.add_argument(word, action="store_true")
    return below


def _add_options(parser: argparse.ArgumentParser, front: Front) -> None:
    for option in options_of(front):
        action = parser.add_argument(*option.names_on(front), action="store_true" if option.flag else "append")
        if not option.flag:
            _with(action, _completer(option))


def _add_kernel(parser: argparse.ArgumentParser, words: Mapping[str, KernelWord]) -> None:
    found = parser.add_subparsers()
    for name, word in words.items():
        below = _add(found, name, word.words)
        if word.options:
            _add_options(below, "kernel")
        if word.names is not None:
            names = word.names
            _with(below.add_argument("name", nargs="?"), lambda names=names, **_: list(names()))


def _completer(option: Option) -> Callable[..., list[str]]:
    return lambda prefix, **_: value_words(option, prefix)


def _listing(names: Names) -> Callable[..., list[str]]:
    return lambda **_: list(names())


def _with(action: argparse.Action, completer: Any) -> None:
    action.completer = completer  # type: ignore[attr-defined]  # where argcomplete looks for it


def _argcomplete() -> Any:
    try:
        import argcomplete
    except ImportError:
        raise HostError(
            "completion in a shell needs argcomplete, which is not installed here",
            hint="pip install 'container-magic[completion]'",
        ) from None
    return argcomplete
