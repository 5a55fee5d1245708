"""The way out: what a kernel says is bounded, made safe, and sent to whom it belongs."""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from container_magic.kernel.client_side import ClientSide, Request
from container_magic.kernel.filter import Filter
from container_magic.kernel.flood import FloodGate
from container_magic.kernel.kernel_side import KernelChannel
from container_magic.kernel.message import Message
from container_magic.kernel.wire import Frames

if TYPE_CHECKING:
    from container_magic.kernel.options import KernelOptions

_MOST_REQUESTS = 4096
"""Requests that are remembered, as parents of what comes later."""


class Outgoing:
    """Messages on their way to the clients.

    Args:
        client: The clients' sockets.
        options: What may pass, and how much.
        keep_reply: Takes the reply to a request; False when it has no use for it, and it goes at once.
        keep_idle: The same for the news that a request is dealt with.
    """

    def __init__(
        self,
        client: ClientSide,
        options: KernelOptions,
        keep_reply: Callable[[Request, Message], bool],
        keep_idle: Callable[[Message], bool],
    ) -> None:
        self._client = client
        self._keep_reply = keep_reply
        self._keep_idle = keep_idle
        self._filter = Filter(options.html, options.allow_widgets)
        # what a Jupyter server gives the kernels of its sessions, and nobody else does
        self._gate = FloodGate(options.spec.watch.output_bytes, paced="JPY_SESSION_NAME" in os.environ)
        self._requests: OrderedDict[str, Request] = OrderedDict()
        self._unanswered: set[str] = set()
        self._open_to_questions: set[str] = set()
        self._ends = False

    def remember(self, request: Request) -> None:
        """Take note of what a client has asked: only what answers it goes to it."""
        bare = Frames(identities=request.frames.identities, header=request.frames.header)
        self._requests[request.name] = replace(request, frames=bare)
        self._unanswered.add(request.name)
        if request.takes_questions:
            self._open_to_questions.add(request.name)
        self._ends = self._ends or request.header.msg_type == "shutdown_request"
        self._filter.seen_from_client(request.header.msg_type, request.frames.content)
        if len(self._requests) > _MOST_REQUESTS:
            oldest, _ = self._requests.popitem(last=False)
            self._unanswered.discard(oldest)
            self._open_to_questions.discard(oldest)

    def awaits_reply(self, request: Request) -> bool:
        """Whether nothing has answered a request that was taken note of."""
        return request.name in self._unanswered

    def due_seconds(self) -> float:
        """Return when ``send_due`` has something to send, by the monotonic clock; infinite: not before more comes."""
        now = time.monotonic()
        release = self._gate.next_release_seconds(now)
        return float("inf") if release is None else now + release

    def send_due(self) -> None:
        """Send what had to wait until a server would take it."""
        for message in self._gate.release(time.monotonic()):
            self._publish_cleaned(message)

    def flush(self) -> None:
        """Send all that waits."""
        for message in self._gate.flush(time.monotonic()):
            self._publish_cleaned(message)

    def take(self, channel: KernelChannel, message: Message, size_bytes: int) -> None:
        """Take a message that came on a channel, of so many bytes."""
        now = time.monotonic()
        if channel == "iopub" and message.msg_type == "shutdown_reply" and not self._ends:
            return  # who believes it closes the notebook
        if channel == "iopub" and message.content.get("execution_state") == "starting":
            return  # the relay says it, when clients can be heard
        if channel == "iopub":
            for one in [*self._gate.admit(message, size_bytes, now), *self._gate.release(now)]:
                self._publish_cleaned(one)
            return
        request = self._requests.get(message.parent_id)
        if request is None:
            return
        if channel == "stdin" and message.parent_id in self._open_to_questions:
            for one in self._gate.admit(message, size_bytes, now):
                if one is message:
                    self._pass_cleaned(channel, request, one)
                else:
                    self._publish_cleaned(one)
        else:
            self._pass_reply(channel, request, message)

    def _pass_cleaned(self, channel: KernelChannel, request: Request, message: Message) -> None:
        """Send what is left of a message to whoever has asked, and notes about it to all."""
        for one in self._filter.clean(channel, message):
            if one.msg_type == "stream":
                self.publish(one)
            elif channel == "stdin" or not self._keep_reply(request, one):
                self._client.reply(request, one, "stdin" if channel == "stdin" else None)

    def _pass_reply(self, channel: KernelChannel, request: Request, message: Message) -> None:
        """Pass on the reply to a request: the first, on its channel, of the type that belongs to it."""
        asked = request.header
        if request.channel != channel or message.msg_type != asked.msg_type.removesuffix("_request") + "_reply":
            return
        if request.name not in self._unanswered:
            return
        self._unanswered.discard(request.name)
        self.flush()
        self._pass_cleaned(channel, request, message)

    def _publish_cleaned(self, message: Message) -> None:
        for one in self._filter.clean("iopub", message):
            idle = one.msg_type == "status" and one.content.get("execution_state") == "idle"
            if not (idle and self._keep_idle(one)):
                self.publish(one)

    def publish(self, message: Message) -> None:
        """Send a message that is safe to all, below the request that it belongs to."""
        self._client.publish(message, self._requests.get(message.parent_id))
