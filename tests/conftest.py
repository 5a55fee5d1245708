"""Marks of the whole suite: a test that this host or user cannot run is skipped with the reason."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from container_magic.cgroups.facts import probe


@pytest.fixture(scope="session", autouse=True)
def _state_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep logs of runs out of the home directory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


def _has_v1() -> bool:
    return probe().setup in ("legacy", "hybrid")


def _has_v2() -> bool:
    return probe().setup == "unified"


_CONDITIONS: dict[str, tuple[Callable[[], bool], str]] = {
    "root": (lambda: os.geteuid() == 0, "needs root"),
    "rootless": (lambda: os.geteuid() != 0, "needs an ordinary user"),
    "cgroup_v1": (_has_v1, "needs cgroup v1 controllers"),
    "cgroup_v2": (_has_v2, "needs a unified cgroup v2 tree"),
}


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what the marks of ``item`` rule out here."""
    for name, (holds, reason) in _CONDITIONS.items():
        if item.get_closest_marker(name) and not holds():
            pytest.skip(f"{reason} (uid {os.geteuid()}, cgroups {probe().setup})")
