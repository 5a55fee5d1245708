"""The attacker's view: code inside tries to see, reach, change or gain what is not its own, and must fail."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap
import threading
import time
import zipfile
from pathlib import Path

import pytest

from container_magic.cgroups.facts import probe
from container_magic.runtime import client

NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
HOST_IDS = range(0x70000000, 0x70000000 + 65536)

# called by number: no library stands between the attacker and the kernel
SYSCALL = """
import ctypes, os
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_numbers = {
    "x86_64": {"mount": 165, "umount2": 166, "unshare": 272, "setns": 308, "ptrace": 101, "keyctl": 250, "bpf": 321,
               "chroot": 161, "pivot_root": 155, "process_vm_readv": 310, "pidfd_getfd": 438, "io_uring_setup": 425,
               "userfaultfd": 323, "open_by_handle_at": 304, "perf_event_open": 298, "fsopen": 430, "open_tree": 428},
    "aarch64": {"mount": 40, "umount2": 39, "unshare": 97, "setns": 268, "ptrace": 117, "keyctl": 219, "bpf": 280,
                "chroot": 51, "pivot_root": 41, "process_vm_readv": 270, "pidfd_getfd": 438, "io_uring_setup": 425,
                "userfaultfd": 282, "open_by_handle_at": 265, "perf_event_open": 241, "fsopen": 430, "open_tree": 428},
}[os.uname().machine]
def syscall(name, *args):
    ctypes.set_errno(0)
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in args]
    if _libc.syscall(ctypes.c_long(_numbers[name]), *words) == -1:
        raise OSError(ctypes.get_errno(), name)
"""


def hacking(source: str) -> str:
    """Return ``source`` with ``syscall(name, ...)`` at hand."""
    return SYSCALL + textwrap.dedent(source)


def status_of(pid: int | str) -> dict[str, str]:
    """Return /proc/PID/status as a dict."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {line.partition(":")[0]: line.partition(":")[2].strip() for line in lines}


class TestNamespaces:
    """Seven fresh ones."""

    def test_every_namespace_differs_from_the_hosts(self, inside):
        """The inode of each of the seven namespaces is another one than the caller's."""
        found = inside(f"import os; answer({{n: os.readlink('/proc/self/ns/' + n) for n in {NAMESPACES}}})")

        host = {name: os.readlink(f"/proc/self/ns/{name}") for name in NAMESPACES}
        assert {name: found[name] != host[name] for name in NAMESPACES} == dict.fromkeys(NAMESPACES, True)

    def test_every_container_has_its_own(self, inside):
        """Two containers share none."""
        source = f"import os; answer([os.readlink('/proc/self/ns/' + n) for n in {NAMESPACES}])"
        # ids are given out again once a namespace is gone, so both have to live at once
        answers: list[list[str]] = []
        threads = [
            threading.Thread(target=lambda: answers.append(inside(source + "; import time; time.sleep(0.7)")))
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert not set(answers[0]) & set(answers[1])

    def test_processes_of_the_host_are_not_seen(self, inside):
        """In /proc are init, the payload and its children, and no one else; the payload is no pid 1."""
        pids, own, parent = inside(
            "import os; answer([[int(n) for n in os.listdir('/proc') if n.isdigit()], os.getpid(), os.getppid()])"
        )

        assert sorted(pids) == [1, own]
        assert parent == 1

    def test_host_processes_cannot_be_signalled(self, inside):
        """The host's process ids mean nothing inside."""
        found = inside(
            f"import os; answer([error_of(os.kill, {os.getpid()}, 0), error_of(os.kill, {os.getppid()}, 0)])"
        )

        assert set(found) <= {"ESRCH", "EPERM"}

    @pytest.mark.root
    def test_ids_are_an_unprivileged_range_of_the_host(self, live):
        """Root inside is nobody's id outside: init and payload both, real, effective, saved and fs."""
        running = live("import time; time.sleep(10)")

        for pid in (running.created.pid, _payload_of(running.created.pid)):
            status = status_of(pid)
            for key in ("Uid", "Gid"):
                assert all(int(number) in HOST_IDS for number in status[key].split()), (pid, key, status[key])
            assert all(int(number) in HOST_IDS for number in status["Groups"].split())

    @pytest.mark.root
    def test_map_has_one_line_and_no_host_root(self, inside):
        """The id maps hold the range and nothing else."""
        for name in ("uid_map", "gid_map"):
            lines = inside(f"answer(open('/proc/self/{name}').read().split())")
            assert list(map(int, lines)) == [0, HOST_IDS.start, len(HOST_IDS)]

    def test_user_namespaces_cannot_be_made(self, inside):
        """Neither unshare nor clone makes a further user namespace; the kernel's count for this one is 0."""
        found = inside(
            hacking(
                """
                import subprocess
                done = subprocess.run(['unshare', '-U', 'true'], capture_output=True)
                answer([error_of(syscall, 'unshare', 0x10000000), done.returncode != 0,
                        open('/proc/sys/user/max_user_namespaces').read().strip()])
                """
            )
        )

        assert found == ["EPERM", True, "0"]

    def test_hostname_cannot_be_changed(self, inside):
        """Sethostname needs a capability that is not there."""
        assert inside("import socket; answer(error_of(socket.sethostname, 'mine'))") == "EPERM"

    def test_own_session_and_process_group(self, inside, live):
        """The payload leads a session of its own, without a terminal."""
        found = inside(
            "import os; answer([os.getsid(0) == os.getpid(), os.getpgrp() == os.getpid(), error_of(open, '/dev/tty')])"
        )

        assert found == [True, True, "ENXIO"]

    def test_ipc_objects_of_the_host_are_not_seen(self, inside):
        """A System V segment of the host is not in the container's list."""
        made = subprocess.run(["ipcmk", "-M", "4096"], capture_output=True, text=True, check=False)
        if made.returncode:
            pytest.skip("no ipcmk on this host")
        number = made.stdout.rsplit(":", 1)[1].strip()
        try:
            listed = inside("answer(open('/proc/sysvipc/shm').read().count('\\n'))")
        finally:
            subprocess.run(["ipcrm", "-m", number], check=True)

        assert listed == 1  # the heading

    def test_own_session_keyring(self, inside):
        """The caller's session keyring is not joined: the container's is another, and keyctl is refused."""
        found = inside(hacking("answer([error_of(syscall, 'keyctl', 0, -3, 0), open('/proc/keys').read()])"))

        assert found == ["EPERM", ""]

    @pytest.mark.root
    def test_session_keyring_belongs_to_the_container(self, live):
        """While a container runs, its ids own a keyring: it has left the caller's session keyring."""
        if not os.path.exists("/proc/key-users"):
            pytest.skip("this kernel has no keys")
        running = live("import time; time.sleep(10)")

        uid = status_of(running.created.pid)["Uid"].split()[0]
        lines = [line.replace(":", " ").split() for line in Path("/proc/key-users").read_text().splitlines()]
        assert uid in [fields[0] for fields in lines if int(fields[2].partition("/")[0]) >= 1]

    def test_cgroup_namespace_root(self, inside):
        """/proc/self/cgroup shows "/" for the container's own group and nothing of the host's paths."""
        lines = inside("answer(open('/proc/self/cgroup').read().splitlines())")

        joined = {
            controller
            for line in Path("/proc/self/cgroup").read_text().splitlines()
            for controller in line.split(":")[1].split(",")
            if controller in probe().bases
        }
        for line in lines:
            _, controllers, path = line.split(":", 2)
            assert "container_magic" not in path
            if joined & set(controllers.split(",")):
                assert path == "/", line


def _payload_of(init_pid: int) -> int:
    return int(Path(f"/proc/{init_pid}/task/{init_pid}/children").read_text().split()[0])


class TestFiles:
    """What of the host can be seen, read and written."""

    @pytest.fixture
    def secrets(self, tmp_path, monkeypatch):
        """Put files where users keep them, on the host; their paths."""
        work = tmp_path / "notebooks"
        work.mkdir()
        monkeypatch.chdir(work)
        directories = [
            tmp_path,
            work,
            Path.home(),
            Path("/tmp"),
            Path("/var/tmp"),
            Path("/run"),
            Path("/root"),
            Path("/dev/shm"),
        ]
        paths = []
        for directory in directories:
            path = directory / f"container_magic-secret-{os.getpid()}"
            try:
                path.write_text("hunter2")
            except OSError:
                continue
            paths.append(str(path))
        yield list(dict.fromkeys(paths))
        for path in set(paths):
            os.unlink(path)

    def test_host_files_are_invisible(self, inside, secrets):
        """Nothing from home, /root, /run, /tmp, /var/tmp, /dev/shm or the working directory exists inside."""
        assert len(secrets) >= 5

        assert inside(f"answer([error_of(open, path) for path in {secrets}])") == ["ENOENT"] * len(secrets)

    def test_host_files_are_nowhere_in_the_tree(self, inside, secrets):
        """A search of the whole tree finds no secret by name."""
        found = inside(
            f"""
            import os
            answer([os.path.join(where, name) for where, directories, names in os.walk('/')
                    if not where.startswith(('/proc', '/sys')) for name in names if {Path(secrets[0]).name!r} in name])
            """
        )

        assert found == []

    def test_runtime_view_is_not_inside(self, inside):
        """The runtime's own directory and state are not in the container."""
        found = inside(
            "import os; answer([os.path.lexists('/.container_magic'), os.path.lexists('/run/container_magic')])"
        )

        assert found == [False, False]

    def test_no_old_root_is_reachable(self, inside):
        """Going up from / stays in /; the mount table shows nothing but the container's own."""
        found = inside(
            """
            import os
            mounts = [line.split()[4] for line in open('/proc/self/mountinfo')]
            answer([os.stat('/..').st_ino == os.stat('/').st_ino, mounts])
            """
        )

        assert found[0]
        assert found[1].count("/") == 1
        assert not [path for path in found[1] if path.startswith("/.container_magic")]

    def test_shadow_is_absent(self, inside):
        """The host's password hashes are not inside, and the accounts are not the host's."""
        found = inside(
            "answer([error_of(open, '/etc/shadow'), error_of(open, '/etc/gshadow'), open('/etc/passwd').read()])"
        )

        assert found[:2] == ["ENOENT", "ENOENT"]
        assert found[2] != Path("/etc/passwd").read_text()

    @pytest.mark.root
    def test_root_only_files_of_usr_cannot_be_read(self, inside, tmp_path):
        """A file below /usr that only host root may read is not readable by the container's root."""
        path = Path(f"/usr/local/container_magic-test-{os.getpid()}")
        path.write_text("hunter2")
        path.chmod(0o600)
        try:
            found = inside(f"answer(error_of(open, '{path}'))")
        finally:
            path.unlink()

        assert found == "EACCES"

    @pytest.mark.root
    def test_root_owned_host_files_cannot_be_written(self, inside):
        """System files belong to nobody inside: not writable, not removable, not changeable."""
        found = inside(
            """
            import os
            answer([error_of(open, '/usr/bin/env', 'a'), error_of(os.unlink, '/usr/bin/env'),
                    error_of(os.chmod, '/usr/bin/env', 0o4777), error_of(os.chown, '/usr/bin/env', 0, 0),
                    error_of(open, '/usr/bin/new', 'w')])
            """
        )

        assert None not in found
        assert set(found) <= {"EACCES", "EPERM", "EOVERFLOW"}

    def test_environment_is_writable_inside_and_unchanged_outside(self, inside):
        """Site-packages can be written; the host's stay as they are."""
        import sysconfig

        site = sysconfig.get_path("purelib")
        before = sorted(os.listdir(site))
        found = inside(
            f"""
            import importlib, os
            open({site!r} + '/made_inside.py', 'w').write('x = 42')
            importlib.invalidate_caches()
            import made_inside
            existing = next(n for n in sorted(os.listdir({site!r})) if n.endswith('.py') and n != 'made_inside.py')
            with open(os.path.join({site!r}, existing), 'a') as f: f.write('# changed')
            answer([made_inside.x, existing])
            """
        )

        assert found[0] == 42
        assert sorted(os.listdir(site)) == before
        assert not Path(site, found[1]).read_text().endswith("# changed")

    def test_pip_install_works_inside_and_vanishes(self, inside, tmp_path):
        """A wheel from a volume is installed into the environment, can be imported, and is gone in the next run."""
        wheel = tmp_path / "tiny_wheel-1.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("tiny_wheel.py", "answer = 42\n")
            archive.writestr(
                "tiny_wheel-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-wheel\nVersion: 1.0\n"
            )
            archive.writestr(
                "tiny_wheel-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            )
            archive.writestr("tiny_wheel-1.0.dist-info/RECORD", "")
        found = inside(
            """
            import glob, importlib, subprocess, sys
            done = subprocess.run([sys.executable, '-m', 'pip', 'install', '--no-index', '--no-build-isolation', '-q',
                                   *glob.glob('/wheels/*.whl')], capture_output=True, text=True)
            importlib.invalidate_caches()
            try:
                import tiny_wheel
                value = tiny_wheel.answer
            except ImportError as error:
                value = str(error)
            answer([done.returncode, done.stderr, value])
            """,
            volume=f"{tmp_path}:/wheels:ro",
        )

        assert found[0] == 0, found[1]
        assert found[2] == 42
        assert inside("import importlib.util; answer(importlib.util.find_spec('tiny_wheel') is None)")

    def test_setuid_bits_do_not_work(self, inside):
        """Every mount is nosuid, so no file's set-user-id bit counts."""
        options = inside("answer([line.split()[4:6] for line in open('/proc/self/mountinfo')])")

        assert [place for place, flags in options if "nosuid" not in flags.split(",")] == []

    def test_device_files_on_volumes_do_not_work(self, inside, tmp_path):
        """A volume is nodev."""
        options = inside(
            "answer([line.split()[5] for line in open('/proc/self/mountinfo') if line.split()[4] == '/data'])",
            volume=f"{tmp_path}:/data",
        )

        assert {"nodev", "nosuid"} <= set(options[0].split(","))

    def test_no_cgroup_file_system_can_be_written(self, inside):
        """There is no cgroup file system inside, or one that is read-only, and none can be mounted."""
        found = inside(
            hacking(
                """
                import os
                kinds = [line.split(' - ')[1].split()[0] for line in open('/proc/self/mountinfo')]
                writable = [place for place, _, _ in os.walk('/sys/fs/cgroup') if os.access(place, os.W_OK)]
                os.mkdir('/tmp/cg')
                answer([[kind for kind in kinds if kind.startswith('cgroup')], writable,
                        error_of(syscall, 'mount', b'none', b'/tmp/cg', b'cgroup2', 0, None)])
                """
            )
        )

        assert found == [[], [], "EPERM"]


class TestKernelFiles:
    """/proc, /sys, /dev."""

    def test_dev_is_minimal(self, inside):
        """/dev holds the few devices that programs need, and no disk, memory or terminal of the host."""
        names = set(inside("import os; answer(os.listdir('/dev'))"))

        devices = {"null", "zero", "full", "random", "urandom", "tty", "ptmx"}
        assert devices <= names
        assert names <= devices | {"fd", "stdin", "stdout", "stderr", "pts", "shm", "mqueue"}

    def test_devices_work(self, inside):
        """Each does what it is for, a pseudo-terminal pair included."""
        found = inside(
            """
            import os, pty
            master, slave = pty.openpty()
            os.write(slave, b'hi'); tty = os.read(master, 2).decode()
            open('/dev/null', 'w').write('x'); open('/dev/shm/x', 'w').write('x')
            def full():
                with open('/dev/full', 'wb', buffering=0) as f: f.write(b'x')
            answer([open('/dev/null').read(), open('/dev/zero', 'rb').read(4).hex(),
                    len(open('/dev/urandom', 'rb').read(9)),
                    len(open('/dev/random', 'rb', buffering=0).read(9)), error_of(full), tty, os.ttyname(slave)])
            """
        )

        assert found == ["", "00000000", 9, 9, "ENOSPC", "hi", "/dev/pts/0"]

    def test_dev_cannot_be_written(self, inside):
        """No file can be made in /dev, no node removed or changed."""
        found = inside(
            "import os; null = '/dev/null'\n"
            "answer([error_of(open, '/dev/new', 'w'), error_of(os.unlink, null), error_of(os.chmod, null, 0)])"
        )

        assert set(found) <= {"EROFS", "EACCES", "EPERM", "EBUSY"}
        assert None not in found

    def test_mknod_fails(self, inside):
        """No device node can be made, neither disk nor memory nor a copy of null."""
        found = inside(
            """
            import os, stat
            answer([error_of(os.mknod, f'/tmp/n{i}', kind | 0o666, os.makedev(*numbers)) for i, (kind, numbers) in
                    enumerate([(stat.S_IFBLK, (8, 0)), (stat.S_IFCHR, (1, 1)), (stat.S_IFCHR, (1, 3))])])
            """
        )

        assert found == ["EPERM"] * 3

    @pytest.mark.parametrize("path", ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/interrupts"])
    def test_masked_files_read_as_empty(self, inside, path):
        """OCI's masked files: nothing to be read, nothing to be written."""
        if not os.path.exists(path):
            pytest.skip(f"no {path} on this kernel")

        assert inside(f"answer(open('{path}', 'rb').read(16).hex())") == ""

    @pytest.mark.parametrize("path", ["/proc/acpi", "/proc/scsi", "/sys/firmware"])
    def test_masked_directories_are_empty(self, inside, path):
        """OCI's masked directories: empty and read-only."""
        if not os.path.exists(path):
            pytest.skip(f"no {path} on this kernel")

        assert inside(f"import os; answer([os.listdir('{path}'), error_of(open, '{path}/x', 'w')])") == [[], "EROFS"]

    def test_proc_sys_is_read_only(self, inside):
        """No sysctl can be written, not even those of the container's own namespaces."""
        found = inside(
            """
            import glob, os
            def write(path):
                with open(path, 'r+b', buffering=0) as f:
                    f.write(f.read())
            names = ['/proc/sys/kernel/hostname', '/proc/sys/kernel/domainname', '/proc/sys/user/max_user_namespaces',
                     '/proc/sys/net/ipv4/ip_forward', '/proc/sys/kernel/core_pattern', '/proc/sys/kernel/shmmax',
                     '/proc/sys/fs/mqueue/msg_max', '/proc/sysrq-trigger',
                     '/proc/sys/vm/drop_caches']
            answer({name: error_of(write, name) for name in names if os.path.exists(name)})
            """
        )

        assert len(found) >= 5
        assert set(found.values()) <= {"EROFS", "EACCES", "EPERM"}

    def test_sys_is_read_only(self, inside):
        """Nothing below /sys can be opened for writing."""
        found = inside(
            """
            import os
            writable = []
            for where, directories, names in os.walk('/sys'):
                for name in names:
                    path = os.path.join(where, name)
                    if error_of(lambda: os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))) is None:
                        writable.append(path)
            answer(writable[:5])
            """
        )

        assert found == []

    @pytest.mark.parametrize("net", ["none", "host"])
    def test_sys_is_read_only_with_every_network(self, inside, net):
        """/sys under --net host is a view of the host's, and just as read-only."""
        found = inside("import os; flags = os.statvfs('/sys').f_flag; answer(bool(flags & os.ST_RDONLY))", net=net)

        assert found

    def test_kernel_log_cannot_be_read(self, inside):
        """/dev/kmsg is not there; /proc/kmsg and syslog are refused."""
        found = inside("answer([error_of(open, '/dev/kmsg'), error_of(open, '/proc/kmsg')])")

        assert found[0] == "ENOENT"
        assert found[1] in ("EPERM", "EACCES", "ENOENT")


class TestPrivileges:
    """Capabilities, no_new_privs, seccomp, setuid programs."""

    @pytest.mark.parametrize("kind", ["python", "command", "shell", "init"])
    def test_no_capability_in_any_set(self, inside, run, live, kind):
        """Inheritable, permitted, effective, bounding and ambient are empty for payloads of each kind and for init."""
        if kind == "python":
            text = inside("answer(open('/proc/self/status').read())")
        elif kind == "init":
            text = inside("answer(open('/proc/1/status').read())")
        elif kind == "command":
            text = run(["cat", "/proc/self/status"]).stdout
        else:
            text = run("cat /proc/self/status", lang="sh").stdout
        fields = dict(line.split(":\t") for line in text.splitlines() if line.count(":\t") == 1)

        caps = {name: fields[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
        assert caps == dict.fromkeys(caps, "0" * 16)
        assert fields["NoNewPrivs"] == "1"
        assert fields["Seccomp"] == "2"

    @pytest.mark.parametrize(
        ("call", "arguments"),
        [
            ("mount", "b'none', b'/mnt', b'tmpfs', 0, None"),
            ("umount2", "b'/proc', 2"),
            ("unshare", "0x20000"),
            ("unshare", "0x40000000"),
            ("setns", "0, 0"),
            ("ptrace", "0, 0, 0, 0"),
            ("keyctl", "6, -3"),
            ("bpf", "0, 0, 0"),
            ("chroot", "b'/'"),
            ("pivot_root", "b'.', b'.'"),
            ("process_vm_readv", "1, 0, 0, 0, 0, 0"),
            ("pidfd_getfd", "0, 0, 0"),
            ("io_uring_setup", "1, 0"),
            ("userfaultfd", "0"),
            ("open_by_handle_at", "0, 0, 0"),
            ("perf_event_open", "0, 0, -1, -1, 0"),
            ("fsopen", "b'tmpfs', 0"),
            ("open_tree", "-100, b'/', 1"),
        ],
    )
    def test_dangerous_system_calls_are_refused(self, inside, call, arguments):
        """What only an attacker needs answers EPERM."""
        assert inside(hacking(f"answer(error_of(syscall, '{call}', {arguments}))")) == "EPERM"

    @pytest.mark.parametrize("family", ["AF_PACKET", "AF_ALG", "AF_VSOCK"])
    def test_exotic_sockets_are_refused(self, inside, family):
        """Socket families beyond unix, IP and netlink do not exist inside."""
        if not hasattr(socket, family):
            pytest.skip(f"this Python has no {family}")

        assert inside(f"import socket; answer(error_of(socket.socket, socket.{family}, socket.SOCK_RAW))") in (
            "EAFNOSUPPORT",
            "EPERM",
        )

    def test_raw_sockets_are_refused(self, inside):
        """No capability, no raw packets."""
        found = inside("import socket as s; answer(error_of(s.socket, s.AF_INET, s.SOCK_RAW, s.IPPROTO_ICMP))")

        assert found == "EPERM"

    @pytest.mark.parametrize(
        "command", [["su", "-c", "id", "nobody"], ["mount", "-t", "tmpfs", "none", "/mnt"]], ids=str
    )
    def test_setuid_programs_gain_nothing(self, run, command):
        """``su`` and ``mount`` fail as they do for anybody without privilege."""
        report = run(command)

        assert report.exit_code not in (0, None)

    @pytest.mark.root
    def test_setuid_programs_gain_nothing_for_an_ordinary_user(self, inside):
        """``su`` as another user than the container's root fails too."""
        code = (
            "import os, subprocess\n"
            "answer([os.getuid(), subprocess.run(['su', '-c', 'true'], capture_output=True).returncode])"
        )
        uid, status = inside(code, user="1000")

        assert uid == 1000 and status != 0

    @pytest.mark.parametrize("bits", [0o4000, 0o2000])
    def test_set_user_id_files_cannot_be_left_on_a_volume(self, inside, tmp_path, bits):
        """No way of making a file gives it the set-user-ID or set-group-ID bit: it would be a door on the host."""
        inside(
            hacking(
                f"""
                import os
                os.chdir('/data')
                mode = {bits} | 0o755
                def made(name):
                    open(name, 'w').close()
                    return name
                def temporary():
                    fd = os.open('.', os.O_TMPFILE | os.O_RDWR, mode)
                    AT_SYMLINK_FOLLOW = 0x400
                    _libc.linkat(-100, b'/proc/self/fd/%d' % fd, -100, b'tmpfile', AT_SYMLINK_FOLLOW)
                ways = [lambda: os.chmod(made('chmod'), mode),
                        lambda: os.fchmod(os.open(made('fchmod'), os.O_RDWR), mode),
                        lambda: os.chmod(made('fchmodat'), mode, dir_fd=os.open('.', os.O_RDONLY)),
                        lambda: os.open('open', os.O_CREAT | os.O_RDWR, mode),
                        lambda: os.mknod('mknod', mode | 0o100000),
                        lambda: os.mkdir('mkdir', mode), temporary,
                        lambda: _libc.creat(b'creat', mode), lambda: _libc.syscall(ctypes.c_long(85), b'creat85', mode)]
                answer([error_of(way) for way in ways])
                """
            ),
            volume=f"{tmp_path}:/data",
        )

        assert [path.name for path in tmp_path.iterdir() if path.lstat().st_mode & bits] == []

    def test_oom_score_cannot_be_lowered(self, inside):
        """The payload is the kernel's first choice when memory is short and cannot leave that place."""
        found = inside(
            """
            def write(text):
                with open('/proc/self/oom_score_adj', 'w') as f: f.write(text)
            answer([int(open('/proc/self/oom_score_adj').read()), error_of(write, '-1000'), error_of(write, '-1')])
            """
        )

        assert found[0] > 0
        assert found[1:] == ["EACCES", "EACCES"]

    def test_hard_limits_cannot_be_raised(self, inside):
        """No core dumps; limits can be lowered only."""
        found = inside(
            """
            import resource as r
            def lift(name, hard):
                try: r.setrlimit(name, (hard, hard))
                except ValueError: return 'refused'
            soft, hard = r.getrlimit(r.RLIMIT_NOFILE)
            answer([r.getrlimit(r.RLIMIT_CORE), lift(r.RLIMIT_NOFILE, hard + 1)])
            """
        )

        assert found == [[1, 1], "refused"]

    def test_nice_cannot_be_lowered(self, inside):
        """A container cannot put itself before others."""
        assert inside("import os; answer(error_of(os.nice, -5))") in ("EPERM", "EACCES")

    def test_umask(self, inside):
        """The usual one, whatever the caller's is."""
        client.shutdown()  # a zygote that was started under the usual umask proves nothing
        previous = os.umask(0o077)
        try:
            found = inside("import os; mask = os.umask(0); answer(mask)")
        finally:
            os.umask(previous)
            client.shutdown()

        assert found == 0o022


class TestInit:
    """Process 1 and the runtime behind it."""

    def test_init_cannot_be_looked_into(self, inside):
        """Memory, environment, descriptors, root and executable of init are closed to the code."""
        found = inside(
            """
            import os
            # an ordinary user's root may list the numbers, because the folder is his; what stands behind them is closed
            numbers = [] if error_of(os.listdir, '/proc/1/fd') else os.listdir('/proc/1/fd')
            answer([*(error_of(os.readlink, f'/proc/1/fd/{number}') for number in numbers),
                    *(error_of(os.open, f'/proc/1/fd/{number}', os.O_PATH) for number in numbers),
                    error_of(open, '/proc/1/mem', 'rb'), error_of(lambda: open('/proc/1/environ').read()),
                    error_of(os.listdir, '/proc/1/root'), error_of(os.readlink, '/proc/1/exe'),
                    error_of(lambda: open('/proc/1/maps').read()), error_of(open, '/proc/1/mem', 'r+b')])
            """
        )

        assert None not in found
        assert set(found) <= {"EACCES", "EPERM"}

    def test_init_cannot_be_traced(self, inside):
        """PTRACE_ATTACH and PTRACE_SEIZE of init are refused."""
        found = inside(hacking("answer([error_of(syscall, 'ptrace', kind, 1, 0, 0) for kind in (16, 0x4206)])"))

        assert found == ["EPERM", "EPERM"]

    def test_init_ignores_signals_from_inside(self, run):
        """Whatever is sent to init, the container goes on."""
        report = run(
            """
            import os, signal, time
            for number in set(signal.Signals):
                try: os.kill(1, number)
                except PermissionError: pass
            time.sleep(0.1)
            print('still here', os.path.exists('/proc/1/status'))
            """
        )

        assert (report.verdict, report.stdout) == ("OK", "still here True\n")

    def test_init_is_not_dumpable(self, live):
        """Seen from the host, init's /proc files belong to root and not to the container's ids."""
        running = live("import time; time.sleep(10)")

        init = Path(f"/proc/{running.created.pid}")
        if os.geteuid() == 0:
            assert (init / "environ").stat().st_uid not in HOST_IDS
        else:
            with pytest.raises(PermissionError):
                (init / "environ").read_bytes()

    def test_init_holds_only_what_it_waits_on(self, live):
        """Init's descriptors: /dev/null three times, its socket, and what it reads signals from."""
        running = live("import time; time.sleep(10)")

        targets = sorted(os.readlink(entry) for entry in Path(f"/proc/{running.created.pid}/fd").iterdir())
        assert targets[:-1] == ["/dev/null"] * 3 + ["anon_inode:[signalfd]"]
        assert targets[-1].startswith("socket:")

    def test_interpreter_cannot_be_overwritten(self, inside):
        """/proc/self/exe and every file mapped from the host refuse writing (CVE-2019-5736)."""
        found = inside(
            """
            import os
            paths = {line.split(maxsplit=5)[5].strip() for line in open('/proc/self/maps') if line.count('/')}
            links = ['/proc/self/exe', *(f'/proc/self/map_files/{n}' for n in os.listdir('/proc/self/map_files'))]
            results = {}
            for path in links:
                for flags in (os.O_RDWR, os.O_WRONLY, os.O_RDWR | os.O_TRUNC):
                    results[f'{path} {flags}'] = error_of(lambda: os.close(os.open(path, flags)))
            answer([sorted(set(map(str, results.values()))), len(results)])
            """
        )

        assert "None" not in found[0]
        assert found[1] >= 6

    @pytest.mark.root
    def test_mapped_files_are_on_read_only_mounts(self, live):
        """Seen from the host: executable and libraries of the payload cannot be opened for writing."""
        running = live("import time; time.sleep(10)")

        payload = _payload_of(running.created.pid)
        for name in (
            "exe",
            *(f"map_files/{entry.name}" for entry in list(Path(f"/proc/{payload}/map_files").iterdir())[:40]),
        ):
            path = f"/proc/{payload}/{name}"
            if os.readlink(path).startswith(("/dev/zero", "/memfd:", "/SYSV")):
                continue
            with pytest.raises(OSError) as caught:
                os.close(os.open(path, os.O_RDWR))
            assert caught.value.strerror in ("Text file busy", "Read-only file system"), (name, caught.value)

    @pytest.mark.parametrize(
        ("source", "options"),
        [
            ("import os\nfor n in sorted(os.listdir('/proc/self/fd'), key=int):\n    print(n, end=' ')", {}),
            ("ls /proc/self/fd | tr '\\n' ' '", {"lang": "bash"}),
            (["ls", "-x", "/proc/self/fd"], {}),
            (["python3", "-c", "import os; print(*sorted(os.listdir('/proc/self/fd'), key=int))"], {}),
        ],
        ids=["python", "bash", "command", "python command"],
    )
    def test_only_stdio_is_open(self, run, source, options):
        """Descriptors 0, 1, 2, the one with which the directory is listed, and a shell's channel."""
        found = run(source, **options).stdout.split()

        has_channel = isinstance(source, str) and not options
        assert found[:3] == ["0", "1", "2"]
        assert len(found) <= 4 + has_channel

    def test_every_descriptor_above_stdio_is_closed(self, inside):
        """No number up to the limit is open, but that of the channel, which no child process inherits."""
        code = "import os; answer([os.get_inheritable(n) for n in range(3, 4096) if error_of(os.fstat, n) is None])"

        assert inside(code) == [False]

    def test_no_signal_is_blocked_or_ignored_beyond_pythons_own(self, inside):
        """Signal masks of the caller do not reach the payload."""
        text = inside("answer(open('/proc/self/status').read())")
        fields = dict(line.split(":\t") for line in text.splitlines() if line.count(":\t") == 1)

        assert int(fields["SigBlk"], 16) == 0
        assert int(fields["SigIgn"], 16) & ~(1 << 12 | 1 << 24) == 0  # SIGPIPE and SIGXFSZ, as CPython has it


class TestNetwork:
    """--net none and --net host."""

    @pytest.fixture
    def port(self):
        """A listening socket of the host."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            yield server.getsockname()[1]

    def test_only_lo_exists_and_is_up(self, inside):
        """One interface; it works; there is no route to anywhere else."""
        found = inside(
            """
            import socket
            names = [name for _, name in socket.if_nameindex()]
            with socket.create_server(('127.0.0.1', 0)) as server:
                socket.create_connection(server.getsockname()).close()
            with socket.create_server(('::1', 0), family=socket.AF_INET6) as server:
                socket.create_connection(server.getsockname()[:2]).close()
            away = socket.socket(); away.settimeout(2)
            answer([names, error_of(away.connect, ('192.0.2.1', 80))])
            """,
            net="none",
        )

        assert found == [["lo"], "ENETUNREACH"]

    def test_host_ports_are_not_reachable(self, inside, port):
        """127.0.0.1 inside is not the host's."""
        source = f"import socket; answer(error_of(socket.create_connection, ('127.0.0.1', {port}), 2))"

        assert inside(source, net="none") == "ECONNREFUSED"

    def test_abstract_sockets_of_the_host_are_not_reachable(self, inside):
        """An abstract unix socket belongs to the network namespace."""
        name = f"container_magic-test-{os.getpid()}"
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("\0" + name)
            server.listen()
            source = f"import socket; s = socket.socket(socket.AF_UNIX); answer(error_of(s.connect, '\\0{name}'))"

            assert inside(source, net="none") == "ECONNREFUSED"

    def test_path_sockets_of_the_host_are_not_reachable(self, inside, tmp_path):
        """A unix socket in /tmp of the host is not there."""
        path = str(tmp_path / "s")
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path)
            server.listen()
            source = f"import socket; s = socket.socket(socket.AF_UNIX); answer(error_of(s.connect, {path!r}))"

            assert inside(source, net="none") == "ENOENT"

    def test_network_is_none_unless_asked(self, inside):
        """The default is no network."""
        assert inside("import socket; answer([n for _, n in socket.if_nameindex()])") == ["lo"]

    def test_host_network_is_the_hosts(self, inside, port):
        """--net host reaches the host's ports and shows its interfaces, and can change nothing of them."""
        found = inside(
            f"""
            import fcntl, os, socket, struct
            socket.create_connection(('127.0.0.1', {port}), 2).close()
            names = sorted(name for _, name in socket.if_nameindex())
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
                down = error_of(fcntl.ioctl, s, 0x8914, struct.pack('16sH22x', b'lo', 0))
            answer([names, down, os.readlink('/proc/self/ns/net'), os.listdir('/dev/shm')])
            """,
            net="host",
        )

        assert found[0] == sorted(name for _, name in socket.if_nameindex())
        assert found[1] == "EPERM"
        assert found[2] == os.readlink("/proc/self/ns/net")

    @pytest.mark.parametrize("kind", ["uts", "ipc", "mnt", "pid", "user", "cgroup"])
    def test_host_network_shares_nothing_else(self, inside, kind):
        """--net host leaves the other six namespaces fresh."""
        assert inside(f"import os; answer(os.readlink('/proc/self/ns/{kind}'))", net="host") != os.readlink(
            f"/proc/self/ns/{kind}"
        )


class TestOutsiders:
    """What stands on the host while a container runs."""

    def test_state_directory_is_for_its_owner_alone(self, live):
        """No other user can look at a container's state."""
        from container_magic.runtime.sweep import runtime_directory

        running = live("import time; time.sleep(10)")

        for path in (Path(runtime_directory()), Path(runtime_directory()) / running.created.container_id):
            assert path.stat().st_mode & 0o077 == 0
        file = Path(runtime_directory()) / running.created.container_id / "state.json"
        while (state := json.loads(file.read_text()))["status"] == "created":  # the file is not on the start's path
            time.sleep(0.01)
        assert state["status"] == "running"
        assert state["pid"] == running.created.pid

    def test_zygote_sees_a_read_only_host(self, live):
        """The zygote's mounts are read-only but for /proc and /sys, and neither home nor /tmp is in them."""
        live("import time; time.sleep(10)")
        pid = client._zygotes[()].process.pid
        mounts = [line.split() for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]

        writable = [fields[4] for fields in mounts if "rw" in fields[5].split(",")]
        assert [place for place in writable if not place.startswith(("/proc", "/sys", "/dev/"))] == []
        assert sys.prefix in {fields[4] for fields in mounts} or any(sys.prefix.startswith(f[4] + "/") for f in mounts)
        # but for the way to an environment that lies there
        ways = {Path(prefix).parts[2] for prefix in (sys.prefix, sys.base_prefix) if prefix.startswith("/tmp/")}
        assert set(os.listdir(f"/proc/{pid}/root/tmp")) <= ways
        assert os.listdir(f"/proc/{pid}/root/run") == []

    def test_zygote_has_one_thread(self, live):
        """Forking is safe: one thread."""
        live("import time; time.sleep(10)")

        assert status_of(client._zygotes[()].process.pid)["Threads"] == "1"

    def test_mounts_do_not_propagate_to_the_host(self, live):
        """While a container runs, the host's mount table is as it was."""
        before = Path("/proc/self/mountinfo").read_text()
        live("import time; time.sleep(10)", tmpfs="/scratch", volume="/usr:/u:ro")

        assert Path("/proc/self/mountinfo").read_text() == before
