"""libseccomp, through pyseccomp, reads the same profile and comes to the same verdicts."""

from __future__ import annotations

import itertools

import pytest
from test_seccomp_simulator import ERRNO, RETURN_VALUES, simulate

from container_magic.linux.seccomp import assemble
from container_magic.linux.seccomp_profile import SyscallRule, default_profile
from container_magic.linux.syscall_table import syscall_numbers

try:
    import pyseccomp
except (ImportError, RuntimeError, OSError) as error:  # without libseccomp.so.2 the import itself fails
    pytest.skip(f"the oracle needs pyseccomp and libseccomp.so.2: {error}", allow_module_level=True)

ARCHES = {"x86_64": pyseccomp.Arch.X86_64, "aarch64": pyseccomp.Arch.AARCH64}
HIGH = 0xDEADBEEF_00000000
FIRST = [
    0,
    1,
    2,
    3,
    8,
    10,
    15,
    16,
    17,
    29,
    38,
    40,
    0x11,
    0x20000,
    0x40000,
    0x3D0F00,
    0x10000011,
    0x7E020011,
    0xFFFFFFFF,
]
SECOND = [0, 1, 3, 4, 0x5401, 0x5412, 0x5413, 0x541C, 0x5423]
THIRD = [0, 6, 9]
FOURTH = [0, 5]


def libseccomp_knows(machine: str) -> dict[str, int]:
    """Return the system calls of our table that the installed libseccomp resolves, with its numbers."""
    resolved = {name: pyseccomp.resolve_syscall(ARCHES[machine], name) for name in syscall_numbers(machine)}
    return {name: number for name, number in resolved.items() if number >= 0}


def value(rule: SyscallRule) -> int:
    """Return the rule's action as libseccomp and the kernel write it."""
    return RETURN_VALUES[rule.action] | (
        (1 if rule.errno_ret is None else rule.errno_ret) if rule.action == "SCMP_ACT_ERRNO" else 0
    )


def fallback(name: str) -> int:
    """Return the verdict on ``name`` when none of its conditions holds.

    libseccomp drops conditional rules when an unconditional one follows; so this verdict becomes the default action of
    the filter in which the call is looked at.
    """
    unconditional = [r for r in default_profile().syscalls if name in r.names and not r.args]
    return value(unconditional[0]) if unconditional else ERRNO | default_profile().default_errno_ret


def oracle_program(machine: str, default: int, directory) -> bytes:
    """Return the BPF of libseccomp for the calls with this fallback."""
    policy = pyseccomp.SyscallFilter(default)
    if pyseccomp.system_arch() != ARCHES[machine]:
        policy.remove_arch(pyseccomp.system_arch())
        policy.add_arch(ARCHES[machine])
    policy.set_attr(pyseccomp.Attr.ACT_BADARCH, pyseccomp.KILL_PROCESS)
    for rule in default_profile().syscalls:
        args = [pyseccomp.Arg(a.index, getattr(pyseccomp, a.op[9:]), a.value, a.value_two) for a in rule.args]
        for name in rule.names:
            if name in libseccomp_knows(machine) and fallback(name) == default and value(rule) != default:
                policy.add_rule(value(rule), name, *args)
    path = directory / f"{machine}-{default:x}.bpf"
    with open(path, "wb") as file:
        policy.export_bpf(file)
    return path.read_bytes()


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_numbers_are_those_of_libseccomp(machine):
    """Every name that the installed libseccomp knows has the same number in our table."""
    known = libseccomp_knows(machine)

    assert len(known) > 300
    assert known == {name: syscall_numbers(machine)[name] for name in known}


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_verdicts_are_those_of_libseccomp(machine, tmp_path):
    """For every known call and a grid of arguments, with and without high bits, both programs return the same."""
    ours = assemble(default_profile(), machine)
    known = libseccomp_knows(machine)
    programs = {default: oracle_program(machine, default, tmp_path) for default in {fallback(name) for name in known}}
    conditional = {name for rule in default_profile().syscalls if rule.args for name in rule.names}
    grid = list(itertools.product(FIRST, SECOND, THIRD, FOURTH))
    grid += [tuple(HIGH | argument for argument in arguments) for arguments in grid]

    wrong = []
    for name, number in known.items():
        theirs = programs[fallback(name)]
        for args in grid if name in conditional else grid[:2]:
            if simulate(ours, machine, number, args) != simulate(theirs, machine, number, args):
                wrong.append((name, args))

    assert wrong == []


@pytest.mark.parametrize(("machine", "caller"), [("x86_64", "i386"), ("aarch64", "arm")])
def test_foreign_architectures_and_x32_get_what_libseccomp_gives_them(machine, caller, tmp_path):
    """Both kill the process."""
    theirs = oracle_program(machine, ERRNO | 1, tmp_path)
    ours = assemble(default_profile(), machine)

    for nr in (0, 11, 102, 400):
        assert simulate(ours, caller, nr) == simulate(theirs, caller, nr) == pyseccomp.KILL_PROCESS
    if machine == "x86_64":
        for nr in (0x40000000, 0x40000208, 0x7FFFFFFF):
            assert simulate(ours, machine, nr) == simulate(theirs, machine, nr) == pyseccomp.KILL_PROCESS
