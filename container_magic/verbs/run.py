"""``run``: code or a command in a fresh container."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from container_magic.events import Event, until_exited
from container_magic.options import for_command, for_shell, from_keywords
from container_magic.plan import Plan
from container_magic.report import ReportBuilder, RunReport
from container_magic.runtime.run import Run, RunRequest, plan_for
from container_magic.spec import ContainerSpec, ShellName

__all__ = ["Run", "RunRequest", "dry_run", "open_run", "request_for", "run", "stream"]


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


def run(source: str | bytes | Sequence[str | os.PathLike[str]], **options: Any) -> RunReport:
    """Run Python source (or, given a list, a command) in a fresh container and return its report.

    Args:
        source: Source text, or the words of a command.
        **options: The options of a run, keyword = long option with ``_``: ``mem="200M"``, ``cpus="0-1"``.

    Raises:
        OptionError: An option is unknown or malformed; nothing was started.
        HostError: This host cannot do what was asked; nothing was started.
        InternalError: The sandbox broke before the code ran.
    """
    builder = ReportBuilder()
    with open_run(request_for(source, options, "plain")) as running:
        for event in until_exited(running):
            builder.add(event)
    return builder.report()


def stream(source: str | bytes | Sequence[str | os.PathLike[str]], **options: Any) -> Iterator[Event]:
    """Run as ``run`` does and yield the events as they happen; closing the iterator ends the container."""
    request = request_for(source, options, "plain")
    return _events(request)


def _events(request: RunRequest) -> Iterator[Event]:
    with open_run(request) as running:
        yield from running


def request_for(
    source: str | bytes | Sequence[str | os.PathLike[str]], options: Mapping[str, Any], shell: ShellName = "script"
) -> RunRequest:
    """Return the request for a run with these arguments; ``shell`` is what runs Python source.

    Raises:
        OptionError: An option is unknown or malformed.
    """
    chosen = from_keywords(options)
    if isinstance(source, (str, bytes)):
        code = source.encode("utf-8", errors="surrogatepass") if isinstance(source, str) else source
        return RunRequest(
            spec=for_shell(chosen.spec, shell),
            code=code,
            warm=chosen.warm,
            html=chosen.html,
            out_files=chosen.out_files,
        )
    spec = for_command(chosen.spec, [os.fspath(word) for word in source])
    return RunRequest(spec=spec, code=None, warm=chosen.warm, out_files=chosen.out_files)
