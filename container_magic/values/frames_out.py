"""pandas on the way out: frames, series and indexes as columns of checked kinds."""

from __future__ import annotations

import sys
from array import array as words
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from container_magic.values import arrow_out, wire
from container_magic.values.wire import RefusedError
from container_magic.values.zones import timezone_node

if TYPE_CHECKING:
    from container_magic.values.encode import Encoder

ArrayNode = Callable[["Encoder", Any], dict[str, Any]]


def node(encoder: Encoder, value: Any, pandas: Any, array: ArrayNode) -> Any:
    """Return a frame, series, index or scalar of pandas, None for another object of it.

    Raises:
        RefusedError: A column is of a kind that cannot come out.
    """
    return _Frames(encoder, pandas, array).node(value)


class _Frames:
    """pandas as it is imported here, and where buffers go."""

    def __init__(self, encoder: Encoder, pandas: Any, array: ArrayNode) -> None:
        self._encoder = encoder
        self._pandas = pandas
        self._array = array

    def node(self, value: Any) -> Any:
        pandas = self._pandas
        if type(value) is pandas.DataFrame:
            return {"frame": self._frame(value)}
        if type(value) is pandas.Series:
            body = {"values": self._column(value), "index": self._index(value.index)}
            return {"series": {**body, "name": self._encoder.node(value.name), **self._attributes(value)}}
        if isinstance(value, pandas.Index):
            return {"index": self._index(value)}
        return self._scalar(value)

    def _scalar(self, value: Any) -> Any:
        pandas = self._pandas
        if value is pandas.NA or value is pandas.NaT:
            return {"missing": "NA" if value is pandas.NA else "NaT"}
        if type(value) is pandas.Timestamp:
            zone = self._zone(value.tzinfo)
            moment = value.tz_convert(None) if value.tzinfo is not None else value
            return {"timestamp": [int(moment.asm8.view("i8")), value.unit, zone]}
        if type(value) is pandas.Timedelta:
            return {"duration": [int(value.asm8.view("i8")), value.unit]}
        return None

    def _frame(self, frame: Any) -> dict[str, Any]:
        body = {"index": self._index(frame.index), "columns": self._index(frame.columns), **self._attributes(frame)}
        kinds = set(frame.dtypes)
        if len(kinds) == 1 and all(self._is_plain(kind) and kind.kind in "biufc" for kind in kinds):
            # one block: its own memory, whatever its order
            return {**body, "block": self._array(self._encoder, frame.to_numpy())}
        columns = [self._column(frame.iloc[:, number]) for number in range(frame.shape[1])]
        return {**body, "data": columns}

    def _attributes(self, value: Any) -> dict[str, Any]:
        return {"attrs": self._encoder.node(dict(value.attrs))} if value.attrs else {}

    def _index(self, index: Any) -> dict[str, Any]:
        pandas, encoder = self._pandas, self._encoder
        if isinstance(index, pandas.MultiIndex):
            return {
                "levels": [self._index(level) for level in index.levels],
                "codes": [self._array(encoder, self._plain(codes)) for codes in index.codes],
                "names": [encoder.node(name) for name in index.names],
            }
        name = encoder.node(index.name)
        if isinstance(index, pandas.RangeIndex):
            return {"range": [index.start, index.stop, index.step], "name": name}
        return {"values": self._column(index), "name": name}

    @staticmethod
    def _is_plain(dtype: Any) -> bool:
        return isinstance(dtype, sys.modules["numpy"].dtype)

    @staticmethod
    def _plain(values: Any) -> Any:
        return sys.modules["numpy"].asarray(values)

    def _column(self, holder: Any) -> dict[str, Any]:
        """Return the values of a series or index."""
        pandas, encoder, dtype = self._pandas, self._encoder, holder.dtype
        if self._is_plain(dtype):
            return self._plain_column(self._plain(holder))
        values = holder.array
        if isinstance(dtype, pandas.CategoricalDtype):
            codes = self._array(encoder, self._plain(values.codes))
            return {"codes": codes, "categories": self._index(values.categories), "ordered": bool(values.ordered)}
        if isinstance(dtype, pandas.DatetimeTZDtype):
            moments = self._array(encoder, self._plain(values.tz_convert(None)))
            return {"moments": moments, "tz": self._zone(dtype.tz)}
        if isinstance(dtype, pandas.StringDtype):
            nan = dtype.na_value is not pandas.NA
            return {"strings": self._texts(values), "storage": dtype.storage, "nan": nan}
        if isinstance(dtype, getattr(pandas, "ArrowDtype", ())):
            return {"arrow": arrow_out.node(encoder, values.__arrow_array__(), sys.modules["pyarrow"])["arrow"]}
        return self._masked_column(values)

    def _plain_column(self, values: Any) -> dict[str, Any]:
        if values.dtype.kind != "O":
            return {"array": self._array(self._encoder, values)}
        texts = self._texts(values)
        if texts is not None:
            return {"texts": texts}
        return {"objects": self._encoder.nodes(values, values.tolist())}

    def _masked_column(self, values: Any) -> dict[str, Any]:
        dtype, encoder = values.dtype, self._encoder
        plain = getattr(dtype, "numpy_dtype", None)
        if plain is None or plain.kind not in "biuf":
            raise RefusedError(
                f"a column of dtype {dtype} cannot come out of a container",
                hint=f"convert it: .astype(str) or .to_timestamp(), or {wire.FILES_REMEDY}",
            )
        data = values.to_numpy(dtype=plain, na_value=plain.type(0))
        return {"data": self._array(encoder, data), "mask": self._array(encoder, self._plain(values.isna()))}

    def _texts(self, values: Any) -> list[int] | None:
        """Return texts and what is missing between them as three buffers; None when there is something else."""
        ends, missing, data = words("q"), bytearray(), bytearray()
        for value in values:
            if type(value) is str:
                data += value.encode("utf-8", "surrogatepass")
                missing.append(0)
            else:
                kind = self._missing_kind(value)
                if kind is None:
                    return None
                missing.append(kind)
            ends.append(len(data))
        return [self._encoder.buffer(part) for part in (data, ends, missing)]

    def _missing_kind(self, value: Any) -> int | None:
        """Return 1 for None, 2 for NaN, 3 for NA, 4 for NaT; None for a value."""
        if value is None:
            return 1
        if type(value) is float and value != value:
            return 2
        if value is self._pandas.NA:
            return 3
        return 4 if value is self._pandas.NaT else None

    @staticmethod
    def _zone(zone: Any) -> Any:
        if zone is not None and str(zone) == "UTC":
            return "UTC"
        return timezone_node(zone)
