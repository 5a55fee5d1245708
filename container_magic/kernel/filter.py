"""What comes from inside, message by message -> what may go to a client; an allow-list by channel and type.

A client trusts its kernel: it renders what the kernel shows in a page that holds the user's token. So each message is
built anew from the fields that the protocol has for it. What is not shown is said once for each cell.
"""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import field, replace
from typing import Any, Literal

import msgspec

from container_magic.deferred import dataclass
from container_magic.kernel import replies, shape
from container_magic.kernel.message import Message
from container_magic.kernel.outputs import WIDGETS_OFF, Outputs
from container_magic.kernel.widgets import Widgets
from container_magic.sanitize.bundle import HtmlMode
from container_magic.sanitize.escapes import EscapeFilter
from container_magic.sanitize.text import as_text

Channel = Literal["shell", "iopub", "control", "stdin"]

CELLS = 64
"""Cells whose notes and unfinished escape sequences are remembered."""
NOTES = 20
CODE_CHARACTERS = 4 << 20
STREAM_CHARACTERS = 16 << 20
_COMMS = frozenset({"comm_open", "comm_msg", "comm_close"})
_UNTOLD = frozenset({"iopub_welcome", "usage_reply", "connect_reply"})
"""Types that are dropped without a note: the relay answers itself, or nobody asks."""

_status = shape.record({"execution_state": shape.one_of("", "busy", "idle", "starting")})
_execute_input = shape.record({"code": shape.styled(CODE_CHARACTERS), "execution_count": shape.integer(0)})
_clear = shape.record({"wait": shape.flag()})


@dataclass(kw_only=True)
class _Cell:
    """What is remembered of one request."""

    notes: set[str] = field(default_factory=set)
    escapes: dict[str, EscapeFilter] = field(default_factory=dict)


class Filter:
    """The filter of one kernel.

    Args:
        html: What becomes of HTML.
        allow_widgets: Whether ipywidgets' own widgets may be shown.
    """

    def __init__(self, html: HtmlMode, allow_widgets: bool) -> None:
        self._cells: collections.OrderedDict[str, _Cell] = collections.OrderedDict()
        self._notes: list[str] = []
        self._widgets = Widgets(html, self._notes.append) if allow_widgets else None
        self._outputs = self._widgets.outputs if self._widgets else Outputs(html, None, self._notes.append)
        self._iopub: dict[str, Callable[[Mapping[str, Any]], dict[str, Any] | None]] = {
            "status": lambda content: state if (state := _status(content))["execution_state"] else None,
            "display_data": self._outputs.display,
            "execute_result": self._outputs.result,
            "update_display_data": self._update,
            "execute_input": _execute_input,
            "error": self._outputs.error,
            "clear_output": _clear,
            "debug_event": replies.DEBUG_EVENT,
            "shutdown_reply": replies.SHUTDOWN,
        }

    def clean(self, channel: Channel, message: Message) -> list[Message]:
        """Return what goes to the client instead of ``message``: nothing, or itself made safe, and notes.

        Notes are messages of type ``stream`` and go to iopub whatever ``channel`` is; those about a reply stand
        before it, so that a client has them when the cell is over.
        """
        self._notes.clear()
        cell = self._cell(message.parent_id)
        bare = replace(message, metadata={}, buffers=())
        if channel == "iopub" and message.msg_type == "stream":
            return self._stream(cell, bare)
        if channel == "iopub" and message.msg_type in _COMMS:
            return self._comm(cell, message)
        content = self._content(channel, message)
        notes = [_note(message, number, text) for number, text in enumerate(self._new_notes(cell))]
        if content is None:
            return notes
        metadata = replies.EXECUTE_METADATA(message.metadata) if channel == "shell" else {}
        shown = replace(bare, content=content, metadata=metadata)
        if channel != "iopub":
            return [*notes, shown]
        ended = message.msg_type == "status" and content["execution_state"] == "idle"
        return [*self._rest(cell, bare), *notes, shown] if ended else [shown, *notes]

    def seen_from_client(self, msg_type: str, content: bytes) -> None:
        """Take note of a comm that a client opens or closes; other requests do not matter."""
        if self._widgets is None or msg_type not in ("comm_open", "comm_close"):
            return
        with contextlib.suppress(msgspec.MsgspecError, RecursionError, ValueError):
            self._widgets.seen_from_client(msg_type, msgspec.json.decode(content, type=dict[str, Any]))

    def _comm(self, cell: _Cell, message: Message) -> list[Message]:
        clean = None
        if self._widgets is not None:
            clean = self._widgets.clean(message)
        else:
            self._notes.append(WIDGETS_OFF)
        notes = [_note(message, number, text) for number, text in enumerate(self._new_notes(cell))]
        return notes if clean is None else [clean, *notes]

    def _content(self, channel: Channel, message: Message) -> dict[str, Any] | None:
        """Return what of a message's content is passed on, None when it is dropped."""
        given, kind = message.content, message.msg_type
        if channel == "iopub" and kind in self._iopub:
            return self._iopub[kind](given)
        if channel == "stdin" and kind == "input_request":
            return dict(replies.INPUT_REQUEST(given))
        if channel == "shell" and kind == "comm_info_reply":
            comms = self._widgets.targets(given.get("comms")) if self._widgets is not None else {}
            return {"status": "ok", "comms": comms}
        known = {"shell": replies.SHELL, "control": replies.CONTROL}.get(channel, {})
        if kind in known:
            return replies.clean_reply(known[kind], given, self._outputs, self._notes.append)
        if kind not in _UNTOLD:
            self._notes.append("a message was dropped: its type is none that the relay knows")
        return None

    def _update(self, content: Mapping[str, Any]) -> dict[str, Any] | None:
        clean = self._outputs.display(content)
        return clean if clean["transient"] else None

    def _stream(self, cell: _Cell, message: Message) -> list[Message]:
        name, text = message.content.get("name"), message.content.get("text")
        if name not in ("stdout", "stderr") or not isinstance(text, str):
            return []
        escapes = cell.escapes.setdefault(name, EscapeFilter())
        shown = escapes.feed(as_text(text[:STREAM_CHARACTERS]))
        if len(text) > STREAM_CHARACTERS:
            shown += escapes.finish() + shape.MORE
        return [replace(message, content={"name": name, "text": shown})] if shown else []

    def _rest(self, cell: _Cell, message: Message) -> list[Message]:
        """Return what unfinished escape sequences leave at the end of a cell."""
        rest = [(name, escapes.finish()) for name, escapes in cell.escapes.items()]
        cell.escapes.clear()
        return [_stream(message, f"end-{name}", name, text) for name, text in rest if text]

    def _cell(self, parent: str) -> _Cell:
        cell = self._cells.setdefault(parent, _Cell())
        self._cells.move_to_end(parent)
        if len(self._cells) > CELLS:
            self._cells.popitem(last=False)
        return cell

    def _new_notes(self, cell: _Cell) -> list[str]:
        """Return the notes that the cell does not have yet."""
        new = []
        for note in self._notes:
            if note not in cell.notes and len(cell.notes) < NOTES:
                cell.notes.add(note)
                new.append(note)
        return new


def _note(message: Message, number: int, text: str) -> Message:
    bare = replace(message, metadata={}, buffers=())
    return _stream(bare, f"note-{number}", "stderr", f"{text}\n")


def _stream(message: Message, suffix: str, name: str, text: str) -> Message:
    content = {"name": name, "text": text}
    return replace(message, msg_type="stream", msg_id=f"{message.msg_id}-{suffix}", content=content)
