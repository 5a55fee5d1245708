"""The relay's side of its clients: the connection file that Jupyter writes, and the five sockets that it names."""

from __future__ import annotations

import datetime
import itertools
import os
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import zmq

from container_magic.deferred import dataclass
from container_magic.errors import OptionError
from container_magic.kernel.message import Message
from container_magic.kernel.wire import Frames, Header, ParentHeader, Signer, WireError, digest_of

ChannelName = Literal["shell", "control", "stdin"]
PROTOCOL_VERSION = "5.4"
_LINGER_MILLISECONDS = 1000
_MOST_WAITING = 10_000
_MAX_FILE_BYTES = 65536


class ConnectionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A connection file (jupyter_client.readthedocs.io/en/stable/kernels.html#connection-files)."""

    ip: str
    shell_port: int
    iopub_port: int
    stdin_port: int
    control_port: int
    hb_port: int
    key: str = ""
    transport: Literal["tcp", "ipc"] = "tcp"
    signature_scheme: str = "hmac-sha256"
    curve_secretkey: str | None = None

    def endpoint(self, channel: str) -> str:
        """Return ZeroMQ's name of a socket."""
        port: int = getattr(self, f"{channel}_port")
        if port <= 0:
            raise OptionError(f"the connection file has {channel}_port {port}; accepted: the port that Jupyter chose")
        return f"tcp://{self.ip}:{port}" if self.transport == "tcp" else f"ipc://{self.ip}-{port}"


def read_connection_file(path: str) -> ConnectionInfo:
    """Return what Jupyter has written.

    Raises:
        OptionError: It cannot be read, is no connection file, or asks for what is not declared.
    """
    try:
        with open(path, "rb") as file:
            info = msgspec.json.decode(file.read(_MAX_FILE_BYTES), type=ConnectionInfo)
    except OSError as error:
        raise OptionError(f"cannot read the connection file {path}: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise OptionError(f"{path} is no connection file: {error}") from error
    if info.curve_secretkey is not None:
        raise OptionError(
            "the connection file asks for CurveZMQ, which this kernel does not declare",
            hint="unset transport_encryption for this kernel: its far side is in the container, on unix sockets",
        )
    digest_of(info.signature_scheme)
    return info


class _Execute(msgspec.Struct, frozen=True, kw_only=True):
    stop_on_error: bool = True
    silent: bool = False
    allow_stdin: bool = True


class _Comm(msgspec.Struct, frozen=True, kw_only=True):
    comm_id: str = ""


class _Shutdown(msgspec.Struct, frozen=True, kw_only=True):
    restart: bool = False


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a client has asked: its frames, and what of its header counts."""

    channel: ChannelName
    frames: Frames
    header: Header

    @property
    def name(self) -> str:
        """What tells it from others."""
        return ParentHeader(msg_id=self.header.msg_id, msg_type=self.header.msg_type).name

    @property
    def is_cell(self) -> bool:
        """Whether it runs code in the main shell."""
        return self.header.msg_type == "execute_request" and not self.header.subshell_id

    @property
    def stops_on_error(self) -> bool:
        """Whether the cells that wait behind it do not run when it fails."""
        asked = self._asked()
        return asked.stop_on_error and not asked.silent

    @property
    def takes_questions(self) -> bool:
        """Whether its client answers when the code asks for input."""
        return self.header.msg_type == "execute_request" and self._asked().allow_stdin

    @property
    def comm_id(self) -> str:
        """The comm that it is about; empty where it is about none."""
        try:
            return msgspec.json.decode(self.frames.content, type=_Comm).comm_id
        except msgspec.MsgspecError:
            return ""

    @property
    def restarts(self) -> bool:
        """Whether the shutdown that it asks for is for a new start."""
        try:
            return msgspec.json.decode(self.frames.content, type=_Shutdown).restart
        except msgspec.MsgspecError:
            return False

    def _asked(self) -> _Execute:
        try:
            return msgspec.json.decode(self.frames.content, type=_Execute)
        except msgspec.MsgspecError:
            return _Execute()


class ClientSide:
    """The five sockets, bound.

    Raises:
        OptionError: One of them cannot be bound.
    """

    def __init__(self, info: ConnectionInfo, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self._signer = Signer(key=info.key.encode(), digest=digest_of(info.signature_scheme), once=True)
        self._session = os.urandom(16).hex()
        self._numbers = itertools.count(1)
        self._sockets: dict[str, zmq.Socket[bytes]] = {}
        kinds = {"shell": zmq.ROUTER, "control": zmq.ROUTER, "stdin": zmq.ROUTER, "iopub": zmq.XPUB, "hb": zmq.ROUTER}
        for channel, kind in kinds.items():
            socket = self._sockets[channel] = context.socket(kind)
            socket.linger = _LINGER_MILLISECONDS
            socket.sndhwm = _MOST_WAITING
            if channel == "iopub":
                socket.setsockopt(zmq.XPUB_VERBOSE, 1)  # each subscriber is welcomed, also to what another has
            else:
                socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
            _bind(socket, info.endpoint(channel))

    def socket(self, channel: str) -> zmq.Socket[bytes]:
        """Return a socket, to wait for it."""
        return self._sockets[channel]

    def receive(self, channel: ChannelName) -> Request | None:
        """Return the next request on a channel, None when there is none.

        Raises:
            WireError: What came is none, or not signed with the key.
        """
        try:
            parts = self._sockets[channel].recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None
        frames = self._signer.unpack(parts)
        try:
            header = msgspec.json.decode(frames.header, type=Header)
        except msgspec.MsgspecError as error:
            raise WireError(f"a header that is none: {error}") from error
        return Request(channel=channel, frames=frames, header=header)

    def beat(self) -> None:
        """Give back what came over the heartbeat's socket."""
        try:
            while True:
                self._sockets["hb"].send_multipart(self._sockets["hb"].recv_multipart(zmq.NOBLOCK), zmq.NOBLOCK)
        except zmq.Again:
            return

    def welcome(self) -> None:
        """Greet who has subscribed to what is published (JEP 65)."""
        try:
            while True:
                word = self._sockets["iopub"].recv(zmq.NOBLOCK)
                if word[:1] == b"\x01":
                    content = {"subscription": word[1:].decode(errors="replace")}
                    self._send("iopub", (word[1:],), self.message("iopub_welcome", content), b"{}")
        except zmq.Again:
            return

    def message(self, msg_type: str, content: dict[str, Any], metadata: dict[str, Any] | None = None) -> Message:
        """Return a message of the relay's own."""
        now = datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")
        return Message(msg_type=msg_type, msg_id="", date=now, parent_id="", metadata=metadata or {}, content=content)

    def reply(self, request: Request, message: Message, channel: ChannelName | None = None) -> None:
        """Answer a request, or ask whoever has made it."""
        self._send(channel or request.channel, request.frames.identities, message, request.frames.header)

    def answer(self, request: Request, msg_type: str, content: dict[str, object]) -> None:
        """Answer in the kernel's place, with the statuses that a kernel has around its replies."""
        self.publish_status("busy", request)
        self.reply(request, self.message(msg_type, content))
        self.publish_status("idle", request)

    def publish(self, message: Message, parent: Request | None) -> None:
        """Send to all that listen; ``parent`` is the request that it belongs to."""
        topic = f"kernel.{self._session}.{message.msg_type}".encode()
        self._send("iopub", (topic,), message, parent.frames.header if parent is not None else b"{}")

    def publish_status(self, state: Literal["starting", "busy", "idle"], parent: Request | None) -> None:
        """Say what the kernel does."""
        self.publish(self.message("status", {"execution_state": state}), parent)

    def _send(self, channel: str, identities: Sequence[bytes], message: Message, parent: bytes) -> None:
        header = {
            # a name of the relay's own: of a message that was cut in two each part needs one, and clients refuse twins
            "msg_id": f"{self._session}_{next(self._numbers)}",
            "msg_type": message.msg_type,
            "username": "kernel",
            "session": self._session,
            "date": message.date,
            "version": PROTOCOL_VERSION,
        }
        frames = Frames(
            identities=tuple(identities),
            header=msgspec.json.encode(header),
            parent=parent,
            metadata=msgspec.json.encode(message.metadata),
            content=msgspec.json.encode(message.content),
            buffers=message.buffers,
        )
        try:
            self._sockets[channel].send_multipart(self._signer.pack(frames), zmq.NOBLOCK)
        except zmq.Again:
            return  # a client that takes nothing any more: what it is sent is lost, as with any kernel

    def close(self) -> None:
        """Close the sockets when what was sent has gone out, or after a second."""
        for socket in self._sockets.values():
            socket.close()


def _bind(socket: zmq.Socket[bytes], endpoint: str) -> None:
    try:
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        raise OptionError(f"cannot listen at {endpoint}: {error.strerror}") from error
