"""What is made ready for a run of which nothing is said but limits: one like it finds it, another nothing of it."""

from __future__ import annotations

import ast
import os
import signal
import time

import pytest
from leftovers import children

import container_magic as cm
from container_magic.host import probe
from container_magic.planner import make_plan
from container_magic.runtime import client
from container_magic.spec import ContainerSpec, Process, Resources, Root, Watch

PROBE = """
import os, resource, socket
def writable(path):
    try:
        with open(path, 'w'): return True
    except OSError:
        return False
mounts = sorted(line.split()[4] for line in open('/proc/self/mountinfo'))
print({
    'env': {name: os.environ.get(name) for name in ('HOME', 'MARK', 'OMP_NUM_THREADS')},
    'ids': (os.getuid(), os.getgid()),
    'cwd': os.getcwd(),
    'named': socket.gethostname() in (WANTED, open('/etc/hostname').read().strip())
        and open('/etc/hostname').read().strip() in open('/etc/hosts').read(),
    'host': socket.gethostname() if WANTED else len(socket.gethostname()),
    'disk': os.statvfs('/').f_blocks * os.statvfs('/').f_frsize,
    'shm': os.statvfs('/dev/shm').f_blocks * os.statvfs('/dev/shm').f_frsize,
    'nofile': resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    'core': resource.getrlimit(resource.RLIMIT_CORE),
    'writable': writable('/etc/mark'),
    'mounts': mounts,
})
"""
KINDS = {
    "plain": {},
    "environment": {"env": {"MARK": "1"}},
    "user": {"user": "1000"},
    "read-only": {"read_only": True},
    "limit": {"ulimit": "nofile=99"},
    "directory": {"workdir": "/tmp/elsewhere"},
    "name": {"hostname": "named"},
    "disk": {"disk": "7M"},
    "cpus": {"cpus": 0.5},
    "tmpfs": {"tmpfs": "/mnt/extra"},
}


def cold(options):
    """Run the probe in a container that nothing waits for, and give whoever is to wait next the time to get ready."""
    options = {"net": "none", "mem": "100M", **options}
    report = cm.run(f"WANTED = {options.get('hostname', '')!r}\n{PROBE}", warm=0, **options)
    assert (report.verdict, report.start) == ("OK", "cold"), report.stderr
    time.sleep(0.3)
    return ast.literal_eval(report.stdout)


@pytest.fixture(scope="module")
def first():
    """Return what each kind sees in a container of a zygote's first supervisor."""
    found = {}
    for name, options in KINDS.items():
        client.shutdown()
        found[name] = cold(options)
    return found


@pytest.mark.parametrize("name", [name for name in KINDS if name != "plain"])
def test_a_start_like_the_last_and_one_unlike_it_see_what_they_should(first, name):
    """Twice the same, then plain ones: each sees what it would see if it were the first."""
    client.shutdown()
    seen = [cold(KINDS[kind]) for kind in (name, name, name, "plain", "plain", name)]
    assert seen == [first[kind] for kind in (name, name, name, "plain", "plain", name)]


@pytest.mark.skipif(probe().cgroups.setup == "unified", reason="on cgroup v2 nothing is made ahead")
@pytest.mark.parametrize(("options", "is_likely"), [({}, True), ({"env": {"A": "1"}}, False)])
def test_files_of_a_likely_container_are_older_than_the_request_for_it(options, is_likely):
    """They were written when nobody had asked; those of another are written again."""
    client.shutdown()
    code = "import os, time; print(time.time() - os.stat('/etc/hostname').st_mtime)"
    cm.run(code, warm=0, mem="100M", net="none", **options)
    time.sleep(1.5)
    age_seconds = float(cm.run(code, warm=0, mem="100M", net="none", **options).stdout)
    assert (age_seconds > 0.5) is is_likely


def plan(**changes):
    """Return a plan of this host."""
    return make_plan(ContainerSpec(**changes), probe(), (), "0" * 64)


@pytest.mark.parametrize(
    "changes",
    [
        {"resources": Resources(memory_bytes=1 << 26)},
        {"watch": Watch(wall_seconds=3)},
        {"root": Root(disk_bytes=1 << 24)},
        {"explicit": ("mem",)},
    ],
)
def test_limits_from_outside_make_no_difference_inside(changes):
    """They are the supervisor's."""
    assert plan(**changes).is_alike_inside(plan())


@pytest.mark.parametrize(
    "changes",
    [
        {"process": Process(env=(("A", "1"),))},
        {"process": Process(user="1000")},
        {"process": Process(session=True)},
        {"root": Root(readonly=True)},
        {"hostname": "other"},
        {"network": "host"},
        {"resources": Resources(cpus=1.5)},
    ],
)
def test_what_is_set_up_inside_makes_a_difference(changes):
    """Some limits, too: numerical libraries are told how many CPUs there are."""
    assert not plan(**changes).is_alike_inside(plan())


def ahead(host):
    """Return init and payload of the child that the only supervisor of ``host`` has made ahead."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        supervisors = list(children(host.process.pid))
        inits = list(children(supervisors[0])) if len(supervisors) == 1 else []
        payloads = list(children(inits[0])) if inits else []
        if payloads:
            return {"init": inits[0], "payload": payloads[0]}
        time.sleep(0.05)
    pytest.skip("nothing is made ahead on this host")


@pytest.mark.parametrize("victim", ["init", "payload"])
def test_child_that_has_died_before_there_was_a_request_is_not_used(victim):
    """Whoever has killed it, a run that comes later has another."""
    cm.run("pass", warm=0)
    host = client.zygote()
    host.pool.empty()
    os.kill(ahead(host)[victim], signal.SIGKILL)
    time.sleep(0.2)
    report = cm.run("print('here')", warm=0)
    assert (report.verdict, report.stdout, report.start) == ("OK", "here\n", "cold")
