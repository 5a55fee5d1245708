"""The kernels that Jupyter finds: kernelspecs whose command is the isolating launcher itself.

A front end that knows nothing but ``argv`` (VS Code starts kernels itself) must start nothing unisolated, so no part
of the isolation lies in a provisioner or in the front end. https://jupyter-client.readthedocs.io/en/stable/kernels.html
has the format.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from container_magic.deferred import dataclass
from container_magic.errors import ContainError, HostError, NotFoundError, OptionError
from container_magic.options.command_line import shorten

if TYPE_CHECKING:
    from jupyter_client.kernelspec import KernelSpecManager

MARK = "container_magic"
"""Key of ``metadata`` by which our kernelspecs are known."""

_START = ["kernel", "start"]
_FILE = ["-f", "{connection_file}"]
_LOGOS = Path(__file__).with_name("logos")
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_TEMPLATE = re.compile(r"\{[A-Za-z0-9_]+\}")


@dataclass(frozen=True, kw_only=True)
class Installation:
    """What ``contain kernel install`` is to write, and where."""

    name: str
    display_name: str
    kernels_directory: str
    """The directory of kernelspecs, in which ``name`` becomes one of several."""
    words: tuple[str, ...] = ()
    """Checked options of the kernel, as ``portable_words`` spells them."""
    replace: bool = False
    """Whether a kernelspec there that is not ours may be replaced."""


@dataclass(frozen=True, kw_only=True)
class InstalledKernel:
    """One of our kernelspecs, as ``contain kernel list`` shows it."""

    name: str
    display_name: str
    options: tuple[str, ...]
    directory: str
    shadowed_by: str = ""
    """The directory of the kernelspec that Jupyter takes instead."""
    problem: str = ""
    """Why it does not start, or starts something else; empty = nothing is known."""


def launcher_command() -> list[str]:
    """Return the words that start ``contain`` of this environment, from any directory.

    The script is preferred: what front ends do to a ``python -m`` (another interpreter, an activated environment)
    would leave out the isolation. Without it, ``-P`` keeps the notebook's directory off the module path, where a file
    called json.py would run outside of any container.
    """
    script = os.path.join(os.path.dirname(os.path.abspath(sys.executable)), "contain")
    return [script] if _is_our_script(script) else [os.path.abspath(sys.executable), "-P", "-m", "container_magic"]


def own_words_of(argv: Sequence[str]) -> int:
    """Return how many words of ``argv`` stand before the options when it starts a kernel of ours; 0 = it does not."""
    module = [*argv[:1], "-P", "-m", MARK, *_START]
    if list(argv[: len(module)]) == module:
        return len(module)
    return 3 if list(argv[1:3]) == _START and _is_our_script(argv[0]) else 0


def _is_our_script(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return b"container_magic" in file.read(4096) and os.access(path, os.X_OK)
    except OSError:
        return False


def install(asked: Installation) -> tuple[str, tuple[str, ...]]:
    """Write the kernelspec; return its directory and what its user has to know of it, a sentence each.

    Raises:
        OptionError: The name is none, an option cannot be written down, or another kernel is in the way.
        HostError: It cannot be written.
    """
    _check(asked)
    manager = _manager(asked.kernels_directory)
    directory = os.path.join(asked.kernels_directory, asked.name)
    if os.path.lexists(directory) and _ours(_read(directory)) is None and not asked.replace:
        raise OptionError(
            f"--name {asked.name}: {directory} is a kernel that contain did not make; "
            f"accepted: another name, another place, or --replace"
        )
    try:
        with tempfile.TemporaryDirectory() as made:
            source = os.path.join(made, asked.name)
            _write(source, kernel_json(asked.display_name, asked.words))
            manager.install_kernel_spec(source, asked.name, user=True)
    except OSError as error:
        raise HostError(
            f"cannot install the kernel in {directory}: {error.strerror or error}",
            hint="without a place it goes to your own kernels; --prefix DIR and --dir DIR name others",
        ) from None
    return directory, tuple(_notes(asked.name, directory))


def _check(asked: Installation) -> None:
    if not _NAME.fullmatch(asked.name) or asked.name.strip(".") == "":
        raise OptionError(f"--name {shorten(asked.name)}: accepted: letters, digits, . _ -")
    for word in asked.words:
        if found := _TEMPLATE.search(word):
            raise OptionError(
                f"{shorten(word)}: Jupyter replaces {found[0]} in the command of a kernel; "
                f"accepted: values without a name in braces, which --env-file may hold"
            )


def kernel_json(display_name: str, words: Sequence[str]) -> dict[str, Any]:
    """Return the content of kernel.json.

    ``supported_encryption``, which ipykernel's own spec has, is left out: CurveZMQ would end in the launcher, which
    reads every message, and a kernel that has not got it must not say that it has.
    """
    import shlex

    from ipykernel.kernelspec import get_kernel_dict

    from container_magic import __version__

    spec = {
        "argv": [*launcher_command(), *_START, *words, *_FILE],
        "display_name": display_name,
        "language": "python",
        "interrupt_mode": "message",
        "env": {},
        "metadata": {"debugger": True, MARK: {"version": __version__, "options": shlex.join(words)}},
    }
    versions = {key: value for key, value in get_kernel_dict().items() if key == "kernel_protocol_version"}
    return spec | versions


def _write(directory: str, spec: Mapping[str, Any]) -> None:
    os.mkdir(directory)  # with the caller's umask; the temporary directory around it is nobody else's
    for logo in sorted(_LOGOS.iterdir()):
        shutil.copyfile(logo, os.path.join(directory, logo.name))
    with open(os.path.join(directory, "kernel.json"), "w", encoding="utf-8") as file:
        json.dump(spec, file, indent=1)
        file.write("\n")


def _notes(name: str, directory: str) -> Iterator[str]:
    places = _places(name)
    here = next((place for place in places if os.path.realpath(place) == os.path.realpath(directory)), None)
    if here is None:
        yield "the Jupyter of this environment does not look there; JUPYTER_PATH names further places to look"
        return
    first = places.index(here)
    if first:
        taken = os.path.dirname(places[0])
        yield f"it is shadowed by {places[0]}: Jupyter starts that one; --dir {taken} --replace takes its place"
        return
    yield from (f"it shadows {place}" for place in places[1:])
    if name == "python3" and len(places) == 1:
        yield "it shadows the python3 that Jupyter has without a kernelspec"


def list_kernels() -> list[InstalledKernel]:
    """Return our kernelspecs wherever Jupyter looks, in the order in which it looks."""
    found = []
    seen: dict[str, str] = {}
    for name, directory in _every_spec():
        spec = _read(directory)
        if _ours(spec) is not None:
            found.append(_described(name, directory, spec, seen.get(name, "")))
        seen.setdefault(name, directory)
    return found


def _described(name: str, directory: str, spec: Mapping[str, Any], shadowed_by: str) -> InstalledKernel:
    argv = spec.get("argv")
    argv = [str(word) for word in argv] if isinstance(argv, list) else []
    begin = next((at for at in range(1, len(argv)) if argv[at : at + 2] == _START), 0)
    problem = ""
    if not begin or argv[-2:] != _FILE:
        problem = "its command was changed: it may start without a container"
    elif not os.access(argv[0], os.X_OK):
        problem = f"{argv[0]} is not there"
    return InstalledKernel(
        name=name,
        display_name=str(spec.get("display_name", "")),
        options=tuple(argv[begin + 2 : -2]) if begin else (),
        directory=directory,
        shadowed_by=shadowed_by,
        problem=problem,
    )


def remove(name: str) -> tuple[str, str]:
    """Remove the first of our kernelspecs of this name; return its directory, and the one that Jupyter takes now.

    Raises:
        NotFoundError: There is no kernel of this name.
        OptionError: It is not ours.
        HostError: It cannot be removed.
    """
    places = _places(name.lower())
    if not places:
        raise NotFoundError(f"there is no kernel {shorten(name)}", hint="contain kernel list shows those of contain")
    ours = [place for place in places if _ours(_read(place)) is not None]
    if not ours:
        raise OptionError(
            f"{places[0]} is a kernel that contain did not make; accepted: a name that contain kernel list shows"
        )
    try:
        os.remove(ours[0]) if os.path.islink(ours[0]) else shutil.rmtree(ours[0])
    except OSError as error:
        raise HostError(f"cannot remove {ours[0]}: {error.strerror or error}") from None
    return ours[0], next(iter(_places(name.lower())), "")


def directory_of(place: str, path: str = "") -> str:
    """Return the directory of kernelspecs at ``place``: ``user``, ``system``, ``prefix`` or ``dir`` at ``path``."""
    if place == "user":
        return str(_manager().user_kernel_dir)
    if place == "dir":
        return os.path.abspath(os.path.expanduser(path))
    if place == "prefix":
        return os.path.join(os.path.abspath(os.path.expanduser(path)), "share", "jupyter", "kernels")
    from jupyter_core.paths import SYSTEM_JUPYTER_PATH

    return os.path.join(SYSTEM_JUPYTER_PATH[0], "kernels")


def unenforceable(words: Sequence[str]) -> ContainError | None:
    """Return why this host would refuse to start a kernel with these options; None = it would not."""
    from container_magic.kernel.options import check_words
    from container_magic.runtime.plans import plan_for
    from container_magic.verbs.sessions import session_spec

    try:
        plan_for(session_spec(check_words(words).spec))
    except ContainError as error:
        return error
    return None


def _manager(kernels_directory: str = "") -> KernelSpecManager:
    from jupyter_client.kernelspec import KernelSpecManager

    quiet = logging.Logger("kernelspec")  # what it would say, our own words say better
    quiet.addHandler(logging.NullHandler())
    chosen = {"user_kernel_dir": kernels_directory} if kernels_directory else {}
    return KernelSpecManager(log=quiet, **chosen)


def _every_spec() -> Iterator[tuple[str, str]]:
    """Yield name and directory of every kernelspec, shadowed ones too, in Jupyter's order of precedence."""
    for kernels in dict.fromkeys(_manager().kernel_dirs):
        try:
            names = sorted(os.listdir(kernels))
        except OSError:
            continue
        for name in names:
            directory = os.path.join(kernels, name)
            if os.path.isfile(os.path.join(directory, "kernel.json")):
                yield name.lower(), directory


def _places(name: str) -> list[str]:
    return [directory for found, directory in _every_spec() if found == name]


def _read(directory: str) -> Mapping[str, Any]:
    try:
        with open(os.path.join(directory, "kernel.json"), encoding="utf-8") as file:
            spec = json.load(file)
    except (OSError, ValueError):
        return {}
    return spec if isinstance(spec, dict) else {}


def _ours(spec: Mapping[str, Any]) -> Mapping[str, Any] | None:
    metadata = spec.get("metadata")
    mark = metadata.get(MARK) if isinstance(metadata, dict) else None
    return mark if isinstance(mark, dict) else None
