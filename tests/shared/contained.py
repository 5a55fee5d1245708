"""A kernel in a container as Jupyter starts it: by a kernelspec, over tcp or ipc, with a client of its own."""

import contextlib
import sys
import time
from pathlib import Path

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager
from kernels import TIMEOUT_SECONDS, Kernel

from container_magic.cgroups.facts import probe
from container_magic.kernel.kernelspec import Installation, install

CONTAIN = Path(sys.executable).with_name("contain")
# without a memory controller of its own an ordinary user has only what best effort gives
LIMITS = ("--mem", "512M") if "memory" in probe().controllers else ("--best-effort",)
NAME = "contained"


class Contained(Kernel):
    """A contained kernel, what its launcher wrote to standard error, and requests of every kind."""

    def __init__(self, manager, client, log):
        super().__init__(manager, client)
        self._log = log
        self._replies = {}

    @property
    def pid(self):
        """Return the process id of the launcher."""
        return self.manager.provisioner.process.pid

    @property
    def stderr(self):
        """Return what the launcher has written to standard error so far."""
        return self._log.read_text(errors="replace")

    def request(self, kind, content=None, channel="shell", **header):
        """Send a request of any kind and return its id."""
        message = self.client.session.msg(kind, content or {})
        message["header"].update(header)
        getattr(self.client, f"{channel}_channel").send(message)
        return message["header"]["msg_id"]

    def answer(self, request, channel="shell", timeout=TIMEOUT_SECONDS):
        """Return the message that answers a request on its channel; replies to others wait for who asks for them."""
        deadline = time.monotonic() + timeout
        if channel == "shell" and request in self._replies:
            return self._replies.pop(request)
        while True:
            message = getattr(self.client, f"get_{channel}_msg")(timeout=max(0, deadline - time.monotonic()))
            answered = message["parent_header"].get("msg_id")
            if answered == request:
                return message
            if channel == "shell":
                self._replies[answered] = message

    def ask(self, kind, content=None, channel="shell", **header):
        """Send a request and return the content of its reply."""
        return self.answer(self.request(kind, content, channel, **header), channel)["content"]

    def messages(self, request):
        """Return the messages of iopub for a request, whole, up to idle."""
        found = []
        while not found or found[-1]["content"].get("execution_state") != "idle":
            found.append(self.answer(request, "iopub"))
        return found

    @contextlib.contextmanager
    def another_client(self, key=None):
        """Give a client of the same kernel that has a session of its own, and maybe another key."""
        client = BlockingKernelClient()
        client.load_connection_file(self.manager.connection_file)
        client.session.key = client.session.key if key is None else key
        client.start_channels()
        try:
            if key is None:
                client.wait_for_ready(timeout=TIMEOUT_SECONDS)
            yield client
        finally:
            client.stop_channels()
            client.context.destroy()

    def wait_until_dead(self, seconds=TIMEOUT_SECONDS):
        """Wait until the manager sees that the kernel is dead, which is when its launcher has ended."""
        deadline = time.monotonic() + seconds
        while self.manager.is_alive():
            assert time.monotonic() < deadline, f"the kernel lives; {self.stderr}"
            time.sleep(0.02)

    def wait_until_ready(self):
        """Wait until it answers; what its launcher has written says why when it does not."""
        try:
            self.client.wait_for_ready(timeout=TIMEOUT_SECONDS)
        except RuntimeError as error:
            error.add_note(f"its launcher: {self.manager.provisioner.process.poll()}, {self.stderr}")
            raise

    def close(self):
        """End the kernel in whatever state it is."""
        self.client.stop_channels()
        if self.manager.has_kernel:
            self.manager.shutdown_kernel(now=True)


def write_spec(kernels, name, options):
    """Write a kernelspec as ``contain kernel install`` does."""
    asked = Installation(name=name, display_name=name, kernels_directory=str(kernels), words=tuple(options))
    install(asked)
    return name


@contextlib.contextmanager
def running(log, name=NAME, arguments=(), ready=True, **traits):
    """Start a kernel of a kernelspec, wait until it answers, and end it."""
    with log.open("wb") as written:  # a restart starts the launcher with the same files
        manager = KernelManager(kernel_name=name, **traits)
        manager.start_kernel(stdout=written, stderr=written, extra_arguments=list(arguments))
        client = manager.client()
        kernel = Contained(manager, client, log)
        try:
            client.start_channels()
            if ready:
                kernel.wait_until_ready()
            yield kernel
        finally:
            kernel.close()
