"""The doctor on hosts that are none: inside of other containers, with the remedy that fits each."""

import json
import shutil
import subprocess
import sys

import pytest

import container_magic
from container_magic.rootfs.marker import MARKER

DOCTOR = (sys.executable, "-m", "container_magic", "doctor", "--format", "json")
PACKAGES = container_magic.__path__[0].removesuffix("/container_magic")


def checks(*command):
    """Return the doctor's lines by name, as ``command`` ... ``doctor`` prints them."""
    done = subprocess.run([*command, *DOCTOR], capture_output=True, text=True, check=False, cwd=PACKAGES)
    return {check["name"]: check for check in json.loads(done.stdout)}


def around(script):
    """Return a command that runs its arguments in fresh namespaces after ``script``."""
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare of util-linux")
    return ["unshare", "-Urmpf", "--mount-proc", "sh", "-c", f'{script} && exec "$0" "$@"']


def test_container_with_a_filter_is_a_seccomp_filters_refusal(run):
    """A second container in a container that is not known for one of ours: the first one's filter is named."""
    unmarked = ["sh", "-c", f'rm {MARKER} && exec "$0" "$@"', *DOCTOR]
    report = run(unmarked, volume=f"{PACKAGES}:/srv:ro", workdir="/srv")
    found = {check["name"]: check for check in json.loads(report.stdout)}

    assert found["user namespaces"]["ok"] is False
    assert "seccomp filter refuses" in found["user namespaces"]["remedy"]


def test_exhausted_user_namespaces_name_the_sysctl():
    """ENOSPC is a number that is too small, here or further out."""
    found = checks(*around("echo 0 >/proc/sys/user/max_user_namespaces"))

    assert found["user namespaces"]["ok"] is False
    assert "user.max_user_namespaces" in found["user namespaces"]["remedy"]


def test_masked_proc_is_explained():
    """What an unprivileged Docker container meets after its filter was switched off."""
    found = checks(*around("mount -t tmpfs none /proc/bus"))

    assert found["user namespaces"]["ok"] is True
    assert found["a container"]["ok"] is False
    assert "systempaths=unconfined" in found["a container"]["remedy"]


def test_kernel_without_overlay_names_the_module(tmp_path):
    """No ``overlay`` in /proc/filesystems."""
    known = tmp_path / "filesystems"
    known.write_text("nodev\tproc\nnodev\ttmpfs\n")
    found = checks(*around(f"mount --bind {known} /proc/filesystems"))

    assert found["overlayfs"]["ok"] is False
    assert "modprobe overlay" in found["overlayfs"]["remedy"]
