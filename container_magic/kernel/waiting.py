"""The queue of messages that wait for their turn: in order, bounded, what is overtaken taken out of it."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator
from dataclasses import field, replace
from typing import Any

from container_magic.deferred import dataclass
from container_magic.kernel.message import Message
from container_magic.report import dropped_marker

WAITING_BYTES = 384 << 10
"""Text that waits; of more the oldest is left out: what was sent is the head, what waits the tail."""
WAITING_MESSAGES = 600
WAITING_DISPLAY_BYTES = 64 << 20
PIECE_BYTES = 128 << 10
"""Of text in one message."""

_SMALL_BYTES = 4096

# ECMA-48's cancel: it ends what the code's text may have left of an escape sequence, and is not shown itself.
CANCEL = "\x18"


@dataclass(eq=False, kw_only=True)
class _Entry:
    """A message that waits; of text the pieces, each with how much was left out before it."""

    message: Message
    size_bytes: int = 0
    key: tuple[Any, ...] | None = None
    """What an entry with the same key overtakes."""
    pieces: collections.deque[tuple[int, bytes]] = field(default_factory=collections.deque)

    @property
    def is_text(self) -> bool:
        return bool(self.pieces)

    def add(self, dropped_bytes: int, data: bytes) -> None:
        """Add text at the end; small pieces become one."""
        self.size_bytes += len(data)
        if self.pieces and not dropped_bytes and len(self.pieces[-1][1]) < _SMALL_BYTES:
            dropped_bytes, before = self.pieces.pop()
            data = before + data
        self.pieces.append((dropped_bytes, data))

    def cut(self, count: int) -> int:
        """Leave out up to ``count`` bytes of the oldest text; return how many."""
        done = 0
        while count > done and self.size_bytes:
            dropped, data = self.pieces.popleft()
            size = whole(data, min(len(data), count - done))
            done += size
            self.size_bytes -= size
            dropped, data = dropped + size, data[size:]
            if not data and self.pieces:
                later, data = self.pieces.popleft()
                dropped += later
            self.pieces.appendleft((dropped, data))
        return done

    def take(self, room_bytes: int) -> str:
        """Take text of about ``room_bytes`` from the front."""
        texts = []
        while self.pieces and room_bytes > 0:
            dropped, data = self.pieces.popleft()
            if dropped:
                texts.append(CANCEL + dropped_marker(dropped))
            size = whole(data, min(room_bytes, len(data)))
            texts.append(data[:size].decode("utf-8", "replace"))
            room_bytes -= max(1, size)
            self.size_bytes -= size
            if size < len(data):
                self.pieces.appendleft((0, data[size:]))
        return "".join(texts)


class Waiting:
    """Messages in order.

    Args:
        lost: Takes the message that was left out to keep the queue bounded, and of text how many bytes.
        most_bytes: How much text waits.
    """

    def __init__(self, lost: Callable[[Message, int | None], None], most_bytes: int = WAITING_BYTES) -> None:
        self._lost = lost
        self._most_bytes = most_bytes
        self._entries: collections.OrderedDict[int, _Entry] = collections.OrderedDict()
        self._by_key: dict[tuple[Any, ...], int] = {}
        self._next = 0
        self._text_bytes = 0
        self._display_bytes = 0

    def __bool__(self) -> bool:
        return bool(self._entries)

    def is_full(self, text_bytes: int) -> bool:
        """Return whether something would be left out if one more message came, with so much text."""
        return len(self._entries) >= WAITING_MESSAGES or self._text_bytes + text_bytes > self._most_bytes

    def add_text(self, message: Message, data: bytes, dropped_bytes: int) -> None:
        """Add text of the stream that ``message`` names; it joins the last entry if that is of the same stream."""
        if dropped_bytes:
            broken = whole(data, 0)  # the rest of a character that was cut
            dropped_bytes, data = dropped_bytes + broken, data[broken:]
            if broken:
                self._lost(message, broken)
        last = next(reversed(self._entries.values()), None)
        if last is None or not last.is_text or not _same_stream(last.message, message):
            last = _Entry(message=message)
            self._append(last)
        last.add(dropped_bytes, data)
        self._text_bytes += len(data)
        self._shorten_text()
        self._shorten()

    def add(self, message: Message, size_bytes: int, key: tuple[Any, ...] | None = None) -> None:
        """Add another message; one with the same ``key`` that waits is overtaken and will not be sent."""
        if key is not None and key in self._by_key:
            self._remove(self._by_key[key])
        self._append(_Entry(message=message, size_bytes=size_bytes, key=key))
        self._display_bytes += size_bytes
        self._shorten()

    def forget(self, parent_id: str, types: frozenset[str]) -> None:
        """Take out what is about to be cleared."""
        for number, entry in list(self._entries.items()):
            if entry.message.parent_id == parent_id and entry.message.msg_type in types:
                self._remove(number)

    def take(self, room_bytes: int) -> Message:
        """Take the next message, of text about ``room_bytes``."""
        number, entry = next(iter(self._entries.items()))
        if not entry.is_text:
            self._remove(number)
            return entry.message
        before = entry.size_bytes
        text = entry.take(min(room_bytes, PIECE_BYTES))
        self._text_bytes -= before - entry.size_bytes
        if not entry.pieces:
            del self._entries[number]
        return replace(entry.message, content={"name": entry.message.content["name"], "text": text})

    def take_all(self) -> Iterator[Message]:
        """Take everything."""
        while self:
            yield self.take(PIECE_BYTES)

    def _append(self, entry: _Entry) -> None:
        self._entries[self._next] = entry
        if entry.key is not None:
            self._by_key[entry.key] = self._next
        self._next += 1

    def _remove(self, number: int) -> None:
        entry = self._entries.pop(number)
        if entry.is_text:
            self._text_bytes -= entry.size_bytes
        else:
            self._display_bytes -= entry.size_bytes
        if entry.key is not None:
            self._by_key.pop(entry.key, None)

    def _shorten_text(self) -> None:
        for entry in self._entries.values():
            if self._text_bytes <= self._most_bytes:
                return
            if entry.is_text:
                cut = entry.cut(self._text_bytes - self._most_bytes)
                self._text_bytes -= cut
                if cut:
                    self._lost(entry.message, cut)

    def _shorten(self) -> None:
        while len(self._entries) > WAITING_MESSAGES or self._display_bytes > WAITING_DISPLAY_BYTES:
            number, entry = next(iter(self._entries.items()))
            self._remove(number)
            self._lost(entry.message, entry.size_bytes if entry.is_text else None)


def _same_stream(one: Message, other: Message) -> bool:
    return one.parent_id == other.parent_id and one.content["name"] == other.content["name"]


def whole(data: bytes, end: int) -> int:
    """Return where to cut ``data`` so that no character is cut in two: at ``end`` or a little after it."""
    while end < len(data) and data[end] & 0xC0 == 0x80:
        end += 1
    return end
