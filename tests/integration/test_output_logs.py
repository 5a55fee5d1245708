"""Output beyond the cap lies whole in a file that the report names and ``contain logs`` shows."""

import os
from pathlib import Path

import pytest

import container_magic as cm
from container_magic.events import Sampled
from container_magic.runtime.logs import kept_logs

CODE = "import sys\nfor i in range(3000):\n    sys.stdout.write(f'{i:06d}\\n')"
WHOLE = "".join(f"{i:06d}\n" for i in range(3000))


@pytest.fixture(autouse=True)
def _own_state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def test_whole_output_is_in_the_file_that_the_report_names(run):
    """Head, middle and tail, byte for byte."""
    report = run(CODE, max_output="4K")
    assert report.dropped_bytes > 0
    assert report.log_path is not None
    assert Path(report.log_path).read_text() == WHOLE
    assert report.container_id in report.log_path
    assert cm.RunReport.from_dict(report.to_dict()) == report


def test_run_below_the_cap_has_no_log(run):
    """Nothing is written."""
    report = run(CODE, max_output="1M")
    assert (report.verdict, report.log_path, kept_logs()) == ("OK", None, [])


def test_flood_is_bounded_by_the_runs_end(run):
    """Who writes sixteen times the cap is ended, and the log ends there."""
    report = run("import os\nwhile True: os.write(1, b'x' * 65536)", max_output="64K", timeout="60s")
    assert report.verdict == "OUTPUT_LIMIT"
    assert 16 * 65536 <= os.path.getsize(report.log_path) < 16 * 65536 + 257 * 1024


def test_run_that_is_given_up_leaves_no_log(live):
    """Closing the iterator ends the container and removes what was written."""
    running = live("import os, time\nos.write(1, b'x' * 10000)\ntime.sleep(60)", max_output="1K")
    running.until(lambda event: isinstance(event, Sampled))
    running.iterator.close()
    assert kept_logs() == []


def test_command_shows_the_log_safely_and_raw(contain, tmp_path):
    """Escape sequences are reduced to colours unless the bytes are asked for."""
    code = r"import os; os.write(1, b'\x1b[31mred\x1b[0m\x1b]0;title\x07\xff' * 100)"
    done = contain("run", "--max-output", "100", "-c", code)
    (log,) = kept_logs()
    assert f"(contain logs {log.container_id[:12]})".encode() in done.stderr
    raw = contain("logs", "--raw", log.container_id[:8])
    assert raw.stdout == b"\x1b[31mred\x1b[0m\x1b]0;title\x07\xff" * 100
    safe = contain("logs")
    assert safe.stdout.decode() == "\x1b[31mred\x1b[0m\ufffd" * 100
    missing = contain("logs", "0123")
    assert (missing.returncode, missing.stdout) == (127, b"")
    assert missing.stderr.startswith(b"contain: there is no log of a container 0123\nhint: ")
