"""The seccomp policy of a container, as data in the shape of OCI's ``linux.seccomp``.

Names are those of the OCI runtime specification's ``config-linux.md``, in snake case: ``defaultAction`` is
``default_action``, ``valueTwo`` is ``value_two`` and so on. `container_magic.linux.seccomp.assemble` turns a profile
into BPF. The rules of one system call are tried in the order in which they stand; the first that matches decides.

`default_profile` is an allow-list: moby's default profile as it is for a container without any capability, less what
flatpak and this project deny besides.
"""

from __future__ import annotations

import errno
import functools
from collections.abc import Iterator

from container_magic.deferred import dataclass

_LOW_32_BITS = 0xFFFF_FFFF

# linux/sched.h: CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}. CLONE_NEWTIME is no flag of clone(2): its bit belongs to
# the exit signal there.
CLONE_NEW_MASK = 0x7E02_0000

# linux/socket.h; AF_UNSPEC needs no rule: the kernel answers it with EAFNOSUPPORT as this profile does.
AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 1, 2, 10, 16
NETLINK_ROUTE = 0

# asm-generic/ioctls.h, the same on both architectures. TIOCSTI and TIOCLINUX type into the terminal that is shared with
# the caller (CVE-2017-5226, CVE-2023-1523); TIOCSETD loads line disciplines, a part of the kernel of which nothing in a
# container has need (CVE-2017-2636, CVE-2023-6546).
TIOCSTI, TIOCLINUX, TIOCSETD = 0x5412, 0x541C, 0x5423

# linux/stat.h, asm-generic/fcntl.h. A set-user-ID file that a container leaves on a volume is a door for a helper on
# the host; systemd's RestrictSUIDSGID= closes it in the same way. Position of the mode, and of the flags where it only
# counts with O_CREAT or O_TMPFILE.
S_ISUID, S_ISGID, O_CREAT = 0o4000, 0o2000, 0o100
O_TMPFILE = 0o20000000  # its own bit, without O_DIRECTORY's
MODE_ARGUMENTS = (
    ("chmod", 1, None),
    ("fchmod", 1, None),
    ("fchmodat", 2, None),
    ("fchmodat2", 2, None),
    ("mkdir", 1, None),
    ("mkdirat", 2, None),
    ("mknod", 1, None),
    ("mknodat", 2, None),
    ("creat", 1, None),
    ("open", 2, 1),
    ("openat", 3, 2),
)

AIO = ("io_setup", "io_submit", "io_cancel", "io_destroy", "io_getevents", "io_pgetevents")

# MAP_HUGETLB, MFD_HUGETLB, SHM_HUGETLB: call, position of the flags, bit
HUGE_PAGES = (("mmap", 3, 0x40000), ("memfd_create", 1, 0x4), ("shmget", 2, 0o4000))

# asm-generic/resource.h. The limit is 1 when the code starts: that, and not 0, keeps the kernel from handing a dump to
# a program of the host (fs/coredump.c), so the code must not lower it. It is told that it has: programs that hold
# secrets set 0 and end when they may not.
RLIMIT_CORE = 4

# linux/personality.h: PER_LINUX, PER_LINUX32, UNAME26, both, and "only ask"; so neither ADDR_NO_RANDOMIZE nor
# READ_IMPLIES_EXEC, which undo defences of the process.
PERSONALITIES = (0x0, 0x8, 0x2_0000, 0x2_0008, 0xFFFF_FFFF)


@dataclass(frozen=True, kw_only=True)
class SyscallArg:
    """A condition on one 64-bit argument of a system call (OCI ``args``).

    ``op`` is one of ``SCMP_CMP_EQ NE LT LE GT GE MASKED_EQ`` (with the prefix), unsigned; for ``SCMP_CMP_MASKED_EQ``
    ``value`` is the mask and ``value_two`` what the masked argument has to be.
    """

    index: int
    value: int
    value_two: int = 0
    op: str


@dataclass(frozen=True, kw_only=True)
class SyscallRule:
    """What happens to the named system calls when all of ``args`` hold (OCI ``syscalls``).

    ``errno_ret`` belongs to ``SCMP_ACT_ERRNO``; ``None`` is ``EPERM``. Names that a machine does not have are skipped.
    """

    names: tuple[str, ...]
    action: str
    errno_ret: int | None = None
    args: tuple[SyscallArg, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SeccompProfile:
    """A whole policy (OCI ``linux.seccomp``).

    ``default_action`` is for system calls that have no rule, or none that matches. System calls that are newer than the
    table of numbers are answered with ``ENOSYS`` as on an older kernel, so that libc falls back (runc does the same),
    unless ``default_action`` lets calls pass.
    """

    default_action: str
    default_errno_ret: int | None = None
    architectures: tuple[str, ...]
    syscalls: tuple[SyscallRule, ...]


# moby's default.json, names without condition, as far as x86-64 or aarch64 have them. Left out of it: fanotify_mark,
# memfd_secret, name_to_handle_at, process_vm_readv, process_vm_writev, ptrace, and modify_ldt of x86-64. Added:
# rseq_slice_yield, which only gives the rest of a time slice back.
_ALLOWED = """
accept accept4 access adjtimex alarm arch_prctl bind brk cachestat capget capset chdir chown clock_adjtime
clock_getres clock_gettime clock_nanosleep close close_range connect copy_file_range dup dup2 dup3 epoll_create
epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 execve execveat exit exit_group faccessat
faccessat2 fadvise64 fallocate fchdir fchown fchownat fcntl fdatasync fgetxattr flistxattr
flock fork fremovexattr fsetxattr fstat fstatfs fsync ftruncate futex futex_requeue futex_wait futex_waitv futex_wake
futimesat get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid geteuid getgid getgroups getitimer
getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresuid getrlimit getrusage getsid
getsockname getsockopt gettid gettimeofday getuid getxattr getxattrat inotify_add_watch inotify_init inotify_init1
inotify_rm_watch ioprio_get ioprio_set kill
landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lgetxattr link linkat listen listmount listxattr
listxattrat llistxattr lremovexattr lseek lsetxattr lstat madvise map_shadow_stack membarrier mincore
mlock mlock2 mlockall mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend
mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap nanosleep newfstatat
pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll prctl pread64 preadv
preadv2 process_mrelease pselect6 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recvfrom
recvmmsg recvmsg remap_file_pages removexattr removexattrat rename renameat renameat2 restart_syscall rmdir rseq
rseq_slice_yield rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam
sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield
seccomp select semctl semget semop semtimedop sendfile sendmmsg sendmsg sendto set_robust_list set_thread_area
set_tid_address setfsgid setfsuid setgid setgroups setitimer setpgid setpriority setregid setresgid setresuid setreuid
setsid setsockopt setuid setxattr setxattrat shmat shmctl shmdt shutdown sigaltstack signalfd signalfd4
splice stat statfs statmount statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create
timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime times tkill
truncate umask uname unlink unlinkat uretprobe utime utimensat utimes vfork vmsplice wait4 waitid write writev
"""


def _int_is(index: int, value: int) -> SyscallArg:
    """Compare an ``int`` argument: the kernel reads its low 32 bits only, so high bits must not make a difference."""
    return SyscallArg(index=index, op="SCMP_CMP_MASKED_EQ", value=_LOW_32_BITS, value_two=value)


def _allow(name: str, *args: SyscallArg) -> SyscallRule:
    return SyscallRule(names=(name,), action="SCMP_ACT_ALLOW", args=args)


def _refuse(name: str, *args: SyscallArg, errno_ret: int) -> SyscallRule:
    return SyscallRule(names=(name,), action="SCMP_ACT_ERRNO", errno_ret=errno_ret, args=args)


def _mode_rules() -> Iterator[SyscallRule]:
    for name, mode, flags in MODE_ARGUMENTS:
        counts = ((),) if flags is None else ((_has_bit(flags, O_CREAT),), (_has_bit(flags, O_TMPFILE),))
        for condition in counts:
            for bit in (S_ISUID, S_ISGID):
                yield _refuse(name, *condition, _has_bit(mode, bit), errno_ret=errno.EPERM)
        yield _allow(name)
    # openat2 has flags and mode in memory, where no filter reaches; nobody needs it who has openat
    yield _refuse("openat2", errno_ret=errno.ENOSYS)


def _core_limit_rules() -> Iterator[SyscallRule]:
    yield _refuse("setrlimit", _int_is(0, RLIMIT_CORE), errno_ret=0)
    yield _allow("setrlimit")
    # a call that only asks passes; to ask and to set in one call is what no filter can answer
    setting = (_int_is(1, RLIMIT_CORE), SyscallArg(index=2, op="SCMP_CMP_NE", value=0))
    yield _refuse("prlimit64", *setting, SyscallArg(index=3, op="SCMP_CMP_EQ", value=0), errno_ret=0)
    yield _refuse("prlimit64", *setting, SyscallArg(index=3, op="SCMP_CMP_NE", value=0), errno_ret=errno.EPERM)
    yield _allow("prlimit64")


def _huge_page_rules() -> Iterator[SyscallRule]:
    """Reserved huge pages of the host are outside of the memory controller's count (hugetlb is one of its own)."""
    for name, index, bit in HUGE_PAGES:
        yield _refuse(name, _has_bit(index, bit), errno_ret=errno.EPERM)
        yield _allow(name)


def _has_bit(index: int, bit: int) -> SyscallArg:
    return SyscallArg(index=index, op="SCMP_CMP_MASKED_EQ", value=bit, value_two=bit)


def _conditional_rules() -> tuple[SyscallRule, ...]:
    return (
        _allow("clone", SyscallArg(index=0, op="SCMP_CMP_MASKED_EQ", value=CLONE_NEW_MASK, value_two=0)),
        # The flags of clone3 lie in memory, where no filter reaches; libc falls back to clone on ENOSYS.
        _refuse("clone3", errno_ret=errno.ENOSYS),
        *(_allow("personality", _int_is(0, value)) for value in PERSONALITIES),
        *(_refuse("ioctl", _int_is(1, request), errno_ret=errno.EPERM) for request in (TIOCSTI, TIOCLINUX, TIOCSETD)),
        _allow("ioctl"),
        *(_allow("socket", _int_is(0, family)) for family in (AF_UNIX, AF_INET, AF_INET6)),
        # glibc asks NETLINK_ROUTE for interfaces; the other protocols (audit, xfrm, netfilter, ...) only widen what of
        # the kernel can be attacked.
        _allow("socket", _int_is(0, AF_NETLINK), _int_is(2, NETLINK_ROUTE)),
        _refuse("socket", errno_ret=errno.EAFNOSUPPORT),
        _allow("socketpair", _int_is(0, AF_UNIX)),
        _refuse("socketpair", errno_ret=errno.EAFNOSUPPORT),
        *_mode_rules(),
        # fs.aio-max-nr is one number for the whole host; libaio's users fall back
        *(_refuse(name, errno_ret=errno.ENOSYS) for name in AIO),
        *_huge_page_rules(),
        *_core_limit_rules(),
    )


@functools.cache
def default_profile() -> SeccompProfile:
    """Return the policy of a container that has no capability.

    ``prctl`` is allowed as a whole, as by moby and flatpak: its dangerous options need capabilities, and what is left
    of ``PR_SET_MM`` only changes what a process says of itself in its own ``/proc`` files.
    """
    return SeccompProfile(
        default_action="SCMP_ACT_ERRNO",
        default_errno_ret=errno.EPERM,
        architectures=("SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"),
        syscalls=(SyscallRule(names=tuple(_ALLOWED.split()), action="SCMP_ACT_ALLOW"), *_conditional_rules()),
    )
