"""What the zygote runs: its loop, with the supervisor as what it forks for."""

from __future__ import annotations

import functools
import importlib
import json
import os
import socket
import sys
from dataclasses import replace

from container_magic.deferred import dataclass, make_all
from container_magic.linux.capabilities import last_capability
from container_magic.linux.seccomp import default_program
from container_magic.process import handshake, shells
from container_magic.process.boot import seal_template
from container_magic.process.zygote import serve, serve_once
from container_magic.rootfs.host import HostTree, with_mounts
from container_magic.runtime.supervisor import supervise

MAX_ORDER_BYTES = 65536
MAX_ORDER_FDS = 32
# what every supervisor would import for itself
_PRELOAD = (
    "container_magic.cgroups.v1",
    "container_magic.cgroups.v2",
    "container_magic.plan",
    shells.PLAIN_SHELL,
    shells.EXCHANGE,
)


@dataclass(frozen=True, kw_only=True)
class _Order:
    """What the client tells its zygote: descriptors by purpose, modules to import, and whether it runs only once."""

    fds: dict[str, int]
    preload: list[str]
    once: bool


def _receive_order(control: int) -> _Order | None:
    with socket.socket(fileno=os.dup(control)) as end:
        message, fds, _, _ = socket.recv_fds(end, MAX_ORDER_BYTES, MAX_ORDER_FDS)
    if not message:
        return None
    told = json.loads(message)
    return _Order(fds=dict(zip(told["fds"], fds, strict=True)), preload=told["preload"], once=told["once"])


def _preload(names: list[str]) -> dict[str, str]:
    """Import modules of the environment; return which one failed and why, nothing when none did."""
    for name in names:
        try:
            importlib.import_module(name)
        except BaseException as error:  # whatever a foreign module raises, SystemExit too
            return {"failed": name, "reason": f"{type(error).__name__}: {error}"[:1000]}
    return {}


def main() -> None:
    """Serve; what boot found stands on the command line, the client's order comes over the control socket."""
    found, early, *has_mounts = sys.argv[1:]
    standing = {name: int(fd) for name, _, fd in (word.partition("=") for word in found.split(","))}
    # computed once here, inherited by every supervisor
    default_program()
    last_capability()
    seal_template(standing.pop("filler"))
    failed = _preload([name for name in early.split(",") if name])
    order = _receive_order(standing["control"])
    if order is None:
        return
    standing |= order.fds
    failed = failed or _preload(order.preload)
    if failed:
        os.write(standing["control"], json.dumps(failed).encode())
        return
    pattern_fd = standing.pop("pattern")
    pattern = handshake.load_plan(pattern_fd)
    if not order.once:
        _warm_up(pattern_fd, standing)
    os.close(pattern_fd)
    marked = with_mounts(HostTree(lowers=pattern.lowers), has_mounts)
    supervisor = functools.partial(supervise, pattern=replace(pattern, lowers=marked.lowers))
    greeting = json.dumps({"has_mounts": has_mounts}).encode()
    (serve_once if order.once else serve)(standing, supervisor, greeting)


def _warm_up(pattern_fd: int, standing: dict[str, int]) -> None:
    """Spend now what every container would otherwise spend; it pays from the second container on."""
    from container_magic.runtime.rehearsal import rehearse

    for name in _PRELOAD:
        importlib.import_module(name)
    make_all()
    rehearse(pattern_fd, standing)
