"""What contained code shows, and what it asks, in the notebook that runs it."""

from __future__ import annotations

import contextlib
import getpass
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from container_magic.events import Cleared, Displayed, InputAsked
from container_magic.sanitize.escapes import plain_text

if TYPE_CHECKING:
    from container_magic.display.cell import CellLine

_MOST_NOTES = 20
_PROMPT_CHARACTERS = 2000


class Shell(Protocol):
    """What is used of the notebook's own IPython."""

    display_pub: Any
    displayhook: Any


class Page:
    """The output area of one cell.

    The code's display ids stand for ids of our own, which it can neither know nor choose: it can update what its own
    cell shows, and nothing else of the notebook. ``line``, which tells how a long run is getting on, hears of all that
    is shown.
    """

    def __init__(self, shell: Shell, line: CellLine | None = None) -> None:
        self._shell = shell
        self.line = line
        self._prefix = f"contain-{os.urandom(12).hex()}"
        self._ids: dict[str, str] = {}
        self._notes: set[str] = set()

    def show(self, event: Displayed) -> None:
        """Show something, or update what was shown under its name."""
        for note in event.notes:
            self._say(note)
        if event.update and event.display_id not in self._ids:
            return
        self._publish(event)
        if self.line is not None:
            size = sum(len(str(value)) for value in event.data.values())
            self.line.published(lambda: self._publish(event), size)

    def _publish(self, event: Displayed) -> None:
        if event.result and event.display_id is None:
            self._show_result(event)
            return
        transient = {} if event.display_id is None else {"display_id": self._own_id(event.display_id)}
        self._shell.display_pub.publish(
            data=event.data, metadata=event.metadata, transient=transient, update=event.update
        )

    def clear(self, event: Cleared) -> None:
        """Clear the cell's output."""
        self._shell.display_pub.clear_output(wait=event.wait)
        if self.line is not None:
            self.line.cleared()

    def _own_id(self, name: str) -> str:
        return self._ids.setdefault(name, f"{self._prefix}-{len(self._ids)}")

    def _show_result(self, event: Displayed) -> None:
        # as the hook itself does it for a value of the notebook's own; it knows the number of the cell
        hook = self._shell.displayhook
        hook.start_displayhook()
        hook.write_output_prompt()
        hook.write_format_data(event.data, event.metadata)
        hook.finish_displayhook()

    @property
    def is_silent(self) -> bool:
        """Whether no note was written."""
        return not self._notes

    def _say(self, note: str) -> None:
        if note not in self._notes and len(self._notes) < _MOST_NOTES:
            self._notes.add(note)
            sys.stderr.write(f"{note}\n")
            if self.line is not None:
                self.line.wrote("stderr", f"{note}\n")


def show_last(publisher: Any, data: dict[str, str], *, silent: bool) -> None:
    """Show a MIME bundle of our own below a cell; ``silent``: nothing was written that has to stand above it.

    Before ipykernel shows anything it flushes both streams, and waits for its thread each time: for a cell that has
    written nothing that is a good part of its time.
    """
    if silent and _is_plain(publisher):
        content = {"data": data, "metadata": {}, "transient": {}}
        parent, topic = publisher.parent_header, publisher.topic
        publisher.session.send(publisher.pub_socket, "display_data", content, parent=parent, ident=topic)
    else:
        publisher.publish(data=data, metadata={})


def _is_plain(publisher: Any) -> bool:
    """Whether what ipykernel's own publisher shows goes to its socket and nowhere else: not captured, not kept."""
    kernels = sys.modules.get("ipykernel.zmqshell")
    if kernels is None or type(publisher) is not kernels.ZMQDisplayPublisher:
        return False
    return not getattr(publisher, "_hooks", True) and not getattr(publisher, "store_display_history", False)


def ask(event: InputAsked) -> str | None:
    """Return what the user answers, None when the front end has no standard input.

    Raises:
        KeyboardInterrupt: The user interrupts instead.
    """
    prompt = plain_text(event.prompt)[:_PROMPT_CHARACTERS]
    with _interruptible():
        try:
            # in a kernel these are the front end's
            return getpass.getpass(prompt) if event.password else input(prompt)
        except EOFError:
            return None
        except RuntimeError as error:
            if type(error).__name__ == "StdinNotImplementedError":
                return None
            raise


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C end the question: while a run is open it goes to the container."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
