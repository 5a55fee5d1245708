"""A kernel that this host cannot run: it stays, and says why to whoever asks it for something."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import zmq

from container_magic.errors import ContainError
from container_magic.kernel.client_side import PROTOCOL_VERSION, ClientSide, Request, read_connection_file
from container_magic.kernel.relay import complain
from container_magic.kernel.wire import WireError

if TYPE_CHECKING:
    from container_magic.kernel.launcher import Outside

EXIT_REFUSED = 125
"""Docker's for a container that was not made."""


def refuse(connection_file: str, error: ContainError, outside: Outside) -> int:
    """Answer every cell with ``error`` until the kernel is shut down; return the exit status.

    A kernel that ends at once is started again and again, and the client says no more than that it died.
    """
    name = type(error).__name__
    lines = [f"{name}: {error.message}", *([f"hint: {error.hint}"] if error.hint else [])]
    complain("\n".join(lines))
    content = {"ename": name, "evalue": error.message, "traceback": lines}
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    client = ClientSide(read_connection_file(connection_file), context)
    try:
        _Refusal(client, content, outside).serve()
    finally:
        client.close()
        context.destroy()
    return EXIT_REFUSED


class _Refusal:
    def __init__(self, client: ClientSide, error: dict[str, Any], outside: Outside) -> None:
        self._client = client
        self._error = error
        self._outside = outside
        self._over = False

    def serve(self) -> None:
        poller = zmq.Poller()
        client = self._client
        handlers: dict[Any, Any] = {client.socket("iopub"): client.welcome, client.socket("hb"): client.beat}
        handlers[client.socket("shell")] = lambda: self._take("shell")
        handlers[client.socket("control")] = lambda: self._take("control")
        handlers[self._outside.signals] = self._take_signals
        if self._outside.parent is not None:
            handlers[self._outside.parent] = self._end
        for source in handlers:
            poller.register(source, zmq.POLLIN)
        client.publish_status("starting", None)
        while not self._over:
            for source, _ in poller.poll():
                handlers[source]()

    def _end(self) -> None:
        self._over = True

    def _take_signals(self) -> None:
        self._over = self._over or any(number != signal.SIGINT for number in os.read(self._outside.signals, 64))

    def _take(self, channel: Any) -> None:
        try:
            request = self._client.receive(channel)
        except WireError as error:
            complain(f"a client sent {error}; it was dropped")
            return
        if request is not None:
            self._client.publish_status("busy", request)
            self._answer(request)
            self._client.publish_status("idle", request)

    def _answer(self, request: Request) -> None:
        kind = request.header.msg_type
        content: dict[str, Any] = {"status": "error", **self._error}
        if kind == "kernel_info_request":
            content = self._kernel_info()
        elif kind == "shutdown_request":
            content, self._over = {"status": "ok", "restart": False}, True
        elif kind == "interrupt_request":
            content = {"status": "ok"}
        elif kind == "execute_request":
            self._client.publish(self._client.message("error", self._error), request)
            content |= {"execution_count": 0, "payload": [], "user_expressions": {}}
        if kind.endswith("_request"):
            self._client.reply(request, self._client.message(kind.removesuffix("_request") + "_reply", content))

    def _kernel_info(self) -> dict[str, Any]:
        return {
            "status": "ok",
            "protocol_version": PROTOCOL_VERSION,
            "implementation": "container_magic",
            "implementation_version": "",
            "language_info": {"name": "python", "version": "", "mimetype": "text/x-python", "file_extension": ".py"},
            "banner": "\n".join(self._error["traceback"]),
            "debugger": False,
            "help_links": [],
        }
