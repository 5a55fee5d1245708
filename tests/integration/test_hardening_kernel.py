"""Ways to reach other processes and the kernel: signals, names, calling conventions, doors that nobody needs."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_hardening_escape import hacking

from container_magic.runtime import client


class TestProcesses:
    """Signals, limits and names that reach beyond the container."""

    @pytest.mark.parametrize(
        "attack",
        [
            "os.kill(-1, 9)",
            "os.kill(0, 9)",
            "os.killpg(os.getpgid(1), 9)",
            "os.killpg(1, 9)",
            "syscall('tgkill', 1, 1, 9)",
            "[os.kill(pid, 9) for pid in range(2, 32769) if error_of(os.kill, pid, 0) is None]",
        ],
    )
    def test_signals_reach_the_containers_own_processes_alone(self, run, live, attack):
        """Another container, zygote and supervisors live on; this one ends by that signal or not at all."""
        other = live("import time; time.sleep(20)")
        zygote = client.zygote().process
        helper = "def error_of(f, *a):\n    try: f(*a)\n    except OSError as e: return e\n"

        report = run(helper + hacking(attack))

        assert report.exit_signal in (signal.SIGKILL, None)
        assert zygote.poll() is None
        os.kill(other.created.pid, 0)
        os.kill(other.created.supervisor_pid, 0)

    def test_init_cannot_be_made_to_lie(self, run):
        """Limits and priority of init can be lowered by its own user; the exit code stays or is lost, never 0."""
        report = run(
            """
            import os, resource
            for name in ('RLIMIT_AS', 'RLIMIT_DATA', 'RLIMIT_NOFILE', 'RLIMIT_FSIZE', 'RLIMIT_STACK'):
                try:
                    resource.prlimit(1, getattr(resource, name), (1, 1))
                except OSError:
                    pass
            for call in (lambda: os.setpriority(os.PRIO_PROCESS, 1, 19),
                         lambda: os.sched_setscheduler(1, os.SCHED_IDLE, os.sched_param(0))):
                try:
                    call()
                except OSError:
                    pass
            os._exit(3)
            """
        )

        assert report.verdict in ("RUNTIME_ERROR", "SIGNALED")
        assert report.exit_code != 0

    def test_containers_do_not_meet(self, inside, live):
        """Abstract sockets, System V objects, message queues and /dev/shm of one container are not another's."""
        live(
            """
            import ctypes, os, socket, time
            s = socket.socket(socket.AF_UNIX); s.bind('\\0meeting'); s.listen()
            libc = ctypes.CDLL(None)
            assert libc.shmget(0x4242, 4096, 0o1666) >= 0
            for place in ('/dev/shm', '/dev/mqueue', '/tmp'): open(place + '/meeting', 'w').close()
            time.sleep(20)
            """
        )

        found = inside(
            """
            import ctypes, os, socket, time
            time.sleep(0.5)
            s = socket.socket(socket.AF_UNIX)
            answer([error_of(s.connect, '\\0meeting'), ctypes.CDLL(None).shmget(0x4242, 4096, 0),
                    [p for p in ('/dev/shm', '/dev/mqueue', '/tmp') if os.path.exists(p + '/meeting')]])
            """
        )

        assert found == ["ECONNREFUSED", -1, []]

    def test_own_pipes_cannot_be_used_to_signal_others(self, inside):
        """F_SETOWN on standard output takes the numbers of the container's own processes only."""
        found = inside(
            f"""
            import fcntl
            answer([error_of(fcntl.fcntl, 1, fcntl.F_SETOWN, to) for to in ({os.getpid()}, -{os.getpgid(0)})])
            """
        )

        assert found == ["ESRCH", "ESRCH"]


class TestKernel:
    """Doors into the kernel that a container has no use for, tried from a container."""

    @pytest.mark.skipif(os.uname().machine != "x86_64", reason="these entries exist on x86-64 only")
    @pytest.mark.parametrize(
        "code", [bytes.fromhex("b814000000cd80c3"), bytes.fromhex("b8270000400f05c3")], ids=["int 0x80", "x32"]
    )
    def test_other_calling_conventions_end_the_process(self, run, code):
        """32-bit and x32 entry have other numbers for the same calls: SIGSYS."""
        report = run(
            f"""
            import ctypes, mmap
            memory = mmap.mmap(-1, 4096, prot=7)
            memory.write({code!r})
            ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))()
            """
        )

        assert report.exit_signal == signal.SIGSYS

    def test_core_dumps_cannot_be_switched_on(self, run, tmp_path):
        """A crash leaves no core on a volume, whatever the code asks for before (core(5))."""
        report = run(
            """
            import os, resource
            os.chdir('/x')
            soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
            for wanted in ((hard, hard), (-1, -1)):
                try:
                    resource.setrlimit(resource.RLIMIT_CORE, wanted)
                except (OSError, ValueError):
                    pass
            os.abort()
            """,
            volume=f"{tmp_path}:/x:rw",
        )

        assert report.exit_signal == signal.SIGABRT
        assert list(tmp_path.iterdir()) == []

    def test_option_that_asks_for_no_core_dumps_does_not_let_any_out(self, inside):
        """`--ulimit core=0` is what there is anyway: a limit of 1, which keeps a dump from a pipe."""
        assert inside("import resource; answer(resource.getrlimit(4))", ulimit="core=0") == [1, 1]

    def test_report_has_the_limit_for_core_dumps_that_holds(self, run):
        """Not what was asked for, which the seccomp program would not let pass."""
        limits = {limit.name: limit.value for limit in run("pass", ulimit="core=0").limits}

        assert limits["ulimit core"] == 1

    @pytest.mark.parametrize("call", ["setrlimit", "prlimit", "shell"])
    def test_limit_for_core_dumps_stays_at_one(self, inside, call):
        """1 keeps a dump from a core_pattern that is a pipe, 0 would not; who sets 0 is told that it is so."""
        found = inside(
            """
            import ctypes, resource, subprocess
            libc = ctypes.CDLL(None, use_errno=True)
            zero = (ctypes.c_ulong * 2)(0, 0)
            old = (ctypes.c_ulong * 2)(7, 7)
            done = {
                'setrlimit': lambda: libc.setrlimit(4, zero),
                'prlimit': lambda: libc.prlimit(0, 4, zero, None),
                'shell': lambda: subprocess.call(['sh', '-c', 'ulimit -c 0']),
            }['CALL']()
            both = libc.prlimit(0, 4, zero, old)
            answer([done, both, ctypes.get_errno(), list(old), resource.getrlimit(4)])
            """.replace("CALL", call)
        )

        assert found == [0, -1, errno.EPERM, [7, 7], [1, 1]]

    def test_crash_starts_no_program_of_the_host(self, run):
        """A dump goes to no ``|PROGRAM``, though the code lowers its limit first; outside the same crash does."""
        pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
        if not pattern.startswith("|/usr/bin/tee "):
            pytest.skip("core_pattern of this host is not the machine's of tests/vm: it is not ours to set")
        dump = Path(pattern.split()[1])
        code = "import os, resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); os.abort()"

        report = run(code)

        assert report.exit_signal == signal.SIGABRT
        time.sleep(0.5)
        assert not dump.exists()
        subprocess.run([sys.executable, "-c", code], check=False)
        while not dump.exists():
            time.sleep(0.05)
        dump.unlink()

    def test_usermode_helpers_of_the_kernel_cannot_be_set(self, inside):
        """core_pattern, modprobe, uevent_helper, release_agent, binfmt_misc: what the kernel would run as host root."""
        found = inside(
            hacking(
                """
                paths = ['/proc/sys/kernel/core_pattern', '/proc/sys/kernel/modprobe', '/proc/sys/kernel/hotplug',
                         '/sys/kernel/uevent_helper', '/proc/sys/fs/binfmt_misc/register', '/proc/sysrq-trigger',
                         '/proc/sys/kernel/poweroff_cmd', '/proc/sys/vm/panic_on_oom', '/proc/sys/kernel/sysrq']
                opened = {p: error_of(open, p, 'w') for p in paths if os.path.exists(p)}
                os.makedirs('/tmp/cg')
                kinds = b'cgroup2 proc debugfs tracefs binfmt_misc securityfs bpf fuse'.split()
                wanted = [(b'cgroup', b'rdma'), (b'cgroup', b'none,name=x'), *((kind, b'') for kind in kinds)]
                mounts = [syscall('mount', b'none', b'/tmp/cg', kind, 0, options) for kind, options in wanted]
                answer([opened, sorted(set(mounts))])
                """
            )
        )

        assert set(found[0].values()) <= {"EROFS", "EACCES", "EPERM"}
        assert len(found[0]) >= 3
        assert found[1] == ["EPERM"]

    def test_priority_cannot_be_raised(self, inside):
        """No real-time class, no lower nice value, no real-time I/O, also not by way of the autogroup."""
        found = inside(
            hacking(
                """
                import resource
                real_time = (os.SCHED_FIFO, os.SCHED_RR)
                fifo = [error_of(os.sched_setscheduler, 0, policy, os.sched_param(1)) for policy in real_time]
                deadline = ctypes.create_string_buffer(
                    b''.join(n.to_bytes(4, 'little') for n in (48, 6, 0, 0, 0, 0, 10**7, 0, 10**8, 0, 10**8, 0)), 48)
                answer([*fifo, syscall('sched_setattr', 0, deadline, 0), error_of(os.nice, -1),
                        syscall('ioprio_set', 1, 0, 1 << 13),
                        error_of(lambda: os.write(os.open('/proc/self/autogroup', os.O_WRONLY), b'-10'))
                        if os.path.exists('/proc/self/autogroup') else 'EPERM',
                        [resource.getrlimit(getattr(resource, n))[1] for n in ('RLIMIT_RTPRIO', 'RLIMIT_NICE')]])
                """
            )
        )

        assert set(found[:6]) <= {"EPERM", "EACCES"}
        assert found[6] == [0, 0]
