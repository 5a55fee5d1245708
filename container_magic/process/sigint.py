"""Ctrl-C inside: it means the code of a cell, and nothing that this package does before and behind it.

By a handler and not by the signal mask: the kernel gives a process's signal to any thread that does not block it, and
the code may have begun some.
"""

from __future__ import annotations

# signal's own functions make members of enums of handlers, by way of exceptions; this is done for each statement
import _signal  # type: ignore[import-not-found]
import types
from collections.abc import Iterator
from contextlib import contextmanager

_kept: list[int] = []


def put_off() -> None:
    """Keep each SIGINT from now on for ``let_in``; forget what was kept until now."""
    _kept.clear()
    _signal.signal(_signal.SIGINT, _keep)


def let_in(*, kept: bool = True) -> None:
    """Let SIGINT do again what Python has it do, with ``kept`` also one that has come; no effect if it is not put off.

    Raises:
        KeyboardInterrupt: One has come already.
    """
    if _signal.getsignal(_signal.SIGINT) is not _keep:
        return
    _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    if kept and _kept:
        _kept.clear()
        raise KeyboardInterrupt


@contextmanager
def put_off_behind() -> Iterator[None]:
    """Put SIGINT off behind the block if it was before, unless the block has given it a handler of its own."""
    was_put_off = _signal.getsignal(_signal.SIGINT) is _keep
    try:
        yield
    finally:
        if was_put_off and _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
            _signal.signal(_signal.SIGINT, _keep)


def let_in_for_program() -> None:
    """Let SIGINT end this process, now if one has come: a program that it becomes begins as with any parent."""
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    if _kept:
        _signal.raise_signal(_signal.SIGINT)


def _keep(number: int, _frame: types.FrameType | None) -> None:
    _kept.append(number)
