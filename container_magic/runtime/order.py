"""What a container is started with: descriptors, in the order in which the payload takes them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from container_magic.process import handshake
from container_magic.runtime.deliver import Delivery
from container_magic.runtime.ends import Ends
from container_magic.runtime.intake import Intake
from container_magic.runtime.request import RunRequest


def short_code(request: RunRequest) -> bytes | None:
    """Return the code, if it can be given to the payload itself: it is short, and no program that reads a file."""
    code = request.code or b""
    return code if request.spec.process.kind == "python" and len(code) <= handshake.MAX_CODE_BYTES else None


@contextlib.contextmanager
def order_fds(
    request: RunRequest, intake: Intake, ends: Ends, delivery: Delivery | None, *, with_code: bool
) -> Iterator[list[int]]:
    """Yield code, standard streams, channel, variables and the way of files; our copies are closed after it.

    Without the code where the payload is given that itself. The streams are pipes that ``intake`` reads, whose far ends
    stay open there.
    """
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, ends.null)
        variables = request.variables
        html = request.html if request.spec.process.shell != "script" else None
        # first of all: whatever goes wrong then, the intake closes them
        streams = intake.open(ends, html, variables.wanted if variables is not None else ())
        fds = [_memory_file("code", request.code or b"", stack)] if with_code else []
        stdin = ends.null if request.stdin is None else request.stdin
        fds.append(stdin if isinstance(stdin, int) else _memory_file("stdin", stdin, stack))
        fds += streams
        if variables is not None:
            fds.append(variables.fd)
        if delivery is not None:
            fds.append(delivery.far_end.fileno())
            stack.callback(delivery.far_end.close)
        yield fds


def _memory_file(name: str, data: bytes, stack: contextlib.ExitStack) -> int:
    fd = handshake.memory_file(name, data)
    stack.callback(os.close, fd)
    return fd
