"""Variables that come back: only those that were asked for, each once, whole and within the cap."""

import os
import select
import socket

import numpy as np
import pytest

from container_magic.errors import OptionError
from container_magic.options import for_shell, from_argv, from_keywords
from container_magic.process import channel as inside
from container_magic.process import exchange
from container_magic.runtime import variables
from container_magic.runtime.channel import Channel, ChannelError
from container_magic.runtime.variables import Returns, Variables
from container_magic.values.encode import encode
from container_magic.values.wire import RefusedError, chunks

PLAIN = for_shell(from_keywords({}).spec, "plain")


def stream(value):
    """Return what travels of a value."""
    return b"".join(chunks(encode(value), 1 << 20))


def feed(returns, name, data, piece_bytes=1 << 20):
    """Feed a stream in pieces, and its end."""
    for begin in range(0, len(data), piece_bytes):
        returns.feed(name, memoryview(data[begin : begin + piece_bytes]), last=False)
    returns.feed(name, memoryview(b""), last=True)


@pytest.mark.parametrize("piece_bytes", [1, 7, 1 << 20])
def test_value_arrives_in_pieces_of_any_size(piece_bytes):
    """Two variables, their pieces one after the other."""
    returns = Returns(["x", "y"])
    feed(returns, "x", stream({"a": [1, 2.5, None]}), piece_bytes)
    assert returns.missing == ("y",)
    feed(returns, "y", stream(np.arange(5)), piece_bytes)
    assert returns.missing == ()
    assert returns.values["x"] == {"a": [1, 2.5, None]}
    assert returns.values["y"].tolist() == [0, 1, 2, 3, 4]


def test_value_that_nobody_asked_for_is_refused():
    """A name of its own choice would overwrite what the notebook has."""
    with pytest.raises(RefusedError, match="nobody waits for a variable 'open'"):
        Returns(["x"]).feed("open", memoryview(b""), last=False)


def test_value_that_comes_twice_is_refused():
    """Each once."""
    returns = Returns(["x"])
    feed(returns, "x", stream(1))
    with pytest.raises(RefusedError, match="nobody waits"):
        feed(returns, "x", stream(2))
    assert returns.values == {"x": 1}


@pytest.mark.parametrize("data", [b"", stream(1)[:-1], stream("x" * 100_000)[:-1]])
def test_value_that_is_cut_short_is_refused(data):
    """``last`` before everything has come."""
    with pytest.raises(RefusedError, match="cut short"):
        feed(Returns(["x"]), "x", data)


def test_bytes_of_all_values_are_capped(monkeypatch):
    """Each may take all that is left, all together no more."""
    monkeypatch.setattr(variables, "MAX_BYTES", 1000)
    monkeypatch.setattr(variables, "_HEAD_BYTES", 100)
    returns = Returns(["x", "y"])
    feed(returns, "x", stream(b"x" * 900))
    with pytest.raises(RefusedError, match="more than 1000 bytes"):
        feed(returns, "y", stream(b"y" * 900))


@pytest.fixture
def ends():
    """Return a client's channel that waits for ``x``, and the payload's end of it."""
    ours, theirs = socket.socketpair()
    client, payload = Channel(ours, "safe", ["x"]), inside.Channel(theirs.detach())
    yield client, payload
    client.close()
    payload._socket.close()


def take(client):
    """Handle all that has come."""
    while select.select([client], [], [], 0)[0]:
        for header, body in client.receive():
            assert client.handle(header, body) is None


def test_values_of_the_payload_reach_the_client(ends):
    """What ``send_out`` sends, ``Returns`` takes; nothing is answered."""
    client, payload = ends
    exchange.send_out(payload, ["x"], {"x": {"n": (1, b"\x00")}})
    take(client)
    assert client.returns.values == {"x": {"n": (1, b"\x00")}}
    payload._socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        payload._socket.recv(1)


def test_nothing_is_sent_when_one_cannot_be(ends):
    """The second is refused: the first does not travel either."""
    client, payload = ends
    with pytest.raises(exchange.OutputError, match="--output y: a 'object' cannot come out") as refused:
        exchange.send_out(payload, ["x", "y"], {"x": 1, "y": object()})
    assert "hint: " in str(refused.value)
    with pytest.raises(NameError, match="--output y: the cell has not defined"):
        exchange.send_out(payload, ["x", "y"], {"x": 1})
    take(client)
    assert client.returns.missing == ("x",)


def test_values_beyond_the_cap_are_the_cells_error(ends, monkeypatch):
    """Inside it is said in time, with the remedy."""
    _, payload = ends
    monkeypatch.setattr(exchange, "MAX_BYTES", 1000)
    with pytest.raises(exchange.OutputError, match=r"too many, accepted are 1000: .*--out-file"):
        exchange.send_out(payload, ["x", "y"], {"x": b"x" * 600, "y": b"y" * 600})


def test_value_that_makes_no_sense_ends_the_channel(ends):
    """What is refused is no frame."""
    client, payload = ends
    payload.send_value("y", b"x")
    with pytest.raises(ChannelError, match="nobody waits"):
        take(client)


def test_pieces_without_bytes_are_counted(ends, monkeypatch):
    """A million of them is a flood."""
    client, payload = ends
    client._flood_bytes_left = 5 * 1024
    for _ in range(6):
        payload.send_value("x", b"")
    with pytest.raises(ChannelError, match="too many pieces"):
        take(client)


def test_next_cell_gets_its_variables_and_the_client_keeps_no_descriptor(ends):
    """They travel with the frame; the first cell's wanted names are forgotten."""
    client, payload = ends
    before = os.listdir("/proc/self/fd")
    given = Variables(PLAIN, ["a"], {"a": [1, 2]}, ["b"])
    client.execute(b"b = a", "safe", given)
    given.close()
    client.execute(b"pass", "safe", None)
    source, fd = payload.next_cell(0)
    namespace = {}
    assert exchange.take_in(fd, namespace) == ("b",)
    assert (source, namespace) == (b"b = a", {"a": [1, 2]})
    assert payload.next_cell(0) == (b"pass", None)
    assert client.returns is None
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_variables_are_closed_once():
    """By whoever comes first; a number that is another file's by then is left alone."""
    given = Variables(PLAIN, [], {}, ["x"])
    given.close()
    other = os.open("/dev/null", os.O_RDONLY)
    given.close()
    os.close(other)


@pytest.mark.parametrize("words", [["-i", "a,b", "-i", "c"], ["--input", "a, b,c"], ["--in=a", "--in=b,c,a"]])
def test_names_of_inputs_are_lists_that_add_up(words):
    """Commas or several options; each name once."""
    assert from_argv(words, "magic").inputs == ("a", "b", "c")


@pytest.mark.parametrize("text", ["", "a,", "a b", "1a", "a.b", "class", "a;b"])
def test_names_that_are_none_are_refused(text):
    """Nothing is started for them."""
    with pytest.raises(OptionError, match="accepted: names of variables"):
        from_argv(["-o", text], "magic")


def test_outputs_are_keywords_and_inputs_are_not():
    """In Python inputs are values, and only ``run`` takes them."""
    assert from_keywords({"output": ["x", "y,z"]}).outputs == ("x", "y", "z")
    with pytest.raises(OptionError, match="input is not an option of a Python call"):
        from_keywords({"input": "x"})


def test_command_line_has_neither():
    """There ``-i`` is Docker's."""
    for name in ("-i", "--input", "-o", "--output"):
        with pytest.raises(OptionError, match="is not an option of contain run"):
            from_argv([name, "x"], "cli")
