"""Makes ready what `probe` found, and completes the facts by looking at a real new group."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from dataclasses import replace

from container_magic.cgroups import files
from container_magic.cgroups.facts import OPTIONAL_FILES, CgroupFacts
from container_magic.cgroups.unified import prepare_base
from container_magic.errors import ContainError, HostError

_REMOVE_SECONDS = 1.0
_PROBE = "container_magic-probe-"
_OLD_SECONDS = 30.0


def prepare(facts: CgroupFacts, pid: int = 0) -> CgroupFacts:
    """Make the bases usable and return the facts as they are then.

    v2: makes the base group, enables its controllers, and moves ``pid``, the process that the facts are of (0 = this
    one; no other), into ``client_leaf`` if the facts have one. Both versions: makes and removes one group per base, to
    see whether that works and which files it has. A base that does not work becomes a refusal, not an error.
    """
    if "unified" in facts.bases:
        try:
            prepare_base(facts.bases["unified"], facts.controllers, facts.client_leaf, pid)
        except HostError as error:
            return _without(facts, "unified", error)
        facts = replace(facts, client_leaf="")
    seen: dict[str, set[str]] = {}
    for key, base in facts.bases.items():
        try:
            if base not in seen:
                seen[base] = _files_of_new_group(base)
        except ContainError as error:
            facts = _without(facts, key, error)
    optional = set[str]().union(*seen.values())
    swap = "memory.memsw.limit_in_bytes" in optional or "memory.swap.max" in optional
    return replace(facts, optional_files=tuple(sorted(optional)), swap_accounting=swap)


def _without(facts: CgroupFacts, key: str, error: ContainError) -> CgroupFacts:
    lost = facts.controllers if key == "unified" else (key,)
    return replace(
        facts,
        bases={name: base for name, base in facts.bases.items() if name != key},
        controllers=tuple(name for name in facts.controllers if name not in lost),
        refusals={**facts.refusals, **dict.fromkeys(lost, error.message)},
        remedies={**facts.remedies, **dict.fromkeys(lost, error.hint)},
        client_leaf="" if key == "unified" else facts.client_leaf,
    )


def _remove_old_probes(base: str) -> None:
    """Remove what a process that was killed in the middle of this left; an empty group, so that rmdir is enough."""
    with contextlib.suppress(OSError):
        for name in os.listdir(base):
            path = os.path.join(base, name)
            if name.startswith(_PROBE) and time.time() - os.stat(path).st_mtime > _OLD_SECONDS:
                os.rmdir(path)


def _files_of_new_group(base: str) -> set[str]:
    _remove_old_probes(base)
    path = os.path.join(base, f"{_PROBE}{os.urandom(4).hex()}")
    files.make(None, path)
    try:
        return {name for name in OPTIONAL_FILES if files.exists(None, f"{path}/{name}")}
    finally:
        files.remove_tree(None, path, _REMOVE_SECONDS)


def open_bases(bases: Mapping[str, str]) -> dict[str, int]:
    """Open a directory descriptor for each base; controllers that share a hierarchy share the descriptor.

    The descriptors keep the mounts that they were opened through: groups can be made below them from a process whose
    own view of the host is read-only.

    Raises:
        HostError: A base cannot be opened.
    """
    by_path: dict[str, int] = {}
    try:
        for path in bases.values():
            if path not in by_path:
                by_path[path] = files.open_dir(None, path)
    except HostError:
        for fd in by_path.values():
            os.close(fd)
        raise
    return {key: by_path[path] for key, path in bases.items()}
