"""The way in, outside: variables of the notebook become one sealed file in memory.

Pickled, because this way is safe: the user's own data, down to the user's own child. Large data lies beside the
pickle, on pages of its own (PEP 574), so that it is mapped inside and not copied.
"""

from __future__ import annotations

import fcntl
import io
import json
import keyword
import os
import pickle
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from container_magic.errors import OptionError
from container_magic.forks import importing
from container_magic.values.unpack import BUFFER, HEAD, PAGE_BYTES

_F_ADD_SEALS = getattr(fcntl, "F_ADD_SEALS", 1033)
_SEALS = 0x1 | 0x2 | 0x4 | 0x8  # F_SEAL_SEAL, SHRINK, GROW, WRITE
_LARGE_BYTES = 64 * 1024
_SHOWN = 300


def pack(names: Iterable[str], namespace: Mapping[str, Any], wanted: Sequence[str] = ()) -> int:
    """Return a descriptor of a sealed memory file with the variables ``names`` of ``namespace``.

    What several of them share they share inside as well. Large data is copied once, into the file. ``wanted`` are the
    names of the variables that are to come back.

    Raises:
        OptionError: A name is not defined, or what it stands for cannot be pickled.
    """
    chosen = _chosen(names, namespace)
    large: list[memoryview] = []
    try:
        body = _pickled(chosen, large)
    except Exception as error:  # whatever a class of the user's raises
        raise _unpicklable(chosen, error) from None
    return _sealed_file(body, large, json.dumps(list(wanted)).encode())


def _chosen(names: Iterable[str], namespace: Mapping[str, Any]) -> dict[str, Any]:
    chosen = {}
    for name in names:
        if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
            raise OptionError(f"--input {str(name)[:100]!r}: no name of a variable; accepted: names such as df")
        if name not in namespace:
            raise OptionError(
                f"--input {name}: no variable of this name is defined", hint="run the cell that defines it"
            )
        chosen[name] = namespace[name]
    return chosen


def _pickled(value: Any, large: list[memoryview]) -> bytes:
    if not value:
        return pickle.dumps(value, protocol=5)
    # what __main__ defines is not there inside: cloudpickle takes it along, and pickles the rest as pickle does
    with importing:
        import cloudpickle

    def keep(buffer: pickle.PickleBuffer) -> bool:
        try:
            raw = buffer.raw()
        except BufferError:  # not contiguous: in the pickle then
            return True
        if raw.nbytes < _LARGE_BYTES:
            return True
        large.append(raw)
        return False

    file = io.BytesIO()
    cloudpickle.Pickler(file, protocol=5, buffer_callback=keep).dump(value)
    return file.getvalue()


def _unpicklable(chosen: Mapping[str, Any], error: Exception) -> OptionError:
    """Say which one it was: they were tried together, because they may share what they hold."""
    for name, value in chosen.items():
        try:
            _pickled(value, [])
        except Exception as reason:
            kind = type(value)
            return OptionError(
                f"--input {name}: a {kind.__module__}.{kind.__qualname__} cannot go into a container: "
                f"{type(reason).__name__}: {str(reason)[:_SHOWN]}",
                hint="give it what the object is made of: numbers, texts, arrays, tables",
            )
    return OptionError(f"--input: the variables cannot go into a container: {str(error)[:_SHOWN]}")


def _sealed_file(body: bytes, large: list[memoryview], wanted: bytes) -> int:
    head_bytes = HEAD.size + BUFFER.size * len(large)
    places, end = [], head_bytes + len(wanted) + len(body)
    for part in large:
        begin = -(-end // PAGE_BYTES) * PAGE_BYTES
        places.append((begin, part.nbytes))
        end = begin + part.nbytes
    fd = os.memfd_create("container_magic-inputs", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.truncate(fd, end)
        head = HEAD.pack(len(body), len(large), len(wanted)) + b"".join(BUFFER.pack(*place) for place in places)
        _write(fd, memoryview(head + wanted + body), 0)
        for (begin, _), part in zip(places, large, strict=True):
            _write(fd, part, begin)
        fcntl.fcntl(fd, _F_ADD_SEALS, _SEALS)
    except OSError as error:
        os.close(fd)
        raise OptionError(f"--input: {end} bytes cannot be kept in memory: {error.strerror}") from None
    return fd


def _write(fd: int, data: memoryview, offset: int) -> None:
    while data.nbytes:
        written = os.pwrite(fd, data, offset)
        data, offset = data[written:], offset + written
