"""Arrow tables and arrays from checked nodes: types from an allow-list, buffers validated before any access."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from container_magic.values.arrow_out import SIMPLE_TYPES
from container_magic.values.checks import listed
from container_magic.values.wire import MAX_DTYPE_DEPTH, RefusedError
from container_magic.values.zones import timezone

if TYPE_CHECKING:
    from container_magic.values.decode import Decoder

_UNITS = ("s", "ms", "us", "ns")
_FACTORIES = {"halffloat": "float16", "float": "float32", "double": "float64", "date32[day]": "date32"}
_SPARE_ROWS = 1_000_000


def arrow(decoder: Decoder, body: Any) -> Any:
    """Return a table, a record batch or an array.

    Raises:
        RefusedError: A type is not accepted.
        Exception: What Arrow raises where buffers do not fit (``validate(full=True)``).
    """
    import pyarrow

    return _Arrays(decoder, pyarrow).whole(body)


class _Arrays:
    """Makes what is Arrow's of one value."""

    def __init__(self, decoder: Decoder, pyarrow: Any) -> None:
        self._decoder = decoder
        self._pyarrow = pyarrow

    def whole(self, body: Any) -> Any:
        if not isinstance(body, dict) or len(body) != 1:
            raise RefusedError("an Arrow value is not described")
        ((kind, node),) = body.items()
        table = self._table(node)
        if kind == "table":
            return table
        if kind == "batch":
            batches = table.combine_chunks().to_batches()
            return batches[0] if batches else self._pyarrow.RecordBatch.from_pylist([], table.schema)
        if kind not in ("array", "chunked") or table.num_columns != 1:
            raise RefusedError("an Arrow value is of no known kind")
        column = table.column(0)
        return column if kind == "chunked" else self._one(column)

    def _one(self, column: Any) -> Any:
        return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()

    def _table(self, node: Any) -> Any:
        if not isinstance(node, dict) or set(node) != {"rows", "fields", "columns"}:
            raise RefusedError("a table is not described")
        fields = [self._field(field, 0) for field in listed(node["fields"])]
        columns = listed(node["columns"])
        if len(fields) != len(columns):
            raise RefusedError("a table has another number of columns than of names")
        arrays = [
            self._pyarrow.chunked_array([self._array(chunk, field.type) for chunk in listed(column)], field.type)
            for field, column in zip(fields, columns, strict=True)
        ]
        if any(len(one) != node["rows"] for one in arrays):
            raise RefusedError("the columns of a table differ in length")
        table = self._pyarrow.Table.from_arrays(arrays, schema=self._pyarrow.schema(fields))
        table.validate(full=True)
        return table

    def _field(self, node: Any, depth: int) -> Any:
        name, kind, nullable = listed(node)
        if not isinstance(name, str) or type(nullable) is not bool:
            raise RefusedError("a field is not described")
        return self._pyarrow.field(name, self._type(kind, depth), nullable)

    def _type(self, node: Any, depth: int) -> Any:
        if depth > MAX_DTYPE_DEPTH:
            raise RefusedError("a type is nested too deeply")
        if isinstance(node, str) and node in SIMPLE_TYPES:
            factory = _FACTORIES.get(node, "bool_" if node == "bool" else node.partition("[")[0])
            return getattr(self._pyarrow, factory)()
        if not isinstance(node, list) or not node or not isinstance(node[0], str):
            raise RefusedError("a type is none of those that are accepted")
        name, *rest = node
        return self._flat_type(name, rest) or self._nested_type(name, rest, depth)

    def _flat_type(self, name: str, rest: list[Any]) -> Any:
        pyarrow = self._pyarrow
        if name == "timestamp" and len(rest) == 2 and rest[0] in _UNITS and isinstance(rest[1], (str, type(None))):
            return pyarrow.timestamp(rest[0], _checked_zone(rest[1]))
        if name in ("duration", "time32", "time64") and len(rest) == 1 and rest[0] in _UNITS:
            return getattr(pyarrow, name)(rest[0])
        whole = all(type(one) is int and -1000 <= one < 2**31 for one in rest)
        if name in ("decimal128", "decimal256") and len(rest) == 2 and whole:
            return getattr(pyarrow, name)(*rest)
        if name == "fixed_size_binary" and len(rest) == 1 and whole and rest[0] > 0:
            return pyarrow.binary(rest[0])
        return None

    def _nested_type(self, name: str, rest: list[Any], depth: int) -> Any:
        pyarrow = self._pyarrow
        if name in ("list", "large_list") and len(rest) == 1:
            return getattr(pyarrow, f"{name}_" if name == "list" else name)(self._field(rest[0], depth + 1))
        if name == "fixed_size_list" and len(rest) == 2 and type(rest[1]) is int and 0 < rest[1] < 2**31:
            return pyarrow.list_(self._field(rest[0], depth + 1), rest[1])
        if name == "struct" and len(rest) == 1:
            return pyarrow.struct([self._field(one, depth + 1) for one in listed(rest[0])])
        if name == "dictionary" and len(rest) == 3 and type(rest[2]) is bool:
            index, value = (self._type(one, depth + 1) for one in rest[:2])
            return pyarrow.dictionary(index, value, ordered=rest[2])
        raise RefusedError("a type is none of those that are accepted")

    def _array(self, node: Any, kind: Any) -> Any:
        pyarrow = self._pyarrow
        if pyarrow.types.is_dictionary(kind):
            return self._dictionary(node, kind)
        if not isinstance(node, dict) or set(node) != {"length", "buffers", "children"}:
            raise RefusedError("an Arrow array is not described")
        fields = [kind.field(number) for number in range(kind.num_fields)]
        children = [self._array(one, field.type) for one, field in zip(listed(node["children"]), fields, strict=True)]
        taken = [None if one is None else self._decoder.take(one) for one in listed(node["buffers"])]
        room = sum(one.nbytes for one in taken if one is not None) + sum(map(len, children))
        length = node["length"]
        if type(length) is not int or not 0 <= length <= 8 * room + _SPARE_ROWS:
            raise RefusedError("an Arrow array is longer than its bytes")
        buffers = [None if one is None else pyarrow.py_buffer(one) for one in taken]
        found = pyarrow.Array.from_buffers(kind, length, buffers, children=children)
        found.validate(full=True)
        return found

    def _dictionary(self, node: Any, kind: Any) -> Any:
        if not isinstance(node, dict) or set(node) != {"indices", "words"}:
            raise RefusedError("a dictionary is not described")
        indices, words = self._array(node["indices"], kind.index_type), self._array(node["words"], kind.value_type)
        return self._pyarrow.DictionaryArray.from_arrays(indices, words, ordered=kind.ordered, safe=True)


def _checked_zone(name: str | None) -> str | None:
    fixed = name is None or (len(name) == 6 and name[0] in "+-" and name[3] == ":" and name[1:3].isdecimal())
    if not fixed:
        timezone(name)
    return name
