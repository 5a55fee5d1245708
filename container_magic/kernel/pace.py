"""How fast messages may go to a client: a Jupyter server drops, for all clients, what comes faster than its limits.

It counts the messages on iopub, and the bytes of those that are streams, over three seconds; it forgets what it counted
when a request is over; above 3,000 messages or 3 MB it drops all but statuses until it is below four fifths of that
(jupyter_server, ``services/kernels/connection/channels.py``). What stays below its limits is never dropped.
"""

from __future__ import annotations

import collections

WINDOW_SECONDS = 3.0
BURST_BYTES = 2_200_000
"""Bytes of text, as JSON, that go at once; what may wait for the end of a cell comes on top of it."""
BURST_MESSAGES = 2200
MESSAGE_BYTES = 700
"""What a message has beside its text: signature, headers, the names in its content."""
_SLICE_SECONDS = 0.1


class Window:
    """Counts what was sent in the last three seconds."""

    def __init__(self) -> None:
        self._slices: collections.deque[tuple[float, int, int]] = collections.deque()
        self._bytes = 0
        self._messages = 0

    def add(self, now_seconds: float, size_bytes: int) -> None:
        """Count a message with ``size_bytes`` of text."""
        begin, messages = now_seconds, 1
        self._bytes += size_bytes
        self._messages += messages
        if self._slices and now_seconds - self._slices[-1][0] < _SLICE_SECONDS:
            begin, earlier_messages, earlier_bytes = self._slices.pop()
            messages, size_bytes = messages + earlier_messages, size_bytes + earlier_bytes
        self._slices.append((begin, messages, size_bytes))

    def room_bytes(self, now_seconds: float) -> int:
        """Return how many bytes of text may go now; 0 when no message may."""
        self._forget(now_seconds)
        return max(0, BURST_BYTES - self._bytes) if self._messages < BURST_MESSAGES else 0

    def next_seconds(self, now_seconds: float) -> float:
        """Return in how many seconds something is forgotten, so that there is more room."""
        return max(0.0, self._expiry() - now_seconds) if self._slices else 0.0

    def reset(self) -> None:
        """Begin anew, as the server does when a request is over."""
        self._slices.clear()
        self._bytes = self._messages = 0

    def _forget(self, now_seconds: float) -> None:
        while self._slices and self._expiry() <= now_seconds:
            _, messages, size_bytes = self._slices.popleft()
            self._messages -= messages
            self._bytes -= size_bytes

    def _expiry(self) -> float:
        # by its first message a slice is dated, by its last it expires
        return self._slices[0][0] + WINDOW_SECONDS + _SLICE_SECONDS
