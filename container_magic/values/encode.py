"""The way out, inside: a value becomes a JSON tree and buffers (``values.wire``).

Standard library only: NumPy, pandas, Arrow and Pillow are looked at when the object's own package has been imported,
and so are modules of the standard library that every container would otherwise carry.
"""

from __future__ import annotations

import collections
import json
import math
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from container_magic.values import foreign, wire
from container_magic.values.wire import Encoded, RefusedError
from container_magic.values.zones import timezone_node

if TYPE_CHECKING:
    import datetime
    import decimal


def encode(value: Any) -> Encoded:
    """Return ``value`` as it travels; buffers are the value's own memory where that is possible.

    Raises:
        RefusedError: It, or something in it, is of a kind that cannot come out, or it is too big.
    """
    encoder = Encoder()
    tree = encoder.node(value)
    return encoder.finish(tree)


Handler = Callable[["Encoder", Any], Any]


class Encoder:
    """One value on its way: the buffers so far, and the containers that are being walked through."""

    def __init__(self) -> None:
        self._buffers: list[memoryview] = []
        self._bytes = 0
        self._nodes = 0
        self._inside: set[int] = set()

    def finish(self, tree: Any) -> Encoded:
        """Return the whole.

        Raises:
            RefusedError: It is too big.
        """
        text = json.dumps(tree, separators=(",", ":"), check_circular=False, allow_nan=False).encode("ascii")
        if len(text) > wire.MAX_TREE_BYTES:
            raise RefusedError(
                f"its description takes {len(text)} bytes, accepted are {wire.MAX_TREE_BYTES}",
                hint=f"make it an array or a table, or {wire.FILES_REMEDY}",
            )
        return Encoded(tree=text, buffers=tuple(self._buffers))

    def node(self, value: Any) -> Any:
        """Return ``value`` as a node of the tree.

        Raises:
            RefusedError: It cannot come out.
        """
        self._nodes += 1
        if self._nodes > wire.MAX_NODES:
            raise RefusedError(
                f"it has more than {wire.MAX_NODES} parts", hint=f"make it an array or a table, or {wire.FILES_REMEDY}"
            )
        kind = type(value)
        if value is None or kind is bool:
            return value
        handler = _KINDS.get(kind) or _late_handler(kind)
        if handler is not None:
            return handler(self, value)
        return foreign.node(self, value)

    def nodes(self, holder: Any, items: Any) -> list[Any]:
        """Return the items of the container ``holder``.

        Raises:
            RefusedError: It holds itself, or the nesting is too deep.
        """
        if id(holder) in self._inside:
            raise RefusedError(f"a {type(holder).__name__} holds itself", hint="take the cycle apart")
        if len(self._inside) >= wire.MAX_DEPTH:
            raise RefusedError(
                f"it is nested deeper than {wire.MAX_DEPTH} levels", hint=f"flatten it, or {wire.FILES_REMEDY}"
            )
        self._inside.add(id(holder))
        found = [self.node(item) for item in items]
        self._inside.discard(id(holder))
        return found

    def buffer(self, data: Any) -> int:
        """Keep the bytes of ``data`` and return their number.

        Raises:
            RefusedError: There are too many.
        """
        view = memoryview(data).cast("B") if memoryview(data).nbytes else memoryview(b"")
        self._bytes += view.nbytes
        if self._bytes > wire.MAX_BYTES or len(self._buffers) >= wire.MAX_BUFFERS:
            raise RefusedError(
                f"it takes more than {wire.MAX_BYTES} bytes or {wire.MAX_BUFFERS} buffers", hint=wire.FILES_REMEDY
            )
        self._buffers.append(view)
        return len(self._buffers) - 1


def _late_handler(kind: type) -> Handler | None:
    package = str(kind.__module__).partition(".")[0]
    name = kind.__name__
    handler = _LATE_KINDS.get((package, name))
    # a type may call itself what it likes
    return handler if handler and kind is getattr(sys.modules.get(package), name, None) else None


def _int(_encoder: Encoder, value: int) -> Any:
    if -wire.PLAIN_INT < value < wire.PLAIN_INT:
        return value
    if value.bit_length() > wire.MAX_INT_BITS:
        raise RefusedError(f"a number of {value.bit_length()} bits is too long", hint=wire.FILES_REMEDY)
    return {"int": hex(value)}


def _float(_encoder: Encoder, value: float) -> Any:
    return value if math.isfinite(value) else {"float": repr(value)}


def _str(encoder: Encoder, value: str) -> Any:
    if len(value) <= wire.MAX_PLAIN_TEXT and (value.isascii() or not any("\ud800" <= one <= "\udfff" for one in value)):
        return value
    return {"text": encoder.buffer(value.encode("utf-8", "surrogatepass"))}


def _dict(encoder: Encoder, value: dict[Any, Any]) -> Any:
    return {"dict": encoder.nodes(value, [part for item in value.items() for part in item])}


def _decimal(_encoder: Encoder, value: decimal.Decimal) -> Any:
    text = str(value)
    if len(text) > wire.MAX_NUMBER_TEXT:
        raise RefusedError(f"a Decimal of {len(text)} characters is too long", hint="round it")
    return {"decimal": text}


def _datetime(_encoder: Encoder, value: datetime.datetime) -> Any:
    naive = value.replace(tzinfo=None, fold=0).isoformat()
    return {"datetime": [naive, value.fold, timezone_node(value.tzinfo)]}


def _time(_encoder: Encoder, value: datetime.time) -> Any:
    naive = value.replace(tzinfo=None, fold=0).isoformat()
    return {"time": [naive, value.fold, timezone_node(value.tzinfo)]}


def _range(encoder: Encoder, value: range) -> Any:
    return {"range": [_int(encoder, part) for part in (value.start, value.stop, value.step)]}


_KINDS: dict[type, Handler] = {
    int: _int,
    float: _float,
    str: _str,
    list: lambda encoder, value: encoder.nodes(value, value),
    tuple: lambda encoder, value: {"tuple": encoder.nodes(value, value)},
    set: lambda encoder, value: {"set": encoder.nodes(value, value)},
    frozenset: lambda encoder, value: {"frozenset": encoder.nodes(value, value)},
    dict: _dict,
    collections.OrderedDict: _dict,
    collections.defaultdict: _dict,
    collections.Counter: _dict,
    bytes: lambda encoder, value: {"bytes": encoder.buffer(value)},
    bytearray: lambda encoder, value: {"bytearray": encoder.buffer(value)},
    memoryview: lambda encoder, value: {"bytes": encoder.buffer(value.tobytes())},
    complex: lambda encoder, value: {"complex": [_float(encoder, value.real), _float(encoder, value.imag)]},
    range: _range,
}
_LATE_KINDS: dict[tuple[str, str], Handler] = {
    ("decimal", "Decimal"): _decimal,
    ("datetime", "datetime"): _datetime,
    ("datetime", "time"): _time,
    ("datetime", "date"): lambda _, value: {"date": value.isoformat()},
    ("datetime", "timedelta"): lambda _, value: {"timedelta": [value.days, value.seconds, value.microseconds]},
    ("uuid", "UUID"): lambda _, value: {"uuid": value.hex},
    ("pathlib", "PosixPath"): lambda encoder, value: {"path": _str(encoder, str(value))},
    ("pathlib", "PurePosixPath"): lambda encoder, value: {"path": _str(encoder, str(value))},
}
