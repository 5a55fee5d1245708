"""Limits of an ordinary user whose group cannot be divided: a scope that systemd's user manager gives (systemd-run)."""

import os
import re
import subprocess

import pytest

from container_magic.cgroups.facts import CgroupFacts
from container_magic.cgroups.scope import scope_launcher
from container_magic.runtime import client

_MANAGER = f"{os.environ.get('XDG_RUNTIME_DIR', '')}/systemd/private"
needs_manager = pytest.mark.skipif(
    os.geteuid() == 0 or not os.path.exists(_MANAGER), reason="needs an ordinary user with a systemd user manager"
)


@needs_manager
class TestScope:
    """With a manager at hand (tests/vm runs one)."""

    def test_limits_hold_in_a_scope_of_the_zygotes_own(self, run):
        """Memory and tasks are limited by the kernel, in a group that is a scope of the manager's."""
        report = run("x = bytearray(200 << 20)", mem="50M", pids=32)

        assert report.verdict == "MEMORY_LIMIT" and report.oom_killed
        base = client.zygote().features.cgroups.bases["unified"]
        assert re.search(r"/run-[^/]+\.scope/container_magic$", base), base

    def test_every_process_of_the_runtime_is_in_the_scope(self, run):
        """The zygote, too: a move from outside of it would need the right to write the common ancestor."""
        run("pass")
        zygote = client.zygote()
        scope = os.path.dirname(zygote.features.cgroups.bases["unified"])

        with open(f"/proc/{zygote.process.pid}/cgroup", encoding="ascii") as file:
            assert os.path.basename(scope) in file.read()

    def test_scope_is_gone_with_the_zygote(self, run):
        """The manager removes the empty scope."""
        run("pass")
        scope = os.path.dirname(client.zygote().features.cgroups.bases["unified"])
        assert os.path.isdir(scope)
        client.shutdown()

        unit = os.path.basename(scope)
        while os.path.isdir(scope):
            os.sched_yield()
        listed = subprocess.run(
            ["systemctl", "--user", "list-units", "--all", unit], capture_output=True, text=True, check=True
        )
        assert unit not in listed.stdout


@needs_manager
@pytest.mark.parametrize(
    ("facts", "wanted"),
    [
        (CgroupFacts(setup="unified"), True),
        (CgroupFacts(setup="unified", bases={"unified": "/c/app.slice/container_magic"}), True),
        (CgroupFacts(setup="unified", bases={"unified": "/c/user@1000.service/container_magic"}), True),
        (CgroupFacts(setup="unified", bases={"unified": "/c/run-1.scope/container_magic"}), False),
        (CgroupFacts(setup="hybrid"), False),
    ],
)
def test_scope_is_asked_for_where_the_user_has_no_group_to_divide(facts, wanted):
    """Slices and the manager's own group are the manager's to divide."""
    assert bool(scope_launcher(facts)) is wanted


def test_without_a_manager_there_is_no_scope(tmp_path):
    """No socket of a manager, no launcher."""
    assert scope_launcher(CgroupFacts(setup="unified"), {"XDG_RUNTIME_DIR": str(tmp_path)}) == ()
