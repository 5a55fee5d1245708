"""The relay's side of the kernel inside: its sockets, found through a descriptor of the container's root.

Whoever owns the inside may put whatever there under these names; the relay looks at one name in one directory at a
time, follows no link, and lets ZeroMQ connect to the very inode that it has looked at. What comes is bounded.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from typing import Any, Literal

import msgspec
import zmq

from container_magic.errors import InternalError
from container_magic.kernel.message import Message
from container_magic.kernel.wire import Frames, Header, ParentHeader, Signer, WireError
from container_magic.process.kernel_place import DIRECTORY, socket_name

KernelChannel = Literal["shell", "iopub", "control", "stdin"]
CHANNELS: tuple[KernelChannel, ...] = ("iopub", "shell", "control", "stdin")
"""The order in which they are read: what was published before a reply goes before it."""
MOST_MESSAGE_BYTES = 64 * 1024 * 1024
_MOST_PARTS = 256
_MOST_WAITING = 8
_KINDS = {"iopub": zmq.SUB, "shell": zmq.DEALER, "control": zmq.DEALER, "stdin": zmq.DEALER}
# ipykernel asks for input over the stdin socket of who has sent the request, by the name of its shell socket
_NAME = b"relay"
_NAME_OF_MESSAGE = re.compile(r"[\w.:-]{1,200}", re.ASCII)
_DATE = re.compile(r"[\dT:.Z+-]{1,40}", re.ASCII)
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_HEADER = msgspec.json.Decoder(Header)
_PARENT = msgspec.json.Decoder(ParentHeader)
_OBJECT = msgspec.json.Decoder(dict[str, Any])


class KernelSide:
    """Four sockets, connected to a kernel that says that it listens.

    Args:
        init_pid: The container's init, as the supervisor has said.
        supervisor_pid: Its parent, by which it is told from another process that was given its number.
        key: What the kernel signs with.
        context: ZeroMQ's.

    Raises:
        InternalError: The sockets are not there, or the container is gone.
    """

    def __init__(self, init_pid: int, supervisor_pid: int, key: bytes, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self._signer = Signer(key=key)
        self._sockets: dict[str, zmq.Socket[bytes]] = {}
        self._breaks: dict[str, zmq.Socket[bytes]] = {}
        try:
            self._inodes = _open_sockets(init_pid, supervisor_pid)
        except OSError as error:
            raise InternalError(f"the kernel's sockets cannot be reached: {error.strerror or error}") from error
        for channel in CHANNELS:
            socket = self._sockets[channel] = context.socket(_KINDS[channel])
            socket.linger = 0
            socket.rcvhwm = _MOST_WAITING
            socket.maxmsgsize = MOST_MESSAGE_BYTES
            if channel == "iopub":
                socket.subscribe(b"")
            else:
                socket.identity = _NAME
            # by ourselves: after some errors libzmq does not connect anew, after others it does
            socket.setsockopt(zmq.RECONNECT_IVL, -1)
            self._breaks[channel] = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
            socket.connect(self._endpoint(channel))

    def _endpoint(self, channel: str) -> str:
        return f"ipc:///proc/self/fd/{self._inodes[channel]}"

    @property
    def breaks(self) -> list[zmq.Socket[bytes]]:
        """What becomes readable when a connection breaks."""
        return list(self._breaks.values())

    def mend(self) -> bool:
        """Connect anew what has broken; return whether something had: what was on its way is lost."""
        broken = False
        for channel, monitor in self._breaks.items():
            with contextlib.suppress(zmq.Again):
                while monitor.recv_multipart(zmq.NOBLOCK):
                    broken = True
                    self._connect_anew(channel)
        return broken

    def _connect_anew(self, channel: str) -> None:
        """Connect under another name of the same inode.

        libzmq forgets a broken connection by its name, perhaps only now: under the old one it would be the new one.
        """
        with contextlib.suppress(zmq.ZMQError):  # it has forgotten it already
            self._sockets[channel].disconnect(self._endpoint(channel))
        old_fd = self._inodes[channel]
        self._inodes[channel] = os.dup(old_fd)
        os.close(old_fd)
        self._sockets[channel].connect(self._endpoint(channel))

    def socket(self, channel: str) -> zmq.Socket[bytes]:
        """Return a socket, to wait for it."""
        return self._sockets[channel]

    def send(self, channel: str, frames: Frames) -> None:
        """Send what a client has sent, signed anew and without saying who that was."""
        bare = Frames(
            header=frames.header,
            parent=frames.parent,
            metadata=frames.metadata,
            content=frames.content,
            buffers=frames.buffers,
        )
        with contextlib.suppress(zmq.Again):  # thousands of requests wait in there: nobody waits for this one
            self._sockets[channel].send_multipart(self._signer.pack(bare), zmq.NOBLOCK)

    def receive(self, channel: str) -> tuple[Message, int] | None:
        """Return the next message of a channel and its size in bytes, None when there is none.

        Raises:
            WireError: What came is none.
        """
        try:
            parts = self._sockets[channel].recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None
        if len(parts) > _MOST_PARTS or sum(map(len, parts)) > MOST_MESSAGE_BYTES:
            raise WireError("a message that is too large")
        frames = self._signer.unpack(parts)
        try:
            header = _HEADER.decode(frames.header)
            message = Message(
                msg_type=header.msg_type,
                msg_id=header.msg_id,
                date=header.date if _DATE.fullmatch(header.date) else "",
                parent_id=_PARENT.decode(frames.parent).name,
                metadata=_OBJECT.decode(frames.metadata),
                content=_OBJECT.decode(frames.content),
                buffers=frames.buffers,
            )
        except (msgspec.MsgspecError, RecursionError) as error:
            raise WireError(f"a message that cannot be understood: {error}") from error
        if not _NAME_OF_MESSAGE.fullmatch(header.msg_id):
            raise WireError("a message with a name that is none")
        return message, frames.size_bytes

    def close(self) -> None:
        """Close the sockets."""
        for socket in self._sockets.values():
            socket.disable_monitor()
            socket.close()
        for monitor in self._breaks.values():
            monitor.close(linger=0)
        for fd in self._inodes.values():
            os.close(fd)
        self._inodes = {}


def _open_sockets(init_pid: int, supervisor_pid: int) -> dict[str, int]:
    """Return a descriptor of each socket's inode."""
    with contextlib.ExitStack() as stack:
        process = _opened(stack, f"/proc/{init_pid}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, None)
        directory = _opened(stack, "root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, process)
        if _parent_of(process) != supervisor_pid:
            raise OSError(0, "the container is gone")
        for name in DIRECTORY:
            directory = _opened(stack, name, _DIRECTORY, directory)
        with contextlib.ExitStack() as found:
            inodes: dict[str, int] = {
                channel: _open_socket(found, socket_name(channel), directory) for channel in CHANNELS
            }
            found.pop_all()
        return inodes


def _opened(stack: contextlib.ExitStack, name: str, flags: int, directory: int | None) -> int:
    fd = os.open(name, flags, dir_fd=directory)
    stack.callback(os.close, fd)
    return fd


def _open_socket(stack: contextlib.ExitStack, name: str, directory: int) -> int:
    fd = _opened(stack, name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, directory)
    if not stat.S_ISSOCK(os.fstat(fd).st_mode):
        raise OSError(0, f"{name} is no socket")
    return fd


def _parent_of(process: int) -> int:
    """Return the parent's pid, read through the directory of a process: a number given anew has another one."""
    fd = os.open("stat", os.O_RDONLY | os.O_CLOEXEC, dir_fd=process)
    try:
        return int(os.read(fd, 4096).rpartition(b")")[2].split()[1])
    finally:
        os.close(fd)
