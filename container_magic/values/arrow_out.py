"""Arrow on the way out: types by name, and the arrays' own buffers.

Not as IPC: its reader would meet a schema from inside, with extension types that other packages deserialise as they
like, and compressed buffers of any size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from container_magic.values import wire
from container_magic.values.wire import RefusedError

if TYPE_CHECKING:
    from container_magic.values.encode import Encoder

SIMPLE_TYPES = frozenset(
    {"null", "bool", "halffloat", "float", "double", "date32[day]", "date64[ms]"}
    | {"int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"}
    | {"string", "large_string", "binary", "large_binary"}
)


def node(encoder: Encoder, value: Any, pyarrow: Any) -> Any:
    """Return a table, record batch or array of Arrow, None for another object of it.

    Raises:
        RefusedError: Its type cannot come out.
    """
    if isinstance(value, pyarrow.RecordBatch):
        return {"arrow": {"batch": _columns(encoder, pyarrow.Table.from_batches([value]), pyarrow)}}
    if isinstance(value, pyarrow.Table):
        return {"arrow": {"table": _columns(encoder, value, pyarrow)}}
    if isinstance(value, (pyarrow.Array, pyarrow.ChunkedArray)):
        kind = "array" if isinstance(value, pyarrow.Array) else "chunked"
        return {"arrow": {kind: _columns(encoder, pyarrow.table({"": value}), pyarrow)}}
    return None


def _columns(encoder: Encoder, table: Any, pyarrow: Any) -> dict[str, Any]:
    fields = [_field(field, pyarrow.types) for field in table.schema]
    if any(_has_offset(chunk, pyarrow.types) for column in table.columns for chunk in column.chunks):
        table = _compact(table, pyarrow)
    chunks = [[_array(encoder, chunk, pyarrow.types) for chunk in column.chunks] for column in table.columns]
    return {"rows": table.num_rows, "fields": fields, "columns": chunks}


def _compact(table: Any, pyarrow: Any) -> Any:
    """Return a copy without what slices have left over."""
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return pyarrow.ipc.open_stream(sink.getvalue()).read_all()


def _field(field: Any, types: Any) -> list[Any]:
    return [field.name, _type(field.type, types), bool(field.nullable)]


def _type(kind: Any, types: Any) -> Any:
    text = str(kind)
    if text in SIMPLE_TYPES and not isinstance(kind, types.lib.BaseExtensionType):
        return text
    if types.is_timestamp(kind):
        return ["timestamp", kind.unit, kind.tz]
    if types.is_duration(kind) or types.is_time(kind):
        return ["duration" if types.is_duration(kind) else f"time{kind.bit_width}", kind.unit]
    if types.is_decimal128(kind) or types.is_decimal256(kind):
        return [f"decimal{kind.bit_width}", kind.precision, kind.scale]
    if types.is_fixed_size_binary(kind):
        return ["fixed_size_binary", kind.byte_width]
    return _nested_type(kind, types)


def _nested_type(kind: Any, types: Any) -> Any:
    if types.is_dictionary(kind):
        return ["dictionary", _type(kind.index_type, types), _type(kind.value_type, types), bool(kind.ordered)]
    if types.is_list(kind) or types.is_large_list(kind):
        return ["list" if types.is_list(kind) else "large_list", _field(kind.value_field, types)]
    if types.is_fixed_size_list(kind):
        return ["fixed_size_list", _field(kind.value_field, types), kind.list_size]
    if types.is_struct(kind):
        return ["struct", [_field(kind.field(number), types) for number in range(kind.num_fields)]]
    raise RefusedError(
        f"an Arrow array of type {str(kind)[:200]} cannot come out of a container",
        hint=f"cast it to a plain type, or {wire.FILES_REMEDY}",
    )


def _children(array: Any, types: Any) -> list[Any]:
    kind = array.type
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return [array.values]
    return [array.field(number) for number in range(kind.num_fields)] if types.is_struct(kind) else []


def _has_offset(array: Any, types: Any) -> bool:
    if types.is_dictionary(array.type):
        return array.offset != 0 or _has_offset(array.indices, types) or _has_offset(array.dictionary, types)
    return array.offset != 0 or any(_has_offset(child, types) for child in _children(array, types))


def _own_buffers(kind: Any, types: Any) -> int:
    """Return how many of ``Array.buffers`` are not its children's (the columnar format's layouts)."""
    if types.is_null(kind) or types.is_struct(kind) or types.is_fixed_size_list(kind):
        return 1
    variable = (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
    return 3 if any(matches(kind) for matches in variable) else 2


def _array(encoder: Encoder, array: Any, types: Any) -> dict[str, Any]:
    if types.is_dictionary(array.type):
        return {"indices": _array(encoder, array.indices, types), "words": _array(encoder, array.dictionary, types)}
    own = array.buffers()[: _own_buffers(array.type, types)]
    buffers = [None if part is None else encoder.buffer(part) for part in own]
    children = [_array(encoder, child, types) for child in _children(array, types)]
    return {"length": len(array), "buffers": buffers, "children": children}
