"""NumPy dtypes as JSON: described inside, and outside made anew from an allow-list.

``numpy.dtype`` takes many spellings, among them names of Python objects: none that came from inside is handed to it
before it has matched.
"""

from __future__ import annotations

import re
from typing import Any

from container_magic.values.wire import MAX_DTYPE_DEPTH, RefusedError

_PLAIN = re.compile(
    r"[<>|](?:b1|[iu][1248]|f(?:2|4|8|16)|c(?:8|16|32)|[SUV][1-9][0-9]{0,8})"
    r"|[<>][mM]8(?:\[(?:[1-9][0-9]{0,8})?(?:Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\])?"
)
_MOST_FIELDS = 10_000
_MOST_DIMENSIONS = 32
_LARGEST = 2**48


def describe(dtype: Any) -> Any:
    """Return ``dtype`` as JSON.

    Raises:
        RefusedError: It holds Python objects, or is not one of NumPy's own.
    """
    if dtype.hasobject:
        raise RefusedError(
            f"an array of dtype {dtype} holds Python objects", hint="give it a dtype of its own: .astype"
        )
    if dtype.names is not None:
        fields = [dtype.fields[name] for name in dtype.names]
        if any(len(field) > 2 for field in fields):
            raise RefusedError(f"the dtype {dtype} has titles", hint="give the fields names alone")
        formats = [describe(field[0]) for field in fields]
        offsets = [int(field[1]) for field in fields]
        return {"names": list(dtype.names), "formats": formats, "offsets": offsets, "itemsize": dtype.itemsize}
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return {"base": describe(base), "shape": list(shape)}
    # 2 is a dtype that another package has registered: its bytes mean nothing to NumPy alone
    if dtype.isbuiltin == 2 or not _PLAIN.fullmatch(dtype.str):
        raise RefusedError(f"the dtype {dtype} is not one of NumPy's own", hint="convert it: .astype('float64')")
    return dtype.str


def parse(node: Any, numpy: Any, depth: int = 0) -> Any:
    """Return the dtype that ``describe`` described.

    Raises:
        RefusedError: It is none of the allow-list.
    """
    if isinstance(node, str) and _PLAIN.fullmatch(node):
        return numpy.dtype(node)
    if not isinstance(node, dict) or depth > MAX_DTYPE_DEPTH:
        raise RefusedError("a dtype is none of those that are accepted")
    if set(node) == {"base", "shape"}:
        return _subarray(parse(node["base"], numpy, depth + 1), checked_shape(node["shape"]), numpy)
    if set(node) == {"names", "formats", "offsets", "itemsize"}:
        return _record(node, numpy, depth)
    raise RefusedError("a dtype is none of those that are accepted")


def _subarray(base: Any, shape: tuple[int, ...], numpy: Any) -> Any:
    size = base.itemsize
    for length in shape:
        size *= length
    if not 0 < size < 2**31:
        raise RefusedError("a dtype's shape is out of bounds")
    return numpy.dtype((base, shape))


def _record(node: dict[str, Any], numpy: Any, depth: int) -> Any:
    names, formats, offsets, itemsize = (node[key] for key in ("names", "formats", "offsets", "itemsize"))
    lists = isinstance(names, list) and isinstance(formats, list) and isinstance(offsets, list)
    if not lists or not len(names) == len(formats) == len(offsets) <= _MOST_FIELDS:
        raise RefusedError("a dtype's fields are not described")
    if len(set(map(type, names)) | {str}) != 1 or len(set(names)) != len(names) or "" in names:
        raise RefusedError("a dtype's fields have no names of their own")
    dtypes = [parse(one, numpy, depth + 1) for one in formats]
    if not _is_whole(itemsize, 2**31 - 1) or itemsize == 0 or not names:
        raise RefusedError("a dtype has no size")
    if any(not _is_whole(at, itemsize - one.itemsize) for at, one in zip(offsets, dtypes, strict=True)):
        raise RefusedError("a dtype's field lies outside of it")
    return numpy.dtype({"names": names, "formats": dtypes, "offsets": offsets, "itemsize": itemsize})


def _is_whole(value: Any, largest: int) -> bool:
    return type(value) is int and 0 <= value <= largest


def checked_shape(node: Any) -> tuple[int, ...]:
    """Return ``node`` as a shape.

    Raises:
        RefusedError: It is none.
    """
    if not isinstance(node, list) or len(node) > _MOST_DIMENSIONS or not all(_is_whole(one, _LARGEST) for one in node):
        raise RefusedError("a shape is no list of lengths")
    return tuple(node)


def check_contents(array: Any, numpy: Any) -> None:
    """Refuse bytes that are no value of their dtype: booleans beyond 0 and 1, characters beyond Unicode.

    Raises:
        RefusedError: There are some.
    """
    dtype = array.dtype
    if dtype.names is not None:
        for name in dtype.names:
            check_contents(array[name], numpy)
    elif array.size and dtype.kind == "b":
        if array.view(numpy.uint8).max() > 1:
            raise RefusedError("an array of booleans holds other bytes")
    elif array.size and dtype.kind == "U":
        # the last axis takes the characters; a field is a strided view and has to be copied for that
        characters = numpy.ascontiguousarray(array).reshape(-1).view(dtype.byteorder.replace("|", "=") + "u4")
        if characters.max() > 0x10FFFF:
            raise RefusedError("an array of text holds what is no character")
