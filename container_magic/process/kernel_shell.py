"""The shell of the companion kernel: ipykernel on unix sockets inside, for the relay outside.

Loaded by the zygote, so that ipykernel is imported when the container is made. What the relay sends as code is an
order: JSON with a key and with words for ipykernel's command line.
"""

from __future__ import annotations

import atexit
import json
import mmap
import os
import types
from typing import Any

import zmq
from ipykernel import kernelapp

from container_magic.process.channel import Channel
from container_magic.process.contained_shell import refuse_nesting
from container_magic.process.kernel_place import DIRECTORY, PORTS, socket_name

_MOST_PUBLISHED = 1_000_000
_DIRECTORY = f"/{'/'.join(DIRECTORY)}"


class IPKernelApp(kernelapp.IPKernelApp):  # its options are called by the name of the class
    """ipykernel, whose one listener reads a few messages ahead: what waits does so in here, under the memory limit."""

    def init_iopub(self, context: Any) -> None:
        """Make the socket that is published on; beyond this many messages ZeroMQ drops what is sent."""
        context.setsockopt(zmq.SNDHWM, _MOST_PUBLISHED)
        super().init_iopub(context)  # type: ignore[no-untyped-call]

    def finish_control(self) -> None:
        """Wait until the thread of the control channel is done with its last request.

        As an exit handler it comes before ipykernel's, which end the thread that publishes: a flush behind the reply to
        a shutdown would wait 10 s for that.
        """
        if self.control_thread.is_alive():  # in a fork it is not
            self.control_thread.stop()
            self.control_thread.join()


class KernelShell:
    """Starts ipykernel, and is over when that is."""

    def __init__(self, slot: mmap.mmap) -> None:
        self._slot = slot
        self._channel: Channel | None = None

    def main_module(self) -> types.ModuleType:
        """Return a module; the kernel makes its own."""
        return types.ModuleType("__main__")

    def attach(self, channel_fd: int) -> Channel | None:
        """Say on this channel that the sockets stand."""
        self._channel = Channel(channel_fd)
        return self._channel

    def touch(self, filename: str, module: types.ModuleType) -> None:
        """Do nothing: a kernel is started once, and is not waited for in milliseconds."""

    def run(self, source: bytes, filename: str, module: types.ModuleType) -> int:  # noqa: ARG002 - the shells' way
        """Run the kernel that ``source`` orders, until it is shut down."""
        if self._channel is None:
            return 0  # nobody could be told where it listens
        order = json.loads(source)
        # 1: it is nobody's child, says nothing on standard output, and watches no parent
        app: Any = IPKernelApp.instance(parent_handle=1)
        app.initialize(["-f", _write_connection_file(order["key"]), *order["arguments"]])
        for channel in PORTS:  # the relay is another user where ids are mapped, and nobody else is inside
            os.chmod(f"{_DIRECTORY}/{socket_name(channel)}", 0o777)
        atexit.register(app.finish_control)
        refuse_nesting(app.shell)
        self._channel.say_begun()
        app.start()
        return 0


def _write_connection_file(key: str) -> str:
    os.makedirs(_DIRECTORY, mode=0o755)
    path = f"{_DIRECTORY}/connection.json"
    ports = {f"{name}_port": number for name, number in PORTS.items()}
    info = {"transport": "ipc", "ip": f"{_DIRECTORY}/socket", "key": key, "signature_scheme": "hmac-sha256", **ports}
    with open(path, "x", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        json.dump(info, file)
    return path
