"""``--work``: which directory of the host becomes which mount, found out before anything is started."""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Sequence
from dataclasses import replace

from container_magic.errors import OptionError
from container_magic.events import Downgrade
from container_magic.rootfs.host import SYSTEM_DIRECTORIES, VIEW, Lower, is_inside
from container_magic.spec import ContainerSpec, Mount

_OWN = ("/", "/dev", "/etc", "/home", "/proc", "/run", "/sys", "/tmp", "/var", "/var/tmp", VIEW)
"""What the container has of its own."""
_WHOLE = ("/etc", "/proc", "/sys", VIEW)
"""What it has of its own with all that is below."""
_SHOWN = 5


def with_work(spec: ContainerSpec, lowers: Sequence[Lower]) -> ContainerSpec:
    """Return ``spec`` with the mount that its work directory is, and with that as its working directory.

    Raises:
        OptionError: The directory cannot be shown inside, or something else is to be mounted there.
    """
    if spec.work is None:
        return spec
    path = spec.work.path
    _check_place(path, lowers)
    if any(mount.destination == path for mount in spec.mounts):
        raise OptionError(f"--work {spec.work.mode}: something else is to be mounted at {path} already")
    # next to the files of a home lie its keys and tokens, in hidden ones: those stay outside
    at_home = path in homes()
    by_overlay = spec.work.mode == "overlay" or (spec.work.mode == "ro" and at_home)
    mount = Mount(
        type="copy" if spec.work.mode == "copy" else "overlay" if by_overlay else "bind",
        destination=path,
        source=path,
        readonly=spec.work.mode == "ro",
        own=True,
        hide_dotted=at_home,
    )
    process = replace(spec.process, cwd=spec.process.cwd or path)
    return replace(spec, mounts=(mount, *spec.mounts), process=process)


def hidden_mounts(spec: ContainerSpec) -> tuple[Downgrade, ...]:
    """Return what an overlay does not show: file systems that are mounted below its directory."""
    found = [mount for mount in spec.mounts if mount.type == "overlay"]
    points = [point for mount in found for point in _mount_points() if is_inside(point, mount.source)]
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


def _check_place(path: str, lowers: Sequence[Lower]) -> None:
    if not os.path.isdir(path):
        raise OptionError(f"--work: {path} is no directory of this host any more")
    reason = ""
    if path in _OWN or path in SYSTEM_DIRECTORIES or any(is_inside(path, own) for own in _WHOLE):
        reason = "the container has its own"
    elif any(lower.path == path for lower in lowers):
        reason = "it is shown already, with the interpreter's environment"
    elif any(is_inside(home, path) for home in homes()):
        reason = "it holds home directories"
    if reason:
        raise OptionError(f"--work cannot show {path}: {reason}", hint="change to a directory of your project first")


def _mount_points() -> list[str]:
    """Return where something is mounted in this process's view (proc_pid_mountinfo(5): octal escapes)."""
    with open("/proc/self/mountinfo", "rb") as file:
        fields = [line.split(b" ")[4] for line in file]
    return [os.fsdecode(field.decode("unicode_escape").encode("latin-1")) for field in fields]
