"""``container-magic``: a provisioner that starts an ordinary Python kernelspec in a container.

For servers whose configuration says how kernels are started. A front end that does not know provisioners starts the
kernelspec's own command, which is not contained: where there may be one, ``contain kernel install`` is the way.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from traitlets import List, Unicode, Union

from container_magic.errors import HostError, OptionError
from container_magic.kernel.kernelspec import launcher_command, own_words_of
from container_magic.kernel.options import CONNECTION_FILE_NAMES, check_words
from container_magic.options import parse_line, split_line
from container_magic.options.command_line import shorten
from container_magic.options.portable import portable_words

MODULES = ("ipykernel_launcher", "ipykernel")
"""What ``python -m`` of a kernelspec starts when it is a Python kernel that we know."""

_LOST_ON_PURPOSE = "frozen_modules="
"""An option of the interpreter that ipykernel writes for its debugger; the interpreter inside is started by us."""


class ContainerProvisioner(LocalProvisioner):
    """Starts ``contain kernel start`` where the kernelspec says ``python -m ipykernel_launcher``."""

    options = Union(
        [Unicode(), List(Unicode())],
        config=True,
        help="Options of the kernel, as contain kernel install takes them: one text, or a list of words. "
        "Relative paths are relative to the notebook's directory.",
    )

    def __init__(self, **kwargs: Any) -> None:
        unknown = sorted(set(kwargs) - set(self.class_trait_names()))
        if unknown:  # traitlets would only warn, and the kernel would run without the limit
            raise OptionError(
                f"kernel_provisioner.config: unknown key {shorten(unknown[0])}; "
                f'accepted: {{"options": "--mem 1G --net none"}}'
            )
        super().__init__(**kwargs)

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Return what ``launch_kernel`` is called with: the command is the isolating launcher's.

        This method is called from ``KernelManager.pre_start_kernel()``.

        Raises:
            OptionError: An option is unknown or malformed, or the kernelspec is not one of a Python kernel.
            HostError: The manager requires that the client's connection is encrypted.
        """
        words = self._words()
        contained(self.kernel_spec.argv, words)  # refused before a port or a file is made for it
        self._refuse_encryption(kwargs)
        launch = await super().pre_launch(**kwargs)
        launch["cmd"] = contained(launch["cmd"], words)
        return launch

    def _words(self) -> list[str]:
        words = split_line(self.options) if isinstance(self.options, str) else list(self.options)
        line = parse_line(words, "kernel")
        # a file of variables may be named relative to the notebook's directory, which is not this process's
        known = {key: value for key, value in line.texts.items() if key != "env_file"}
        check_words([*portable_words(known, "kernel"), *(["--"] if line.dashes else []), *line.rest])
        # the variables of the kernelspec are set for the launcher, which hands on those that are named
        return [*(word for name in self.kernel_spec.env for word in ("--env", name)), *words]

    def _refuse_encryption(self, kwargs: dict[str, Any]) -> None:
        """Have a plain connection: CurveZMQ would end in the launcher, which reads every message and has none."""
        asked = kwargs.get("transport_encryption", getattr(self.parent, "transport_encryption", None))
        if asked == "required":
            raise HostError(
                "transport_encryption='required': a kernel in a container has no CurveZMQ",
                hint="c.KernelManager.transport = 'ipc' keeps its connection off the network",
            )
        if asked is not None:  # managers before 8.9 know no such argument
            kwargs["transport_encryption"] = "disabled"


def contained(argv: Sequence[str], words: Sequence[str]) -> list[str]:
    """Return the launcher's command for the command of a Python kernel, with ``words`` as its options.

    A kernel of ``contain kernel install`` has ``words`` before its own, which so win.

    Raises:
        OptionError: It is another command, or says something that would be lost.
    """
    if begin := own_words_of(argv):
        return [*argv[:begin], *words, *argv[begin:]]
    interpreter, module, rest = _parts(argv)
    if rest[:1] == ["-f"] and len(rest) > 1:
        file, behind = rest[1], rest[2:]
    elif rest and rest[0].partition("=")[0] in CONNECTION_FILE_NAMES and "=" in rest[0]:
        file, behind = rest[0].partition("=")[2], rest[1:]
    else:
        raise _no_python_kernel(argv, f"-f FILE does not follow {module}")
    return [*_launcher_of(interpreter), "kernel", "start", *words, "-f", file, *behind]


def _parts(argv: Sequence[str]) -> tuple[str, str, list[str]]:
    """Return interpreter, module and the module's arguments of ``python [-X frozen_modules=off] -m MODULE ...``."""
    if not argv or not os.path.basename(argv[0]).startswith("python"):
        raise _no_python_kernel(argv, "it does not begin with a Python")
    rest = list(argv[1:])
    while rest and (rest[0].startswith("-X" + _LOST_ON_PURPOSE) or rest[0] == "-X"):
        if rest.pop(0) == "-X" and not (rest and rest.pop(0).startswith(_LOST_ON_PURPOSE)):
            raise _no_python_kernel(argv, "an option of the interpreter would be lost")
    if len(rest) < 2 or rest[0] != "-m" or rest[1] not in MODULES:
        raise _no_python_kernel(argv, f"-m {MODULES[0]} does not follow the interpreter")
    return argv[0], rest[1], rest[2:]


def _launcher_of(interpreter: str) -> list[str]:
    """Return what starts ``contain`` with the kernelspec's Python, whose packages the notebook is to have."""
    if interpreter in ("python", f"python{sys.version_info[0]}", "python{}.{}".format(*sys.version_info)):
        return launcher_command()  # Jupyter takes its own interpreter for these
    if os.path.abspath(interpreter) == os.path.abspath(sys.executable):
        return launcher_command()
    return [interpreter, "-P", "-m", "container_magic"]  # where that has no container_magic, nothing is started


def _no_python_kernel(argv: Sequence[str], why: str) -> OptionError:
    return OptionError(
        f"the kernelspec's command {shorten(' '.join(argv))} cannot be put into a container: {why}; "
        f"accepted: python -m ipykernel_launcher -f {{connection_file}} ..."
    )
