"""Assembles seccomp profiles into BPF (seccomp(2), the kernel's ``Documentation/userspace-api/seccomp_filter.rst``).

The program checks the architecture, then finds the system call by a binary search over ranges of numbers: a call costs
about ten instructions. Until the verdict of a call without conditions nothing is loaded but ``arch`` and ``nr``; so the
kernel (since Linux 5.11) knows beforehand that the call is allowed and does not run the program for it at all.

The kernel's own instruction set is used as it is, little-endian; libseccomp serves as the oracle in the tests only.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import struct
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from container_magic.errors import HostError, OptionError
from container_magic.linux.seccomp_profile import SeccompProfile, SyscallArg, SyscallRule, default_profile
from container_magic.linux.syscall_table import syscall_numbers

BPF_MAXINSNS = 4096

# linux/bpf_common.h: LD|W|ABS, ALU|AND|K, JMP|JA, JMP|{JEQ,JGT,JGE}|K, RET|K
_LD, _AND, _JA, _JEQ, _JGT, _JGE, _RET = 0x20, 0x54, 0x05, 0x15, 0x25, 0x35, 0x06

# struct seccomp_data: nr, arch, instruction_pointer, args[6]
_NR_OFFSET, _ARCH_OFFSET, _ARGS_OFFSET = 0, 4, 16

SECCOMP_RET_KILL_PROCESS = 0x8000_0000  # since Linux 4.14
SECCOMP_RET_ERRNO = 0x0005_0000
SECCOMP_RET_ALLOW = 0x7FFF_0000

_ACTIONS = {
    "SCMP_ACT_KILL": 0x0000_0000,  # the OCI specification's word for SCMP_ACT_KILL_THREAD
    "SCMP_ACT_KILL_THREAD": 0x0000_0000,
    "SCMP_ACT_KILL_PROCESS": SECCOMP_RET_KILL_PROCESS,
    "SCMP_ACT_TRAP": 0x0003_0000,
    "SCMP_ACT_ERRNO": SECCOMP_RET_ERRNO,
    "SCMP_ACT_LOG": 0x7FFC_0000,
    "SCMP_ACT_ALLOW": SECCOMP_RET_ALLOW,
}
_PERMISSIVE_ACTIONS = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG")
_MAX_ERRNO = 4095

_UNKNOWN_SYSCALL = SECCOMP_RET_ERRNO | errno.ENOSYS
_X32_SYSCALL_BIT = 0x4000_0000


class _Architecture(NamedTuple):
    oci_name: str
    audit_arch: int  # linux/audit.h: EM_* | __AUDIT_ARCH_64BIT | __AUDIT_ARCH_LE


_ARCHITECTURES = {
    "x86_64": _Architecture("SCMP_ARCH_X86_64", 0xC000_003E),
    "aarch64": _Architecture("SCMP_ARCH_AARCH64", 0xC000_00B7),
}


class _Instruction(NamedTuple):
    """``struct sock_filter``: a jump's offset counts from the instruction after it."""

    code: int
    jump_true: int
    jump_false: int
    k: int


_Block = tuple[_Instruction, ...]
_Verdict = int | _Block  # a value for BPF_RET, or the code that looks at the arguments


class SockFprog(ctypes.Structure):
    """``struct sock_fprog``; keeps the program that it points to alive."""

    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]

    def __init__(self, program: bytes) -> None:
        self._program = ctypes.create_string_buffer(program, len(program))
        super().__init__(len(program) // 8, ctypes.addressof(self._program))


def sock_fprog(program: bytes) -> SockFprog:
    """Return ``program`` as the argument of ``seccomp(SECCOMP_SET_MODE_FILTER)`` or ``prctl(PR_SET_SECCOMP)``."""
    return SockFprog(program)


@functools.cache
def default_program() -> bytes:
    """Return `default_profile` assembled for this process's machine; assembled once.

    Raises:
        HostError: The machine is neither x86-64 nor aarch64, or this is a 32-bit process.
    """
    machine = os.uname().machine
    if machine in _ARCHITECTURES and sys.maxsize < 2**32:
        raise HostError(
            f"cannot filter system calls of a 32-bit process on {machine}",
            hint="run with a 64-bit Python",
        )
    return assemble(default_profile(), machine)


def assemble(profile: SeccompProfile, machine: str) -> bytes:
    """Return the BPF program of ``profile``: packed ``struct sock_filter``, 8 bytes each.

    System calls of another architecture (x86-64: ``int 0x80``, x32 numbers) kill the process whatever the profile says:
    their numbers mean other calls.

    Args:
        profile: The policy.
        machine: ``x86_64`` or ``aarch64``, as ``uname -m`` has it.

    Raises:
        HostError: Another machine, or one that the profile's ``architectures`` do not name.
        OptionError: The profile is malformed or too long for the kernel.
    """
    architecture = _ARCHITECTURES.get(machine)
    if architecture is None:
        raise HostError(
            f"cannot filter system calls on {machine}: no table of its system calls",
            hint=f"use a machine with {' or '.join(_ARCHITECTURES)} (64-bit)",
        )
    if architecture.oci_name not in profile.architectures:
        raise HostError(
            f"the seccomp profile is not for {machine}: its architectures are {', '.join(profile.architectures)}",
            hint=f"add {architecture.oci_name} to its architectures",
        )
    program = [
        _Instruction(_LD, 0, 0, _ARCH_OFFSET),
        _Instruction(_JEQ, 1, 0, architecture.audit_arch),
        _Instruction(_RET, 0, 0, SECCOMP_RET_KILL_PROCESS),
        _Instruction(_LD, 0, 0, _NR_OFFSET),
        *_dispatch(_ranges(profile, machine)),
    ]
    if len(program) > BPF_MAXINSNS:
        raise OptionError(f"the seccomp profile needs {len(program)} instructions: the kernel takes {BPF_MAXINSNS}")
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def _ranges(profile: SeccompProfile, machine: str) -> list[tuple[int, _Verdict]]:
    """Return (first number, verdict) of each run of numbers with the same verdict; the first run starts at 0."""
    default = _return_value(profile.default_action, profile.default_errno_ret)
    rules: dict[str, list[SyscallRule]] = {}
    for rule in profile.syscalls:
        for name in rule.names:
            rules.setdefault(name, []).append(rule)
    numbers = syscall_numbers(machine)
    verdicts = {number: _verdict(rules.get(name, []), default) for name, number in numbers.items()}
    unknown = default if profile.default_action in _PERMISSIVE_ACTIONS else _UNKNOWN_SYSCALL
    candidates = [(number, verdicts.get(number, unknown)) for number in range(max(verdicts) + 2)]
    if machine == "x86_64":
        # x32 calls have the architecture of x86-64 and are told apart by this bit. -1 is no x32 call: the kernel
        # answers it with ENOSYS, and a tracer on the host writes it to skip a call.
        candidates += [(_X32_SYSCALL_BIT, SECCOMP_RET_KILL_PROCESS), (0xFFFF_FFFF, _UNKNOWN_SYSCALL)]
    ranges = candidates[:1]
    for first, verdict in candidates[1:]:
        if verdict != ranges[-1][1]:
            ranges.append((first, verdict))
    return ranges


def _verdict(rules: Sequence[SyscallRule], default: int) -> _Verdict:
    """Return what to do with a call that has these rules: in order, the first that matches."""
    block: list[_Instruction] = []
    for rule in rules:
        result = _return_value(rule.action, rule.errno_ret)
        if not rule.args:
            default = result
            break
        block += _rule_code(rule, result)
    return (*block, _Instruction(_RET, 0, 0, default)) if block else default


def _return_value(action: str, errno_ret: int | None) -> int:
    if action not in _ACTIONS:
        raise OptionError(f"unknown seccomp action {action!r}: accepted are {', '.join(_ACTIONS)}")
    if action != "SCMP_ACT_ERRNO":
        return _ACTIONS[action]
    number = errno.EPERM if errno_ret is None else errno_ret
    if not 0 <= number <= _MAX_ERRNO:
        raise OptionError(f"errnoRet {number} of a seccomp rule is not in 0..{_MAX_ERRNO}")
    return SECCOMP_RET_ERRNO | number


def _dispatch(ranges: Sequence[tuple[int, _Verdict]]) -> list[_Instruction]:
    """Return a balanced tree of ``nr >= k`` over the ranges, and after it the blocks that its leaves jump to."""
    tree = _tree(ranges)
    offsets: dict[_Block, int] = {}
    blocks: list[_Instruction] = []
    program: list[_Instruction] = []
    for position, node in enumerate(tree):
        if isinstance(node, _Instruction):
            program.append(node)
            continue
        if node not in offsets:
            offsets[node] = len(tree) + len(blocks)
            blocks += node
        program.append(_Instruction(_JA, 0, 0, offsets[node] - position - 1))
    return program + blocks


def _tree(ranges: Sequence[tuple[int, _Verdict]]) -> list[_Instruction | _Block]:
    """Return the tree alone; where a leaf looks at arguments its block stands in place of the jump to it."""
    if len(ranges) == 1:
        verdict = ranges[0][1]
        return [_Instruction(_RET, 0, 0, verdict) if isinstance(verdict, int) else verdict]
    middle = len(ranges) // 2
    lower, upper = _tree(ranges[:middle]), _tree(ranges[middle:])
    first = ranges[middle][0]
    if len(lower) <= 0xFF:
        return [_Instruction(_JGE, len(lower), 0, first), *lower, *upper]
    # A conditional jump has 8 bits for its way, an unconditional one 32.
    return [_Instruction(_JGE, 0, 1, first), _Instruction(_JA, 0, 0, len(lower)), *lower, *upper]


def _rule_code(rule: SyscallRule, result: int) -> list[_Instruction]:
    """Return code that returns ``result`` when all conditions hold and else runs into what follows it."""
    code = [_Instruction(_RET, 0, 0, result)]
    for arg in reversed(rule.args):
        if len(code) > 0xFF - 6:
            raise OptionError(f"the seccomp rule of {', '.join(rule.names)} has too many conditions: {len(rule.args)}")
        code = _condition_code(arg, len(code)) + code
    return code


def _condition_code(arg: SyscallArg, skip: int) -> list[_Instruction]:
    """Return code that runs into what follows it when the condition holds and else jumps over ``skip`` instructions."""
    compare = _COMPARISONS.get(arg.op)
    if compare is None:
        raise OptionError(f"unknown seccomp comparison {arg.op!r}: accepted are {', '.join(_COMPARISONS)}")
    if not (0 <= arg.index < 6 and 0 <= arg.value < 2**64 and 0 <= arg.value_two < 2**64):
        raise OptionError(f"argument {arg.index} of a seccomp rule: the index is 0..5, values are 0..2**64-1")
    low = _Instruction(_LD, 0, 0, _ARGS_OFFSET + 8 * arg.index)
    high = low._replace(k=low.k + 4)
    return compare(arg, low, high, skip)


# Both halves of a 64-bit argument have to be compared: half a comparison is a way around the filter.


def _equal(arg: SyscallArg, low: _Instruction, high: _Instruction, skip: int) -> list[_Instruction]:
    high_value, low_value = divmod(arg.value, 2**32)
    return [high, _Instruction(_JEQ, 0, skip + 2, high_value), low, _Instruction(_JEQ, 0, skip, low_value)]


def _not_equal(arg: SyscallArg, low: _Instruction, high: _Instruction, skip: int) -> list[_Instruction]:
    high_value, low_value = divmod(arg.value, 2**32)
    return [high, _Instruction(_JEQ, 0, 2, high_value), low, _Instruction(_JEQ, skip, 0, low_value)]


def _masked_equal(arg: SyscallArg, low: _Instruction, high: _Instruction, skip: int) -> list[_Instruction]:
    high_mask, low_mask = divmod(arg.value, 2**32)
    high_value, low_value = divmod(arg.value_two, 2**32)
    code = [low, _Instruction(_AND, 0, 0, low_mask), _Instruction(_JEQ, 0, skip, low_value)]
    if high_mask or high_value:
        code = [high, _Instruction(_AND, 0, 0, high_mask), _Instruction(_JEQ, 0, skip + 3, high_value), *code]
    return code


def _above(jump: int, arg: SyscallArg, low: _Instruction, high: _Instruction, skip: int) -> list[_Instruction]:
    """``jump`` compares the low halves: BPF_JGT for "greater", BPF_JGE for "greater or equal"."""
    high_value, low_value = divmod(arg.value, 2**32)
    return [
        high,
        _Instruction(_JGT, 3, 0, high_value),
        _Instruction(_JEQ, 0, skip + 2, high_value),
        low,
        _Instruction(jump, 0, skip, low_value),
    ]


def _not_above(jump: int, arg: SyscallArg, low: _Instruction, high: _Instruction, skip: int) -> list[_Instruction]:
    """The opposite of `_above` with the same ``jump``: BPF_JGE for "less", BPF_JGT for "less or equal"."""
    high_value, low_value = divmod(arg.value, 2**32)
    return [
        high,
        _Instruction(_JGT, skip + 3, 0, high_value),
        _Instruction(_JEQ, 0, 2, high_value),
        low,
        _Instruction(jump, skip, 0, low_value),
    ]


_COMPARISONS: dict[str, Callable[[SyscallArg, _Instruction, _Instruction, int], list[_Instruction]]] = {
    "SCMP_CMP_EQ": _equal,
    "SCMP_CMP_NE": _not_equal,
    "SCMP_CMP_LT": functools.partial(_not_above, _JGE),
    "SCMP_CMP_LE": functools.partial(_not_above, _JGT),
    "SCMP_CMP_GT": functools.partial(_above, _JGT),
    "SCMP_CMP_GE": functools.partial(_above, _JGE),
    "SCMP_CMP_MASKED_EQ": _masked_equal,
}
