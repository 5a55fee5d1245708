"""A directory of the host over which the container writes: an overlay of it, or a copy on the writable layer.

Both take the place of the detached mount that the supervisor has handed over, which ``Attach`` then mounts.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from container_magic.deferred import dataclass
from container_magic.linux import constants as c
from container_magic.linux import syscalls
from container_magic.rootfs.accounts import look_up

if TYPE_CHECKING:
    from container_magic.linux.mounts import Place
    from container_magic.linux.syscalls import Call
    from container_magic.spec import Mount

UPPER = "upper-here"
"""Its directory on the writable layer."""
LAYERED = ("overlay", "copy")
"""Kinds of mounts that are made of layers."""
MOST_DEPTH = 128
_CHUNK_BYTES = 1024 * 1024
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


@dataclass(frozen=True, kw_only=True)
class Layer:
    """An overlay over a directory of the host: what is read is the host's, what is written lies on the scratch."""

    index: int
    source: str
    owner: tuple[int, int]
    hide_dotted: bool
    before_pivot: ClassVar[bool] = True

    def describe(self) -> str:
        """Say it in one line."""
        return f"overlay on {self.source}, lowerdir={self.source}{_without_dotted(self.hide_dotted)}"

    def calls(self, place: Place) -> Iterator[Call]:
        """Mount it, attached nowhere, in the place of the tree."""
        yield self._mount, (place,)

    def _mount(self, place: Place) -> None:
        tree = place.trees[self.index]
        lower, upper, work = f"{place.scratch}/lower-here", f"{place.scratch}/{UPPER}", f"{place.scratch}/work-here"
        for path in (lower, upper, work):
            os.mkdir(path)
        syscalls.move_mount(tree, lower)
        os.chown(upper, *self.owner)
        os.chmod(upper, stat.S_IMODE(os.stat(lower).st_mode) & 0o777)
        if self.hide_dotted:
            for name in os.listdir(lower):
                if name.startswith("."):
                    os.mknod(f"{upper}/{name}", stat.S_IFCHR, os.makedev(0, 0))  # a whiteout (filesystems/overlayfs)
        options = {"lowerdir": lower, "upperdir": upper, "workdir": work, "userxattr": None}
        try:
            overlay = syscalls.detached_mount("overlay", options, c.MOUNT_ATTR_NOSUID | c.MOUNT_ATTR_NODEV)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            raise OSError(
                f"--work overlay: no overlay can lie over {self.source}: its file system is a stack of overlays "
                f"already, has mounts in it that cannot be left out, or is of a kind that overlayfs refuses"
            ) from None
        os.dup2(overlay, tree, inheritable=False)
        os.close(overlay)


@dataclass(frozen=True, kw_only=True)
class Copy:
    """A copy of a directory of the host, made when the container already pays for it.

    Links stay links, sockets, pipes and devices are left out; ``spared`` are paths where something else is mounted.
    """

    index: int
    source: str
    owner: tuple[int, int]
    hide_dotted: bool
    spared: tuple[str, ...]
    before_pivot: ClassVar[bool] = True

    def describe(self) -> str:
        """Say it in one line."""
        return f"copy of {self.source} on the writable layer{_without_dotted(self.hide_dotted)}"

    def calls(self, place: Place) -> Iterator[Call]:
        """Put an empty directory in the place of the tree, and leave the copying for later."""
        yield self._put, (place,)

    def _put(self, place: Place) -> None:
        tree, upper = place.trees[self.index], f"{place.scratch}/{UPPER}"
        os.mkdir(upper)
        source = os.open(".", _DIRECTORY, dir_fd=tree)
        # not through the mount that is made of it: things will be mounted in that one
        target = os.open(upper, _DIRECTORY)
        bind = syscalls.open_tree(c.AT_FDCWD, upper, c.OPEN_TREE_CLONE)
        os.dup2(bind, tree, inheritable=False)
        os.close(bind)
        place.later.append(functools.partial(self._fill, source, target))

    def _fill(self, source: int, target: int) -> None:
        reached = self.source
        try:
            for path in self._directory(source, target, self.source, 0):
                reached = path
        except OSError as error:
            if error.errno == errno.ENOSPC:
                reason = f"{self.source} does not fit into the writable layer, which is full at {reached}"
            else:
                reason = f"{reached}: {error.strerror or error}"
            raise OSError(f"--work copy: {reason}") from None

    def _directory(self, source: int, target: int, path: str, depth: int) -> Iterator[str]:
        """Copy what is in one directory, yielding each path before it is copied; closes both descriptors."""
        try:
            if depth > MOST_DEPTH:
                raise OSError(f"directories are more than {MOST_DEPTH} deep")
            status = os.fstat(source)
            with os.scandir(source) as entries:
                names = [entry.name for entry in entries]
            for name in names:
                below = f"{path}/{name}"
                if below in self.spared or (depth == 0 and self.hide_dotted and name.startswith(".")):
                    continue
                yield below
                kind = stat.S_IFMT(os.stat(name, dir_fd=source, follow_symlinks=False).st_mode)
                if kind == stat.S_IFDIR:
                    inner = _make_directory(name, target)
                    yield from self._directory(os.open(name, _DIRECTORY, dir_fd=source), inner, below, depth + 1)
                elif kind == stat.S_IFLNK:
                    os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
                    os.chown(name, *self.owner, dir_fd=target, follow_symlinks=False)
                elif kind == stat.S_IFREG:
                    self._file(name, source, target)
            self._finish(target, status)
        finally:
            os.close(source)
            os.close(target)

    def _file(self, name: str, source: int, target: int) -> None:
        reader = os.open(name, _FILE, dir_fd=source)
        try:
            status = os.fstat(reader)
            if not stat.S_ISREG(status.st_mode):
                return  # something else took its place meanwhile
            writer = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=target)
            try:
                while os.sendfile(writer, reader, None, _CHUNK_BYTES):
                    pass
                self._finish(writer, status)
            finally:
                os.close(writer)
        finally:
            os.close(reader)

    def _finish(self, fd: int, status: os.stat_result) -> None:
        """Set owner, mode and time; set-user-ID bits stay behind.

        What the container's user may read becomes that user's own; what not, a copy must not open either.
        """
        uid, gid = self.owner
        needed = 0o5 if stat.S_ISDIR(status.st_mode) else 0o4
        allowed = status.st_mode if status.st_gid != gid else status.st_mode | status.st_mode >> 3
        readable = status.st_uid == uid or allowed & needed == needed
        os.fchown(fd, *(self.owner if readable else (status.st_uid, status.st_gid)))
        os.fchmod(fd, stat.S_IMODE(status.st_mode) & 0o777)
        os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))


def layer_of(mount: Mount, index: int, user: str, spared: tuple[str, ...]) -> Layer | Copy:
    """Return what makes ``mount``, whose tree is number ``index``, for ``user`` as ``--user`` names one."""
    owner = owner_inside(user)
    if mount.type == "overlay":
        return Layer(index=index, source=mount.source, owner=owner, hide_dotted=mount.hide_dotted)
    return Copy(index=index, source=mount.source, owner=owner, hide_dotted=mount.hide_dotted, spared=spared)


def owner_inside(user: str) -> tuple[int, int]:
    """Return (uid, gid) of the user who gets the files; one whom nobody knows is refused elsewhere."""
    try:
        return look_up(user)
    except LookupError:
        return 0, 0


def _make_directory(name: str, parent: int) -> int:
    with contextlib.suppress(FileExistsError):  # it leads to where something else is mounted
        os.mkdir(name, 0o700, dir_fd=parent)
    return os.open(name, _DIRECTORY, dir_fd=parent)


def _without_dotted(hidden: bool) -> str:
    return ", names with a leading dot left out" if hidden else ""
