"""A contained cell's text on its way to the page: bounded, in order, sent on when nothing follows."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from container_magic.display.live import EVERY_SECONDS
from container_magic.display.streams import StreamDecoder
from container_magic.events import Output, StreamName

if TYPE_CHECKING:
    from container_magic.display.cell import CellLine
    from container_magic.verbs.run import Run

_PAUSE_SECONDS = 0.002
_UNSENT_SECONDS = 0.05
_PAGE_BYTES = 2 * 1024 * 1024
"""How much of its text a cell shows: a Jupyter server drops, uncounted, what comes faster than 3 MB in 3 seconds."""
_MORE = (
    "[a page shows 2 MB of a cell's text; _contain.stdout and _contain.stderr have what --max-output lets through]\n"
)


class Streams:
    """The notebook's stdout and stderr: safe text, in the order in which the container wrote it."""

    def __init__(self, line: CellLine | None) -> None:
        from container_magic.runtime.output import OutputGate

        self._line = line
        self._gate = OutputGate(_PAGE_BYTES)
        self._decoders: dict[StreamName, StreamDecoder] = {"stdout": StreamDecoder(), "stderr": StreamDecoder()}
        self._last: StreamName = "stdout"
        self._written = False

    def write(self, event: Output) -> None:
        """Write what came, as far as a page shows it."""
        if event.dropped_bytes:
            self._gate.skip(event.stream, event.dropped_bytes)
        for passed in self._gate.feed(event.stream, event.data):
            self._decode(passed)

    def _decode(self, event: Output) -> None:
        self._put(event.stream, self._decoders[event.stream].feed(event))

    def finish(self) -> None:
        """Write and send the rest."""
        for kept in self._gate.finish():
            self._decode(kept)
        for stream, decoder in self._decoders.items():
            self._put(stream, decoder.finish())
        if self._gate.exceeded:
            self._put("stderr", _MORE)
        self.flush()

    @property
    def is_silent(self) -> bool:
        """Whether nothing was written."""
        return not self._written

    def flush(self) -> None:
        """Send what was written."""
        if self._written:
            getattr(sys, self._last).flush()

    def _put(self, stream: StreamName, text: str) -> None:
        if not text:
            return  # to write or flush nothing wakes ipykernel's thread as well
        if stream != self._last and self._written:
            # ipykernel sends each stream when its own timer says so: without this their order would be lost
            getattr(sys, self._last).flush()
        self._last, self._written = stream, True
        target = getattr(sys, stream)
        target.write(text)
        if self._line is not None:
            self._line.wrote(stream, text)


class Idle:
    """What is done while a run says nothing: its text is sent on, and the line that tells of it brought up to date.

    ipykernel sends text when its timer says so, five times a second. To send it at once wakes its thread and waits for
    that, which a cell that is over the next moment should not pay for.
    """

    def __init__(self, run: Run, streams: Streams, line: CellLine | None) -> None:
        self._run = run
        self._streams = streams
        self._line = line
        self._flushed = time.monotonic()
        self._unsent = 0.0  # when the first was written of what was not sent
        self._rest()

    def flush_soon(self, event: Output) -> None:
        """Send what was written, now or as soon as nothing comes for a moment.

        A line comes in two pieces, its text and its end: what ends none is not sent on alone.
        """
        now = time.monotonic()
        self._unsent = self._unsent or now
        since = self._flushed if event.data.endswith(b"\n") else self._unsent
        if now - since > _UNSENT_SECONDS:
            self._flush()
        else:
            self._run.when_idle(_PAUSE_SECONDS, self._flush)

    def _flush(self) -> None:
        self._streams.flush()
        self._flushed, self._unsent = time.monotonic(), 0.0
        self._rest()

    def _rest(self) -> None:
        self._run.when_idle(EVERY_SECONDS, self._tick)

    def _tick(self) -> None:
        if self._line is not None:
            self._line.tick()
