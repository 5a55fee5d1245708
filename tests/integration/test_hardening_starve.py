"""Ways to starve the host and its other users: counters that no namespace has, memory that no limit sees, time."""

from __future__ import annotations

import ctypes
import os
import select
import time

import pytest
from test_hardening_escape import hacking

MIB = 1 << 20
LIBC = ctypes.CDLL(None, use_errno=True)
_FORKING = """
import os, resource, signal, time
def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end: pass
"""


@pytest.fixture
def hoarder(live):
    """Return a function that starts a container which runs code, says so, and then keeps what it has got."""

    def hoarder(source: str, **options):
        running = live(hacking(source) + "\nprint('hoarded', flush=True)\nimport time; time.sleep(20)", **options)
        running.until(lambda event: b"hoarded" in getattr(event, "data", b""))
        return running

    return hoarder


class TestCountersOfTheHost:
    """A number that the kernel keeps for a user or the machine, and not for a container."""

    def test_inotify_of_the_host_is_not_used_up(self, hoarder):
        """A container that takes all the inotify instances it gets leaves the owner some (fs.inotify)."""
        hoarder("while _libc.inotify_init1(0) >= 0: pass")

        fd = LIBC.inotify_init1(os.O_CLOEXEC)
        assert fd >= 0, os.strerror(ctypes.get_errno())
        os.close(fd)

    def test_timers_of_the_host_are_not_used_up(self, hoarder):
        """POSIX timers are pending signals, and these are counted for the owner too (RLIMIT_SIGPENDING)."""
        hoarder(
            "t = ctypes.c_void_p()\nfor _ in range(200000):\n"
            "    if syscall('timer_create', 1, 0, ctypes.byref(t)): break"
        )

        timer = ctypes.c_void_p()
        assert LIBC.timer_create(1, None, ctypes.byref(timer)) == 0, os.strerror(ctypes.get_errno())
        LIBC.timer_delete(timer)

    def test_message_queues_of_the_host_are_not_used_up(self, hoarder):
        """POSIX message queues are counted for the owner too (RLIMIT_MSGQUEUE)."""
        hoarder(
            """
            class Attributes(ctypes.Structure):
                _fields_ = [(name, ctypes.c_long) for name in 'flags maxmsg msgsize curmsgs a b c d'.split()]
            number = 0
            while isinstance(syscall('mq_open', b'q%d' % number, os.O_CREAT | os.O_RDWR, 0o600,
                                     ctypes.byref(Attributes(maxmsg=10, msgsize=8192))), int):
                number += 1
            """
        )
        rt = ctypes.CDLL("librt.so.1", use_errno=True)

        name = f"/container_magic-test-{os.getpid()}".encode()
        queue = rt.mq_open(name, os.O_CREAT | os.O_RDWR, 0o600, None)
        assert queue >= 0, os.strerror(ctypes.get_errno())
        os.close(queue)
        rt.mq_unlink(name)

    def test_pseudo_terminals_are_bounded(self, inside):
        """One container cannot have all pseudo-terminals of the machine (kernel.pty.max)."""
        found = inside(
            """
            import os, resource
            resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
            terminals = []
            while error_of(lambda: terminals.append(os.open('/dev/ptmx', os.O_RDWR | os.O_NOCTTY))) is None:
                pass
            answer(len(terminals))
            """
        )

        assert 16 <= found <= 256

    def test_aio_of_the_host_is_not_used_up(self, inside):
        """Kernel AIO contexts come from one number for the whole machine (fs.aio-max-nr)."""
        found = inside(
            hacking(
                """
                context = ctypes.c_ulong(0)
                said = syscall('io_setup', 60000, ctypes.byref(context))
                answer([said, int(open('/proc/sys/fs/aio-nr').read())])
                """
            )
        )

        assert found[0] in ("ENOSYS", "EPERM")

    def test_huge_pages_are_refused(self, inside):
        """Reserved huge pages are outside the memory limit: none by mmap, memfd_create or shmget."""
        found = inside(
            hacking(
                """
                import mmap
                answer([error_of(lambda: mmap.mmap(-1, 1 << 21, flags=0x22 | 0x40000)),
                        error_of(os.memfd_create, 'x', 4),
                        syscall('shmget', 0, 1 << 21, 0o5600), syscall('shmget', 0, 1 << 21, (0xdead << 32) | 0o5600)])
                """
            )
        )

        assert found == ["EPERM"] * 4

    def test_containers_leave_each_other_descriptors_and_pipes(self, hoarder, inside):
        """While one container holds all the pipes it can, another one still gets pipes that work."""
        hoarder(
            """
            import fcntl
            keep = []
            try:
                while len(keep) < 2000:
                    keep.append(os.pipe())
                    try: fcntl.fcntl(keep[-1][1], 1031, 1 << 20)
                    except OSError: pass
            except OSError:
                pass
            """
        )

        assert (
            inside("import subprocess; answer(subprocess.run(['echo', 'x'], capture_output=True).stdout.decode())")
            == "x\n"
        )


# what each keeps alive in the kernel; none of it is the program's own memory
HOARDS = {
    "unix sockets": """
        import socket
        pairs = []
        for _ in range(4000):
            a, b = socket.socketpair(); a.setblocking(False); pairs.append((a, b))
            try:
                while True: a.send(b'x' * 65536)
            except OSError: pass
        """,
    "System V messages": """
        message = ctypes.create_string_buffer((1).to_bytes(8, 'little') + b'x' * 8000)
        while (queue := _libc.msgget(0, 0o1600)) >= 0:
            while _libc.msgsnd(queue, message, 8000, 0o4000) == 0: pass
        """,
    "System V semaphores": "while _libc.semget(0, 32000, 0o1600) >= 0: pass",
    "System V shared memory": """
        _libc.shmat.restype = ctypes.c_void_p
        for _ in range(400):
            place = _libc.shmat(_libc.shmget(0, 1 << 20, 0o1600), None, 0)
            ctypes.memset(place, 1, 1 << 20)
        """,
    "page tables": """
        import mmap
        for _ in range(8):
            area = mmap.mmap(-1, 1 << 33, flags=0x4022, prot=1)
            for place in range(0, 1 << 33, 1 << 21): area[place]
            globals().setdefault('keep', []).append(area)
        """,
    "memfd": """
        for _ in range(400):
            os.write(os.memfd_create('x'), b'x' * (1 << 20))
        """,
    "directory entries": """
        for number in range(10 ** 7):
            try: os.stat(f'/dev/shm/{number:0200}')
            except OSError: pass
            if number % 1000 == 0:
                try: open(f'/dev/shm/{number}', 'w').close()
                except OSError: pass
            if number == 300000: raise SystemExit('bounded')
        """,
    "threads": """
        import threading, time
        try:
            while True: threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
        except (RuntimeError, MemoryError): os._exit(1)
        """,
}


class TestMemory:
    """Memory that the kernel holds for a process counts against the container's limit."""

    @pytest.mark.parametrize("name", HOARDS)
    def test_kernel_memory_is_charged(self, run, needs, name):
        """A hoard in the kernel ends at the memory limit, or the kernel's own bound for it is below that."""
        needs(mem="64M")
        report = run(hacking(HOARDS[name]), mem="64M", timeout="40s")

        assert report.verdict in ("MEMORY_LIMIT", "RUNTIME_ERROR"), report
        assert report.usage.memory_peak_bytes is None or report.usage.memory_peak_bytes <= 65 * MIB

    @pytest.mark.parametrize("kind", ["udp", "tcp"])
    def test_network_buffers_are_charged(self, run, needs, kind):
        """What lies in the buffers of sockets on the own loopback is no way around the memory limit."""
        needs(mem="64M")
        report = run(
            hacking(
                f"""
                import socket, sys
                keep, held = [], 0
                server = socket.create_server(('127.0.0.1', 0))
                for _ in range(600):
                    if {kind!r} == 'tcp':
                        sender = socket.create_connection(server.getsockname()); receiver, _ = server.accept()
                    else:
                        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); receiver.bind(('127.0.0.1', 0))
                        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 30)
                        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                        sender.connect(receiver.getsockname())
                    keep.append((sender, receiver)); sender.setblocking(False)
                    try:
                        for _ in range(8 if {kind!r} == 'udp' else 1000): sender.send(b'x' * 50000)
                    except OSError: pass
                    for line in open('/proc/net/sockstat'):
                        if line.startswith({kind.upper()!r} + ':'): held = int(line.split()[-1]) * 4096
                    if held > 160 << 20: break
                print(held >> 20)
                """
            ),
            mem="64M",
        )

        assert report.verdict == "MEMORY_LIMIT" or int(report.stdout) <= 80, report.stdout


class TestTime:
    """Time that nobody is to see, and ends that never come."""

    @pytest.mark.parametrize(
        "hiding",
        [
            "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\nfor _ in range(10):\n"
            "    if os.fork() == 0: burn(0.1); os._exit(0)\ntime.sleep(2.5)",
            "for _ in range(10):\n    if os.fork() == 0:\n        if os.fork() == 0: burn(0.1)\n        os._exit(0)\n"
            "    os.wait()\ntime.sleep(2.5)",
            "for _ in range(10):\n    if os.fork() == 0: os.setsid(); burn(0.1); os.abort()\ntime.sleep(2.5)",
            "import threading\nts = [threading.Thread(target=burn, args=(0.5,)) for _ in range(2)]\n"
            "[t.start() for t in ts]\n[t.join() for t in ts]",
        ],
        ids=["ignored children", "orphans", "zombies", "dead threads"],
    )
    def test_time_of_the_dead_is_counted(self, run, needs, hiding):
        """CPU time of children that nobody waits for, of orphans, of zombies and of dead threads is in the report."""
        needs(cpu_shares=512)  # where there is a group that counts CPU time
        report = run(_FORKING + hiding)

        assert 0.4 <= report.usage.cpu_seconds < 2.5

    def test_hidden_time_meets_the_limit(self, run, needs):
        """--cpu-time holds for children that are reaped by nobody."""
        needs(cpu_shares=512)
        report = run(
            _FORKING + "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\nwhile True:\n"
            "    if os.fork() == 0: burn(0.05); os._exit(0)\n    time.sleep(0.04)",
            cpu_time="500ms",
            timeout="30s",
        )

        assert report.verdict == "TIME_LIMIT"
        assert report.usage.cpu_seconds < 1.5

    def test_a_storm_of_orphans_does_not_hold_the_end(self, run):
        """Init sees the payload's end although orphans die all the time, and although it was put last in the queue."""
        begun = time.monotonic()
        report = run(
            """
            import os
            for call in (lambda: os.setpriority(os.PRIO_PROCESS, 1, 19),
                         lambda: os.sched_setscheduler(1, os.SCHED_IDLE, os.sched_param(0))):
                try: call()
                except OSError: pass
            for _ in range(6):
                if os.fork() == 0:
                    os.setsid()
                    while True:
                        try:
                            if os.fork() == 0:
                                try:
                                    if os.fork() == 0: os._exit(0)
                                finally: os._exit(0)
                            os.wait()
                        except OSError: pass
            os._exit(7)
            """,
            pids=64,
            timeout="25s",
        )

        assert report.exit_code == 7
        assert time.monotonic() - begun < 15

    @pytest.mark.parametrize(
        "defence",
        [
            "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 64)); os.kill(0, signal.SIGSTOP)",
            "[os.kill(os.getpid(), signal.SIGSTOP) for _ in iter(int, 1) if os.fork() == 0 or True]",
            "[(os.setsid(), os.kill(os.getpid(), 19)) for _ in range(20) if os.fork() == 0]; signal.pause()",
            "[signal.signal(n, signal.SIG_IGN) for n in range(1, 32) if n not in (9, 19)]\n"
            "while True:\n    try: os.fork()\n    except OSError: pass",
        ],
        ids=["all signals blocked and stopped", "stops for ever", "stopped sessions", "ignores and forks"],
    )
    def test_the_wall_limit_needs_no_consent(self, run, defence):
        """Blocked, ignored and stopped processes end at the limit, and soon after."""
        begun = time.monotonic()
        report = run(f"import os, signal\n{defence}", timeout="1s", pids=32)

        assert report.verdict == "TIME_LIMIT"
        assert time.monotonic() - begun < 8


def test_the_host_still_answers_while_a_container_does_its_worst(hoarder, inside):
    """Beside a full container another one is made, runs and is removed within seconds."""
    hoarder("for _ in range(60):\n    if os.fork() == 0:\n        while True: pass", pids=64, cpus="0.5")

    begun = time.monotonic()
    assert inside("answer(1)") == 1
    assert time.monotonic() - begun < 10
    assert select.select([], [], [], 0) == ([], [], [])
