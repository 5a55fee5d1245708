"""The line of a long run below a notebook's cell, and its disappearance.

A notebook can change an output but not take one away: at the end all outputs of the cell are cleared and those that
are the code's are published once more, so that nothing of the line is in the notebook, whoever saves it. What has to
be published again is bounded: a cell with much output has no line.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from html import escape
from typing import Any

from IPython.display import clear_output, display

from container_magic.display.live import Progress
from container_magic.events import Event, StreamName

MOST_CHARACTERS = 256 * 1024
"""Of output that is published a second time."""
_STYLE = "font-family:var(--jp-code-font-family,monospace);font-size:var(--jp-code-font-size,13px);opacity:0.6"


class CellLine:
    """The line of one cell; it is told of everything else that the cell shows."""

    def __init__(self, progress: Progress | None = None) -> None:
        self._progress = progress or Progress()
        self._handle: Any = None
        self._given_up = False
        self._size = 0
        self._shown: list[Callable[[], None]] = []
        self._texts: list[tuple[StreamName, list[str]]] = []

    def add(self, event: Event) -> None:
        """Take the next event of the run."""
        self._progress.add(event)

    def tick(self) -> None:
        """Show the line or bring it up to date, when it is time."""
        text = "" if self._given_up else self._progress.due()
        if not text:
            return
        data = {"text/plain": text, "text/html": f'<div style="{_STYLE}">{escape(text)}</div>'}
        if self._handle is None:
            self._handle = display(data, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(data, raw=True)

    def wrote(self, stream: StreamName, text: str) -> None:
        """Note that ``text`` was written to the notebook's ``stream``."""
        if self._given_up or not text:
            return
        if not self._texts or self._texts[-1][0] != stream:
            pieces: list[str] = []
            self._texts.append((stream, pieces))
            self._shown.append(lambda: _write(stream, "".join(pieces)))
        self._texts[-1][1].append(text)
        self._grow(len(text))

    def published(self, again: Callable[[], None], characters: int) -> None:
        """Note another output; ``again`` publishes it once more, ``characters`` is about its size."""
        if not self._given_up:
            self._texts.append(("stdout", []))  # text that follows is an output of its own
            self._shown.append(again)
            self._grow(characters)

    def cleared(self) -> None:
        """Note that the code cleared the cell's outputs, and the line with them."""
        self._forget()

    def finish(self) -> None:
        """Take the line away; what the cell has shown stays."""
        self._given_up = True
        if self._handle is not None:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            # with something to follow a page exchanges the outputs at once, and does not flicker
            clear_output(wait=bool(self._shown))  # type: ignore[no-untyped-call]
            for again in self._shown:
                again()
        self._forget()

    def _grow(self, characters: int) -> None:
        self._size += characters
        if self._size > MOST_CHARACTERS:
            self.finish()

    def _forget(self) -> None:
        self._handle, self._size = None, 0
        self._shown, self._texts = [], []


def _write(stream: StreamName, text: str) -> None:
    target = getattr(sys, stream)
    target.write(text)
    target.flush()  # ipykernel sends each stream when its own timer says so: without this their order would be lost
