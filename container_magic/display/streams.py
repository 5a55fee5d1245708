"""Contained bytes -> safe text, as they come: a character or an escape sequence cut between two reads stays whole."""

from __future__ import annotations

import codecs

from container_magic.events import Output
from container_magic.report import dropped_marker
from container_magic.sanitize.escapes import EscapeFilter


class StreamDecoder:
    """One stream of a container, ``Output`` by ``Output``, as safe text; CR and BS stay (progress bars)."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._filter = EscapeFilter()

    def feed(self, output: Output) -> str:
        """Return the text of ``output``; what was left out before it leaves a line that says how much."""
        marker = ""
        if output.dropped_bytes > 0:
            marker = self._decode(b"", final=True) + self._filter.break_off() + dropped_marker(output.dropped_bytes)
        return marker + self._decode(output.data, final=False)

    def finish(self) -> str:
        """Return what was still waiting for its rest."""
        return self._decode(b"", final=True) + self._filter.finish()

    def _decode(self, data: bytes, *, final: bool) -> str:
        return self._filter.feed(self._decoder.decode(data, final))
