"""The mounts of a container, in order, as data."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING

from container_magic.linux import constants as c
from container_magic.linux.mounts import (
    Attach,
    BindTree,
    Files,
    Filesystem,
    Mask,
    MountOp,
    Overlay,
    Place,
    ReadOnly,
    Resize,
    Scratch,
)
from container_magic.rootfs.host import TEMPLATE, VIEW, Lower, is_inside
from container_magic.rootfs.work import LAYERED, Copy, Layer, layer_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from container_magic.linux.syscalls import Call
    from container_magic.spec import ContainerSpec, Mount

# OCI linux.maskedPaths and linux.readonlyPaths as Docker's default spec has them (moby daemon/pkg/oci/defaults.go)
MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
Operation = MountOp | Layer | Copy
SCRATCH = f"{VIEW}/mnt"
NEW_ROOT = f"{SCRATCH}/root"
EMPTY = f"{VIEW}/empty"
_BYTES_PER_INODE = 8192
_FEWEST_INODES = 4096


def operations_ahead(lowers: Sequence[Lower], network: str) -> list[Operation]:
    """Return the mounts that are the same for every container with this kind of network."""
    operations: list[Operation] = [
        Scratch(),
        Overlay(lowerdir=TEMPLATE, destination="/", name="root"),
    ]
    operations += [_lower(lower, str(number)) for number, lower in enumerate(lowers)]
    operations += _kernel_file_systems(network)
    operations += [_mask(), ReadOnly(paths=_present(READ_ONLY), mounted=False)]
    return operations


def operations_of(spec: ContainerSpec, lowers: Sequence[Lower], files: tuple[tuple[str, str], ...]) -> list[Operation]:
    """Return the mounts that ``spec`` asks for, to be done after those of ``operations_ahead``."""
    operations: list[Operation] = [resize_of(spec.root.disk_bytes or 0), Files(texts=files)]
    operations += _user_mounts(spec, lowers)
    roots = ("/", *(lower.path for lower in lowers)) if spec.root.readonly else ()
    # what lies on the writable layer is read-only with it
    layered = [mount for mount in spec.mounts if mount.type in LAYERED]
    roots += tuple(mount.destination for mount in layered if mount.readonly or spec.root.readonly)
    if roots:
        operations.append(ReadOnly(paths=roots, mounted=True, before_pivot=False))
    return operations


def resize_of(disk_bytes: int) -> Resize:
    """Return what gives the writable layer its size."""
    inodes = max(_FEWEST_INODES, disk_bytes // _BYTES_PER_INODE)
    return Resize(scratch_bytes=disk_bytes, scratch_inodes=inodes, shm_bytes=disk_bytes)


def calls_ahead(lowers: Sequence[Lower], network: str) -> tuple[Call, ...]:
    """Return what ``operations_ahead`` are made of."""
    return calls_of(operations_ahead(lowers, network), Place(root=NEW_ROOT, scratch=SCRATCH))


def calls_of(operations: Iterable[Operation], place: Place) -> tuple[Call, ...]:
    """Return what the operations are made of when they are done at ``place``."""
    return tuple(call for operation in operations for call in operation.calls(place))


def _lower(lower: Lower, name: str) -> MountOp:
    if lower.has_mounts:
        return BindTree(source=lower.view, destination=lower.path)
    return Overlay(lowerdir=lower.view, destination=lower.path, name=name)


@functools.cache
def _mask() -> Mask:
    present = _present(MASKED)
    directories = tuple(path for path in present if os.path.isdir(path))
    files = tuple(path for path in present if path not in directories)
    return Mask(files=files, directories=directories, empty=EMPTY)


@functools.cache
def _present(paths: tuple[str, ...]) -> tuple[str, ...]:
    """The kernel decides what is in /proc and /sys: a fresh instance inside has what the host's has."""
    return tuple(path for path in paths if os.path.exists(path))


def _kernel_file_systems(network: str) -> list[Operation]:
    pts = "newinstance,ptmxmode=0666,mode=0620,max=64"
    # sysfs belongs to a network namespace: without one of its own the container gets a view of the host's, read-only
    sysfs: MountOp = (
        BindTree(source="/sys", destination="/sys")
        if network == "host"
        else Filesystem(type="sysfs", destination="/sys", flags=c.MS_NOSUID | c.MS_NODEV | c.MS_NOEXEC | c.MS_RDONLY)
    )
    return [
        Filesystem(type="proc", destination="/proc"),
        sysfs,
        BindTree(source="/dev", destination="/dev"),
        Filesystem(type="devpts", destination="/dev/pts", flags=c.MS_NOSUID | c.MS_NOEXEC, options=pts),
        Filesystem(type="tmpfs", destination="/dev/shm", options="size=1m,mode=1777"),
        Filesystem(type="mqueue", destination="/dev/mqueue"),
    ]


def _user_mounts(spec: ContainerSpec, lowers: Sequence[Lower]) -> list[Operation]:
    """Outer mount points before inner ones, whatever order they were given in."""
    index = 0
    layers: list[Operation] = []
    operations: list[tuple[int, Operation]] = []
    for mount in spec.mounts:
        depth = mount.destination.rstrip("/").count("/")
        if mount.type == "tmpfs":
            operations.append((depth, _tmpfs(mount)))
            continue
        above = tuple(lower.path for lower in lowers if mount.own and is_inside(lower.path, mount.destination))
        if mount.type in LAYERED:
            others = (other.destination for other in spec.mounts if is_inside(other.destination, mount.destination))
            layers.append(layer_of(mount, index, spec.process.user, (*above, *others)))
        attach = Attach(
            index=index, source=mount.source, destination=mount.destination, readonly=mount.readonly, above=above
        )
        operations.append((depth, attach))
        index += 1
    return [*layers, *(operation for _, operation in sorted(operations, key=lambda item: item[0]))]


def _tmpfs(mount: Mount) -> Filesystem:
    options = [f"mode={mount.mode if mount.mode is not None else 0o1777:o}"]
    if mount.size_bytes is not None:
        options.append(f"size={mount.size_bytes}")
    flags = c.MS_NOSUID | c.MS_NODEV | c.MS_NOEXEC | (c.MS_RDONLY if mount.readonly else 0)
    return Filesystem(
        type="tmpfs", destination=mount.destination, flags=flags, options=",".join(options), before_pivot=False
    )
