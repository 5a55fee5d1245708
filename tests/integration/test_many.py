"""Many containers: at once, each with its own figures; in a row, leaking nothing."""

from __future__ import annotations

import gc
import os
import resource
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from leftovers import waiting

import container_magic as cm
from container_magic.runtime import client

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
GROWTH_BYTES = 2 << 20
WORK = """
import os, sys, time
number = {number}
x = bytearray((10 + 2 * number) << 20)
end = time.process_time() + 0.02 * number
while time.process_time() < end: pass
print('number', number)
print('error', number, file=sys.stderr)
sys.exit(number)
"""


@pytest.mark.alone
def test_twenty_at_once_have_their_own_output_and_figures(needs):
    """Twenty containers of twenty threads: output, exit code, CPU, memory and id are each one's own."""
    needs(mem="200M")
    with ThreadPoolExecutor(20) as pool:
        reports = list(
            pool.map(lambda number: cm.run(WORK.format(number=number), mem="200M", timeout="100s"), range(20))
        )

    assert [report.exit_code for report in reports] == list(range(20))
    assert [report.stdout for report in reports] == [f"number {number}\n" for number in range(20)]
    assert [report.stderr for report in reports] == [f"error {number}\n" for number in range(20)]
    assert len({report.container_id for report in reports}) == 20
    for number, report in enumerate(reports):
        assert 0.02 * number <= report.usage.cpu_seconds < 0.02 * number + 0.3
        assert (10 + 2 * number) << 20 <= report.usage.memory_peak_bytes < (10 + 2 * number + 20) << 20


def test_ends_of_every_kind_at_once(run, needs):
    """An OOM, a time limit, a flood and a crash beside normal runs: each gets its own verdict."""
    needs(mem="64M")
    kinds = [
        ("print(1)", {}, "OK"),
        ("x = bytearray(200 << 20)", {"mem": "64M"}, "MEMORY_LIMIT"),
        ("while True: pass", {"timeout": "1s"}, "TIME_LIMIT"),
        ("while True: print('x' * 9999)", {"max_output": "16K"}, "OUTPUT_LIMIT"),
        ("import os; os.abort()", {}, "SIGNALED"),
        ("1/0", {}, "RUNTIME_ERROR"),
    ] * 2
    with ThreadPoolExecutor(len(kinds)) as pool:
        verdicts = list(pool.map(lambda kind: run(kind[0], **kind[1]).verdict, kinds))

    assert verdicts == [verdict for _, _, verdict in kinds]


def test_streams_of_one_thread_can_be_interleaved():
    """Two streams that are read in turns do not disturb each other; the caller's SIGINT handler is back after them."""
    before = signal.getsignal(signal.SIGINT)
    source = "import time\nfor i in range(50): print({}, i)\ntime.sleep({})"
    streams = [cm.stream(source.format(number, number * 0.3), mem="200M") for number in range(2)]
    reports = [[], []]
    pending = list(zip(streams, reports, strict=True))
    while pending:
        for stream, seen in list(pending):
            event = next(stream, None)
            if event is None:
                pending.remove((stream, seen))
            else:
                seen.append(event)

    for number, seen in enumerate(reports):
        data = b"".join(event.data for event in seen if hasattr(event, "data")).decode()
        assert data == "".join(f"{number} {i}\n" for i in range(50))
    assert signal.getsignal(signal.SIGINT) is before


def _rss(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES


def _fds(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def _fds_when_all_wait() -> int:
    """Count this process's descriptors when it has all that containers which wait hand over."""
    deadline = time.monotonic() + 20
    while len(waiting()) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    return _fds(os.getpid())


def _measure() -> dict[str, int]:
    gc.collect()
    zygote = client.zygote().process.pid
    return {
        "zygote RSS": _rss(zygote),
        "client RSS": _rss(os.getpid()),
        "zygote descriptors": _fds(zygote),
        "client descriptors": _fds(os.getpid()),
    }


def _leaks(runs: int) -> None:
    for _ in range(20):  # caches, pools and arenas fill
        cm.run("print(1)", mem="200M", net="none")
    before = _measure()
    for _ in range(runs):
        assert cm.run("print(1)", mem="200M", net="none").stdout == "1\n"
    after = _measure()

    for name in ("zygote RSS", "client RSS"):
        assert after[name] - before[name] <= GROWTH_BYTES, (name, before, after)
    for name in ("zygote descriptors", "client descriptors"):
        assert after[name] == before[name], (name, before, after)


@pytest.mark.alone
def test_two_hundred_runs_leak_nothing():
    """Memory and descriptors of client and zygote stay as they are."""
    _leaks(200)


@pytest.mark.slow
@pytest.mark.alone
def test_thousand_runs_leak_nothing():
    """A thousand one-shot runs in a row grow no process."""
    _leaks(1000)


@pytest.mark.alone
def test_failing_runs_leak_nothing(needs):
    """Runs that fail, are refused or are ended leave no descriptor behind either."""
    needs(mem="64M")

    def fail_in_every_way():
        assert cm.run("1/0", mem="64M").verdict == "RUNTIME_ERROR"
        assert cm.run("import os; os.kill(os.getpid(), 9)", mem="64M").verdict == "SIGNALED"
        assert cm.run("x = bytearray(200 << 20)", mem="64M").verdict == "MEMORY_LIMIT"
        with pytest.raises(cm.OptionError):
            cm.run("pass", mem="banana")
        with pytest.raises(cm.ContainError):
            cm.run("pass", volume="/no/such/place:/x")
        stream = cm.stream("import time; time.sleep(60)", mem="64M")
        next(stream)
        stream.close()

    fail_in_every_way()
    before = _measure()
    for _ in range(10):
        fail_in_every_way()
    after = _measure()

    assert after["client descriptors"] == before["client descriptors"]
    assert after["zygote descriptors"] == before["zygote descriptors"]


def test_a_run_without_a_descriptor_left_leaks_none():
    """The pipes are there before the run; what its order needs besides them is refused."""

    def too_few():
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        taken = set(map(int, os.listdir("/proc/self/fd")))
        free = [number for number in range(len(taken) + 2) if number not in taken]
        resource.setrlimit(resource.RLIMIT_NOFILE, (free[1], hard))  # one more, for the run's own poll
        try:
            cm.run("pass", mem="64M", stdin=b"something")
        except OSError:
            return True
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return False

    for _ in range(3):
        cm.run("pass", mem="64M", stdin=b"something")
    refused = too_few()
    cm.run("pass", mem="64M", stdin=b"something")
    before = _fds_when_all_wait()
    for _ in range(20):
        refused = too_few() or refused
        cm.run("pass", mem="64M", stdin=b"something")
    assert refused
    assert _fds_when_all_wait() <= before


def test_volumes_leak_no_mount(run, tmp_path):
    """Containers with mounts leave none in the zygote's view or the host's."""
    zygote = client.zygote().process.pid

    def mounts():
        time.sleep(0.3)  # the zygote forks a spare supervisor when nobody asks for one
        return Path(f"/proc/{zygote}/mountinfo").read_text().count("\n"), _fds(zygote)

    run("pass", volume=f"{tmp_path}:/d", tmpfs="/t")
    before = mounts()
    for _ in range(10):
        assert run("open('/d/x', 'a').write('x')", volume=f"{tmp_path}:/d", tmpfs="/t").ok

    assert mounts() == before
    assert (tmp_path / "x").read_text() == "x" * 10
