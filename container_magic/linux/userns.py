"""User namespaces: id maps (user_namespaces(7))."""

from __future__ import annotations

import os
from collections.abc import Sequence

from container_magic.deferred import dataclass
from container_magic.linux import constants as c
from container_magic.linux import syscalls


@dataclass(frozen=True, kw_only=True)
class IdMapping:
    """``size`` ids from ``container_id`` are ``host_id`` and up in the parent namespace (OCI ``uidMappings``)."""

    container_id: int
    host_id: int
    size: int

    def line(self) -> str:
        """Return the line that ``/proc/PID/uid_map`` takes."""
        return f"{self.container_id} {self.host_id} {self.size}\n"


def swapped(mapping: IdMapping, one: int, other: int) -> tuple[IdMapping, ...]:
    """Return ``mapping`` with two ids in each other's place; one that it does not reach takes the other's place."""
    first, end = mapping.container_id, mapping.container_id + mapping.size
    shift = mapping.host_id - first
    inside = sorted({number for number in (one, other) if first <= number < end})
    found = [IdMapping(container_id=one, host_id=other + shift, size=1)] if other in inside else []
    if one in inside and one != other:
        found.append(IdMapping(container_id=other, host_id=one + shift, size=1))
    for cut in (*inside, end):
        if cut > first:
            found.append(IdMapping(container_id=first, host_id=first + shift, size=cut - first))
        first = cut + 1
    return tuple(found)


def write_maps(
    pid: int | str, uid_mappings: Sequence[IdMapping], gid_mappings: Sequence[IdMapping], *, deny_setgroups: bool
) -> None:
    """Write the uid and gid maps of the user namespace of ``pid``.

    Without privilege in the parent namespace ``setgroups`` has to be denied before ``gid_map`` (Linux 3.19,
    CVE-2014-8989).
    """
    if deny_setgroups:
        _write(f"/proc/{pid}/setgroups", "deny")
    _write(f"/proc/{pid}/gid_map", "".join(mapping.line() for mapping in gid_mappings))
    _write(f"/proc/{pid}/uid_map", "".join(mapping.line() for mapping in uid_mappings))


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        raise OSError(error.errno, f"write {text.strip()!r}: {error.strerror}", path) from error
    finally:
        os.close(fd)


def namespace_of(uid_mappings: Sequence[IdMapping], gid_mappings: Sequence[IdMapping]) -> int:
    """Return a descriptor of a fresh, empty user namespace with these maps, for idmapped mounts.

    The process that carried it is gone on return; the descriptor keeps the namespace.
    """
    hold, release = os.pipe()
    pid = syscalls.clone(c.CLONE_NEWUSER)
    if pid == 0:
        try:
            os.close(release)
            os.read(hold, 1)
        finally:
            os._exit(0)
    os.close(hold)
    try:
        write_maps(pid, uid_mappings, gid_mappings, deny_setgroups=False)
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(release)
        os.waitpid(pid, 0)
