"""`contain kernel install` as a process: its files, what Jupyter then says of them, and the host's own word."""

import json
import os
import subprocess
import sys

import pytest

from container_magic.cgroups.facts import probe


@pytest.fixture
def jupyter(tmp_path, monkeypatch):
    """Give Jupyter and contain a home of their own."""
    for name in ("JUPYTER_PATH", "JUPYTER_CONFIG_DIR", "XDG_DATA_HOME", "IPYTHONDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    return tmp_path


def limits():
    """Return options that this host can enforce."""
    return ["--mem", "512M"] if "memory" in probe().controllers else ["--best-effort"]


def test_kernel_is_listed_by_jupyter(contain, jupyter):
    """Jupyter's own command, another process, finds it; nothing is warned of where the host can do it."""
    done = contain("kernel", "install", "--name", "boxed", *limits())
    place = f"{jupyter}/data/kernels/boxed"
    assert (done.returncode, done.stdout.decode()) == (0, f"installed the kernel boxed (boxed) in {place}\n")
    listed = subprocess.run(
        [sys.executable, "-m", "jupyter_client.kernelspecapp", "list", "--json"], capture_output=True, check=True
    )
    found = json.loads(listed.stdout)["kernelspecs"]["boxed"]
    assert found["resource_dir"] == place
    assert found["spec"]["argv"][0] == os.path.join(os.path.dirname(sys.executable), "contain")
    assert b"boxed" in contain("kernel", "list").stdout
    assert contain("kernel", "remove", "boxed").returncode == 0
    assert not os.path.exists(place)


def test_option_that_the_host_cannot_enforce_is_warned_of(contain, jupyter):
    """The kernel is installed, for it may start on another host or later; the reason is the one of a start."""
    done = contain("kernel", "install", *limits(), "-v", f"{jupyter}/not-there:/data")
    assert done.returncode == 0, done.stderr
    assert b"warning: on this host it would not start: cannot mount " in done.stdout
    assert (jupyter / "data/kernels/container/kernel.json").is_file()


def test_malformed_option_installs_nothing(contain, jupyter):
    """The exit code is that of every refusal, and no file is there."""
    done = contain("kernel", "install", "--mem", "lots")
    assert done.returncode == 125
    assert done.stderr.startswith(b"contain: --mem 'lots'")
    assert not (jupyter / "data").exists()
