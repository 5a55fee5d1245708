"""The client's end of a cell's channel: frames of unknown truth, caps, answers; and the payload's end against it."""

import json
import select
import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from container_magic.events import Cleared, Displayed, InputAsked
from container_magic.process import channel as inside
from container_magic.process.channel import LENGTHS, MAX_BODY_BYTES, MAX_HEADER_BYTES
from container_magic.runtime import channel as outside
from container_magic.runtime.channel import Channel, ChannelError, FrameReader


def frame(header, body=b""):
    """Return a frame; a header may be bytes that are no JSON."""
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    return LENGTHS.pack(len(head), len(body)) + head + body


def display(*parts, seq=1, **fields):
    """Return a frame that shows (type, kind, bytes) parts."""
    header = {"op": "display", "seq": seq, "parts": [[name, kind, len(data)] for name, kind, data in parts], **fields}
    return frame(header, b"".join(data for _, _, data in parts))


def text(content=b"x", **fields):
    """Return a frame that shows text."""
    return display(("text/plain", "text", content), **fields)


@pytest.fixture
def ends():
    """Return the client's channel and the payload's socket."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(10)
    with theirs:
        channel = Channel(ours, "safe")
        yield channel, theirs
        channel.close()


def take(channel):
    """Return the events of all that has come."""
    events = []
    while True:
        events += [channel.handle(header, body) for header, body in channel.receive()]
        if not select.select([channel], [], [], 0)[0]:
            return events


def exchange(channel, payload, data):
    """Return the events of ``data``, which may be more than the socket holds."""
    sender = threading.Thread(target=payload.sendall, args=(data,))
    sender.start()
    events = []
    try:
        while sender.is_alive():
            events += take(channel)
        return events + take(channel)
    finally:
        channel.close()
        sender.join()


def answers(end):
    """Return the answers that have come to the payload's end."""
    data = end.recv(1 << 20)
    found = []
    while data:
        head, _ = LENGTHS.unpack_from(data)
        found.append(json.loads(data[LENGTHS.size : LENGTHS.size + head]))
        data = data[LENGTHS.size + head :]
    return found


def test_frames_become_events_and_are_answered(ends):
    """Display, update, result and clear arrive with what they say; each is answered with its number."""
    channel, payload = ends
    payload.sendall(
        text(b"one", seq=1, display_id="a")
        + text(b"two", seq=2, display_id="a", update=True)
        + frame({"op": "result", "seq": 3, "parts": [["text/plain", "text", 5]]}, b"three")
        + frame({"op": "clear", "seq": 4, "wait": True})
    )
    first, second, third, cleared = take(channel)
    assert (first.data, first.display_id, first.update) == ({"text/plain": "one"}, "a", False)
    assert (second.data, second.update) == ({"text/plain": "two"}, True)
    assert (third.data, third.result) == ({"text/plain": "three"}, True)
    assert cleared == Cleared(wait=True)
    assert answers(payload) == [{"op": "ack", "seq": number} for number in (1, 2, 3, 4)]


def test_question_is_answered_by_reply_and_not_before(ends):
    """A question gets no answer but the user's; nobody to ask is null; a reply without a question is none."""
    channel, payload = ends
    channel.reply("to nobody")
    payload.sendall(frame({"op": "input", "seq": 7, "prompt": "name? ", "password": True}))
    assert take(channel) == [InputAsked(prompt="name? ", password=True)]
    channel.reply("half a pair \ud800")
    payload.sendall(frame({"op": "input", "seq": 8}))
    take(channel)
    channel.reply(None)
    assert answers(payload) == [
        {"op": "input", "seq": 7, "text": "half a pair \ud800"},
        {"op": "input", "seq": 8, "text": None},
    ]


@pytest.mark.parametrize(
    "data",
    [
        LENGTHS.pack(MAX_HEADER_BYTES + 1, 0),
        LENGTHS.pack(2**32 - 1, 2**32 - 1),
        LENGTHS.pack(2, MAX_BODY_BYTES + 1),
        frame(b"hello"),
        frame(b"[]"),
        frame(b"{}"),
        frame(b"\xff\xfe{}"),
        frame({"op": "execute", "seq": 1}),
        frame({"op": "clear"}),
        frame({"op": "clear", "seq": -1}),
        frame({"op": "clear", "seq": 2**70}),
        frame({"op": "clear", "seq": 1.5}),
        frame({"op": "clear", "seq": 1, "other": 1}),
        frame({"op": "clear", "seq": 1, "wait": 1}),
        frame({"op": "clear", "seq": 1}, b"x"),
        frame(b'{"op":"display","seq":1,"parts":[],"metadata":{"a":NaN}}'),
        frame(b'{"op":"display","seq":1,"parts":[],"metadata":{"a":' + b"[" * 400_000 + b"]" * 400_000 + b"}}"),
        frame(b'{"op":"input","seq":1,"prompt":"\\ud800"}'),
        frame({"op": "input", "seq": 1, "prompt": "x" * 20_001}),
        frame({"op": "display", "seq": 1, "parts": [["text/plain", "text", 2]]}, b"x"),
        frame({"op": "display", "seq": 1, "parts": [["text/plain", "text", 0]]}, b"x"),
        frame({"op": "display", "seq": 1, "parts": [["text/plain", "text", -1]]}, b"x"),
        frame({"op": "display", "seq": 1, "parts": [["text/plain", "pickle", 1]]}, b"x"),
        frame({"op": "display", "seq": 1, "parts": [["a/b", "text", 0]] * 129}),
        text(display_id="x" * 257),
    ],
    ids=range(25),
)
def test_what_is_no_frame_is_an_error(ends, data):
    """Lengths that lie, headers that are none, bodies that do not fit them: nothing is guessed."""
    with pytest.raises(ChannelError):
        exchange(*ends, data)


def test_lengths_are_checked_before_anything_is_kept():
    """Eight bytes are enough to refuse a frame, and a reader never holds more than it was fed."""
    reader = FrameReader()
    with pytest.raises(ChannelError, match="body has 67108865 bytes"):
        list(reader.feed(LENGTHS.pack(10, MAX_BODY_BYTES + 1)))


def test_half_a_frame_waits_for_its_rest(ends):
    """A frame that is cut is no error until the rest comes, and the end of the stream says that there is none."""
    channel, payload = ends
    whole = text(b"whole")
    payload.sendall(whole[:9])
    assert take(channel) == []
    payload.sendall(whole[9:])
    assert [event.data for event in take(channel)] == [{"text/plain": "whole"}]
    payload.sendall(whole[:-1])
    payload.shutdown(socket.SHUT_WR)
    with pytest.raises(EOFError):
        take(channel)


def test_outputs_beyond_the_caps_are_counted_and_answered(monkeypatch):
    """Number and bytes are bounded, for updates apart; what is beyond is no error."""
    monkeypatch.setattr(outside, "MOST_OUTPUTS", 3)
    monkeypatch.setattr(outside, "MOST_UPDATES", 2)
    monkeypatch.setattr(outside, "MOST_DISPLAY_BYTES", 100)
    ours, theirs = socket.socketpair()
    channel = Channel(ours, "safe")
    with theirs:
        theirs.sendall(text(b"x" * 60) + text(b"x" * 60) + text() * 4 + text(update=True, display_id="a") * 3)
        shown = [event is not None for event in take(channel)]
        assert shown == [True, False, True, True, False, False, True, True, False]
        assert channel.not_shown == 4
        assert len(answers(theirs)) == 9
        channel.close()


def test_flood_is_an_error(monkeypatch):
    """Who sends many times what can be shown is ended."""
    monkeypatch.setattr(outside, "FLOOD_BYTES", 16_000)
    ours, theirs = socket.socketpair()
    channel = Channel(ours, "safe")
    with theirs:
        theirs.sendall(text() * 20)
        with pytest.raises(ChannelError, match="16000 bytes"):
            take(channel)
        channel.close()


def test_payload_that_reads_no_answers_costs_no_memory_and_no_time(ends):
    """Answers that are not read are bounded, and nothing is waited for."""
    channel, payload = ends
    for _ in range(200):
        payload.sendall(frame({"op": "clear", "seq": 1}) * 100)
        take(channel)
    assert len(channel._outbox) < 70_000
    assert channel.events & 4  # it waits to be able to write


def test_json_part_that_is_none_or_too_large_is_left_out(ends):
    """The rest of its bundle is shown."""
    events = exchange(
        *ends,
        display(("a/b", "json", b"{"), ("text/plain", "text", b"1"))
        + display(("a/b", "json", b"[" * 500_000 + b"]" * 500_000), ("text/plain", "text", b"2"))
        + display(("a/b", "json", b" " * (inside.MAX_JSON_BYTES + 1)), ("text/plain", "text", b"3")),
    )
    assert [event.data["text/plain"] for event in events] == ["1", "2", "3"]


@given(data=st.binary(max_size=300), cuts=st.lists(st.integers(1, 50), max_size=20))
def test_reader_takes_any_bytes_in_any_pieces(data, cuts):
    """Random bytes are frames or a ``ChannelError``, nothing else, and never more is held than was fed."""
    reader = FrameReader()
    begin = 0
    try:
        for cut in [*cuts, len(data)]:
            for header, body in reader.feed(data[begin : begin + cut]):
                assert header is not None
                bytes(body)
            begin += cut
            assert len(reader._buffer) <= len(data)
    except ChannelError:
        pass


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(["seq", "parts", "metadata", "display_id", "update", "wait", "prompt", "password", "x"])
SIZES = st.integers(-2, 40)
PARTS = st.lists(
    st.tuples(st.text(max_size=12) | st.just("text/plain"), st.sampled_from(["text", "bytes", "json", "x"]), SIZES),
    max_size=4,
)
HEADERS = st.builds(
    lambda op, seq, fields, parts: {"op": op, "seq": seq, **fields, **({"parts": parts} if parts is not None else {})},
    st.sampled_from(["display", "result", "clear", "input", "done", ""]),
    st.integers(0, 5) | JSON,
    st.dictionaries(FIELDS, JSON, max_size=2),
    st.none() | PARTS,
)


@given(header=HEADERS, body=st.binary(max_size=40))
def test_any_header_and_body_is_an_event_or_an_error(header, body):
    """Whatever JSON a header holds, handling it brings an event, nothing, or ``ChannelError``."""
    ours, theirs = socket.socketpair()
    channel = Channel(ours, "safe")
    with theirs:
        theirs.sendall(frame(header, body))
        try:
            for event in take(channel):
                assert event is None or isinstance(event, (Displayed, Cleared, InputAsked))
                if isinstance(event, Displayed):
                    json.dumps([event.data, event.metadata]).encode()
        except ChannelError:
            pass
        finally:
            channel.close()


@pytest.fixture
def both():
    """Return the payload's channel, whose client handles everything in a thread, and the events of that."""
    ours, theirs = socket.socketpair()
    client = Channel(ours, "safe")
    events, answers, answer = [], [], client._answer
    client._answer = answers.append  # the payload goes on when the event is in the list, not before

    def serve():
        ours.setblocking(True)
        try:
            while True:
                for header, body in client.receive():
                    events.append(client.handle(header, body))
                    if isinstance(events[-1], InputAsked):
                        client.reply(f"answer to {events[-1].prompt}")
                    while answers:
                        answer(answers.pop(0))
        except EOFError:
            client.close()

    thread = threading.Thread(target=serve)
    thread.start()
    payload = inside.Channel(theirs.detach())
    yield payload, events
    payload._socket.close()
    thread.join()


def test_both_ends_understand_each_other(both):
    """What the payload's end sends is what the client's end takes, whatever the values are."""
    payload, events = both
    assert payload.show({"text/plain": "a\ud800b", "x/y": {"a": [1]}, "image/png": b"\x89"}, {"width": 3, "o": object})
    assert payload.show({"text/plain": "r", "n/n": float("nan")}, {"nan": float("nan")}, result=True, display_id="q")
    assert payload.clear(wait=True)
    assert payload.ask("who", password=False) == "answer to who"
    assert [type(event) for event in events] == [Displayed, Displayed, Cleared, InputAsked]
    assert events[0].data["text/plain"] == "a?b"
    assert (events[1].result, events[1].display_id) == (True, "q")


def test_threads_of_the_payload_take_turns(both):
    """Frames of several threads do not mix, and each gets its own answer."""
    payload, events = both
    threads = [
        threading.Thread(target=payload.ask, args=(str(number),), kwargs={"password": False}) for number in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(int(event.prompt) for event in events) == list(range(20))


def test_bundle_that_is_too_large_is_shown_as_a_line(both, monkeypatch):
    """No frame is sent that the client would take for an attack."""
    payload, events = both
    monkeypatch.setattr(inside, "MAX_BODY_BYTES", 10_000)
    monkeypatch.setattr(inside, "MAX_JSON_BYTES", 100)
    assert payload.show({"image/png": "x" * 10_001})
    assert payload.show({"application/json": list(range(1000)), "text/plain": "short"})
    assert "image/png: too large" in events[0].data["text/plain"]
    assert events[1].data == {"text/plain": "short"}


def test_closed_channel_shows_nothing_and_raises_nothing():
    """Code that has closed its descriptors is told that nobody sees it; a question has no answer."""
    ours, theirs = socket.socketpair()
    payload = inside.Channel(theirs.detach())
    ours.close()
    assert payload.show({"text/plain": "x"}) is False
    with pytest.raises(EOFError):
        payload.ask("?", password=False)
    payload._socket.close()
