"""Files out, the client's side: writes what the supervisor hands over below one directory, as the user.

Every name comes from inside: it is taken apart here once more, no link is followed on the way to it, and a file that
stands there is replaced at once or not at all.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket

from container_magic.errors import OptionError
from container_magic.events import Collected, NotCollected

_MESSAGE_BYTES = 65536
_PIECE_BYTES = 16 * 1024 * 1024
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Delivery:
    """The client's end of the socket that files come over, and the directory that they are put into.

    Raises:
        OptionError: The directory cannot be opened.
    """

    def __init__(self, directory: str = ".") -> None:
        try:
            self._directory = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise OptionError(f"--out-file: the directory {directory!r} cannot be opened: {error.strerror}") from None
        self.socket, self.far_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def receive(self) -> Collected | NotCollected | None:
        """Take one message and answer it; None at the end.

        A supervisor that is gone has an end of its own, elsewhere.
        """
        with contextlib.suppress(OSError):
            data, fds, _, _ = socket.recv_fds(self.socket, _MESSAGE_BYTES, 1)
            event = self._take(data, fds[0] if fds else -1) if data else None
            self.socket.send(b"k")
            return event
        return None

    def _take(self, data: bytes, fd: int) -> Collected | NotCollected | None:
        message = json.loads(data)
        if "end" in message:
            return None
        path = message["path"]
        if "refused" in message:
            return NotCollected(path=path, reason=message["refused"])
        try:
            write_below(self._directory, path, fd, message["size"])
        except OSError as error:
            return NotCollected(path=path, reason=f"it cannot be written: {error.strerror or error}")
        finally:
            os.close(fd)
        return Collected(path=path, size_bytes=message["size"])

    def close(self) -> None:
        """Close everything; once more does nothing."""
        self.socket.close()
        self.far_end.close()
        if self._directory >= 0:
            os.close(self._directory)
            self._directory = -1


def write_below(directory: int, path: str, source: int, size_bytes: int) -> None:
    """Write the first ``size_bytes`` of ``source`` to ``path`` below ``directory``; a file there is replaced.

    Raises:
        OSError: The path leads out of the directory, through a link or a file, or cannot be written.
    """
    *folders, name = path.split("/")
    if any(part in ("", ".", "..") for part in (*folders, name)):
        raise OSError(0, "its path leads elsewhere")
    with contextlib.ExitStack() as stack:
        for folder in folders:
            directory = _enter(directory, folder)
            stack.callback(os.close, directory)
        _replace(directory, name, source, size_bytes)


def _enter(directory: int, name: str) -> int:
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, dir_fd=directory)
    return os.open(name, _DIRECTORY, dir_fd=directory)


def _replace(directory: int, name: str, source: int, size_bytes: int) -> None:
    temporary = f".container_magic-{os.urandom(8).hex()}"
    fd = os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666, dir_fd=directory
    )
    try:
        try:
            _copy(source, fd, size_bytes)
        finally:
            os.close(fd)
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        os.unlink(temporary, dir_fd=directory)
        raise


def _copy(source: int, target: int, size_bytes: int) -> None:
    offset = 0
    while offset < size_bytes:
        copied = os.sendfile(target, source, offset, min(_PIECE_BYTES, size_bytes - offset))
        if not copied:
            raise OSError(0, f"it ends after {offset} of {size_bytes} bytes")
        offset += copied
