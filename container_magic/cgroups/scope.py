"""A systemd scope: a cgroup of an ordinary user's own, asked of his service manager.

Login sessions lie in a group that the user may not write. His manager (``systemd --user``) gives him one that he may,
with ``Delegate=yes`` (systemd.resource-control(5), https://systemd.io/CGROUP_DELEGATION).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace

from container_magic.cgroups.facts import CgroupFacts

_VARIABLES = ("XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS")


def scope_launcher(facts: CgroupFacts, environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Return the words to put before a command so that it runs in a scope of its own; empty where that is no help.

    It is none in a scope or service that is the user's to divide already, on cgroup v1 (nothing can be delegated), and
    without a manager.
    """
    if facts.setup != "unified" or os.geteuid() == 0 or not _is_managed(facts.bases):
        return ()
    import shutil

    program = shutil.which("systemd-run")
    if program is None:
        return ()
    if not os.path.exists(f"{environ.get('XDG_RUNTIME_DIR', '')}/systemd/private"):
        return ()
    words = ("--user", "--scope", "--quiet", "--collect", "--property=Delegate=yes", "--description=container_magic")
    return (program, *words, "--")


def _is_managed(bases: Mapping[str, str]) -> bool:
    """Whether there is no base, or one in a group that the manager divides itself (its own, or a slice)."""
    unit = os.path.basename(os.path.dirname(bases.get("unified", "")))
    return not unit or unit.endswith(".slice") or unit.startswith("user@")


def launcher_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables by which ``systemd-run`` finds the manager."""
    return {name: environ[name] for name in _VARIABLES if name in environ}


def without_scope(facts: CgroupFacts, reason: str) -> CgroupFacts:
    """Return ``facts`` with why the manager gave no scope beside why nothing else could be had."""
    return replace(
        facts,
        refusals={name: f"{text}; systemd-run --user --scope: {reason}" for name, text in facts.refusals.items()},
    )
