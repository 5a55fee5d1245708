"""How other processes of this user ask the supervisor of a container that lives on: one request, one answer.

A datagram socket in the container's state directory, which is the user's alone. A request is one JSON object with one
descriptor: the socket that the answer goes to, as a file in memory. So nothing waits for anybody: the supervisor never
has a half-read request or an answer that nobody takes, and its watching goes on. Only containers that stay for a
while have one; the containers of single runs cost nothing for it.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
from collections.abc import Callable
from typing import Any

from container_magic.errors import ContainError, OptionError
from container_magic.process.handshake import memory_file

CONTROL = "control"
MOST_REQUEST_BYTES = 4096
_MOST_FDS = 4

Answer = Callable[[dict[str, Any]], dict[str, Any]]


class Control:
    """The supervisor's end, in the directory ``directory_fd``; ``answer`` is called with each request.

    Raises:
        OSError: There can be no socket.
    """

    def __init__(self, directory_fd: int, answer: Answer) -> None:
        self._answer = answer
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        try:
            self._socket.bind(control_path(directory_fd))
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """Return the descriptor that is readable when ``serve`` has something to do."""
        return self._socket.fileno()

    def serve(self) -> None:
        """Answer one request; one that is none is dropped."""
        try:
            data, fds, _, _ = socket.recv_fds(self._socket, MOST_REQUEST_BYTES + 1, _MOST_FDS)
        except OSError:
            return
        with contextlib.ExitStack() as stack:
            for fd in fds:
                stack.callback(os.close, fd)
            is_whole = len(fds) == 1 and len(data) <= MOST_REQUEST_BYTES
            if is_whole and stat.S_ISSOCK(os.fstat(fds[0]).st_mode):
                with contextlib.suppress(OSError):  # whoever asked is gone
                    self._reply(fds[0], self._outcome(data))

    def _outcome(self, data: bytes) -> dict[str, Any]:
        try:
            request = json.loads(data)
            if not isinstance(request, dict):
                raise OptionError("a request is a JSON object")
            return self._answer(request)
        except ContainError as error:
            return {"failed": error.message, "kind": type(error).__name__, "hint": error.hint}
        except (ValueError, RecursionError):
            return {"failed": "a request is a JSON object", "kind": "OptionError"}

    def _reply(self, fd: int, answer: dict[str, Any]) -> None:
        file = memory_file("answer", json.dumps(answer).encode())
        try:
            with socket.socket(fileno=os.dup(fd)) as end:
                end.setblocking(False)
                socket.send_fds(end, [b"A"], [file])
        finally:
            os.close(file)

    def close(self) -> None:
        """Answer nobody any more."""
        self._socket.close()


def control_path(directory_fd: int) -> str:
    """Return the path of the socket in the directory ``directory_fd``."""
    # a unix socket's path is short, and a runtime directory's may be long; and the supervisor's view has none
    return f"/proc/self/fd/{directory_fd}/{CONTROL}"
