"""Facts about cgroups are found in fake trees: hybrid, pure v2, nested, delegated, none."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest

from container_magic.cgroups.facts import CgroupFacts, probe
from container_magic.cgroups.prepare import open_bases
from container_magic.cgroups.unified import prepare_base
from container_magic.errors import HostError
from container_magic.spec import build

PID = 4242
V1 = ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids")
MEMINFO = "MemTotal:        1000 kB\nMemFree:          500 kB\nSwapTotal:         200 kB\n"
STATUS = "Name:\tpython\nCpus_allowed_list:\t0-3\nMems_allowed:\t1\nMems_allowed_list:\t0\n"


class Host:
    """A fake host below a temporary directory: proc, sys and cgroup mounts."""

    def __init__(self, top: Path) -> None:
        self.proc, self.sys, self.cgroup = top / "proc", top / "sys", top / "cgroup"
        self.own_lines: list[str] = []
        self.mount_lines = ["22 27 0:21 / /proc rw - proc proc rw"]
        self.forbidden: set[str] = set()
        self.put(self.proc / "meminfo", MEMINFO)
        self.put(self.proc / "self/status", STATUS)
        self.put(self.sys / "block/vda/dev", "254:0\n")
        self.put(self.sys / "block/vda/queue/scheduler", "none [mq-deadline] bfq\n")

    def put(self, path: Path, text: str) -> None:
        """Write a file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def mount(self, name: str, fstype: str, options: str, *, root: str = "/", flags: str = "rw") -> Path:
        """Add a cgroup mount."""
        point = self.cgroup / name if name else self.cgroup
        point.mkdir(parents=True, exist_ok=True)
        escaped = str(point).replace(" ", "\\040")
        self.mount_lines.append(f"32 31 0:29 {root} {escaped} {flags},relatime shared:9 - {fstype} {fstype} {options}")
        return point

    def group(self, path: Path, **files: str) -> Path:
        """Make a group with files; ``__`` in a name is a dot."""
        path.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            self.put(path / name.replace("__", "."), text)
        return path

    def v2_group(self, path: Path, controllers: str, procs: str = "", kind: str | None = "domain") -> Path:
        """Make a v2 group."""
        self.group(path, cgroup__controllers=controllers, cgroup__procs=procs, cgroup__subtree_control="")
        if kind is not None:
            self.put(path / "cgroup.type", f"{kind}\n")
        return path

    def access(self, path: str, mode: int) -> bool:
        """Stand in for os.access."""
        return path not in self.forbidden and os.access(path, mode)

    def forbid(self, *groups: Path) -> None:
        """Make groups unwritable."""
        for group in groups:
            self.forbidden |= {str(group), *(str(path) for path in group.iterdir())}

    def probe(self, uid: int = 0) -> CgroupFacts:
        """Return what is found out."""
        self.put(self.proc / "self/cgroup", "\n".join(self.own_lines) + "\n")
        self.put(self.proc / "self/mountinfo", "\n".join(self.mount_lines) + "\n")
        return probe(self.proc, self.sys, access=self.access, pid=PID, uid=uid)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """Give an empty fake host."""
    return Host(tmp_path)


def hybrid(host: Host, own_memory: str = "/jobs/a") -> None:
    """Build the development machine's layout: one hierarchy per v1 controller and an empty v2 tree."""
    for controller in V1:
        point = host.mount(controller, "cgroup", f"rw,{controller}")
        own = own_memory if controller == "memory" else "/"
        host.own_lines.append(f"1:{controller}:{own}")
        host.group(point / own.strip("/"), tasks="")
    host.mount("systemd", "cgroup", "rw,name=systemd")
    host.mount("unified", "cgroup2", "rw")
    host.own_lines += ["9:name=systemd:/", "0::/"]
    memory = host.cgroup / "memory"
    host.group(memory, memory__limit_in_bytes="9223372036854771712\n")
    host.group(memory / "jobs", memory__limit_in_bytes="700000\n")
    host.group(memory / "jobs/a", memory__limit_in_bytes="800000\n", memory__memsw__limit_in_bytes="9\n")
    host.group(host.cgroup / "cpuset", cpuset__effective_cpus="0-1\n", cpuset__effective_mems="0\n")


def test_hybrid_bases_are_the_own_groups(host: Host) -> None:
    """Each v1 controller has its base in the caller's own group, under the caller's own limits."""
    hybrid(host)
    facts = host.probe()
    assert facts.setup == "hybrid"
    assert facts.bases["memory"] == str(host.cgroup / "memory/jobs/a")
    assert facts.bases["pids"] == str(host.cgroup / "pids")
    assert set(facts.bases) == set(V1)
    assert facts.refusals == {}


def test_hybrid_figures_of_the_host(host: Host) -> None:
    """Memory limit is the smallest on the way up; CPUs, nodes, swap and disks are read."""
    hybrid(host)
    facts = host.probe()
    assert facts.memory_limit_bytes == 700000
    assert (facts.memory_total_bytes, facts.swap_total_bytes) == (1024000, 204800)
    assert facts.swap_accounting
    assert (facts.cpus, facts.mems) == ("0-1", "0")
    assert facts.disks == {"254:0": "mq-deadline"}


def test_limit_above_the_mount_counts(host: Host) -> None:
    """A limit that only hierarchical_memory_limit tells (the ancestors are not mounted) is the limit."""
    hybrid(host)
    host.put(host.cgroup / "memory/jobs/a/memory.stat", "cache 1\nhierarchical_memory_limit 4096\n")
    assert host.probe().memory_limit_bytes == 4096


@pytest.mark.parametrize("order", ["cpu,cpuacct", "cpuacct,cpu"])
def test_comma_order_of_joint_controllers_does_not_matter(host: Host, order: str) -> None:
    """Controllers that share a hierarchy are found whatever order cgroup and mountinfo give."""
    point = host.mount("joint dir", "cgroup", "rw,cpuacct,cpu")
    host.group(point / "x", tasks="")
    host.own_lines.append(f"2:{order}:/x")
    facts = host.probe()
    assert facts.setup == "legacy"
    assert facts.bases == {"cpu": str(point / "x"), "cpuacct": str(point / "x")}
    assert "not mounted" in facts.refusals["memory"]


def test_nested_container_sees_its_group_at_the_mount_point(host: Host) -> None:
    """Docker on v1 without a cgroup namespace: own path equals the mount's root."""
    point = host.mount("memory", "cgroup", "rw,memory", root="/docker/abc")
    host.group(point, tasks="")
    host.own_lines.append("4:memory:/docker/abc")
    assert host.probe().bases["memory"] == str(point)


@pytest.mark.parametrize(("own", "root"), [("/../other", "/"), ("/docker/x", "/docker/abc"), ("/../../a", "/..")])
def test_own_group_outside_of_the_mount_is_refused(host: Host, own: str, root: str) -> None:
    """A group that no mount shows is a refusal, never a path that leads elsewhere."""
    point = host.mount("memory", "cgroup", "rw,memory", root=root)
    host.group(point, tasks="")
    host.group(host.cgroup / "other", tasks="")
    host.own_lines.append(f"4:memory:{own}")
    facts = host.probe()
    assert "memory" not in facts.bases
    assert own in facts.refusals["memory"]


def test_namespace_root_above_is_followed_by_its_common_prefix(host: Host) -> None:
    """In a cgroup namespace a mount of the parent and an own path beside the root share ``/..``."""
    point = host.mount("memory", "cgroup", "rw,memory", root="/..")
    host.group(point / "sibling", tasks="")
    host.own_lines.append("4:memory:/../sibling")
    assert host.probe().bases["memory"] == str(point / "sibling")


def test_writable_mount_is_preferred_to_a_read_only_one(host: Host) -> None:
    """Where a hierarchy is mounted twice, the mount that can be written is taken."""
    read_only = host.mount("memory", "cgroup", "rw,memory", flags="ro")
    writable = host.mount("memory2", "cgroup", "rw,memory")
    for point in (read_only, writable):
        host.group(point, tasks="")
    host.own_lines.append("4:memory:/")
    assert host.probe().bases["memory"] == str(writable)


def test_read_only_cgroups_of_a_docker_container_are_refused(host: Host) -> None:
    """Mounts are read-only in an ordinary Docker container; the reason says so."""
    host.group(host.mount("memory", "cgroup", "rw,memory", flags="ro"), tasks="")
    host.own_lines.append("4:memory:/")
    facts = host.probe()
    assert facts.bases == {}
    assert "read-only" in facts.refusals["memory"]


def test_v1_gives_an_ordinary_user_nothing(host: Host) -> None:
    """Rootless on v1 there is no delegation: every controller is refused with the remedy."""
    hybrid(host)
    for controller in V1:
        host.forbid(host.cgroup / controller)
    host.forbid(host.cgroup / "memory/jobs/a")
    facts = host.probe(uid=1000)
    assert facts.bases == {}
    assert set(facts.refusals) == set(V1)
    assert "user 1000" in facts.refusals["memory"]
    assert "unified_cgroup_hierarchy" in facts.remedies["memory"]


ALL = "cpuset cpu io memory hugetlb pids rdma misc"


def unified(host: Host, own: str) -> Path:
    """Build a v2 host whose root group has every controller."""
    top = host.mount("", "cgroup2", "rw,nsdelegate")
    host.v2_group(top, ALL, procs="1\n2\n", kind=None)
    host.own_lines.append(f"0::{own}")
    return top


def test_root_in_the_root_group_makes_a_parent_below_it(host: Host) -> None:
    """The root group may hold processes and children with controllers at once."""
    top = unified(host, "/")
    facts = host.probe()
    assert facts.setup == "unified"
    assert facts.bases == {"unified": str(top / "container_magic")}
    assert facts.controllers == ("memory", "cpu", "cpuset", "pids", "io")
    assert facts.client_leaf == ""


def test_group_with_foreign_processes_is_passed_over(host: Host) -> None:
    """Own session scope holds a shell too: the empty slice above it becomes the base's parent."""
    top = unified(host, "/user.slice/session.scope")
    slice_ = host.v2_group(top / "user.slice", ALL)
    host.v2_group(slice_ / "session.scope", ALL, procs=f"77\n{PID}\n")
    facts = host.probe()
    assert facts.bases == {"unified": str(slice_ / "container_magic")}
    assert facts.client_leaf == ""


def test_most_controllers_win_over_nearness(host: Host) -> None:
    """A slice that was given two controllers loses against the root that has all."""
    top = unified(host, "/user.slice/session.scope")
    slice_ = host.v2_group(top / "user.slice", "memory pids")
    host.v2_group(slice_ / "session.scope", "memory pids", procs="77\n")
    assert host.probe().bases == {"unified": str(top / "container_magic")}


def user_session(host: Host, procs: str, controllers: str = "cpu memory pids") -> Path:
    """Build a systemd user session with delegation and return the own group."""
    top = unified(host, "/user.slice/user-1000.slice/user@1000.service/app.slice/nb.scope")
    user = host.v2_group(top / "user.slice", ALL)
    uid = host.v2_group(user / "user-1000.slice", ALL)
    service = host.v2_group(uid / "user@1000.service", controllers)
    app = host.v2_group(service / "app.slice", controllers)
    scope = host.v2_group(app / "nb.scope", controllers, procs=procs)
    host.forbid(top, user, uid)
    host.put(scope / "memory.max", "600000\n")
    return scope


def test_user_session_with_delegation(host: Host) -> None:
    """An ordinary user gets the delegated controllers below the nearest empty group of its own."""
    scope = user_session(host, f"{PID}\n99\n")
    facts = host.probe(uid=1000)
    assert facts.bases == {"unified": str(scope.parent / "container_magic")}
    assert facts.controllers == ("memory", "cpu", "pids")
    assert set(facts.refusals) == {"cpuset", "io"}
    assert "Delegate=cpu cpuset" in facts.remedies["cpuset"]
    assert facts.memory_limit_bytes == 600000


def test_lone_client_moves_into_a_leaf_of_its_own(host: Host) -> None:
    """A delegated group that holds the caller only stays the base; probing itself moves nothing."""
    scope = user_session(host, f"{PID}\n")
    facts = host.probe(uid=1000)
    assert facts.bases == {"unified": str(scope / "container_magic")}
    assert facts.client_leaf == str(scope / "container_magic.client")
    assert not (scope / "container_magic.client").exists()


def test_client_that_moved_finds_the_same_base(host: Host) -> None:
    """After the move the base is found again, and no leaf below the leaf is asked for."""
    scope = user_session(host, "")
    host.v2_group(scope / "container_magic.client", "cpu memory pids", procs=f"{PID}\n")
    host.own_lines[-1] += "/container_magic.client"
    facts = host.probe(uid=1000)
    assert facts.bases == {"unified": str(scope / "container_magic")}
    assert facts.client_leaf == ""


def test_user_session_without_delegation_is_refused_with_the_command(host: Host) -> None:
    """An ssh session's scope belongs to root: the remedy starts a delegated scope."""
    top = unified(host, "/user.slice/session-3.scope")
    slice_ = host.v2_group(top / "user.slice", ALL)
    scope = host.v2_group(slice_ / "session-3.scope", ALL, procs=f"{PID}\n")
    host.forbid(top, slice_, scope)
    facts = host.probe(uid=1000)
    assert facts.bases == {}
    assert facts.controllers == ()
    assert "may not be written by user 1000" in facts.refusals["memory"]
    assert "systemd-run --user --scope -p Delegate=yes" in facts.remedies["memory"]


def test_container_whose_group_is_full_of_others_is_refused(host: Host) -> None:
    """A privileged container's namespace root is no real root: foreign processes in it are never moved."""
    top = host.mount("", "cgroup2", "rw")
    host.v2_group(top, ALL, procs=f"1\n{PID}\n")
    host.own_lines.append("0::/")
    facts = host.probe()
    assert facts.bases == {}
    assert "processes of others" in facts.refusals["memory"]


def test_threaded_group_is_no_base(host: Host) -> None:
    """A threaded group cannot have domain controllers for its children."""
    top = host.mount("", "cgroup2", "rw")
    host.v2_group(top, "cpu", kind="threaded")
    host.own_lines.append("0::/")
    assert "threaded" in host.probe().refusals["cpu"]


def test_no_cgroups_at_all(host: Host) -> None:
    """Without a mount every controller is refused and the CPUs come from the process's affinity."""
    host.own_lines.append("0::/")
    facts = host.probe()
    assert facts.setup == "none"
    assert facts.bases == {}
    assert set(facts.refusals) == {"memory", "cpu", "cpuset", "pids", "io"}
    assert facts.cpus == "0-3"


def test_iocost_disk_is_named_by_its_controller(host: Host) -> None:
    """A disk under io.cost shares its time by weight whatever scheduler it has."""
    top = unified(host, "/")
    host.put(top / "io.cost.qos", "254:0 enable=1 ctrl=auto\n")
    assert host.probe().disks == {"254:0": "iocost"}


def test_facts_survive_json(host: Host) -> None:
    """Facts can be kept as JSON and rebuilt."""
    hybrid(host)
    facts = host.probe()
    assert build(CgroupFacts, json.loads(json.dumps(asdict(facts)))) == facts


def test_prepare_base_enables_missing_controllers_only(host: Host) -> None:
    """The move of the client comes before the controllers; what is enabled already is left alone."""
    top = host.v2_group(host.cgroup, "cpu memory")
    base = host.v2_group(top / "container_magic", "cpu memory")
    leaf = host.v2_group(top / "leaf", "")
    host.put(top / "cgroup.subtree_control", "cpu memory\n")
    prepare_base(str(base), ("memory",), str(leaf), 0)
    assert (top / "cgroup.subtree_control").read_text() == "cpu memory\n"
    assert (base / "cgroup.subtree_control").read_text() == "+memory"
    assert (leaf / "cgroup.procs").read_text() == "0"


def test_open_bases_shares_descriptors_of_joint_hierarchies(tmp_path: Path) -> None:
    """Controllers of one hierarchy get one descriptor."""
    fds = open_bases({"cpu": str(tmp_path), "cpuacct": str(tmp_path)})
    assert fds["cpu"] == fds["cpuacct"]
    os.close(fds["cpu"])


def test_open_bases_closes_what_it_opened_when_one_fails(tmp_path: Path) -> None:
    """A base that is missing is an error that leaves no descriptor open."""
    before = os.listdir("/proc/self/fd")
    with pytest.raises(HostError, match="gone"):
        open_bases({"cpu": str(tmp_path), "memory": str(tmp_path / "gone")})
    assert os.listdir("/proc/self/fd") == before
