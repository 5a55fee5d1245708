"""What a value looks like on its way out: one JSON tree, and buffers of raw bytes that the tree names by number.

A node of the tree is ``null``, a boolean, a small whole number, a finite number or a text as itself, a list as a JSON
array, and everything else an object with one key that says what it is. Both ends hold the bounds below: inside to say
what is wrong in time, outside because nothing that comes from inside is believed.

The stream of one value is a count of bytes of the tree and a count of buffers, the length of each buffer, the tree,
the buffers; all numbers are 64-bit words in the machine's order.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from container_magic.deferred import dataclass
from container_magic.errors import ContainError

MAX_DEPTH = 64
"""Containers in containers."""
MAX_NODES = 2_000_000
"""Nodes of one tree; a column of texts or numbers is one, an item of a list is one."""
MAX_TREE_BYTES = 64 * 1024 * 1024
MAX_BUFFERS = 65536
MAX_BYTES = 1024 * 1024 * 1024
"""Trees and buffers of all values that a cell returns."""
MAX_INT_BITS = 4 * 1024 * 1024
PLAIN_INT = 2**53
"""Whole numbers below stand in the tree as themselves."""
MAX_PLAIN_TEXT = 65536
"""Characters of a text that stands in the tree; a longer one is a buffer."""
MAX_PIXELS = 200_000_000
MAX_NUMBER_TEXT = 10_000
MAX_DTYPE_DEPTH = 8

COUNTS = struct.Struct("=QQ")
LENGTH = struct.Struct("=Q")

FILES_REMEDY = "write it to a file and use --out-file"


class RefusedError(ContainError):
    """A value cannot come out of a container: its kind is not among those that are safe to read, or it is too big."""


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """One value as it travels."""

    tree: bytes
    buffers: tuple[memoryview, ...]


def chunks(encoded: Encoded, chunk_bytes: int) -> Iterator[memoryview]:
    """Yield the stream of a value in pieces of at most ``chunk_bytes``; buffers are not copied."""
    lengths = [part.nbytes for part in encoded.buffers]
    head = COUNTS.pack(len(encoded.tree), len(lengths)) + b"".join(map(LENGTH.pack, lengths)) + encoded.tree
    for part in _gathered(memoryview(head), encoded.buffers, chunk_bytes):
        for begin in range(0, part.nbytes, chunk_bytes):
            yield part[begin : begin + chunk_bytes]


def _gathered(head: memoryview, buffers: Sequence[memoryview], chunk_bytes: int) -> Iterator[memoryview]:
    """Yield the parts, small ones put together."""
    small = bytearray()
    for part in (head, *buffers):
        if len(small) + part.nbytes > chunk_bytes and small:
            yield memoryview(bytes(small))
            small.clear()
        if part.nbytes > chunk_bytes // 4:
            if small:
                yield memoryview(bytes(small))
                small.clear()
            yield part
        else:
            small += part
    if small:
        yield memoryview(bytes(small))
