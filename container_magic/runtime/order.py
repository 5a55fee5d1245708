"""What a container is started with: descriptors, in the order in which the payload takes them."""

from __future__ import annotations

import os

from container_magic.process import handshake
from container_magic.runtime.deliver import Delivery
from container_magic.runtime.ends import Ends
from container_magic.runtime.request import RunRequest
from container_magic.runtime.worker import Worker


def send_order(request: RunRequest, worker: Worker, ends: Ends, delivery: Delivery | None) -> bool | None:
    """Send ``worker`` the order of ``request``, with the far ends of ``ends``, which are neither taken nor closed.

    Returns:
        Whether the payload has it already, or its supervisor passes it on; None: it is dead, and its code has not run.

    Raises:
        OSError: There is no descriptor left.
    """
    code = _short_code(request) if worker.starts_payload(request.out_files) else None
    made: list[int] = []
    try:
        fds = _descriptors(request, ends, delivery, made, with_code=code is None)
        return worker.start(fds, request.out_files, code)
    except BrokenPipeError:
        return None
    finally:
        for fd in made:
            os.close(fd)


def _short_code(request: RunRequest) -> bytes | None:
    """Return the code, if it can be given to the payload itself: it is short, and no program that reads a file."""
    code = request.code or b""
    return code if request.spec.process.kind == "python" and len(code) <= handshake.MAX_CODE_BYTES else None


def _descriptors(
    request: RunRequest, ends: Ends, delivery: Delivery | None, made: list[int], *, with_code: bool
) -> list[int]:
    """Return code, standard streams, channel, variables and the way of files; what had to be made is in ``made``.

    Without the code where the payload is given that itself.
    """
    fds = [_memory_file("code", request.code or b"", made)] if with_code else []
    stdin = ends.null if request.stdin is None else request.stdin
    fds.append(stdin if isinstance(stdin, int) else _memory_file("stdin", stdin, made))
    fds += (ends.pipes[0][1], ends.pipes[1][1])
    if request.has_channel:
        fds.append(ends.channel[1].fileno())
    if request.variables is not None:
        fds.append(request.variables.fd)
    if delivery is not None:
        fds.append(delivery.far_end.fileno())
    return fds


def _memory_file(name: str, data: bytes, made: list[int]) -> int:
    made.append(handshake.memory_file(name, data))
    return made[-1]
