"""Messages between the processes of a container.

::

    client                supervisor                init (pid 1)              payload
      │◀── events ────────────│                          │                       │     socket of the client, JSON frames
      │                       │ ── MAPPED ──────────────▶│                       │     ``sync`` socket, one message each
      │                       │ ── GO id, descriptors ──▶│                       │     plan, mounts
      │                       │                          │ ── GO id, descriptor ▶│     ``word`` socket: the plan
      │                       │ ── LIKELY, size ────────▶│ ── LIKELY ───────────▶│     instead: it is the one expected
      │                       │ ── ENTER, descriptors ──▶│                       │     the cgroup's entries
      │                       │                          │ ── ENTER, the same ──▶│     the user's ids, the same
      │                       │◀── FAILED text ──────────│                       │
      │                       │◀── LAYER, descriptor ────│                       │     upper layers, only when asked for
      │                       │◀── READY ────────────────│                       │     no capability left, not dumpable
      │                       │◀── READY ────────────────────────────────────────│     ``start`` socket
      │ ── start ────────────▶│                          │                       │     code, stdin, stdout, stderr
      │                       │ ── START, descriptors ──────────────────────────▶│     the same, perhaps more; or CODE
      │ ── interrupt, kill ──▶│ ── SIGNAL n ────────────▶│ ── kill(-payload) ───▶│
      │◀── farewell ─────────────────────────────────────────────────────────────│     the channel, see ``parting``
      │                       │◀── LEAVING code, error ──│◀── farewell ──────────│     or a signal, see ``init``
      │                       │◀── EXITED status, error ─│◀── wait, error slot ──│

Every message but the client's frames is one SOCK_SEQPACKET datagram whose first byte is its kind. Init and payload
hold one end each, and ``word`` between them is gone before either is ready; the payload closes its own before the code
runs, so that nothing from inside can speak here.

A container that has waited, and whose supervisor has nothing to do before the code may run, is started by the client
itself: before ``Created`` comes a frame with the supervisor's end of ``start``, and ``start`` has no descriptors but
says when it began. Instead of ``START`` it sends ``CODE`` with the code itself, if that is short.
The same frame may bring what a client needs to see the payload off by itself; the payload then says farewell to it.
"""

from __future__ import annotations

import json
import os
import pickle
import socket
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from container_magic.plan import Plan

MAPPED = b"M"
GO = b"G"
LIKELY = b"Y"
ENTER = b"N"
LAYER = b"L"
READY = b"R"
START = b"S"
CODE = b"C"
TO_INIT = b"i"
TO_CLIENT = b"c"
SIGNAL = b"K"
FAILED = b"F"
LEAVING = b"V"
EXITED = b"E"
# between a client and its zygote
SPARE = b"P"
USED = b"U"

MAX_MESSAGE_BYTES = 192 * 1024
MAX_CODE_BYTES = 16 * 1024
"""Of code in the message itself."""
_LENGTH = struct.Struct("=I")
DISK_BYTES = struct.Struct("=Q")
"""Size of the writable layer, with ``LIKELY``."""
_SCM_CREDENTIALS = 2  # sys/socket.h; not in Python's module before 3.12
_CREDENTIALS = struct.Struct("=iII")  # struct ucred: pid, uid, gid
MAX_FRAME_BYTES = 8 * 1024 * 1024
# room for the largest, taken once: so much is asked of the kernel each time, and given back
_inbox = bytearray(MAX_MESSAGE_BYTES)


def pair() -> tuple[socket.socket, socket.socket]:
    """Return two ends of a message socket; neither survives an exec."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def expect_sender(end: socket.socket) -> None:
    """Have the kernel tell with each message to ``end`` whose it is (SO_PASSCRED, unix(7))."""
    end.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)


def receive_with_sender(end: socket.socket) -> tuple[bytes, int]:
    """Return the next message and its sender's pid, 0 when the kernel does not say."""
    message, told, _, _ = end.recvmsg(MAX_MESSAGE_BYTES, socket.CMSG_SPACE(_CREDENTIALS.size))
    for level, kind, data in told:
        if (level, kind) == (socket.SOL_SOCKET, _SCM_CREDENTIALS) and len(data) == _CREDENTIALS.size:
            return message, int(_CREDENTIALS.unpack(data)[0])
    return message, 0


def receive(end: socket.socket) -> bytes:
    """Return the next message, ``b""`` at the end.

    Of a peer that died with something of ours unread, the kernel reports that first (ECONNRESET), and only then what
    it had sent before.
    """
    try:
        size = end.recv_into(_inbox)
    except ConnectionResetError:
        size = end.recv_into(_inbox)
    return bytes(memoryview(_inbox)[:size])


# made once: json.dumps and json.loads make, or guess, something for each call
_encode = json.JSONEncoder(separators=(",", ":")).encode
_decode = json.JSONDecoder().decode


def frame(data: dict[str, Any]) -> bytes:
    """Return ``data`` as one frame of the client's socket."""
    body = _encode(data).encode()
    return _LENGTH.pack(len(body)) + body


def started_frame(run: int, begun: float) -> bytes:
    """Return the frame that says that a payload has been given its order, and when; what ``frame`` would return."""
    body = b'{"op":"start","run":%d,"fds":0,"begun":%a}' % (run, begun)
    return _LENGTH.pack(len(body)) + body


class FrameReader:
    """Cuts a byte stream into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """Return the frames that ``data`` completes.

        Raises:
            ValueError: A length is beyond ``MAX_FRAME_BYTES`` or a frame is not a JSON object.
        """
        self._buffer += data
        frames: list[dict[str, Any]] = []
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > MAX_FRAME_BYTES:
                raise ValueError(f"frame of {length} bytes")
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                break
            body = _decode(self._buffer[_LENGTH.size : end].decode())
            del self._buffer[:end]
            if not isinstance(body, dict):
                raise ValueError("frame is not an object")
            frames.append(body)
        return frames


def send_start(
    start: socket.socket, fds: Sequence[int], code: bytes | None = None, *, farewell_to: bytes = TO_INIT
) -> None:
    """Give the payload its code, standard input, output and error, and to a shell its channel, and variables.

    The first descriptor is that of the code, unless this is given itself. ``farewell_to`` says who hears that the code
    has ended well: ``TO_INIT`` or ``TO_CLIENT``.
    """
    socket.send_fds(start, [START, farewell_to] if code is None else [CODE, farewell_to, code], fds)


def dump_plan(plan: Plan) -> bytes:
    """Return ``plan`` for the supervisor.

    Pickled, because that is many times faster to read than JSON, and safe on this one way: down, from the user's own
    process to a child of it. Nothing that comes up is ever unpickled.
    """
    return pickle.dumps(plan, protocol=pickle.HIGHEST_PROTOCOL)


def memory_file(name: str, data: bytes) -> int:
    """Return a descriptor of an anonymous file that holds ``data``, read position at its beginning."""
    fd = os.memfd_create(f"container_magic-{name}", os.MFD_CLOEXEC)
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def load_plan(fd: int) -> Plan:
    """Return what ``dump_plan`` was given, from a memfd that others read as well."""
    return read_plan(os.pread(fd, os.fstat(fd).st_size, 0))


def read_plan(data: bytes) -> Plan:
    """Return what ``dump_plan`` was given, from what it returned."""
    plan: Plan = pickle.loads(data)
    return plan
