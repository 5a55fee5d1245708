"""What will be done: the plan, decided before anything is started; ``container_magic.planner`` makes it."""

from __future__ import annotations

from dataclasses import replace

from container_magic.deferred import dataclass
from container_magic.events import Downgrade, Limit
from container_magic.linux.userns import IdMapping
from container_magic.rootfs.host import Lower
from container_magic.rootfs.operations import operations_ahead, operations_of
from container_magic.spec import ContainerSpec, Resources, Watch


@dataclass(frozen=True, kw_only=True)
class Substitutes:
    """What stands in for a limit that no cgroup can hold here; each is a downgrade too."""

    watched_memory_bytes: int | None = None
    """The supervisor adds up the processes' memory and ends the container above this."""
    watched_memory_high_bytes: int | None = None
    """The same, and it interrupts the code."""
    affinity: tuple[int, ...] = ()
    """``sched_setaffinity`` of the container's first process, inherited by the others."""
    pids: int | None = None
    """``RLIMIT_NPROC``, counted per user namespace since Linux 5.14."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that the supervisor needs to make one container."""

    container_id: str
    spec: ContainerSpec
    """The spec with every default filled in; what is refused is not in its resources."""
    id_mappings: tuple[IdMapping, ...]
    deny_setgroups: bool
    lowers: tuple[Lower, ...]
    files: tuple[tuple[str, str], ...]
    cgroup_setup: str
    cgroup_controllers: tuple[str, ...]
    cgroup_paths: tuple[str, ...]
    """Absolute paths of the container's groups, for whoever has to sweep them from another place in the hierarchy."""
    limits: tuple[Limit, ...]
    downgrades: tuple[Downgrade, ...]
    substitutes: Substitutes

    @property
    def cgroup_name(self) -> str:
        """Name of the container's cgroup in every hierarchy."""
        return f"container_magic-{self.container_id}"

    def renewed(self, container_id: str) -> Plan:
        """Return the plan of the next container like this one: another id, and with it another name of the host."""
        hostname, files = self.names_of(container_id)
        spec = self.spec if hostname == self.spec.hostname else replace(self.spec, hostname=hostname)
        return replace(self, container_id=container_id, cgroup_paths=self._paths(container_id), spec=spec, files=files)

    def names_of(self, container_id: str) -> tuple[str, tuple[tuple[str, str], ...]]:
        """Return hostname and own files of a container like this one that has another id."""
        name, new = self.spec.hostname, container_id[:12]
        if container_id == self.container_id or name != self.container_id[:12]:
            return name, self.files
        return new, tuple([(path, text.replace(name, new)) for path, text in self.files])

    def is_alike_inside(self, other: Plan) -> bool:
        """Whether two containers of one name are set up alike, but for what limits them from outside and their size."""
        return self._inside() == other._inside()

    def _inside(self) -> tuple[object, ...]:
        spec = replace(
            self.spec,
            root=replace(self.spec.root, disk_bytes=None),
            resources=Resources(),
            watch=Watch(),
            explicit=(),
            best_effort=False,
        )
        return spec, self.files, self.substitutes

    def _paths(self, container_id: str) -> tuple[str, ...]:
        return tuple(path.replace(self.container_id, container_id) for path in self.cgroup_paths)

    def describe(self) -> list[str]:
        """Return what will be done, a line each."""
        process = self.spec.process
        namespaces = ["user", "mount", "pid", "ipc", "uts", "cgroup"]
        if self.spec.network == "none":
            namespaces.append("network (lo only)")
        lines = [f"namespaces: {', '.join(namespaces)}"]
        lines += [f"id map: {mapping.line().strip()}" for mapping in self.id_mappings]
        operations = [
            *operations_ahead(self.lowers, self.spec.network),
            *operations_of(self.spec, self.lowers, self.files),
        ]
        lines += [operation.describe() for operation in operations]
        lines += [f"limit {limit.name} = {limit.value} by {limit.by}" for limit in self.limits]
        lines += ["capabilities: none; no_new_privs; seccomp: own program"]
        lines += [f"process: {process.kind} {' '.join(process.args)}".rstrip() + f", cwd {process.cwd}"]
        lines += [f"downgrade: {item.name} {item.asked} -> {item.got}: {item.reason}" for item in self.downgrades]
        return lines
