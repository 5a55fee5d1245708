"""Mounts as data: a list of operations that can be described before any of it is done, then done in order.

What an operation is made of, its ``calls``, can be put together where there is time for it.
Paths of ``destination`` are those inside the container. Operations with ``before_pivot`` are done below the new
root while the runtime's view of the host is still there; the others after ``pivot_root``, where a symbolic link in
the container can only lead to the container.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import field
from typing import ClassVar

from container_magic.deferred import dataclass
from container_magic.linux import constants as c
from container_magic.linux import syscalls
from container_magic.linux.syscalls import Call, mount_call


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where operations are done: ``root`` is the new root, ``scratch`` the writable tmpfs of the container."""

    root: str
    scratch: str
    scratch_fd: int = -1
    """The same as a descriptor, for what is done when it has no path any more."""
    trees: Sequence[int] = ()
    """Descriptors of detached mounts, for ``Attach``."""
    later: list[Callable[[], None]] = field(default_factory=list)
    """What an operation leaves to be done once the container pays for what it uses."""


@dataclass(frozen=True, kw_only=True)
class Scratch:
    """The writable layer: one tmpfs that holds every upperdir and workdir and is charged to the container."""

    before_pivot: ClassVar[bool] = True

    def describe(self) -> str:
        """Say it in one line."""
        return "tmpfs for the writable layer"

    def calls(self, place: Place) -> Iterator[Call]:
        """Mount it, small until ``Resize`` says how large it may grow."""
        yield mount_call("tmpfs", place.scratch, "tmpfs", c.MS_NOSUID | c.MS_NODEV, "size=1m,mode=0755")
        yield os.mkdir, (f"{place.scratch}/root",)


@dataclass(frozen=True, kw_only=True)
class Resize:
    """The sizes of the writable layer and of /dev/shm."""

    scratch_bytes: int
    scratch_inodes: int
    shm_bytes: int
    before_pivot: ClassVar[bool] = False

    def describe(self) -> str:
        """Say it in one line."""
        sizes = f"size={self.scratch_bytes} nr_inodes={self.scratch_inodes}"
        return f"writable layer: {sizes}; /dev/shm: size={self.shm_bytes}"

    def calls(self, place: Place) -> Iterator[Call]:
        """Set them on the mounted file systems."""
        options = {"size": str(self.scratch_bytes), "nr_inodes": str(self.scratch_inodes)}
        yield syscalls.reconfigure, (place.scratch_fd, options)
        flags = c.MS_REMOUNT | c.MS_NOSUID | c.MS_NODEV | c.MS_NOEXEC
        yield mount_call("tmpfs", f"{place.root}/dev/shm", "tmpfs", flags, f"size={self.shm_bytes}")


@dataclass(frozen=True, kw_only=True)
class Files:
    """Small files of the container's own: path, text."""

    texts: tuple[tuple[str, str], ...]
    before_pivot: ClassVar[bool] = False

    def describe(self) -> str:
        """Say it in one line."""
        return "written: " + " ".join(path for path, _ in self.texts)

    def calls(self, place: Place) -> Iterator[Call]:
        """Write them into the writable layer."""
        del place
        for path, text in self.texts:
            yield _write, (path, text)


@dataclass(frozen=True, kw_only=True)
class Overlay:
    """A directory tree of the host as lowerdir, a fresh upperdir over it (kernel: filesystems/overlayfs)."""

    lowerdir: str
    destination: str
    name: str
    before_pivot: ClassVar[bool] = True

    def describe(self) -> str:
        """Say it in one line."""
        return f"overlay on {self.destination}, lowerdir={self.lowerdir}"

    def calls(self, place: Place) -> Iterator[Call]:
        """Mount it."""
        upper, work = f"{place.scratch}/upper-{self.name}", f"{place.scratch}/work-{self.name}"
        yield os.mkdir, (upper,)
        yield os.mkdir, (work,)
        # userxattr: trusted.overlay.* needs privilege that a user namespace does not give (Linux 5.11)
        options = f"lowerdir={_escape(self.lowerdir)},upperdir={upper},workdir={work},userxattr"
        target = place.root + self.destination.rstrip("/")
        yield mount_call("overlay", target, "overlay", c.MS_NOSUID | c.MS_NODEV, options)


@dataclass(frozen=True, kw_only=True)
class Filesystem:
    """A fresh instance of a kernel file system: proc, sysfs, devpts, tmpfs."""

    type: str
    destination: str
    flags: int = c.MS_NOSUID | c.MS_NODEV | c.MS_NOEXEC
    options: str = ""
    before_pivot: bool = True

    def describe(self) -> str:
        """Say it in one line."""
        options = f" {self.options}" if self.options else ""
        return f"{self.type} on {self.destination}{options}{' ro' if self.flags & c.MS_RDONLY else ''}"

    def calls(self, place: Place) -> Iterator[Call]:
        """Mount it."""
        target = (place.root if self.before_pivot else "") + self.destination
        if not self.before_pivot:
            yield _make_directories, (target,)
        yield mount_call(self.type, target, self.type, self.flags, self.options)


@dataclass(frozen=True, kw_only=True)
class BindTree:
    """A directory of the runtime's view with all that is mounted below it (device nodes; /sys under ``--net host``)."""

    source: str
    destination: str
    before_pivot: ClassVar[bool] = True

    def describe(self) -> str:
        """Say it in one line."""
        return f"bind of {self.source} on {self.destination} ro"

    def calls(self, place: Place) -> Iterator[Call]:
        """Mount it; the runtime's view is read-only, and so is what is bound from it."""
        yield mount_call(self.source, place.root + self.destination, None, c.MS_BIND | c.MS_REC)


@dataclass(frozen=True, kw_only=True)
class Attach:
    """A detached mount: a copy of one of the host (``-v``, ``--mount type=bind``), made by the supervisor.

    Mounts of the container ``above`` it, which it would hide, are put on top again.
    """

    index: int
    source: str
    destination: str
    readonly: bool
    above: tuple[str, ...] = ()
    before_pivot: ClassVar[bool] = False

    def describe(self) -> str:
        """Say it in one line."""
        return f"bind of {self.source} on {self.destination} {'ro' if self.readonly else 'rw'}"

    def calls(self, place: Place) -> Iterator[Call]:
        """Mount it, making the mount point when it is missing."""
        yield self._attach, (place,)

    def _attach(self, place: Place) -> None:
        held = [(syscalls.open_tree(c.AT_FDCWD, path, c.OPEN_TREE_CLONE | c.AT_RECURSIVE), path) for path in self.above]
        if stat.S_ISDIR(os.fstat(place.trees[self.index]).st_mode):
            os.makedirs(self.destination, exist_ok=True)
        else:
            os.makedirs(os.path.dirname(self.destination), exist_ok=True)
            os.close(os.open(self.destination, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
        syscalls.move_mount(place.trees[self.index], self.destination)
        os.close(place.trees[self.index])
        for fd, path in held:
            os.makedirs(path, exist_ok=True)
            syscalls.move_mount(fd, path)
            os.close(fd)


@dataclass(frozen=True, kw_only=True)
class Mask:
    """Paths that read as empty: files become /dev/null, directories ``empty`` (OCI ``maskedPaths``)."""

    files: tuple[str, ...]
    directories: tuple[str, ...]
    empty: str
    before_pivot: ClassVar[bool] = True

    def describe(self) -> str:
        """Say it in one line."""
        return "masked: " + " ".join((*self.files, *self.directories))

    def calls(self, place: Place) -> Iterator[Call]:
        """Mask them."""
        for path in self.files:
            yield mount_call("/dev/null", place.root + path, None, c.MS_BIND)
        for path in self.directories:
            yield mount_call(self.empty, place.root + path, None, c.MS_BIND)


@dataclass(frozen=True, kw_only=True)
class ReadOnly:
    """Paths that can be read only (OCI ``readonlyPaths``)."""

    paths: tuple[str, ...]
    mounted: bool
    """Whether the paths are mounts already; others are bound onto themselves first."""
    before_pivot: bool = True

    def describe(self) -> str:
        """Say it in one line."""
        return "read-only: " + " ".join(self.paths)

    def calls(self, place: Place) -> Iterator[Call]:
        """Make them read-only."""
        for path in self.paths:
            target = place.root + path if self.before_pivot else path
            if not self.mounted:
                yield mount_call(target, target, None, c.MS_BIND | c.MS_REC)
            yield _make_read_only, (target,)


MountOp = Scratch | Resize | Files | Overlay | Filesystem | BindTree | Attach | Mask | ReadOnly


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _make_directories(path: str) -> None:
    os.makedirs(path, exist_ok=True)


def _make_read_only(path: str) -> None:
    syscalls.mount_setattr(c.AT_FDCWD, path, attr_set=c.MOUNT_ATTR_RDONLY)


def _escape(path: str) -> str:
    """Return ``path`` as overlayfs wants it: a colon separates lowerdirs, a comma options, a backslash escapes."""
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")
