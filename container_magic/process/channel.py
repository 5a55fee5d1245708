"""The payload's end of the channel to its client: what is shown goes up, and waits until it has been taken.

A frame is two lengths, a header (one JSON object with ``op``) and a body that the header cuts up. The client takes
what the standard streams hold before it takes a frame, and answers each with an ``ack``: so what was printed before a
figure is shown before it, and what is printed after it comes after. Standard library only.
"""

from __future__ import annotations

import _thread
import contextlib
import json
import os
import select
import signal
import socket
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from container_magic.linux.scheduling import yield_when_woken, yielding

LENGTHS = struct.Struct("=II")
MAX_HEADER_BYTES = 1024 * 1024
MAX_BODY_BYTES = 64 * 1024 * 1024
MAX_JSON_BYTES = 2 * 1024 * 1024
"""Of one part that is JSON: decoded it takes many times that."""
FAREWELL_HEADER = b'{"op":"farewell","seq":0}'
FAREWELL = LENGTHS.pack(len(FAREWELL_HEADER), 0) + FAREWELL_HEADER
"""The last frame of code that has ended well; where it goes to init instead there is none."""
_PATIENCE_MILLISECONDS = 20
# no flag of an enum: to join two of those is a way through a dozen functions
_AT_ONCE = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
_MAX_ID_CHARACTERS = 200
_MAX_PROMPT_CHARACTERS = 10_000
_READ_BYTES = 65536


def rehearse() -> None:
    """Make a channel and say farewell on it: a cell's own then finds the pages written to that this writes to."""
    near, far = socket.socketpair()
    with far, yielding():
        far.shutdown(socket.SHUT_WR)  # somebody else has to be told
        channel = Channel(near.detach())
        channel.say_farewell()
        channel._socket.close()


class Channel:
    """The channel of one cell; of no use in a forked child, whose frames would mix with the parent's."""

    def __init__(self, fd: int) -> None:
        os.set_inheritable(fd, False)
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(True)
        self._pid = os.getpid()
        self._main_thread = _thread.get_ident()
        self._lock = _thread.allocate_lock()
        self._owner = 0
        self._sequence = 0
        self._buffer = bytearray()
        self._fds: list[int] = []
        self._cells: list[tuple[bytes, int | None]] = []

    def next_cell(self, code: int) -> tuple[bytes, int | None] | None:
        """Say that a session's cell is over, and with which exit code; wait for the next.

        Return its source, and the memory file with its variables if it has any; None when the client has closed its
        end.
        """
        with self._lock:
            self._owner = _thread.get_ident()
            try:
                self._send({"op": "done", "seq": 0, "code": code}, [])
                self._await(None)
                return self._cells.pop(0) if self._cells else None
            except OSError:
                return None  # the code has closed it
            finally:
                self._owner = 0

    def say_begun(self) -> None:
        """Say that a session's next cell listens to interrupts."""
        with self._lock, contextlib.suppress(OSError):
            self._send({"op": "begun", "seq": 0}, [])

    def say_farewell(self) -> None:
        """Say that the code has ended well, and wait to be killed; return when somebody else has to be told.

        A client that has other things to do is not waited for: its clock would count that time. Nor does this thread,
        when it is woken to die, take the CPU from who has killed it and makes a report of it: to free an interpreter's
        memory takes as long as all the rest of a short cell.
        """
        if not self._lock.acquire(blocking=False):
            return  # another thread is in the middle of a frame
        poll = select.poll()
        yield_when_woken()
        with contextlib.suppress(OSError, KeyboardInterrupt):  # the code has closed it
            if self._socket.send(FAREWELL, _AT_ONCE) == len(FAREWELL):
                poll.register(self._socket, select.POLLIN)
                poll.poll(_PATIENCE_MILLISECONDS)

    def show(
        self,
        data: Mapping[str, Any],
        metadata: Mapping[str, Any] | None = None,
        *,
        display_id: str | None = None,
        update: bool = False,
        result: bool = False,
    ) -> bool:
        """Show a MIME bundle and wait until it was taken; False when nobody can take it."""
        parts, chunks = _cut(data)
        header = {
            "op": "result" if result else "display",
            "parts": parts,
            "metadata": _clean_metadata(metadata),
            "display_id": None if display_id is None else str(display_id)[:_MAX_ID_CHARACTERS],
            "update": bool(update),
        }
        return self._exchange(header, chunks) is not None

    def clear(self, *, wait: bool) -> bool:
        """Clear what the cell has shown, with ``wait`` when the next thing comes; False when nobody can."""
        return self._exchange({"op": "clear", "wait": bool(wait)}) is not None

    def ask(self, prompt: str, *, password: bool) -> str:
        """Return what the user answers.

        Raises:
            EOFError: There is nobody to ask.
        """
        header = {"op": "input", "prompt": prompt[:_MAX_PROMPT_CHARACTERS], "password": password}
        answer = self._exchange(header)
        text = None if answer is None else answer.get("text")
        if text is None:
            raise EOFError("input() was called, but nobody can be asked: the front end has no standard input")
        return str(text)

    def send_value(self, name: str, piece: bytes | memoryview, *, last: bool = False) -> None:
        """Send a piece of a variable; nobody answers, and a client that is slow is waited for.

        Raises:
            OSError: The code has closed the channel.
        """
        if os.getpid() != self._pid:
            return
        with self._lock:
            self._owner = _thread.get_ident()
            try:
                self._send({"op": "value", "seq": 0, "name": name, "last": last}, [piece])
            finally:
                self._owner = 0

    def _exchange(self, header: dict[str, Any], chunks: list[bytes] | None = None) -> dict[str, Any] | None:
        """Send a frame and return the answer to it."""
        # a signal handler that shows something in the middle of a frame must not cut into it, nor wait for itself
        if os.getpid() != self._pid or self._owner == _thread.get_ident():
            return None
        with self._lock:
            self._owner = _thread.get_ident()
            try:
                self._sequence += 1
                self._send({**header, "seq": self._sequence}, chunks or [])
                return self._await(self._sequence)
            except OSError:
                return None  # the code has closed it
            finally:
                self._owner = 0

    def _send(self, header: dict[str, Any], chunks: Sequence[bytes | memoryview]) -> None:
        head = _json(header)
        with self._uninterrupted():
            self._socket.sendall(LENGTHS.pack(len(head), sum(map(len, chunks))) + head)
            for chunk in chunks:
                self._socket.sendall(chunk)

    def _await(self, sequence: int | None) -> dict[str, Any] | None:
        """Wait for the answer to frame ``sequence``, or (None) for a cell.

        Earlier answers are of waits that were interrupted; a cell that comes while a thread waits for an answer is
        kept.
        """
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        while True:
            for answer in self._answers():
                if sequence is not None and answer.get("seq") == sequence:
                    return answer
            if sequence is None and self._cells:
                return None
            poll.poll()
            with self._uninterrupted():
                data, fds, _, _ = socket.recv_fds(self._socket, _READ_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
                self._buffer += data
                self._fds += fds
            if not data:
                return None

    def _answers(self) -> Iterator[dict[str, Any]]:
        while len(self._buffer) >= LENGTHS.size:
            head, body = LENGTHS.unpack_from(self._buffer)
            if len(self._buffer) < LENGTHS.size + head + body:
                return
            middle, end = LENGTHS.size + head, LENGTHS.size + head + body
            answer = json.loads(bytes(self._buffer[LENGTHS.size : middle]))
            source = bytes(self._buffer[middle:end])
            del self._buffer[:end]
            if answer["op"] == "execute":
                self._cells.append((source, self._fds.pop(0) if answer.get("variables") else None))
            else:
                yield answer

    @contextlib.contextmanager
    def _uninterrupted(self) -> Iterator[None]:
        """Put off Ctrl-C: half a frame would be the last one."""
        if _thread.get_ident() != self._main_thread:
            yield
            return
        caught: list[Any] = []
        previous = signal.signal(signal.SIGINT, lambda *arguments: caught.append(arguments))
        try:
            yield
        finally:
            # None: a handler that was not installed from Python
            signal.signal(signal.SIGINT, signal.SIG_DFL if previous is None else previous)
            if caught and callable(previous):
                handler: Callable[..., Any] = previous
                handler(*caught[0])


def _cut(data: Mapping[str, Any]) -> tuple[list[list[Any]], list[bytes]]:
    """Return the parts of a bundle (type, kind, size) and their bytes; what is too large leaves a line of text."""
    parts, chunks, left = [], [], MAX_BODY_BYTES - 4096
    too_large: list[str] = []
    for name, value in list(data.items())[:64]:
        kind, chunk = _encoded(value)
        if len(chunk) > (MAX_JSON_BYTES if kind == "json" else left):
            too_large.append(str(name)[:100])
            continue
        left -= len(chunk)
        parts.append([str(name)[:_MAX_ID_CHARACTERS], kind, len(chunk)])
        chunks.append(chunk)
    if too_large and not any(name == "text/plain" for name, _, _ in parts):
        chunk = f"[... {', '.join(too_large)}: too large to be shown ...]".encode("utf-8", "replace")
        parts.append(["text/plain", "text", len(chunk)])
        chunks.append(chunk)
    return parts, chunks


def _encoded(value: Any) -> tuple[str, bytes]:
    if isinstance(value, str):
        return "text", value.encode("utf-8", "replace")
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "bytes", bytes(value)
    try:
        return "json", _json(value)
    except (TypeError, ValueError, RecursionError):
        return "text", str(value).encode("utf-8", "replace")


def _clean_metadata(metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(json.dumps(dict(metadata or {}), allow_nan=False, default=str))
        return found if len(_json(found)) < MAX_HEADER_BYTES // 2 else {}
    except (TypeError, ValueError, RecursionError):
        return {}


def _json(value: Any) -> bytes:
    return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
