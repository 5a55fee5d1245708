"""What the zygote runs: its loop, with the supervisor as what it forks for."""

from __future__ import annotations

import importlib
import json
import sys

from container_magic.linux.capabilities import last_capability
from container_magic.linux.seccomp import default_program
from container_magic.process.zygote import serve
from container_magic.runtime.rehearsal import rehearse
from container_magic.runtime.supervisor import supervise

# what every supervisor would import for itself
_PRELOAD = ("container_magic.cgroups.v1", "container_magic.cgroups.v2", "container_magic.plan")


def main() -> None:
    """Serve; the descriptors by purpose, and what boot found, are JSON on the command line."""
    told = json.loads(sys.argv[1])
    # computed once here, inherited by every supervisor
    for name in _PRELOAD:
        importlib.import_module(name)
    default_program()
    last_capability()
    rehearse(told["fds"].pop("rehearsal"), told["fds"])
    serve(told["fds"], supervise, json.dumps(told["has_mounts"]).encode())
