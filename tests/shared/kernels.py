"""A kernel as a front end sees it: cells go in, messages come out."""

import time
from dataclasses import dataclass, field

TIMEOUT_SECONDS = 60


@dataclass
class Cell:
    """What a kernel sent for one cell: messages of iopub with their times of arrival, and the reply."""

    arrived: list = field(default_factory=list)
    reply: dict = field(default_factory=dict)

    def of(self, message_type):
        """Return the contents of the messages of one type."""
        return [content for _, kind, content in self.arrived if kind == message_type]

    def text(self, stream):
        """Return what was written to a stream."""
        return "".join(content["text"] for content in self.of("stream") if content["name"] == stream)

    def kinds(self):
        """Return the order of what was shown: text of streams as it is, for the rest (type, text/plain)."""
        found = []
        for _, kind, content in self.arrived:
            if kind == "stream" and found and isinstance(found[-1], str):
                found[-1] += content["text"]
            elif kind == "stream":
                found.append(content["text"])
            elif kind in ("display_data", "execute_result", "update_display_data"):
                found.append((kind, content["data"]["text/plain"]))
            elif kind in ("clear_output", "error"):
                found.append((kind, content.get("ename", "")))
        return found

    def time_of(self, message_type, text):
        """Return when the first message of a type that holds ``text`` came."""
        return next(at for at, kind, content in self.arrived if kind == message_type and text in str(content))


class Kernel:
    """A running kernel: its manager and a client."""

    def __init__(self, manager, client):
        self.manager, self.client = manager, client

    def send(self, code, **how):
        """Send a cell and return the id of its request."""
        return self.client.execute(code, **{"allow_stdin": False, **how})

    def collect(self, request, until=None):
        """Return the messages of a request up to its reply, or up to the first stream text that holds ``until``."""
        cell = Cell()
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while True:
            message = self.client.get_iopub_msg(timeout=deadline - time.monotonic())
            if message["parent_header"].get("msg_id") != request:
                continue
            cell.arrived.append((time.monotonic(), message["msg_type"], message["content"]))
            if until is not None and until in cell.text("stdout"):
                return cell
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                break
        cell.reply = self.reply(request)
        return cell

    def reply(self, request):
        """Return the content of the reply to a request."""
        while True:
            message = self.client.get_shell_msg(timeout=TIMEOUT_SECONDS)
            if message["parent_header"].get("msg_id") == request:
                return message["content"]

    def run(self, code):
        """Run a cell."""
        return self.collect(self.send(code))

    def run_and_answer(self, code, *answers):
        """Run a cell that asks; return it, and what was asked."""
        request, asked = self.send(code, allow_stdin=True), []
        for answer in answers:
            asked.append(self.client.get_stdin_msg(timeout=TIMEOUT_SECONDS)["content"])
            self.client.input(answer)
        return self.collect(request), asked

    def value(self, expression):
        """Return the text of an expression in the notebook itself."""
        (content,) = self.run(expression).of("execute_result")
        return content["data"]["text/plain"]
