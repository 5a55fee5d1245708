"""Boot a stock Debian kernel with cgroup v2 under emulation and run the selected integration tests in it.

Four times: as root, as an ordinary user, as one with a delegated cgroup, and as one with a systemd manager. The
machine's root is this host's, read-only over 9p (virtme-ng); its /home is an ext4 image with the package in a virtual
environment. KVM is not used: it is missing or of no use in most places that run this. Everything made lies below
build/vm.

    tests/vm/run                                        all of it; `make test-vm`
    tests/vm/run --as user                              one of the four
    tests/vm/run --as user --shell-command 'contain doctor'
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

CHECKOUT = Path(__file__).resolve().parents[2]
BUILD = CHECKOUT / "build/vm"
RESULTS = BUILD / "results"
SYSTEM_PYTHON = "/usr/bin/python3"
PHASES = ("root", "user", "user-delegated", "user-systemd")
# against a hang; on two idle cores it takes less than half of that
LIMIT_SECONDS = 1200.0

# program -> Debian package
PROGRAMS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "busybox": "busybox-static",
    "depmod": "kmod",
    "udevadm": "udev",
    "mke2fs": "e2fsprogs",
    "setpriv": "util-linux",
    "systemd-run": "systemd",
    "dbus-daemon": "dbus-daemon",
}
# what the guest's programs and the container's template look up; the host's whole /etc over 9p takes ten seconds
ETC = (
    "alternatives", "bash.bashrc", "debian_version", "group", "hosts", "ld.so.cache", "ld.so.conf", "ld.so.conf.d",
    "localtime", "nsswitch.conf", "os-release", "profile", "protocols", "python3", "services", "shells",
)  # fmt: skip
# uid and gid differ on purpose: each has a map of its own
USER, GROUP = 1000, 100
# no five-level page tables to walk, no nested virtualization to start, a large cache of translated code
QEMU_OPTIONS = "-accel tcg,thread=multi,tb-size=1024 -cpu max,la57=off,svm=off"
# page tables and caches are the host's affair here; the mitigations cost a third of the time
KERNEL_OPTIONS = ("mitigations=off", "no_timer_check", "module_blacklist=kvm,kvm_amd,powernow_k8,iTCO_wdt")


class HostCannotError(Exception):
    """This host cannot run the machine: a reason to skip, not a failure of the package."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What is needed to boot."""

    vng: Path
    kernel: Path
    image: Path


def main(arguments: Sequence[str]) -> int:
    """Do what ``arguments`` say; return the exit code: 0 passed or skipped, 1 failed, a command's own."""
    options = _parser().parse_args(arguments)
    try:
        machine = prepare()
    except HostCannotError as reason:
        print(f"skipped: {reason}")
        return 0
    phases = (options.phase,) if options.phase else PHASES
    if options.shell_command is None:
        return run_tests(machine, phases, options.limit)
    return run_command(machine, options.phase or "root", options.shell_command, options.limit)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tests/vm/run", description=__doc__.splitlines()[0])
    parser.add_argument("--as", dest="phase", choices=PHASES, help="who (default: each in turn, root for a command)")
    parser.add_argument("--shell-command", metavar="CMD", help="run CMD instead of the tests; exit as it does")
    parser.add_argument("--limit", type=float, default=LIMIT_SECONDS, metavar="SECONDS", help="end the machine then")
    return parser


def prepare() -> Machine:
    """Install, download and build what the machine needs; most of it is kept for the next time.

    Raises:
        HostCannotError: This host cannot have it.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise HostCannotError(f"needs Linux on x86-64, this is {sys.platform} on {platform.machine()}")
    if os.geteuid() != 0:
        raise HostCannotError("needs root: it installs Debian packages and reads the whole file tree")
    if not all(shutil.which(name) for name in ("apt-get", "apt-cache", "dpkg-deb")):
        raise HostCannotError("needs Debian's package tools (apt-get, apt-cache, dpkg-deb)")
    BUILD.mkdir(parents=True, exist_ok=True)
    _install_packages()
    _check_python()
    kernel = _kernel()
    return Machine(vng=_virtme_ng(), kernel=kernel, image=_image())


def _install_packages() -> None:
    missing = sorted({package for program, package in PROGRAMS.items() if not shutil.which(program)})
    if not missing:
        return
    print(f"installing {' '.join(missing)}", flush=True)
    _host("apt-get", "update", "-q")
    _host("apt-get", "install", "-y", "-q", "--no-install-recommends", *missing)


def _check_python() -> None:
    """The ordinary user needs an interpreter that he can reach, and the checkout's may be in somebody's home."""
    test = "import sys; sys.exit(sys.version_info < (3, 11))"
    if not os.path.exists(SYSTEM_PYTHON) or subprocess.run([SYSTEM_PYTHON, "-c", test], check=False).returncode:
        raise HostCannotError(f"needs {SYSTEM_PYTHON}, Python 3.11 or newer")


def _kernel() -> Path:
    """Return Debian's newest kernel for servers, unpacked with its modules."""
    name = _kernel_package()
    if not name:
        _host("apt-get", "update", "-q")
        name = _kernel_package()
    if not name:
        raise HostCannotError("apt-cache names no kernel package that linux-image-amd64 depends on")
    version = name.removeprefix("linux-image-")
    folder = BUILD / "kernel"
    image = folder / f"boot/vmlinuz-{version}"
    if (folder / f"lib/modules/{version}/modules.dep").exists() and image.exists():
        return image
    print(f"downloading {name}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    for old in BUILD.glob("linux-image-*.deb"):
        old.unlink()
    _host("apt-get", "download", "-q", name, cwd=BUILD)
    (package,) = BUILD.glob("linux-image-*.deb")
    _host("dpkg-deb", "-x", package, folder)
    package.unlink()
    if not (folder / "lib").is_dir():  # Debian 13's package has everything below /usr
        (folder / "lib").symlink_to("usr/lib")
    _host("depmod", "-b", folder, version)
    return image


def _kernel_package() -> str:
    found = subprocess.run(["apt-cache", "depends", "linux-image-amd64"], capture_output=True, text=True, check=False)
    match = re.search(r"Depends: (linux-image-\d\S*-amd64)", found.stdout)
    return match[1] if match else ""


def _virtme_ng() -> Path:
    vng = BUILD / "tools/bin/vng"
    if not vng.exists():
        print("installing virtme-ng", flush=True)
        _host(sys.executable, "-m", "venv", "--clear", "--without-pip", BUILD / "tools")
        _pip(BUILD / "tools", "virtme-ng>=1.42,<2")
    return vng


def _image() -> Path:
    """Return an ext4 image for /home: the user's virtual environment with this checkout's package, and the tests."""
    tree = BUILD / "home"
    student = tree / "student"
    environment = student / "venv"
    requirements = _requirements()
    made = environment / "requirements"
    if not made.exists() or made.read_text() != "\n".join(requirements):
        print("making the user's environment", flush=True)
        _host(SYSTEM_PYTHON, "-m", "venv", "--clear", "--without-pip", environment)
        _pip(environment, *requirements)
        made.write_text("\n".join(requirements))
    (packages,) = environment.glob("lib/python3.*/site-packages")
    _copy(CHECKOUT / "container_magic", packages / "container_magic")
    (environment / "bin/contain").write_text('#!/bin/sh\nexec python -m container_magic "$@"\n')
    (environment / "bin/contain").chmod(0o755)
    _copy(CHECKOUT / "tests", student / "src/tests")
    shutil.copy(CHECKOUT / "pyproject.toml", student / "src")
    _etc(tree / "etc")
    _host("chown", "-R", f"{USER}:{GROUP}", student)
    student.chmod(0o700)
    image = BUILD / "home.ext4"
    with open(image, "wb") as file:
        file.truncate(1 << 29)
    _host("mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-d", tree, image)
    return image


def _requirements() -> list[str]:
    """Return what the guest's environment needs: the package's own dependencies, a client of kernels, a test runner.

    Its tests run one after the other, and pytest-xdist has the marks of those that would not run beside each other.
    """
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    return [*project["dependencies"], "nbclient>=0.10", "pytest>=8.3", "pytest-timeout>=2.3", "pytest-xdist>=3.6"]


def _copy(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))


def _etc(target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for name in ETC:
        if os.path.exists(f"/etc/{name}"):
            _host("cp", "-a", f"/etc/{name}", target)
    accounts = Path("/etc/passwd").read_text(encoding="utf-8").splitlines(keepends=True)
    others = [line for line in accounts if line.split(":")[2:3] != [str(USER)]]
    ours = f"student:x:{USER}:{GROUP}:student:/home/student:/bin/bash\n"
    (target / "passwd").write_text("".join([*others, ours]), encoding="utf-8")


def _pip(environment: Path, *requirements: str) -> None:
    python = environment / "bin/python"
    _host(sys.executable, "-m", "pip", "--python", python, "install", "-q", *requirements)


def _host(*command: str | Path, cwd: Path | None = None) -> None:
    words = [str(word) for word in command]
    variables = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(words, cwd=cwd, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise HostCannotError(f"`{' '.join(words)}` failed: {lines[-1] if lines else f'exit code {done.returncode}'}")


def run_tests(machine: Machine, phases: Sequence[str], limit_seconds: float) -> int:
    """Run the selected tests in each of the ``phases``; return 0 when every one has passed."""
    started = time.monotonic()
    code = boot(machine, ["test", *phases], limit_seconds)
    print(f"\nthe machine ran for {time.monotonic() - started:.0f} s")
    failed = code != 0
    for phase in phases:
        status, closing = _result(phase)
        failed |= status != "0"
        print(f"{phase:15} {'passed' if status == '0' else 'FAILED'}: {closing}")
    return int(failed)


def _result(phase: str) -> tuple[str, str]:
    """Return the exit status of the phase's tests and their closing line; an absent status is a failure too."""
    try:
        status = (RESULTS / f"{phase}.status").read_text().strip()
        lines = (RESULTS / f"{phase}.log").read_text(errors="replace").strip().splitlines()
    except OSError:
        return "", "no result: the machine ended first"
    return status, lines[-1] if lines else f"exit status {status}, no output"


def run_command(machine: Machine, phase: str, command: str, limit_seconds: float) -> int:
    """Run one shell command; return its exit code, 1 when the machine ended without one."""
    return boot(machine, ["command", phase], limit_seconds, command)


def boot(machine: Machine, task: Sequence[str], limit_seconds: float, command: str = "") -> int:
    """Boot, do ``task`` (words for guest.sh) with its output on ours, power off; return its exit code or 1."""
    shutil.rmtree(RESULTS, ignore_errors=True)
    RESULTS.mkdir()
    (RESULTS / "command").write_text(command)
    words = [str(machine.vng), "--run", str(machine.kernel), "--force-9p", "--disable-kvm", "--disable-microvm"]
    disk = f"-drive file={machine.image},format=raw,if=virtio"
    words += [f"--qemu-opts={QEMU_OPTIONS} {disk}", "--cpus=2", "--memory=3G", "--user=root"]
    words += [f"--rwdir={RESULTS}", *(f"--append={option}" for option in KERNEL_OPTIONS)]
    words += ["--", "bash", str(CHECKOUT / "tests/vm/guest.sh"), str(RESULTS), *task]
    variables = {**os.environ, "PATH": f"{machine.vng.parent}:{os.environ.get('PATH', os.defpath)}"}
    process = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=variables,
        cwd=CHECKOUT,
        start_new_session=True,
    )
    relay = threading.Thread(target=_relay, args=(process.stdout,), daemon=True)
    relay.start()
    try:
        process.wait(limit_seconds)
    except subprocess.TimeoutExpired:
        print(f"\nended: the machine did not finish within {limit_seconds:g} s", flush=True)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        relay.join(5)
    try:
        return int((RESULTS / "status").read_text())
    except (OSError, ValueError):
        return 1


def _relay(pipe: IO[bytes]) -> None:
    """Pass the machine's output on: qemu opens its stdout anew, and a file would be written from its beginning."""
    while data := os.read(pipe.fileno(), 65536):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
