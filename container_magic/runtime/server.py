"""What the zygote runs: its loop, with the supervisor as what it forks for."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import json
import os
import sys

from container_magic.linux.capabilities import last_capability
from container_magic.linux.seccomp import default_program
from container_magic.process import handshake
from container_magic.process.interpreter import own_modules
from container_magic.process.zygote import serve
from container_magic.rootfs.host import HostTree, with_mounts
from container_magic.runtime.rehearsal import rehearse
from container_magic.runtime.supervisor import supervise

# what every supervisor would import for itself
_PRELOAD = ("container_magic.cgroups.v1", "container_magic.cgroups.v2", "container_magic.plan")


def _preload(names: list[str]) -> dict[str, str]:
    """Import modules of the environment; return which one failed and why, nothing when none did."""
    for name in names:
        try:
            importlib.import_module(name)
        except BaseException as error:  # whatever a foreign module raises, SystemExit too
            return {"failed": name, "reason": f"{type(error).__name__}: {error}"[:1000]}
    return {}


def main() -> None:
    """Serve; the descriptors by purpose, and what boot found, are JSON on the command line."""
    told = json.loads(sys.argv[1])
    for name in _PRELOAD:
        importlib.import_module(name)
    # computed once here, inherited by every supervisor
    default_program()
    last_capability()
    own_modules()
    standing = told["fds"]
    failed = _preload(told["preload"])
    if failed:
        os.write(standing["control"], json.dumps(failed).encode())
        return
    pattern_fd = standing.pop("pattern")
    pattern = handshake.load_plan(pattern_fd)
    rehearse(pattern_fd, standing)
    os.close(pattern_fd)
    marked = with_mounts(HostTree(lowers=pattern.lowers), told["has_mounts"])
    pattern = dataclasses.replace(pattern, lowers=marked.lowers)
    serve(
        standing, functools.partial(supervise, pattern=pattern), json.dumps({"has_mounts": told["has_mounts"]}).encode()
    )
