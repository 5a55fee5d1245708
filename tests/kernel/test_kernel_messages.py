"""What a real ipykernel says comes through the relay's filter as it is."""

import json

import pytest
from jupyter_client.manager import start_new_kernel

from container_magic.kernel.filter import Filter
from container_magic.kernel.flood import FloodGate
from container_magic.kernel.message import Message

CODE = """
import sys
from IPython.display import display, clear_output
print("out"); print("err", file=sys.stderr)
handle = display("shown", display_id="one")
handle.update("updated")
clear_output(wait=True)
6 * 7
"""


def as_message(raw):
    """Return a message of jupyter_client's as the relay has it."""
    return Message(
        msg_type=raw["header"]["msg_type"],
        msg_id=raw["header"]["msg_id"],
        date=str(raw["header"]["date"]),
        parent_id=raw["parent_header"].get("msg_id", ""),
        metadata=json.loads(json.dumps(raw["metadata"], default=str)),
        content=json.loads(json.dumps(raw["content"], default=str)),
        buffers=tuple(bytes(one) for one in raw["buffers"]),
    )


@pytest.fixture(scope="module")
def client():
    """Return the client of a real, uncontained kernel."""
    manager, started = start_new_kernel()
    yield started
    started.stop_channels()
    manager.shutdown_kernel(now=True)


def asked(client, msg_id, channel="shell"):
    """Return the reply to a request and all that was published about it."""
    get = client.get_shell_msg if channel == "shell" else client.get_control_msg
    reply = get(timeout=60)
    while reply["parent_header"]["msg_id"] != msg_id:  # a slow kernel is asked more than once whether it is ready
        reply = get(timeout=60)
    published = []
    while not published or published[-1].content.get("execution_state") != "idle":
        raw = client.get_iopub_msg(timeout=60)
        if raw["parent_header"].get("msg_id") == msg_id:
            published.append(as_message(raw))
    return as_message(reply), published


def plain(content):
    """Return content without the sequence that the filter ends a style with, which ipykernel leaves open."""
    return json.loads(json.dumps(content).replace("\\u001b[0m", ""))


REQUESTS = {
    "execute": lambda client: client.execute(CODE, user_expressions={"x": "1 + 1"}),
    "fail": lambda client: client.execute("1 / 0"),
    "pager": lambda client: client.execute("print?"),
    "complete": lambda client: client.complete("prin", 4),
    "inspect": lambda client: client.inspect("print", 5),
    "inspect nothing": lambda client: client.inspect("nothing_of_this_name", 5),
    "is_complete": lambda client: client.is_complete("for x in y:"),
    "history": lambda client: client.history(hist_access_type="tail", n=5, output=True),
    "kernel_info": lambda client: client.kernel_info(),
    "comm_info": lambda client: client.comm_info(),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_what_a_real_kernel_says_is_unchanged(client, name):
    """Replies and what is published, through the gate and the filter, without a note."""
    reply, published = asked(client, REQUESTS[name](client))
    gate, checked = FloodGate(1 << 20), Filter("safe", False)
    bounded = [out for one in published for out in [*gate.admit(one, 100, 0.0), *gate.release(0.0)]]
    assert [one for one in bounded if one.msg_type != "stream"] == [
        one for one in published if one.msg_type != "stream"
    ]
    shown = [out for one in bounded for out in checked.clean("iopub", one)]
    assert [plain(one.content) for one in shown] == [plain(one.content) for one in bounded]
    (passed,) = checked.clean("shell", reply)
    assert plain(passed.content) == plain({key: value for key, value in reply.content.items() if key != "engine_info"})
