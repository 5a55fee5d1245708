"""What no design of this kind can go below: the same steps of kernel and interpreter with nothing of ours around them.

A process with the zygote's image forks children ahead. One that waits is told to run ``pass``, without a container
around it, and says when it has; one that is cloned into fresh namespaces runs ``pass`` at once, without root file
system, cgroup or limits. A third has all that a container has, by as many system calls in a straight line: mounts,
groups, a process 1, a payload that is confined, figures, removal; a fourth is one of those that waits to be told, is
killed when it has run, and of which some figures are read; what memory several of those take, each with a process that
has made it and waits for its end, is measured, too. Nothing there is checked, watched, told or kept for the next.
"""

from __future__ import annotations

import ast
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator

from benchmarks.measure import Subject
from container_magic.cgroups.facts import probe as probe_cgroups
from container_magic.host import probe
from container_magic.rootfs.host import host_tree, interpreter_prefixes

WAITING = "floor of warm: a fork that waits, no container"
CONTAINED = "floor of warm: a container made in a straight line, that waits"
FRESH = "floor of cold: a fork in namespaces, nothing mounted"
STRAIGHT = "floor of cold: the system calls of a container, in a straight line"
STRAIGHT_RATE = "floor: such containers, two at a time"
TWO_INTERPRETERS = "floor: two interpreters with the modules of both, one after the other"

_FIGURES = ("cpuacct.usage", "cpu.stat", "memory.max_usage_in_bytes", "memory.peak", "pids.current", "io.stat")

_STANDARD = "import ctypes, dataclasses, json, pickle, socket, typing"
TWO = f"""{_STANDARD}
import os, sys
words = [sys.executable, "-s", "-c", {_STANDARD!r}]
os.waitpid(os.posix_spawn(sys.executable, words, os.environ), 0)
"""

_SERVER = """
import gc, itertools, os, signal, socket, sys
import container_magic.process.exchange, container_magic.process.plain_shell, container_magic.runtime.server
from container_magic.linux import constants as c, syscalls
from container_magic.linux.userns import IdMapping, write_maps

from container_magic.linux import capabilities
from container_magic.linux.seccomp import default_program, sock_fprog
from container_magic.rootfs.operations import MASKED, READ_ONLY

control = socket.socket(fileno=int(sys.argv[1]))
maps, deny = [IdMapping(**one) for one in eval(sys.argv[2])], sys.argv[3] == "True"
everything = c.CLONE_NEWUSER | c.CLONE_NEWNS | c.CLONE_NEWPID | c.CLONE_NEWIPC | c.CLONE_NEWUTS | c.CLONE_NEWNET
run = lambda source: exec(compile(source, "<cell>", "exec", dont_inherit=True), {})
run("pass")
gc.collect()
gc.freeze()


def wait(end):
    run("pass")
    message, streams, _, _ = socket.recv_fds(end, 65536, 3)
    if message:
        for target, source in enumerate(streams):
            os.dup2(source, target)
            os.close(source)
        run(message)
        end.send(b"x")
        end.recv(1)
    os._exit(0)


lowers, groups = int(sys.argv[4]), eval(sys.argv[5])
masked = [path for path in MASKED if os.path.isfile(path)]
fixed = [path for path in READ_ONLY if os.path.exists(path)]
program, last = sock_fprog(default_program()), capabilities.last_capability()
numbers = itertools.count()
stage, root = "/tmp", "/tmp/root"
layers = [f"{root}/layer{n}" for n in range(lowers)]


def put(directory, name, text):
    fd = os.open(f"{directory}/{name}", os.O_WRONLY)
    os.write(fd, text)
    os.close(fd)


def mounts():
    syscalls.mount("", "/", None, c.MS_REC | c.MS_PRIVATE)
    syscalls.mount("tmpfs", stage, "tmpfs", c.MS_NOSUID | c.MS_NODEV, "size=100m,mode=0755")
    for name in ("root", "lower", *(f"{kind}{n}" for kind in ("upper", "work") for n in range(lowers + 1))):
        os.mkdir(f"{stage}/{name}")
    for n, (lower, where) in enumerate([(f"{stage}/lower", root), *(("/usr", layer) for layer in layers)]):
        data = f"lowerdir={lower},upperdir={stage}/upper{n},workdir={stage}/work{n},userxattr"
        syscalls.mount("overlay", where, "overlay", c.MS_NOSUID | c.MS_NODEV, data)
        for path in (root + "/proc", root + "/sys", root + "/dev", root + "/mqueue", *layers) if n == 0 else ():
            os.mkdir(path)
    plain = c.MS_NOSUID | c.MS_NODEV | c.MS_NOEXEC
    syscalls.mount("proc", root + "/proc", "proc", plain)
    syscalls.mount("sysfs", root + "/sys", "sysfs", plain | c.MS_RDONLY)
    syscalls.mount("/dev", root + "/dev", None, c.MS_BIND | c.MS_REC)
    syscalls.mount("devpts", root + "/dev/pts", "devpts", c.MS_NOSUID | c.MS_NOEXEC, "newinstance,ptmxmode=0666")
    syscalls.mount("tmpfs", root + "/dev/shm", "tmpfs", plain, "size=100m")
    syscalls.mount("mqueue", root + "/mqueue", "mqueue", plain)
    for path in masked:
        syscalls.mount("/dev/null", root + path, None, c.MS_BIND)
    for path in fixed:
        syscalls.mount(root + path, root + path, None, c.MS_BIND | c.MS_REC)
        syscalls.mount_setattr(c.AT_FDCWD, root + path, attr_set=c.MOUNT_ATTR_RDONLY)
    os.chdir(root)
    syscalls.pivot_root(".", ".")
    syscalls.umount(".")


def confine(tasks):
    for fd in tasks:
        os.write(fd, b"0")
    syscalls.unshare(c.CLONE_NEWCGROUP)
    capabilities.clear()
    syscalls.seccomp_set_mode_filter(program)


def contained(far, tasks, order):
    far.recv(1)
    if order is not None:
        order[0].close()
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    mounts()
    capabilities.drop_bounding_set(last)
    syscalls.prctl(c.PR_SET_NO_NEW_PRIVS, 1)
    pid = os.fork()
    if pid == 0 and order is not None:
        own = os.pidfd_open(os.getpid())
        confine(tasks)
        socket.send_fds(order[1], [b"r"], [own])
        os.close(own)
        wait(order[1])
    confine(tasks)
    if pid == 0:
        run("pass")
        os._exit(0)
    os._exit(os.waitpid(pid, 0)[1] not in (0, signal.SIGKILL))


def make():
    pid, made = begin(None)
    return end(pid, made)


def begin(order):
    made, tasks, number = [], [], next(numbers)
    try:
        for path, kind in groups:
            made.append(f"{path}/container_magic-floor-{os.getpid()}-{number}")
            os.mkdir(made[-1])
            for name in ("cpuset.cpus", "cpuset.mems") if kind == "cpuset" else ():
                put(made[-1], name, open(f"{path}/{name}", "rb").read())
            if kind == "memory":
                put(made[-1], "memory.limit_in_bytes", b"200M")
            if kind == "pids":
                put(made[-1], "pids.max", b"256")
            tasks.append(os.open(f"{made[-1]}/{'cgroup.procs' if kind == 'unified' else 'tasks'}", os.O_WRONLY))
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = syscalls.clone(everything)
        if pid == 0:
            try:
                contained(far, tasks, order)
            except OSError as error:
                os.write(2, f"the floor: {error}\\n".encode())
            finally:
                os._exit(1)
        write_maps(pid, maps, maps, deny_setgroups=deny)
        near.send(b"x")
        near.close()
        far.close()
        return pid, made
    except BaseException:
        for path in made:
            os.rmdir(path)
        raise
    finally:
        for fd in tasks:
            os.close(fd)


def end(pid, made):
    failed = os.waitpid(pid, 0)[1] != 0
    for path in made:
        os.rmdir(path)
    return failed


def keep():
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid, made = begin((near, far))
    socket.send_fds(control, [repr(made).encode()], [near.fileno()])
    near.close()
    far.close()
    return end(pid, made)


while wanted := control.recv(16):
    if wanted[:1] == b"m":
        control.send(bytes([any([make() for _ in range(int(wanted[1:]))])]))
        continue
    if wanted == b"k":
        control.send(bytes([keep()]))
        continue
    if wanted == b"s":
        if os.fork() == 0:
            os._exit(keep())
        continue
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if wanted == b"w":
        pid = os.fork()
        if pid == 0:
            near.close()
            wait(far)
        socket.send_fds(control, [b"w"], [near.fileno()])
        near.close()
    else:
        pid = syscalls.clone(everything)
        if pid == 0:
            far.recv(1)
            run("pass")
            os._exit(0)
        write_maps(pid, maps, maps, deny_setgroups=deny)
        near.send(b"x")
        near.close()
    far.close()
    control.send(bytes([os.waitpid(pid, 0)[1] != 0]))
while True:
    try:
        os.wait()
    except ChildProcessError:
        break
"""


@contextlib.contextmanager
def floors() -> Iterator[tuple[Subject, ...]]:
    """Give the subjects of single starts, while their process runs."""
    with contextlib.ExitStack() as stack:
        control, one, other = (stack.enter_context(_server()) for _ in range(3))
        waiting = stack.enter_context(contextlib.closing(_Waiting(one)))
        contained = stack.enter_context(contextlib.closing(_Contained(other)))
        yield (
            Subject(name=WAITING, call=waiting.call),
            Subject(name=CONTAINED, call=contained.call),
            Subject(name=FRESH, call=lambda: _timed(control, b"c")),
            Subject(name=STRAIGHT, call=lambda: _timed(control, b"m1")),
        )


@contextlib.contextmanager
def rate_floor(runs: int) -> Iterator[Subject]:
    """Give the subject that makes ``runs`` containers in a straight line, two at a time, while its processes run."""
    with _server() as one, _server() as other:

        def call() -> float:
            begun = time.perf_counter()
            for control in (one, other):
                control.send(b"m%d" % (runs // 2))
            for control in (one, other):
                _check(control.recv(1))
            return runs // 2 * 2 / (time.perf_counter() - begun)

        yield Subject(name=STRAIGHT_RATE, call=call, unit="runs/s")


@contextlib.contextmanager
def straight_containers(count: int) -> Iterator[tuple[int, Callable[[], None]]]:
    """Give a process, and what has ``count`` containers wait below it, each made by a process of its own."""
    with contextlib.ExitStack() as held, _started() as (pid, control):

        def make() -> None:
            for _ in range(count):
                control.send(b"s")
                end, killed, files = _received(control)
                held.enter_context(end)
                for fd in (killed, *files):
                    held.callback(os.close, fd)

        _timed(control, b"m1")
        yield pid, make
        held.close()


@contextlib.contextmanager
def _server() -> Iterator[socket.socket]:
    with _started() as (_, control):
        yield control


@contextlib.contextmanager
def _started() -> Iterator[tuple[int, socket.socket]]:
    features = probe()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    os.set_inheritable(theirs.fileno(), True)
    maps = [vars(mapping) for mapping in features.id_mappings]
    words = [sys.executable, "-c", _SERVER, str(theirs.fileno()), repr(maps), str(features.rootless)]
    # as many overlays as a container has, all of a directory that every user may enter
    words += [str(len(host_tree(interpreter_prefixes()).lowers)), repr(_groups())]
    pid = os.posix_spawn(sys.executable, words, os.environ)
    theirs.close()
    with ours:
        yield pid, ours
    os.waitpid(pid, 0)


def _groups() -> list[tuple[str, str]]:
    """Return the directories in which a container of this host has its groups, each with a controller of its own."""
    facts = probe_cgroups()
    wanted = ("unified", "cpuset", "memory", "pids", "cpuacct", "blkio") if facts.setup else ()
    found = {os.stat(facts.bases[kind]).st_ino: (facts.bases[kind], kind) for kind in wanted if kind in facts.bases}
    return list(found.values())


class _Waiting:
    """A child that waits while the others have their turns, as our containers do; after each call the next is made."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._end = self._next()

    def _next(self) -> socket.socket:
        self._control.send(b"w")
        _, (end,), _, _ = socket.recv_fds(self._control, 1, 1)
        return socket.socket(fileno=end)

    def call(self) -> float:
        """Tell the child to run ``pass``, and time that up to its word that it has; what it has written is read."""
        pipes = [os.pipe(), os.pipe()]
        fds = [os.open(os.devnull, os.O_RDONLY), *(writer for _, writer in pipes)]
        for reader, _ in pipes:
            os.set_blocking(reader, False)
        begun = time.perf_counter()
        socket.send_fds(self._end, [b"pass"], fds)
        self._end.recv(1)
        self._measure()
        for reader, _ in pipes:
            with contextlib.suppress(BlockingIOError):
                os.read(reader, 1)
        elapsed = time.perf_counter() - begun
        for fd in (*fds, *(reader for reader, _ in pipes)):
            os.close(fd)
        self.close()
        self._end = self._next()
        return elapsed

    def _measure(self) -> None:
        """Read what it has used, where there is something to be read."""

    def close(self) -> None:
        """Let the child go."""
        self._end.close()
        _check(self._control.recv(1))


class _Contained(_Waiting):
    """As that, in a container: the child is killed when it has run, and its use read."""

    def _next(self) -> socket.socket:
        self._control.send(b"k")
        end, self._killed, self._files = _received(self._control)
        return end

    def _measure(self) -> None:
        signal.pidfd_send_signal(self._killed, signal.SIGKILL)
        for fd in self._files:
            os.pread(fd, 4096, 0)

    def close(self) -> None:
        """Let the child go."""
        for fd in (self._killed, *self._files):
            os.close(fd)
        super().close()


def _received(control: socket.socket) -> tuple[socket.socket, int, list[int]]:
    """Receive a container that waits: the way to its payload, a pidfd of that, and files that tell what it uses."""
    told, (fd,), _, _ = socket.recv_fds(control, 65536, 1)
    directories = ast.literal_eval(told.decode())
    end = socket.socket(fileno=fd)
    _, (payload,), _, _ = socket.recv_fds(end, 1, 1)
    paths = (f"{directory}/{name}" for directory in directories for name in _FIGURES)
    return end, payload, [os.open(path, os.O_RDONLY) for path in paths if os.path.exists(path)]


def _timed(control: socket.socket, word: bytes) -> float:
    begun = time.perf_counter()
    control.send(word)
    _check(control.recv(1))
    return time.perf_counter() - begun


def _check(status: bytes) -> None:
    if status != b"\0":
        raise RuntimeError("the process that the floor is measured with failed")
