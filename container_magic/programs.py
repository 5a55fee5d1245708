"""Whether a program that ``--lang`` needs will be there inside, found out before anything is started."""

from __future__ import annotations

import os
from collections.abc import Sequence

from container_magic.errors import OptionError
from container_magic.languages import LANGUAGES
from container_magic.rootfs.host import Lower
from container_magic.spec import ContainerSpec, Mount


def check_language(spec: ContainerSpec, lowers: Sequence[Lower]) -> None:
    """Refuse a language whose program the container would not find; ``spec`` has the environment of the plan.

    Raises:
        OptionError: The program is in no directory of ``PATH`` inside; the hint says how it can be had.
    """
    process = spec.process
    if not process.stdin_is_code or process.args[0] not in LANGUAGES:
        return
    name = process.args[0]
    directories = [entry for entry in dict(process.env).get("PATH", "").split(":") if entry.startswith("/")]
    if not any(_is_inside(f"{directory}/{name}", lowers, spec.mounts) for directory in directories):
        looked = ", ".join(directories) or "no directory: PATH inside is empty"
        raise OptionError(f"--lang {name}: there is no program {name} inside; looked in {looked}", hint=_hint(name))


def _is_inside(path: str, lowers: Sequence[Lower], mounts: Sequence[Mount]) -> bool:
    for mount in mounts:
        if mount.type == "bind" and path.startswith(f"{mount.destination}/"):
            return _is_program(mount.source + path[len(mount.destination) :])
    real = os.path.realpath(path)
    seen = any(real.startswith(f"{lower.path.rstrip('/')}/") for lower in lowers)
    return seen and _is_program(real)


def _is_program(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)


def _hint(name: str) -> str:
    import shutil

    elsewhere = shutil.which(name)
    if elsewhere is None:
        return f"install {name} on this host, below /usr"
    real = os.path.realpath(elsewhere)
    return f"it is at {real} on this host: mount what it needs with --volume and name it with --interpreter {real}"
