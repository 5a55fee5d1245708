"""What a container is started with: descriptors, in the order in which the payload takes them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from container_magic.process import handshake
from container_magic.runtime.deliver import Delivery
from container_magic.runtime.ends import EndsAhead
from container_magic.runtime.intake import Intake
from container_magic.runtime.request import RunRequest


@contextlib.contextmanager
def order_fds(request: RunRequest, intake: Intake, ends: EndsAhead, delivery: Delivery | None) -> Iterator[list[int]]:
    """Yield code, standard streams, channel, variables and the way of files; our copies are closed after it.

    The streams are fresh pipes that ``intake`` reads, whose far ends stay open there.
    """
    with contextlib.ExitStack() as stack:
        stdin = request.stdin
        if not isinstance(stdin, int):
            stdin = handshake.input_file(stdin)
            stack.callback(os.close, stdin)
        fds = [handshake.memory_file("code", request.code or b""), stdin]
        stack.callback(os.close, fds[0])
        variables = request.variables
        html = request.html if request.spec.process.shell != "script" else None
        fds += intake.open(ends.take(), html, variables.wanted if variables is not None else ())
        if variables is not None:
            fds.append(variables.fd)
        if delivery is not None:
            fds.append(delivery.far_end.fileno())
            stack.callback(delivery.far_end.close)
        yield fds
