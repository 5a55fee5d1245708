"""Detached copies of what ``-v``, ``--mount type=bind`` and ``--work`` name, made in the host's own view."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping

from container_magic.deferred import dataclass
from container_magic.errors import HostError
from container_magic.events import Downgrade
from container_magic.linux import constants as c
from container_magic.linux import syscalls
from container_magic.linux.userns import namespace_of, swapped
from container_magic.plan import Plan
from container_magic.rootfs.work import owner_inside
from container_magic.spec import Mount

_NO_IDMAPS = "its file system has no idmapped mounts (tmpfs before Linux 6.3; overlayfs, 9p, NFS)"


@dataclass(kw_only=True)
class Trees:
    """Copies of mounts for one container, a descriptor each, and what could not be done with them."""

    fds: tuple[int, ...] = ()
    downgrades: tuple[Downgrade, ...] = ()

    def close(self) -> None:
        """Close the descriptors; the container has its own."""
        for fd in self.fds:
            os.close(fd)
        self.fds = ()


def copy_trees(plan: Plan, standing: Mapping[str, int]) -> Trees:
    """Return a descriptor for each mount that has a source, in order, with its attributes set, and what failed.

    The supervisor enters the host's view for this alone: in its own view everything is read-only. Where the zygote
    has an idmapping (root), the caller's own files appear inside as the container root's, and those of the working
    directory as its user's.

    Raises:
        HostError: A source is gone, cannot be mounted, or would be of no use inside.
    """
    mounts = [mount for mount in plan.spec.mounts if mount.source]
    if not mounts:
        return Trees()
    syscalls.setns(standing["host_view"], c.CLONE_NEWNS)
    try:
        maker = _Maker(plan, standing["idmap"])
        return Trees(fds=tuple(map(maker.tree, mounts)), downgrades=tuple(maker.downgrades))
    finally:
        syscalls.setns(standing["view"], c.CLONE_NEWNS)


class _Maker:
    """Makes the trees of one container; ``idmap`` is the zygote's, negative where there can be none."""

    def __init__(self, plan: Plan, idmap: int) -> None:
        self._range = plan.id_mappings[0]
        self._user = owner_inside(plan.spec.process.user)
        self._idmap = idmap
        self.downgrades: list[Downgrade] = []

    def tree(self, mount: Mount) -> int:
        fd = _copy(mount)
        if not mount.own:
            if self._idmap >= 0 and not _map_ids(fd, self._idmap):
                self._note(mount, "volume", "root", _NO_IDMAPS)
            return fd
        owner = os.fstat(fd)
        mapped = self._idmap >= 0 and self._map_owner(fd, (owner.st_uid, owner.st_gid))
        self._check_access(mount, owner, mapped=mapped)
        if mount.type == "overlay" and not mount.readonly and self._idmap >= 0 and not mapped:
            raise HostError(
                f"--work overlay: nothing in {mount.source} could be written to inside: {_NO_IDMAPS}",
                hint="--work copy makes a copy instead",
            )
        if not mapped and mount.type != "copy" and (self._idmap >= 0 or self._user[0] != owner.st_uid):
            only_one = "an ordinary user cannot give files away, not even to a user of the container"
            self._note(mount, "work", "user", _NO_IDMAPS if self._idmap >= 0 else only_one)
        return fd

    def _map_owner(self, fd: int, owner: tuple[int, int]) -> bool:
        """Let the files of ``owner`` belong to the container's user, and that user's to ``owner``."""
        if owner == self._user:
            return _map_ids(fd, self._idmap)
        uids, gids = (swapped(self._range, one, other) for one, other in zip(owner, self._user, strict=True))
        namespace = namespace_of(uids, gids)
        try:
            return _map_ids(fd, namespace)
        finally:
            os.close(namespace)

    def _check_access(self, mount: Mount, owner: os.stat_result, *, mapped: bool) -> None:
        """Refuse a directory that the container's user could not enter and list."""
        is_owner = mapped or (self._idmap < 0 and owner.st_uid == self._user[0])
        in_group = self._idmap < 0 and owner.st_gid == self._user[1]
        needed = 0o500 if is_owner else 0o050 if in_group else 0o005
        if owner.st_mode & needed != needed:
            raise HostError(
                f"--work: the container's user may not read {mount.source} (mode {owner.st_mode & 0o7777:04o})",
                hint=f"chmod {'u' if is_owner else 'o'}+rx {mount.source}, or --work none",
            )

    def _note(self, mount: Mount, name: str, whose: str, reason: str) -> None:
        self.downgrades.append(
            Downgrade(
                name=name,
                asked=f"{mount.source} with the caller's files as the container {whose}'s",
                got="files of nobody: readable and writable as far as they are for others",
                reason=reason,
            )
        )


def _copy(mount: Mount) -> int:
    """Return a detached copy of the mount; for an overlay, if possible, without what is mounted below it."""
    # a copy and an overlay are written to elsewhere: nothing may come back here
    readonly = mount.readonly or mount.type != "bind"
    attributes = c.MOUNT_ATTR_NOSUID | c.MOUNT_ATTR_NODEV | (c.MOUNT_ATTR_RDONLY if readonly else 0)
    flags = c.OPEN_TREE_CLONE | (0 if mount.type == "overlay" else c.AT_RECURSIVE)
    try:
        fd = syscalls.open_tree(c.AT_FDCWD, mount.source, flags)
        syscalls.mount_setattr(fd, "", attr_set=attributes, recursive=mount.type != "overlay")
    except OSError as error:
        if mount.type == "overlay" and error.errno == errno.EINVAL:
            raise HostError(
                f"--work overlay: no overlay can lie over {mount.source}: "
                f"an ordinary user cannot leave out what is mounted in it",
                hint="--work copy makes a copy instead",
            ) from error
        raise HostError(f"cannot mount {mount.source} on {mount.destination}: {error.strerror}") from error
    os.set_inheritable(fd, False)
    return fd


def _map_ids(fd: int, idmap: int) -> bool:
    try:
        syscalls.mount_setattr(fd, "", attr_set=c.MOUNT_ATTR_IDMAP, userns_fd=idmap)
    except OSError:
        return False
    return True
