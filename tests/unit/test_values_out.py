"""Values on their way out: what goes in at one end comes out at the other, of the same kind."""

import collections
import datetime
import decimal
import pathlib
import subprocess
import sys
import uuid
import zoneinfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from container_magic.values.assemble import Assembler
from container_magic.values.decode import decode
from container_magic.values.encode import encode
from container_magic.values.wire import RefusedError, chunks


def there_and_back(value, chunk_bytes=4096):
    """Send ``value`` through the whole of it: tree and buffers, the stream, and back."""
    assembler = Assembler()
    for piece in chunks(encode(value), chunk_bytes):
        assembler.feed(piece)
    assert assembler.complete
    return decode(assembler.tree, assembler.buffers)


def same(left, right):
    """Compare as ``==``, types and NaN included."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return repr(left) == repr(right)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    return left == right


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(exclude_categories=())),
    st.binary(),
    st.decimals(allow_nan=False),
    st.dates(),
    st.datetimes(timezones=st.none() | st.timezones() | st.just(datetime.UTC)),
    st.times(),
    st.timedeltas(),
    st.uuids(),
)
KEYS = st.one_of(st.integers(), st.text(), st.binary(), st.tuples(st.integers(), st.text()))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.lists(inner, max_size=5).map(tuple),
        st.dictionaries(KEYS, inner, max_size=5),
        st.sets(KEYS, max_size=5),
        st.frozensets(KEYS, max_size=5),
    ),
    max_leaves=20,
)


@given(VALUES)
@settings(deadline=None)
def test_plain_values_come_back_as_they_were(value):
    """Every nesting of Python's own kinds is the same afterwards, types included."""
    assert same(there_and_back(value), value)


@pytest.mark.parametrize(
    "value",
    [
        2**53 - 1,
        -(2**53),
        10**5000,
        -(10**30),
        float("nan"),
        float("-inf"),
        -0.0,
        5e-324,
        complex(-0.0, float("inf")),
        "\ud83d\ude00",  # two halves, not one character
        "\0" + "x" * 100_000,
        range(10**30, 0, -7),
        decimal.Decimal("-1.50E+400"),
        bytearray(b"abc"),
        datetime.datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
        datetime.time(1, 2, 3, 4, tzinfo=datetime.timezone(datetime.timedelta(minutes=-90))),
        uuid.UUID(int=7),
        pathlib.PurePosixPath("/a/../b"),
        list(range(100_000)),
        {(1, (2, frozenset({3}))): {"deep": [{}, set(), ()]}},
    ],
    ids=lambda value: type(value).__name__,
)
def test_odd_value_comes_back_as_it_was(value):
    """The corners of each kind."""
    assert same(there_and_back(value), value)


def test_kinds_of_dict_come_back_as_dicts():
    """A default factory is code and stays inside; order stays."""
    value = collections.OrderedDict([("b", 1), ("a", collections.Counter("xxy")), ("c", collections.defaultdict(list))])

    assert same(there_and_back(value), {"b": 1, "a": {"x": 2, "y": 1}, "c": {}})


DTYPES = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(endianness="?"),
    hnp.floating_dtypes(endianness="?"),
    hnp.complex_number_dtypes(),
    hnp.datetime64_dtypes(),
    hnp.timedelta64_dtypes(),
    hnp.byte_string_dtypes(),
    hnp.unicode_string_dtypes(),
    hnp.array_dtypes(subtype_strategy=hnp.integer_dtypes() | hnp.unicode_string_dtypes(), max_size=3),
)


@given(hnp.arrays(DTYPES, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0)), st.booleans())
@settings(deadline=None)
def test_arrays_come_back_byte_for_byte(array, transposed):
    """Dtype, shape and bytes are the same, and the array can be written to."""
    array = array.T if transposed else array

    try:
        back = there_and_back(array)
    except RefusedError as error:
        assume("titles" not in error.message)
        raise

    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()
    assert back.flags.writeable


def test_arrays_of_odd_layout():
    """Strides, order and padding are no reason to fail; Fortran's order stays."""
    base = np.arange(24.0).reshape(4, 6)
    padded = np.zeros(2, np.dtype({"names": ["a", "b"], "formats": ["u1", "<f8"], "offsets": [0, 8], "itemsize": 24}))
    reversed_, fortran = there_and_back([base[::-2, ::3], np.asfortranarray(base)])

    np.testing.assert_array_equal(reversed_, base[::-2, ::3])
    np.testing.assert_array_equal(fortran, base)
    assert fortran.flags.f_contiguous
    assert there_and_back(padded).dtype == padded.dtype


@pytest.mark.parametrize(
    "value", [np.float32(1.5), np.bool_(True), np.str_("é"), np.str_(""), np.datetime64("2024-01-01"), np.int64(-1)]
)
def test_numpy_scalar_stays_one(value):
    """Also the empty one, whose dtype has no size."""
    assert same(there_and_back(value), value)


FRAME = pd.DataFrame(
    {
        "int": np.array([1, -2, 3], dtype="i2"),
        "float": [1.5, np.nan, np.inf],
        "bool": [True, False, True],
        "text": pd.Series(["a", "é\ud800", ""], dtype=object),
        "default": ["a", "é", None],
        "holes": pd.Series(["a", None, float("nan")], dtype=object),
        "mixed": pd.Series([1, "b", {"c": [2.5, None]}], dtype=object),
        "naive": pd.to_datetime(["2024-01-01", None, "2024-01-03"]),
        "berlin": pd.to_datetime(["2024-01-01", None, "2024-07-03"]).tz_localize("Europe/Berlin"),
        "fixed": pd.to_datetime(["2024-01-01T00:00:00+02:00"] * 3),
        "delta": pd.to_timedelta(["1s", None, "2D"]),
        "category": pd.Categorical(["x", None, "y"], categories=["y", "x"], ordered=True),
        "nullable": pd.array([1, None, 3], dtype="Int32"),
        "nullable_bool": pd.array([True, None, False], dtype="boolean"),
        "nullable_float": pd.array([1.5, None, 2.5], dtype="Float64"),
        "string": pd.array(["a", None, "c"], dtype=pd.StringDtype("python")),
        "arrow": pd.array([[1], None, [2, 3]], dtype=pd.ArrowDtype(pa.list_(pa.int64()))),
    }
)


@pytest.mark.parametrize("column", FRAME.columns)
def test_column_comes_back_with_its_dtype(column):
    """Each kind of column, in a frame and as a series."""
    pd.testing.assert_frame_equal(there_and_back(FRAME[[column]]), FRAME[[column]])
    pd.testing.assert_series_equal(there_and_back(FRAME[column]), FRAME[column])


@pytest.mark.parametrize(
    "index",
    [
        pd.RangeIndex(5, 2, -1, name="r"),
        pd.Index(["x", "y", "z"], name=("a", 1)),
        pd.Index([1.5, 2.5, np.nan]),
        pd.DatetimeIndex(["2024-01-01", "2024-01-02", "2024-01-04"], tz="UTC", name="t"),
        pd.CategoricalIndex(["a", "b", "a"]),
        pd.MultiIndex.from_tuples([("a", 1), ("a", 2), ("b", np.nan)], names=["k", None]),
    ],
)
def test_index_comes_back_as_it_was(index):
    """As an index of its own, as rows and as columns."""
    pd.testing.assert_index_equal(there_and_back(index), index, exact=True)
    frame = pd.DataFrame(np.arange(9.0).reshape(3, 3), index=index, columns=index)
    pd.testing.assert_frame_equal(there_and_back(frame), frame, check_freq=False)


def test_frame_of_one_kind_is_one_block_that_can_be_written():
    """Numbers alone travel as one array, whatever its order in memory; attributes come along."""
    frame = pd.DataFrame(np.arange(12.0).reshape(4, 3), columns=list("abc"))
    frame.attrs["unit"] = "m"

    back = there_and_back(frame)
    back.loc[0, "a"] = 7.0

    assert len(encode(frame.astype("i8")).buffers) == 2 + 2  # numbers, and the names of the columns
    assert back.attrs == {"unit": "m"}
    assert back.loc[0].tolist() == [7.0, 1.0, 2.0]


@pytest.mark.parametrize("value", [pd.NA, pd.NaT, pd.Timestamp("2024-01-01", tz="Asia/Tokyo"), pd.Timedelta("3h")])
def test_pandas_scalar_comes_back(value):
    """Timestamps keep zone and unit, what is missing stays what it was."""
    back = there_and_back(value)
    assert back is value or (type(back) is type(value) and back == value and str(back) == str(value))


@pytest.mark.parametrize(
    "array",
    [
        pa.array([1, None, 3], pa.int16()),
        pa.array([None, None]),
        pa.array([True, None, False]),
        pa.array([b"x", None, b""], pa.large_binary()),
        pa.array(["x", None, "é"]),
        pa.array([[1, 2], None, []], pa.list_(pa.int8())),
        pa.array([[1, 2], None], pa.list_(pa.int8(), 2)),
        pa.array(
            [{"a": 1, "b": "x"}, None], pa.struct([("a", pa.int64()), pa.field("b", pa.string(), nullable=False)])
        ),
        pa.array(["x", "y", "x", None]).dictionary_encode(),
        pa.array([datetime.datetime(2024, 1, 1)], pa.timestamp("us", "Europe/Berlin")),
        pa.array([datetime.datetime(2024, 1, 1)], pa.timestamp("s", "+02:00")),
        pa.array([decimal.Decimal("1.50")], pa.decimal128(5, 2)),
        pa.array([b"abcd"], pa.binary(4)),
        pa.array([1.5], pa.float32()),
        pa.array([np.float16(1.5)], pa.float16()),
        pa.array([datetime.date(2024, 1, 1)], pa.date64()),
        pa.array([datetime.time(1)], pa.time64("ns")),
        pa.array([datetime.timedelta(1)], pa.duration("ms")),
    ],
    ids=lambda array: str(array.type),
)
def test_arrow_array_comes_back(array):
    """Whole, sliced, in pieces, and as a column of a table."""
    assert there_and_back(array).equals(array)
    sliced = array.slice(1)
    assert there_and_back(sliced).equals(sliced)
    pieces = pa.chunked_array([array, sliced, array])
    assert there_and_back(pieces).equals(pieces)
    table = pa.table({"a": pieces, "b": range(len(pieces))})
    assert there_and_back(table).equals(table)
    batch = pa.record_batch([array], names=["x"])
    assert there_and_back(batch).equals(batch)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "CMYK", "I", "F", "I;16"])
def test_image_comes_back_pixel_for_pixel(mode):
    """Every mode that is accepted, at a width that is no multiple of eight."""
    image = Image.effect_noise((13, 7), 60).convert(mode)

    back = there_and_back(image)

    assert (back.mode, back.size, back.tobytes()) == (mode, (13, 7), image.tobytes())


class Opaque:
    """Something that only its own code can read."""


class Named(collections.namedtuple("Named", "x")):
    """A tuple of its own kind."""


@pytest.mark.parametrize(
    ("value", "words", "remedy"),
    [
        (Opaque(), "Opaque' cannot come out of a container", "--out-file"),
        ([1, {"a": Opaque()}], "Opaque'", "numbers, texts"),
        (Named(1), "Named'", "._asdict()"),
        (len, "builtin_function_or_method'", "--out-file"),
        (np.array([1, object()], dtype=object), "Python objects", ".astype"),
        (np.ma.masked_array([1]), "MaskedArray'", "tolist"),
        (pd.period_range("2024", periods=2, freq="M"), "period[M]", ".astype(str)"),
        (Image.new("P", (1, 1)), "mode P", ".convert"),
        (pa.array([[(1, 2)]], pa.map_(pa.int8(), pa.int8())), "map<", "cast"),
        ([[]] * 3_000_000, "2000000 parts", "array"),
        (1 << 5_000_000, "5000001 bits", "--out-file"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_come_out_is_refused_with_type_and_remedy(value, words, remedy):
    """The message names the type, the hint what to return instead."""
    with pytest.raises(RefusedError) as caught:
        encode(value)

    assert words in caught.value.message
    assert remedy in caught.value.hint


def test_cycle_and_endless_nesting_are_refused():
    """A list in itself, and 10^5 lists in each other."""
    cycle = [1]
    cycle.append({"again": cycle})
    deep = []
    for _ in range(100_000):
        deep = [deep]

    with pytest.raises(RefusedError, match="holds itself"):
        encode(cycle)
    with pytest.raises(RefusedError, match="nested deeper"):
        encode(deep)
    while deep:  # freed level by level
        deep = deep[0]


def test_the_same_thing_twice_is_no_cycle():
    """Two names for one list come out as two lists."""
    shared = [1]
    assert there_and_back([shared, shared]) == [[1], [1]]


def test_encoding_imports_no_package_that_the_object_did_not_need():
    """What a cell pays for returning a number is not the import of pandas."""
    source = """
import sys
from container_magic.values.encode import encode
encode([1, {"a": (2.5, b"x")}])
print(*({name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names)))
"""
    loaded = subprocess.run([sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(pathlib.Path(__file__).parents[2])!r})\n{source}"], capture_output=True, text=True, check=True)  # fmt: skip  # noqa: E501

    assert set(loaded.stdout.split()) <= {"container_magic", "__main__"}


def test_large_array_travels_without_a_copy_of_its_own():
    """The pieces of the stream are the array's own memory."""
    array = np.arange(1_000_000)
    pieces = list(chunks(encode(array), 1024 * 1024))

    assert max(piece.nbytes for piece in pieces) <= 1024 * 1024
    assert any(np.shares_memory(np.frombuffer(piece, "u1"), array) for piece in pieces)
