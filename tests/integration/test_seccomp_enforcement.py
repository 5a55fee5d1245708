"""The kernel takes the program, refuses what the profile denies, and lets normal Python work."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest

MACHINE = os.uname().machine

pytestmark = pytest.mark.skipif(MACHINE not in ("x86_64", "aarch64"), reason=f"no seccomp program for {MACHINE}")

INSTALL = """
import ctypes, os
from container_magic.linux.seccomp import default_program, sock_fprog
from container_magic.linux.syscall_table import syscall_numbers
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
NR = syscall_numbers(os.uname().machine)
def call(name, *args):
    ctypes.set_errno(0)
    number = NR[name] if isinstance(name, str) else name
    result = libc.syscall(ctypes.c_long(number), *(ctypes.c_void_p(a) if isinstance(a, int) else a for a in args))
    return ctypes.get_errno() if result == -1 else 0
def install():
    PR_SET_NO_NEW_PRIVS, SECCOMP_SET_MODE_FILTER = 38, 1
    assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    fprog = sock_fprog(default_program())
    error = call("seccomp", SECCOMP_SET_MODE_FILTER, 0, ctypes.byref(fprog))
    assert error == 0, os.strerror(error)
"""


def run(code: str, *, filtered: bool = True) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in a fresh interpreter, under the program unless ``filtered`` is false."""
    source = INSTALL + ("install()\n" if filtered else "") + textwrap.dedent(code)
    return subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=False)


def answer(code: str, *, filtered: bool = True) -> object:
    """Return what ``code`` prints, as JSON; a failure shows its stderr."""
    done = run("import json\n" + textwrap.dedent(code), filtered=filtered)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


DENIED_CALLS = {
    "unshare user": ("unshare", 0x10000000),
    "unshare uts": ("unshare", 0x04000000),
    "setns": ("setns", 0, 0),
    "mount": ("mount", 0, 0, 0, 0, 0),
    "umount2": ("umount2", 0, 0),
    "fsopen": ("fsopen", 0, 0),
    "open_tree": ("open_tree", 0, 0, 0),
    "move_mount": ("move_mount", 0, 0, 0, 0, 0),
    "mount_setattr": ("mount_setattr", 0, 0, 0, 0, 0),
    "pivot_root": ("pivot_root", 0, 0),
    "chroot": ("chroot", 0),
    "keyctl": ("keyctl", 0, -3, 0),
    "add_key": ("add_key", 0, 0, 0, 0, 0),
    "request_key": ("request_key", 0, 0, 0, 0),
    "ptrace": ("ptrace", 0, 0, 0, 0),
    "process_vm_readv": ("process_vm_readv", 0, 0, 0, 0, 0, 0),
    "process_vm_writev": ("process_vm_writev", 0, 0, 0, 0, 0, 0),
    "process_madvise": ("process_madvise", -1, 0, 0, 0, 0),
    "kcmp": ("kcmp", 0, 0, 0, 0, 0),
    "pidfd_getfd": ("pidfd_getfd", -1, 0, 0),
    "bpf": ("bpf", 0, 0, 0),
    "perf_event_open": ("perf_event_open", 0, 0, 0, 0, 0),
    "io_uring_setup": ("io_uring_setup", 1, 0),
    "io_uring_enter": ("io_uring_enter", -1, 0, 0, 0, 0, 0),
    "io_uring_register": ("io_uring_register", -1, 0, 0, 0),
    "userfaultfd": ("userfaultfd", 0),
    "memfd_secret": ("memfd_secret", 0),
    "name_to_handle_at": ("name_to_handle_at", -1, 0, 0, 0, 0),
    "open_by_handle_at": ("open_by_handle_at", -1, 0, 0),
    "syslog": ("syslog", 10, 0, 0),
    "quotactl": ("quotactl", 0, 0, 0, 0),
    "personality ADDR_NO_RANDOMIZE": ("personality", 0x0040000),
    "mbind": ("mbind", 0, 0, 0, 0, 0, 0),
    "get_mempolicy": ("get_mempolicy", 0, 0, 0, 0, 0),
    "clone NEWUSER": ("clone", 0x10000011, 0, 0, 0, 0),
    "clone NEWNET": ("clone", 0x40000011, 0, 0, 0, 0),
    "clone NEWUSER, high bits": ("clone", 0xDEAD_0000_1000_0011, 0, 0, 0, 0),
    "ioctl TIOCSTI": ("ioctl", 0, 0x5412, 0),
    "ioctl TIOCSTI, high bits": ("ioctl", 0, 0xDEAD_0000_0000_5412, 0),
    "ioctl TIOCLINUX": ("ioctl", 0, 0x541C, 0),
}


def test_denied_calls_fail_with_eperm_before_the_kernel_looks_at_them():
    """Each call has arguments with which the kernel itself would say something else, at least to root."""
    result = answer(f"print(json.dumps({{name: call(*args) for name, args in {DENIED_CALLS!r}.items()}}))")

    assert result == dict.fromkeys(DENIED_CALLS, errno.EPERM)


def test_the_filter_and_nothing_else_denies():
    """Without the program, calls that any user may do succeed or fail in another way."""
    names = ["kcmp", "keyctl", "pidfd_getfd", "personality ADDR_NO_RANDOMIZE", "process_vm_readv", "ioctl TIOCLINUX"]
    calls = {name: DENIED_CALLS[name] for name in names}

    result = answer(f"print(json.dumps({{name: call(*args) for name, args in {calls!r}.items()}}))", filtered=False)

    assert errno.EPERM not in result.values()


def test_clone3_and_unknown_numbers_look_like_an_older_kernel():
    """ENOSYS makes libc fall back."""
    result = answer('print(json.dumps([call("clone3", 0, 0), call(499), call(-1)]))')

    assert result == [errno.ENOSYS] * 3


def test_only_common_socket_families_can_be_opened():
    """UNIX, INET, INET6 and NETLINK_ROUTE open; AF_ALG, VSOCK, PACKET, audit and high bits do not."""
    calls = {
        "unix": (1, 1, 0),
        "inet": (2, 1, 0),
        "inet6": (10, 2, 0),
        "route": (16, 3, 0),
        "inet with high bits": (0xDEAD_0000_0000_0002, 1, 0),
        "alg": (38, 5, 0),
        "vsock": (40, 1, 0),
        "packet": (17, 3, 0),
        "audit": (16, 3, 9),
        "audit with high bits": (16, 3, 0xDEAD_0000_0000_0009),
        "alg with high bits": (0xDEAD_0000_0000_0026, 5, 0),
    }

    result = answer(f"print(json.dumps({{name: call('socket', *args) for name, args in {calls!r}.items()}}))")

    opened = {name for name, error in result.items() if error == 0}
    # A kernel without IPv6 answers EAFNOSUPPORT itself.
    assert opened | {"inet6"} == {"unix", "inet", "inet6", "route", "inet with high bits"}
    assert {error for error in result.values() if error} == {errno.EAFNOSUPPORT}


def test_tiocsti_types_nothing_into_the_own_terminal():
    """On a controlling terminal the character does not arrive, whatever the high bits of the request."""
    code = """
        import fcntl, os, select, termios
        pid, master = os.forkpty()
        if pid == 0:
            attributes = termios.tcgetattr(0)
            attributes[3] &= ~(termios.ICANON | termios.ECHO)
            termios.tcsetattr(0, termios.TCSANOW, attributes)
            byte = ctypes.create_string_buffer(b"x", 1)
            errors = [call("ioctl", 0, request, ctypes.byref(byte)) for request in (0x5412, 0xFF00000000005412)]
            readable = bool(select.select([0], [], [], 0.2)[0])
            os._exit(0 if errors == [1, 1] and not readable else 1)
        print(json.dumps(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))
    """
    assert answer(code) == 0


def test_children_inherit_the_program_across_exec():
    """A command that the payload starts is as confined as the payload."""
    result = answer(
        """
        import subprocess, sys
        done = subprocess.run(["sh", "-c", "grep '^Seccomp:' /proc/self/status"], capture_output=True, text=True)
        print(json.dumps(done.stdout.split()))
        """
    )

    assert result == ["Seccomp:", "2"]


STUB = """
import ctypes, mmap
memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
memory.write(CODE)
function = ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))
print(function(), flush=True)
"""
# mov eax, 20 (i386 getpid); int 0x80; ret - and: mov eax, 0x40000000|39 (x32 getpid); syscall; ret
INT_80 = bytes.fromhex("b814000000cd80c3")
X32 = bytes.fromhex("b8270000400f05c3")


@pytest.mark.skipif(MACHINE != "x86_64", reason="these entries exist on x86-64 only")
@pytest.mark.parametrize("code", [INT_80, X32], ids=["int 0x80", "x32"])
def test_entries_of_other_abis_kill_the_process(code):
    """The same numbers mean other calls there: SIGSYS for the whole process; without the program it goes on."""
    stub = f"CODE = {code!r}\n{STUB}"

    assert run(stub).returncode == -signal.SIGSYS
    assert run(stub, filtered=False).returncode in (0, -signal.SIGSEGV)  # SIGSEGV: a kernel without IA32 emulation


WORKLOADS = {
    "threads": """
        import threading
        results = []
        threads = [threading.Thread(target=results.append, args=(i,)) for i in range(8)]
        [t.start() for t in threads]; [t.join() for t in threads]
        assert sorted(results) == list(range(8))
    """,
    "subprocess": """
        import os, subprocess
        assert subprocess.run(["sh", "-c", "echo a | cat"], capture_output=True).stdout == b"a\\n"
        assert subprocess.run(["true"], close_fds=False, start_new_session=True).returncode == 0
        assert subprocess.run(["true"], preexec_fn=lambda: None).returncode == 0
        assert os.system("exit 3") >> 8 == 3
        assert os.waitstatus_to_exitcode(os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)[1]) == 0
    """,
    "asyncio": """
        import asyncio, socket
        async def main():
            process = await asyncio.create_subprocess_exec("echo", "hi", stdout=asyncio.subprocess.PIPE)
            assert (await process.communicate())[0] == b"hi\\n"
            server = await asyncio.start_server(lambda r, w: (w.write(b"x"), w.close()), "127.0.0.1", 0)
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            assert await reader.read() == b"x"
            writer.close(); server.close()
            assert await asyncio.to_thread(lambda: 5) == 5
        asyncio.run(main())
    """,
    "descriptors": """
        import ctypes, os, select, signal, socket, struct
        os.close(os.eventfd(0)); os.close(os.pidfd_open(os.getpid())); os.close(os.memfd_create("m"))
        assert libc.timerfd_create(1, 0) >= 0
        mask = ctypes.create_string_buffer(128)
        assert libc.signalfd(-1, mask, 0) >= 0 and libc.inotify_init1(0) >= 0
        signal.pidfd_send_signal(os.pidfd_open(os.getpid()), 0)
        select.epoll().close(); a, b = socket.socketpair(); a.send(b"x"); assert b.recv(1) == b"x"
        socket.if_nameindex(); assert socket.getaddrinfo("127.0.0.1", 80)
        socket.send_fds(a, [b"f"], [0]); assert len(socket.recv_fds(b, 1, 1)[1]) == 1
    """,
    "scheduling and memory": """
        import mmap, os, resource
        os.sched_setaffinity(0, os.sched_getaffinity(0)); os.nice(1); os.sched_yield()
        memory = mmap.mmap(-1, 8192); memory.madvise(mmap.MADV_DONTNEED); memory.resize(16384)
        assert call("mlock", 0, 0) == 0 and call("munlockall") == 0
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        resource.prlimit(os.getpid(), resource.RLIMIT_NOFILE)
    """,
    "files": """
        import fcntl, os, shutil, tempfile
        with tempfile.TemporaryDirectory() as d:
            p = os.path.join(d, "f"); q = os.path.join(d, "g")
            with open(p, "w+b") as f:
                f.write(b"x" * 9000); f.flush(); os.fsync(f.fileno()); os.posix_fallocate(f.fileno(), 0, 100)
                fcntl.flock(f, fcntl.LOCK_EX); fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB); os.truncate(p, 10)
            os.chmod(p, 0o755); os.utime(p); os.link(p, q); os.replace(q, q + "2")
            shutil.copy2(p, q); os.mkfifo(q + "f")
            os.symlink("f", q + "l"); assert os.readlink(q + "l") == "f"; os.statvfs(d); os.sync(); list(os.scandir(d))
            with open(p, "rb") as a, open(q, "wb") as b:
                os.copy_file_range(a.fileno(), b.fileno(), 10); os.sendfile(b.fileno(), a.fileno(), 0, 5)
    """,
    "sqlite": """
        import os, sqlite3, tempfile
        with tempfile.TemporaryDirectory() as d:
            for mode in ("wal", "delete"):
                c = sqlite3.connect(os.path.join(d, mode)); c.execute(f"pragma journal_mode={mode}")
                c.execute("create table t(a)"); c.execute("insert into t values (1)"); c.commit()
                assert c.execute("select * from t").fetchall() == [(1,)]; c.close()
    """,
    "numpy and pandas": """
        import numpy, pandas
        assert (numpy.ones((300, 300)) @ numpy.ones((300, 300))).sum() == 300**3
        numpy.linalg.svd(numpy.random.default_rng(0).random((50, 50)))
        assert pandas.DataFrame({"a": [1, 2], "b": [3, 4]}).groupby("a").sum().b.sum() == 7
    """,
    "ssl, locale, time": """
        import hashlib, locale, ssl, time, uuid, zoneinfo, getpass, platform
        ssl.create_default_context(); locale.setlocale(locale.LC_ALL, "")
        time.sleep(0.01); uuid.uuid4(); platform.platform()
    """,
}


@pytest.mark.parametrize("name", WORKLOADS)
def test_normal_python_works(name):
    """What notebooks do every day is not in the way of the program."""
    done = run(WORKLOADS[name])

    assert (done.returncode, done.stderr) == (0, "")


MULTIPROCESSING = """
import multiprocessing, sys
from multiprocessing import shared_memory

def square(number):
    return number * number

def work(method):
    context = multiprocessing.get_context(method)
    with context.Pool(2) as pool:
        assert pool.map(square, range(5)) == [0, 1, 4, 9, 16]
    lock, value, queue = context.Lock(), context.Value("i", 0), context.Queue()
    with lock, value.get_lock():
        queue.put(1)
    assert queue.get(timeout=20) == 1
    block = shared_memory.SharedMemory(create=True, size=100)
    block.close(); block.unlink()

if __name__ == "__main__":
    install()
    work(sys.argv[1])
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_works(method, tmp_path):
    """Pools, locks, queues and shared memory, with each start method."""
    script = tmp_path / "script.py"
    script.write_text(INSTALL + MULTIPROCESSING)

    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), method], capture_output=True, text=True, timeout=60, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")
