"""Detached copies of what ``-v`` and ``--mount type=bind`` name, made in the host's own view."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from container_magic.errors import HostError
from container_magic.linux import constants as c
from container_magic.linux import syscalls
from container_magic.spec import Mount


def copy_trees(mounts: Sequence[Mount], standing: Mapping[str, int]) -> tuple[int, ...]:
    """Return a descriptor for each bind mount, in order, with its attributes set.

    The supervisor enters the host's view for this alone: in its own view everything is read-only. Where the zygote
    has an idmapping (root), the caller's own files appear inside as the container root's.

    Raises:
        HostError: A source is gone or cannot be mounted.
    """
    binds = [mount for mount in mounts if mount.type == "bind"]
    if not binds:
        return ()
    syscalls.setns(standing["host_view"], c.CLONE_NEWNS)
    try:
        return tuple(_copy(mount, standing["idmap"]) for mount in binds)
    finally:
        syscalls.setns(standing["view"], c.CLONE_NEWNS)


def _copy(mount: Mount, idmap: int) -> int:
    attributes = c.MOUNT_ATTR_NOSUID | c.MOUNT_ATTR_NODEV | (c.MOUNT_ATTR_RDONLY if mount.readonly else 0)
    try:
        fd = syscalls.open_tree(
            c.AT_FDCWD, mount.source, c.OPEN_TREE_CLONE | (c.AT_RECURSIVE if mount.recursive else 0)
        )
        syscalls.mount_setattr(fd, "", attr_set=attributes, recursive=True)
    except OSError as error:
        raise HostError(f"cannot mount {mount.source} on {mount.destination}: {error.strerror}") from error
    if idmap >= 0:
        _map_ids(fd, idmap)
    os.set_inheritable(fd, False)
    return fd


def _map_ids(fd: int, idmap: int) -> None:
    try:
        syscalls.mount_setattr(fd, "", attr_set=c.MOUNT_ATTR_IDMAP, userns_fd=idmap)
    except OSError:
        return  # a file system without idmapped mounts: its files belong to nobody inside, which isolates more
