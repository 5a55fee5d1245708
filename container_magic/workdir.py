"""``--work``: which directory of the host becomes which mount, found out before anything is started."""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Iterator, Sequence
from dataclasses import replace

from container_magic.errors import OptionError
from container_magic.events import Downgrade
from container_magic.rootfs.host import SYSTEM_DIRECTORIES, VIEW, Lower, is_inside
from container_magic.spec import ContainerSpec, Mount, Work

_OWN = ("/", "/dev", "/etc", "/home", "/proc", "/run", "/sys", "/tmp", "/var", "/var/tmp", VIEW)
"""What the container has of its own."""
_WHOLE = ("/etc", "/proc", "/sys", VIEW)
"""What it has of its own with all that is below."""
_WITHOUT_IDMAPS = ("overlay", "9p", "nfs", "nfs4", "fuse.sshfs")
_SHOWN = 5


def with_work(
    spec: ContainerSpec, lowers: Sequence[Lower], *, rootless: bool
) -> tuple[ContainerSpec, tuple[Downgrade, ...]]:
    """Return ``spec`` with the mount that its work directory is, as its working directory too, and what is missing.

    What nobody has asked for, because it is a kernel's default, is done as far as it can be.

    Raises:
        OptionError: The directory cannot be shown inside, or something else is to be mounted there.
    """
    if spec.work is None:
        return spec, ()
    work = spec.work
    downgrades: tuple[Downgrade, ...] = ()
    try:
        _check_place(spec, lowers)
        if "work" not in spec.explicit:
            work, downgrades = _what_can_be(work, rootless=rootless)
    except OptionError as error:
        if "work" in spec.explicit:
            raise
        return replace(spec, work=None), (_downgrade(work, "nothing of it", error.message),)
    mount = _mount(work)
    process = replace(spec.process, cwd=spec.process.cwd or work.path)
    shown = replace(spec, work=work, mounts=(mount, *spec.mounts), process=process)
    return shown, (*downgrades, *(_hidden(mount) if mount.type == "overlay" else ()))


def _mount(work: Work) -> Mount:
    # next to the files of a home lie its keys and tokens, in hidden ones: those stay outside
    at_home = work.path in homes()
    by_overlay = work.mode == "overlay" or (work.mode == "ro" and at_home)
    return Mount(
        type="copy" if work.mode == "copy" else "overlay" if by_overlay else "bind",
        destination=work.path,
        source=work.path,
        readonly=work.mode == "ro",
        own=True,
        hide_dotted=at_home,
    )


def _what_can_be(work: Work, *, rootless: bool) -> tuple[Work, tuple[Downgrade, ...]]:
    """Return ``work``, read-only where this host can see ahead that there will be no overlay."""
    points = _mount_points()
    if work.mode != "overlay":
        return work, ()
    reason = ""
    if rootless and any(is_inside(point, work.path) for point in points):
        reason = "an ordinary user cannot leave out what is mounted in it"
    kind = next((points[place] for place in (work.path, *_parents(work.path)) if place in points), "")
    if not rootless and kind in _WITHOUT_IDMAPS:
        reason = f"its file system, {kind}, has no idmapped mounts: nothing in it could be written to inside"
    if not reason:
        return work, ()
    return replace(work, mode="ro"), (_downgrade(work, "read-only", f"{reason}; --work copy makes a copy"),)


def _downgrade(work: Work, got: str, reason: str) -> Downgrade:
    return Downgrade(name="work", asked=f"{work.mode} of {work.path}", got=got, reason=reason)


def _hidden(mount: Mount) -> tuple[Downgrade, ...]:
    """Return what an overlay does not show: file systems that are mounted below its directory."""
    points = [point for point in _mount_points() if is_inside(point, mount.source)]
    if not points:
        return ()
    more = f" and {len(points) - _SHOWN} more" if len(points) > _SHOWN else ""
    return (
        Downgrade(
            name="work",
            asked=f"what is mounted at {', '.join(points[:_SHOWN])}{more}",
            got="directories as they are below it",
            reason="an overlay shows one file system; --volume shows another one in it",
        ),
    )


def homes() -> set[str]:
    """Return the caller's home directories: what ``HOME`` says and what the accounts say."""
    found = {os.path.realpath(os.path.expanduser("~"))}
    with contextlib.suppress(KeyError):  # an id without an account, as images have it
        found.add(os.path.realpath(pwd.getpwuid(os.geteuid()).pw_dir))
    return {home for home in found if home != "/"}


def _check_place(spec: ContainerSpec, lowers: Sequence[Lower]) -> None:
    assert spec.work is not None
    path = spec.work.path
    if not os.path.isdir(path):
        raise OptionError(f"--work: {path} is no directory of this host any more")
    reason = ""
    if path in _OWN or path in SYSTEM_DIRECTORIES or any(is_inside(path, own) for own in _WHOLE):
        reason = "the container has its own"
    elif any(lower.path == path for lower in lowers):
        reason = "it is shown already, with the interpreter's environment"
    elif any(is_inside(home, path) for home in homes()):
        reason = "it holds home directories"
    elif any(mount.destination == path for mount in spec.mounts):
        reason = "something else is to be mounted there"
    if reason:
        raise OptionError(f"--work cannot show {path}: {reason}", hint="change to a directory of your project first")


def _parents(path: str) -> Iterator[str]:
    while path != "/":
        path = os.path.dirname(path)
        yield path


def _mount_points() -> dict[str, str]:
    """Return what is mounted where in this process's view (proc_pid_mountinfo(5)): the kind by the place."""
    found = {}
    with open("/proc/self/mountinfo", "rb") as file:
        for line in file:
            fields = line.split(b" ")
            kind = fields[fields.index(b"-") + 1].decode(errors="replace")
            # blanks and the like are octal escapes
            found[os.fsdecode(fields[4].decode("unicode_escape").encode("latin-1"))] = kind
    return found
