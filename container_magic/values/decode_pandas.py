"""Frames, series and indexes from checked nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from container_magic.values import decode_arrow, decode_numpy
from container_magic.values.checks import listed
from container_magic.values.wire import RefusedError
from container_magic.values.zones import timezone

if TYPE_CHECKING:
    from container_magic.values.decode import Decoder

_UNITS = ("s", "ms", "us", "ns")
_COLUMN_KINDS = "biufcmM"
_SHOWN = 200
# counted from 1970; a zone may lead a day further
_FIRST_YEAR, _LAST_YEAR = 1 - 1970, 9999 - 1970


class Frames:
    """Makes what is pandas' of one value."""

    def __init__(self, decoder: Decoder) -> None:
        import numpy
        import pandas

        self._decoder = decoder
        self._numpy: Any = numpy
        self._pandas: Any = pandas

    def frame(self, body: Any) -> Any:
        """Return a frame.

        Raises:
            RefusedError: It is not described, or its columns differ in length.
        """
        body = _fields(body, {"index", "columns"}, {"block", "data", "attrs"})
        index, columns = self.index(body["index"]), self.index(body["columns"])
        if "block" in body:
            found = self._pandas.DataFrame(
                self._block(body["block"], (len(index), len(columns))), index=index, copy=False
            )
        else:
            data = [self._sized(one, len(index)) for one in listed(body.get("data"))]
            if len(data) != len(columns):
                raise RefusedError("a frame has another number of columns than of names")
            # a series each, because a frame would guess at the kind of an array of objects
            series = [self._pandas.Series(one, index=index, dtype=one.dtype) for one in data]
            found = self._pandas.DataFrame(dict(enumerate(series)), index=index)
        found.columns = columns
        return self._with_attributes(found, body)

    def _block(self, node: Any, shape: tuple[int, int]) -> Any:
        block = decode_numpy.array(self._decoder, node)
        if block.shape != shape or block.dtype.kind not in "biufc":
            raise RefusedError("a frame's numbers do not fit its index")
        return block

    def series(self, body: Any) -> Any:
        """Return a series.

        Raises:
            RefusedError: It is not described, or does not fit its index.
        """
        body = _fields(body, {"values", "index", "name"}, {"attrs"})
        index = self.index(body["index"])
        found = self._sized(body["values"], len(index))
        name = self._decoder.node(body["name"])
        return self._with_attributes(self._pandas.Series(found, index=index, name=name, dtype=found.dtype), body)

    def _with_attributes(self, found: Any, body: dict[str, Any]) -> Any:
        if "attrs" in body:
            attributes = self._decoder.node(body["attrs"])
            if not isinstance(attributes, dict):
                raise RefusedError("attributes are no dict")
            found.attrs = attributes
        return found

    def index(self, body: Any) -> Any:
        """Return an index.

        Raises:
            RefusedError: It is not described.
        """
        if isinstance(body, dict) and "levels" in body:
            return self._multi_index(_fields(body, {"levels", "codes", "names"}))
        if isinstance(body, dict) and "range" in body:
            return self._range_index(_fields(body, {"range", "name"}))
        body = _fields(body, {"values", "name"})
        values = self._column(body["values"])
        return self._pandas.Index(values, dtype=values.dtype, name=self._decoder.node(body["name"]))

    def _range_index(self, body: dict[str, Any]) -> Any:
        bounds = listed(body["range"])
        if len(bounds) != 3 or any(type(one) is not int or abs(one) >= 2**62 for one in bounds) or not bounds[2]:
            raise RefusedError("a range has no bounds")
        return self._pandas.RangeIndex(*bounds, name=self._decoder.node(body["name"]))

    def _multi_index(self, body: dict[str, Any]) -> Any:
        levels = [self.index(level) for level in listed(body["levels"])]
        codes = [self._codes(node) for node in listed(body["codes"])]
        if any(isinstance(level, self._pandas.MultiIndex) for level in levels):
            raise RefusedError("a level of an index has levels")
        names = self._decoder.nodes(body["names"])
        return self._pandas.MultiIndex(levels=levels, codes=codes, names=names, verify_integrity=True)

    def _codes(self, node: Any) -> Any:
        found = decode_numpy.array(self._decoder, node)
        if found.dtype.kind != "i" or found.ndim != 1:
            raise RefusedError("codes are no whole numbers")
        return found

    def _sized(self, node: Any, length: int) -> Any:
        found = self._column(node)
        if len(found) != length:
            raise RefusedError(f"a column of {len(found)} values stands beside an index of {length}")
        return found

    def _column(self, node: Any) -> Any:
        """Return a one-dimensional array of NumPy or pandas."""
        if not isinstance(node, dict):
            raise RefusedError("a column is not described")
        handler = _COLUMNS.get(frozenset(node))
        if handler is None:
            raise RefusedError(f"a column is of no known kind: {str(sorted(node))[:_SHOWN]}")
        return handler(self, node)

    def _array_column(self, node: dict[str, Any]) -> Any:
        found = decode_numpy.array(self._decoder, node["array"])
        if found.ndim != 1 or found.dtype.kind not in _COLUMN_KINDS:
            raise RefusedError("a column is no list of numbers or times")
        return found

    def _objects_column(self, node: dict[str, Any]) -> Any:
        return self._objects(self._decoder.nodes(node["objects"]))

    def _objects(self, values: list[Any]) -> Any:
        found = self._numpy.empty(len(values), dtype=object)
        for number, value in enumerate(values):
            found[number] = value
        return found

    def _texts_column(self, node: dict[str, Any]) -> Any:
        return self._objects(self._texts(node["texts"]))

    def _strings_column(self, node: dict[str, Any]) -> Any:
        if node["storage"] not in ("python", "pyarrow") or type(node["nan"]) is not bool:
            raise RefusedError("a column of texts is of no known kind")
        missing = float("nan") if node["nan"] else self._pandas.NA
        kind = self._pandas.StringDtype(node["storage"], na_value=missing)
        return self._pandas.array(self._objects(self._texts(node["strings"])), dtype=kind)

    def _texts(self, node: Any) -> list[Any]:
        parts = listed(node)
        if len(parts) != 3:
            raise RefusedError("a column of texts is not described")
        data, ends, missing = map(self._decoder.take, parts)
        if ends.nbytes != 8 * missing.nbytes or (missing.nbytes and max(missing) > 4):
            raise RefusedError("a column of texts does not say where they end")
        absent = (None, float("nan"), self._pandas.NA, self._pandas.NaT)
        found: list[Any] = []
        begin = 0
        for end, kind in zip(ends.cast("q"), missing, strict=True):
            if not begin <= end <= data.nbytes:
                raise RefusedError("a text of a column ends where there is none")
            found.append(absent[kind - 1] if kind else str(data[begin:end], "utf-8", "surrogatepass"))
            begin = end
        return found

    def _categorical_column(self, node: dict[str, Any]) -> Any:
        if type(node["ordered"]) is not bool:
            raise RefusedError("categories are not described")
        codes, categories = self._codes(node["codes"]), self.index(node["categories"])
        return self._pandas.Categorical.from_codes(codes, categories=categories, ordered=node["ordered"])

    def _moments_column(self, node: dict[str, Any]) -> Any:
        found = decode_numpy.array(self._decoder, node["moments"])
        if found.dtype.kind != "M" or found.ndim != 1 or node["tz"] is None:
            raise RefusedError("a column of times is none")
        years = found[~self._numpy.isnat(found)].astype("M8[Y]").astype("i8")
        if years.size and not _FIRST_YEAR < years.min() <= years.max() < _LAST_YEAR:
            raise RefusedError("a time with a zone is outside of what Python's datetime can say")
        return self._pandas.DatetimeIndex(found).tz_localize("UTC").tz_convert(timezone(node["tz"])).array

    def _masked_column(self, node: dict[str, Any]) -> Any:
        data, mask = (decode_numpy.array(self._decoder, node[key]) for key in ("data", "mask"))
        if data.shape != mask.shape or data.ndim != 1 or mask.dtype.kind != "b" or data.dtype.kind not in "biuf":
            raise RefusedError("a column's mask does not fit it")
        arrays = self._pandas.arrays
        kinds = {"b": arrays.BooleanArray, "f": arrays.FloatingArray}
        return kinds.get(data.dtype.kind, arrays.IntegerArray)(data, mask)

    def _arrow_column(self, node: dict[str, Any]) -> Any:
        found = decode_arrow.arrow(self._decoder, node["arrow"])
        return self._pandas.arrays.ArrowExtensionArray(found)

    def timestamp(self, body: Any) -> Any:
        """Return a moment.

        Raises:
            RefusedError: It is none.
        """
        value, unit, zone = listed(body)
        if type(value) is not int or unit not in _UNITS:
            raise RefusedError("a moment is none")
        moment = self._pandas.Timestamp(self._numpy.datetime64(value, unit))
        return moment if zone is None else moment.tz_localize("UTC").tz_convert(timezone(zone))

    def duration(self, body: Any) -> Any:
        """Return a duration.

        Raises:
            RefusedError: It is none.
        """
        value, unit = listed(body)
        if type(value) is not int or unit not in _UNITS:
            raise RefusedError("a duration is none")
        return self._pandas.Timedelta(self._numpy.timedelta64(value, unit))

    def missing(self, body: Any) -> Any:
        """Return what stands for a value that is not there.

        Raises:
            RefusedError: It is nothing of that kind.
        """
        if body not in ("NA", "NaT"):
            raise RefusedError("what is missing is nothing known")
        return self._pandas.NA if body == "NA" else self._pandas.NaT


def _fields(body: Any, needed: set[str], possible: set[str] | frozenset[str] = frozenset()) -> dict[str, Any]:
    if not isinstance(body, dict) or not needed <= set(body) <= needed | possible:
        raise RefusedError("a part of a table is not described")
    return body


_COLUMNS = {
    frozenset({"array"}): Frames._array_column,
    frozenset({"objects"}): Frames._objects_column,
    frozenset({"texts"}): Frames._texts_column,
    frozenset({"strings", "storage", "nan"}): Frames._strings_column,
    frozenset({"codes", "categories", "ordered"}): Frames._categorical_column,
    frozenset({"moments", "tz"}): Frames._moments_column,
    frozenset({"data", "mask"}): Frames._masked_column,
    frozenset({"arrow"}): Frames._arrow_column,
}
