"""Ctrl-C in the main thread goes to the runs that are open."""

from __future__ import annotations

import signal
import threading

# signal.signal() makes members of enums of what it is given and returns, by way of exceptions, for each run twice
from _signal import signal as set_handler  # type: ignore[import-not-found]
from types import FrameType
from typing import Any, Protocol


class Interruptible(Protocol):
    """A run, as Ctrl-C sees it."""

    def on_sigint(self) -> None:
        """Take a Ctrl-C."""


class _Interruptible:
    """The runs that Ctrl-C in the main thread goes to: one handler for all, whatever order they end in."""

    def __init__(self) -> None:
        self._runs: list[Interruptible] = []
        self._previous: Any = None

    def add(self, run: Interruptible) -> None:
        if threading.get_ident() != threading.main_thread().ident:
            return
        if not self._runs:
            self._previous = set_handler(signal.SIGINT, self._on_sigint)
        self._runs.append(run)

    def remove(self, run: Interruptible) -> None:
        if run not in self._runs:
            return
        self._runs.remove(run)
        if not self._runs:
            # None: a handler that was not installed from Python
            set_handler(signal.SIGINT, signal.SIG_DFL if self._previous is None else self._previous)

    def _on_sigint(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        for run in tuple(self._runs):
            run.on_sigint()


interruptible = _Interruptible()
