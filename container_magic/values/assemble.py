"""The receiving end of a value's stream: puts pieces of any size together, and believes no length before its bytes."""

from __future__ import annotations

import mmap

from container_magic.values.wire import COUNTS, LENGTH, MAX_BUFFERS, MAX_BYTES, MAX_TREE_BYTES, RefusedError

_OWN_MAPPING_BYTES = 1024 * 1024


class Assembler:
    """Takes the stream of one value; ``complete`` when all of it has come.

    Args:
        max_bytes: Of tree and buffers together; more is refused when it is announced, before anything is kept.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._head = bytearray()
        self._wanted: list[int] | None = None  # bytes of the tree, then of each buffer
        self._parts: list[memoryview] = []
        self._filled = 0

    @property
    def complete(self) -> bool:
        """Whether the whole value has come."""
        return self._wanted is not None and len(self._parts) == len(self._wanted) and self._missing() == 0

    @property
    def tree(self) -> bytes:
        """The JSON tree of a complete value."""
        return bytes(self._parts[0])

    @property
    def buffers(self) -> list[memoryview]:
        """The buffers of a complete value, writable, nobody else's."""
        return self._parts[1:]

    def feed(self, data: bytes | memoryview) -> None:
        """Take the next piece.

        Raises:
            RefusedError: What is announced is too much, or more comes than was announced.
        """
        rest = memoryview(data)
        if self._wanted is None:
            rest = self._feed_head(rest)
        if self._wanted is None:
            return
        self._advance()
        while rest.nbytes and not self.complete:
            taken = min(rest.nbytes, self._missing())
            self._parts[-1][self._filled : self._filled + taken] = rest[:taken]
            self._filled += taken
            rest = rest[taken:]
            self._advance()
        if rest.nbytes:
            raise RefusedError(f"a value is followed by {rest.nbytes} bytes that belong to nothing")

    def _feed_head(self, rest: memoryview) -> memoryview:
        """Take the lengths, which come first; return what follows them."""
        rest = self._fill_head(rest, COUNTS.size)
        if len(self._head) < COUNTS.size:
            return rest
        tree_bytes, count = COUNTS.unpack_from(self._head)
        if tree_bytes > MAX_TREE_BYTES or count > MAX_BUFFERS:
            raise RefusedError(f"a value of {tree_bytes} bytes of JSON and {count} buffers is too much")
        rest = self._fill_head(rest, COUNTS.size + count * LENGTH.size)
        if len(self._head) < COUNTS.size + count * LENGTH.size:
            return rest
        lengths = [length for (length,) in LENGTH.iter_unpack(self._head[COUNTS.size :])]
        total = tree_bytes + sum(lengths)
        if total > self._max_bytes:
            raise RefusedError(f"a value of {total} bytes is too much; accepted: at most {self._max_bytes}")
        self._wanted = [tree_bytes, *lengths]
        return rest

    def _fill_head(self, rest: memoryview, size: int) -> memoryview:
        taken = max(0, size - len(self._head))
        self._head += rest[:taken]
        return rest[taken:]

    def _missing(self) -> int:
        return (self._wanted or [])[len(self._parts) - 1] - self._filled if self._parts else 0

    def _advance(self) -> None:
        """Make room for the next part, and for those without bytes."""
        wanted = self._wanted or []
        while self._missing() == 0 and len(self._parts) < len(wanted):
            self._parts.append(_room(wanted[len(self._parts)]))
            self._filled = 0


def _room(size: int) -> memoryview:
    # an anonymous mapping costs memory only where it is written: a length that lies costs nothing
    return memoryview(mmap.mmap(-1, size) if size >= _OWN_MAPPING_BYTES else bytearray(size))
