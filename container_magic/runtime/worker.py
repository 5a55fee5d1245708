"""The client's hold on a supervisor that makes containers after one plan, one after the other."""

from __future__ import annotations

import array
import contextlib
import os
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from container_magic.events import Created, Deleted, Event, Exited, Failed, Usage, from_dict
from container_magic.process import handshake
from container_magic.runtime.parting import Parting
from container_magic.runtime.records import open_records, wants_record
from container_magic.runtime.sources import any_removed

if TYPE_CHECKING:
    from container_magic.runtime.client import Zygote
    from container_magic.runtime.plans import Planned

_READ_BYTES = 65536  # below what malloc asks the kernel for, each time anew
_ZYGOTE_GONE = "ZygoteGoneError"
"""The kind of failure with which a supervisor removes its container early, and does remove it."""
_FDS = socket.CMSG_SPACE(32 * array.array("i").itemsize)


class Worker:
    """A supervisor's socket, and what has come over it; ``keep`` asks for a next container after each.

    ``child`` are descriptors of a child that was made here and that the supervisor is to adopt; they stay the caller's.

    Raises:
        InternalError: The zygote is gone.
    """

    def __init__(self, zygote: Zygote, planned: Planned, *, keep: bool, child: Mapping[str, int] | None = None) -> None:
        self.zygote = zygote
        self.plan = plan = planned.plan
        self.keep = keep
        self.created: Created | None = None
        self.lost = False
        self.broken = False
        """Something failed: no further container will come."""
        self.failure = ""
        """Why a container whose run was over could not be removed."""
        self._removing = False
        self._run = 0
        self._payload: socket.socket | None = None
        self._sources: list[int] = []
        self._parting: Parting | None = None
        self._may_part: bool | None = None
        self._begun: float | None = None  # where the supervisor starts a container that waits, only that knows
        self._is_disturbed = False  # somebody wants the run to end
        self._seen_off = False  # what its supervisor says of a run's end is no news
        self._killed = False  # from here, when it had ended well
        self._fds: list[int] = []
        self._hurried = False
        self._reader = handshake.FrameReader()
        self.socket, theirs = socket.socketpair()
        plan_fd = handshake.memory_file("plan", planned.dumped)
        fds = {"client": theirs.fileno(), "plan": plan_fd, **(child or {})}
        records_fd = open_records() if wants_record(plan.spec) else None
        if records_fd is not None:
            fds["records"] = records_fd
        try:
            zygote.request(plan, fds, keep=keep)
        except BaseException:
            self.socket.close()
            raise
        finally:
            theirs.close()
            os.close(plan_fd)
            if records_fd is not None:
                os.close(records_fd)
        self.socket.setblocking(False)

    def starts_payload(self, globs: Sequence[str]) -> bool:
        """Whether ``start`` gives the payload its order itself; where a volume is gone its supervisor says so."""
        if globs or any_removed(self._sources):
            self._forget_payload()
        return self._payload is not None

    def start(self, fds: Sequence[int], globs: Sequence[str] = (), code: bytes | None = None) -> bool:
        """Send code, standard input, output and error; a supervisor that is gone is found out by reading.

        With ``globs`` the last descriptor is the socket that files come over. ``code`` stands for the first descriptor,
        where ``starts_payload``.

        Returns:
            Whether the payload has them already; else its supervisor passes them on, and says ``Started``.

        Raises:
            BrokenPipeError: The payload is dead; its code has not run.
        """
        self._run += 1
        self._is_disturbed = self._killed = False
        if self._payload is None:
            order = {"op": "start", "run": self._run, "fds": len(fds), **({"globs": list(globs)} if globs else {})}
            with contextlib.suppress(OSError):
                socket.send_fds(self.socket, [handshake.frame(order)], fds)
            return False
        self._begun = time.monotonic()
        # the supervisor first: before it hears how the code ended it has to know that it ran
        with contextlib.suppress(OSError):
            self.socket.send(handshake.started_frame(self._run, self._begun))
        farewell_to = handshake.TO_INIT if self._parting is None else handshake.TO_CLIENT
        try:
            handshake.send_start(self._payload, fds, code, farewell_to=farewell_to)
        except OSError as error:
            raise BrokenPipeError("the payload is dead") from error
        self._forget_payload()
        return True

    def _forget_payload(self) -> None:
        if self._payload is not None:
            self._payload.close()
            self._payload = None
        for fd in self._sources:
            os.close(fd)
        self._sources = []

    def next_cell(self, wall_seconds: float | None) -> None:
        """Announce a session's next cell: its clock and figures begin."""
        self._run += 1
        self.command("cell", wall_seconds=wall_seconds)

    def command(self, operation: str, **details: Any) -> None:
        """Send a command that means the present run and no other."""
        self._is_disturbed = self._is_disturbed or operation in ("interrupt", "kill")
        with contextlib.suppress(OSError):
            self.socket.send(handshake.frame({"op": operation, "run": self._run, **details}))

    def receive(self) -> list[Event]:
        """Return the events that have come; ``lost`` is set when there will be no more."""
        return self._read() or []

    def _read(self) -> list[Event] | None:
        """Return what a message brings, perhaps nothing that is news; None when there is none."""
        try:
            data, notes, _, _ = self.socket.recvmsg(_READ_BYTES, _FDS, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return None
        except OSError:
            data, notes = b"", []
        for _, _, fds in notes:
            self._fds += array.array("i", fds)
        if not data:
            self.lost = True
            return None
        events = []
        for frame in self._reader.feed(data):
            if frame.get("op") == "hand_over":
                self._take_over(frame)
            elif self._is_news(event := from_dict(frame)):
                self._note(event)
                events.append(self._as_it_was(event))
        return events

    def _take_over(self, told: Mapping[str, Any]) -> None:
        """Take what the supervisor has handed over: the way to the payload that waits, and what to see it off with."""
        self._forget_payload()
        self._forget_parting()
        # where this process may open no more, only some of them have come, or none (MSG_CTRUNC); the supervisor has all
        fds = dict(zip(told["fds"], self._fds, strict=False))
        are_cut = len(fds) < len(told["fds"])
        self._fds = self._fds[len(fds) :]
        if "order" in fds:
            self._payload = socket.socket(fileno=fds.pop("order"))
        self._sources = [fds.pop(name) for name in tuple(fds) if name.startswith("source")]
        if are_cut:
            self._forget_payload()
            for fd in fds.values():
                os.close(fd)
        elif fds:
            self._parting = Parting(told, fds)
            if self._may_part is None:
                self._may_part = self._parting.works()
            if not self._may_part:
                self._forget_parting()
        self._begun = told.get("begun")

    def _is_news(self, event: Event) -> bool:
        """Whether an event is none of a run that was seen off, but of its removal."""
        if not self._seen_off:
            return True
        if not isinstance(event, (Deleted, Failed)):
            return False
        self._seen_off = False
        self._forget_parting()  # now: whoever saw the payload off had a report to make
        return True

    def _as_it_was(self, event: Event) -> Event:
        """Return the end of code that had ended well, and was killed then, without that death."""
        if self._killed and isinstance(event, Exited) and event.exit_signal == signal.SIGKILL:
            return replace(event, exit_code=0, exit_signal=None, line=None)
        return event

    def see_off(self) -> Usage | None:
        """End a payload that says that its code has ended well; return what was used.

        None: the supervisor has to say how it ended, and does.
        """
        parting = None if self._is_disturbed else self._parting
        wall_seconds = None if self._begun is None else time.monotonic() - self._begun
        usage = None if parting is None or wall_seconds is None else parting.see_off()
        if usage is None:
            self._killed = parting is not None and parting.has_killed
            self._forget_parting()
            return None
        self._seen_off = True
        self._end_run()
        return replace(usage, wall_seconds=wall_seconds)

    def _end_run(self) -> None:
        self.created, self._removing, self._hurried = None, True, False
        self._forget_payload()

    def _forget_parting(self) -> None:
        if self._parting is not None:
            self._parting.close()
            self._parting = None

    def _note(self, event: Event) -> None:
        if isinstance(event, Created):
            self.created = event
        elif isinstance(event, Exited) and not event.alive:
            self._end_run()
            self._forget_parting()
        elif isinstance(event, Deleted):
            self._removing = False
        elif isinstance(event, Failed):
            self.created, self.broken = None, True
            self.failure = event.message if self._removing and event.kind != _ZYGOTE_GONE else ""

    def leave(self) -> None:
        """Spare the supervisor the figures of a run that was seen off."""
        if self._seen_off and not self._hurried:
            self.command("seen_off")

    def hurry(self) -> None:
        """Have the next container made now: whoever has used the last one is done with it."""
        if self.created is None and not self._hurried:
            self._hurried = True
            self.command("hurry")

    def settle(self) -> None:
        """Take note of all that has come while nobody listened."""
        while self._read() is not None:
            pass

    def close(self) -> None:
        """Let the supervisor go: what it has left is ended and removed by it; once more does nothing."""
        self._forget_payload()
        self._forget_parting()
        with contextlib.suppress(OSError):  # a child of this process has the socket as well, and keeps it open
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.lost = True

    def end(self) -> None:
        """As ``close``, and wait until everything is removed."""
        if self.socket.fileno() >= 0:
            self.socket.setblocking(True)
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_WR)
                while self.socket.recv(_READ_BYTES):
                    pass
        self.close()
