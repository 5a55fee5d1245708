"""Subordinate ids of an ordinary user (subuid(5), newuidmap(1)): more than one id in a rootless container."""

from __future__ import annotations

import contextlib
import os

from container_magic.deferred import dataclass
from container_magic.linux.userns import IdMapping

_HELPERS = ("newuidmap", "newgidmap")
_MOST_IDS = 65535
ADD_RANGE = "as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER"


@dataclass(frozen=True, kw_only=True)
class SubordinateIds:
    """First uid and gid of the ranges, and how many of each are used."""

    first_uid: int
    first_gid: int
    count: int


def subordinate_ids() -> SubordinateIds | None:
    """Return the ranges that ``/etc/subuid`` and ``/etc/subgid`` give this user; None without them or the helpers."""
    if not all(_find(helper) for helper in _HELPERS):
        return None
    uids, gids = _range("/etc/subuid"), _range("/etc/subgid")
    if uids is None or gids is None:
        return None
    return SubordinateIds(first_uid=uids[0], first_gid=gids[0], count=min(uids[1], gids[1], _MOST_IDS))


def map_with_helpers(pid: int, ids: SubordinateIds) -> bool:
    """Have the set-user-ID helpers write the maps of ``pid``'s user namespace: the own ids as 0, the range from 1 on.

    Called in the parent user namespace. False when a helper refuses; it says why on standard error.
    """
    for helper, own, first in (
        ("newgidmap", os.getegid(), ids.first_gid),
        ("newuidmap", os.geteuid(), ids.first_uid),
    ):
        mappings = (
            IdMapping(container_id=0, host_id=own, size=1),
            IdMapping(container_id=1, host_id=first, size=ids.count),
        )
        words = " ".join(mapping.line().strip() for mapping in mappings).split()
        path = _find(helper)
        if path is None or os.spawnv(os.P_WAIT, path, [helper, str(pid), *words]) != 0:
            return False
    return True


def _range(path: str) -> tuple[int, int] | None:
    import pwd

    uid = os.geteuid()
    names = {str(uid)}
    with contextlib.suppress(KeyError):
        names.add(pwd.getpwuid(uid).pw_name)
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            rows = [line.strip().split(":") for line in file]
    except OSError:
        return None
    found = [(int(row[1]), int(row[2])) for row in rows if len(row) == 3 and row[0] in names and row[2].isdecimal()]
    return max(found, key=lambda item: item[1]) if found else None


def _find(program: str) -> str | None:
    for directory in ("/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin"):
        if os.access(f"{directory}/{program}", os.X_OK):
            return f"{directory}/{program}"
    return None
