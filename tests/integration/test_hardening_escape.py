"""Ways out: attacks on the host's files, processes and kernel, each written as its author would write it."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import socket
import subprocess
import textwrap
from pathlib import Path

import pytest

import container_magic as cm
from container_magic.runtime import client

# Called by number, past every wrapper; the names are the kernel's.
SYSCALL = """
import ctypes, errno as _e, os
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_machine = 0 if os.uname().machine == 'x86_64' else 1
NR = {name: pair[_machine] for name, pair in dict(
    chmod=(90, -1), fchmod=(91, 52), fchmodat=(268, 53), fchmodat2=(452, 452), mkdirat=(258, 34), mknodat=(259, 33),
    openat=(257, 56), openat2=(437, 437), mount=(165, 40), ioprio_set=(251, 30), sched_setattr=(314, 274),
    io_setup=(206, 0), rt_sigqueueinfo=(129, 138), tgkill=(234, 131), mq_open=(240, 180), timer_create=(222, 107),
    memfd_create=(319, 279), shmget=(29, 194), fsetxattr=(190, 7)).items()}
def syscall(name, *args):
    ctypes.set_errno(0)
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in args]
    result = _libc.syscall(ctypes.c_long(NR[name]), *words)
    return _e.errorcode[ctypes.get_errno()] if result == -1 else result
"""


def hacking(source: str) -> str:
    """Return ``source`` with ``syscall(name, ...)`` at hand."""
    return SYSCALL + textwrap.dedent(source)


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """A directory that everybody may write to, below directories that everybody may pass."""
    for part in (tmp_path, *tmp_path.parents):
        if str(part).startswith("/tmp/") and part.stat().st_uid == os.geteuid():
            part.chmod(part.stat().st_mode | 0o011)
    path = tmp_path / "volume"
    path.mkdir()
    path.chmod(0o777)
    return path


class TestVolumes:
    """What an earlier run, or whoever fills a volume, may leave there."""

    def test_links_on_a_volume_lead_to_the_container(self, inside, volume):
        """Symbolic links to the host's files, absolute or by many dots, find the container's files or nothing."""
        secret = volume.parent / "secret"
        secret.write_text("secret")
        (volume / "absolute").symlink_to(secret)
        (volume / "dots").symlink_to("../" * 20 + str(secret)[1:])
        (volume / "root").symlink_to("/")

        found = inside(
            f"""
            import os
            answer([error_of(open, '/x/absolute'), error_of(open, '/x/dots'),
                    os.path.exists('/x/root{secret}'), os.path.samefile('/x/root', '/')])
            """,
            volume=f"{volume}:/x",
        )

        assert found == ["ENOENT", "ENOENT", False, True]

    def test_a_link_as_destination_leads_to_the_container(self, inside, volume):
        """A volume whose mount point is a link on another volume lands in the container (CVE-2021-30465)."""
        target, data = volume.parent / "target", volume.parent / "data"
        target.mkdir(mode=0o777)
        target.chmod(0o777)
        data.mkdir()
        (data / "file").write_text("data")
        (volume / "link").symlink_to(target)

        with pytest.raises(Exception, match=r"File exists|No such file"):
            inside("answer(1)", volume=[f"{volume}:/x:rw", f"{data}:/x/link/new"])
        (volume / "etc").symlink_to("/etc")
        found = inside("answer(open('/etc/new/file').read())", volume=[f"{volume}:/x:rw", f"{data}:/x/etc/new"])

        assert found == "data"
        assert list(target.iterdir()) == []
        assert not Path("/etc/new").exists()

    @pytest.mark.parametrize("number", range(3, 24, 2))
    def test_links_on_a_volume_do_not_reach_the_supervisors_descriptors(self, run, volume, number):
        """A link to a descriptor that the set-up may hold makes nothing on the host (CVE-2024-21626)."""
        outside = volume.parent / "outside"
        outside.mkdir()
        outside.chmod(0o777)
        for fd in (number, number + 1):
            (volume / f"fd{fd}").symlink_to(f"/proc/self/fd/{fd}/{'../' * 12}{str(outside)[1:]}")

        for fd in (number, number + 1):
            for options in (
                {"volume": [f"{volume}:/x:rw", f"/usr:/x/fd{fd}/made-{fd}"]},
                {"volume": f"{volume}:/x:rw", "workdir": f"/x/fd{fd}/worked-{fd}"},
            ):
                try:
                    run("pass", **options)
                except Exception as error:
                    assert "cannot" in str(error) or "supervisor" in str(error)

        assert list(outside.iterdir()) == []

    def test_no_set_user_id_file_can_be_left(self, inside, volume):
        """No call makes a set-user-id or set-group-id file on a volume: not by mode, flag, temporary file or ACL."""
        refused = inside(
            hacking(
                """
                AT, MODE, O_CREAT, O_RDWR, O_TMPFILE = -100, 0o4755, 0o100, 2, 0o20200000
                open('/x/plain', 'w').close()
                fd = os.open('/x/plain', os.O_RDWR)
                high = 0xdead << 32
                how = ctypes.create_string_buffer((O_CREAT | O_RDWR).to_bytes(8, 'little') + MODE.to_bytes(8, 'little')
                                                  + bytes(8), 24)
                capability = ctypes.create_string_buffer(bytes.fromhex('0100000200040000' + '00' * 12), 20)
                answer([
                    syscall('fchmod', fd, MODE), syscall('fchmod', fd, 0o2755 | high),
                    syscall('fchmodat', AT, b'/x/plain', MODE), syscall('fchmodat2', AT, b'/x/plain', MODE, 0),
                    syscall('openat', AT, b'/x/a', O_CREAT | O_RDWR, MODE),
                    syscall('openat', AT, b'/x', O_TMPFILE | O_RDWR, MODE),
                    syscall('openat', AT, b'/x/b', O_CREAT | O_RDWR | high, 0o2755 | high),
                    syscall('openat2', AT, b'/x/c', how, 24),
                    syscall('mknodat', AT, b'/x/d', 0o100000 | MODE, 0), syscall('mkdirat', AT, b'/x/e', 0o2755),
                    syscall('fsetxattr', fd, b'security.capability', capability, 20, 0),
                    error_of(os.chmod, '/x/plain', MODE),
                ])
                """
            ),
            volume=f"{volume}:/x:rw",
        )

        assert set(refused) <= {"EPERM", "ENOSYS"}, refused
        assert [path.name for path in volume.iterdir()] == ["plain"]
        assert (volume / "plain").stat().st_mode & 0o7000 == 0
        assert os.listxattr(volume / "plain") == []

    def test_hard_links_do_not_cross_the_volume(self, inside, volume):
        """A program of the host cannot be linked onto a writable volume, nor from one volume to another."""
        other = volume.parent / "other"
        other.mkdir()
        (other / "file").write_text("mine")

        found = inside(
            """
            import os, sys
            answer([error_of(os.link, os.path.realpath(sys.executable), '/x/python'),
                    error_of(os.link, '/o/file', '/x/file')])
            """,
            volume=[f"{volume}:/x:rw", f"{other}:/o:ro"],
        )

        assert found == ["EXDEV", "EXDEV"]
        assert list(volume.iterdir()) == []


class TestStdin:
    """What ``contain run`` reads is not what contained code may write."""

    REOPEN = """
import os
for flags in (os.O_RDWR, os.O_WRONLY, os.O_RDWR | os.O_TRUNC):
    try:
        os.write(os.open('/proc/self/fd/0', flags), b'forged')
    except OSError:
        pass
try:
    os.write(0, b'forged')
except OSError:
    pass
"""

    def test_a_file_on_stdin_cannot_be_written(self, contain, volume):
        """The file behind ``< FILE`` is not opened anew for writing."""
        path = volume / "input"
        path.write_text("data of the host\n")
        path.chmod(0o666)
        with path.open() as stdin:
            contain("run", "--quiet", "-c", self.REOPEN, stdin=stdin)

        assert path.read_text() == "data of the host\n"

    def test_a_file_on_stdin_is_read(self, contain, volume):
        """It still arrives, whole."""
        path = volume / "input"
        path.write_bytes(b"x" * 300_000)
        with path.open() as stdin:
            done = contain("run", "--quiet", "-c", "import sys; print(len(sys.stdin.read()))", stdin=stdin)

        assert done.stdout == b"300000\n"

    def test_a_file_that_is_an_input_cannot_be_written(self, volume):
        """Neither an input of ``map`` nor ``stdin`` leads back to the file that it came from."""
        path = volume / "input"
        path.write_text("data of the host\n")
        path.chmod(0o666)
        source = "print(input())\n" + self.REOPEN
        reports = [*cm.map(source, [path], mem="256M"), cm.run(source, mem="256M", stdin=path)]

        assert path.read_text() == "data of the host\n"
        assert [report.verdict for report in reports] == ["OK", "OK"]

    def test_a_socket_on_stdin_cannot_be_written(self, contain):
        """What is connected to the caller's standard input hears nothing from inside."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            contain("run", "--quiet", "-c", self.REOPEN, stdin=theirs)
            ours.setblocking(False)

            with pytest.raises(BlockingIOError):
                ours.recv(100)


class TestInterpreter:
    """The programs of the host, which every container runs."""

    def test_reopened_descriptors_do_not_write(self, inside):
        """A descriptor of the running program, opened as a path, cannot be opened for writing after an exec either."""
        program = textwrap.dedent(
            """
            import os, sys
            for fd in sys.argv[1:]:
                for flags in (os.O_RDWR, os.O_WRONLY | os.O_APPEND, os.O_WRONLY | os.O_TRUNC):
                    try:
                        print(os.write(os.open(f"/proc/self/fd/{fd}", flags), b"x"))
                    except OSError as error:
                        print(error.errno)
            """
        )
        found = inside(
            f"""
            import os, subprocess, sys
            fds = [os.open(f'/proc/{{pid}}/exe', os.O_PATH) for pid in ('self', 'thread-self', os.getpid())]
            # sh stands between: the process that tries executes another program than the one it wants to write to
            done = subprocess.run(['sh', '-c', 'exec "$@"', 'sh', sys.executable, '-c', {program!r}, *map(str, fds)],
                                  capture_output=True, text=True, pass_fds=fds)
            answer([done.stdout.split(), done.stderr, len(fds)])
            """
        )

        assert found[1] == ""
        assert len(found[0]) == 9
        assert set(found[0]) <= {str(number) for number in (errno.ETXTBSY, errno.EROFS, errno.EACCES)}

    def test_no_path_to_the_interpreter_changes_it(self, inside):
        """Whatever succeeds inside by any path, the files that the zygote runs stay as they are."""
        zygote = client.zygote().process.pid
        mapped = [f"/proc/{zygote}/map_files/{entry}" for entry in os.listdir(f"/proc/{zygote}/map_files")]
        files = sorted({os.readlink(path) for path in [*mapped, f"/proc/{zygote}/exe"]})
        files = [path for path in files if os.path.isfile(path)]

        def digest() -> list[tuple[str, str, int, int, int]]:
            found = []
            for path in files:
                status, data = os.stat(path), Path(path).read_bytes()
                found.append(
                    (path, hashlib.sha256(data).hexdigest(), status.st_mode, status.st_mtime_ns, status.st_nlink)
                )
            return found

        before = digest()
        outcomes = inside(
            f"""
            import os
            def tries(path):
                fd = os.open(path, os.O_PATH)
                via = f'/proc/self/fd/{{fd}}'
                ways = (f'/proc/1/root{{path}}', f'/proc/self/root{{path}}', f'/proc/self/cwd/..{{path}}')
                for target in (path, via, *ways):
                    yield lambda: os.write(os.open(target, os.O_WRONLY), b'x')
                    yield lambda: os.truncate(target, 0)
                    yield lambda: os.chmod(target, 0o777)
                    yield lambda: os.utime(target, (1, 1))
                    yield lambda: os.link(target, f'/tmp/{{os.getpid()}}', follow_symlinks=True)
                    yield lambda: os.setxattr(target, 'user.x', b'x')
                yield lambda: os.link(path, path + '.link')
                yield lambda: os.write(os.open(path + '.link', os.O_WRONLY), b'x')
                yield lambda: os.rename(path + '.link', path)
            count = 0
            for pid in ('self', '1', str(os.getppid())):
                for name in ('exe', 'mem', 'map_files'):
                    error_of(lambda: os.write(os.open(f'/proc/{{pid}}/{{name}}', os.O_RDWR), b'x'))
            for path in {files!r}:
                if os.path.exists(path):
                    for attempt in tries(path):
                        error_of(attempt)
                        count += 1
            answer(count)
            """
        )

        assert outcomes >= 30
        assert digest() == before


class TestZygote:
    """The process that every cell is forked from."""

    SCAN = """
import re, os
pattern = re.compile(b'S' b'ECRET-[0-9a-f]{32}')
found = set()
with open('/proc/self/mem', 'rb', buffering=0) as memory:
    for line in open('/proc/self/maps').read().splitlines():
        bounds, access, *_ = line.split()
        low, high = (int(word, 16) for word in bounds.split('-'))
        if access[0] == 'r' and high - low < 1 << 28 and '[v' not in line:
            try:
                memory.seek(low)
                found |= set(pattern.findall(memory.read(high - low)))
            except (OSError, OverflowError, ValueError):
                pass
answer(sorted(word.decode() for word in found))
"""

    def test_memory_holds_nothing_of_the_caller_or_of_other_containers(self, client_process):
        """A scan of the payload's whole memory finds its own variable, none of the caller's or of an earlier run's."""
        names = ("environment", "earlier code", "earlier variable", "earlier input", "own")
        words = {name: f"SECRET-{secrets.token_hex(16)}" for name in names}
        code = f"import json\ndef answer(x): print(json.dumps(x))\n{self.SCAN}"
        process = client_process(
            f"""
            import json, os, sys
            words = json.loads(sys.stdin.readline())
            os.environ["API_TOKEN"] = words["environment"]  # before the zygote is started
            import container_magic as cm
            cm.run(f"x = '{{words['earlier code']}}'; print(x)", env={{"E": words["earlier variable"]}}, mem="256M")
            report = cm.run({code!r}, env={{"E": words["own"]}}, mem="256M")
            print(json.dumps([json.loads(report.stdout), report.stderr]))
            """,
            stdin=subprocess.PIPE,
        )
        out, err = process.communicate(json.dumps(words) + "\n", timeout=60)
        found, complaints = json.loads(out)

        assert (err, complaints) == ("", "")
        assert {name for name, word in words.items() if word in found} == {"own"}
        assert len(found) == 1

    def test_no_object_of_the_runtime_is_left_to_talk_to(self, inside):
        """No socket, pipe or descriptor of the runtime can be found among the interpreter's objects but the channel."""
        found = inside(
            """
            import gc, os, socket, sys
            sockets = [o for o in gc.get_objects() if isinstance(o, socket.socket) and o.fileno() > 2]
            answer([[o.fileno() for o in sockets if error_of(os.fstat, o.fileno()) is None],
                    [int(n) for n in os.listdir('/proc/self/fd') if int(n) > 2 and error_of(os.fstat, int(n)) is None],
                    [n for n in sys.modules if n.startswith('container_magic')], os.path.exists('/.container_magic')])
            """
        )

        (channel,) = found[0]
        assert found == [[channel], [channel], [], False]

    def test_random_numbers_are_each_containers_own(self, run):
        """Two forks of one interpreter do not draw the same numbers."""
        source = "import random, os; print(random.random(), os.urandom(8).hex())"

        assert set(run(source).stdout.split()).isdisjoint(run(source).stdout.split())
