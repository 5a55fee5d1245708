"""``contain kernel start``: what Jupyter starts; a container with a kernel in it, and the relay in this process."""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import socket
import threading
from collections.abc import Sequence
from dataclasses import replace

from container_magic.deferred import dataclass
from container_magic.errors import ContainError, StateError
from container_magic.kernel.options import parse_kernel
from container_magic.runtime.request import RunRequest
from container_magic.runtime.run import Run
from container_magic.spec import ContainerSpec

_MEMORY_BYTES = 1536 * 1024 * 1024
"""What the relay may grow by: whoever is inside decides what it is sent."""
_STATM_PAGES = 0


@dataclass(frozen=True, kw_only=True)
class Outside:
    """What is told to the relay from beside: descriptors that become readable."""

    signals: int
    """Signal numbers, a byte each."""
    parent: int | None = None
    """The end of the process that wants this kernel."""


def main(words: Sequence[str]) -> int:
    """Start the kernel that ``words`` ask for and relay until it is over; return the exit status.

    Raises:
        OptionError: An option is malformed; nothing was started.
        StateError: Who wanted the kernel has ended.
    """
    options = parse_kernel(words)
    loading = threading.Thread(target=_load)  # beside the zygote, which imports ipykernel meanwhile
    outside = _outside()
    loading.start()
    key = os.urandom(32).hex()
    order = json.dumps({"key": key, "arguments": options.arguments}).encode()
    request = RunRequest(spec=_kernel_spec(options.spec), code=order, html=options.html, once=True)
    try:
        run = Run(request)
    except ContainError as error:
        loading.join()
        from container_magic.kernel.refusal import refuse

        return refuse(options.connection_file, error, outside)
    loading.join()
    from container_magic.kernel.relay import relay

    try:
        _bound_memory()
        gc.enable()  # from here on it lives long
        return relay(options, run, request, key, outside)
    finally:
        run.close()


def _load() -> None:
    import container_magic.kernel.relay  # noqa: F401


def _kernel_spec(spec: ContainerSpec) -> ContainerSpec:
    """Return ``spec`` for a kernel: its start has no time limit, and an interrupt is a wish."""
    watch = replace(spec.watch, wall_seconds=None, interrupt_seconds=None)
    return replace(spec, process=replace(spec.process, shell="kernel"), watch=watch)


def _outside() -> Outside:
    """Have signals written to a socket from now on, and look who has started this process."""
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.detach(), warn_on_full_buffer=False)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    return Outside(signals=reader.detach(), parent=_parent())


def _parent() -> int | None:
    """Return a descriptor that tells of the end of who wants this kernel; None where nobody says who that is.

    Raises:
        StateError: It has ended already.
    """
    wanted, parent = os.environ.get("JPY_PARENT_PID", ""), os.getppid()
    if wanted in ("", "1") or parent == 0:  # as ipykernel has it; 0: in another pid namespace
        return None
    if parent == 1:
        raise StateError(f"process {wanted}, which wanted this kernel, has ended")
    return os.pidfd_open(parent)


def _bound_memory() -> None:
    """Let this process have so much memory beyond what it has; ZeroMQ ends it when it asks for more."""
    with open("/proc/self/statm", encoding="utf-8") as file:
        used = int(file.read().split()[_STATM_PAGES]) * resource.getpagesize()
    limit = used + _MEMORY_BYTES
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    if hard == resource.RLIM_INFINITY or hard > limit:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
