"""The assembled program means what the profile says, for every number and for arguments that try to get around it."""

from __future__ import annotations

import ctypes
import dataclasses
import errno
import os
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_seccomp_simulator import (
    ALLOW,
    AUDIT_ARCH,
    ENOSYS,
    ERRNO,
    KILL_PROCESS,
    RETURN_VALUES,
    expected,
    simulate,
    trace,
)

from container_magic.errors import HostError, OptionError
from container_magic.linux import seccomp
from container_magic.linux.seccomp import BPF_MAXINSNS, assemble, default_program, sock_fprog
from container_magic.linux.seccomp_profile import SeccompProfile, SyscallArg, SyscallRule, default_profile
from container_magic.linux.syscall_table import syscall_numbers

MACHINES = ("x86_64", "aarch64")
PROGRAMS = {machine: assemble(default_profile(), machine) for machine in MACHINES}
CONDITIONAL = {"clone", "clone3", "personality", "ioctl", "socket", "socketpair", "openat2"} | {
    "setrlimit", "prlimit64",
    "mmap", "memfd_create", "shmget",
    "io_setup", "io_submit", "io_cancel", "io_destroy", "io_getevents", "io_pgetevents",
    "chmod", "fchmod", "fchmodat", "fchmodat2", "mkdir", "mkdirat", "mknod", "mknodat", "creat", "open", "openat",
}  # fmt: skip
EPERM, EAFNOSUPPORT = ERRNO | errno.EPERM, ERRNO | errno.EAFNOSUPPORT

# Written down here a second time, so that no slip in the profile and no longer table of numbers allows one silently.
DENIED = set(
    """
_sysctl acct add_key afs_syscall bpf chroot clock_settime create_module delete_module epoll_ctl_old epoll_wait_old
fanotify_init fanotify_mark file_getattr file_setattr finit_module fsconfig fsmount fsopen fspick get_kernel_syms
get_mempolicy getpmsg init_module io_uring_enter io_uring_register io_uring_setup ioperm iopl kcmp kexec_file_load
kexec_load keyctl listns lookup_dcookie lsm_get_self_attr lsm_list_modules lsm_set_self_attr mbind memfd_secret
migrate_pages modify_ldt mount mount_setattr move_mount move_pages name_to_handle_at nfsservctl open_by_handle_at
open_tree open_tree_attr perf_event_open pidfd_getfd pivot_root process_madvise process_vm_readv process_vm_writev
ptrace putpmsg query_module quotactl quotactl_fd reboot request_key security set_mempolicy set_mempolicy_home_node
setdomainname sethostname setns settimeofday swapoff swapon sysfs syslog tuxcall umount2 unshare uprobe uselib
userfaultfd ustat vhangup vserver
""".split()  # noqa: SIM905 - a list of this length reads better as text
)


@pytest.mark.parametrize("machine", MACHINES)
def test_every_number_has_the_verdict_of_the_profile(machine):
    """Numbers 0 to 600 and those at the edges give what the profile means, with several arguments."""
    numbers = [*range(601), 0x3FFFFFFF, 0x40000000, 0x40000027, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF]
    arguments = [(), (1, 1, 0), (16, 0x5412, 0), (0x10000000, 0, 9), (2**64 - 1,) * 6]

    wrong = [
        (nr, args)
        for nr in numbers
        for args in arguments
        if simulate(PROGRAMS[machine], machine, nr, args) != expected(default_profile(), machine, nr, args)
    ]

    assert wrong == []


@pytest.mark.parametrize("machine", MACHINES)
def test_known_syscalls_outside_the_allow_list_get_eperm_and_no_others(machine):
    """What has no condition is either in the list of denied calls above, with EPERM, or allowed."""
    verdicts = {
        name: simulate(PROGRAMS[machine], machine, number)
        for name, number in syscall_numbers(machine).items()
        if name not in CONDITIONAL
    }

    assert {name for name, verdict in verdicts.items() if verdict == EPERM} == DENIED & verdicts.keys()
    assert {verdict for name, verdict in verdicts.items() if name not in DENIED} == {ALLOW}


@pytest.mark.parametrize("machine", MACHINES)
def test_numbers_that_the_table_does_not_know_get_enosys(machine):
    """A call that is newer than the table looks like one of an older kernel, so that libc falls back."""
    newest = max(syscall_numbers(machine).values())

    for nr in (350, 423, newest + 1, newest + 50, 512, 547, 0x3FFFFFFF):
        assert simulate(PROGRAMS[machine], machine, nr) == ERRNO | ENOSYS


@pytest.mark.parametrize(
    ("machine", "caller"),
    [("x86_64", "i386"), ("x86_64", "aarch64"), ("aarch64", "arm"), ("aarch64", "x86_64")],
)
def test_calls_of_another_architecture_kill_the_process(machine, caller):
    """Whatever the number, a call through another architecture's entry is the last one."""
    for nr in (*range(500), 0x40000000, 0xFFFFFFFF):
        assert simulate(PROGRAMS[machine], caller, nr) == KILL_PROCESS


def test_x32_numbers_kill_the_process_but_minus_one_does_not():
    """The x32 bit kills on x86-64; -1, which no entry dispatches, is answered as by the kernel."""
    for nr in range(600):
        assert simulate(PROGRAMS["x86_64"], "x86_64", 0x40000000 | nr) == KILL_PROCESS
    assert simulate(PROGRAMS["x86_64"], "x86_64", -1) == ERRNO | ENOSYS


HIGH = 0xDEADBEEF_00000000
CASES = [
    ("clone", (0x11,), ALLOW),
    ("clone", (0x3D0F00,), ALLOW),  # pthread_create
    ("clone", (0x4111,), ALLOW),  # CLONE_VFORK|CLONE_VM: posix_spawn
    *(("clone", (flag | 0x11,), EPERM) for flag in (0x20000, *(1 << bit for bit in range(25, 31)))),
    ("clone", (HIGH | 0x10000011,), EPERM),
    ("clone", (0x7E020011,), EPERM),
    ("clone3", (), ERRNO | ENOSYS),
    *(("personality", (value,), ALLOW) for value in (0, 8, 0x20000, 0x20008, 0xFFFFFFFF, 2**64 - 1)),
    *(("personality", (value,), EPERM) for value in (0x0040000, 0x0400000, HIGH | 0x0040000, 0x0040008, 1)),
    *(("ioctl", (0, request), EPERM) for request in (0x5412, 0x541C, 0x5423)),
    *(("ioctl", (0, HIGH | request), EPERM) for request in (0x5412, 0x541C, 0x5423)),
    ("ioctl", (0, 0xFFFFFFFF_00005412), EPERM),
    *(("ioctl", (0x5412, request), ALLOW) for request in (0x5401, 0x5413, 0x5411, 0x541B, 0x15412, 0)),
    *(("socket", (family, kind, 0), ALLOW) for family in (1, 2, 10) for kind in (1, 2, 0x80001)),
    ("socket", (16, 3, 0), ALLOW),
    ("socket", (HIGH | 2, 1, 0), ALLOW),  # the kernel takes it for AF_INET, too
    *(("socket", (16, 3, protocol), EAFNOSUPPORT) for protocol in (4, 6, 9, 12, 15, 16, HIGH | 9)),
    *(("socket", (f, 2, 0), EAFNOSUPPORT) for f in (0, 3, 4, 9, 11, 15, 17, 21, 29, 31, 38, 40, 44, 2**32 - 1)),
    *(("socket", (HIGH | family, 2, 0), EAFNOSUPPORT) for family in (17, 38, 40)),
    ("socketpair", (1, 1, 0), ALLOW),
    *(("socketpair", (family, 1, 0), EAFNOSUPPORT) for family in (0, 2, 10, 16, 30, HIGH | 30)),
    *(("fchmod", (3, mode), verdict) for mode, verdict in ((0o755, ALLOW), (0o4755, EPERM), (HIGH | 0o2755, EPERM))),
    *(("fchmodat", (3, 0, mode, 0), EPERM) for mode in (0o4000, 0o2000, 0o6777)),
    ("mkdirat", (3, 0, 0o2775), EPERM),
    ("mknodat", (3, 0, 0o104755, 0), EPERM),
    *(
        ("openat", (3, 0, flags, 0o4755), verdict)
        for flags, verdict in ((0o102, EPERM), (0o20200002, EPERM), (0o2, ALLOW))
    ),
    ("openat", (3, 0, 0o102, 0o644), ALLOW),
    ("openat2", (3, 0, 0, 24), ERRNO | ENOSYS),
    ("io_setup", (8, 0), ERRNO | ENOSYS),
    *(("mmap", (0, 4096, 3, flags, -1 & HIGH, 0), verdict) for flags, verdict in ((0x22, ALLOW), (0x40022, EPERM))),
    *(("memfd_create", (0, flags), verdict) for flags, verdict in ((1, ALLOW), (5, EPERM))),
    *(("setrlimit", (limit, 1), verdict) for limit, verdict in ((4, ERRNO), (HIGH | 4, ERRNO), (3, ALLOW), (7, ALLOW))),
    *(("prlimit64", (0, limit, 1, 0), verdict) for limit, verdict in ((4, ERRNO), (HIGH | 4, ERRNO), (7, ALLOW))),
    ("prlimit64", (0, 4, HIGH, 0), ERRNO),
    ("prlimit64", (0, 4, 1, HIGH), EPERM),
    ("prlimit64", (0, 4, 0, 1), ALLOW),
    *(("shmget", (0, 4096, flags), verdict) for flags, verdict in ((0o1600, ALLOW), (0o5600, EPERM))),
]


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(("name", "args", "verdict"), CASES)
def test_arguments_decide_and_high_bits_do_not_evade(machine, name, args, verdict):
    """The filter judges the bits that the kernel reads, and those only."""
    assert simulate(PROGRAMS[machine], machine, syscall_numbers(machine)[name], args) == verdict


@pytest.mark.parametrize("machine", MACHINES)
def test_verdicts_without_conditions_take_a_logarithmic_number_of_steps(machine):
    """At most 16 instructions, and nothing but arch and nr is loaded, so the kernel can cache the verdict."""
    for name, number in syscall_numbers(machine).items():
        run = trace(PROGRAMS[machine], AUDIT_ARCH[machine], number)
        assert run.steps <= (48 if name in CONDITIONAL else 16), name
        assert name in CONDITIONAL or run.loaded == (4, 0), name


@pytest.mark.parametrize("machine", MACHINES)
def test_program_is_far_below_the_limit_of_the_kernel(machine):
    """The whole policy is a few hundred instructions of 8 bytes."""
    assert len(PROGRAMS[machine]) % 8 == 0
    assert len(PROGRAMS[machine]) // 8 < 512 < BPF_MAXINSNS


def test_profile_names_only_syscalls_that_exist():
    """A misspelt name would be skipped silently."""
    known = {name for machine in MACHINES for name in syscall_numbers(machine)}
    named = [name for rule in default_profile().syscalls for name in rule.names]

    assert set(named) <= known
    assert sorted(default_profile().syscalls[0].names) == sorted(set(default_profile().syscalls[0].names))


def test_syscall_tables_agree_with_known_numbers():
    """Anchors on both sides of every gap in the tables."""
    x86_64, aarch64 = (syscall_numbers(machine) for machine in MACHINES)

    assert (x86_64["read"], x86_64["execve"], x86_64["rseq"], x86_64["uprobe"]) == (0, 59, 334, 336)
    assert (aarch64["io_setup"], aarch64["recvmmsg"], aarch64["wait4"], aarch64["kexec_file_load"]) == (
        0,
        243,
        260,
        294,
    )
    for name, number in {"pidfd_send_signal": 424, "clone3": 435, "mseal": 462, "rseq_slice_yield": 471}.items():
        assert x86_64[name] == aarch64[name] == number
    for table in (x86_64, aarch64):
        assert len(set(table.values())) == len(table)


ARGUMENT_VALUES = st.one_of(
    st.sampled_from([0, 1, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**63, 2**64 - 1]), st.integers(0, 2**64 - 1)
)
ACTIONS = st.sampled_from(sorted(RETURN_VALUES))
ARGS = st.builds(
    SyscallArg,
    index=st.integers(0, 5),
    value=ARGUMENT_VALUES,
    value_two=ARGUMENT_VALUES,
    op=st.sampled_from([f"SCMP_CMP_{op}" for op in ("EQ", "NE", "LT", "LE", "GT", "GE", "MASKED_EQ")]),
)
RULES = st.builds(
    SyscallRule,
    names=st.lists(st.sampled_from(sorted(syscall_numbers("x86_64"))), min_size=1, max_size=40).map(tuple),
    action=ACTIONS,
    errno_ret=st.one_of(st.none(), st.integers(0, 4095)),
    args=st.lists(ARGS, max_size=4).map(tuple),
)
PROFILES = st.builds(
    SeccompProfile,
    default_action=ACTIONS,
    default_errno_ret=st.one_of(st.none(), st.integers(0, 4095)),
    architectures=st.just(("SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64")),
    syscalls=st.lists(RULES, max_size=20).map(tuple),
)


@settings(deadline=None, max_examples=60)
@given(profile=PROFILES, machine=st.sampled_from(MACHINES), data=st.data())
def test_any_profile_means_the_same_assembled_and_read_directly(profile, machine, data):
    """Named numbers and their neighbours, with arguments near the profile's values, agree with a direct reading."""
    program = assemble(profile, machine)
    near = {
        (value + delta) % 2**64
        for rule in profile.syscalls
        for arg in rule.args
        for value in (arg.value, arg.value_two, arg.value ^ 2**32, arg.value & 0xFFFFFFFF)
        for delta in (-1, 0, 1)
    } | {0}
    args = data.draw(st.lists(st.tuples(*[st.sampled_from(sorted(near))] * 6), min_size=1, max_size=3))

    numbers = {syscall_numbers(machine).get(name, 0) for rule in profile.syscalls for name in rule.names}

    for nr in {nr + delta for nr in numbers for delta in (0, 1)} | {0, 472, 0x40000000, 0xFFFFFFFF}:
        for given_args in args:
            assert simulate(program, machine, nr, given_args) == expected(profile, machine, nr, given_args)


@pytest.mark.parametrize("op", ["EQ", "NE", "LT", "LE", "GT", "GE"])
@pytest.mark.parametrize("value", [0, 5, 2**32 - 1, 2**32, 2**32 + 5, 2**63, 2**64 - 1])
def test_comparisons_use_both_halves_of_the_argument(op, value):
    """Around each value, and with either half changed alone, the comparison is that of 64-bit unsigned numbers."""
    arg = SyscallArg(index=5, value=value, op=f"SCMP_CMP_{op}")
    profile = _profile(SyscallRule(names=("read",), action="SCMP_ACT_ALLOW", args=(arg,)))
    program = assemble(profile, "x86_64")

    for given_value in {(value + d) % 2**64 for d in (-(2**32), -1, 0, 1, 2**32)} | {0, 2**64 - 1}:
        args = (0, 0, 0, 0, 0, given_value)
        assert simulate(program, "x86_64", 0, args) == expected(profile, "x86_64", 0, args)


def _profile(*rules: SyscallRule, default_action: str = "SCMP_ACT_ERRNO") -> SeccompProfile:
    return SeccompProfile(default_action=default_action, architectures=("SCMP_ARCH_X86_64",), syscalls=rules)


def test_a_tree_wider_than_eight_bit_jumps_is_still_right():
    """When each number has its own verdict, the tree needs far jumps; all verdicts stay right."""
    names = syscall_numbers("x86_64")
    rules = [
        SyscallRule(names=(name,), action="SCMP_ACT_ERRNO", errno_ret=number + 1) for name, number in names.items()
    ]
    program = assemble(_profile(*rules), "x86_64")

    for number in names.values():
        assert simulate(program, "x86_64", number) == ERRNO | (number + 1)
        assert trace(program, AUDIT_ARCH["x86_64"], number).steps <= 26


def test_deny_list_lets_unknown_numbers_pass():
    """A profile whose default allows cannot name what the table does not know, as with runc."""
    program = assemble(_profile(default_action="SCMP_ACT_ALLOW"), "x86_64")

    assert simulate(program, "x86_64", 472) == ALLOW


@pytest.mark.parametrize("machine", ["riscv64", "i686", "armv7l", "aarch64_be", "s390x", ""])
def test_other_machines_are_refused_with_a_hint(machine):
    """No program is better than one with another machine's numbers."""
    with pytest.raises(HostError) as raised:
        assemble(default_profile(), machine)

    assert raised.value.hint


def test_profile_for_other_architectures_is_refused():
    """A profile that does not name this machine's architecture is not applied to it."""
    with pytest.raises(HostError, match="not for aarch64"):
        assemble(_profile(), "aarch64")


@pytest.mark.parametrize(
    "rule",
    [
        SyscallRule(names=("read",), action="SCMP_ACT_NOTIFY"),
        SyscallRule(names=("read",), action="SCMP_ACT_ERRNO", errno_ret=-1),
        SyscallRule(names=("read",), action="SCMP_ACT_ERRNO", errno_ret=4096),
        SyscallRule(names=("read",), action="SCMP_ACT_ALLOW", args=(SyscallArg(index=6, value=0, op="SCMP_CMP_EQ"),)),
        SyscallRule(names=("read",), action="SCMP_ACT_ALLOW", args=(SyscallArg(index=0, value=-1, op="SCMP_CMP_EQ"),)),
        SyscallRule(names=("read",), action="SCMP_ACT_ALLOW", args=(SyscallArg(index=0, value=0, op="SCMP_CMP_IN"),)),
        SyscallRule(
            names=("read",), action="SCMP_ACT_ALLOW", args=(SyscallArg(index=0, value=0, op="SCMP_CMP_LT"),) * 60
        ),
    ],
    ids=["action", "errno-0", "errno-4096", "index", "value", "op", "length"],
)
def test_malformed_rules_are_refused(rule):
    """Nothing in a profile is guessed."""
    with pytest.raises(OptionError):
        assemble(_profile(rule), "x86_64")


def test_program_longer_than_the_kernel_takes_is_refused():
    """The kernel's limit is found out before a container is started."""
    rules = [
        SyscallRule(
            names=("read",),
            action="SCMP_ACT_ALLOW",
            args=(SyscallArg(index=i % 6, value=i, op="SCMP_CMP_LT"),),
        )
        for i in range(1000)
    ]
    with pytest.raises(OptionError, match="4096"):
        assemble(_profile(*rules), "x86_64")


def test_default_program_is_assembled_once_for_this_machine(monkeypatch):
    """The cached bytes are those of this machine; a foreign machine raises HostError."""
    default_program.cache_clear()
    uname = os.uname()
    for machine in MACHINES:
        monkeypatch.setattr(seccomp.os, "uname", lambda m=machine: os.uname_result((*uname[:4], m)))
        assert default_program() == PROGRAMS[machine]
        assert default_program() is default_program()
        default_program.cache_clear()
    monkeypatch.setattr(seccomp.sys, "maxsize", 2**31 - 1)
    with pytest.raises(HostError, match="32-bit"):
        default_program()
    default_program.cache_clear()


def test_sock_fprog_points_to_the_program():
    """The structure has the number of instructions and the address of a copy of the bytes."""
    program = PROGRAMS["x86_64"]
    fprog = sock_fprog(program)

    assert fprog.len == len(program) // 8
    assert ctypes.string_at(fprog.filter, len(program)) == program
    assert ctypes.sizeof(fprog) == struct.calcsize("HP")


def test_profile_is_immutable():
    """The cached profile cannot be weakened by who gets hold of it."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        default_profile().default_action = "SCMP_ACT_ALLOW"
    assert default_profile() is default_profile()
