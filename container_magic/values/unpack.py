"""The way in, inside: maps the memory file with the variables and takes them out of it, large data without a copy."""

from __future__ import annotations

import json
import mmap
import os
import pickle
import struct
from typing import Any

PAGE_BYTES = 4096
HEAD = struct.Struct("=QQQ")
"""Bytes of the pickle, how many buffers lie beside it, and bytes of the names that are wanted back (JSON)."""
BUFFER = struct.Struct("=QQ")
"""Where a buffer begins in the file, and its bytes."""


class InputError(Exception):
    """A variable cannot be taken out: a module that it needs is not there inside."""

    __module__ = "builtins"  # for tracebacks: inside there is no package of ours


def read_wanted(fd: int) -> tuple[str, ...]:
    """Return the names of the variables that are wanted back, as ``pack`` has put them into the file ``fd``."""
    _, count, wanted_bytes = HEAD.unpack(os.pread(fd, HEAD.size, 0))
    return tuple(json.loads(os.pread(fd, wanted_bytes, HEAD.size + count * BUFFER.size)))


def unpack(fd: int) -> dict[str, Any]:
    """Return the variables that ``pack`` has put into the file ``fd``, which is closed.

    The mapping is private: what is written to becomes this process's own page by page, what is only read stays shared.

    Raises:
        InputError: A module that one of them needs cannot be imported, or has something else in it.
    """
    try:
        whole = memoryview(mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE))
    finally:
        os.close(fd)
    body_bytes, count, wanted_bytes = HEAD.unpack_from(whole)
    table_end = HEAD.size + count * BUFFER.size
    begin = table_end + wanted_bytes
    places = BUFFER.iter_unpack(whole[HEAD.size : table_end])
    buffers = [whole[offset : offset + size] for offset, size in places]
    try:
        found: dict[str, Any] = pickle.loads(whole[begin : begin + body_bytes], buffers=buffers)
    except ImportError as error:
        raise InputError(f"an input needs the module {error.name!r}, which is not there inside: {error}") from error
    except Exception as error:
        raise InputError(f"the inputs cannot be taken out inside: {type(error).__name__}: {error}") from error
    return found
