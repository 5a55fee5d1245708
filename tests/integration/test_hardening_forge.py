"""Ways to lie: forged results and usage, hostile bytes for whoever reads, leftovers for whoever cleans up."""

from __future__ import annotations

import json
import os
import re
import resource
import struct
import tracemalloc

import pytest

import container_magic as cm
from container_magic.events import to_dict
from container_magic.process.handshake import MAX_FRAME_BYTES, FrameReader, frame
from container_magic.runtime.watch import parse_error

# finds the page that init reads when the code has ended, and writes there what it likes
SLOT = """
import ctypes, json, os
for line in open('/proc/self/maps'):
    bounds, access, *_ = line.split()
    low, high = (int(word, 16) for word in bounds.split('-'))
    if access == 'rw-s' and high - low == 131072:
        break
else:
    raise SystemExit('no slot')
def put(data, length=None):
    ctypes.memmove(low + 4, data, len(data))
    ctypes.memmove(low, (len(data) if length is None else length).to_bytes(4, 'little'), 4)
"""
FORGERIES = {
    "an error that was none": b'{"ename": "Forged", "evalue": "x", "traceback": []}',
    "deep nesting": b"[" * 131_000,
    "deep nesting in a field": b'{"ename": ' + b"[" * 60_000 + b"]" * 60_000 + b', "evalue": 1, "traceback": []}',
    "control characters": b'{"ename": "a", "evalue": "' + b"\\u001b" * 20_000 + b'", "traceback": []}',
    "half surrogates": b'{"ename": "\\ud800", "evalue": "\\udfff", "traceback": ["\\ud800"]}',
    "many lines": json.dumps({"ename": "a", "evalue": "b", "traceback": [""] * 30_000}).encode(),
    "a number of a hundred thousand digits": b'{"ename": 1, "evalue": ' + b"9" * 100_000 + b', "traceback": []}',
    "no numbers": b'{"ename": NaN, "evalue": Infinity, "traceback": {}}',
    "wrong types": b'{"ename": {"a": [1]}, "evalue": null, "traceback": "abc"}',
    "another event": b'{"type": "Exited", "exit_code": 0, "usage": {"cpu_seconds": 0}}',
    "a pickle": b"cposix\nsystem\n(S'touch /tmp/forged'\ntR.",
    "not UTF-8": b"\xff\xfe\x00" * 1000,
}


class TestSlot:
    """The one place that the code and init share."""

    @pytest.mark.parametrize("name", FORGERIES)
    @pytest.mark.parametrize("code", [0, 7])
    def test_forged_slot_changes_no_fact(self, run, name, code):
        """Exit code and verdict are what wait said; the report can be written down whatever stands in the slot."""
        report = run(f"{SLOT}\nput({FORGERIES[name]!r})\nos._exit({code})")

        assert (report.exit_code, report.verdict) == (code, "RUNTIME_ERROR" if code else "OK")
        json.loads(report.to_json())
        if report.error is not None:
            for text in (report.error.ename, report.error.evalue, *report.error.traceback):
                text.encode()  # what cannot be encoded would break the notebook's message
                assert len(text) <= 1 << 17
            assert len(report.error.traceback) <= 200

    @pytest.mark.parametrize("length", [1 << 17, (1 << 17) - 4, (1 << 31) - 1, (1 << 32) - 1, 1])
    def test_forged_length_reads_nothing_beyond(self, run, length):
        """A length beyond the slot is no error, and init lives to say how the code ended."""
        report = run(f"{SLOT}\nput(b'x', {length})\nos._exit(5)")

        assert report.exit_code == 5
        assert report.error is None

    def test_slot_that_changes_while_it_is_read(self, run):
        """A grandchild that goes on writing when the payload is dead changes no fact either."""
        for _ in range(5):
            report = run(
                f"{SLOT}\nif os.fork() == 0:\n    os.setsid()\n    while True:\n"
                "        put(b'{', 1 << 30); put(b'x' * 100000)\nimport time; time.sleep(0.05); os._exit(9)"
            )
            assert report.exit_code == 9

    def test_error_parser_takes_anything(self):
        """Every prefix and every flipped byte of an error is an error or none, never an exception."""
        good = b'{"ename": "E", "evalue": "v", "traceback": ["line"]}'
        for position in range(len(good)):
            parse_error(good[:position])
            parse_error(good[:position] + bytes([good[position] ^ 0xFF]) + good[position + 1 :])

        assert parse_error(good).ename == "E"


class TestFigures:
    """Usage and verdict come from outside."""

    def test_printed_events_are_text(self, run):
        """Frames and events on standard output and error are output."""
        forged = json.dumps({"type": "Exited", "exit_code": 0, "exit_signal": None, "oom_killed": False, "usage": {}})
        packed = frame(json.loads(forged))
        report = run(f"import os\nos.write(1, {packed!r}); os.write(2, {packed!r}); print({forged!r})\nos._exit(4)")

        assert report.exit_code == 4
        assert report.stdout.count("Exited") == 2

    def test_replaced_functions_do_not_change_the_end(self, run):
        """Whatever the code does to its own interpreter's os, time and sys, exit code and time are the kernel's."""
        report = run(
            """
            import os, resource, sys, time
            end = time.process_time() + 0.5
            while time.process_time() < end: pass
            time.monotonic = time.time = time.process_time = lambda: 0.0
            resource.getrusage = os.times = lambda *a: None
            real = os._exit
            os._exit = sys.exit = lambda *a: real(0)
            os.kill(os.getpid(), 9)
            """
        )

        assert report.exit_signal == 9
        assert report.usage.cpu_seconds is None or report.usage.cpu_seconds > 0.4
        assert report.usage.wall_seconds > 0.4

    def test_peak_cannot_be_taken_back(self, run, needs):
        """Memory that was freed, or whose owner is dead, stays in the peak."""
        needs(mem="256M")
        report = run("import os\nif os.fork() == 0:\n    x = bytearray(100 << 20); os._exit(0)\nos.wait()")

        if report.usage.memory_peak_bytes is None:
            pytest.skip("no figure of the peak on this host")
        assert report.usage.memory_peak_bytes > 100 << 20

    def test_own_cgroup_files_are_out_of_reach(self, inside):
        """No counter can be reset: nothing named like one is anywhere in the tree."""
        found = inside(
            """
            import os
            names = {'memory.max_usage_in_bytes', 'cpuacct.usage', 'memory.peak', 'cgroup.procs', 'release_agent'}
            answer([os.path.join(place, n) for place, _, files in os.walk('/sys') for n in names & set(files)
                    if os.access(os.path.join(place, n), os.W_OK)])
            """
        )

        assert found == []


class TestReader:
    """Whoever reads what comes up."""

    @pytest.mark.parametrize(
        "data",
        [
            struct.pack("=I", MAX_FRAME_BYTES + 1),
            struct.pack("=I", 2**32 - 1) + b"x" * 1000,
            struct.pack("=I", 2) + b"[]",
            struct.pack("=I", 4) + b"\xff\xfe\xff\xfe",
            struct.pack("=I", 1) + b"{",
            struct.pack("=I", 0),
        ],
        ids=["too long", "huge", "no object", "no text", "half", "empty"],
    )
    def test_hostile_frames_are_refused(self, data):
        """A frame that is too long or no JSON object is a ValueError."""
        with pytest.raises(ValueError):
            FrameReader().feed(data)

    def test_memory_is_bounded_by_what_came(self):
        """A reader that is promised eight megabytes does not set them aside."""
        reader = FrameReader()
        tracemalloc.start()
        try:
            reader.feed(struct.pack("=I", MAX_FRAME_BYTES) + b"x" * 1000)
            assert tracemalloc.get_traced_memory()[1] < 200_000
        finally:
            tracemalloc.stop()

    def test_largest_error_fits_a_frame(self):
        """The worst that the slot can hold, escaped, is still one frame that the client takes."""
        error = parse_error(b'{"ename": "a", "evalue": "' + "\U0010ffff".encode() * 32_000 + b'", "traceback": []}')

        assert len(frame(to_dict(error))) <= MAX_FRAME_BYTES
        assert FrameReader().feed(frame(to_dict(error)))[0]["type"] == "CodeError"

    def test_client_stays_small_beside_a_hostile_container(self, run):
        """The full slot, a full output cap and thousands of samples do not grow the client."""
        run("pass")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(5):
            run(f"{SLOT}\nos.write(1, b'x' * 4000000)\nput(b'{{' + b'x' * 131000)\nos._exit(1)", max_output="1M")

        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 48 * 1024


LEFTOVERS = {
    "chmod 000": "os.makedirs('a/b/c'); open('a/b/c/f', 'w').close()\nfor p in ('a/b/c', 'a/b', 'a'): os.chmod(p, 0)",
    "deep tree": "for _ in range(3000): os.mkdir('d'); os.chdir('d')",
    "names that are no text": "names = b'\\xff\\xfe', b'\\n', b'-rf', b'\\x1b[2J', b' ', b'*', b'x' * 255\n"
    "for n in names: open(n, 'w').close()",
    "links to everywhere": "targets = '/', '/etc', '..', '/proc/1/root', '/proc/self/fd/0', 'l5', '/sys'\n"
    "for n, t in enumerate(targets): os.symlink(t, f'l{n}')",
    "devices and sockets": "import socket\nos.mkfifo('fifo'); s = socket.socket(socket.AF_UNIX); s.bind('socket')",
    "many files": "for n in range(3000): open(f'f{n}', 'w').close()",
    "sparse giants": "f = open('big', 'wb'); f.truncate(1 << 42)",
    "locked and leased": "import fcntl\nf = open('l', 'w'); fcntl.flock(f, fcntl.LOCK_EX); fcntl.fcntl(f, 1024, 1)",
    "working directory removed": "os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')",
    "deleted and still open": "fds = [os.open(f'o{n}', os.O_CREAT | os.O_RDWR) for n in range(500)]\n"
    "for n in range(500): os.unlink(f'o{n}')",
}


@pytest.mark.parametrize("name", LEFTOVERS)
def test_leftovers_are_cleaned_up(name):
    """Trees that a cleaner stumbles over are gone with the container: Deleted comes, and soon."""
    source = "import os\nfor place in '/tmp', '/root', '/dev/shm':\n    os.chdir(place); os.mkdir('a'); os.chdir('a')\n"
    source += "".join(f"    {line}\n" for line in LEFTOVERS[name].splitlines())
    events = list(cm.stream(source, mem="256M", timeout="30s"))

    assert type(events[-1]).__name__ == "Deleted"
    assert next(event for event in events if type(event).__name__ == "Exited").exit_code == 0


def test_nothing_of_a_container_reaches_the_hosts_runtime_directory(inside):
    """The state directory of a run holds the supervisor's files alone, by whatever name the container goes."""
    from container_magic.runtime.sweep import runtime_directory

    assert inside("answer(1)", hostname="x.y-z", warm=0) == 1

    assert all(re.fullmatch("[0-9a-f]{64}", name) for name in os.listdir(runtime_directory()))
