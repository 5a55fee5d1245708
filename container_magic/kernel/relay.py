"""The relay: messages go in as they came, and come out checked, filtered and counted; one thread, one poll loop."""

from __future__ import annotations

import functools
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import zmq

from container_magic.display.text import human_bytes, report_line
from container_magic.errors import ContainError
from container_magic.events import Created, Deleted, Event, Exited, Failed, MemoryHigh, Output, Sampled
from container_magic.kernel.cells import Cells
from container_magic.kernel.client_side import ChannelName, ClientSide, Request, read_connection_file
from container_magic.kernel.ending import error_content, exit_code
from container_magic.kernel.figures import Meter, cell_metadata
from container_magic.kernel.kernel_side import CHANNELS, KernelChannel, KernelSide
from container_magic.kernel.message import Message
from container_magic.kernel.outgoing import Outgoing
from container_magic.kernel.shutdown import Shutdown
from container_magic.kernel.wire import Frames, WireError
from container_magic.report import RunReport
from container_magic.runtime.request import RunRequest
from container_magic.runtime.run import Run
from container_magic.sanitize.escapes import EscapeFilter

if TYPE_CHECKING:
    from container_magic.kernel.launcher import Outside
    from container_magic.kernel.options import KernelOptions

_AT_ONCE = 64
"""Messages of one socket that are handled before another is looked at."""
_MOST_EARLY = 1000
"""Requests to control that wait for a kernel that starts; those to the other channels wait in ZeroMQ."""
_WELCOME_SECONDS = 0.1
_LAST_WORDS_SECONDS = 0.05
_MOST_LAST_WORDS_SECONDS = 1.0
_BREAK_SECONDS = 0.5
"""How long after a break the end of the container is waited for: most breaks are its death, which has a reason."""
_PROBE = "relay-probe"


def relay(options: KernelOptions, run: Run, request: RunRequest, key: str, outside: Outside) -> int:
    """Carry messages between clients and the kernel in ``run`` until it is over; return the exit status.

    Raises:
        OptionError: The connection file is malformed, or its ports are not to be had.
    """
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    client = ClientSide(read_connection_file(options.connection_file), context)
    kernel = _Relay(
        options=options,
        client=client,
        run=run,
        key=key.encode(),
        cells=Cells(run, request, options.spec.watch.wall_seconds),
        outside=outside,
        context=context,
    )
    try:
        return kernel.serve()
    finally:
        run.close()  # before what may wait for a client
        client.close()
        context.destroy()


class _Relay:
    """One kernel's relay, from its start to its end."""

    def __init__(
        self,
        *,
        options: KernelOptions,
        client: ClientSide,
        run: Run,
        key: bytes,
        cells: Cells,
        outside: Outside,
        context: zmq.Context[zmq.Socket[bytes]],
    ) -> None:
        self._client = client
        self._run = run
        self._key = key
        self._cells = cells
        self._outgoing = Outgoing(client, options, cells.keep_reply, cells.keep_idle)
        self._shutdown = Shutdown(client, self._outgoing)
        self._report = options.report
        self._allows_comms = options.allow_widgets
        self._outside = outside
        self._context = context
        self._kernel: KernelSide | None = None
        self._welcomed = self._counts = self._ready = self._complained = False
        self._created: Created | None = None
        self._meter = Meter(time.monotonic())
        self._held: deque[Request] = deque()
        self._early: deque[Request] = deque(maxlen=_MOST_EARLY)
        self._escapes = EscapeFilter()
        self._usage_asked: deque[Request] = deque()
        self._probe_at = self._give_up_at = float("inf")
        self._status: int | None = None
        self._poller = zmq.Poller()
        self._handlers: dict[zmq.Socket[bytes] | int, Callable[[], None]] = {}

    def serve(self) -> int:
        """Relay until the kernel is over; return the launcher's exit status."""
        self._wait_for(self._run.fileno(), self._take_events)
        self._wait_for(self._outside.signals, self._take_signals)
        if self._outside.parent is not None:
            self._wait_for(self._outside.parent, self._lose_parent)
        self._wait_for(self._client.socket("control"), lambda: self._take_requests("control"))
        self._wait_for(self._client.socket("iopub"), self._client.welcome)
        self._wait_for(self._client.socket("hb"), self._client.beat)
        try:
            while self._status is None:
                for source, _ in self._poller.poll(self._timeout_milliseconds()):
                    if self._status is None:
                        self._handlers[source]()
                self._do_what_is_due()
        finally:
            if self._kernel is not None:
                self._kernel.close()
        return self._status

    def _wait_for(self, source: zmq.Socket[bytes] | int, handler: Callable[[], None]) -> None:
        self._handlers[source] = handler
        self._poller.register(source, zmq.POLLIN)

    def _timeout_milliseconds(self) -> int | None:
        due = min(self._shutdown.kill_at, self._probe_at, self._give_up_at, self._outgoing.due_seconds())
        return None if due == float("inf") else max(0, int((due - time.monotonic()) * 1000) + 1)

    def _do_what_is_due(self) -> None:
        now = time.monotonic()
        self._outgoing.send_due()
        if now >= self._shutdown.kill_at:
            self._shutdown.kill_at = float("inf")
            self._run.kill()
        if now >= self._give_up_at:
            self._give_up_at = float("inf")
            self._complain_once("the kernel broke its connection; a message may be lost")
            self._cells.give_up()
        if now >= self._probe_at and self._kernel is not None:
            self._probe_at = now + _WELCOME_SECONDS
            header = (
                f'{{"msg_id":"{_PROBE}","msg_type":"kernel_info_request","session":"","username":"","version":"5.3"}}'
            )
            self._kernel.send("shell", Frames(header=header.encode()))

    # What clients send.

    def _take_requests(self, channel: ChannelName) -> None:
        for _ in range(_AT_ONCE):
            try:
                request = self._client.receive(channel)
            except WireError as error:
                complain(f"a client sent {error}; it was dropped")
                continue
            if request is None:
                return
            {"shell": self._ask_shell, "control": self._ask_control, "stdin": self._send_in}[channel](request)

    def _send_in(self, request: Request) -> None:
        if self._kernel is not None:
            self._kernel.send(request.channel, request.frames)

    def _ask_shell(self, request: Request) -> None:
        self._outgoing.remember(request)
        if request.header.msg_type.startswith("comm_") and not self._allows_comms and request.comm_id:
            self._refuse_comm(request)
            return
        if request.header.subshell_id:
            self._send_in(request)
            return
        self._held.append(request)
        self._advance()

    def _advance(self) -> None:
        """Send in what may go: a cell when it is counted, and not before the last one is over; nothing overtakes it."""
        while self._held:
            request = self._held[0]
            if request.is_cell and request is not self._cells.current:
                if self._cells.current is None:
                    self._cells.begin(request)
                return
            if request.is_cell and not self._cells.counts:
                return
            self._send_in(self._held.popleft())

    def _refuse_comm(self, request: Request) -> None:
        """Close what a client opens, as a kernel does that does not know the target: the client does not wait."""
        self._client.publish_status("busy", request)
        if request.header.msg_type == "comm_open":
            self._client.publish(self._client.message("comm_close", {"comm_id": request.comm_id, "data": {}}), request)
        self._client.publish_status("idle", request)

    def _abort(self) -> None:
        """Reply to the cells behind one that failed as ipykernel does: they do not run."""
        for request in [request for request in self._held if request.is_cell]:
            self._held.remove(request)
            self._client.answer(request, "execute_reply", {"status": "aborted"})

    def _ask_control(self, request: Request) -> None:
        self._outgoing.remember(request)
        kind = request.header.msg_type
        if kind == "interrupt_request":
            self._interrupt()
            # without a status: a manager's request may have the msg_id of the cell, whose client would take it for its
            self._client.reply(request, self._client.message("interrupt_reply", {"status": "ok"}))
        elif kind == "shutdown_request":
            self._shut_down(request)
        elif not self._ready:
            self._early.append(request)
        elif kind == "usage_request":
            self._usage_asked.append(request)
            self._run.ask_sample()
        else:
            self._send_in(request)

    def _interrupt(self) -> None:
        if self._ready:
            self._run.interrupt()

    def _shut_down(self, request: Request) -> None:
        self._shutdown.ask(request)
        if self._ready:
            self._send_in(request)
        else:
            self._run.kill()

    def _take_signals(self) -> None:
        for number in os.read(self._outside.signals, 64):
            if number == signal.SIGINT:
                self._interrupt()
            elif number in (signal.SIGTERM, signal.SIGHUP):
                self._lose_parent()

    def _lose_parent(self) -> None:
        """Nobody wants this kernel any more."""
        self._shutdown.wanted = True
        self._status = 0

    # What the container says.

    def _take_events(self) -> None:
        try:
            for event in self._run.take():
                self._take_event(event)
        except ContainError as error:  # a session that is over before its next cell begins
            self._take_event(Failed(message=error.message, hint=error.hint, kind=type(error).__name__))
        if self._run.begun and self._kernel is None and self._created is not None and self._status is None:
            self._connect(self._created)

    def _take_event(self, event: Event) -> None:
        report = self._cells.take(event)
        if isinstance(event, Created):
            self._take_created(event)
        elif isinstance(event, Output):
            self._pass_on(event)
        elif isinstance(event, Sampled) and event.asked:
            self._answer_usage(event)
        elif isinstance(event, MemoryHigh):
            self._say_high(event)
        elif isinstance(event, Exited) and event.alive and not self._counts:
            self._counts = True
            self._get_ready()
        elif report is not None:
            self._end_cell(report)
        elif (isinstance(event, Exited) and not event.alive) or isinstance(event, (Deleted, Failed)):
            self._end()
        if self._ready:
            self._advance()

    def _take_created(self, event: Created) -> None:
        for less in event.downgrades if self._created is None else ():
            complain(f"--{less.name.replace('_', '-')} {less.asked}: {less.got} instead; {less.reason}")
        self._created = event

    def _pass_on(self, event: Output) -> None:
        """Write what came past ipykernel, from C or before its start, where servers keep what kernels say."""
        sys.stderr.write(self._escapes.feed(event.data.decode(errors="replace")))
        sys.stderr.flush()

    def _connect(self, created: Created) -> None:
        """Reach for the kernel's sockets, which stand now; its start is over, and cells are counted from here."""
        try:
            self._kernel = KernelSide(created.pid, created.supervisor_pid, self._key, self._context)
        except ContainError as error:
            complain(error.message)
            self._run.kill()
            return
        self._run.end_cell(0)
        for channel in CHANNELS:
            self._wait_for(self._kernel.socket(channel), functools.partial(self._take_messages, channel))
        for monitor in self._kernel.breaks:
            self._wait_for(monitor, self._take_break)
        self._probe_at = time.monotonic() + _WELCOME_SECONDS

    def _take_break(self) -> None:
        """Go on when what is inside has broken its connection and lives: a reply that is lost stops no other cell."""
        if self._kernel is not None and self._kernel.mend() and not self._shutdown.wanted:
            self._give_up_at = time.monotonic() + _BREAK_SECONDS

    def _get_ready(self) -> None:
        """Begin to listen to requests when what they bring will be heard, and cells can be counted."""
        if self._ready or not (self._welcomed and self._counts):
            return
        self._ready = True
        self._probe_at = float("inf")
        # not before: who connects while it starts has to hear it, or JupyterLab waits for a status for ever
        self._client.publish_status("starting", None)
        self._wait_for(self._client.socket("shell"), lambda: self._take_requests("shell"))
        self._wait_for(self._client.socket("stdin"), lambda: self._take_requests("stdin"))
        while self._early:
            self._ask_control(self._early.popleft())

    def _say_high(self, event: MemoryHigh) -> None:
        limit = human_bytes(event.limit_bytes)
        text = f"memory {limit} (--mem-high) is reached: the cell is interrupted, what it has defined stays\n"
        self._client.publish(self._client.message("stream", {"name": "stderr", "text": text}), self._cells.current)

    def _answer_usage(self, sample: Sampled) -> None:
        while self._usage_asked and self._created is not None:
            created = self._created
            content = self._meter.content(sample, created.limits, created.pid, time.monotonic())
            self._client.answer(self._usage_asked.popleft(), "usage_reply", content)

    # What the kernel says.

    def _take_messages(self, channel: KernelChannel) -> None:
        if self._kernel is None:
            return
        for _ in range(_AT_ONCE):
            try:
                found = self._kernel.receive(channel)
            except WireError as error:
                self._complain_once(f"the kernel sent {error}; it was dropped, as whatever more comes so")
                continue
            if found is None:
                return
            message, size_bytes = found
            if not self._is_our_own(channel, message):
                self._outgoing.take(channel, message, size_bytes)

    def _complain_once(self, text: str) -> None:
        """Say something that a kernel could have said for ever."""
        if not self._complained:
            self._complained = True
            complain(text)

    def _is_our_own(self, channel: str, message: Message) -> bool:
        """Whether a message is about the connection itself: what is published is heard from here on."""
        if message.parent_id != f"kernel_info_request {_PROBE}" and message.msg_type != "iopub_welcome":
            return False
        if channel == "iopub" and not self._welcomed:
            self._welcomed = True
            self._get_ready()
        return True

    # Ends.

    def _end_cell(self, report: RunReport) -> None:
        request, reply, idle = self._cells.current, self._cells.reply, self._cells.idle
        if request is None:
            return
        if reply is not None:
            self._send_reply(request, reply, report)
        self._cells.leave()
        if idle is not None:
            self._outgoing.publish(idle)
        if reply is not None and reply.content.get("status") == "error" and request.stops_on_error:
            self._abort()

    def _send_reply(self, request: Request, reply: Message, report: RunReport) -> None:
        """Send the reply to a cell with its figures, and its report before it if that is wanted."""
        if self._report != "none":
            text = report_line(report) if self._report == "line" else str(report)
            data = {"data": {"text/plain": text}, "metadata": {}, "transient": {}}
            self._client.publish(self._client.message("display_data", data), request)
        self._client.reply(request, replace(reply, metadata={**reply.metadata, **cell_metadata(report)}))

    def _end(self) -> None:
        """Let go what was said last, then say why there will be no more."""
        report = self._cells.last_report()
        self._take_last_words()
        if self._shutdown.wanted:
            self._shutdown.answer()
            self._status = 0
            return
        content = error_content(report)
        complain("\n".join(content["traceback"]))
        present = self._cells.current
        held = [request for request in self._held if request.is_cell and request is not present]
        waiting = [*([present] if present is not None else []), *held]
        error = self._client.message("error", content)
        self._client.publish(error, waiting[0] if waiting else None)
        for number, request in enumerate(waiting):
            about: dict[str, Any] = {"status": "aborted"}
            if number == 0:
                about = {"status": "error", **content, "execution_count": 0, "payload": [], "user_expressions": {}}
            self._client.reply(request, self._client.message("execute_reply", about))
            self._client.publish_status("idle", request)
        self._status = exit_code(report)

    def _take_last_words(self) -> None:
        if self._kernel is None:
            return
        sources = {self._kernel.socket(channel): channel for channel in CHANNELS}
        poller = zmq.Poller()
        for socket in sources:
            poller.register(socket, zmq.POLLIN)
        deadline = time.monotonic() + _MOST_LAST_WORDS_SECONDS
        while time.monotonic() < deadline and (ready := poller.poll(int(_LAST_WORDS_SECONDS * 1000))):
            for socket, _ in ready:
                self._take_messages(sources[socket])
        self._outgoing.flush()


def complain(text: str) -> None:
    """Write to standard error, where servers keep what kernels say."""
    sys.stderr.write(f"contain kernel: {text}\n")
    sys.stderr.flush()
