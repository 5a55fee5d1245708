"""The client's end of a cell's channel: frames of unknown truth in, clean events out, answers back.

What comes is bounded before it is read or allocated, decoded into types in one step, and made safe where it becomes an
event. It is never waited for, and neither is the payload's reading of the answers.
"""

from __future__ import annotations

import collections
import json
import os
import select
import socket
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from container_magic.events import Cleared, Displayed, Event, InputAsked
from container_magic.process.channel import LENGTHS, MAX_BODY_BYTES, MAX_HEADER_BYTES, MAX_JSON_BYTES
from container_magic.sanitize.bundle import HtmlMode, sanitize_bundle
from container_magic.values.wire import RefusedError

if TYPE_CHECKING:
    from container_magic.runtime.variables import Returns, Variables

MOST_OUTPUTS = 1000
MOST_UPDATES = 20_000
"""Updates, clears and questions: they leave less behind than outputs do."""
MOST_DISPLAY_BYTES = 64 * 1024 * 1024
FLOOD_BYTES = 16 * MOST_DISPLAY_BYTES
_FRAME_COST_BYTES = 1024
_READ_BYTES = 256 * 1024
_MOST_PENDING_BYTES = 64 * 1024
_MAX_NAME_CHARACTERS = 1000

_Sequence = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class _Part(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    name: Annotated[str, msgspec.Meta(max_length=256)]
    kind: Literal["text", "bytes", "json"]
    size: Annotated[int, msgspec.Meta(ge=0, le=MAX_BODY_BYTES)]


class _Display(msgspec.Struct, tag_field="op", tag="display", forbid_unknown_fields=True):
    seq: _Sequence
    parts: Annotated[tuple[_Part, ...], msgspec.Meta(max_length=128)]
    metadata: dict[str, Any] = {}
    display_id: Annotated[str, msgspec.Meta(max_length=256)] | None = None
    update: bool = False


class _Result(_Display, tag_field="op", tag="result"):
    pass


class _Clear(msgspec.Struct, tag_field="op", tag="clear", forbid_unknown_fields=True):
    seq: _Sequence
    wait: bool = False


class _Input(msgspec.Struct, tag_field="op", tag="input", forbid_unknown_fields=True):
    seq: _Sequence
    prompt: Annotated[str, msgspec.Meta(max_length=20_000)] = ""
    password: bool = False


class _Done(msgspec.Struct, tag_field="op", tag="done", forbid_unknown_fields=True):
    seq: _Sequence
    code: Annotated[int, msgspec.Meta(ge=0, le=255)]


class _Begun(msgspec.Struct, tag_field="op", tag="begun", forbid_unknown_fields=True):
    seq: _Sequence


class _Farewell(msgspec.Struct, tag_field="op", tag="farewell", forbid_unknown_fields=True):
    seq: _Sequence


class _Value(msgspec.Struct, tag_field="op", tag="value", forbid_unknown_fields=True):
    seq: _Sequence
    name: Annotated[str, msgspec.Meta(max_length=_MAX_NAME_CHARACTERS)]
    last: bool = False


Header = _Display | _Result | _Clear | _Input | _Done | _Begun | _Farewell | _Value
_decoder: msgspec.json.Decoder[Header] = msgspec.json.Decoder(Header)


class ChannelError(ValueError):
    """What came is no frame: the payload does not speak as this package does."""


class FrameReader:
    """Cuts a byte stream of unknown truth into headers and bodies; holds one frame at most, and what was fed."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[Header, memoryview]]:
        """Yield the frames that ``data`` completes; a body is valid until the next one is asked for.

        Raises:
            ChannelError: A length is beyond its cap, or a header is none.
        """
        self._buffer += data
        begin = 0
        try:
            while (size := self._frame_bytes(begin)) is not None:
                head, _ = LENGTHS.unpack_from(self._buffer, begin)
                middle, end = begin + LENGTHS.size + head, begin + size
                with memoryview(self._buffer) as view, view[middle:end] as body:
                    yield _header(bytes(view[begin + LENGTHS.size : middle])), body
                begin = end
        finally:
            del self._buffer[:begin]

    def _frame_bytes(self, begin: int) -> int | None:
        """Return the size of the frame at ``begin``, None when it is not whole yet."""
        if len(self._buffer) - begin < LENGTHS.size:
            return None
        head, body = LENGTHS.unpack_from(self._buffer, begin)
        if head > MAX_HEADER_BYTES:
            raise ChannelError(f"a frame's header has {head} bytes; accepted: {MAX_HEADER_BYTES}")
        if body > MAX_BODY_BYTES:
            raise ChannelError(f"a frame's body has {body} bytes; accepted: {MAX_BODY_BYTES}")
        size: int = LENGTHS.size + head + body
        return size if len(self._buffer) - begin >= size else None


def _header(data: bytes) -> Header:
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise ChannelError(f"a frame's header cannot be understood: {str(error)[:200]}") from None


class Channel:
    """The channel of one run; ``wanted`` are the variables that its code is to return."""

    def __init__(self, end: socket.socket, html: HtmlMode, wanted: Sequence[str] = ()) -> None:
        self._html = html
        self.returns = _returns(wanted)
        end.setblocking(False)
        self._socket = end
        self._reader = FrameReader()
        self._outbox = bytearray()
        self._outbox_fds: list[int] = []
        self._asked: collections.deque[int] = collections.deque(maxlen=1)
        self._left = {"outputs": MOST_OUTPUTS, "updates": MOST_UPDATES}
        self._bytes_left = MOST_DISPLAY_BYTES
        self._flood_bytes_left = FLOOD_BYTES
        self.begun = False
        """A session's cell listens to interrupts."""
        self.said_farewell = False
        """The code has ended well, as the payload says, which is about to exit."""
        self.done: int | None = None
        """Exit code of a session's cell that is over, as the payload says."""
        self.not_shown = 0
        """Displays, updates and clears beyond the caps."""

    def fileno(self) -> int:
        """Return the descriptor to wait at."""
        return self._socket.fileno()

    @property
    def events(self) -> int:
        """What to wait for at the descriptor, as epoll has it."""
        return select.EPOLLIN | (select.EPOLLOUT if self._outbox else 0)

    def receive(self) -> Iterator[tuple[Header, memoryview]]:
        """Read once, and yield the frames that this completes, each to be handled before the next.

        Raises:
            EOFError: The payload has closed its end.
            ChannelError: What came is no frame.
        """
        self.pump()
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            raise EOFError
        yield from self._reader.feed(data)

    def handle(self, header: Header, body: memoryview) -> Event | None:
        """Answer a frame; return the event that it stands for, None when it is beyond the caps.

        Raises:
            ChannelError: The body is not what the header says, or too much came altogether.
        """
        if isinstance(header, _Value):
            self._take_value(header, body)
            return None
        self._flood_bytes_left -= max(_FRAME_COST_BYTES, len(body))
        if self._flood_bytes_left < 0:
            raise ChannelError(f"more than {FLOOD_BYTES} bytes were shown")
        if isinstance(header, _Display):
            event: Event | None = self._displayed(header, body)
        elif len(body):
            raise ChannelError("a frame that shows nothing has a body")
        elif isinstance(header, _Done):
            self.done = header.code
            return None
        elif isinstance(header, _Begun):
            self.begun = True
            return None
        elif isinstance(header, _Farewell):
            self.said_farewell = True
            return None
        elif not self._may("updates"):
            event = None
        elif isinstance(header, _Input):
            self._asked.append(header.seq)
            return InputAsked(prompt=header.prompt, password=header.password)
        else:
            event = Cleared(wait=header.wait)
        # the payload waits for it; of one that does not read them no more are kept than it may ever need
        if len(self._outbox) < _MOST_PENDING_BYTES:
            self._answer({"op": "ack", "seq": header.seq})
        return event

    def reply(self, text: str | None) -> None:
        """Answer the last question; None: nobody can be asked. Without a question nothing is sent."""
        if self._asked:
            self._answer({"op": "input", "seq": self._asked.pop(), "text": text})

    def execute(self, source: bytes, html: HtmlMode, variables: Variables | None) -> None:
        """Send a session's next cell; its caps are its own, and so are its variables."""
        self._html = html
        self.returns = _returns(variables.wanted if variables is not None else ())
        self._left = {"outputs": MOST_OUTPUTS, "updates": MOST_UPDATES}
        self._bytes_left = MOST_DISPLAY_BYTES
        self._flood_bytes_left = FLOOD_BYTES
        self.done, self.begun, self.not_shown = None, False, 0
        self._asked.clear()
        if variables is not None:
            self._outbox_fds.append(os.dup(variables.fd))
        self._send({"op": "execute", "variables": variables is not None}, source)

    def pump(self) -> None:
        """Write as much of the answers as the payload takes now."""
        try:
            while self._outbox:
                # with the first byte that goes: it is never behind the frame that it belongs to
                del self._outbox[: socket.send_fds(self._socket, [self._outbox], self._outbox_fds)]
                self._close_fds()
        except BlockingIOError:
            pass
        except OSError:  # its end is closed: reading says so
            self._outbox.clear()

    def close(self) -> None:
        """Close this end."""
        self._close_fds()
        self._socket.close()

    def _close_fds(self) -> None:
        while self._outbox_fds:
            os.close(self._outbox_fds.pop())

    def _take_value(self, header: _Value, body: memoryview) -> None:
        """Take a piece of a variable; nobody waits for an answer."""
        self._flood_bytes_left -= _FRAME_COST_BYTES
        if self._flood_bytes_left < 0:
            raise ChannelError("the variables come in too many pieces")
        if self.returns is None:
            raise ChannelError(f"nobody waits for a variable {header.name[:100]!r}")
        try:
            self.returns.feed(header.name, body, last=header.last)
        except RefusedError as error:
            raise ChannelError(error.message) from None

    def _answer(self, answer: dict[str, Any]) -> None:
        self._send(answer, b"")

    def _send(self, header: dict[str, Any], body: bytes) -> None:
        # ASCII, because a line of input may hold half a surrogate pair
        head = json.dumps(header).encode()
        self._outbox += LENGTHS.pack(len(head), len(body)) + head + body
        self.pump()

    def _displayed(self, header: _Display, body: memoryview) -> Displayed | None:
        if sum(part.size for part in header.parts) != len(body):
            raise ChannelError("the parts of a frame are not as long as its body")
        if not self._may("updates" if header.update else "outputs", len(body)):
            return None
        clean = sanitize_bundle(_bundle(header, body), header.metadata, mode=self._html)
        return Displayed(
            data=clean.data,
            metadata=clean.metadata,
            display_id=header.display_id,
            update=header.update,
            result=isinstance(header, _Result),
            notes=clean.notes,
        )

    def _may(self, kind: str, size: int = 0) -> bool:
        """Count something against the caps of the cell; return whether it is within."""
        if self._left[kind] <= 0 or size > self._bytes_left:
            self.not_shown += 1
            return False
        self._left[kind] -= 1
        self._bytes_left -= size
        return True


def _returns(wanted: Sequence[str]) -> Returns | None:
    if not wanted:
        return None
    from container_magic.runtime.variables import Returns  # what most runs do without is not loaded for them

    return Returns(wanted)


def _bundle(header: _Display, body: memoryview) -> dict[str, Any]:
    """Cut ``body`` into the values of a bundle; JSON that is none or too much is left out."""
    data: dict[str, Any] = {}
    begin = 0
    for part in header.parts:
        piece = bytes(body[begin : begin + part.size])
        begin += part.size
        if part.kind == "bytes":
            data[part.name] = piece
        elif part.kind == "text":
            data[part.name] = piece.decode("utf-8", "replace")
        elif part.size <= MAX_JSON_BYTES:
            try:
                data[part.name] = msgspec.json.decode(piece)
            except (msgspec.MsgspecError, RecursionError, ValueError):
                continue
    return data
