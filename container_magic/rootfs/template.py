"""The template: the lowest layer of every container's ``/``, made once per zygote.

It holds the skeleton of directories, the links of the top level, the part of ``/etc`` that programs need, and
accounts that name nobody of the host.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence

from container_magic.rootfs.accounts import GROUP, PASSWD
from container_magic.rootfs.host import HostTree
from container_magic.rootfs.marker import MARKER, NAME

HOME = "/root"
USER_ID = 1000
_DIRECTORIES = {
    "dev": 0o755,
    "etc": 0o755,
    "home": 0o755,
    "media": 0o755,
    "mnt": 0o755,
    "opt": 0o755,
    "proc": 0o555,
    "root": 0o700,
    "run": 0o755,
    "run/host": 0o755,
    "run/lock": 0o1777,
    "srv": 0o755,
    "sys": 0o555,
    "tmp": 0o1777,
    "var": 0o755,
    "var/cache": 0o755,
    "var/lib": 0o755,
    "var/log": 0o755,
    "var/tmp": 0o1777,
}
# what the zygote's own interpreter looks up when it starts; a star stands for the rest of a name
_ETC_FIRST = (
    "debian_version", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "locale.alias", "locale.conf", "localtime",
    "os-release", "python3*", "timezone",
)  # fmt: skip
# what programs look up; nothing here is secret, and nothing of it names users, hosts or mounts
_ETC = (
    "ImageMagick-*", "OpenCL", "R", "X11", "alternatives", "bash.bashrc", "bindresvport.blacklist", "ca-certificates",
    "ca-certificates.conf", "crypto-policies", "fonts", "gai.conf", "ghostscript", "host.conf", "inputrc", "issue",
    "java-*", "julia", "lsb-release", "magic", "mailcap", "matplotlibrc", "mime.types", "networks", "perl", "pki",
    "profile", "protocols", "rpc", "services", "shells", "skel", "ssl", "terminfo", "texmf", "xattr.conf",
)  # fmt: skip
_PRIVATE = "private"  # /etc/ssl/private and its like stay outside
_LARGEST_FILE_BYTES = 4 * 1024 * 1024

_NSSWITCH = (
    "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\nprotocols: files\nservices: files\n"
)


def build_template(root: str, tree: HostTree, owner: int, user_owner: int) -> None:
    """Make the template in the empty directory ``root``; all of it belongs to ``owner`` (uid and gid).

    What takes time, and the zygote can start without, is left to ``fill_template``. The home of the account ``user``
    belongs to ``user_owner``, which is ``owner`` where one id is all there is.

    Host files that cannot be read are left out: they would not be readable inside either.
    """
    for name, mode in _DIRECTORIES.items():
        _directory(f"{root}/{name}", mode, owner)
    for path, target in tree.links:
        _link(target, root + path, owner)
    for lower in tree.lowers:
        _mount_point(root, lower.path, owner)
    _link("/run", f"{root}/var/run", owner)
    _directory(f"{root}/home/user", 0o755, user_owner)
    _copy_names(_ETC_FIRST, root, owner)
    _accounts(f"{root}/etc", owner)
    _write(root + MARKER, f"{NAME}\n", owner)
    os.chown(root, owner, owner)


def fill_template(root: str, owner: int) -> None:
    """Add the rest of ``/etc``: some hundred small files and links."""
    _copy_names(_ETC, root, owner)


def _copy_names(names: Sequence[str], root: str, owner: int) -> None:
    for name in _found(names):
        _copy(f"/etc/{name}", f"{root}/etc/{name}", owner)


def _found(names: Sequence[str]) -> list[str]:
    """Return what there is of ``names`` in the host's ``/etc``."""
    whole = frozenset(names)
    begun = tuple(name.removesuffix("*") for name in names if name.endswith("*"))
    return [name for name in os.listdir("/etc") if name in whole or name.startswith(begun)]


def _accounts(etc: str, owner: int) -> None:
    shell = "/bin/bash" if os.path.exists("/bin/bash") else "/bin/sh"
    texts = {
        "passwd": PASSWD.format(home=HOME, shell=shell),
        "group": GROUP,
        "nsswitch.conf": _NSSWITCH,
        "hostname": "",
        "hosts": "",
        "resolv.conf": "",
    }
    for name, text in texts.items():
        _write(f"{etc}/{name}", text, owner)
    _link("/proc/mounts", f"{etc}/mtab", owner)


def _write(path: str, text: str, owner: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    os.write(fd, text.encode())
    os.fchown(fd, owner, owner)
    os.close(fd)


def _mount_point(root: str, path: str, owner: int) -> None:
    built = root
    for part in path.strip("/").split("/"):
        built = f"{built}/{part}"
        if not os.path.lexists(built):
            _directory(built, 0o755, owner)
        elif not built.startswith(f"{root}/tmp"):
            # an interpreter below /root: any user inside may pass through, only root may list
            os.chmod(built, stat.S_IMODE(os.stat(built).st_mode) | 0o111)


def _link(target: str, path: str, owner: int) -> None:
    os.symlink(target, path)
    os.chown(path, owner, owner, follow_symlinks=False)


def _directory(path: str, mode: int, owner: int) -> None:
    os.mkdir(path)
    os.chown(path, owner, owner)
    os.chmod(path, mode)


def _copy(source: str, target: str, owner: int) -> None:
    """Copy whatever stands at ``source``, if it is anything: most of a name list is missing on any host."""
    try:
        kind = stat.S_IFMT(os.lstat(source).st_mode)
    except OSError:
        return
    _copy_as(kind, source, target, owner)


def _copy_as(kind: int, source: str, target: str, owner: int) -> None:
    with contextlib.suppress(PermissionError):
        if kind == stat.S_IFLNK:
            _link(os.readlink(source), target, owner)
        elif kind == stat.S_IFDIR:
            _copy_directory(source, target, owner)
        elif kind == stat.S_IFREG:
            _copy_file(source, target, owner)


def _copy_directory(source: str, target: str, owner: int) -> None:
    # the kinds come with the names, without a system call for each: there are some hundred links
    with os.scandir(source) as entries:
        found = [(_kind(entry), entry.name) for entry in entries if entry.name != _PRIVATE]
    _directory(target, 0o755, owner)
    for kind, name in found:
        _copy_as(kind, f"{source}/{name}", f"{target}/{name}", owner)


def _kind(entry: os.DirEntry[str]) -> int:
    if entry.is_symlink():
        return stat.S_IFLNK
    if entry.is_dir(follow_symlinks=False):
        return stat.S_IFDIR
    return stat.S_IFREG if entry.is_file(follow_symlinks=False) else 0


def _copy_file(source: str, target: str, owner: int) -> None:
    reader = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        status = os.fstat(reader)
        # what others may not read on the host is not for the container, even when the copier is root
        readable = stat.S_ISREG(status.st_mode) and status.st_mode & stat.S_IROTH
        if not readable or status.st_size > _LARGEST_FILE_BYTES:
            return
        writer = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(writer, os.read(reader, _LARGEST_FILE_BYTES))
            os.fchown(writer, owner, owner)
            os.fchmod(writer, stat.S_IMODE(status.st_mode) & 0o755)
        finally:
            os.close(writer)
    finally:
        os.close(reader)
