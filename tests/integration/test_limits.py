"""Limits hold and figures are right: memory, CPU, tasks, disk, CPUs, devices, output, time."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import time
from pathlib import Path

import pytest

import container_magic as cm
from container_magic.cgroups.facts import probe
from container_magic.events import Output, Started
from container_magic.options import from_keywords
from container_magic.verbs.run import dry_run

MB = 1 << 20

BURN = """
import os, time
def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end: pass
"""


@pytest.fixture(autouse=True)
def enforceable(request, needs):
    """Skip where the host has no controllers for what these tests ask for."""
    needs(mem="100M", pids=50)


class TestMemory:
    """--mem and --memory-swap."""

    def test_too_much_memory_is_oom(self, run):
        """Beyond the limit the run is ended: verdict, oom_killed, a peak at the limit, SIGKILL."""
        report = run("x = bytearray(300 << 20); print('never')", mem="100M")

        assert (report.verdict, report.oom_killed, report.exit_signal) == ("MEMORY_LIMIT", True, 9)
        assert "memory" in report.limits_reached
        assert 90 * MB <= report.usage.memory_peak_bytes <= 100 * MB
        assert report.usage.memory_limit_bytes == 100 * MB
        assert report.stdout == ""

    def test_oom_of_a_child_counts(self, run):
        """When the kernel kills a child, the run is at its memory limit, whatever the parent makes of it."""
        report = run(
            """
            import subprocess, sys
            done = subprocess.run([sys.executable, '-c', 'x = bytearray(300 << 20)'])
            print(done.returncode)
            """,
            mem="100M",
        )

        assert (report.verdict, report.oom_killed) == ("MEMORY_LIMIT", True)

    def test_many_small_eaters_are_oom(self, run):
        """Memory is that of all processes together."""
        report = run(
            """
            import os, time
            for _ in range(10):
                if os.fork() == 0:
                    x = bytearray(20 << 20); time.sleep(20); os._exit(0)
            time.sleep(20)
            """,
            mem="100M",
        )

        assert report.verdict == "MEMORY_LIMIT"

    def test_next_run_after_oom_works(self, run):
        """A container that was killed leaves nothing that would hinder the next."""
        assert run("x = bytearray(300 << 20)", mem="64M").verdict == "MEMORY_LIMIT"
        assert run("print('fine')", mem="64M").stdout == "fine\n"

    @pytest.mark.alone
    def test_peak_is_what_was_touched(self, run):
        """150 MB touched is a peak of 150 to 200 MB."""
        report = run("x = bytearray(150 << 20)", mem="400M")

        assert report.ok
        assert 150 * MB <= report.usage.memory_peak_bytes <= 200 * MB

    def test_peak_of_nothing_is_small(self, run):
        """The interpreter itself is a few megabytes, not the zygote's or the client's."""
        assert 0 < run("pass").usage.memory_peak_bytes < 30 * MB

    def test_memory_that_fits_is_no_limit(self, run):
        """Just below the limit works."""
        assert run("x = bytearray(80 << 20)", mem="128M").ok

    def test_memory_none_lifts_the_limit(self, run):
        """--mem none: no limit in the report."""
        report = run("x = bytearray(50 << 20)", mem="none")

        assert report.ok
        assert not [limit for limit in report.limits if limit.name == "memory"]

    def test_default_is_half_of_what_may_be_used(self):
        """Without --mem there is a limit all the same."""
        report = cm.run("pass")

        (limit,) = [limit for limit in report.limits if limit.name == "memory"]
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        assert 0 < limit.value <= total / 2 + MB

    def test_memory_swap_is_set(self, run, needs):
        """--memory-swap is enforced and stands in the report."""
        needs(mem="100M", memory_swap="150M")
        report = run("print(1)", mem="100M", memory_swap="150M")

        (limit,) = [limit for limit in report.limits if limit.name == "memory_swap"]
        assert limit.value in (150 * MB, 50 * MB)
        assert report.ok

    def test_files_in_the_root_are_charged(self, run):
        """The writable layer is memory and counts."""
        report = run("open('/tmp/x', 'wb').write(bytes(60 << 20))", mem="200M", disk="100M")

        assert report.usage.memory_peak_bytes >= 60 * MB

    def test_zygote_is_not_the_oom_victim(self, run):
        """The runtime survives: the zygote of before runs the next container."""
        from container_magic.runtime import client

        before = client.zygote().process.pid
        run("x = bytearray(300 << 20)", mem="64M")

        assert client.zygote().process.pid == before


class TestCpu:
    """CPU time, --cpus, --cpu-time."""

    @pytest.mark.alone
    def test_cpu_seconds_are_what_was_burnt(self, run):
        """One second burnt is reported as one second."""
        usage = run(BURN + "burn(1.0)").usage

        assert 0.95 <= usage.cpu_seconds <= 1.3
        assert usage.cpu_user_seconds + usage.cpu_system_seconds == pytest.approx(usage.cpu_seconds, abs=0.2)

    @pytest.mark.alone
    def test_two_processes_count_twice(self, run):
        """Two processes that burn a second each are two seconds of CPU, whatever the wall says."""
        usage = run(BURN + "pid = os.fork()\nburn(1.0)\nif pid: os.waitpid(pid, 0)").usage

        assert 1.9 <= usage.cpu_seconds <= 2.6

    def test_dead_grandchildren_count(self, run):
        """CPU time of processes that nobody waited for is counted too."""
        usage = run(
            BURN
            + """
if os.fork() == 0:
    if os.fork() == 0:
        burn(0.5)
        os._exit(0)
    os._exit(0)
os.wait()
time.sleep(2.5)
"""
        ).usage

        assert usage.cpu_seconds >= 0.5

    def test_sleeping_costs_nothing(self, run):
        """Waiting is no CPU time."""
        usage = run("import time; time.sleep(0.5)").usage

        assert usage.cpu_seconds < 0.3
        assert usage.wall_seconds >= 0.5

    def test_cpu_limit_ends_the_run(self, run):
        """--cpu-time: TIME_LIMIT near the limit, by the CPU and not by the wall."""
        report = run("while True: pass", cpu_time="500ms", timeout="60s")

        assert (report.verdict, report.timed_out, report.exit_signal) == ("TIME_LIMIT", True, 9)
        assert report.limits_reached == ("cpu",)
        assert 0.45 <= report.usage.cpu_seconds < 1.5

    def test_cpu_limit_counts_many_short_lived_children(self, run):
        """Burning in children that die at once does not escape the limit."""
        report = run(
            BURN
            + """
while True:
    pid = os.fork()
    if pid == 0:
        burn(0.05)
        os._exit(0)
    os.waitpid(pid, 0)
""",
            cpu_time="700ms",
            timeout="60s",
        )

        assert report.limits_reached == ("cpu",)
        assert 0.6 <= report.usage.cpu_seconds < 2.5

    def test_cpu_limit_does_not_count_sleep(self, run):
        """Code that waits longer than its CPU limit is fine."""
        assert run("import time; time.sleep(1)", cpu_time="500ms").ok

    def test_cpuset(self, inside, run, needs):
        """--cpus 0-0 leaves CPU 0 alone."""
        needs(cpus="0-0")

        assert inside("import os; answer(sorted(os.sched_getaffinity(0)))", cpus="0-0") == [0]
        assert inside("import os; answer(sorted(os.sched_getaffinity(0)))", cpuset_cpus="0") == [0]

    def test_cpuset_cannot_be_left(self, inside, needs):
        """sched_setaffinity does not reach beyond the set."""
        if len(os.sched_getaffinity(0)) < 2:
            pytest.skip("one CPU only")
        needs(cpus="0-0")

        assert inside("import os; answer(error_of(os.sched_setaffinity, 0, {1}))", cpus="0-0") == "EINVAL"

    def test_quota_throttles(self, run, needs):
        """--cpus 0.5: half a CPU, and the report says for how long the code was held back."""
        needs(cpus="0.5")
        report = run("import time; end = time.time() + 1.5\nwhile time.time() < end: pass", cpus="0.5")

        assert report.usage.throttled_seconds > 0
        assert report.usage.cpu_seconds < 1.2

    def test_making_a_container_is_not_slowed_down(self, needs):
        """The least CPU time that there is makes the code slow, and not what comes before it."""
        needs(cpus="0.01")
        with contextlib.closing(cm.stream("pass", cpus="0.01", warm=0)) as events:
            started = next(event for event in events if isinstance(event, Started))

        assert started.startup_seconds < 10  # 30 s were not enough

    def test_unthrottled_is_zero_and_not_unknown(self, run, needs):
        """With a quota that is not used, throttled_seconds is 0."""
        needs(cpus="2")

        assert run("pass", cpus="2").usage.throttled_seconds == 0

    def test_cpu_shares_are_set(self, run, needs):
        """--cpu-shares is enforced and stands in the report."""
        needs(cpu_shares=512)

        assert "cpu_shares" in [limit.name for limit in run("pass", cpu_shares=512).limits]

    def test_cpuset_mems(self, inside, needs):
        """--cpuset-mems names the memory nodes."""
        needs(cpuset_mems="0")
        status = inside("answer(open('/proc/self/status').read())", cpuset_mems="0")

        assert "Mems_allowed_list:\t0\n" in status


class TestTasks:
    """--pids."""

    def test_fork_bomb_is_stopped(self, run):
        """A fork bomb finds its end at the limit; wall limit ends it; the peak is the limit."""
        report = run(
            """
            import os
            while True:
                try: os.fork()
                except OSError: pass
            """,
            pids=30,
            timeout="2s",
        )

        assert report.verdict == "TIME_LIMIT"
        assert report.usage.pids_peak is None or 25 <= report.usage.pids_peak <= 30

    def test_fork_bomb_does_not_touch_others(self, live, run):
        """While one container bombs, another one and this process go on."""
        live("import os\nwhile True:\n    try: os.fork()\n    except OSError: pass", pids=40, timeout="20s")

        assert run("import subprocess; print(subprocess.check_output(['echo', 'fine'], text=True))").ok

    def test_limit_is_eagain_inside(self, inside):
        """Beyond the limit fork and thread creation fail with EAGAIN."""
        found = inside(
            """
            import os, threading, time
            children = []
            def fork():
                for _ in range(100):
                    pid = os.fork()
                    if pid == 0:
                        time.sleep(60); os._exit(0)
                    children.append(pid)
            error = error_of(fork)
            try:
                threading.Thread(target=print).start()
                thread = 'started'
            except RuntimeError:
                thread = 'refused'
            for pid in children: os.kill(pid, 9); os.waitpid(pid, 0)
            answer([error, thread, len(children)])
            """,
            pids=20,
        )

        assert found[:2] == ["EAGAIN", "refused"]
        assert found[2] < 20

    def test_refused_task_is_named_in_the_report_of_a_failed_run(self, run):
        """Threads and forks; a run that copes with it has nothing to report."""
        source = """
            import threading, time
            for _ in range(100): threading.Thread(target=time.sleep, args=(20,), daemon=True).start()
            """
        report = run(source, pids=20)

        assert (report.verdict, report.limits_reached, report.timed_out) == ("RUNTIME_ERROR", ("pids",), False)
        assert run("import os\ntry:\n    while True: os.fork() or os._exit(0)\nexcept OSError: pass", pids=20).ok
        assert run("1 / 0", pids=20).limits_reached == ()

    def test_peak_is_counted(self, run):
        """The peak of tasks counts threads and children, init included."""
        report = run(
            "import threading, time\nfor _ in range(10): threading.Thread(target=time.sleep, args=(0.3,)).start()"
        )

        assert report.usage.pids_peak is None or 11 <= report.usage.pids_peak <= 14


class TestDisk:
    """--disk."""

    def test_full_disk_is_enospc(self, inside):
        """The writable layer has its size: ENOSPC and neither OOM nor a full host."""
        found = inside(
            """
            def fill():
                with open('/tmp/big', 'wb', buffering=0) as f:
                    for _ in range(100): f.write(bytes(1 << 20))
            error = error_of(fill)
            import os
            answer([error, os.path.getsize('/tmp/big') >> 20])
            """,
            disk="20M",
            mem="300M",
        )

        assert found[0] == "ENOSPC"
        assert 15 <= found[1] <= 20

    @pytest.mark.parametrize("place", ["/root", "/var/tmp", sys.prefix, "/usr/../etc"])
    def test_every_writable_place_is_on_the_same_disk(self, inside, place):
        """No directory lies outside of the limit."""
        found = inside(
            f"""
            def fill():
                with open({place!r} + '/big', 'wb', buffering=0) as f:
                    for _ in range(100): f.write(bytes(1 << 20))
            answer(error_of(fill))
            """,
            disk="20M",
            mem="300M",
        )

        assert found == "ENOSPC"

    @pytest.mark.parametrize(
        "place", ["/dev/shm", "/dev/mqueue", "/dev/pts", "/proc", "/sys", "/run", "/run/lock", "/home/user"]
    )
    def test_no_place_holds_more_than_the_disk(self, inside, place):
        """Each other place that can be written is bounded too, or cannot be written."""
        found = inside(
            f"""
            def fill():
                with open({place!r} + '/big', 'wb', buffering=0) as f:
                    for _ in range(100): f.write(bytes(1 << 20))
            answer(error_of(fill))
            """,
            disk="20M",
            mem="300M",
        )

        assert found is not None

    def test_inodes_are_bounded(self, inside):
        """Empty files cannot fill the host's memory: their number is bounded with the size."""
        found = inside(
            """
            def fill():
                for i in range(1_000_000): open(f'/tmp/{i}', 'x').close()
            answer(error_of(fill))
            """,
            disk="8M",
            mem="300M",
        )

        assert found == "ENOSPC"

    @pytest.mark.parametrize(
        "source",
        [
            "open('/tmp/x', 'wb').write(bytes(8 << 20))",
            "open('/home/x', 'wb').write(bytes(8 << 20))",
            "for i in range(100_000): open(f'/tmp/{i}', 'w').close()",
        ],
    )
    def test_full_disk_is_named_in_the_report_of_a_failed_run(self, run, source):
        """No block or no inode left, wherever it was written; a run that copes with it has nothing to report."""
        report = run(source, disk="4M")

        assert (report.verdict, report.limits_reached) == ("RUNTIME_ERROR", ("disk",))
        assert run(f"try:\n    {source}\nexcept OSError: pass", disk="4M").limits_reached == ()
        assert run("1 / 0", disk="4M").limits_reached == ()
        assert run("1 / 0", read_only=True).limits_reached == ()

    def test_full_disk_does_not_end_the_container(self, run):
        """After ENOSPC the code goes on, deletes, writes again."""
        report = run(
            """
            import os
            try:
                with open('/tmp/big', 'wb', buffering=0) as f:
                    while True: f.write(bytes(1 << 20))
            except OSError as error: print(error.strerror)
            os.unlink('/tmp/big'); open('/tmp/small', 'w').write('x'); print('on')
            """,
            disk="10M",
        )

        assert report.stdout == "No space left on device\non\n"

    def test_default_disk_says_enospc_before_oom(self, run):
        """With the default disk a full disk is ENOSPC and not OOM."""
        report = run(
            "open('/tmp/big', 'wb', buffering=0).write(bytes(1)); import shutil\n"
            "f = open('/tmp/big', 'wb', buffering=0)\nwhile True:\n    if f.write(bytes(1 << 20)) < 1 << 20: break",
            mem="200M",
        )

        assert report.verdict in ("OK", "RUNTIME_ERROR")
        assert not report.oom_killed


class TestDevices:
    """Block I/O."""

    @pytest.mark.root
    @pytest.mark.parametrize("option", ["device_read_bps", "device_write_bps", "device_read_iops", "device_write_iops"])
    def test_rates_are_accepted_for_the_disk(self, run, needs, option):
        """A rate for the whole device below / is enforced and stands in the report."""
        device = _root_disk()
        needs(**{option: f"{device}:1000000"})
        report = run("print(1)", **{option: f"{device}:1000000"})

        assert report.ok
        assert option in [limit.name for limit in report.limits]

    def test_missing_device_is_refused(self, run):
        """A device that is not there is named."""
        with pytest.raises(cm.ContainError, match="no-such-device"):
            run("pass", device_read_bps="/dev/no-such-device:1M")

    def test_file_is_no_device(self, run):
        """What is not a block device is refused, be it a file or a character device."""
        for path in ("/etc/passwd", "/dev/null"):
            with pytest.raises(cm.ContainError, match="device"):
                run("pass", device_read_bps=f"{path}:1M")


def _root_disk() -> str:
    numbers = os.stat("/").st_dev
    sysfs = Path(f"/sys/dev/block/{os.major(numbers)}:{os.minor(numbers)}")
    if not sysfs.exists():
        pytest.skip("/ is on no block device")
    disk = sysfs.resolve() if not (sysfs / "partition").exists() else sysfs.resolve().parent
    path = f"/dev/{disk.name}"
    if not os.path.exists(path):
        pytest.skip(f"no {path}")
    return path


class TestTime:
    """--timeout."""

    def test_wall_limit_ends_the_run(self, run):
        """The wall limit ends a sleeper, with its own verdict, near the limit."""
        begun = time.monotonic()
        report = run("import time; print('start'); time.sleep(60)", timeout="500ms")

        assert time.monotonic() - begun < 20
        assert (report.verdict, report.timed_out, report.exit_signal) == ("TIME_LIMIT", True, 9)
        assert report.limits_reached == ("wall",)
        assert report.stdout == "start\n"
        assert 0.5 <= report.usage.wall_seconds < 10

    def test_wall_limit_holds_for_code_that_ignores_signals(self, run):
        """No handler and no mask escapes it."""
        report = run(
            """
            import signal, time
            for n in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
                try: signal.signal(n, signal.SIG_IGN)
                except (OSError, ValueError): pass
            signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
            while True: time.sleep(1)
            """,
            timeout="500ms",
        )

        assert report.verdict == "TIME_LIMIT"

    def test_wall_limit_holds_for_stopped_code(self, run):
        """A payload that stops itself is ended too."""
        assert run("import os, signal; os.kill(os.getpid(), signal.SIGSTOP)", timeout="500ms").verdict == "TIME_LIMIT"

    def test_run_within_the_limit_is_ok(self, run):
        """A limit that is not reached changes nothing."""
        report = run("print(1)", timeout="20s")

        assert report.ok and not report.timed_out and report.limits_reached == ()

    def test_exit_handlers_do_not_escape_the_limit(self, run):
        """Code that hangs in atexit is ended as well."""
        assert run("import atexit, time; atexit.register(time.sleep, 60)", timeout="500ms").verdict == "TIME_LIMIT"


class TestOutput:
    """--max-output."""

    def test_head_and_tail_are_kept(self, run):
        """Beyond the limit the beginning and the end are shown, with the number of bytes between."""
        report = run("for i in range(2000): print(f'{i:09}')", max_output="8K")

        assert report.truncated and report.verdict == "OUTPUT_LIMIT"
        assert report.exit_code == 0
        assert report.stdout.startswith("000000000\n000000001\n")
        assert report.stdout.endswith("000001998\n000001999\n")
        assert f"[... {report.dropped_bytes:,} bytes not shown ...]" in report.stdout
        assert report.dropped_bytes == 20000 - 8192

    def test_both_streams_count_together(self, run):
        """Standard error is output too."""
        report = run("import sys\nprint('o' * 600)\nprint('e' * 600, file=sys.stderr)", max_output="1000")

        assert report.truncated
        assert report.dropped_bytes == 1202 - 1000
        assert report.limits_reached == ("output",)

    def test_exactly_the_limit_is_not_cut(self, run):
        """The limit itself is allowed."""
        report = run("import sys; sys.stdout.write('x' * 1000)", max_output="1000")

        assert report.ok and not report.truncated and report.stdout == "x" * 1000

    def test_one_more_than_the_limit_is_cut(self, run):
        """One byte too many is one byte dropped."""
        report = run("import sys; sys.stdout.write('x' * 1001)", max_output="1000")

        assert report.truncated and report.dropped_bytes == 1

    @pytest.mark.parametrize("fd", [1, 2])
    def test_flood_is_ended(self, run, fd):
        """A program that never stops writing is killed; what was shown is bounded."""
        report = run(f"import os\nwhile True: os.write({fd}, b'x' * 65536)", max_output="64K", timeout="60s")

        assert (report.verdict, report.exit_signal) == ("OUTPUT_LIMIT", 9)
        assert len(report.stdout) + len(report.stderr) < 70_000
        assert report.dropped_bytes > 64 * 1024
        assert report.limits_reached == ("output",)

    def test_small_flood_is_not_killed(self, run):
        """A few times the limit is cut but runs to its end."""
        report = run("import sys\nfor _ in range(40): sys.stdout.write('x' * 1000)\nsys.exit(5)", max_output="10000")

        assert (report.exit_code, report.verdict) == (5, "OUTPUT_LIMIT")

    @pytest.mark.alone
    def test_client_stays_small_in_a_flood(self, client_process):
        """500 MB of output that are passed on make the client grow by less than 50 MB."""
        client = client_process(
            """
            import container_magic as cm
            def status(name):
                return int(next(l for l in open('/proc/self/status') if l.startswith(name)).split()[1]) * 1024
            cm.run("pass", mem="200M")
            before = status('VmRSS')
            dropped = 0
            flood = "import os\\nfor _ in range(8000): os.write(1, b'x' * 65536)"
            for event in cm.stream(flood, mem="200M", max_output="40M"):
                dropped += getattr(event, 'dropped_bytes', 0)
            print(dropped >> 20, (status('VmHWM') - before) >> 20)
            """
        )
        output, complaints = client.communicate(timeout=100)

        assert output, complaints
        dropped, growth = map(int, output.split())
        assert dropped >= 400
        assert growth < 50

    @pytest.mark.alone
    def test_peak_of_the_client_in_a_flood_is_bounded(self, client_process):
        """With the default limit of 8 MB the client's peak grows by less than 50 MB however much comes."""
        client = client_process(
            """
            import container_magic as cm
            def status(name):
                return int(next(l for l in open('/proc/self/status') if l.startswith(name)).split()[1]) * 1024
            cm.run("pass", mem="200M")
            before = status('VmRSS')
            flood = "import os\\nwhile True: os.write(1, b'x' * 65536)"
            report = cm.run(flood, mem="200M", timeout="60s", max_output="8M")
            print(report.verdict, (status('VmHWM') - before) >> 20)
            """
        )
        output, complaints = client.communicate(timeout=100)

        verdict, growth = output.split()
        assert verdict == "OUTPUT_LIMIT", complaints
        assert int(growth) < 50

    def test_stream_passes_the_head_on_at_once(self, live):
        """The cap does not delay what is within it."""
        running = live("import time; print('x' * 100, end=''); time.sleep(20)", max_output="1K")

        assert running.until(lambda event: isinstance(event, Output)).data == b"x" * 100


class TestSamples:
    """The curve of the report."""

    def test_samples_cover_the_run(self, run):
        """A run of half a second has points in order, with growing CPU time and the memory of the moment."""
        report = run("import time\nx = bytearray(30 << 20)\nend = time.time() + 0.6\nwhile time.time() < end: pass")

        samples = report.usage.samples
        assert len(samples) >= 3
        assert [s.time for s in samples] == sorted(s.time for s in samples)
        assert all(first.cpu_seconds <= second.cpu_seconds for first, second in itertools.pairwise(samples))
        # not the last one: it may have been taken while the memory was being given back
        assert max(sample.memory_bytes for sample in samples) >= 30 * MB
        assert 0 < samples[-1].time <= report.usage.wall_seconds + 0.1

    def test_io_is_counted_or_unknown(self, run):
        """I/O figures are numbers where the host counts them, None where it does not, never negative."""
        usage = run("print(1)").usage

        for figure in (usage.io_read_bytes, usage.io_write_bytes):
            assert figure is None or figure >= 0

    @pytest.mark.root
    @pytest.mark.cgroup_v1
    def test_volume_writes_are_counted(self, run, tmp_path):
        """What is written to a disk through a volume, synchronously, is in the figures."""
        if "blkio" not in probe().bases:
            pytest.skip("no blkio controller")
        _root_disk()
        report = run(
            "import os\nfd = os.open('/out/x', os.O_WRONLY | os.O_CREAT)\n"
            "os.write(fd, os.urandom(4 << 20))\nos.fsync(fd)",
            volume=f"{tmp_path}:/out",
        )

        assert report.ok, report.stderr
        assert report.usage.io_write_bytes >= 4 * MB

    def test_dry_run_agrees_with_the_report(self, run):
        """What --dry-run says is enforced is what the report says."""
        options = {"mem": "100M", "pids": 20, "timeout": "5s"}
        planned = dry_run(from_keywords(options).spec).limits

        assert cm.run("pass", **options).limits == planned
