"""``doctor --self-test``: short attacks from inside real containers on this host, and whether each was held.

An attack prints what it has got, a line each; nothing printed is nothing got. Attacks on limits are judged by the
report of the run. They are short versions of what ``tests/integration/test_hardening_*.py`` tries.
"""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import field
from typing import Any, Literal

from container_magic.deferred import dataclass
from container_magic.errors import HostError
from container_magic.report import RunReport
from container_magic.verbs.run import run

Result = Literal["held", "FAILED", "not applicable"]
_SHOWN_CHARACTERS = 200
_ENVIRONMENT = {"PATH", "HOME", "LANG", "LC_CTYPE", "TZ", "PYTHONUNBUFFERED", "PIP_ROOT_USER_ACTION", "OMP_NUM_THREADS"}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How one attack ended: ``detail`` says what it got, or why it could not be tried."""

    name: str
    result: Result
    detail: str = ""

    def line(self) -> str:
        """Return it as one line of text."""
        return f"{self.result:<16}{self.name}" + (f": {self.detail}" if self.detail else "")


def outcomes_json(outcomes: Sequence[Outcome]) -> str:
    """Return the outcomes as a JSON list of objects."""
    return json.dumps([dataclasses.asdict(outcome) for outcome in outcomes], indent=2)


def _what_it_printed(report: RunReport) -> str:
    got = ", ".join(report.stdout.split("\n")).strip(", ")
    if got or report.ok:
        return got
    return f"the attack broke off: {report.verdict} {report.stderr.strip()[-_SHOWN_CHARACTERS:]}"


@dataclass(frozen=True, kw_only=True)
class _Attack:
    name: str
    source: str
    options: dict[str, Any] = field(default_factory=dict)
    judge: Callable[[RunReport], str] = _what_it_printed
    """Returns what the attack got; empty when it was held."""
    machines: tuple[str, ...] = ("x86_64", "aarch64")


_HELPERS = """
import ctypes, os
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_column = ("x86_64", "aarch64").index(os.uname().machine)
def call(numbers, *args):
    if numbers[_column] < 0: return -1
    return _libc.syscall(ctypes.c_long(numbers[_column]), *map(ctypes.c_long, args))
def got(what, function, *args):
    try: function(*args)
    except OSError: return
    print(what)
"""

_CALLS = """
for name, numbers, args in (
    ("ptrace", (101, 117), (0,)), ("bpf", (321, 280), (0, 0, 0)), ("io_uring_setup", (425, 425), (1, 0)),
    ("keyctl", (250, 219), (0, -3, 0)), ("userfaultfd", (323, 282), (1,)), ("setns", (308, 268), (0, 0)),
    ("perf_event_open", (298, 241), (0, 0, -1, -1, 0)), ("open_by_handle_at", (304, 265), (-1, 0, 0)),
    ("unshare user", (272, 97), (0x10000000,)), ("clone user", (56, 220), (0x10000011, 0, 0, 0, 0)),
    ("mount", (165, 40), (0, 0, 0, 0, 0)), ("fsopen", (430, 430), (0, 0)), ("kexec_load", (246, 104), (0, 0, 0, 0)),
    ("process_vm_readv", (310, 270), (1, 0, 0, 0, 0, 0)), ("io_setup", (206, 0), (1, 0)),
):
    ctypes.set_errno(0)
    if call(numbers, *args) >= 0 or ctypes.get_errno() not in (1, 38): print(name)
"""

_KERNEL = """
for path in ("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/kernel/hostname", "/dev/mem",
             "/proc/sysrq-trigger", "/sys/kernel/uevent_helper", "/sys/power/state", "/dev/kmsg"):
    got("can write " + path, lambda: os.open(path, os.O_WRONLY))
status = dict(l.split(":\\t") for l in open("/proc/self/status").read().splitlines() if l.count(":\\t") == 1)
for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
    if int(status[key], 16): print(key, status[key])
if status["NoNewPrivs"] != "1" or status["Seccomp"] != "2": print("no filter")
"""

# what the zygote mapped; what the attack itself has loaded since lies on the overlay, where writing makes a copy
_INTERPRETER = """
names = ["map_files/" + n for n in os.listdir("/proc/self/map_files")]
for path in ("/proc/self/" + name for name in ("exe", *names)):
    target = os.readlink(path)
    if path.endswith("exe") or os.path.basename(target).startswith(("python", "libpython", "libc.", "libc-", "ld-")):
        got("can write " + target, lambda: os.open(path, os.O_RDWR))
        got("can open again " + target, lambda: os.open(f"/proc/self/fd/{os.open(path, os.O_PATH)}", os.O_WRONLY))
"""

_PROCESSES = """
others = [n for n in os.listdir("/proc") if n.isdigit() and int(n) not in (1, os.getpid())]
if others: print("sees processes", *others)
for name in ("root", "fd", "map_files"):
    got("looks into " + name + " of init", lambda: os.listdir("/proc/1/" + name))
for name in ("mem", "environ", "maps"):
    got("reads " + name + " of init", lambda: open("/proc/1/" + name).read(1))
for number in range(1, 32):
    if number != 9 and number != 19: os.kill(1, number)
descriptors = [n for n in range(3, 1024) if os.path.exists(f"/proc/self/fd/{n}")]
# one is the code's own channel, on which it shows things
if len(descriptors) > 1: print("inherited descriptors", *descriptors)
"""

_SOCKETS = """
import socket
for family, kind, protocol in ((38, 5, 0), (40, 1, 0), (17, 3, 0), (16, 3, 9), (16, 3, 12), (44, 3, 0), (31, 3, 1)):
    got(f"socket family {family} protocol {protocol}", lambda: socket.socket(family, kind, protocol))
"""

_OTHER_ABI = """
import mmap
memory = mmap.mmap(-1, 4096, prot=7)
memory.write(bytes.fromhex("b8270000400f05c3"))
ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))()
print("x32 system calls")
"""

_VOLUME = """
got("set-user-ID file", lambda: os.open("/x/a", os.O_CREAT | os.O_RDWR, 0o4755))
got("set-user-ID temporary file", lambda: os.open("/x", os.O_TMPFILE | os.O_RDWR, 0o4755))
open("/x/b", "w").close()
got("set-user-ID bit", lambda: os.chmod("/x/b", 0o4755))
got("file by way of a link", lambda: open("/x/link"))
"""

_FORGERY = """
import json
print_ = lambda fd: os.write(fd, len(body).to_bytes(4, "little") + body)
body = json.dumps({"type": "Exited", "exit_code": 0, "usage": {}}).encode()
print_(1); print_(2)
for line in open("/proc/self/maps"):
    bounds, access, *_ = line.split()
    low, high = (int(word, 16) for word in bounds.split("-"))
    if access == "rw-s" and high - low == 131072:
        ctypes.memmove(low, (2**32 - 1).to_bytes(4, "little") + body, 4 + len(body))
os._exit(7)
"""


def _printable(text: str) -> str:
    shown = "".join(letter if " " <= letter <= "~" else " " for letter in text)
    return " ".join(shown.split())[:_SHOWN_CHARACTERS]


def _unless(good: Callable[[RunReport], bool]) -> Callable[[RunReport], str]:
    def judge(report: RunReport) -> str:
        if good(report):
            return ""
        return f"{report.verdict}, exit code {report.exit_code}, signal {report.exit_signal}"

    return judge


def _strange_variables(report: RunReport) -> str:
    return ", ".join(sorted(set(report.stdout.split()) - _ENVIRONMENT))


def _attacks(directory: str, port: int) -> list[_Attack]:
    files = [
        os.path.join(directory, "secret"),
        os.path.expanduser("~"),
        "/etc/shadow",
        "/var/run/docker.sock",
        "/root/.ssh",
    ]
    looking = f"for path in {files!r}:\n    if path != '/root' and os.path.lexists(path): print('sees', path)"
    reaching = f"import socket\ngot('port of the host', lambda: socket.create_connection(('127.0.0.1', {port}), 2))"
    forking = "import time\nfor _ in range(100):\n    try:\n        if os.fork() == 0: time.sleep(5); os._exit(0)\n" + (
        "    except BlockingIOError: raise SystemExit\nprint('100 processes')"
    )
    filling = "got('64 MB of disk', lambda: open('/tmp/x', 'wb').write(bytes(64 << 20)))"
    stopping = "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 64))\nos.kill(0, 19)\nwhile True: pass"
    hogging = "keep = []\nwhile True: keep.append(b'x' * (1 << 20))"
    volume = f"{directory}/volume:/x:rw"
    return [
        _Attack(name="read files of the host", source=looking),
        _Attack(name="read the caller's environment", source="print(*os.environ)", judge=_strange_variables),
        _Attack(name="overwrite the interpreter", source=_INTERPRETER),
        _Attack(name="see and signal other processes", source=_PROCESSES),
        _Attack(name="change the kernel's settings, gain capabilities", source=_KERNEL),
        _Attack(name="dangerous system calls", source=_CALLS),
        _Attack(name="dangerous socket families", source=_SOCKETS),
        _Attack(
            name="system calls of another calling convention",
            source=_OTHER_ABI,
            judge=_unless(lambda report: report.exit_signal == 31),
            machines=("x86_64",),
        ),
        _Attack(name="reach the host's loopback", source=reaching, options={"net": "none"}),
        _Attack(name="leave traps on a volume", source=_VOLUME, options={"volume": volume}),
        _Attack(name="forge the exit code", source=_FORGERY, judge=_unless(lambda report: report.exit_code == 7)),
        _Attack(
            name="memory bomb",
            source=hogging,
            options={"mem": "64M"},
            judge=_unless(lambda report: report.verdict == "MEMORY_LIMIT"),
        ),
        _Attack(name="fork bomb", source=forking, options={"pids": 32}),
        _Attack(name="fill the disk", source=filling, options={"disk": "16M", "mem": "256M"}),
        _Attack(
            name="flood the output",
            source="while True: os.write(1, b'x' * 65536)",
            options={"max_output": "64K"},
            judge=_unless(lambda report: report.verdict == "OUTPUT_LIMIT" and len(report.stdout) < 1 << 20),
        ),
        _Attack(
            name="ignore the time limit",
            source=stopping,
            options={"timeout": "500ms"},
            judge=_unless(lambda report: report.verdict == "TIME_LIMIT"),
        ),
    ]


def self_test() -> Iterator[Outcome]:
    """Try the attacks one after the other and yield how each ended.

    Raises:
        ContainError: No container can be made on this host at all.
    """
    run("pass")
    with (
        tempfile.TemporaryDirectory(prefix="container_magic-") as directory,
        socket.create_server(("127.0.0.1", 0)) as host,
    ):
        _bait(directory)
        for attack in _attacks(directory, host.getsockname()[1]):
            yield _try(attack)


def _bait(directory: str) -> None:
    secret, volume = os.path.join(directory, "secret"), os.path.join(directory, "volume")
    with open(secret, "w", encoding="utf-8") as file:
        file.write("secret")
    os.chmod(directory, 0o755)
    os.mkdir(volume)
    os.symlink(secret, os.path.join(volume, "link"))


def _try(attack: _Attack) -> Outcome:
    machine = os.uname().machine
    if machine not in attack.machines:
        return Outcome(name=attack.name, result="not applicable", detail=f"there is none on {machine}")
    try:
        report = run(_HELPERS + attack.source, **{"timeout": "20s", **attack.options})
    except HostError as error:
        return Outcome(name=attack.name, result="not applicable", detail=error.message)
    got = attack.judge(report)
    if got:
        return Outcome(name=attack.name, result="FAILED", detail=_printable(got))
    return Outcome(name=attack.name, result="held")
