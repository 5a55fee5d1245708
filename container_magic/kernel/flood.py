"""How much, and how fast, a kernel's messages come to its clients: caps for each cell, one pace for all of them.

Stands before the filter: what is not shown is not cleaned either, so that a flood of pictures takes no time. Nothing
waits as long as there is room in the last three seconds. What waits keeps its order; text is joined to text that waits,
and an update that a later one overtakes is not sent. The end of a cell waits for nothing: what waits then goes at once,
and is so little that a Jupyter server does not drop it. To hold a cell's end back until all of it has gone at the
server's pace would take eight seconds for 8 MB, everywhere, also where there is no such server.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator
from dataclasses import field, replace
from typing import Any

import msgspec

from container_magic.deferred import dataclass
from container_magic.kernel.message import Message
from container_magic.kernel.pace import MESSAGE_BYTES, Window
from container_magic.kernel.waiting import CANCEL, PIECE_BYTES, WAITING_BYTES, Waiting, whole
from container_magic.runtime.channel import MOST_DISPLAY_BYTES, MOST_OUTPUTS, MOST_UPDATES
from container_magic.runtime.output import OutputGate

CELLS = 256
"""Cells whose caps are remembered; the one that is heard of longest ago is forgotten."""
MOST_SIGNALS = 1000
"""Statuses, errors and the like of one cell; a kernel sends a handful."""

_KEYS = 64
_AT_ONCE = frozenset({"status", "execute_input", "error", "input_request", "shutdown_reply"})
_OUTPUTS = frozenset({"display_data", "execute_result"})
_CLEARED = _OUTPUTS | {"stream", "clear_output"}


@dataclass(kw_only=True)
class _Cell:
    """What one cell has shown and what not."""

    gate: OutputGate
    left: dict[str, int]
    bytes_left: int = MOST_DISPLAY_BYTES
    lost_bytes: int = 0
    lost: int = 0
    ended: bool = False
    said: bool = False
    last: Message | None = field(default=None, repr=False)


class FloodGate:
    """The caps and the pace of one kernel.

    Once all that has come is admitted, ``release`` gives what may go now; a poll loop waits ``next_release_seconds``.
    Before a reply goes on another channel, ``flush`` gives what belongs before it.

    Args:
        output_bytes: How much text of one cell is shown: the first of it and, when it is over, the last.
        paced: Whether a Jupyter server stands between, which drops what comes faster.
    """

    def __init__(self, output_bytes: int, *, paced: bool = True) -> None:
        self._output_bytes = output_bytes
        self._paced = paced
        self._cells: collections.OrderedDict[str, _Cell] = collections.OrderedDict()
        self._window = Window()
        self._waiting = Waiting(self._count_lost, WAITING_BYTES if paced else max(WAITING_BYTES, output_bytes))

    def admit(self, message: Message, size_bytes: int, now_seconds: float) -> list[Message]:
        """Take a message of iopub or stdin and return what has to go at once: often nothing, in order.

        ``size_bytes`` is what the message took on the wire.
        """
        cell = self._cell(message.parent_id)
        if message.msg_type == "stream" and _is_text(message):
            return self._admit_text(cell, message, now_seconds)
        if message.msg_type in _AT_ONCE:
            return self._admit_signal(cell, message, now_seconds)
        return self._admit_display(cell, message, size_bytes, now_seconds)

    def release(self, now_seconds: float) -> list[Message]:
        """Return what may go now."""
        released = []
        while self._waiting and (room := self._room_bytes(now_seconds)) > 0:
            released.append(self._counted(self._waiting.take(room), now_seconds))
        return released

    def flush(self, now_seconds: float) -> list[Message]:
        """Return all that waits: a reply is about to go."""
        return [self._counted(message, now_seconds) for message in self._waiting.take_all()]

    def next_release_seconds(self, now_seconds: float) -> float | None:
        """Return in how many seconds ``release`` has something; None: not before something is admitted."""
        if not self._waiting:
            return None
        return 0.0 if self._room_bytes(now_seconds) > 0 else self._window.next_seconds(now_seconds)

    def _room_bytes(self, now_seconds: float) -> int:
        return self._window.room_bytes(now_seconds) if self._paced else self._output_bytes + 1

    def _admit_text(self, cell: _Cell, message: Message, now_seconds: float) -> list[Message]:
        name, data = message.content["name"], message.content["text"].encode("utf-8", "replace")
        cell.last = message
        released = []
        shown = sum(len(output.data) for output in cell.gate.feed(name, data))
        end_shown = shown
        while 0 < end_shown < len(data) and data[end_shown] & 0xC0 == 0x80:
            end_shown -= 1  # the cap falls into a character
        cell.gate.skip(name, shown - end_shown)
        for begin, end in _pieces(data, end_shown):
            released += self._make_room(end - begin, now_seconds)
            self._waiting.add_text(message, data[begin:end], 0)
        if cell.ended:
            # no other end will come that could show what is kept back
            cell.gate.finish()
            self._lose_late(cell, message, len(data) - shown)
        return released

    def _make_room(self, text_bytes: int, now_seconds: float) -> list[Message]:
        """Return what may go now if the queue would else leave something out."""
        return self.release(now_seconds) if self._waiting.is_full(text_bytes) else []

    def _lose_late(self, cell: _Cell, message: Message, count: int) -> None:
        if count and not cell.said:
            cell.said = True
            text = "[more of what this cell writes after its end is not shown]\n"
            self._waiting.add(_note(message, text), 0)

    def _admit_signal(self, cell: _Cell, message: Message, now_seconds: float) -> list[Message]:
        idle = message.msg_type == "status" and message.content.get("execution_state") == "idle"
        if cell.left["signals"] <= 0 and (cell.ended or not idle):
            return []
        cell.left["signals"] -= 1
        released = self._finish(cell, message, now_seconds) if idle else self.flush(now_seconds)
        if idle:
            self._window.reset()
        return [*released, message]

    def _admit_display(self, cell: _Cell, message: Message, size_bytes: int, now_seconds: float) -> list[Message]:
        kind = "outputs" if message.msg_type in _OUTPUTS else "updates"
        if cell.left[kind] <= 0 or size_bytes > cell.bytes_left:
            cell.lost += 1
            return []
        cell.left[kind] -= 1
        cell.bytes_left -= size_bytes
        if message.msg_type == "comm_open":
            return [message]  # a server does not count it, and what waits does not need to come before it
        if message.msg_type == "clear_output":
            cell.left["outputs"] = MOST_OUTPUTS
            self._waiting.forget(message.parent_id, _CLEARED)
        released = self._make_room(0, now_seconds)
        self._waiting.add(message, size_bytes, _key(message))
        return released

    def _finish(self, cell: _Cell, message: Message, now_seconds: float) -> list[Message]:
        """Let all go, also what was kept back for the end of the cell, and say what was left out."""
        if cell.ended:
            return self.flush(now_seconds)
        cell.ended = True
        released = []
        for output in cell.gate.finish():
            cell.lost_bytes += output.dropped_bytes
            stream = replace(cell.last or message, content={"name": output.stream, "text": ""})
            released += self._make_room(len(output.data), now_seconds)
            self._waiting.add_text(stream, output.data, output.dropped_bytes)
        cell.last = None
        released += self.flush(now_seconds)
        lost = [f"{cell.lost_bytes:,} bytes of text"] if cell.lost_bytes else []
        lost += [f"{cell.lost:,} outputs"] if cell.lost else []
        if lost:
            what = " and ".join(lost)
            text = f"[{what} of this cell are not shown: they were too many, or came too fast for a page]\n"
            released.append(_note(message, text))
        return released

    def _count_lost(self, message: Message, text_bytes: int | None) -> None:
        cell = self._cells.get(message.parent_id)
        if cell is not None and text_bytes is None:
            cell.lost += 1
        elif cell is not None:
            cell.lost_bytes += text_bytes or 0

    def _counted(self, message: Message, now_seconds: float) -> Message:
        size = 0
        if message.msg_type == "stream" and _is_text(message):
            size = len(msgspec.json.encode(message.content["text"])) + MESSAGE_BYTES
        self._window.add(now_seconds, size)
        return message

    def _cell(self, parent: str) -> _Cell:
        cell = self._cells.get(parent)
        if cell is None:
            gate = OutputGate(self._output_bytes, most_kept_bytes=WAITING_BYTES if self._paced else None)
            left = {"outputs": MOST_OUTPUTS, "updates": MOST_UPDATES, "signals": MOST_SIGNALS}
            cell = self._cells[parent] = _Cell(gate=gate, left=left)
        self._cells.move_to_end(parent)
        if len(self._cells) > CELLS:
            self._cells.popitem(last=False)
        return cell


def _pieces(data: bytes, end: int) -> Iterator[tuple[int, int]]:
    """Yield where to cut the first ``end`` bytes into pieces of whole characters."""
    begin = 0
    while begin < end:
        yield begin, (begin := whole(data, min(end, begin + PIECE_BYTES)))


def _is_text(message: Message) -> bool:
    content = message.content
    return content.get("name") in ("stdout", "stderr") and isinstance(content.get("text"), str)


def _key(message: Message) -> tuple[Any, ...] | None:
    """Return what makes a later message stand for this one: the output that it updates, the state that it sets."""
    content = message.content
    if message.msg_type == "update_display_data":
        transient = content.get("transient")
        name = transient.get("display_id") if isinstance(transient, dict) else None
        return ("display", message.parent_id, name) if isinstance(name, str) else None
    if message.msg_type == "comm_msg" and not message.buffers:
        comm, data = content.get("comm_id"), content.get("data")
        if not isinstance(comm, str) or not isinstance(data, dict) or data.get("method") != "update":
            return None
        state = data.get("state")
        if isinstance(state, dict) and len(state) <= _KEYS:
            return ("comm", message.parent_id, comm, *sorted(state))
    return None


def _note(message: Message, text: str) -> Message:
    content = {"name": "stderr", "text": CANCEL + text}
    return replace(
        message, msg_type="stream", msg_id=f"{message.msg_id}-flood", metadata={}, content=content, buffers=()
    )
