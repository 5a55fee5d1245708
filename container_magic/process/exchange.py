"""Variables of a cell, inside: what it is given is there before it runs, what is wanted of it goes up after it.

Imported in the zygote: nothing of this package can be imported in a container.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from container_magic.process.channel import Channel
from container_magic.values.encode import encode
from container_magic.values.unpack import read_wanted, unpack
from container_magic.values.wire import FILES_REMEDY, MAX_BYTES, Encoded, RefusedError, chunks

_PIECE_BYTES = 1024 * 1024


class OutputError(Exception):
    """A variable cannot come out: it is of a kind that is not safe to read, or too big."""

    __module__ = "builtins"  # for tracebacks: inside there is no package of ours


def take_in(fd: int, namespace: dict[str, Any]) -> tuple[str, ...]:
    """Put the variables of the memory file ``fd`` into ``namespace``; return the names that are wanted back.

    Raises:
        InputError: They cannot be taken out of the file here.
    """
    try:
        wanted = read_wanted(fd)
    except BaseException:
        os.close(fd)
        raise
    namespace.update(unpack(fd))
    return wanted


def send_out(channel: Channel, names: Sequence[str], namespace: Mapping[str, Any]) -> None:
    """Send the variables ``names``: all of them or, where one cannot be sent, none.

    Raises:
        NameError: One is not defined.
        OutputError: One is of a kind that cannot come out, or they are too big.
        OSError: The code has closed the channel.
    """
    values = [(name, _encoded(name, namespace)) for name in names]
    total = sum(len(value.tree) + sum(part.nbytes for part in value.buffers) for _, value in values)
    if total > MAX_BYTES:
        raise OutputError(f"--output: {total} bytes are too many, accepted are {MAX_BYTES}: {FILES_REMEDY}")
    for name, value in values:
        for piece in chunks(value, _PIECE_BYTES):
            channel.send_value(name, piece)
        channel.send_value(name, b"", last=True)


def _encoded(name: str, namespace: Mapping[str, Any]) -> Encoded:
    if name not in namespace:
        raise NameError(f"--output {name}: the cell has not defined a variable of this name")
    try:
        return encode(namespace[name])
    except RefusedError as error:
        raise OutputError(f"--output {name}: {error}") from None
