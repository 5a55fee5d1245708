"""What a run executes: a command, or code with a name and arguments."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from container_magic.errors import OptionError
from container_magic.languages import LANGUAGES
from container_magic.options.command_line import shorten
from container_magic.remembered import by_identity
from container_magic.spec import ContainerSpec, ShellName

SNAPSHOT_SECONDS = 60.0
"""How long a snapshot runs when nothing is said about it."""


def for_command(spec: ContainerSpec, args: Sequence[str]) -> ContainerSpec:
    """Return ``spec`` with ``args`` as the program that is executed.

    Raises:
        OptionError: ``args`` is empty or holds a NUL, or a language was asked for as well.
    """
    for name in ("lang", "interpreter"):
        if name in spec.explicit:
            raise OptionError(f"--{name} says what reads code, and a command is no code; accepted: one of them")
    if not args or not args[0]:
        raise OptionError("the command is empty; accepted: COMMAND ARG...")
    process = dataclasses.replace(spec.process, kind="exec", args=_arguments(args), stdin_is_code=False, preload=())
    return dataclasses.replace(spec, process=process)


def for_code(spec: ContainerSpec, name: str, args: Sequence[str]) -> ContainerSpec:
    """Return ``spec`` for code that is called ``name`` and gets ``args``: ``sys.argv`` of Python, ``$1`` of a shell.

    Raises:
        OptionError: Another interpreter, whose way to take arguments is not known, would get some.
    """
    process = spec.process
    if process.kind == "python":
        args_of_process = _arguments([name, *args])
    elif not args:
        return spec
    elif process.args[0] in LANGUAGES:
        args_of_process = (process.args[0], *LANGUAGES[process.args[0]].takes, *_arguments(args))
    else:
        raise OptionError(
            f"the argument {shorten(args[0])} cannot be passed: {process.args[0]} reads the code as standard input; "
            f"accepted: no argument, or -- COMMAND ARG..."
        )
    return dataclasses.replace(spec, process=dataclasses.replace(process, args=args_of_process))


@by_identity
def for_shell(spec: ContainerSpec, shell: ShellName) -> ContainerSpec:
    """Return ``spec`` with ``shell`` as what runs Python source; other programs run as they are."""
    if spec.process.kind != "python":
        return spec
    return dataclasses.replace(spec, process=dataclasses.replace(spec.process, shell=shell))


def for_snapshot(spec: ContainerSpec) -> ContainerSpec:
    """Return ``spec`` for the caller's own shell; a hang, which a fork of threads may always be, ends by a time-out."""
    spec = for_shell(spec, "live")
    if "timeout" in spec.explicit:
        return spec
    return dataclasses.replace(spec, watch=dataclasses.replace(spec.watch, wall_seconds=SNAPSHOT_SECONDS))


def _arguments(args: Sequence[str]) -> tuple[str, ...]:
    for word in args:
        if "\0" in word:
            raise OptionError(f"the argument {shorten(word)} holds a NUL character; accepted: text without one")
    return tuple(args)
