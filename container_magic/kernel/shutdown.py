"""A shutdown that clients ask for: within its time, and answered whatever becomes of the kernel."""

from __future__ import annotations

import time
from collections import deque

from container_magic.kernel.client_side import ClientSide, Request
from container_magic.kernel.outgoing import Outgoing

_SECONDS = 0.8
"""What a kernel has that was asked to end, busy or not; a manager sends SIGTERM after 2.5 s."""
_MOST_REQUESTS = 1000


class Shutdown:
    """Whether the kernel's end is wanted, by whom, and from when on it is not waited for.

    Args:
        client: The clients' sockets.
        outgoing: Knows which requests the kernel has answered.
    """

    def __init__(self, client: ClientSide, outgoing: Outgoing) -> None:
        self._client = client
        self._outgoing = outgoing
        self._asked: deque[Request] = deque(maxlen=_MOST_REQUESTS)
        self.wanted = False
        """Whether somebody wants the kernel to end: then its end is no failure."""
        self.kill_at = float("inf")
        """When the container is to be killed, by the monotonic clock."""

    def ask(self, request: Request) -> None:
        """Take note of a request; the first one says from when on the time counts."""
        if not self._asked:
            self.kill_at = time.monotonic() + _SECONDS
        self.wanted = True
        self._asked.append(request)

    def answer(self) -> None:
        """Answer in the place of a kernel that was killed before it could, or whose answer was lost with it."""
        for request in self._asked:
            if self._outgoing.awaits_reply(request):
                content: dict[str, object] = {"status": "ok", "restart": request.restarts}
                self._client.publish(self._client.message("shutdown_reply", content), request)
                self._client.answer(request, "shutdown_reply", content)
