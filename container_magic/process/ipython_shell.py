"""The notebook's shell: a cell as IPython runs it, what it shows sent over the channel.

Imported once, in a zygote of its own, where it makes the shell that every cell of that zygote goes on with: nothing is
imported or made for a cell. There is no history, no profile, no configuration and no thread.
"""

from __future__ import annotations

import atexit
import os
import sys
import types
from typing import Any

from IPython.core import interactiveshell
from IPython.core.autocall import ExitAutocall
from IPython.core.profiledir import ProfileDir
from traitlets import Type, Unicode
from traitlets.config import Config

from container_magic.process.channel import rehearse
from container_magic.process.contained_shell import BACKEND, Compiler, Contained, Exit, Hook, Publisher, refuse_nesting
from container_magic.process.slot import new_slot

# CPython 3.11 quickens a function at its eighth call and specialises in the next few
_REHEARSALS = 12


class _NoProfile(ProfileDir):
    """A profile that is nowhere: nothing is made for it, and nothing can be written there."""

    location = Unicode("/nonexistent/ipython")


class ContainShell(Contained):
    """The shell of a clean interpreter."""

    display_pub_class = Type(Publisher)
    displayhook_class = Type(Hook)
    compiler_class = Type(Compiler)

    def init_profile_dir(self, profile_dir: Any) -> None:  # noqa: ARG002 - IPython's signature
        """Make no directory: there is no profile."""
        self.profile_dir = _NoProfile()

    def _exiter_default(self) -> ExitAutocall:
        return Exit(self)  # type: ignore[no-untyped-call]

    def init_virtualenv(self) -> None:
        """Nothing: this interpreter is the environment's own."""

    def forget_results(self) -> None:
        """Leave no trace of a rehearsal in ``In``, ``Out``, ``_`` and ``_i``: it was no cell of the user's."""
        for name in [name for name in self.user_ns if name.startswith("_") and name[1:].removeprefix("i").isdigit()]:
            del self.user_ns[name]
        hook, history = self.displayhook, self.history_manager
        hook._ = hook.__ = hook.___ = ""
        self.user_ns.update(dict.fromkeys(("_", "__", "___", "_i", "_ii", "_iii"), ""))
        self.user_ns["_oh"].clear()
        history.input_hist_parsed[:] = history.input_hist_raw[:] = [""]
        history.db_input_cache.clear()
        history._i00 = history._i = history._ii = history._iii = ""
        self.execution_count = 1

    def touch(self, filename: str, module: types.ModuleType) -> None:
        """Run an empty cell as one of the user's, and say farewell on a channel, for the pages that this writes to."""
        rehearse()
        self.rehearses = True
        try:
            self.run(b"1", filename, module)
        finally:
            self.rehearses = False
        self.forget_results()


def _warm_up(shell: ContainShell) -> None:
    """Load now what shows values and tracebacks, half a second that no cell should pay; leave no trace of it."""
    with new_slot() as slot:
        shell.owned_by(slot)
        shell.rehearses = True
        for _ in range(_REHEARSALS):
            shell.run(b"pass\n1", "<cell>", shell.user_module)
        shell.rehearses = False
        shell.run(b"1 / 0", "<cell>", shell.user_module)
    shell.forget_results()


def _make() -> ContainShell:
    os.environ["MPLBACKEND"] = BACKEND  # of what is preloaded, too
    # of an older IPython, which makes it whether it is used or not: its database would be a directory of the profile
    if hasattr(interactiveshell, "PickleShareDB"):
        interactiveshell.PickleShareDB = lambda _path: {}
    main = sys.modules["__main__"]
    config = Config()
    config.HistoryManager.enabled = False
    config.HistoryManager.hist_file = ":memory:"
    shell: ContainShell = ContainShell.instance(
        ipython_dir="", user_module=types.ModuleType("__main__"), config=config, colors_force=True
    )
    shell.db = {}
    refuse_nesting(shell)
    _warm_up(shell)
    # both free what the end of the process frees; an older IPython has the first only
    atexit.unregister(shell.atexit_operations)
    if hasattr(shell.history_manager, "_finalizer"):
        shell.history_manager._finalizer.detach()
    sys.modules["__main__"] = main
    return shell


SHELL = _make()
