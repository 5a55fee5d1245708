"""The supervisor's side of the client's socket, and its waiting for the child while that socket may close."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Mapping
from typing import Any

from container_magic.deferred import dataclass
from container_magic.errors import HostError, InternalError
from container_magic.events import Event, to_dict
from container_magic.linux import constants as c
from container_magic.linux import syscalls
from container_magic.process import handshake

_FLUSH_SECONDS = 5.0
_RECEIVE_BYTES = 65536
_ORDER_FDS = 8


def _hint(text: str) -> str:
    if "'proc on " in text:
        # "mount too revealing": a new procfs would show what is masked in the one around it
        return (
            "the surrounding container masks parts of /proc: start it with --security-opt systempaths=unconfined "
            "(Docker) or --security-opt unmask=ALL (Podman)"
        )
    if "--work overlay" in text:
        return "--work copy makes a copy instead"
    if "--work copy" in text:
        return "--work overlay needs no copy, and --disk says how large one may be"
    return "`contain doctor` says what this host can do"


@dataclass(frozen=True, kw_only=True)
class Order:
    """The client's ``start``: which run it is, and descriptors for the payload: code, standard streams, channel.

    ``globs`` name what is to be handed over the socket ``files`` after the end; without them there is no such socket.
    ``begun``, of the monotonic clock: the client has given the payload its descriptors itself, at that moment.
    """

    run: int
    fds: tuple[int, ...]
    globs: tuple[str, ...] = ()
    files: socket.socket | None = None
    begun: float | None = None


def _is_ready(message: bytes) -> bool:
    if message == handshake.LAYER:
        return False
    if message[:1] == handshake.FAILED:
        text = message[1:].decode(errors="replace")
        raise HostError(f"cannot make the container: {text}", hint=_hint(text))
    if not message or message[:1] == handshake.EXITED:
        raise InternalError("the container died while it was being made")
    return message == handshake.READY


class ClientGoneError(Exception):
    """The client closed its socket or died: nobody waits for this container."""


class ZygoteGoneError(InternalError):
    """The zygote died; its supervisors end with it."""


class Wakeup:
    """A pipe that becomes readable when the zygote dies; made before there is a client."""

    def __init__(self, zygote_pid: int) -> None:
        self.fd, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, lambda *_: None)
        syscalls.prctl(c.PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != zygote_pid:
            os.kill(os.getpid(), signal.SIGTERM)  # it died before the line above


class Connection:
    """Frames to and from the client; never blocks on a client that does not read."""

    def __init__(self, client_fd: int, wakeup_fd: int) -> None:
        self.socket = socket.socket(fileno=client_fd)
        self.socket.setblocking(False)
        self._reader = handshake.FrameReader()
        self._outbox = bytearray()
        self._lost = False
        self._order: Order | None = None
        self._fds: list[int] = []
        self._kept: list[dict[str, Any]] = []
        self.hurried = False
        """The client waits for the removal of a container whose end it has seen itself."""
        self.wakeup = wakeup_fd
        self.layers_fd: int | None = None
        """The container's upper layers, when it was to send them."""

    @property
    def pending_bytes(self) -> int:
        """Bytes that the client has not taken yet."""
        return len(self._outbox)

    def send(self, *events: Event) -> None:
        """Send ``events``, or keep them until the client reads."""
        for event in events:
            self._outbox += handshake.frame(to_dict(event))
        self.pump()

    def send_with(self, told: Mapping[str, Any], fds: Mapping[str, int], *events: Event) -> None:
        """Send descriptors by name, what is ``told`` of them, and ``events``; these alone, if the client is slow."""
        if fds and not self._outbox and not self._lost:
            frames = ({"op": "hand_over", **told, "fds": list(fds)}, *map(to_dict, events))
            data = b"".join(map(handshake.frame, frames))
            with contextlib.suppress(OSError):
                sent = socket.send_fds(self.socket, [data], list(fds.values()))
                self._outbox += data[sent:]
                return
        self.send(*events)

    def pump(self) -> None:
        """Write as much as the client takes now."""
        while self._outbox and not self._lost:
            try:
                sent = self.socket.send(self._outbox)
            except BlockingIOError:
                return
            except OSError:
                self._lost = True
                return
            del self._outbox[:sent]

    def flush(self) -> None:
        """Write the rest, for a few seconds at most."""
        deadline = time.monotonic() + _FLUSH_SECONDS
        while self._outbox and not self._lost and time.monotonic() < deadline:
            select.select([], [self.socket], [], deadline - time.monotonic())
            self.pump()

    def linger(self, seconds: float) -> None:
        """Wait until the client says something, closes its end, or ``seconds`` are over."""
        hurried, self.hurried = self.hurried, False
        if not hurried and self._order is None:
            select.select([self.socket.fileno(), self.wakeup], [], [], seconds)

    def receive(self) -> list[dict[str, Any]]:
        """Return the frames that have come.

        Raises:
            ClientGoneError: The client's end is closed.
        """
        try:
            data, fds, _, _ = socket.recv_fds(self.socket, _RECEIVE_BYTES, _ORDER_FDS)
        except BlockingIOError:
            return []
        except OSError as error:
            raise ClientGoneError from error
        if not data:
            raise ClientGoneError
        self._fds += fds
        return self._reader.feed(data)

    def check_wakeup(self) -> None:
        """Empty the wake-up pipe; raise when it was the zygote's death that woke us.

        Raises:
            ZygoteGoneError: The zygote died.
        """
        if signal.SIGTERM in os.read(self.wakeup, 512):
            raise ZygoteGoneError("the zygote was killed, and the container with it")

    def await_ready(
        self, start: socket.socket, sync: socket.socket, init_pidfd: int, seconds: float, *, layers: bool
    ) -> int:
        """Wait until init has shed its privileges and the payload waits for code; ``layers``: it sends those first.

        Returns:
            The payload's pid.

        Raises:
            HostError: A step of the set-up failed.
            InternalError: The child died or took longer than ``seconds``.
            ClientGoneError: The client's end is closed.
        """
        deadline = time.monotonic() + seconds
        poll = select.poll()
        for fd in (start, sync, self.socket, self.wakeup, init_pidfd):
            poll.register(fd, select.POLLIN)
        waiting = [sync, start]  # when init fails, the payload ends without a word
        payload_pid = 0
        while waiting:
            ready = {fd for fd, _ in poll.poll(max(0.0, deadline - time.monotonic()) * 1000)}
            if not ready:
                raise InternalError(f"the container was not made within {seconds:g} s")
            for end in tuple(waiting):
                if end.fileno() not in ready:
                    continue
                if end is start:
                    message, payload_pid = handshake.receive_with_sender(end)
                else:
                    message = self._receive_layers(end) if layers else handshake.receive(end)
                if _is_ready(message):
                    waiting.remove(end)
                    poll.unregister(end)
            if self.wakeup in ready:
                self.check_wakeup()
            if self.socket.fileno() in ready:
                self._take_order()
            if init_pidfd in ready and waiting:
                raise InternalError("the container's init died while it was being made")
        return payload_pid

    def _take_order(self) -> None:
        for frame in self.receive():
            self.keep(frame)

    def keep(self, frame: dict[str, Any]) -> None:
        """Keep what is meant for the next run: its ``start``, and what comes behind it."""
        if self._order is not None:
            self._kept.append(frame)
        # an interrupt or kill that came too late for the run before is for none
        elif frame.get("op") == "start":
            globs = tuple(frame.get("globs", ()))
            # none where the client has given them to the payload; one read may bring the next run's as well
            fds, self._fds = self._fds[: frame["fds"]], self._fds[frame["fds"] :]
            files = socket.socket(fileno=fds.pop()) if globs else None
            begun = frame.get("begun")
            self._order = Order(run=frame["run"], fds=tuple(fds), globs=globs, files=files, begun=begun)

    def take_kept(self) -> list[dict[str, Any]]:
        """Return the frames that have come behind the ``start``: nobody could obey them yet."""
        kept, self._kept = self._kept, []
        return kept

    def _receive_layers(self, end: socket.socket) -> bytes:
        message, fds, _, _ = socket.recv_fds(end, handshake.MAX_MESSAGE_BYTES, 1)
        if fds:
            self.layers_fd = fds[0]
        return message

    def asked(self) -> bool:
        """Whether the client's ``start`` has come.

        Raises:
            ClientGoneError: The client's end is closed.
        """
        self._take_order()
        return self._order is not None

    def await_start(self, sync: socket.socket, init_pidfd: int) -> Order:
        """Wait for the client's ``start``.

        Raises:
            InternalError: The container died in ``created``.
            ClientGoneError: The client's end is closed.
        """
        poll = select.poll()
        for fd in (self.socket, self.wakeup, init_pidfd, sync):
            poll.register(fd, select.POLLIN)
        while self._order is None:
            ready = {fd for fd, _ in poll.poll()}
            if self.wakeup in ready:
                self.check_wakeup()
            if self.socket.fileno() in ready:
                self._take_order()
            if init_pidfd in ready or sync.fileno() in ready:  # init is dead, or says that the payload is
                # the code may have been quicker than this process: news of a start come before those of the end
                self._take_order()
                if self._order is None:
                    raise InternalError("the container died before it was started")
        order, self._order = self._order, None
        if order.begun is None and any(fd in (sync.fileno(), init_pidfd) for fd, _ in poll.poll(0)):
            raise InternalError("the container died before it was started")
        return order
