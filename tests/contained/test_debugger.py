"""JupyterLab's debugger, as the tests of ipykernel use it, and subshells."""

import time

import pytest
from kernels import TIMEOUT_SECONDS

pytestmark = pytest.mark.xdist_group("kernel_debugger")

CODE = "def f(a, b):\n    c = a + b\n    return c\n\nf(2, 3)"
INITIALIZE = {
    "clientID": "test-client",
    "clientName": "testClient",
    "adapterID": "",
    "pathFormat": "path",
    "linesStartAt1": True,
    "columnsStartAt1": True,
    "supportsVariableType": True,
    "supportsVariablePaging": True,
    "supportsRunInTerminalRequest": True,
    "locale": "en",
}


class Debugger:
    """The debugger's requests to a kernel, and its events."""

    def __init__(self, kernel):
        self.kernel, self.sequence = kernel, 0

    def ask(self, command, arguments=None):
        """Return the content of the answer to a request of the debug adapter protocol."""
        self.sequence += 1
        request = {"type": "request", "seq": self.sequence, "command": command, "arguments": arguments or {}}
        return self.kernel.ask("debug_request", request, channel="control")

    def event(self, name):
        """Return the next event of a name."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while True:
            message = self.kernel.client.get_iopub_msg(timeout=deadline - time.monotonic())
            if message["msg_type"] == "debug_event" and message["content"]["event"] == name:
                return message["content"]


@pytest.fixture
def debugger(start):
    """Return the debugger of a kernel of its own, attached."""
    debugger = Debugger(start())
    assert debugger.ask("initialize", INITIALIZE)["success"]
    assert debugger.ask("attach")["success"]
    yield debugger
    debugger.ask("disconnect", {"restart": False, "terminateDebuggee": True})


def test_breakpoint_stops_the_cell_and_its_variables_are_seen(debugger):
    """The cell stands in its line, what it knows is told, and it goes on when it is told to."""
    source = debugger.ask("dumpCell", {"code": CODE})["body"]["sourcePath"]
    where = {"breakpoints": [{"line": 2}], "source": {"path": source}, "sourceModified": False}
    (point,) = debugger.ask("setBreakpoints", where)["body"]["breakpoints"]
    assert (point["verified"], point["source"]["path"]) == (True, source)
    assert source in [one["source"] for one in debugger.ask("debugInfo")["body"]["breakpoints"]]
    assert debugger.ask("configurationDone")["success"]

    request = debugger.kernel.send(CODE)
    stopped = debugger.event("stopped")["body"]
    assert stopped["reason"] == "breakpoint"
    frame = debugger.ask("stackTrace", {"threadId": stopped["threadId"]})["body"]["stackFrames"][0]
    assert (frame["name"], frame["line"]) == ("f", 2)
    (scope,) = [
        one for one in debugger.ask("scopes", {"frameId": frame["id"]})["body"]["scopes"] if "Loc" in one["name"]
    ]
    variables = debugger.ask("variables", {"variablesReference": scope["variablesReference"]})["body"]["variables"]
    assert {(one["name"], one["value"]) for one in variables} >= {("a", "2"), ("b", "3")}

    assert debugger.ask("continue", {"threadId": stopped["threadId"]})["success"]
    assert debugger.kernel.answer(request)["content"]["status"] == "ok"


def test_variables_are_listed_and_shown_without_a_breakpoint(debugger):
    """The variables panel: names, and the value of one."""
    debugger.kernel.run("text = 'Hello the world'")
    names = [one["name"] for one in debugger.ask("inspectVariables")["body"]["variables"]]
    shown = debugger.ask("richInspectVariables", {"variableName": "text"})["body"]["data"]
    assert "text" in names
    assert shown == {"text/plain": "'Hello the world'"}


def test_expression_is_evaluated(debugger):
    """The console of the debugger."""
    reply = debugger.ask("evaluate", {"expression": "'a' + 'b'", "context": "repl"})
    assert reply["success"]


def test_subshell_runs_while_the_main_shell_is_busy(kernel):
    """A cell of a subshell is answered before the one that keeps the main shell busy; ids live and die."""
    subshell = kernel.ask("create_subshell_request", channel="control")["subshell_id"]
    assert kernel.ask("list_subshell_request", channel="control")["subshell_id"] == [subshell]

    busy = kernel.send("import threading\ngo_on = threading.Event()\nprint('waits', flush=True)\ngo_on.wait(20)")
    kernel.collect(busy, until="waits")
    beside = kernel.request("execute_request", {"code": "'beside'"}, subshell_id=subshell)
    replied = kernel.answer(beside)
    assert (replied["content"]["status"], replied["parent_header"]["subshell_id"]) == ("ok", subshell)
    freed = kernel.request("execute_request", {"code": "go_on.set()"}, subshell_id=subshell)
    assert {kernel.answer(freed)["content"]["status"], kernel.answer(busy)["content"]["status"]} == {"ok"}

    kernel.ask("delete_subshell_request", {"subshell_id": subshell}, channel="control")
    assert kernel.ask("list_subshell_request", channel="control")["subshell_id"] == []


def test_output_of_two_subshells_has_the_header_of_its_own_request(kernel):
    """What they print at the same time is not mixed up."""
    subshells = [kernel.ask("create_subshell_request", channel="control")["subshell_id"] for _ in range(2)]
    code = "import time\nfor i in range(20):\n    print({name!r}, i, flush=True)\n    time.sleep(0.01)"
    requests = [
        kernel.request("execute_request", {"code": code.format(name=f"shell{number}")}, subshell_id=subshell)
        for number, subshell in enumerate(subshells)
    ]
    texts, idle = dict.fromkeys(requests, ""), set()
    while idle != set(requests):
        message = kernel.client.get_iopub_msg(timeout=TIMEOUT_SECONDS)
        request = message["parent_header"].get("msg_id")
        if request in texts and message["msg_type"] == "stream":
            texts[request] += message["content"]["text"]
        if request in texts and message["content"].get("execution_state") == "idle":
            idle.add(request)
    for number, request in enumerate(requests):
        assert texts[request] == "".join(f"shell{number} {i}\n" for i in range(20))
    for subshell in subshells:
        kernel.ask("delete_subshell_request", {"subshell_id": subshell}, channel="control")
