"""A small interpreter for seccomp BPF, and the meaning of a profile written down a second time, for the tests."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from container_magic.linux.seccomp_profile import SeccompProfile, SyscallArg
from container_magic.linux.syscall_table import syscall_numbers

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7, "i386": 0x40000003, "arm": 0x40000028}
KILL_PROCESS, KILL_THREAD, TRAP, ERRNO, LOG, ALLOW = 0x80000000, 0, 0x30000, 0x50000, 0x7FFC0000, 0x7FFF0000
ENOSYS = 38
RETURN_VALUES = {
    "SCMP_ACT_KILL": KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": KILL_PROCESS,
    "SCMP_ACT_TRAP": TRAP,
    "SCMP_ACT_ERRNO": ERRNO,
    "SCMP_ACT_LOG": LOG,
    "SCMP_ACT_ALLOW": ALLOW,
}
U64 = 2**64 - 1


@dataclass(frozen=True)
class Run:
    """The returned value, how many instructions it took, and the offsets that were loaded."""

    result: int
    steps: int
    loaded: tuple[int, ...]


def trace(program: bytes, arch: int, nr: int, args: tuple[int, ...] = ()) -> Run:
    """Run ``program`` on a ``struct seccomp_data`` as the kernel does; an invalid instruction is an AssertionError."""
    data = struct.pack("=IIQ6Q", nr & 0xFFFFFFFF, arch, 0, *(a & U64 for a in (*args, 0, 0, 0, 0, 0, 0)[:6]))
    instructions = list(struct.iter_unpack("=HBBI", program))
    accumulator, counter, loaded = 0, 0, []
    for steps in range(1, len(instructions) + 1):
        code, jump_true, jump_false, k = instructions[counter]
        counter += 1
        if code == 0x06:
            return Run(k, steps, tuple(loaded))
        if code == 0x20:
            assert k % 4 == 0 and k < 64, f"bad load offset {k}"
            (accumulator,) = struct.unpack_from("=I", data, k)
            loaded.append(k)
        elif code == 0x54:
            accumulator &= k
        elif code == 0x05:
            counter += k
        else:
            taken = {0x15: accumulator == k, 0x25: accumulator > k, 0x35: accumulator >= k}[code]
            counter += jump_true if taken else jump_false
    raise AssertionError("the program does not end")


def simulate(program: bytes, machine: str, nr: int, args: tuple[int, ...] = ()) -> int:
    """Return the verdict of ``program`` on a call made as ``machine``'s."""
    return trace(program, AUDIT_ARCH[machine], nr, args).result


def _holds(arg: SyscallArg, args: tuple[int, ...]) -> bool:
    given = (args[arg.index] if arg.index < len(args) else 0) & U64
    return {
        "SCMP_CMP_EQ": given == arg.value,
        "SCMP_CMP_NE": given != arg.value,
        "SCMP_CMP_LT": given < arg.value,
        "SCMP_CMP_LE": given <= arg.value,
        "SCMP_CMP_GT": given > arg.value,
        "SCMP_CMP_GE": given >= arg.value,
        "SCMP_CMP_MASKED_EQ": given & arg.value == arg.value_two,
    }[arg.op]


def _value(action: str, errno_ret: int | None) -> int:
    return RETURN_VALUES[action] | ((1 if errno_ret is None else errno_ret) if action == "SCMP_ACT_ERRNO" else 0)


def expected(profile: SeccompProfile, machine: str, nr: int, args: tuple[int, ...] = ()) -> int:
    """Return what the profile means for a call, read off it directly."""
    if machine == "x86_64" and 0x40000000 <= nr < 0xFFFFFFFF:
        return KILL_PROCESS
    names = [name for name, number in syscall_numbers(machine).items() if number == nr]
    if not names and (nr == 0xFFFFFFFF and machine == "x86_64"):
        return ERRNO | ENOSYS
    if not names and profile.default_action not in ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG"):
        return ERRNO | ENOSYS
    for rule in profile.syscalls:
        if set(names) & set(rule.names) and all(_holds(arg, args) for arg in rule.args):
            return _value(rule.action, rule.errno_ret)
    return _value(profile.default_action, profile.default_errno_ret)


def test_simulator_follows_jumps_masks_and_returns():
    """A hand-written program that masks an argument returns what seccomp(2) says it does."""
    program = b"".join(
        struct.pack("=HBBI", *i)
        for i in [
            (0x20, 0, 0, 24),
            (0x54, 0, 0, 0xF0),
            (0x15, 1, 0, 0x30),
            (0x05, 0, 0, 1),
            (0x06, 0, 0, 7),
            (0x06, 0, 0, 9),
        ]
    )

    assert simulate(program, "x86_64", 0, (0, 0x137)) == 7
    assert simulate(program, "x86_64", 0, (0, 0x147)) == 9
