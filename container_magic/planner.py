"""Makes the plan: a spec met with the facts of the host.

Pure but for looking at the paths that the spec names. A wish that this host cannot enforce is an error here; with
``best_effort`` it becomes a ``Downgrade`` that the report shows. A default which cannot be enforced is a downgrade too.
"""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from container_magic.cgroups.enforce import Assessment, Refusal, assess, option_name, parse_list, without
from container_magic.errors import HostError, OptionError
from container_magic.events import Downgrade, Limit
from container_magic.host import HostFeatures
from container_magic.linux.rlimits import MOST, most_of
from container_magic.linux.subids import ADD_RANGE
from container_magic.options.limits import check_high
from container_magic.plan import Plan, Substitutes
from container_magic.programs import check_language
from container_magic.rootfs.host import Lower, interpreter_prefixes
from container_magic.spec import ContainerSpec, DeviceRate, Mount, Resources, Rlimit
from container_magic.workdir import with_work

MIB = 1024 * 1024
_LARGEST_DEFAULT_DISK = 512 * MIB
_HOMES = {"": "/root", "0": "/root", "root": "/root", "1000": "/home/user", "user": "/home/user"}
_DEVICE_FIELDS = ("device_read_bps", "device_write_bps", "device_read_iops", "device_write_iops")
# options whose keyword is not the name of the field of Resources
_KEYWORDS = {
    "memory_bytes": ("mem", "memory"),
    "memory_high_bytes": ("mem_high", "memory_high"),
    "memory_swap_bytes": ("memory_swap", "mem", "memory"),
    "cpuset_cpus": ("cpus", "cpuset_cpus"),
}


def make_plan(spec: ContainerSpec, features: HostFeatures, lowers: Sequence[Lower], container_id: str) -> Plan:
    """Return the plan for ``spec`` on a host with ``features``.

    Raises:
        OptionError: A value makes no sense on this host (a CPU that it lacks, a path that is no directory).
        HostError: A limit that was asked for cannot be enforced here.
    """
    _check_mounts(spec.mounts)
    _check_user(spec, features)
    spec, missing = with_work(spec, lowers, rootless=features.rootless)
    resources = _default_memory(_resolve_devices(spec.resources), spec, features)
    _check_cpus(resources, spec, features)
    check_high(resources.memory_high_bytes, resources.memory_bytes)
    assessment = assess(features.cgroups, resources)
    substitutes = _substitute(assessment.refusals, resources)
    downgrades = _settle(assessment.refusals, spec)
    resources = without(resources, assessment.refusals)
    disk_bytes = spec.root.disk_bytes or _default_disk(resources)
    rlimits = _check_rlimits(spec)
    resolved = replace(
        spec,
        resources=resources,
        hostname=spec.hostname or ("" if spec.network == "host" else container_id[:12]),
        root=replace(spec.root, disk_bytes=disk_bytes),
        process=replace(spec.process, cwd=spec.process.cwd or _home(spec), env=_environment(spec), rlimits=rlimits),
    )
    check_language(resolved, lowers)
    return Plan(
        container_id=container_id,
        spec=resolved,
        id_mappings=features.id_mappings,
        deny_setgroups=features.rootless and features.subordinate is None,
        lowers=tuple(lowers),
        files=_files(resolved),
        cgroup_setup=features.cgroups.setup,
        cgroup_controllers=assessment.controllers,
        cgroup_paths=tuple(
            f"{base}/container_magic-{container_id}" for base in dict.fromkeys(features.cgroups.bases.values())
        ),
        limits=(*assessment.limits, *_own_limits(resolved, assessment)),
        downgrades=(*downgrades, *missing),
        substitutes=substitutes,
    )


_GOT = {
    "memory_bytes": "watched by the supervisor, not held by the kernel",
    "memory_high_bytes": "watched by the supervisor, which adds up the processes",
    "cpuset_cpus": "sched_setaffinity, which the code can change",
    "pids": "RLIMIT_NPROC",
}


def _substitute(refusals: Iterable[Refusal], resources: Resources) -> Substitutes:
    refused = {refusal.field for refusal in refusals}
    cpus = parse_list(resources.cpuset_cpus) if resources.cpuset_cpus and "cpuset_cpus" in refused else ()
    return Substitutes(
        watched_memory_bytes=resources.memory_bytes if "memory_bytes" in refused else None,
        watched_memory_high_bytes=resources.memory_high_bytes if "memory_high_bytes" in refused else None,
        affinity=tuple(sorted(cpus)),
        pids=resources.pids if "pids" in refused else None,
    )


def _settle(refusals: Iterable[Refusal], spec: ContainerSpec) -> tuple[Downgrade, ...]:
    """Turn refusals into downgrades, or raise the first one that was asked for."""
    downgrades = []
    for refusal in refusals:
        name = option_name(refusal.field)
        asked_for = any(keyword in spec.explicit for keyword in _KEYWORDS.get(refusal.field, (refusal.field, name)))
        if asked_for and not spec.best_effort:
            hint = (
                f"{refusal.hint}, or --best-effort to run without it"
                if refusal.hint
                else "--best-effort runs without it"
            )
            raise HostError(f"cannot enforce {_flag(refusal.field, spec)} {refusal.asked}: {refusal.reason}", hint=hint)
        downgrades.append(
            Downgrade(name=name, asked=refusal.asked, got=_GOT.get(refusal.field, "not limited"), reason=refusal.reason)
        )
    return tuple(downgrades)


def _flag(field: str, spec: ContainerSpec) -> str:
    names = _KEYWORDS.get(field, (option_name(field),))
    name = next((keyword for keyword in names if keyword in spec.explicit), names[0])
    return "--" + name.replace("_", "-")


def _default_memory(resources: Resources, spec: ContainerSpec, features: HostFeatures) -> Resources:
    """Half of the memory that the caller may use, unless something was said about it."""
    if resources.memory_bytes is not None or {"mem", "memory"} & set(spec.explicit):
        return resources
    facts = features.cgroups
    usable = min(facts.memory_total_bytes, facts.memory_limit_bytes or facts.memory_total_bytes)
    if usable <= 0:
        return resources
    return replace(resources, memory_bytes=usable // 2 // MIB * MIB)


def _default_disk(resources: Resources) -> int:
    if resources.memory_bytes is None:
        return _LARGEST_DEFAULT_DISK
    return min(resources.memory_bytes // 2, _LARGEST_DEFAULT_DISK)


def _check_cpus(resources: Resources, spec: ContainerSpec, features: HostFeatures) -> None:
    """Refuse CPUs that this process may not use, whether or not a cgroup could hold the set."""
    for refusal in assess(features.cgroups, resources).refusals:
        if refusal.field in ("cpus", "cpuset_cpus", "cpuset_mems") and refusal.reason.startswith(
            ("this process", "the amount")
        ):
            raise OptionError(f"{_flag(refusal.field, spec)} {refusal.asked}: {refusal.reason}", hint=refusal.hint)


def _resolve_devices(resources: Resources) -> Resources:
    changes: dict[str, Any] = {name: tuple(map(_resolve_device, getattr(resources, name))) for name in _DEVICE_FIELDS}
    return replace(resources, **changes)


def _resolve_device(rate: DeviceRate) -> DeviceRate:
    try:
        status = os.stat(rate.path)
    except OSError as error:
        raise OptionError(f"no block device {rate.path}: {error.strerror}", hint="`lsblk` lists them") from error
    if not stat.S_ISBLK(status.st_mode):
        raise OptionError(f"{rate.path} is not a block device", hint="`lsblk` lists them")
    return dataclasses.replace(rate, major=os.major(status.st_rdev), minor=os.minor(status.st_rdev))


def _check_mounts(mounts: Sequence[Mount]) -> None:
    for mount in mounts:
        if mount.type == "bind" and not os.path.lexists(mount.source):
            raise OptionError(f"cannot mount {mount.source} on {mount.destination}: it does not exist on this host")
        # anything below /proc would hide what masks and read-only paths are laid over (CVE-2019-16884, CVE-2019-19921)
        destination = os.path.normpath(mount.destination)
        if destination in ("/", "/dev") or f"{destination}/".startswith(("/proc/", "/sys/")):
            raise OptionError(f"cannot mount on {mount.destination}: the container needs its own")


def _check_user(spec: ContainerSpec, features: HostFeatures) -> None:
    user, _, group = spec.process.user.partition(":")
    size = sum(mapping.size for mapping in features.id_mappings)
    if size == 1 and spec.process.user not in ("", "0", "root", "0:0", "root:root"):
        reason = "an ordinary user without subordinate ids maps one id only, and that is the container's root"
        hint = f"install uidmap and give the user a range ({ADD_RANGE})"
        raise HostError(f"cannot run as user {user!r}: {reason}", hint=hint)
    for name in (user, group):
        if name.isdecimal() and int(name) >= size:
            raise OptionError(f"--user {spec.process.user}: {name} is not one of a container's ids, 0-{size - 1}")


def _check_rlimits(spec: ContainerSpec) -> tuple[Rlimit, ...]:
    """Refuse what setrlimit would refuse: raising a hard limit needs CAP_SYS_RESOURCE of the host."""
    return tuple(_checked_rlimit(limit) for limit in spec.process.rlimits)


def _checked_rlimit(limit: Rlimit) -> Rlimit:
    if limit.name == "core":
        return _no_core(limit)
    most = most_of(limit.name)
    if most is not None and (limit.hard == -1 or limit.hard > most):
        raise HostError(
            f"cannot set --ulimit {limit.name} to {limit.hard}: the most that a container can have here is {most}"
        )
    return limit


def _no_core(limit: Rlimit) -> Rlimit:
    """Return the limit that keeps every dump in: none is what a container has anyway."""
    most = most_of("core") or 0
    if not 0 <= limit.soft <= limit.hard <= MOST["core"]:
        raise OptionError(
            f"--ulimit core={limit.soft}:{limit.hard}: a core dump would leave the container by way of the host's "
            "core_pattern; accepted: core=0, which is the default"
        )
    return replace(limit, soft=most, hard=most)


def _home(spec: ContainerSpec) -> str:
    """Return the home directory of the user inside, as the template's accounts have it; "/" for who has no account."""
    return _HOMES.get(spec.process.user.partition(":")[0], "/")


def _environment(spec: ContainerSpec) -> tuple[tuple[str, str], ...]:
    """The environment inside, by allow-list: nothing of the caller's but the time zone."""
    # a virtual environment comes before the interpreter that it was made of
    environments = [os.path.join(os.path.realpath(prefix), "bin") for prefix in interpreter_prefixes()]
    path = [*environments, "/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
    values = {
        "PATH": ":".join(dict.fromkeys(path)),
        "HOME": _home(spec),
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
    }
    if "TZ" in os.environ:
        values["TZ"] = os.environ["TZ"]
    if spec.resources.cpus is not None:
        # libraries that count CPUs would start a thread for each and then be throttled
        values["OMP_NUM_THREADS"] = str(max(1, round(spec.resources.cpus)))
    values.update(spec.process.env)
    return tuple(values.items())


def _files(spec: ContainerSpec) -> tuple[tuple[str, str], ...]:
    name = spec.hostname or os.uname().nodename
    hosts = f"127.0.0.1 localhost {name}\n::1 localhost ip6-localhost ip6-loopback {name}\n"
    files = [("/etc/hostname", f"{name}\n"), ("/etc/hosts", hosts)]
    if spec.network == "host" and os.path.isfile("/etc/resolv.conf"):
        with open("/etc/resolv.conf", encoding="utf-8", errors="replace") as file:
            files.append(("/etc/resolv.conf", file.read(65536)))
    return tuple(files)


def _own_limits(spec: ContainerSpec, assessment: Assessment) -> Iterable[Limit]:
    """Limits that no cgroup file holds."""
    watch = spec.watch
    if watch.wall_seconds is not None:
        yield Limit(name="timeout", value=watch.wall_seconds, by="supervisor's clock")
    if watch.cpu_seconds is not None:
        counted = "cpu" in assessment.controllers or "cpuacct" in assessment.controllers
        yield Limit(
            name="cpu_time",
            value=watch.cpu_seconds,
            by="cgroup CPU usage" if counted else "supervisor's sum over the processes",
        )
    yield Limit(name="max_output", value=watch.output_bytes, by="reader of the pipes")
    if spec.root.disk_bytes is not None:
        yield Limit(name="disk", value=spec.root.disk_bytes, by="tmpfs size")
    for limit in spec.process.rlimits:
        yield Limit(name=f"ulimit {limit.name}", value=limit.soft, by="setrlimit")
