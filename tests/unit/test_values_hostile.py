"""Trees and streams that no honest container sends: each is refused, soon, and with nothing big made of it."""

import contextlib
import json
import struct
import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from container_magic.values.assemble import Assembler
from container_magic.values.decode import _KINDS, decode
from container_magic.values.encode import encode
from container_magic.values.wire import MAX_BUFFERS, RefusedError, chunks
from tests.unit.test_values_out import FRAME, VALUES

MIB = 1024 * 1024


def refused(tree, *buffers):
    """Decode a tree that must be refused and return the message."""
    data = tree if isinstance(tree, bytes) else json.dumps(tree).encode()
    with pytest.raises(RefusedError) as caught:
        decode(data, [memoryview(bytearray(one)) for one in buffers])
    return caught.value.message


def array(dtype="<f8", shape=(1,), buffer=0, order="C"):
    """Return the node of an array."""
    return {"array": {"dtype": dtype, "shape": shape, "order": order, "buffer": buffer}}


@pytest.mark.parametrize(
    "node",
    [
        array("O"),
        array("|O"),
        array("object"),
        array("<f8,O"),
        array("f8"),
        array("numpy.float64"),
        array(["<f8"]),
        array(None),
        array("<M8[ns]]"),
        array("<U0", [8]),
        array("|S999999999"),
        array({"names": ["a"], "formats": ["|O"], "offsets": [0], "itemsize": 8}),
        array({"names": ["a"], "formats": ["<f8"], "offsets": [1], "itemsize": 8}),
        array({"names": ["a"], "formats": ["<f8"], "offsets": [-8], "itemsize": 8}),
        array({"names": ["a", "a"], "formats": ["<f4"] * 2, "offsets": [0, 4], "itemsize": 8}),
        array({"names": [], "formats": [], "offsets": [], "itemsize": 8}),
        array({"base": "<f8", "shape": [2**40]}),
        array(shape=[2]),
        array(shape=[-1]),
        array(shape=[2**63]),
        array(shape=[2**32, 2**32]),
        array(shape=[True]),
        array(shape=[1.0]),
        array(shape=[1] * 100),
        array(shape=1),
        array(shape=[0, 2**48, 2**48], buffer=0),
        array(buffer=1),
        array(buffer=-1),
        array(buffer="0"),
        array(order="K"),
        {"scalar": {"dtype": "<f8", "shape": [1], "order": "C", "buffer": 0}},
        {"bytes": 0, "text": 0},
        {"unknown": 1},
        {"__reduce__": ["os.system", "true"]},
        {"int": "0x" + "f" * (5 * MIB)},
        {"int": "1_0"},
        {"float": "1e5"},
        {"decimal": "1" * 20_000},
        {"decimal": "1_0"},
        {"datetime": ["2024-01-01", 0, "../../etc/passwd"]},
        {"datetime": ["2024-01-01", 0, 1e300]},
        {"time": ["25:00", 0, None]},
        {"range": [0, 1, 0]},
        {"range": [0, 1]},
        {"timedelta": [10**18, 0, 0]},
        {"dict": [1, 2, 1, 3]},
        {"dict": [1]},
        {"dict": [[], 1]},
        {"set": [1, True]},
        {"path": 5},
        {"image": ["RGB", 2**31, 2**31, 0]},
        {"image": ["RGB", 2, 2, 0]},
        {"image": ["RGB", -1, 2, 0]},
        {"image": ["P", 8, 1, 0]},
        {"missing": "everything"},
        {"timestamp": [0, "ns", "../x"]},
        {"timestamp": [0, "weeks", None]},
        {"series": {}},
        {"frame": {"index": {"range": [0, 2**61, 1], "name": None}, "columns": {"range": [0, 0, 1], "name": None}}},
        {"index": {"range": [0, 1, 0], "name": None}},
        {"index": {"values": {"array": array("<f8")["array"]}, "name": {"dict": []}}},
        {"index": {"values": {"objects": 5}, "name": None}},
        {"arrow": {"table": {"rows": 1, "fields": [["a", "int64", True]], "columns": [[]]}}},
        {"arrow": {"array": {"rows": 1, "fields": [["a", ["extension", "arrow.json"], True]], "columns": [[]]}}},
        {"arrow": {"array": {"rows": 1, "fields": [["a", "py_buffer", True]], "columns": [[]]}}},
    ],
    ids=lambda node: json.dumps(node)[:60],
)
def test_hostile_node_is_refused(node):
    """Eight bytes are there; the tree says otherwise."""
    refused(node, b"\xff" * 8)


def arrow_node(kind, length, buffers, children=()):
    """Return the node of an Arrow array with one chunk."""
    chunk = {"length": length, "buffers": buffers, "children": list(children)}
    return {"arrow": {"array": {"rows": length, "fields": [["", kind, True]], "columns": [[chunk]]}}}


@pytest.mark.parametrize(
    ("node", "buffers"),
    [
        (arrow_node("int64", 2, [None, 0]), [bytes(8)]),
        (arrow_node("int64", 1, [0]), [bytes(8)]),
        (arrow_node("int64", -1, [None, 0]), [bytes(8)]),
        (arrow_node("int64", 2**62, [None, 0]), [bytes(8)]),
        (arrow_node("null", 2**62, [None]), []),
        (arrow_node("bool", 65, [None, 0]), [bytes(8)]),
        (arrow_node("int64", 9, [0, 1]), [bytes(1), bytes(72)]),
        (arrow_node("string", 1, [None, 0, 1]), [struct.pack("=ii", 0, 100), b"x"]),
        (arrow_node("string", 2, [None, 0, 1]), [struct.pack("=iii", 0, 5, 1), b"xxxxx"]),
        (arrow_node("string", 1, [None, 0, 1]), [struct.pack("=ii", -5, 1), b"x"]),
        (arrow_node("string", 1, [None, 0, 1]), [struct.pack("=ii", 0, 1), b"\xff"]),
        (arrow_node(["list", ["x", "int8", True]], 1, [None, 0], []), [struct.pack("=ii", 0, 1)]),
        (
            arrow_node(
                ["list", ["x", "int8", True]], 1, [None, 0], [{"length": 1, "buffers": [None, 1], "children": []}]
            ),
            [struct.pack("=ii", 0, 9), b"x"],
        ),
        (arrow_node(["fixed_size_binary", 0], 2**40, [None, 0]), [b""]),
        (arrow_node(["timestamp", "ns", "../../x"], 1, [None, 0]), [bytes(8)]),
        (arrow_node(["decimal128", 5, 2], 1, [None, 0]), [b"\xff" * 15 + b"\x7f"]),
        (
            {"arrow": {"array": {"rows": 1, "fields": [["", ["dictionary", "int8", "int8", False], True]], "columns": [[
                {"indices": {"length": 1, "buffers": [None, 0], "children": []},
                 "words": {"length": 1, "buffers": [None, 1], "children": []}}]]}}},
            [b"\x7f", b"x"],
        ),
    ],
    ids=lambda node: json.dumps(node)[:80] if isinstance(node, dict) else "",
)  # fmt: skip
def test_arrow_buffers_that_lie_are_refused(node, buffers):
    """Lengths, offsets and indexes are held against the buffers before anything is read through them."""
    refused(node, *buffers)


def test_bytes_that_are_no_value_of_their_dtype_are_refused():
    """NumPy counts booleans by adding bytes, and Python has no character 2^32 - 1; also inside of records."""
    assert "booleans" in refused(array("|b1", [8]), b"\x02" * 8)
    assert "character" in refused(array("<U2"), b"\xff" * 8)
    assert "character" in refused(array(">U2"), b"\x00\x11\x00\x00" + b"\xff" * 4)
    for plain, offset, size in (("|b1", 3, 4), ("<U1", 0, 4)):
        record = {"names": ["x"], "formats": [plain], "offsets": [offset], "itemsize": size}
        refused(array(record, [2]), b"\xff" * 8)


@pytest.mark.parametrize("dtype", ["<i8", "<M8[s]"])
def test_columns_of_texts_that_lie_are_refused(dtype):
    """Ends that go back, go beyond, or are too few."""

    def column(*ends, missing=b"\0\0", data=b"abc"):
        values = {"texts": [0, 1, 2]}
        name = {"index": {"values": values, "name": None}}
        return refused(name, data, struct.pack(f"={len(ends)}q", *ends), missing)

    column(3, 1)
    column(1, 4)
    column(-1, 2)
    column(1)
    column(1, 2, missing=b"\0\5")
    column(1, 2, data=b"a\xffb")


def test_buffer_is_used_once():
    """Two arrays over the same bytes would change each other, and a thousand would be a bomb."""
    assert "twice" in refused([{"bytes": 0}, {"bytes": 0}], b"x")


@pytest.mark.parametrize(
    "tree",
    [
        b"",
        b"\xff",
        b"nan",
        b"NaN",
        b"[Infinity]",
        b"[1",
        b"1" * 10_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"tuple":' * 100_000 + b"1" + b"}" * 100_000,
        b"[" + b"[]," * 5_000_000 + b"[]]",
        b'{"set":[' + b",".join(b"%d" % (n * (2**61 - 1)) for n in range(20_000)) + b"]}",
    ],
    ids=lambda tree: repr(tree[:20]),
)
def test_trees_that_cost_more_than_they_say(tree):
    """Depth, number and colliding keys are bounded in time and memory."""
    begun = time.process_time()
    tracemalloc.start()
    refused(tree)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 64 * MIB
    assert time.process_time() - begun < 5  # quadratic would be minutes


def test_duplicate_keys_of_json_are_no_second_meaning():
    """The last one counts, and only once."""
    assert decode(b'{"float":"nan","float":"inf"}', []) == float("inf")


NODES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**65), 2**65), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.sampled_from(sorted(_KINDS)),
            inner,
            min_size=1,
            max_size=1,
        ),
        st.fixed_dictionaries(
            {
                "array": st.fixed_dictionaries(
                    {
                        "dtype": st.sampled_from(["<f8", "|b1", "<U2", "<M8[ns]", "|S3", "O"]) | inner,
                        "shape": st.lists(st.integers(-1, 9), max_size=3) | inner,
                        "order": st.sampled_from("CFK"),
                        "buffer": st.integers(-1, 3) | inner,
                    }
                )
            }
        ),
    ),
    max_leaves=15,
)


@given(NODES, st.lists(st.binary(max_size=40), max_size=3))
@settings(deadline=None, max_examples=400)
def test_any_tree_is_a_value_or_refused(tree, buffers):
    """Nothing but a refusal ever comes of it."""
    with contextlib.suppress(RefusedError):
        repr(decode(json.dumps(tree).encode(), [memoryview(bytearray(one)) for one in buffers]))


def _mutated(node, draw):
    """Return ``node`` with one leaf replaced by something else."""
    if isinstance(node, (dict, list)) and node and draw(st.integers(0, 5)):
        keys = list(node) if isinstance(node, dict) else range(len(node))
        key = draw(st.sampled_from(list(keys)))
        copy = node.copy()
        copy[key] = _mutated(node[key], draw)
        return copy
    return draw(st.sampled_from([None, True, -1, 0, 1, 2**62, 2**70, 0.5, "", "<f8", "O", [], {}, [0], {"bytes": 0}]))


@given(st.data(), st.sampled_from(list(FRAME.columns)) | VALUES)
@settings(deadline=None, max_examples=300)
def test_value_with_one_part_changed_is_a_value_or_refused(data, value):
    """An honest tree, one place in it replaced, and one byte of its buffers."""
    encoded = encode(FRAME[[value]] if isinstance(value, str) and value in FRAME else value)
    tree = _mutated(json.loads(encoded.tree), data.draw)
    buffers = [bytearray(part) for part in encoded.buffers]
    if any(buffers):
        chosen = data.draw(st.sampled_from([one for one in buffers if one]))
        chosen[data.draw(st.integers(0, len(chosen) - 1))] ^= data.draw(st.integers(0, 255))

    with contextlib.suppress(RefusedError):
        repr(decode(json.dumps(tree).encode(), [memoryview(one) for one in buffers]))


@given(st.data())
@settings(deadline=None)
def test_stream_in_pieces_of_any_size_is_the_same(data):
    """Where the pieces are cut means nothing."""
    encoded = encode([b"x" * 100, b"", b"y" * 5, "z"])
    stream = b"".join(chunks(encoded, 64))
    assembler = Assembler()
    while stream:
        cut = data.draw(st.integers(1, 40))
        assert not assembler.complete
        assembler.feed(stream[:cut])
        stream = stream[cut:]

    assert assembler.complete
    assert decode(assembler.tree, assembler.buffers) == [b"x" * 100, b"", b"y" * 5, "z"]


@pytest.mark.parametrize(
    "stream",
    [
        struct.pack("=QQ", 2**40, 0),
        struct.pack("=QQ", 2, MAX_BUFFERS + 1),
        struct.pack("=QQQ", 2, 1, 2**63),
        struct.pack("=QQQQ", 2, 2, 2**32, 2**63),
        struct.pack("=QQ", 2, 0) + b"[]more",
        struct.pack("=QQ", 0, 0) + b"x",
    ],
)
def test_stream_that_announces_too_much_is_refused(stream):
    """Before memory is taken for it; and what follows a value belongs to nothing."""
    with pytest.raises(RefusedError):
        Assembler().feed(stream)


def test_length_that_lies_costs_nothing():
    """Three gigabytes are announced and one byte comes: no memory is taken for the rest."""
    assembler = Assembler(4 * 1024**3)
    resident = _resident_bytes()
    assembler.feed(struct.pack("=QQQ", 2, 1, 3 * 1024**3) + b"[]x")

    assert not assembler.complete
    assert _resident_bytes() - resident < 64 * MIB


def _resident_bytes():
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096
