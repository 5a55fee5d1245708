"""The end of a run without its supervisor: what a client needs to hear of it, and to measure it itself.

A payload that has come to its end well says so on its channel. Each process that such word passes has to be woken, and
to wake two costs more than most short cells take; so the client reads the same files of the cgroup as the supervisor,
through descriptors that this has given it. The supervisor hears of the end when there is time for it, and removes what
is left.

The payload then waits a moment: to be killed, or to say farewell to init instead, if the client cannot do it or has
other things to do.

Word from inside is believed as little as an exit code: who says farewell is killed before anything is read, and nobody
else may be there who could go on unseen. All else (a limit, an error, children left behind) is the supervisor's to
tell.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from container_magic.cgroups import CgroupManager, Handover, figures_of
from container_magic.events import Usage
from container_magic.runtime.measure import LITTLE_BYTES, numbers_of

_TASKS = 2
"""Init and the payload."""
_READ_BYTES = 4096


@contextlib.contextmanager
def offer(
    cgroup: CgroupManager, init_pid: int, payload_pid: int, start: socket.socket
) -> Iterator[tuple[dict[str, Any], dict[str, int]]]:
    """Yield, for a client, what a payload is seen off with: a frame, and descriptors by name; both empty: it cannot be.

    ``start`` is the supervisor's end of the socket that the payload, ``payload_pid``, holds the other end of.
    """
    handover = cgroup.hand_over() if payload_pid else None
    with contextlib.ExitStack() as stack:
        own: dict[str, int] = {}
        if handover is not None:
            with contextlib.suppress(OSError):
                own = _open(init_pid, payload_pid, stack)
        # a payload that lives now lived before: that was its pid, and no later process's
        if handover is None or not own or _is_closed(start):
            yield {}, {}
        else:
            yield {"version": handover.version, "start": handover.start}, {**own, **handover.fds}


def _open(init_pid: int, payload_pid: int, stack: contextlib.ExitStack) -> dict[str, int]:
    found = {"payload": os.pidfd_open(payload_pid)}
    stack.callback(os.close, found["payload"])
    for name, pid in (("io of init", init_pid), ("io of payload", payload_pid)):
        found[name] = os.open(f"/proc/{pid}/io", os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, found[name])
    return found


def _is_closed(end: socket.socket) -> bool:
    poll = select.poll()
    poll.register(end, 0)
    return bool(poll.poll(0))


class Parting:
    """What a client sees a payload off with: ``offer``'s, which are its own now."""

    def __init__(self, told: Mapping[str, Any], fds: dict[str, int]) -> None:
        self._payload, self._init_io, self._payload_io = (
            fds.pop(name) for name in ("payload", "io of init", "io of payload")
        )
        self.has_killed = False
        """Whether the payload was ended from here; its supervisor then hears of a death by SIGKILL."""
        self._figures = figures_of(Handover(version=told["version"], fds=fds, start=told["start"]))
        self._fds = (self._payload, self._init_io, self._payload_io, *fds.values())

    def works(self) -> bool | None:
        """Whether this process may do all that it takes: who is not the host's root has to own what is in there.

        None: the payload is dead, and of it nothing can be known.
        """
        try:
            signal.pidfd_send_signal(self._payload, 0)  # no signal: it asks
            if _numbers(self._init_io) and _numbers(self._payload_io):
                return True
            signal.pidfd_send_signal(self._payload, 0)
        except ProcessLookupError:
            return None
        except OSError:
            pass
        return False

    def see_off(self) -> Usage | None:
        """End the payload and return what was used, without the wall time; None: its supervisor has to tell."""
        sample = self._figures.sample()
        if self._has_company() or (sample.memory_bytes or 0) > LITTLE_BYTES or sample.oom_kills:
            return None
        try:
            signal.pidfd_send_signal(self._payload, signal.SIGKILL)
        except OSError:  # it is dead already, and somebody else has said this
            return None
        self.has_killed = True
        # now it cannot fork any more: what it has forked since is counted (cgroup_can_fork), and none of it is an end
        if self._has_company():
            return None
        usage = self._figures.usage()
        if usage.io_read_bytes is None:
            read, written = self._io()
            usage = replace(usage, io_read_bytes=read, io_write_bytes=written)
        # its supervisor may have heard of the death and removed the group while this process had no CPU: what was read
        # of a group that is gone is nothing
        return None if self._figures.tasks() is None else usage

    def _has_company(self) -> bool:
        tasks = self._figures.tasks()
        return tasks is None or tasks > _TASKS

    def _io(self) -> tuple[int | None, int | None]:
        """Return bytes read and written; a payload that is reaped has left its own to init."""
        init, payload = _numbers(self._init_io), _numbers(self._payload_io)
        if not payload:
            init = _numbers(self._init_io)
        if not init:
            return None, None
        read, written = (init[key] + payload.get(key, 0) for key in ("read_bytes", "write_bytes"))
        return read, written

    def close(self) -> None:
        """Let go of it; once more does nothing."""
        for fd in self._fds:
            os.close(fd)
        self._fds = ()


def _numbers(fd: int) -> dict[str, int]:
    try:
        return numbers_of(os.pread(fd, _READ_BYTES, 0).decode())
    except OSError:  # dead and reaped, or not for us to see
        return {}
