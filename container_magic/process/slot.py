"""The piece of shared memory in which a payload leaves word of itself: its error, and the line that it is at.

It outlives whatever kills the payload. What stands in it comes from inside: bounded, informative, never trusted.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import signal
import struct
from collections.abc import Sequence

SLOT_BYTES = 128 * 1024
_HEAD = struct.Struct("=III")  # length of the error, line, whether the payload leaves
_WORD = struct.Struct("=I")
_LINE_AT = 4
_LEAVES_AT = 8
_MAX_LINE_CHARACTERS = 2000
_MAX_LINE_NUMBER = 10_000_000


def new_slot() -> mmap.mmap:
    """Return an empty slot, shared with whatever is forked or cloned from here."""
    return mmap.mmap(-1, SLOT_BYTES)


def slot_file() -> int:
    """Return a descriptor of a file that holds an empty slot, for a process that is no child of this one's."""
    fd = os.memfd_create("container_magic-slot", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, SLOT_BYTES)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    return fd


def leave_error(slot: mmap.mmap, ename: str, evalue: str, traceback: Sequence[str]) -> None:
    """Write an error as JSON; of a traceback that is too long for the slot the middle is left out."""
    lines = [line[:_MAX_LINE_CHARACTERS] for line in traceback]
    # a character takes up to twelve bytes in JSON
    body = {"ename": ename[:200], "evalue": evalue[: len(slot) // 16], "traceback": lines}
    while len(data := json.dumps(body).encode()) > len(slot) - _HEAD.size:
        keep = len(lines) // 3
        lines = [*lines[:keep], *lines[-keep:]] if keep else []
        body["traceback"] = lines
    slot[_HEAD.size : _HEAD.size + len(data)] = data
    # the length last: a reader of a half-written slot finds nothing
    slot[:_LINE_AT] = len(data).to_bytes(_LINE_AT, "little")


def read_error(slot: mmap.mmap) -> bytes:
    """Return the JSON that the payload left: bytes of unknown truth, bounded by the slot."""
    length = int.from_bytes(slot[:_LINE_AT], "little")
    return slot[_HEAD.size : _HEAD.size + length] if 0 < length <= len(slot) - _HEAD.size else b""


def clear(slot: mmap.mmap) -> None:
    """Forget all."""
    slot[: _HEAD.size] = bytes(_HEAD.size)


def exit_code_of(error: BaseException) -> int:
    """Return what Python exits with when nobody catches ``error``."""
    return 128 + signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1


def set_line(slot: mmap.mmap, line: int) -> None:
    """Say which line of the source the statement begins in that runs next."""
    _WORD.pack_into(slot, _LINE_AT, line & 0xFFFFFFFF)


def read_line(slot: mmap.mmap) -> int | None:
    """Return the line that the payload says it was at, from 1; None when it says none."""
    line: int = _WORD.unpack_from(slot, _LINE_AT)[0]
    return line if 0 < line <= _MAX_LINE_NUMBER else None


def set_leaving(slot: mmap.mmap) -> None:
    """Say that the payload is about to exit: what is a farewell then was none before."""
    _WORD.pack_into(slot, _LEAVES_AT, 1)


def is_leaving(slot: mmap.mmap) -> bool:
    """Return whether the payload says that it is about to exit."""
    leaves: int = _WORD.unpack_from(slot, _LEAVES_AT)[0]
    return leaves != 0
