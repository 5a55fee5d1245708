"""This package inside a container of its own: one line says that it cannot be, and nothing is started."""

from __future__ import annotations

import os
import sys
import textwrap
import time

import pytest

import container_magic as cm
from container_magic.rootfs.marker import HINT, NO_NESTING, is_inside

PACKAGE = os.path.dirname(cm.__file__)
PLACE = "/srv/lib"
OPTIONS = {"volume": f"{PACKAGE}:{PLACE}/container_magic:ro", "env": {"PYTHONPATH": PLACE}}
HAVE = f"import sys; sys.path.insert(0, {PLACE!r})\n"


@pytest.mark.parametrize("call", ["cm.run('1')", "cm.run(['true'])", "list(cm.stream('1'))", "cm.Session().run('1')"])
def test_api_is_a_host_error_that_starts_nothing(run, call):
    """The error has message and hint; there is no process more than before, and no directory of a runtime."""
    source = f"""
        import os
        import container_magic as cm
        before = os.listdir("/tmp"), os.listdir("/run")
        try:
            {call}
        except cm.HostError as error:
            print(error.message, error.hint, sep="\\n")
        print(sorted(pid for pid in os.listdir("/proc") if pid.isdecimal()), os.getpid())
        print((os.listdir("/tmp"), os.listdir("/run")) == before)
    """
    report = run(HAVE + textwrap.dedent(source), **OPTIONS)

    assert report.ok, report.stderr
    message, hint, processes, unchanged = report.stdout.splitlines()
    assert (message, hint, unchanged) == (NO_NESTING, HINT, "True")
    assert processes == "['1', '2'] 2"


@pytest.mark.parametrize(
    "words", [["run", "-c", "1"], ["run", "--", "true"], ["run", "--dry-run", "-c", "1"], ["doctor", "--self-test"]]
)
def test_command_says_it_in_one_line(run, words):
    """``contain`` fails as for a host that cannot, with the hint below and no traceback."""
    report = run([sys.executable, "-m", "container_magic", *words], **OPTIONS)

    assert report.exit_code == 125
    assert report.stderr.splitlines() == [f"contain: {NO_NESTING}", f"hint: {HINT}"]
    assert report.stdout == ""


def test_doctor_says_it_and_tries_nothing(run):
    """Its one line is the reason."""
    report = run([sys.executable, "-m", "container_magic", "doctor"], **OPTIONS)

    (line,) = report.stdout.splitlines()
    assert NO_NESTING in line
    assert HINT in line


def test_extension_and_magic_in_a_session_say_the_same(needs):
    """``%load_ext container_magic`` and ``%%contain`` fail with one text; the session goes on."""
    with cm.Session(**OPTIONS, best_effort=True) as session:
        loaded = session.run(f"{HAVE}\n%load_ext container_magic")
        cell = session.run("%%contain\n1")
        line = session.run("%contain doctor")
        after = session.run("print('on')")

    assert (loaded.error.ename, list(loaded.error.traceback)) == (
        "HostError",
        [f"HostError: {NO_NESTING}", f"hint: {HINT}"],
    )
    for report in (cell, line):
        assert (report.error.ename, report.error.evalue) == ("UsageError", f"{NO_NESTING}; {HINT}")
    assert after.stdout == "on\n"


def test_container_without_its_mark_is_a_place_like_others(run):
    """Where the mark is gone, what fails is what fails in any place without user namespaces."""
    source = """
        import os
        import container_magic as cm
        os.remove("/run/host/container-manager")
        try:
            cm.run("1")
        except cm.ContainError as error:
            print(type(error).__name__, "inside a container" in error.message)
    """
    report = run(HAVE + textwrap.dedent(source), **OPTIONS)

    assert report.stdout.split()[1:] == ["False"], report.stderr


@pytest.mark.parametrize("text", [None, "docker\n", "container_magic2\n", ""])
def test_other_containers_are_hosts(monkeypatch, tmp_path, text):
    """A mark of somebody else's, or none, is not ours."""
    from container_magic.rootfs import marker

    mark = tmp_path / "container-manager"
    if text is not None:
        mark.write_text(text)
    monkeypatch.setattr(marker, "MARKER", str(mark))
    assert not marker.is_inside()
    mark.write_text("container_magic\n")
    assert marker.is_inside()


def test_this_process_is_outside():
    """Tests run on a host, as far as this package can tell."""
    began = time.monotonic()
    assert not is_inside()
    assert time.monotonic() - began < 1
