"""The way out, outside: a tree and buffers that came from a container become a value, or are refused.

Nothing is unpickled, no name from inside is looked up, and no number from inside is believed before it has been held
against the bytes that are there. What this cannot make sense of is a ``RefusedError`` and nothing else.
"""

from __future__ import annotations

import collections
import datetime
import decimal
import json
import pathlib
import re
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from container_magic.values import decode_arrow, decode_numpy, decode_pandas, wire
from container_magic.values.checks import items, text, whole
from container_magic.values.wire import RefusedError
from container_magic.values.zones import timezone

_HEX = re.compile(f"-?0x[0-9a-f]{{1,{wire.MAX_INT_BITS // 4 + 1}}}")
_DECIMAL = re.compile(r"-?(?:[0-9]+(?:\.[0-9]+)?(?:E[+-]?[0-9]{1,19})?|s?NaN[0-9]*|Infinity)")
_MOST_DIGITS = 25
_MOST_EQUAL_HASHES = 64
_LONGEST_TIME = 40


def decode(tree: bytes, buffers: Sequence[memoryview]) -> Any:
    """Return the value; it owns ``buffers`` from here on, and is writable where its kind is.

    Args:
        tree: JSON, as ``encode`` has made it or anything else.
        buffers: Writable memory that nobody else has.

    Raises:
        RefusedError: It is no value.
    """
    try:
        return Decoder(buffers).node(_parsed(tree))
    except RefusedError:
        raise
    except ImportError as error:
        raise RefusedError(
            f"a value needs a package that is not installed here: {error.name}", hint=f"pip install {error.name}"
        ) from None
    except Exception as error:  # whatever NumPy, pandas, Arrow and Pillow raise at what makes no sense
        raise RefusedError(f"a value makes no sense: {type(error).__name__}: {str(error)[:200]}") from None


def _parsed(tree: bytes) -> Any:
    # each list, object and item costs one of these: counted before anything is made of them
    parts = tree.count(b",") + tree.count(b"[") + tree.count(b"{")
    if len(tree) > wire.MAX_TREE_BYTES or parts > 4 * wire.MAX_NODES:
        raise RefusedError(f"a value of {parts} parts and {len(tree)} bytes of JSON is too big")
    try:
        return json.loads(tree, parse_int=_small_int, parse_constant=_no_constant)
    except RecursionError:
        raise RefusedError(f"a value is nested deeper than {wire.MAX_DEPTH} levels") from None


def _small_int(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise RefusedError("a number is not written as it should be")
    return int(digits)


def _no_constant(word: str) -> Any:
    raise RefusedError(f"{word} is no JSON")


class Decoder:
    """One value: its buffers, each to be used once, and how deep we are in it."""

    def __init__(self, buffers: Sequence[memoryview]) -> None:
        self._buffers: list[memoryview | None] = list(buffers)
        self._depth = 0

    def node(self, node: Any) -> Any:
        """Return the value of a node.

        Raises:
            RefusedError: It is none.
        """
        if node is None or isinstance(node, (bool, int, float, str)):
            return node
        self._depth += 1
        if self._depth > 2 * wire.MAX_DEPTH:
            raise RefusedError(f"a value is nested deeper than {wire.MAX_DEPTH} levels")
        value = self._inner(node)
        self._depth -= 1
        return value

    def _inner(self, node: Any) -> Any:
        if isinstance(node, list):
            return [self.node(item) for item in node]
        if not isinstance(node, dict) or len(node) != 1:
            raise RefusedError("a part of a value does not say what it is")
        ((kind, body),) = node.items()
        handler = _KINDS.get(kind)
        if handler is None:
            raise RefusedError(f"a part of a value is of no known kind: {kind[:40]!r}")
        return handler(self, body)

    def nodes(self, body: Any) -> list[Any]:
        """Return the values of a list of nodes.

        Raises:
            RefusedError: It is none.
        """
        if not isinstance(body, list):
            raise RefusedError("what should be a list is none")
        return [self.node(item) for item in body]

    def take(self, number: Any) -> memoryview:
        """Return the buffer ``number``, once.

        Raises:
            RefusedError: There is no such buffer, or it is used already.
        """
        if type(number) is not int or not 0 <= number < len(self._buffers):
            raise RefusedError("a value names a buffer that is not there")
        found = self._buffers[number]
        if found is None:
            raise RefusedError("a value names a buffer twice")
        self._buffers[number] = None
        return found


def _int(_decoder: Decoder, body: Any) -> int:
    if not isinstance(body, str) or not _HEX.fullmatch(body):
        raise RefusedError("a number is not written as it should be")
    return int(body, 16)


def _float(_decoder: Decoder, body: Any) -> float:
    if body not in ("nan", "inf", "-inf"):
        raise RefusedError("a number is not written as it should be")
    return float(body)


def _dict(decoder: Decoder, body: Any) -> dict[Any, Any]:
    parts = decoder.nodes(body)
    if len(parts) % 2:
        raise RefusedError("a dict has a key without a value")
    _check_keys(parts[::2])
    return dict(zip(parts[::2], parts[1::2], strict=True))


def _set(decoder: Decoder, body: Any) -> set[Any]:
    members = decoder.nodes(body)
    _check_keys(members)
    return set(members)


def _check_keys(keys: list[Any]) -> None:
    """Refuse keys that were chosen to meet in one place of the table, and those that stand there twice.

    Hashes of numbers are no secret: 10^5 of them that are equal make a dict whose making takes minutes.
    """
    counts = collections.Counter(sorted(map(hash, keys)))  # equal hashes in a row: this one cannot be slowed down
    if counts and max(counts.values()) > _MOST_EQUAL_HASHES:
        raise RefusedError("too many keys have the same hash")
    if len(set(keys)) != len(keys):
        raise RefusedError("a key stands in a dict or set twice")


def _complex(decoder: Decoder, body: Any) -> complex:
    real, imaginary = map(decoder.node, items(body, 2))
    if not isinstance(real, (int, float)) or not isinstance(imaginary, (int, float)):
        raise RefusedError("a complex number has parts that are no numbers")
    return complex(real, imaginary)


def _decimal(_decoder: Decoder, body: Any) -> decimal.Decimal:
    if not _DECIMAL.fullmatch(text(body, wire.MAX_NUMBER_TEXT)):
        raise RefusedError("a number is not written as it should be")
    return decimal.Decimal(body)


def _range(decoder: Decoder, body: Any) -> range:
    return range(*map(decoder.node, items(body, 3)))


def _datetime(_decoder: Decoder, body: Any) -> datetime.datetime:
    moment, fold, zone = items(body, 3)
    found = datetime.datetime.fromisoformat(text(moment, _LONGEST_TIME))
    return found.replace(tzinfo=timezone(zone), fold=whole(fold, 0, 1))


def _time(_decoder: Decoder, body: Any) -> datetime.time:
    moment, fold, zone = items(body, 3)
    found = datetime.time.fromisoformat(text(moment, _LONGEST_TIME))
    return found.replace(tzinfo=timezone(zone), fold=whole(fold, 0, 1))


def _timedelta(_decoder: Decoder, body: Any) -> datetime.timedelta:
    days, seconds, microseconds = map(whole, items(body, 3))
    return datetime.timedelta(days=days, seconds=seconds, microseconds=microseconds)


_KINDS: dict[str, Callable[[Decoder, Any], Any]] = {
    "int": _int,
    "float": _float,
    "text": lambda decoder, body: str(decoder.take(body), "utf-8", "surrogatepass"),
    "tuple": lambda decoder, body: tuple(decoder.nodes(body)),
    "set": _set,
    "frozenset": lambda decoder, body: frozenset(_set(decoder, body)),
    "dict": _dict,
    "bytes": lambda decoder, body: bytes(decoder.take(body)),
    "bytearray": lambda decoder, body: bytearray(decoder.take(body)),
    "complex": _complex,
    "range": _range,
    "decimal": _decimal,
    "datetime": _datetime,
    "time": _time,
    "date": lambda _, body: datetime.date.fromisoformat(text(body, _LONGEST_TIME)),
    "timedelta": _timedelta,
    "uuid": lambda _, body: uuid.UUID(hex=text(body, 32)),
    "path": lambda decoder, body: pathlib.PurePosixPath(decoder.node(body)),
    "array": lambda decoder, body: decode_numpy.array(decoder, body),
    "scalar": lambda decoder, body: decode_numpy.scalar(decoder, body),
    "image": lambda decoder, body: decode_numpy.image(decoder, body),
    "frame": lambda decoder, body: decode_pandas.Frames(decoder).frame(body),
    "series": lambda decoder, body: decode_pandas.Frames(decoder).series(body),
    "index": lambda decoder, body: decode_pandas.Frames(decoder).index(body),
    "timestamp": lambda decoder, body: decode_pandas.Frames(decoder).timestamp(body),
    "duration": lambda decoder, body: decode_pandas.Frames(decoder).duration(body),
    "missing": lambda decoder, body: decode_pandas.Frames(decoder).missing(body),
    "arrow": lambda decoder, body: decode_arrow.arrow(decoder, body),
}
