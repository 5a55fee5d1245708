"""Variables of a cell, the client's side: those that it is given, and those that come back, of unknown truth."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable, Mapping
from typing import Any

from container_magic.errors import OptionError
from container_magic.spec import ContainerSpec
from container_magic.values.assemble import Assembler
from container_magic.values.decode import decode
from container_magic.values.pack import pack
from container_magic.values.wire import MAX_BYTES, RefusedError


class Variables:
    """What a cell is given and what is wanted of it, in a memory file that is closed once the code has it.

    Args:
        spec: Of the container: only Python has variables.
        names: Those of ``namespace`` that the cell is given.
        namespace: Where they are.
        wanted: Names of those that are to come back.

    Raises:
        OptionError: A name is not defined, or its value cannot be pickled; or what runs is not Python.
    """

    def __init__(
        self, spec: ContainerSpec, names: Iterable[str], namespace: Mapping[str, Any], wanted: Iterable[str]
    ) -> None:
        if spec.process.shell == "script":
            raise OptionError("--input and --output: only a cell of Python has variables to take and to return")
        self.wanted = tuple(wanted)
        self.fd = pack(names, namespace, self.wanted)
        self.close = weakref.finalize(self, os.close, self.fd)
        """Give the memory back; once more does nothing."""


class Returns:
    """The variables ``wanted`` of a cell, as their pieces come."""

    def __init__(self, wanted: Iterable[str]) -> None:
        self._waiting = {name: Assembler(MAX_BYTES) for name in wanted}
        self._bytes_left = MAX_BYTES + len(self._waiting) * _HEAD_BYTES
        self.values: dict[str, Any] = {}

    @property
    def missing(self) -> tuple[str, ...]:
        """Names whose values have not come."""
        return tuple(self._waiting)

    def feed(self, name: str, piece: memoryview, *, last: bool) -> None:
        """Take a piece of one.

        Raises:
            RefusedError: It was not asked for or has come already, it is too much, or it is no value.
        """
        assembler = self._waiting.get(name)
        if assembler is None:
            raise RefusedError(f"nobody waits for a variable {name[:100]!r}")
        self._bytes_left -= len(piece)
        if self._bytes_left < 0:
            raise RefusedError(f"the variables have more than {MAX_BYTES} bytes")
        assembler.feed(piece)
        if last:
            if not assembler.complete:
                raise RefusedError(f"the variable {name!r} is cut short")
            self.values[name] = decode(assembler.tree, assembler.buffers)
            del self._waiting[name]


_HEAD_BYTES = 1024 * 1024
"""Of the counts and lengths that a value begins with, at most."""
