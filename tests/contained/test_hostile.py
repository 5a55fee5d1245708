"""Code that holds the inner connection file, its key and its sockets, and speaks to the relay as it likes.

The relay survives or ends with a reason, its memory is bounded, and another kernel's session goes on.
"""

import contextlib
import json
import re
import socket
import time
from pathlib import Path
from queue import Empty

import pytest
from contained import LIMITS, running

pytestmark = pytest.mark.xdist_group("kernel_hostile")

MOST_RELAY_BYTES = 2_000_000_000

# What an attacker inside has at hand: the kernel's own session, its sockets, and the connections of ZeroMQ beneath.
TOOLS = """
import json, os, select, socket, threading, time
kernel = get_ipython().kernel
session, iopub, shell = kernel.session, kernel.iopub_socket, kernel.shell_stream
mine = kernel.get_parent()

def raw(parts, topic=b"kernel.status"):
    iopub.send_multipart([topic, *parts])

def signed(header, parent, metadata, content, buffers=()):
    parts = [one if isinstance(one, bytes) else json.dumps(one, default=str).encode()
             for one in (header, parent, metadata, content)]
    raw([b"<IDS|MSG>", session.sign(parts), *parts, *buffers])

def header(kind, **changed):
    return {**session.msg_header(kind), "date": "2020-01-01T00:00:00Z", **changed}

def forge(kind, content, parent=None, **changed):
    signed(header(kind, **changed), mine["header"] if parent is None else parent, {}, content)

def connections(name):
    found = []
    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            one = socket.socket(fileno=os.dup(fd))
        except OSError:
            continue
        if one.family == socket.AF_UNIX and not one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            if str(one.getsockname()).endswith(name):
                one.setblocking(True)
                found.append(one)
    return found
"""


def prepared(start, *options):
    """Return a kernel with the tools of an attacker."""
    victim = start(*(options or LIMITS))
    assert victim.run(TOOLS).reply["status"] == "ok"
    return victim


def resident_bytes(pid):
    """Return what a process at most had in memory."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) * 1024


def assert_goes_on(victim):
    """A cell of the attacked kernel is answered as ever."""
    assert victim.run("print('goes on')").text("stdout").endswith("goes on\n")


GARBAGE = {
    "no_delimiter": "raw([b'nothing'])",
    "nothing_at_all": "iopub.send_multipart([b''])",
    "few_parts": "raw([b'<IDS|MSG>', b'', b'{}'])",
    "many_parts": "raw([b'<IDS|MSG>'] + [b''] * 100_000)",
    "many_buffers": "signed(header('display_data'), mine['header'], {}, {'data': {}}, [b'x'] * 10_000)",
    "wrong_signature": "raw([b'<IDS|MSG>', b'0' * 64, b'{}', b'{}', b'{}', b'{}'])",
    "broken_json": "signed(b'{', b'{', b'}', b'nul')",
    "no_utf8": "signed(b'\\xff\\xfe', b'{}', b'{}', b'{}')",
    "not_objects": "signed(header('stream'), [1], 'x', [2])",
    "no_header": "signed({}, {}, {}, {})",
    "header_of_other_types": "signed({'msg_id': 1, 'msg_type': {'a': 1}}, mine['header'], {}, {})",
    "deep_content": "signed(header('display_data'), mine['header'], {}, b'{\"data\":' * 50_000 + b'1' + b'}' * 50_000)",
    "deep_list": "signed(header('display_data'), mine['header'], {}, b'{\"d\":' + b'[' * 10**6 + b']' * 10**6 + b'}')",
    "doubled_keys": 'signed(header(\'stream\'), mine[\'header\'], {}, b\'{"name":"stdout","name":[],"text":1}\')',
    "numbers": "signed(header('stream'), mine['header'], {}, b'{\"text\":\"x\",\"n\":1e999,\"m\":' + b'9' * 99 + b'}')",
    "nan": "signed(header('display_data'), mine['header'], {}, b'{\"data\":{\"application/json\":NaN}}')",
    "large": "forge('stream', {'name': 'stdout', 'text': 'x' * 40_000_000})",
    "large_header": "forge('stream', {'name': 'stdout', 'text': 'x'}, msg_id='y' * 10_000_000)",
    "unknown_type": "forge('nothing_known', {'a': 1})",
    "request_on_iopub": "forge('execute_request', {'code': 'x'}); forge('shutdown_request', {'restart': False})",
    "surrogates": 'signed(header(\'stream\'), mine[\'header\'], {}, b\'{"name":"stdout","text":"\\\\ud800"}\')',
    "type_with_newlines": "forge('stream\\r\\nX', {}); forge('../../stream', {}); forge('', {})",
    "early_idle": "forge('status', {'execution_state': 'idle'}); forge('status', {'execution_state': 'dead'})",
    "wrong_state": "forge('status', {'execution_state': ['idle']}); forge('status', {'execution_state': 'x' * 10**6})",
    "welcome": "forge('iopub_welcome', {'subscription': ''}); forge('shutdown_reply', {'restart': False})",
    "probe": "forge('stream', {'name': 'stdout', 'text': 'x'}, {'msg_id': 'relay-probe'})",
    "debug_events": "forge('debug_event', {'event': 'x' * 10**6, 'body': [[[]]]})",
}


@pytest.fixture(scope="module")
def attacked(jupyter, tmp_path_factory):
    """Return a kernel that is sent one piece of garbage after the other and must outlive all of it."""
    with running(tmp_path_factory.mktemp("attacked") / "stderr") as victim:
        assert victim.run(TOOLS).reply["status"] == "ok"
        yield victim


@pytest.mark.parametrize("attack", GARBAGE)
def test_garbage_is_dropped_and_the_kernel_goes_on(attacked, attack):
    """One message that is none: the relay takes the next one as if nothing had been."""
    sent = attacked.run("mine = kernel.get_parent()\n" + GARBAGE[attack])
    assert sent.reply["status"] == "ok"
    assert attacked.run("print('goes on')").reply["status"] == "ok", attacked.stderr
    assert_goes_on(attacked)
    assert attacked.manager.is_alive()
    assert attacked.stderr.count("it was dropped") <= 1  # said once: the server's log is not the attacker's to fill


def test_output_for_a_request_that_nobody_has_made_goes_nowhere(attacked):
    """A parent that is made up, or of another session, is nobody's: its output reaches no client."""
    code = (
        "for parent in ({'msg_id': 'made-up', 'session': 'x', 'msg_type': 'execute_request'}, {'msg_id': ''}, {}):\n"
        "    forge('stream', {'name': 'stdout', 'text': 'FORGED'}, parent)\n"
        "    forge('error', {'ename': 'FORGED', 'evalue': '', 'traceback': []}, parent)\nprint('end')"
    )
    request = attacked.send("mine = kernel.get_parent()\n" + code)
    messages = attacked.messages(request)
    attacked.answer(request)
    with contextlib.suppress(Empty):
        while True:
            messages.append(attacked.client.get_iopub_msg(timeout=0.3))
    forged = [
        message for message in messages if message["content"].get("ename", message["content"].get("text")) == "FORGED"
    ]
    assert [message["parent_header"] for message in forged if message["parent_header"]] == []


def test_forged_header_of_a_parent_is_replaced_by_the_clients_own(attacked):
    """Of a parent's header only its id counts: user, session and date in what clients get are those of the request."""
    code = "forge('stream', {'name': 'stdout', 'text': 'x'}, {**mine['header'], 'session': 'evil', 'username': 'evil'})"
    request = attacked.send("mine = kernel.get_parent()\n" + code)
    (stream,) = [message for message in attacked.messages(request) if message["msg_type"] == "stream"]
    attacked.answer(request)
    assert stream["parent_header"]["session"] == attacked.client.session.session
    assert "evil" not in str(stream["parent_header"]) + str(stream["header"])


def test_replies_to_nobody_and_for_others_reach_nobody(attacked):
    """A reply goes to who made the request, whatever identity the code writes before it."""
    with attacked.another_client() as other:
        code = (
            "for identity in (b'', b'relay', b'\\0' * 5, b'x' * 1000):\n"
            "    session.send(shell, 'execute_reply', {'status': 'ok', 'execution_count': 666}, ident=[identity],\n"
            "                 parent={'header': {'msg_id': 'made-up'}})\n"
            "    session.send(shell, 'shutdown_reply', {'status': 'ok'}, ident=[identity], parent=mine)"
        )
        cell = attacked.run("mine = kernel.get_parent()\n" + code)
        assert cell.reply["execution_count"] != 666
        assert not other.shell_channel.socket.poll(300)
    assert_goes_on(attacked)


def test_input_is_not_asked_for_a_request_that_nobody_has_made(attacked):
    """A question that code makes up opens no prompt at anybody's."""
    code = (
        "session.send(kernel.stdin_socket, 'input_request', {'prompt': 'password?', 'password': True},\n"
        "             parent={'header': {'msg_id': 'made-up'}}, ident=b'relay')"
    )
    assert attacked.run(code).reply["status"] == "ok"
    assert not attacked.client.stdin_channel.socket.poll(300)


# Beneath the messages: bytes on the connections themselves.

BENEATH = {
    "garbage": "for one in connections('socket-2'): one.sendall(os.urandom(100_000))",
    "huge_frame": "for one in connections('socket-2'): one.sendall(bytes([2]) + (2**62).to_bytes(8, 'big') + b'x')",
    "long_command": "for one in connections('socket-2'): one.sendall(bytes([6]) + (10**9).to_bytes(8, 'big'))",
    "shut_down": "for one in connections('socket-2'): one.shutdown(socket.SHUT_RDWR)",
    "shell_garbage": "for one in connections('socket-1'): one.sendall(os.urandom(100_000))",
    "all_closed": "for name in '1234': [one.shutdown(socket.SHUT_RDWR) for one in connections(f'socket-{name}')]",
}


@pytest.mark.parametrize("attack", BENEATH)
def test_broken_connection_hits_nobody_else(start, kernel, attack):
    """The attacked kernel goes on, or ends in words when it is given up; another one does not notice."""
    victim = prepared(start)
    victim.send(BENEATH[attack])
    time.sleep(0.5)
    victim.manager.interrupt_kernel()
    assert resident_bytes(victim.pid) < MOST_RELAY_BYTES
    assert kernel.run("print('untouched')").text("stdout") == "untouched\n"
    victim.manager.shutdown_kernel()
    assert not victim.manager.is_alive()


ENDLESS = """
(one, *_) = connections('socket-2')
piece = bytes([3]) + (1_000_000).to_bytes(8, 'big') + b'x' * 1_000_000
for _ in range(6000): one.sendall(piece)
"""


@pytest.mark.slow
def test_endless_message_cannot_fill_the_hosts_memory(start, kernel):
    """A message of parts without end grows in the relay, up to its own limit: there the connection is given up."""
    victim = prepared(start)
    reply = victim.reply(victim.send(ENDLESS))
    assert reply["ename"] in ("BrokenPipeError", "ConnectionResetError")
    assert resident_bytes(victim.pid) < MOST_RELAY_BYTES
    assert_goes_on(victim)
    assert kernel.run("print('untouched')").text("stdout") == "untouched\n"


def test_flood_of_messages_leaves_the_relay_small_and_interruptible(start, kernel):
    """Displays and prints as fast as they go, for ever: the interrupt gets through, memory stays bounded."""
    victim = prepared(start)
    code = (
        "from IPython.display import HTML, display\nprint('begins', flush=True)\n"
        "while True:\n    print('x' * 10_000)\n    display(HTML('<b>' * 1000))"
    )
    request = victim.send(code)
    victim.collect(request, until="begins")
    time.sleep(2)
    victim.manager.interrupt_kernel()
    reply = victim.reply(request)
    assert reply["ename"] == "KeyboardInterrupt"
    assert resident_bytes(victim.pid) < MOST_RELAY_BYTES / 2
    assert kernel.run("print('untouched')").text("stdout") == "untouched\n"


REBIND = """
import zmq
directory = '/dev/shm/.jupyter'
context = zmq.Context()
sockets = []
for name in ('socket-1', 'socket-2', 'socket-4'):
    os.unlink(f'{directory}/{name}')
    sockets.append(context.socket(zmq.ROUTER))
    sockets[-1].bind(f'ipc://{directory}/{name}')
"""


def printed_within(kernel, code, seconds):
    """Return what a cell prints when all that it shows has come in time; ``Empty`` is raised when not."""
    request, text, deadline = kernel.send(code), "", time.monotonic() + seconds
    while True:
        message = kernel.client.get_iopub_msg(timeout=max(0, deadline - time.monotonic()))
        if message["parent_header"].get("msg_id") == request:
            text += message["content"].get("text", "")
            if message["content"].get("execution_state") == "idle":
                return text


def test_sockets_that_are_replaced_do_not_redirect_the_relay(start):
    """The relay keeps to what it has connected to, also when it has to connect anew."""
    victim = prepared(start)
    assert victim.run(REBIND).reply["status"] == "ok"
    victim.send("for name in '12': [one.shutdown(socket.SHUT_RDWR) for one in connections(f'socket-{name}')]")
    time.sleep(0.5)
    printed = []
    deadline = time.monotonic() + 20
    while not printed and time.monotonic() < deadline:  # what was under way when the connections broke is lost
        with contextlib.suppress(Empty):
            printed.append(printed_within(victim, "print([one.poll(0) for one in sockets])", seconds=2))
    assert printed == ["[0, 0, 0]\n"]


# What of the outside an attacker inside can find.


def test_outer_connection_cannot_be_found_or_reached(kernel):
    """The connection file, its key, its ports and the runtime directory are not there, under any name."""
    info = kernel.client.get_connection_info()
    path = kernel.manager.connection_file
    code = f"""
import json, os, socket
def error_of(call, *arguments):
    try:
        call(*arguments)
    except OSError as error:
        return type(error).__name__
found = {{"file": error_of(open, {path!r})}}
for name in ("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port"):
    found[name] = error_of(socket.create_connection, ("127.0.0.1", {info}[name]), 2)
text = json.dumps(dict(os.environ))
for pid in filter(str.isdigit, os.listdir("/proc")):
    for name in ("environ", "cmdline"):
        try:
            text += open(f"/proc/{{pid}}/{{name}}", errors="replace").read()
        except OSError:
            pass
print(json.dumps(found))
print({info["key"].decode()!r} in text, "JPY_" in text, {path!r} in text)
"""
    # the key stands in this very cell: it is looked for in what processes have, not in the notebook's memory
    lines = kernel.run(code).text("stdout").splitlines()
    found = json.loads(lines[0])
    assert found.pop("file") == "FileNotFoundError"
    assert set(found.values()) == {"ConnectionRefusedError"}
    assert lines[1] == "False False False"


def test_no_unix_socket_but_its_own_is_in_reach(kernel):
    """Neither abstract names nor paths of the host: what ``/proc/net/unix`` has, and what stands in the file system."""
    code = """
import os, re, stat
named = {line.split()[-1] for line in open("/proc/net/unix").read().splitlines()[1:] if len(line.split()) == 8}
found, ahead = set(), ["/"]
while ahead:
    top = ahead.pop()
    try:
        entries = list(os.scandir(top))
    except OSError:
        continue
    for entry in entries:  # what the directory says of each: to ask for the status of all takes a minute
        if entry.is_dir(follow_symlinks=False):
            ahead += [entry.path] if top != "/" or entry.name not in ("proc", "sys", "usr", "lib", "lib64") else []
        elif not entry.is_file(follow_symlinks=False) and not entry.is_symlink():
            found |= {entry.path} if stat.S_ISSOCK(entry.stat(follow_symlinks=False).st_mode) else set()
print(sorted(named | found))
"""
    own = [f"/dev/shm/.jupyter/socket-{number}" for number in range(1, 6)]
    (line,) = kernel.run(code).text("stdout").splitlines()
    seen = set(re.findall(r"'([^']+)'", line))
    assert seen
    assert seen <= set(own)


def test_abstract_socket_of_the_host_is_another_name_inside(kernel):
    """A listener of the host under an abstract name, as desktop buses have, is not there."""
    name = b"\0contain-test-" + str(kernel.pid).encode()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(name)
        listener.listen()
        cell = kernel.run(f"import socket\nsocket.socket(socket.AF_UNIX).connect({name!r})")
    assert cell.reply["ename"] == "ConnectionRefusedError"


LINKS = """
import os
for fd in os.listdir('/proc/self/fd'):
    try:
        print(os.readlink(f'/proc/self/fd/{fd}'))
    except OSError:
        pass
"""


def test_descriptors_of_the_host_are_not_inside(kernel):
    """What is open in the kernel's process: sockets and pipes, devices, files of its own home."""
    links = kernel.run(LINKS).text("stdout").split()
    own = re.compile(r"/dev/|/proc/\d+|/memfd:|(/[^/]+)+/\.ipython/")
    assert [link for link in links if link.startswith("/") and not own.match(link)] == []


SECRETS = """
import glob, os
text = str(dict(os.environ))
for path in glob.glob('/proc/[0-9]*/environ'):
    try:
        text += open(path, errors='replace').read()
    except OSError:
        pass
print('very-' 'secret' in text)
"""


def test_secrets_of_the_server_are_not_inside(start, monkeypatch):
    """The environment of the server that starts kernels has tokens; the kernel's code sees none."""
    for name in ("JUPYTERHUB_API_TOKEN", "AWS_SECRET_ACCESS_KEY", "JUPYTER_TOKEN", "JPY_API_TOKEN"):
        monkeypatch.setenv(name, "very-secret")
    assert start().run(SECRETS).text("stdout") == "False\n"
