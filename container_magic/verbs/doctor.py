"""``doctor``: what this host can enforce, line by line, with the remedy for what it cannot."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

from container_magic import host
from container_magic.cgroups.enforce import assess
from container_magic.cgroups.facts import CgroupFacts
from container_magic.cgroups.prepare import prepare
from container_magic.deferred import dataclass
from container_magic.errors import ContainError
from container_magic.events import Limit
from container_magic.linux.subids import ADD_RANGE
from container_magic.rootfs.marker import HINT, NO_NESTING, is_inside
from container_magic.runtime.client import zygote
from container_magic.spec import DeviceRate, Resources

# with a map: AppArmor on Ubuntu lets the namespace be made and refuses what it is for
_USERNS_PROBE = """
import ctypes, os, sys
own = f"0 {os.geteuid()} 1"
if ctypes.CDLL(None, use_errno=True).unshare(0x10000000):
    sys.exit(ctypes.get_errno())
try:
    with open("/proc/self/uid_map", "w") as file:
        file.write(own)
except OSError as error:
    sys.exit(error.errno)
"""
_SWITCHES = (
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile with `userns,`",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of the doctor: ``ok`` is None where the answer is neither good nor bad."""

    name: str
    ok: bool | None
    detail: str
    remedy: str = ""


def doctor() -> list[Check]:
    """Look at this host and try a container; every check is made whatever the others say."""
    if is_inside():
        return [Check(name="nesting", ok=False, detail=NO_NESTING, remedy=HINT)]
    checks = [_try(name, check) for name, check in _BASICS]
    if all(check.ok is not False for check in checks):
        checks += _limits(_cgroup_facts())
        checks.append(_try("a container", _container))
    return checks


def _cgroup_facts() -> CgroupFacts:
    """What containers get: of the zygote, which may be in a scope of its own; of this process when there is none."""
    try:
        return zygote().features.cgroups
    except ContainError:
        return prepare(host.probe().cgroups)


def _try(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except ContainError as error:
        return Check(name=name, ok=False, detail=error.message, remedy=error.hint)
    except OSError as error:
        return Check(name=name, ok=False, detail=str(error))


def _platform() -> Check:
    host.check_platform()
    return Check(name="platform", ok=True, detail=f"Linux {os.uname().release} on {os.uname().machine}")


def _privilege() -> Check:
    features = host.probe()
    if features.rootless and features.subordinate is not None:
        ids = features.subordinate
        detail = f"ordinary user: container root is you, {ids.count} more ids from {ids.first_uid} by newuidmap"
        return Check(name="privilege", ok=True, detail=detail)
    if features.rootless:
        detail = "ordinary user: container root is you, one id is mapped"
        return Check(
            name="privilege",
            ok=None,
            detail=detail,
            remedy=f"for --user: install uidmap; {ADD_RANGE}",
        )
    mapping = features.id_mappings[0]
    last = mapping.host_id + mapping.size - 1
    return Check(name="privilege", ok=True, detail=f"root: container ids are {mapping.host_id}-{last} of the host")


def _user_namespaces() -> Check:
    # in a process of its own: a threaded one may not unshare, and none should try with the user's work in it
    probe = subprocess.run([sys.executable, "-I", "-S", "-c", _USERNS_PROBE], capture_output=True, check=False)
    if probe.returncode == 0:
        return Check(name="user namespaces", ok=True, detail="can be made")
    detail = os.strerror(probe.returncode)
    return Check(name="user namespaces", ok=False, detail=detail, remedy=_userns_remedy(probe.returncode))


def _userns_remedy(number: int) -> str:
    """Return what would let an unshare succeed that failed with this errno."""
    if number == errno.ENOSPC:  # this namespace's number, or that of one around it
        return "as root, also of the surrounding container: sysctl -w user.max_user_namespaces=15000"
    for path, bad, text in _SWITCHES:
        if _reads(path) == bad:
            return f"as root: {text}"
    if "Seccomp:\t2" in _reads("/proc/self/status"):
        return (
            "a seccomp filter refuses it: start the surrounding container with a profile that allows unshare, clone "
            "and mount (Docker: --security-opt seccomp=unconfined --security-opt systempaths=unconfined)"
        )
    return "allow unshare(CLONE_NEWUSER) here: a security module refuses it"


def _overlay() -> Check:
    with open("/proc/filesystems", encoding="utf-8") as file:
        known = any(line.split()[-1] == "overlay" for line in file)
    if known:
        return Check(name="overlayfs", ok=True, detail="known to the kernel")
    return Check(name="overlayfs", ok=False, detail="not known to the kernel", remedy="as root: modprobe overlay")


def _seccomp() -> Check:
    actions = _reads("/proc/sys/kernel/seccomp/actions_avail")
    if "errno" in actions.split():
        return Check(name="seccomp", ok=True, detail="filters can be installed")
    return Check(
        name="seccomp",
        ok=False,
        detail="the kernel has no seccomp filters",
        remedy="boot a kernel with CONFIG_SECCOMP_FILTER=y",
    )


_BASICS: tuple[tuple[str, Callable[[], Check]], ...] = (
    ("platform", _platform),
    ("privilege", _privilege),
    ("user namespaces", _user_namespaces),
    ("overlayfs", _overlay),
    ("seccomp", _seccomp),
)


def _limits(facts: CgroupFacts) -> Iterator[Check]:
    mounted = "no cgroup file system" if facts.setup == "none" else f"cgroup {facts.setup}"
    bases = ", ".join(sorted(set(facts.bases.values())))
    if not bases:
        remedy = next(iter(facts.remedies.values()), "")
        yield Check(name="cgroups", ok=False, detail=f"{mounted}; no group can be made here", remedy=remedy)
    else:
        yield Check(name="cgroups", ok=True, detail=f"{mounted}; groups are made in {bases}")
    for name, resources in _EXAMPLES.items():
        assessment = assess(facts, resources(facts))
        refusal = next(iter(assessment.refusals), None)
        if refusal is None:
            yield Check(name=name, ok=True, detail=f"enforced by {_files(assessment.limits)}")
        else:
            known = not bases and refusal.hint == remedy
            yield Check(name=name, ok=False, detail=refusal.reason, remedy="" if known else refusal.hint)


def _rate(facts: CgroupFacts) -> Resources:
    major, minor = map(int, next(iter(facts.disks), "0:0").split(":"))
    rate = DeviceRate(path=f"/dev/block/{major}:{minor}", major=major, minor=minor, rate=1 << 20)
    return Resources(device_read_bps=(rate,))


_EXAMPLES: dict[str, Callable[[CgroupFacts], Resources]] = {
    "--mem": lambda _: Resources(memory_bytes=64 << 20, memory_swap_bytes=-1),
    "--mem-high": lambda _: Resources(memory_high_bytes=32 << 20),
    "--memory-swap": lambda _: Resources(memory_bytes=64 << 20),
    "--cpus AMOUNT": lambda _: Resources(cpus=0.5),
    "--cpus SET": lambda facts: Resources(cpuset_cpus=facts.cpus or "0"),
    "--cpu-shares": lambda _: Resources(cpu_shares=512),
    "--pids": lambda _: Resources(pids=64),
    "--device-read-bps": _rate,
    "--blkio-weight": lambda _: Resources(blkio_weight=500),
}


def _files(limits: tuple[Limit, ...]) -> str:
    return ", ".join(dict.fromkeys(limit.by for limit in limits)) or "nothing: there is nothing to limit"


def _container() -> Check:
    from container_magic.verbs.run import run

    try:
        report = run("print(6 * 7)")
    except ContainError as error:
        return Check(name="a container", ok=False, detail=error.message, remedy=error.hint)
    good = report.ok and report.stdout == "42\n"
    detail = (
        f"made, run and removed in {report.usage.startup_seconds or 0:.3f} s"
        if good
        else f"{report.verdict}: {report.stderr}"
    )
    return Check(name="a container", ok=good, detail=detail)


def _reads(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""
