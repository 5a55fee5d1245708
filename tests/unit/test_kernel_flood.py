"""Floods through the relay: what is shown is bounded, comes in order, and a Jupyter server drops nothing of it."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_kernel_widgets import JSON, message

from container_magic.kernel.filter import Filter
from container_magic.kernel.flood import CELLS, MOST_SIGNALS, FloodGate
from container_magic.kernel.pace import MESSAGE_BYTES
from container_magic.kernel.waiting import WAITING_BYTES, WAITING_MESSAGES
from container_magic.runtime.channel import MOST_DISPLAY_BYTES, MOST_OUTPUTS, MOST_UPDATES

CAP = 8 << 20
MARKER = re.compile(r"\x18\n\[\.\.\. ([\d,]+) bytes not shown \.\.\.\]\n")
NOTE = re.compile(r"\x18\[.*not shown.*\]\n")


class Server:
    """A Jupyter server's limits on iopub, as ``ZMQChannelsWebsocketConnection._limit_rate`` has them."""

    def __init__(self):
        self.window = []
        self.dropped = []

    def take(self, one, now):
        """Count a message; note it when it would be dropped."""
        if one.msg_type == "status" and one.content.get("execution_state") == "idle":
            self.window = []
        if one.msg_type in {"status", "comm_open", "execute_input"}:
            return
        text = one.content.get("text", "") if one.msg_type == "stream" else None
        size = (
            0 if text is None else len(json.dumps(text, ensure_ascii=False).encode("utf-8", "replace")) + MESSAGE_BYTES
        )
        self.window = [(then, size) for then, size in self.window if now < then + 3.0]
        self.window.append((now, size))
        if len(self.window) / 3.0 > 1000 or sum(size for _, size in self.window) / 3.0 > 1_000_000:
            self.dropped.append(one)


class Relay:
    """Drives a gate as the relay does, with a clock of its own."""

    def __init__(self, output_bytes=CAP):
        self.gate = FloodGate(output_bytes)
        self.server = Server()
        self.now = 1000.0
        self.sent = []

    def send(self, messages):
        """Send messages to the client."""
        for one in messages:
            self.sent.append(one)
            self.server.take(one, self.now)

    def come(self, *messages, seconds=0.0, size=100):
        """Let messages come at once, and time pass."""
        for one in messages:
            self.send(self.gate.admit(one, size, self.now))
        self.send(self.gate.release(self.now))
        self.wait(seconds)

    def wait(self, seconds):
        """Let time pass, and wake when the gate asks for it."""
        end = self.now + seconds
        while (pause := self.gate.next_release_seconds(self.now)) is not None and self.now + pause <= end:
            self.now += pause
            before = len(self.sent)
            self.send(self.gate.release(self.now))
            assert len(self.sent) > before or pause > 0
        self.now = end

    def text(self, name="stdout", parent="cell"):
        """Return the text of one stream."""
        found = [one for one in self.sent if one.msg_type == "stream" and one.parent_id == parent]
        found = [one for one in found if isinstance(one.content.get("text"), str)]
        return "".join(one.content["text"] for one in found if one.content.get("name") == name)


def stream(text, name="stdout", parent="cell"):
    """Return a message with text."""
    return message("stream", {"name": name, "text": text}, parent=parent)


def idle(parent="cell"):
    """Return the end of a cell."""
    return message("status", {"execution_state": "idle"}, parent=parent)


def display(number, parent="cell", kind="display_data"):
    """Return an output."""
    return message(kind, {"data": {"text/plain": str(number)}, "metadata": {}, "transient": {}}, parent=parent)


def test_what_is_little_goes_at_once_and_as_it_came():
    """Each message leaves with the batch it came in, in order, unchanged."""
    relay = Relay()
    batches = [[stream("a")], [display(1), stream("b"), stream("c", "stderr")], [display(2)]]
    for batch in batches:
        relay.come(*batch)
        assert relay.sent[-len(batch) :] == batch
    relay.come(idle())
    assert relay.sent == [one for batch in batches for one in batch] + [idle()]


def test_text_that_comes_together_goes_together():
    """A thousand prints are one message; another stream or an output between them is not overtaken."""
    relay = Relay()
    relay.come(*[stream(f"{number}\n") for number in range(1000)])
    assert [one.content["text"] for one in relay.sent] == ["".join(f"{number}\n" for number in range(1000))]
    relay = Relay()
    relay.come(stream("a"), stream("b"), stream("c", "stderr"), display(1), stream("d"), stream("e", parent="other"))
    kinds = [(one.parent_id, one.content.get("name"), one.content.get("text")) for one in relay.sent]
    first = [("cell", "stdout", "ab"), ("cell", "stderr", "c"), ("cell", None, None), ("cell", "stdout", "d")]
    assert kinds == [*first, ("other", "stdout", "e")]


def test_a_flood_of_text_ends_with_its_cell_and_a_server_drops_nothing():
    """Of 10 MB at once the first 2 MB and the last lines are shown; the markers and the note say how much is not."""
    relay = Relay()
    line = "é" * 39 + "\n"
    lines = [f"{number:06}{line}" for number in range(10_000_000 // 85)]
    for begin in range(0, len(lines), 100):
        relay.come(stream("".join(lines[begin : begin + 100])), seconds=1e-4)
    relay.come(idle())
    whole, shown = "".join(lines), relay.text()
    head, tail = MARKER.split(shown)[0], MARKER.split(shown)[-1]
    missing = sum(int(found.replace(",", "")) for found in MARKER.findall(shown))
    assert relay.sent[-1] == idle()
    assert relay.server.dropped == []
    assert whole.startswith(head)
    assert whole.endswith(tail)
    assert len(head.encode()) > 2_000_000
    assert len(tail.encode()) > WAITING_BYTES - 100
    assert missing == len(whole.encode()) - len(MARKER.sub("", shown).encode())
    assert NOTE.fullmatch(relay.text("stderr"))
    assert f"{missing:,} bytes of text" in relay.text("stderr")


def test_what_waits_is_shown_as_time_goes_by():
    """Half a megabyte a second, for a quarter of a minute: all of it comes, and little later."""
    relay = Relay()
    second = "x" * 79 + "\n"
    for _ in range(150):
        relay.come(stream(second * 625), seconds=0.1)
    assert len(relay.text()) > 14 * 500_000
    relay.wait(5)
    assert relay.text() == second * 625 * 150
    relay.come(idle())
    assert relay.sent[-1] == idle()
    assert relay.server.dropped == []
    assert relay.text("stderr") == ""


def test_text_of_a_cell_is_capped_and_its_end_is_kept():
    """Slowly or not, no more than the cap; the last lines are shown when the cell is over."""
    relay = Relay(output_bytes=1 << 20)
    for number in range(200):
        relay.come(stream(f"{number:05}" + "x" * 9994 + "\n"), seconds=1.0)
    before = len(relay.text())
    relay.come(idle())
    assert before <= 1 << 20
    assert len(MARKER.sub("", relay.text())) == 1 << 20
    assert relay.text().endswith("x\n")
    assert "00199x" in relay.text()
    assert "bytes of text of this cell are not shown" in relay.text("stderr")


def test_outputs_are_capped_and_counted():
    """The note at the end of the cell says how many were not shown; a cleared cell may show as many again."""
    relay = Relay()
    for number in range(MOST_OUTPUTS + 7):
        relay.come(display(number), seconds=0.01)
    relay.come(idle(), message("clear_output", {"wait": False}), display("next"))
    shown = [one for one in relay.sent if one.msg_type == "display_data"]
    assert len(shown) == MOST_OUTPUTS + 1
    assert "[7 outputs of this cell are not shown" in relay.text("stderr")
    assert relay.server.dropped == []


def test_bytes_of_outputs_are_capped():
    """What is beyond is not even cleaned."""
    relay = Relay()
    relay.come(display(1), size=MOST_DISPLAY_BYTES - 10)
    relay.come(display(2), size=11)
    relay.come(display(3), size=10)
    assert [one.content["data"]["text/plain"] for one in relay.sent] == ["1", "3"]


@pytest.mark.parametrize("what", ["update", "widget", "clear"])
def test_a_flood_of_updates_shows_the_last(what):
    """A server drops none of what is sent; what is overtaken is not sent, and not counted as missing."""
    relay = Relay()

    def update(number):
        if what == "update":
            content = {"data": {"text/plain": str(number)}, "metadata": {}, "transient": {"display_id": "bar"}}
            return [message("update_display_data", content)]
        if what == "widget":
            data = {"method": "update", "state": {"value": number}, "buffer_paths": []}
            return [message("comm_msg", {"comm_id": "bar", "data": data})]
        return [message("clear_output", {"wait": True}), display(number)]

    for number in range(9000):
        relay.come(*update(number), seconds=1e-4)
    relay.come(idle())
    last = [one for one in relay.sent if one.msg_type != "stream"][-2]
    assert last == update(8999)[-1]
    assert relay.server.dropped == []
    assert relay.text("stderr") == ""
    assert len(relay.sent) < 3000


def test_updates_are_capped():
    """A cell that updates for ever is silenced, and says so at its end."""
    relay = Relay()
    for _ in range(MOST_UPDATES + 3):
        relay.come(message("clear_output", {"wait": True}), seconds=0.01)
    relay.come(idle())
    assert "[3 outputs of this cell" in relay.text("stderr")


def test_many_different_messages_wait_in_a_bounded_queue():
    """The oldest are left out and counted."""
    relay = Relay()
    for number in range(6000):
        data = {"method": "custom", "content": number}
        relay.come(message("comm_msg", {"comm_id": "x", "data": data}), seconds=1e-5)
    relay.come(idle())
    sent = [one.content["data"]["content"] for one in relay.sent if one.msg_type == "comm_msg"]
    assert sent == sorted(sent)
    assert sent[-WAITING_MESSAGES + 1 :] == list(range(6000 - WAITING_MESSAGES + 1, 6000))
    assert f"[{6000 - len(sent):,} outputs of this cell" in relay.text("stderr")
    assert relay.server.dropped == []


@pytest.mark.parametrize("kind", ["error", "execute_input", "input_request", "status"])
def test_signals_are_never_withheld_and_come_after_what_was_said_before(kind):
    """Also while text waits."""
    relay = Relay()
    relay.come(stream("x" * 5_000_000))
    signal = message(kind, {"execution_state": "busy"})
    relay.come(signal)
    assert relay.sent[-1] == signal
    assert relay.text().endswith("x")
    assert relay.gate.next_release_seconds(relay.now) is None


def test_the_end_of_a_cell_passes_whatever_came_before():
    """A flood of statuses is capped; the first idle is not part of it."""
    relay = Relay()
    relay.come(*[message("status", {"execution_state": "busy"}) for _ in range(3 * MOST_SIGNALS)])
    assert len(relay.sent) == MOST_SIGNALS
    relay.come(idle(), idle())
    assert relay.sent[MOST_SIGNALS:] == [idle()]


def test_a_reply_can_be_sent_after_all_that_waits():
    """``flush`` empties the queue."""
    relay = Relay()
    relay.come(stream("x" * 5_000_000))
    assert relay.gate.next_release_seconds(relay.now) > 0
    assert relay.gate.flush(relay.now) != []
    assert relay.gate.next_release_seconds(relay.now) is None


def test_a_new_widget_waits_for_nothing():
    """A server does not count it, and what refers to it comes later."""
    relay = Relay()
    relay.come(stream("x" * 5_000_000))
    opened = message("comm_open", {"comm_id": "x"})
    assert relay.gate.admit(opened, 10, relay.now) == [opened]


def test_text_after_the_end_is_capped_with_the_cell_and_said_once():
    """A thread that goes on to write has what the cell has left."""
    relay = Relay(output_bytes=1000)
    relay.come(stream("a" * 500), idle())
    for _ in range(100):
        relay.come(stream("b" * 100), seconds=1)
    assert len(relay.text()) <= 1000
    assert relay.text().endswith("b")
    assert relay.text("stderr") == "\x18[more of what this cell writes after its end is not shown]\n"


def test_markers_are_text_whatever_was_left_unfinished_before_them():
    """A sequence that the code begins and that is cut does not swallow them."""
    relay, checked = Relay(output_bytes=400), Filter("safe", False)
    relay.come(stream("x" * 290 + "\x1b]0;"), stream("y" * 5000 + "\x07"), idle())
    shown = "".join(
        out.content["text"]
        for one in relay.sent
        for out in checked.clean("iopub", one)
        if out.msg_type == "stream" and out.content["name"] == "stdout"
    )
    assert "bytes not shown ...]" in shown
    assert "\x18" not in shown
    assert "\x1b" not in shown


def test_cells_are_forgotten_in_the_end():
    """As many parents as one likes: the gate remembers the last."""
    gate = FloodGate(CAP)
    for number in range(3 * CELLS):
        gate.admit(stream("x", parent=str(number)), 10, 0.0)
        gate.release(0.0)
    assert len(gate._cells) == CELLS


def test_single_characters_cost_no_object_each():
    """A megabyte that comes byte by byte waits in a few hundred pieces."""
    relay = Relay(output_bytes=1 << 20)
    relay.come(stream("x" * 4_000_000, parent="other"))
    for _ in range(200_000):
        relay.gate.admit(stream("x"), 1, relay.now)
    (entry,) = [entry for entry in relay.gate._waiting._entries.values() if entry.message.parent_id == "cell"]
    assert len(entry.pieces) < 100


KINDS = ["stream", "status", "error", "display_data", "update_display_data", "clear_output", "comm_msg", "evil"]
CONTENTS = (
    st.fixed_dictionaries({"name": st.sampled_from(["stdout", "stderr"]), "text": st.text(max_size=50)})
    | st.dictionaries(st.sampled_from(["name", "text", "transient", "data", "comm_id", "execution_state"]), JSON)
    | st.just({"execution_state": "idle"})
    | st.fixed_dictionaries({"transient": st.fixed_dictionaries({"display_id": JSON})})
)
STEPS = st.tuples(st.sampled_from(KINDS), CONTENTS, st.sampled_from("ab"), st.integers(0, 30 << 20), st.floats(0, 2))


@settings(max_examples=200, deadline=None)
@given(st.lists(STEPS, max_size=40), st.integers(1, 500))
def test_whatever_comes_nothing_is_raised_or_invented(steps, output_bytes):
    """What goes out has come in: other messages in their order, and of text the pieces in theirs."""
    relay = Relay(output_bytes=output_bytes)
    came = []
    for number, (kind, content, parent, size, seconds) in enumerate(steps):
        one = message(kind, content, metadata={"number": number}, parent=parent)
        came.append(one)
        relay.come(one, size=size, seconds=seconds)
    relay.wait(10)
    assert relay.gate.next_release_seconds(relay.now) is None
    others = [one.metadata["number"] for one in relay.sent if "text" not in one.content]
    assert others == sorted(set(others))
    assert set(others) <= set(range(len(came)))
    for name in ("stdout", "stderr"):
        for parent in "ab":
            texts = [one for one in came if one.msg_type == "stream" and one.content.get("name") == name]
            texts = [one.content.get("text") for one in texts if one.parent_id == parent]
            whole = "".join(text for text in texts if isinstance(text, str))
            shown = NOTE.sub("", MARKER.sub("", relay.text(name, parent)))
            shown = re.sub(r"\x18\[more of .*\]\n", "", shown)
            assert len(shown.encode("utf-8", "replace")) <= len(whole.encode("utf-8", "replace")) + 60
