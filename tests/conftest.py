"""Marks of the whole suite: a test that this host or user cannot run is skipped with the reason."""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Callable, Iterator

import pytest
from jupyter_client.connect import LocalPortCache

from container_magic.cgroups.facts import probe


@pytest.fixture(scope="session", autouse=True)
def _state_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep logs of runs out of the home directory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


_FIRST_PORT, _LAST_PORT, _PORTS_EACH = 11_000, 31_000, 4000
"""Below what Linux gives to who asks for any port (net.ipv4.ip_local_port_range)."""


@pytest.fixture(scope="session", autouse=True)
def _ports_of_kernels() -> Iterator[None]:
    """Give kernels ports that nobody else takes between the manager's choice and the kernel's ``bind``.

    A manager takes any free port and lets it go again for its kernel (jupyter_client issue 487). Of thousands of
    kernels that processes side by side start, some got a port of another one, and died.
    """
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = _FIRST_PORT + number * _PORTS_EACH % (_LAST_PORT - _FIRST_PORT)
    ports = itertools.cycle(range(first, first + _PORTS_EACH))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            LocalPortCache, "find_available_port", lambda cache, ip: next(port for port in ports if _is_free(ip, port))
        )
        yield


def _is_free(ip: str, port: int) -> bool:
    with socket.socket() as asking:
        try:
            asking.bind((ip, port))
        except OSError:
            return False
    return True


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
