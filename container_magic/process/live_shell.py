"""The notebook's own shell in a copy of its process: a snapshot.

Imported in the notebook's process, and without effect there. In the copy ``take_over`` cuts every way that leads back
to the front end (sockets that are closed, threads that are not there) and gives the shell the channel instead.
"""

from __future__ import annotations

import asyncio
import functools
import io
import mmap
import random
import sys
from typing import Any

from IPython.core import async_helpers, page
from IPython.core.autocall import ExitAutocall
from IPython.core.interactiveshell import InteractiveShell
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from container_magic.process.contained_shell import Compiler, Contained, Exit, Hook, Publisher, refuse_nesting

_PACKAGE = __name__.rpartition(".")[0]
_HANGS = "libgomp"
"""GNU's OpenMP: unlike the others it does not notice that its threads did not come along through a fork."""
_EXITS = ("exit", "quit")


class _Live(Contained):
    """The notebook's shell, contained."""

    def keeps_history(self) -> bool:
        """Nothing is kept: the history's thread and database are the notebook's."""
        return False


class _Names(Compiler):
    """Names the snapshot's cell, and the notebook's as the notebook does."""

    def format_code_name(self, name: str) -> tuple[str, str] | None:
        """Return how tracebacks call it."""
        return super().format_code_name(name) or super(Compiler, self).format_code_name(name)


_kept: dict[str, Any] = {}


def prepare() -> None:
    """Do in the notebook's process what has to be done before the fork.

    Keep what does not survive it: the state of ``random``, the streams; find what will not work in the copy.
    """
    _kept.update(random=random.getstate(), stdout=sys.stdout, stderr=sys.stderr, pools=None)
    for thing, kind in _parts(InteractiveShell.instance()):
        _mixed(kind, thing.__class__)  # made once: traitlets take some milliseconds for a class
    pools = ThreadpoolController()
    libraries = [library.filepath for library in pools.lib_controllers if library.prefix == _HANGS]
    if libraries:
        _kept["pools"] = pools
        _tell(
            f"{libraries[0]} is in use: in a snapshot it would wait for ever for its threads, which are not there; "
            "numeric libraries use one thread there"
        )
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        _tell("CUDA is in use: a snapshot can use neither the GPU nor what lies in its memory")


_told: set[str] = set()


def _tell(warning: str) -> None:
    """Warn, once in the life of a notebook."""
    if warning not in _told:
        _told.add(warning)
        sys.stderr.write(f"{warning}\n")


def take_over(slot: mmap.mmap) -> Contained:
    """Make this copy's shell one that shows things on a channel and leaves its errors in ``slot``."""
    random.setstate(_kept["random"])
    if _kept["pools"] is not None:
        _kept["pools"].limit(limits=1)
    _leave_event_loop()
    shell: Any = InteractiveShell.instance()
    _silence(shell)
    for thing, kind in _parts(shell):
        _mix_in(thing, kind)
    shell.set_hook("show_in_pager", page.as_hook(page.display_page), 0)  # type: ignore[no-untyped-call]
    for name in _EXITS:
        if isinstance(shell.user_ns.get(name), ExitAutocall):
            shell.user_ns[name] = Exit(shell)  # type: ignore[no-untyped-call]
    refuse_nesting(shell)
    contained: Contained = shell.owned_by(slot)
    return contained


def _parts(shell: Any) -> tuple[tuple[Any, type], ...]:
    """Return what changes its ways, and to which."""
    return (shell, _Live), (shell.compile, _Names), (shell.display_pub, Publisher), (shell.displayhook, Hook)


@functools.cache
def _mixed(kind: type, own: type) -> type:
    return type(kind.__name__, (kind, own), {})


def _mix_in(thing: Any, kind: type) -> None:
    """Let the methods of ``kind`` come before those of the class of ``thing``, which keeps its state."""
    for ancestor in kind.__mro__:
        if ancestor.__module__.startswith(_PACKAGE):
            for name in vars(ancestor).keys() & vars(thing).keys():
                delattr(thing, name)  # ipykernel puts a method on the shell itself, which would come first
    thing.__class__ = _mixed(kind, thing.__class__)


def _leave_event_loop() -> None:
    """Forget the loop that the notebook's cell runs in: its descriptors are closed, and ``await`` needs a new one."""
    asyncio._set_running_loop(None)
    asyncio.set_event_loop_policy(None)
    async_helpers._asyncio_event_loop = None


def _silence(shell: Any) -> None:
    """Let nothing be sent on the kernel's sockets, and what is written to the kernel's streams go to this process's.

    Handlers of ``logging`` and the like hold on to them.
    """
    kernel = getattr(shell, "kernel", None)
    if kernel is not None:
        kernel.session.send = _nowhere
    for name in ("stdout", "stderr"):
        stream = _kept[name]
        if not isinstance(stream, io.TextIOWrapper):
            stream.write = lambda text, name=name: getattr(sys, name).write(text)
            stream.flush = _nowhere


def _nowhere(*_arguments: Any, **_keywords: Any) -> None:
    """Send nothing."""
