"""``run``: code or a command in a fresh container."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from container_magic.errors import OptionError
from container_magic.events import Event, until_exited
from container_magic.folding import ReportBuilder
from container_magic.forks import importing
from container_magic.options import for_command, for_shell, from_keywords
from container_magic.plan import Plan
from container_magic.report import RunReport
from container_magic.runtime.plans import plan_for
from container_magic.runtime.request import RunRequest
from container_magic.runtime.run import Run
from container_magic.spec import ContainerSpec, ShellName

if TYPE_CHECKING:
    from container_magic.runtime.variables import Variables

__all__ = ["Run", "RunRequest", "code_of", "dry_run", "open_run", "request_for", "run", "stream", "variables_for"]


def open_run(request: RunRequest) -> Run:
    """Start a container and return it as an iterator of events.

    Raises:
        ContainError: It cannot be made; nothing is left of it.
    """
    return Run(request)


def dry_run(spec: ContainerSpec) -> Plan:
    """Return what would be done for ``spec``, starting nothing.

    Raises:
        ContainError: It could not be done.
    """
    return plan_for(spec)


def run(
    source: str | bytes | Sequence[str | os.PathLike[str]],
    *,
    input: Mapping[str, Any] | None = None,
    **options: Any,
) -> RunReport:
    """Run Python source (or, given a list, a command) in a fresh container and return its report.

    Args:
        source: Source text, or the words of a command.
        input: Variables that the source is given, by name; it gets copies.
        **options: The options of a run, keyword = long option with ``_``: ``mem="200M"``, ``cpus="0-1"``. With
            ``output=["x"]`` the source's variable ``x`` is in ``report.values``. ``stdin`` may be bytes too, or a path
            object, which stands for what the file holds.

    Raises:
        OptionError: An option is unknown or malformed; nothing was started.
        HostError: This host cannot do what was asked; nothing was started.
        InternalError: The sandbox broke before the code ran.
    """
    with open_run(request_for(source, options, "plain", given=input)) as running:
        builder = ReportBuilder()  # now that the code is under way
        for event in until_exited(running):
            builder.add(event)
    return builder.report()


def stream(
    source: str | bytes | Sequence[str | os.PathLike[str]],
    *,
    input: Mapping[str, Any] | None = None,
    **options: Any,
) -> Iterator[Event]:
    """Run as ``run`` does and yield the events as they happen; closing the iterator ends the container."""
    request = request_for(source, options, "plain", given=input)
    return _events(request)


def _events(request: RunRequest) -> Iterator[Event]:
    with open_run(request) as running:
        yield from running


def request_for(
    source: str | bytes | Sequence[str | os.PathLike[str]],
    options: Mapping[str, Any],
    shell: ShellName = "script",
    given: Mapping[str, Any] | None = None,
) -> RunRequest:
    """Return the request for a run with these arguments; ``shell`` runs Python source, with ``given`` variables.

    Raises:
        OptionError: An option is unknown or malformed.
    """
    chosen = from_keywords(options)
    code: bytes | None = None
    if isinstance(source, (str, bytes)):
        code = code_of(source)
        spec = for_shell(chosen.spec, shell)
    else:
        spec = for_command(chosen.spec, _words_of(source))
    return RunRequest(
        spec=spec,
        code=code,
        stdin=chosen.stdin,
        warm=chosen.warm,
        html=chosen.html,
        out_files=chosen.out_files,
        variables=variables_for(spec, given, chosen.outputs),
    )


def code_of(source: str | bytes) -> bytes:
    """Return source as the interpreter reads it.

    Raises:
        OptionError: It is neither text nor bytes.
    """
    if isinstance(source, str):
        return source.encode("utf-8", errors="surrogatepass")
    if isinstance(source, bytes):
        return source
    raise OptionError(f"source: accepted: text or bytes; not {type(source).__name__}")


def _words_of(source: Sequence[str | os.PathLike[str]]) -> list[str]:
    if not isinstance(source, Sequence):
        raise OptionError(
            f"source: accepted: Python source, or the words of a command as a list; not {type(source).__name__}"
        )
    return [_word_of(word) for word in source]


def _word_of(word: str | os.PathLike[str]) -> str:
    text = os.fspath(word) if isinstance(word, (str, os.PathLike)) else None
    if not isinstance(text, str):
        raise OptionError(
            f"source: the word {word!r} of the command: accepted: text or a path; not {type(word).__name__}"
        )
    return text


def variables_for(
    spec: ContainerSpec, given: Mapping[str, Any] | None, wanted: Sequence[str], names: Sequence[str] | None = None
) -> Variables | None:
    """Return what code is given, ``names`` of ``given`` or all, and what is wanted of it; None when that is nothing.

    Raises:
        OptionError: ``given`` is no mapping, a name is not defined, a value cannot be pickled, or what runs is not
            Python.
    """
    if given is not None and not isinstance(given, Mapping):
        raise OptionError(
            f"input: accepted: a mapping of names to values, such as {{'df': df}}; not {type(given).__name__}"
        )
    given = given or {}
    names = list(given) if names is None else names
    if not names and not wanted:
        return None
    with importing:  # what most runs do without is not loaded for them
        from container_magic.runtime.variables import Variables

    return Variables(spec, names, given, wanted)
