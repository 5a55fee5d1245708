"""One thin wrapper per system call that the standard library lacks; each raises ``OSError`` with the call's name.

``OSError.filename`` carries what the call was about, so that a message can say which mount or namespace failed.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import signal
import struct
import sys
from collections.abc import Callable, Iterable
from typing import Any

from container_magic.linux import constants as c

_libc = ctypes.CDLL(None, use_errno=True)
# PyDLL keeps the GIL: between the raw clone and PyOS_AfterFork_Child no other Python code may run
_libc_with_gil = ctypes.PyDLL(None, use_errno=True)

_prctl = _libc.prctl
_prctl.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)

# with the types said once a call makes no objects for its arguments: children that were just forked do these
_mount = _libc.mount
_mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_close_range = _libc["syscall"]
_close_range.argtypes = (ctypes.c_long,) * 4
_clone = _libc_with_gil["syscall"]
_clone.argtypes = (ctypes.c_long,) * 6

_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_libc.mmap.restype = ctypes.c_void_p
_libc.mremap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p)
_libc.mremap.restype = ctypes.c_void_p
_MAP_FAILED = ctypes.c_void_p(-1).value

_NUMBERS = {
    "x86_64": {"clone": 56, "pivot_root": 155, "seccomp": 317, "keyctl": 250, "rt_sigaction": 13},
    "aarch64": {"clone": 220, "pivot_root": 41, "seccomp": 277, "keyctl": 219, "rt_sigaction": 134},
}
# the same on every architecture since Linux 5.2
_COMMON = {
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "clone3": 435,
    "close_range": 436,
    "mount_setattr": 442,
}
_SIGCHLD = int(signal.SIGCHLD)
_SIGSET_BYTES = 128  # sigset_t, glibc's and musl's
# struct signalfd_siginfo: signal, errno, code, pid, and what is of no use here (signalfd(2))
_SIGNAL = struct.Struct("=IiiI")
_SIGNAL_BYTES = 128
_MOST_SIGNALS = 8
_SI_USER = 0  # sent by kill(2): the kernel has filled in who it was, which nobody can pretend (sigqueue(3))
Call = tuple[Callable[..., None], tuple[Any, ...]]
"""Something to be done: a function and its arguments."""
_NR = {**_COMMON, **_NUMBERS.get(os.uname().machine, {})}


def _call(name: str, *args: object, about: object = None) -> int:
    result = int(_libc.syscall(ctypes.c_long(_NR[name]), *args))
    if result < 0:
        _raise(name, about)
    return result


def _raise(name: str, about: object) -> None:
    code = ctypes.get_errno()
    raise OSError(code, f"{name}: {os.strerror(code)}", *([str(about)] if about is not None else []))


def _long(value: int) -> ctypes.c_long:
    return ctypes.c_long(value)


def unshare(flags: int) -> None:
    """Leave namespaces for fresh ones (unshare(2))."""
    if _libc.unshare(flags) < 0:
        _raise("unshare", hex(flags))


def setns(fd: int, kind: int = 0) -> None:
    """Enter the namespace behind ``fd`` (setns(2))."""
    if _libc.setns(fd, kind) < 0:
        _raise("setns", fd)


def clone(flags: int, cgroup_fd: int | None = None) -> int:
    """Fork into new namespaces; 0 in the child, the child's pid in the parent (clone(2), clone3(2)).

    The caller has one thread. ``cgroup_fd`` puts the child into a v2 cgroup at birth (CLONE_INTO_CGROUP, Linux
    5.7). A raw clone passes by libc's and CPython's fork handlers: CPython's are called here, libc's matter for
    threaded processes only.
    """
    # a buffered line would be written twice, by parent and child
    sys.stdout.flush()
    sys.stderr.flush()
    ctypes.pythonapi.PyOS_BeforeFork()
    if cgroup_fd is None:
        pid = int(_clone(_NR["clone"], flags | _SIGCHLD, 0, 0, 0, 0))
    else:
        # a sibling sends its parent what this process sends it, and clone3 insists on hearing nothing else
        at_exit = 0 if flags & c.CLONE_PARENT else _SIGCHLD
        clone_args = struct.pack("=11Q", flags | c.CLONE_INTO_CGROUP, 0, 0, 0, at_exit, 0, 0, 0, 0, 0, cgroup_fd)
        pid = int(_libc_with_gil.syscall(_long(_NR["clone3"]), ctypes.c_char_p(clone_args), _long(len(clone_args))))
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return 0
    ctypes.pythonapi.PyOS_AfterFork_Parent()
    if pid < 0:
        _raise("clone", hex(flags))
    return pid


def mount(source: str, target: str, fstype: str | None, flags: int = 0, data: str = "") -> None:
    """Mount or remount a file system (mount(2))."""
    function, args = mount_call(source, target, fstype, flags, data)
    function(*args)


def mount_call(source: str, target: str, fstype: str | None, flags: int = 0, data: str = "") -> Call:
    """Return what ``mount`` with these arguments does, for who has no time to encode them when it is done."""
    return _mount_encoded, (
        source.encode(errors="surrogateescape"),
        target.encode(errors="surrogateescape"),
        fstype.encode() if fstype else None,
        flags,
        data.encode(errors="surrogateescape") if data else None,
    )


def _mount_encoded(source: bytes, target: bytes, fstype: bytes | None, flags: int, data: bytes | None) -> None:
    if _mount(source, target, fstype, flags, data) < 0:
        _raise("mount", f"{os.fsdecode(fstype or source)} on {os.fsdecode(target)}")


def umount(target: str, flags: int = c.MNT_DETACH) -> None:
    """Unmount (umount2(2))."""
    if _libc.umount2(target.encode(errors="surrogateescape"), flags) < 0:
        _raise("umount2", target)


def pivot_root(new_root: str, put_old: str) -> None:
    """Make ``new_root`` the root mount of this mount namespace (pivot_root(2))."""
    _call("pivot_root", ctypes.c_char_p(new_root.encode()), ctypes.c_char_p(put_old.encode()), about=new_root)


def open_tree(dir_fd: int, path: str, flags: int) -> int:
    """Open a mount, or with OPEN_TREE_CLONE a detached copy of it (open_tree(2), Linux 5.2)."""
    name = ctypes.c_char_p(path.encode(errors="surrogateescape"))
    return _call("open_tree", _long(dir_fd), name, _long(flags | c.OPEN_TREE_CLOEXEC), about=path)


def move_mount(fd: int, target: str, target_dir_fd: int = c.AT_FDCWD) -> None:
    """Attach the detached mount ``fd`` at ``target`` (move_mount(2), Linux 5.2)."""
    name = ctypes.c_char_p(target.encode(errors="surrogateescape"))
    flags = _long(c.MOVE_MOUNT_F_EMPTY_PATH)
    _call("move_mount", _long(fd), ctypes.c_char_p(b""), _long(target_dir_fd), name, flags, about=target)


def mount_setattr(dir_fd: int, path: str, *, attr_set: int = 0, userns_fd: int = 0, recursive: bool = False) -> None:
    """Set attributes of a mount, or of all below it (mount_setattr(2), Linux 5.12)."""
    attr = struct.pack("=4Q", attr_set, 0, 0, userns_fd)
    flags = (c.AT_RECURSIVE if recursive else 0) | (0 if path else c.AT_EMPTY_PATH)
    name = ctypes.c_char_p(path.encode(errors="surrogateescape"))
    _call(
        "mount_setattr",
        _long(dir_fd),
        name,
        _long(flags),
        ctypes.c_char_p(attr),
        _long(len(attr)),
        about=path or dir_fd,
    )


def detached_mount(fstype: str, options: dict[str, str | None], attributes: int) -> int:
    """Create a file system and return a descriptor of its mount, attached nowhere (fsopen(2), fsmount(2)).

    An option without a value is None.
    """
    fs_fd = _call("fsopen", ctypes.c_char_p(fstype.encode()), _long(c.FSOPEN_CLOEXEC), about=fstype)
    try:
        for key, value in options.items():
            kind = c.FSCONFIG_SET_FLAG if value is None else c.FSCONFIG_SET_STRING
            texts = (ctypes.c_char_p(key.encode()), None if value is None else ctypes.c_char_p(value.encode()))
            _call("fsconfig", _long(fs_fd), _long(kind), *texts, _long(0), about=f"{key}={value}")
        _call("fsconfig", _long(fs_fd), _long(c.FSCONFIG_CMD_CREATE), None, None, _long(0), about=fstype)
        return _call("fsmount", _long(fs_fd), _long(c.FSMOUNT_CLOEXEC), _long(attributes), about=fstype)
    finally:
        os.close(fs_fd)


def reconfigure(fd: int, options: dict[str, str]) -> None:
    """Change options of the file system at whose root ``fd`` is, wherever it is mounted (fspick(2), Linux 5.2)."""
    flags = c.FSPICK_CLOEXEC | c.FSPICK_EMPTY_PATH
    fs_fd = _call("fspick", _long(fd), ctypes.c_char_p(b""), _long(flags), about=fd)
    try:
        for key, value in options.items():
            texts = (ctypes.c_char_p(key.encode()), ctypes.c_char_p(value.encode()))
            _call("fsconfig", _long(fs_fd), _long(c.FSCONFIG_SET_STRING), *texts, _long(0), about=f"{key}={value}")
        _call("fsconfig", _long(fs_fd), _long(c.FSCONFIG_CMD_RECONFIGURE), None, None, _long(0), about=str(options))
    finally:
        os.close(fs_fd)


def close_range(first: int, last: int = 0xFFFFFFFF) -> None:
    """Close all descriptors from ``first`` to ``last`` (close_range(2), Linux 5.9)."""
    if _close_range(_NR["close_range"], first, last, 0) < 0:
        _raise("close_range", first)


def default_action(number: int) -> None:
    """Give signal ``number`` its default action, also where the C library does not let one (rt_sigaction(2))."""
    action = bytes(32)  # struct kernel_sigaction: SIG_DFL, no flags, no restorer, empty mask
    _call("rt_sigaction", _long(number), ctypes.c_char_p(action), None, _long(8), about=number)


def map_private(start: int, size_bytes: int, fd: int, offset_bytes: int) -> None:
    """Put a private, writable mapping of a file in the place of what is mapped there (mmap(2))."""
    _mmap_over(start, size_bytes, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE, fd, offset_bytes)


def map_nothing(start: int, size_bytes: int) -> None:
    """Put memory that may not be touched in the place of what is mapped there (mmap(2))."""
    _mmap_over(start, size_bytes, 0, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)


def map_copy(start: int, size_bytes: int) -> None:
    """Put a private copy in the place of what is mapped there (mmap(2), mremap(2))."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    copy = _libc.mmap(None, size_bytes, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)
    if copy == _MAP_FAILED:
        _raise("mmap", size_bytes)
    ctypes.memmove(copy, start, size_bytes)
    if _libc.mremap(copy, size_bytes, size_bytes, c.MREMAP_MAYMOVE | c.MREMAP_FIXED, start) != start:
        _raise("mremap", hex(start))


def _mmap_over(start: int, size_bytes: int, protection: int, flags: int, fd: int, offset_bytes: int) -> None:
    if _libc.mmap(start, size_bytes, protection, flags | c.MAP_FIXED, fd, offset_bytes) != start:
        _raise("mmap", hex(start))


def kill_process(pidfd: int) -> None:
    """End a process (pidfd_send_signal(2)); one that is gone is fine."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)


def signal_fd(numbers: Iterable[int]) -> int:
    """Block these signals, and return a descriptor that they are read from instead (signalfd(2))."""
    wanted = set(numbers)
    signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
    mask = sum(1 << (number - 1) for number in wanted).to_bytes(_SIGSET_BYTES, sys.byteorder)
    fd = int(_libc.signalfd(-1, ctypes.c_char_p(mask), os.O_CLOEXEC))
    if fd < 0:
        _raise("signalfd", sorted(wanted))
    return fd


def read_signals(fd: int) -> list[tuple[int, int]]:
    """Return the signals that have come, and from whom: a pid, or 0 if it was not kill(2) that sent one."""
    data = os.read(fd, _MOST_SIGNALS * _SIGNAL_BYTES)
    words = (_SIGNAL.unpack_from(data, at) for at in range(0, len(data), _SIGNAL_BYTES))
    return [(number, pid if code == _SI_USER else 0) for number, _, code, pid in words]


def prctl(option: int, arg2: int = 0, arg3: int = 0) -> None:
    """Change an attribute of this process (prctl(2))."""
    if _prctl(option, arg2, arg3, 0, 0) < 0:
        _raise("prctl", option)


def new_session_keyring() -> None:
    """Leave the inherited session keyring for a fresh anonymous one (keyctl(2)); no keyrings in the kernel is fine."""
    try:
        _call("keyctl", _long(c.KEYCTL_JOIN_SESSION_KEYRING), None, _long(0), _long(0), _long(0))
    except OSError as error:
        if error.errno != 38:  # ENOSYS: CONFIG_KEYS=n, there is nothing to leave
            raise


def seccomp_set_mode_filter(fprog: ctypes.Structure) -> None:
    """Install the ``struct sock_fprog`` for this thread and all that come after it (seccomp(2)); needs no_new_privs."""
    _call("seccomp", _long(c.SECCOMP_SET_MODE_FILTER), _long(0), ctypes.byref(fprog))
