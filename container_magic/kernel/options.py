"""The words behind ``contain kernel start``: ours up to the connection file, ipykernel's behind it."""

from __future__ import annotations

from collections.abc import Sequence

from container_magic.deferred import dataclass
from container_magic.errors import OptionError
from container_magic.options import RunOptions, from_argv
from container_magic.options.command_line import shorten
from container_magic.sanitize.bundle import HtmlMode
from container_magic.spec import ContainerSpec
from container_magic.verbs.sessions import session_spec

CONNECTION_FILE_NAMES = ("-f", "--connection-file", "--f")
"""Spellings of the option that ends our words; VS Code writes ``--f=FILE`` where a kernelspec has ``-f FILE``."""


@dataclass(frozen=True, kw_only=True)
class KernelOptions:
    """Everything that was said about one kernel."""

    spec: ContainerSpec
    """The session that the kernel lives in; ``process.shell`` is the launcher's to choose."""
    html: HtmlMode
    report: str
    """``none``, ``line`` or ``full``: what stands below the output of each cell."""
    allow_widgets: bool
    """Whether the standard widgets may talk to the page; without it comms are dropped."""
    connection_file: str
    arguments: tuple[str, ...] = ()
    """What stands behind the connection file: ipykernel's own."""


def parse_kernel(words: Sequence[str]) -> KernelOptions:
    """Return what ``contain kernel start WORDS`` asks for.

    Raises:
        OptionError: An option is unknown, malformed or none of a kernel, or there is no connection file.
    """
    ours, connection_file, arguments = _split(words)
    asked = check_words(ours)
    return KernelOptions(
        spec=session_spec(asked.spec),
        html=asked.html,
        report=asked.report,
        allow_widgets=asked.allow_widgets,
        connection_file=connection_file,
        arguments=arguments,
    )


def check_words(words: Sequence[str]) -> RunOptions:
    """Return what ``words`` ask of a kernel; they stand before the connection file.

    Raises:
        OptionError: An option is unknown, malformed or none of a kernel, or a word is no option.
    """
    for word in words:
        if word.partition("=")[0] in CONNECTION_FILE_NAMES:
            raise OptionError(f"{word} is what Jupyter gives a kernel when it starts; accepted: options of a run")
    return from_argv(words, "kernel")


def _split(words: Sequence[str]) -> tuple[list[str], str, tuple[str, ...]]:
    """Return our words, the connection file and ipykernel's words."""
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name not in CONNECTION_FILE_NAMES:
            continue
        behind = list(words[place + 1 :])
        if not equals:
            value = behind.pop(0) if behind else ""
        if not value:
            raise OptionError(f"{name}: its value is missing; accepted: {name} FILE, the connection file of a kernel")
        _refuse_another(behind)
        return list(words[:place]), value, tuple(behind)
    raise OptionError(
        "no connection file: Jupyter gives it when it starts a kernel; accepted: [OPTIONS] -f FILE",
        hint="contain kernel install makes a kernel that Jupyter can start",
    )


def _refuse_another(arguments: Sequence[str]) -> None:
    for word in arguments:
        if word.partition("=")[0] in (*CONNECTION_FILE_NAMES, "--IPKernelApp.connection_file"):
            raise OptionError(f"{shorten(word)}: a second connection file; accepted: one, behind the options of a run")
