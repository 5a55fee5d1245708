"""``contain kernel WORD``: what each word takes, and what it says."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from container_magic.deferred import dataclass
from container_magic.errors import ContainError, OptionError
from container_magic.options import help_text, parse_line
from container_magic.options.command_line import shorten
from container_magic.options.near import nearest
from container_magic.options.portable import portable_words
from container_magic.shell_completion import KernelWord

if TYPE_CHECKING:
    from container_magic.kernel.kernelspec import InstalledKernel

DEFAULT_NAME = "container"
DEFAULT_DISPLAY_NAME = "Python 3 (container)"
_PLAIN_NAMES = (DEFAULT_NAME, "python3")

INSTALL_WORDS = (
    "--name", "--display-name", "--user", "--sys-prefix", "--prefix", "--dir", "--system", "--replace",
)  # fmt: skip
"""The options of ``install`` that are none of the kernel, for completion."""
_WITH_VALUE = ("--name", "--display-name", "--prefix", "--dir")
_PLACES = ("--user", "--sys-prefix", "--prefix", "--dir", "--system")

_HELP = """\
usage: contain kernel install [OPTIONS]   make a kernel that runs in a container
       contain kernel list                show the kernels that were made so
       contain kernel remove NAME         remove one
       contain kernel start OPTIONS -f FILE
                                          what Jupyter runs to start one

contain kernel WORD --help says more.
"""
_INSTALL_HELP = """\
usage: contain kernel install [--name NAME] [--display-name TEXT] [PLACE] [--replace] [OPTIONS]

Make a kernel that Jupyter, VS Code, papermill and nbconvert list and start as any other. Everything that its notebooks
run is in a container with these options: one container from start to shutdown, limits over all of its cells.

  --name NAME           the kernel's name ({name}); python3 takes the place of the usual kernel
  --display-name TEXT   what front ends show; default: {display_name}, or NAME where another is given
  --replace             also replace a kernel of this name at this place that contain did not make

Place, one of:
  --user                this user's kernels (the default); --user with a value is the user inside, see below
  --sys-prefix          the environment that contain is installed in
  --prefix DIR          DIR/share/jupyter/kernels
  --dir DIR             DIR itself, which has to be a kernels directory below an entry of JUPYTER_PATH
  --system              all users of this host

Relative paths are made absolute. -e NAME takes the variable's value when the kernel starts; -e NAME=VALUE is
written into kernel.json, where others may read it.

{options}"""
_LIST_HELP = """\
usage: contain kernel list [--format json]

Show the kernels that contain kernel install has made, wherever Jupyter looks for kernels, in its order; of two with the
same name Jupyter takes the first.

  --format json   the same as JSON
"""
_REMOVE_HELP = """\
usage: contain kernel remove NAME

Remove a kernel that contain kernel install has made; the first one where there are several of this name.
"""
_START_HELP = """\
usage: contain kernel start [OPTIONS] -f FILE [ARG...]

Start a kernel in a container and relay between it and the clients of the connection file FILE, until it ends. Jupyter
does this; what stands behind FILE is handed to ipykernel.

{options}"""


@dataclass(frozen=True, kw_only=True)
class _InstallWords:
    """The words of ``install``: those about the kernelspec, and the others."""

    values: dict[str, str]
    flags: tuple[str, ...]
    rest: tuple[str, ...]


def kernel(words: Sequence[str]) -> str:
    """Return what ``contain kernel WORDS`` has to say, ``start`` says its help only.

    Raises:
        ContainError: The words are none, or it cannot be done.
    """
    if not words or words[0] in ("--help", "-h", "help"):
        return _HELP
    if words[0] not in ANSWERS:
        near = nearest(words[0], list(ANSWERS))
        more = f"did you mean contain kernel {near}?" if near else f"accepted: {', '.join(ANSWERS)}"
        raise OptionError(f"unknown word {shorten(words[0])} behind kernel; {more}")
    return ANSWERS[words[0]](words[1:])


def completions() -> dict[str, KernelWord]:
    """Return what may stand behind ``kernel``, for Tab in a shell."""
    from container_magic.kernel.kernelspec import list_kernels

    own = tuple(word for word in INSTALL_WORDS if word != "--user")  # an option of the kernel has this spelling too
    return {
        "install": KernelWord(words=own, options=True),
        "list": KernelWord(words=("--format",)),
        "remove": KernelWord(names=lambda: [one.name for one in list_kernels()]),
        "start": KernelWord(options=True),
    }


def start(words: Sequence[str]) -> int:
    """Start a kernel as ``words`` say and return the launcher's exit code when it has ended."""
    from container_magic.kernel.launcher import main

    return main(words)


def _install(words: Sequence[str]) -> str:
    if "--help" in words:
        return _INSTALL_HELP.format(name=DEFAULT_NAME, display_name=DEFAULT_DISPLAY_NAME, options=help_text("kernel"))
    from container_magic.kernel import kernelspec
    from container_magic.kernel.options import check_words

    own = _own_words(words)
    check_words(own.rest)
    rest = tuple(portable_words(parse_line(own.rest, "kernel").texts, "kernel"))
    name = own.values.get("--name", DEFAULT_NAME).lower()
    shown = own.values.get("--display-name") or (DEFAULT_DISPLAY_NAME if name in _PLAIN_NAMES else name)
    directory, notes = kernelspec.install(
        kernelspec.Installation(
            name=name,
            display_name=shown,
            kernels_directory=_place(own),
            words=rest,
            replace="--replace" in own.flags,
        )
    )
    lines = [f"installed the kernel {name} ({shown}) in {directory}", *notes]
    if (error := kernelspec.unenforceable(rest)) is not None:
        lines += _would_not_start(error)
    return "".join(f"{line}\n" for line in lines)


def _would_not_start(error: ContainError) -> list[str]:
    hint = [f"hint: {error.hint}"] if error.hint else []
    return [f"warning: on this host it would not start: {error.message}", *hint]


def _own_words(words: Sequence[str]) -> _InstallWords:
    """Take out the words that say what the kernelspec is called and where it goes."""
    values: dict[str, str] = {}
    flags: list[str] = []
    rest: list[str] = []
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        name, equals, value = word.partition("=")
        if name == "--user" and (equals or (waiting and not waiting[0].startswith("-"))):
            rest += [word] if equals else [word, waiting.pop(0)]  # the user inside, Docker's meaning
        elif name in _WITH_VALUE:
            if name in values:
                raise OptionError(f"{name} is given twice; accepted: once")
            if not equals:
                value = waiting.pop(0) if waiting and not waiting[0].startswith("-") else ""
            if not value:
                raise OptionError(f"{name}: its value is missing; accepted: {name} VALUE")
            values[name] = value
        elif name in INSTALL_WORDS:
            if equals:
                raise OptionError(f"{name} {value!r}: it takes no value; accepted: {name} alone")
            flags.append(name)
        else:
            rest.append(word)
    return _InstallWords(values=values, flags=tuple(flags), rest=tuple(rest))


def _place(own: _InstallWords) -> str:
    from container_magic.kernel.kernelspec import directory_of

    said = [name for name in _PLACES if name in own.flags or name in own.values]
    if len(said) > 1:
        raise OptionError(f"{' and '.join(said)} both say where the kernel goes; accepted: one of them")
    place = said[0] if said else "--user"
    if place == "--sys-prefix":
        return directory_of("prefix", sys.prefix)
    return directory_of(place[2:], own.values.get(place, ""))


def _list(words: Sequence[str]) -> str:
    if "--help" in words:
        return _LIST_HELP
    said = " ".join(words).replace("=", " ")
    if said not in ("", "--format json"):
        raise OptionError(f"contain kernel list does not take {' '.join(words)!r}; accepted: --format json")
    from container_magic.kernel.kernelspec import list_kernels

    return (_as_json(list_kernels()) if said else _as_text(list_kernels())) + "\n"


def _as_json(kernels: Sequence[InstalledKernel]) -> str:
    import json

    return json.dumps([dataclasses.asdict(kernel) for kernel in kernels], indent=2)


def _as_text(kernels: Sequence[InstalledKernel]) -> str:
    import shlex

    from container_magic.display.tables import columns

    if not kernels:
        return "no kernels; contain kernel install makes one"
    rows = []
    for one in kernels:
        notes = [f"shadowed by {one.shadowed_by}" if one.shadowed_by else "", one.problem]
        marked = "; ".join(filter(None, notes))
        options = shlex.join(one.options) or "-"
        rows.append((one.name, one.display_name, options, one.directory + (f"  ({marked})" if marked else "")))
    return columns(("NAME", "DISPLAY NAME", "OPTIONS", "DIRECTORY"), rows)


def _remove(words: Sequence[str]) -> str:
    if "--help" in words:
        return _REMOVE_HELP
    if len(words) != 1 or words[0].startswith("-"):
        raise OptionError("which kernel is to be removed? accepted: contain kernel remove NAME")
    from container_magic.kernel.kernelspec import remove

    directory, instead = remove(words[0])
    return f"removed {directory}\n" + (f"{words[0]} is now {instead}\n" if instead else "")


def _start(words: Sequence[str]) -> str:
    if "--help" in words:
        return _START_HELP.format(options=help_text("kernel"))
    raise OptionError("a kernel is started by Jupyter, or by contain kernel start on the command line")


ANSWERS: dict[str, Callable[[Sequence[str]], str]] = {
    "install": _install,
    "list": _list,
    "remove": _remove,
    "start": _start,
}
"""What the words do, in order of use."""
