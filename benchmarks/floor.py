"""What no design of this kind can go below: the same steps of kernel and interpreter with nothing of ours around them.

A process with the zygote's image forks children ahead. One that waits is told to run ``pass``, without a container
around it; one that is cloned into fresh namespaces runs ``pass`` at once, without root file system, cgroup or limits.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from collections.abc import Iterator

from benchmarks.measure import Subject
from container_magic.host import probe
from container_magic.process.handshake import memory_file

WAITING = "floor of warm: a fork that waits, no container"
FRESH = "floor of cold: a fork in namespaces, nothing mounted"
TWO_INTERPRETERS = "floor: two interpreters with the modules of both, one after the other"

_STANDARD = "import ctypes, dataclasses, json, pickle, socket, typing"
TWO = f"""{_STANDARD}
import os, sys
words = [sys.executable, "-s", "-c", {_STANDARD!r}]
os.waitpid(os.posix_spawn(sys.executable, words, os.environ), 0)
"""

_SERVER = """
import gc, os, socket, sys
import container_magic.process.exchange, container_magic.process.plain_shell, container_magic.runtime.server
from container_magic.linux import constants as c, syscalls
from container_magic.linux.userns import IdMapping, write_maps

control = socket.socket(fileno=int(sys.argv[1]))
maps, deny = [IdMapping(**one) for one in eval(sys.argv[2])], sys.argv[3] == "True"
everything = c.CLONE_NEWUSER | c.CLONE_NEWNS | c.CLONE_NEWPID | c.CLONE_NEWIPC | c.CLONE_NEWUTS | c.CLONE_NEWNET
run = lambda source: exec(compile(source, "<cell>", "exec", dont_inherit=True), {})
run("pass")
gc.collect()
gc.freeze()


def wait(end):
    run("pass")
    code, *streams = socket.recv_fds(end, 1, 4)[1]
    for target, source in enumerate(streams):
        os.dup2(source, target)
        os.close(source)
    run(os.pread(code, 65536, 0))
    os._exit(0)


while wanted := control.recv(1):
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if wanted == b"w":
        pid = os.fork()
        if pid == 0:
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
"""


@contextlib.contextmanager
def floors() -> Iterator[tuple[Subject, ...]]:
    """Give the subjects, while their process runs."""
    features = probe()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    os.set_inheritable(theirs.fileno(), True)
    maps = [vars(mapping) for mapping in features.id_mappings]
    words = [sys.executable, "-c", _SERVER, str(theirs.fileno()), repr(maps), str(features.rootless)]
    pid = os.posix_spawn(sys.executable, words, os.environ)
    theirs.close()
    with ours:
        yield (Subject(name=WAITING, call=_Waiting(ours).call), Subject(name=FRESH, call=lambda: _fresh(ours)))
    os.waitpid(pid, 0)


class _Waiting:
    """A child that waits, and the next one after each call."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control

    def call(self) -> float:
        """Have one made, tell it to run ``pass`` when it has come to rest, and time that up to its exit status."""
        self._control.send(b"w")
        _, (end,), _, _ = socket.recv_fds(self._control, 1, 1)
        time.sleep(0.05)
        begun = time.perf_counter()
        pipes = [os.pipe(), os.pipe()]
        fds = [memory_file("code", b"pass"), os.open(os.devnull, os.O_RDONLY), *(writer for _, writer in pipes)]
        with socket.socket(fileno=end) as child:
            socket.send_fds(child, [b"S"], fds)
        for fd in fds:
            os.close(fd)
        _check(self._control.recv(1))
        for reader, _ in pipes:
            os.read(reader, 1)
            os.close(reader)
        return time.perf_counter() - begun


def _fresh(control: socket.socket) -> float:
    begun = time.perf_counter()
    control.send(b"c")
    _check(control.recv(1))
    return time.perf_counter() - begun


def _check(status: bytes) -> None:
    if status != b"\0":
        raise RuntimeError("the process that the floor is measured with failed")
