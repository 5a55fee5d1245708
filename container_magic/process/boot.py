"""Boot: makes the zygote's view of the host, then becomes the zygote.

The view is a mount namespace of its own that holds the host tree's directories (read-only), the template, the
device nodes, /proc and /sys, and nothing else: what is not in it cannot be reached through the zygote or any of its
children. The interpreter is executed anew inside, so that ``/proc/self/exe`` and every file mapped later lie on
read-only mounts (CVE-2019-5736).

Two descriptors of the host outlive this: the mount namespace with the host's own view, in which the supervisor makes
the copies of what ``-v`` names, and the user namespace of the idmapped mounts.
"""

from __future__ import annotations

import errno
import os
import signal
import stat
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from container_magic.deferred import dataclass
from container_magic.host import own_ids
from container_magic.linux import constants as c
from container_magic.linux import syscalls
from container_magic.linux.signals import reset_signals
from container_magic.linux.subids import SubordinateIds, map_with_helpers
from container_magic.linux.userns import IdMapping, namespace_of, write_maps
from container_magic.rootfs.host import TEMPLATE, VIEW, HostTree, Lower, host_tree, interpreter_prefixes
from container_magic.rootfs.template import USER_ID, build_template, fill_template

if TYPE_CHECKING:
    from typing import NoReturn

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_DEVICE_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}
_PLAIN = c.MOUNT_ATTR_NOSUID | c.MOUNT_ATTR_NODEV
_READ_ONLY = _PLAIN | c.MOUNT_ATTR_RDONLY
# any directory that surely exists and that nothing of the view lies in: hidden before the root is exchanged
_STAGE = "/proc"
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_MAX_CONFIG_BYTES = 65536
# written out: only the zygote needs what server.py imports
_ENTRY = "from container_magic.runtime.server import main; main()"


@dataclass(frozen=True, kw_only=True)
class BootConfig:
    """What boot needs to know; where it is no fork of the client it comes as JSON over its control socket."""

    tree: HostTree
    rootless: bool
    id_mappings: tuple[IdMapping, ...]
    """Maps of the containers' user namespaces, seen from the zygote."""
    subordinate: SubordinateIds | None
    preload: tuple[str, ...] = ()
    """Modules that the zygote imports before it is told more."""


def main(argument: str) -> None:
    """Ask the socket ``argument`` (a descriptor's number) for a ``BootConfig`` and execute the zygote in its view."""
    import json

    from container_magic.spec import build

    control = int(argument)
    os.write(control, b"{}")  # in its cgroup, wherever that is: the client looks before it decides
    message = os.read(control, _MAX_CONFIG_BYTES)
    if message:
        make_view(build(BootConfig, json.loads(message)), control)


def own_config(preload: tuple[str, ...] = ()) -> BootConfig:
    """Return the config for this process's own interpreter and ids."""
    ids = own_ids()
    return BootConfig(
        tree=host_tree(interpreter_prefixes()),
        rootless=ids.rootless,
        id_mappings=ids.id_mappings,
        subordinate=ids.subordinate,
        preload=preload,
    )


def make_view(config: BootConfig, control: int) -> NoReturn:
    """Make the view and execute the zygote in it, which goes on to speak on the socket ``control``."""
    os.umask(0o022)  # the caller's may be such that nobody else could enter the view's directories
    reset_signals()
    executable = _real_executable()  # the view has no links of the host
    if config.rootless:
        # first a namespace in which mounts may be made, then, below, a second one for the view
        _enter_user_namespace(config.subordinate)
    host_view = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    template = syscalls.detached_mount("tmpfs", {"mode": "0755", "size": "64m"}, _PLAIN)
    filler = _make_template(config, template)
    idmap = -1 if config.rootless else namespace_of(config.id_mappings, config.id_mappings)
    syscalls.unshare(c.CLONE_NEWNS)
    syscalls.mount("", "/", None, c.MS_REC | c.MS_PRIVATE)
    has_mounts = build_view(config, idmap, template)
    view = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    fds = {"control": control, "host_view": host_view, "view": view, "idmap": idmap}
    for fd in fds.values():
        if fd >= 0:
            os.set_inheritable(fd, True)
    _become_zygote(executable, {**fds, "filler": filler}, config.preload, has_mounts)


def _enter_user_namespace(subordinate: SubordinateIds | None) -> None:
    # read before, because inside they are the overflow ids until the maps are written
    uid, gid = os.geteuid(), os.getegid()
    if subordinate is None:
        syscalls.unshare(c.CLONE_NEWUSER | c.CLONE_NEWNS)
        own_uid = IdMapping(container_id=0, host_id=uid, size=1)
        write_maps("self", [own_uid], [replace(own_uid, host_id=gid)], deny_setgroups=True)
        return
    parent = os.getpid()
    reader, writer = os.pipe()
    helper = os.fork()
    if helper == 0:
        # stays in the old namespace, where newuidmap has its privilege
        os.close(writer)
        status = 1
        try:
            status = 0 if os.read(reader, 1) and map_with_helpers(parent, subordinate) else 1
        finally:
            os._exit(status)
    os.close(reader)
    syscalls.unshare(c.CLONE_NEWUSER | c.CLONE_NEWNS)
    os.write(writer, b"x")
    os.close(writer)
    if os.waitpid(helper, 0)[1] != 0:
        raise OSError("newuidmap or newgidmap refused the maps")
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def _make_template(config: BootConfig, template: int) -> int:
    """Make the template in the detached mount ``template`` and have a child fill it; return the child's pid.

    It reads the host's ``/etc`` and so stays in this mount namespace, which this process is about to leave.
    """
    owner = 0 if config.rootless else config.id_mappings[0].host_id
    has_range = sum(mapping.size for mapping in config.id_mappings) > USER_ID
    root = f"/proc/self/fd/{template}"
    build_template(root, config.tree, owner, owner + USER_ID if has_range else owner)
    parent = os.getpid()
    filler = os.fork()
    if filler:
        return filler
    status = 1
    try:
        syscalls.prctl(c.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == parent:  # else it died before the line above
            fill_template(root, owner)
            status = 0
    except OSError as error:
        os.write(2, f"the template of the root: {error}\n".encode(errors="backslashreplace"))
    finally:
        os._exit(status)


def seal_template(filler: int) -> None:
    """Wait until the child ``filler`` has filled the template, which is read-only from then on.

    Raises:
        ChildProcessError: It could not; it has said why on standard error.
    """
    if os.waitpid(filler, 0)[1] != 0:
        raise ChildProcessError("the template of the containers' root cannot be made")
    syscalls.mount_setattr(c.AT_FDCWD, TEMPLATE, attr_set=c.MOUNT_ATTR_RDONLY)


def build_view(config: BootConfig, idmap: int, template: int) -> list[str]:
    """Assemble the view on a detached tmpfs and make it the root of this mount namespace.

    Returns:
        The paths of those lowers that could only be had with what is mounted below them.
    """
    root_id = config.id_mappings[0].host_id
    clones = [(lower, _clone_lower(lower, idmap, root_id)) for lower in config.tree.lowers]
    has_mounts = [lower.path for lower in config.tree.lowers if not _can_be_alone(lower.path)]
    again = [(lower, _clone(lower.path, _READ_ONLY)) for lower in config.tree.lowers if lower.view != lower.path]
    devices = {name: _clone(f"/dev/{name}", c.MOUNT_ATTR_NOSUID | c.MOUNT_ATTR_NOEXEC) for name in DEVICES}
    # no MOUNT_ATTR_RDONLY on /proc: a container could then not mount its own ("mount too revealing")
    kernel = {
        "/proc": _clone("/proc", _PLAIN | c.MOUNT_ATTR_NOEXEC),
        "/sys": _clone("/sys", _READ_ONLY | c.MOUNT_ATTR_NOEXEC),
    }
    package = _clone(_PACKAGE, _READ_ONLY)
    root_fd = syscalls.detached_mount("tmpfs", {"mode": "0755", "size": "64m"}, _PLAIN)
    syscalls.move_mount(root_fd, _STAGE)
    _skeleton(_STAGE, config)
    syscalls.move_mount(template, _STAGE + TEMPLATE)
    os.close(template)
    for lower, fd in again:
        _attach(fd, _STAGE + lower.path)
    for lower, fd in clones:
        _attach(fd, _STAGE + lower.view)
    for name, fd in devices.items():
        os.close(os.open(f"{_STAGE}/dev/{name}", os.O_CREAT | os.O_WRONLY, 0o666))
        _attach(fd, f"{_STAGE}/dev/{name}")
    _attach(package, f"{_STAGE}{VIEW}/lib/container_magic")
    for name, fd in kernel.items():
        _attach(fd, _STAGE + name)
    syscalls.mount_setattr(c.AT_FDCWD, _STAGE, attr_set=c.MOUNT_ATTR_RDONLY)
    os.chdir(_STAGE)
    syscalls.pivot_root(".", ".")
    syscalls.umount(".")
    os.chdir("/")
    return has_mounts


def _skeleton(root: str, config: BootConfig) -> None:
    tree = config.tree
    owner = 0 if config.rootless else config.id_mappings[0].host_id
    for name in ("dev", "dev/pts", "dev/shm", "dev/mqueue", "proc", "sys", "tmp", "run"):
        os.mkdir(f"{root}/{name}")
    for name, target in _DEVICE_LINKS.items():
        os.symlink(target, f"{root}/dev/{name}")
        os.chown(f"{root}/dev/{name}", owner, owner, follow_symlinks=False)
    for name in ("", "/lower", "/lib", "/lib/container_magic", "/empty", "/mnt", "/template"):
        os.mkdir(f"{root}{VIEW}{name}")
    os.symlink(f"{TEMPLATE[1:]}/etc", f"{root}/etc")
    for path, target in tree.links:
        os.symlink(target, root + path)
    for lower in tree.lowers:
        os.makedirs(root + lower.path, exist_ok=True)
        os.makedirs(root + lower.view, exist_ok=True)


def _clone_lower(lower: Lower, idmap: int, root_id: int) -> int:
    fd = _clone(lower.path, _READ_ONLY)
    if lower.environment and idmap >= 0:
        try:
            _give_to_container_root(fd, idmap, root_id)
        except OSError:
            # a file system without idmapped mounts (9p, NFS, before Linux 5.19): readable, not writable inside
            os.close(fd)
            return _clone(lower.path, _READ_ONLY)
    return fd


def _give_to_container_root(fd: int, idmap: int, root_id: int) -> None:
    """Idmap the detached mount ``fd`` so that the owner of its root directory is the container's root."""
    status = os.fstat(fd)
    if status.st_uid == 0:
        syscalls.mount_setattr(fd, "", attr_set=c.MOUNT_ATTR_IDMAP, userns_fd=idmap)
        return
    own = IdMapping(container_id=status.st_uid, host_id=root_id, size=1)
    namespace = namespace_of([own], [replace(own, container_id=status.st_gid)])
    try:
        syscalls.mount_setattr(fd, "", attr_set=c.MOUNT_ATTR_IDMAP, userns_fd=namespace)
    finally:
        os.close(namespace)


def _clone(path: str, attributes: int) -> int:
    """Return a detached copy of the mount at ``path`` with ``attributes`` added.

    Without what is mounted below it, unless that is locked: then the kernel gives the whole or nothing (rootless).
    """
    fd = _clone_alone(path)
    recursive = fd is None
    if fd is None:
        fd = syscalls.open_tree(c.AT_FDCWD, path, c.OPEN_TREE_CLONE | c.AT_RECURSIVE)
    syscalls.mount_setattr(fd, "", attr_set=attributes, recursive=recursive)
    return fd


def _can_be_alone(path: str) -> bool:
    fd = _clone_alone(path)
    if fd is None:
        return False
    os.close(fd)
    return True


def _clone_alone(path: str) -> int | None:
    try:
        return syscalls.open_tree(c.AT_FDCWD, path, c.OPEN_TREE_CLONE)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return None


def _attach(fd: int, target: str) -> None:
    if not stat.S_ISDIR(os.fstat(fd).st_mode) or os.path.isdir(target):
        syscalls.move_mount(fd, target)
    os.close(fd)


def _real_executable() -> str:
    """Return the interpreter's path in the view, which has the environment where it really is, whatever leads there.

    The last name stays: it may be a link that Python looks at to find its environment.
    """
    directory, name = os.path.split(sys.executable)
    return os.path.join(os.path.realpath(directory), name)


def _become_zygote(executable: str, fds: dict[str, int], preload: tuple[str, ...], has_mounts: list[str]) -> NoReturn:
    path = ":".join(dict.fromkeys([os.path.dirname(executable), "/usr/local/bin", "/usr/bin", "/bin"]))
    environment = {"PATH": path, "LANG": "C.UTF-8", "HOME": "/root", "PYTHONDONTWRITEBYTECODE": "1", "LD_BIND_NOW": "1"}
    source = f"import sys; sys.path.insert(0, {VIEW + '/lib'!r})\n{_ENTRY}"
    words = [f"{name}={fd}" for name, fd in fds.items()]
    # NUL cannot be in an argument, and a path may hold anything else: one argument for each
    arguments = [",".join(words), ",".join(preload), *has_mounts]
    os.execve(executable, [executable, "-s", "-c", source, *arguments], environment)


if __name__ == "__main__":
    main(sys.argv[1])
