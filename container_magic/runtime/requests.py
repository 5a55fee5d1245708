"""A client's way to its zygote's supervisors."""

from __future__ import annotations

import array
import contextlib
import socket
import threading
from collections.abc import Sequence

from container_magic.process import handshake

_WORD_BYTES = 16
_ONE_FD = socket.CMSG_SPACE(array.array("i").itemsize)
_NOW = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC  # which socket.recv_fds() does not hand on


class Requests:
    """Requests go straight to the supervisor that waits for one, or through the zygote when none does.

    The zygote hands out the socket of each supervisor that it forks ahead, and is told when that was used.
    """

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._spare: socket.socket | None = None
        self._used = False
        self._lock = threading.Lock()

    def send(self, message: bytes, fds: Sequence[int]) -> None:
        """Send a request.

        Raises:
            OSError: The zygote is gone.
        """
        self.tell()
        self._receive_spares()
        spare, self._spare = self._spare, None
        if spare is None or not self._use(spare, message, fds):
            socket.send_fds(self._control, [message], fds)

    def _use(self, spare: socket.socket, message: bytes, fds: Sequence[int]) -> bool:
        """Return whether it could be sent: whoever waited there may have been killed."""
        sent = False
        with spare, contextlib.suppress(OSError):
            socket.send_fds(spare, [message], fds)
            sent = True
        self._used = True
        return sent

    def tell(self) -> None:
        """Tell the zygote of whoever was used, when nobody waits for a CPU any more."""
        with self._lock:
            used, self._used = self._used, False
        if used:
            with contextlib.suppress(OSError):  # a zygote that dies takes its supervisors along, which say so
                self._control.send(handshake.USED)

    def _receive_spares(self) -> None:
        """Keep the last one that was handed out."""
        with contextlib.suppress(OSError):  # there is no more, or no zygote
            while True:
                word, notes, _, _ = self._control.recvmsg(_WORD_BYTES, _ONE_FD, _NOW)
                if not word:
                    return
                for _, _, fds in notes:
                    if self._spare is not None:
                        self._spare.close()
                    (fd,) = array.array("i", fds)
                    self._spare = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fd)

    def close(self) -> None:
        """Let the zygote go, and with it whoever waits there, though a child of this process may have its socket."""
        if self._spare is not None:
            self._spare.close()
            self._spare = None
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        self._control.close()
