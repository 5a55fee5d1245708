"""Detached copies of what ``-v`` and ``--mount type=bind`` name, made in the host's own view."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from container_magic.errors import HostError
from container_magic.events import Downgrade
from container_magic.linux import constants as c
from container_magic.linux import syscalls
from container_magic.spec import Mount


@dataclass(kw_only=True)
class Trees:
    """Copies of mounts for one container, a descriptor each, and what could not be done with them."""

    fds: tuple[int, ...] = ()
    downgrades: tuple[Downgrade, ...] = ()

    def stale(self) -> bool:
        """Whether a file or directory that is shown has been removed since: something else may be at its path now."""
        return any(os.fstat(fd).st_nlink == 0 for fd in self.fds)

    def close(self) -> None:
        """Close the descriptors; the container has its own."""
        for fd in self.fds:
            os.close(fd)
        self.fds = ()


def copy_trees(mounts: Sequence[Mount], standing: Mapping[str, int]) -> Trees:
    """Return a descriptor for each bind mount, in order, with its attributes set, and what could not be done.

    The supervisor enters the host's view for this alone: in its own view everything is read-only. Where the zygote
    has an idmapping (root), the caller's own files appear inside as the container root's.

    Raises:
        HostError: A source is gone or cannot be mounted.
    """
    binds = [mount for mount in mounts if mount.type == "bind"]
    if not binds:
        return Trees()
    syscalls.setns(standing["host_view"], c.CLONE_NEWNS)
    try:
        trees = tuple(_copy(mount) for mount in binds)
        unmapped = [
            mount
            for mount, fd in zip(binds, trees, strict=True)
            if standing["idmap"] >= 0 and not _map_ids(fd, standing["idmap"])
        ]
    finally:
        syscalls.setns(standing["view"], c.CLONE_NEWNS)
    return Trees(fds=trees, downgrades=tuple(map(_downgrade, unmapped)))


def _downgrade(mount: Mount) -> Downgrade:
    return Downgrade(
        name="volume",
        asked=f"{mount.source} with the caller's files as the container root's",
        got="files of nobody: readable and writable as far as they are for others",
        reason="its file system has no idmapped mounts (tmpfs before Linux 6.3; overlayfs, 9p, NFS)",
    )


def _copy(mount: Mount) -> int:
    attributes = c.MOUNT_ATTR_NOSUID | c.MOUNT_ATTR_NODEV | (c.MOUNT_ATTR_RDONLY if mount.readonly else 0)
    try:
        fd = syscalls.open_tree(c.AT_FDCWD, mount.source, c.OPEN_TREE_CLONE | c.AT_RECURSIVE)
        syscalls.mount_setattr(fd, "", attr_set=attributes, recursive=True)
    except OSError as error:
        raise HostError(f"cannot mount {mount.source} on {mount.destination}: {error.strerror}") from error
    os.set_inheritable(fd, False)
    return fd


def _map_ids(fd: int, idmap: int) -> bool:
    try:
        syscalls.mount_setattr(fd, "", attr_set=c.MOUNT_ATTR_IDMAP, userns_fd=idmap)
    except OSError:
        return False
    return True
