"""The output cap, held where the pipes are read: head and tail are kept, what lies between is counted."""

from __future__ import annotations

from collections import deque

from container_magic.events import Output, StreamName

_TAIL_SHARE = 4
_FLOOD_FACTOR = 16
_SMALL_BYTES = 4096


class OutputGate:
    """Passes the first three quarters of ``limit_bytes`` on at once, keeps the last quarter back for the end.

    The limit counts standard output and error together. A program that has written ``_FLOOD_FACTOR`` times the limit
    is flooding: the reader has it ended. ``most_kept_bytes`` bounds what is kept back in favour of what is passed on.
    """

    def __init__(self, limit_bytes: int, *, most_kept_bytes: int | None = None) -> None:
        kept = limit_bytes // _TAIL_SHARE
        self._limit_bytes = limit_bytes
        self._tail_bytes = kept if most_kept_bytes is None else min(kept, most_kept_bytes)
        self._head_left = limit_bytes - self._tail_bytes
        self._tail: deque[tuple[StreamName, bytes]] = deque()
        self._tail_size = 0
        self._dropped: dict[StreamName, int] = {"stdout": 0, "stderr": 0}
        self.total_bytes = 0

    @property
    def exceeded(self) -> bool:
        """Whether more was written than the limit."""
        return self.total_bytes > self._limit_bytes

    @property
    def flooding(self) -> bool:
        """Whether so much was written that nobody can want the rest."""
        return self.total_bytes > self._limit_bytes * _FLOOD_FACTOR

    def feed(self, stream: StreamName, data: bytes) -> list[Output]:
        """Return what of ``data`` is to be shown now."""
        self.total_bytes += len(data)
        head, rest = data[: self._head_left], data[self._head_left :]
        self._head_left -= len(head)
        shown = []
        if head:
            shown = [Output(stream=stream, data=head, dropped_bytes=self._dropped[stream])]
            self._dropped[stream] = 0
        if rest:
            self._keep(stream, rest)
        return shown

    def skip(self, stream: StreamName, count: int) -> None:
        """Count bytes that somebody before us left out; they are missing before what comes next of the stream."""
        self._dropped[stream] += count

    def _keep(self, stream: StreamName, data: bytes) -> None:
        if len(data) > self._tail_bytes:
            self._dropped[stream] += len(data) - self._tail_bytes
            data = data[len(data) - self._tail_bytes :]
        self._tail_size += len(data)
        if self._tail and self._tail[-1][0] == stream and len(self._tail[-1][1]) < _SMALL_BYTES:
            data = self._tail.pop()[1] + data  # else a piece for each byte that is written
        self._tail.append((stream, data))
        while self._tail_size > self._tail_bytes:
            self._shorten(self._tail_size - self._tail_bytes)

    def _shorten(self, excess: int) -> None:
        stream, oldest = self._tail.popleft()
        cut = min(excess, len(oldest))
        self._dropped[stream] += cut
        self._tail_size -= cut
        if cut < len(oldest):
            self._tail.appendleft((stream, oldest[cut:]))

    def finish(self) -> list[Output]:
        """Return what was kept back, the count of what was dropped on the first piece of each stream."""
        outputs = []
        for stream, data in self._tail:
            outputs.append(Output(stream=stream, data=data, dropped_bytes=self._dropped[stream]))
            self._dropped[stream] = 0
        for stream, dropped in self._dropped.items():
            if dropped:
                outputs.append(Output(stream=stream, data=b"", dropped_bytes=dropped))
        self._tail.clear()
        self._dropped = {"stdout": 0, "stderr": 0}
        return outputs
