"""``contain diff``: what a session has changed in its files, asked from another process, while it lives and later."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest
from defaults import DEFAULTS
from leftovers import PATIENCE_SECONDS, state_directories

import container_magic as cm
from container_magic.process.handshake import pair
from container_magic.runtime import records
from container_magic.runtime.asking import ask
from container_magic.runtime.control import CONTROL, MOST_REQUEST_BYTES
from container_magic.verbs.diff import diff, known_ids

OPTIONS = {name: value for name, value in DEFAULTS.items() if name != "warm"}


@pytest.fixture(autouse=True)
def state_home(tmp_path, monkeypatch):
    """Keep records where they go with the test."""
    path = tmp_path / "state"
    path.mkdir()
    monkeypatch.setenv("XDG_STATE_HOME", str(path))
    return path / "container_magic/changes"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Make a directory with files and be in it."""
    path = tmp_path / "project"
    (path / "data").mkdir(parents=True)
    for name in ("changed", "deleted", "kept", "data/old"):
        (path / name).write_text(name)
    monkeypatch.chdir(path)
    return path


@pytest.fixture
def session():
    """Return a function that begins a session and gives it with its container's id; ended after the test."""
    begun = []

    def session(**options):
        one = cm.Session(**{**OPTIONS, **options})
        begun.append(one)
        return one, one.run("pass").container_id

    yield session
    for one in begun:
        one.stop()


def lines(finished):
    """Return what a finished ``contain diff`` has said."""
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.decode().splitlines()


def changes_of(container_id):
    """Return the changes as Docker's diff would print them."""
    return [f"{kind} {path}" for kind, path in diff(container_id).changes]


def descriptors(pid):
    """Return what a process holds of the kinds that requests bring: sockets, devices, files in memory."""
    targets = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            targets.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return sorted(target for target in targets if target.startswith(("socket:", "/dev/", "/memfd:")))


CHANGE = """
import os, shutil
open("changed", "a").write("more")
open("added", "w")
os.remove("deleted")
shutil.rmtree("data")
os.makedirs("made/below")
"""


class TestLiving:
    """While the container lives."""

    @pytest.mark.parametrize("work", ["overlay", "copy"])
    def test_work_directory_is_listed_as_docker_lists(self, contain, session, here, work):
        """Added, changed, deleted, with the directories on the way, by any beginning of the id."""
        one, container_id = session(work=work)
        assert lines(contain("diff", container_id)) == []
        assert one.run(CHANGE).ok
        expected = [
            f"C {here}",
            f"A {here}/added",
            f"C {here}/changed",
            f"D {here}/data",
            f"D {here}/deleted",
            f"A {here}/made",
            f"A {here}/made/below",
        ]
        assert lines(contain("diff", container_id[:12])) == expected
        assert one.run("import os; os.remove('added')").ok
        assert lines(contain("diff", container_id[:12])) == [line for line in expected if "/added" not in line]

    def test_root_is_listed_without_what_the_runtime_wrote(self, session):
        """Files of the container's own, of the host tree, of the home."""
        one, container_id = session()
        assert changes_of(container_id) == []
        one.run(
            "import sys; open('/root/new', 'w'); open('/etc/hosts', 'a').write('#'); open(f'{sys.prefix}/made', 'w')"
        )
        found, prefix = changes_of(container_id), os.path.realpath(sys.prefix)
        assert {"A /root/new", "C /root", "C /etc/hosts", "C /etc", f"A {prefix}/made", f"C {prefix}"} <= set(found)
        assert not [line for line in found if "hostname" in line or "resolv" in line]

    def test_directory_made_anew_hides_what_was_in_it(self, session, here):
        """What is in the new one has been added."""
        one, container_id = session(work="overlay")
        one.run("import os, shutil; shutil.rmtree('data'); os.mkdir('data'); open('data/old', 'w')")
        assert changes_of(container_id) == [f"C {here}", f"C {here}/data", f"A {here}/data/old"]

    def test_hidden_files_of_a_home_are_not_listed_as_deleted(self, session, here, monkeypatch):
        """They were never there; one that the code makes is added."""
        (here / ".ssh").mkdir()
        (here / ".netrc").touch()
        monkeypatch.setenv("HOME", str(here))
        one, container_id = session(work="overlay")
        assert [line for line in changes_of(container_id) if str(here) in line] == []
        one.run("import os; os.mkdir('.ssh'); open('.ssh/key', 'w'); open('.netrc', 'w'); os.remove('.netrc')")
        assert changes_of(container_id) == [f"C {here}", f"A {here}/.ssh", f"A {here}/.ssh/key"]

    def test_json_has_the_same(self, contain, session, here):
        """For programs: whether it lives, and whether that is all."""
        one, container_id = session(work="overlay")
        one.run("open('added', 'w')")
        found = json.loads(contain("diff", "--format", "json", container_id[:20]).stdout)
        assert found == {
            "container_id": container_id,
            "running": True,
            "complete": True,
            "changes": [{"kind": "C", "path": str(here)}, {"kind": "A", "path": f"{here}/added"}],
        }

    def test_it_is_answered_while_a_cell_runs(self, client_process, contain, here):
        """From another process; the cell goes on."""
        process = client_process(
            f"""
            import container_magic as cm
            with cm.Session(work="overlay", **{OPTIONS!r}) as session:
                print(session.run("pass").container_id, flush=True)
                code = "import os, time\\nopen('added', 'w')\\nwhile open('kept').read() != 'go': time.sleep(0.01)"
                print(session.run(code, timeout_seconds=60).verdict, flush=True)
            """,
            cwd=here,
        )
        container_id = process.stdout.readline().strip()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while f"A {here}/added" not in changes_of(container_id):
            assert time.monotonic() < deadline
        (here / "kept").write_text("go")
        assert process.stdout.readline() == "OK\n"

    def test_hostile_names_are_one_printable_line_each(self, contain, session, here):
        """Newlines, escapes, bytes that are no text."""
        one, container_id = session(work="overlay")
        one.run("for name in (b'a\\nA forged', b'\\x1b[2J', b'\\xff'): open(name, 'w')")
        found = lines(contain("diff", container_id))
        assert found == [f"C {here}", f"A {here}/\\x1b[2J", f"A {here}/a\\nA forged", f"A {here}/\\xff"]

    def test_container_has_no_way_to_the_socket(self, session):
        """It lies on the host, in a directory that is not inside, and in no descriptor."""
        one, _ = session()
        report = one.run(
            "import os\n"
            "print([os.readlink(f'/proc/self/fd/{fd}') for fd in os.listdir('/proc/self/fd') if os.path.lexists("
            "f'/proc/self/fd/{fd}')], [line for line in open('/proc/net/unix') if 'control' in line])"
        )
        assert "control" not in report.stdout


class TestAsking:
    """Who may ask what."""

    def test_only_the_user_can_reach_the_socket(self, session):
        """Directory and socket are the user's alone."""
        _, container_id = session()
        (directory,) = [path for path in state_directories() if path.name == container_id]
        assert directory.stat().st_mode & 0o077 == 0
        assert (directory / CONTROL).stat().st_mode & 0o022 == 0

    def test_single_runs_have_no_socket_and_say_so(self, live):
        """A run that is alone has a report."""
        container = live("import time; time.sleep(60)")
        container_id = container.created.container_id
        (directory,) = [path for path in state_directories() if path.name == container_id]
        assert not (directory / CONTROL).exists()
        with pytest.raises(cm.StateError, match="single run") as refused:
            diff(container_id)
        assert "--changes" in refused.value.hint

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ((), "accepted: --format json, and one id"),
            (("a", "b"), "accepted: --format json, and one id"),
            (("--format", "yaml", "ab"), "accepted: --format json, and one id"),
            (("../etc",), "is no container's id"),
            (("zz",), "is no container's id"),
            (("f" * 64,), "there is no container"),
        ],
    )
    def test_what_names_no_container_is_refused_in_one_line(self, contain, words, message):
        """The exit code says whether it was not found or not understood."""
        finished = contain("diff", *words)
        assert finished.returncode == (127 if "there is no" in message else 125)
        assert message in finished.stderr.decode().splitlines()[0]

    def test_beginning_of_several_ids_is_refused_with_them(self, session, monkeypatch):
        """The user has to say more."""
        session()
        monkeypatch.setattr("container_magic.verbs.diff.kept_records", lambda: ["ab" * 32, "ab" * 31 + "cd"])
        with pytest.raises(cm.OptionError, match="begins 2 ids: abab"):
            diff("abab")

    def test_requests_that_are_none_do_no_harm(self, session):
        """Not JSON, too long, without a socket for the answer, with something else: dropped or refused."""
        one, container_id = session()
        (directory,) = [path for path in state_directories() if path.name == container_id]
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        null = os.open("/dev/null", os.O_RDWR)
        ours, theirs = pair()
        supervisor = json.loads((directory / "state.json").read_text())["supervisor_pid"]
        held = descriptors(supervisor)
        try:
            for data, fds in [
                (b"{}", []),
                (b"{}", [null]),
                (b"{}", [null, null]),
                (b"x" * (MOST_REQUEST_BYTES + 1), [theirs.fileno()]),
                (b"\xff", [theirs.fileno()]),
                (b"[" * 4000, [theirs.fileno()]),
                (b"[]", [theirs.fileno()]),
                (b'{"op": "no such thing"}', [theirs.fileno()]),
            ]:
                with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as caller:
                    caller.connect(f"/proc/self/fd/{fd}/{CONTROL}")
                    caller.settimeout(PATIENCE_SECONDS)
                    socket.send_fds(caller, [data], fds)
            ours.settimeout(PATIENCE_SECONDS)
            for _ in range(4):
                _, (answer,), _, _ = socket.recv_fds(ours, 16, 1)
                with open(answer) as file:
                    assert "failed" in json.loads(os.pread(file.fileno(), 4096, 0))
        finally:
            for number in (fd, null):
                os.close(number)
            ours.close()
            theirs.close()
        with pytest.raises(cm.OptionError, match="does not know 'frobnicate'"):
            ask(container_id, {"op": "frobnicate"})
        assert one.run("print(1)").stdout == "1\n"
        assert changes_of(container_id) == []
        deadline = time.monotonic() + PATIENCE_SECONDS
        while descriptors(supervisor) != held:  # the last answer's are closed when it has gone out
            assert time.monotonic() < deadline

    def test_completion_offers_what_can_be_asked(self, session):
        """Short ids, those that live first."""
        _, container_id = session()
        assert container_id[:12] in known_ids()


class TestAfterwards:
    """What is left when it has ended."""

    @pytest.mark.parametrize("work", ["overlay", "copy"])
    def test_changes_of_the_work_directory_are_told_after_the_end(self, contain, session, here, state_home, work):
        """The list, and nothing of the contents."""
        one, container_id = session(work=work)
        one.run("open('added', 'w').write('content of the file')")
        one.stop()
        assert lines(contain("diff", container_id[:12])) == [f"C {here}", f"A {here}/added"]
        (record,) = state_home.iterdir()
        assert record.stat().st_mode & 0o777 == 0o600
        assert "content of the file" not in record.read_text()
        assert json.loads(contain("diff", container_id, "--format=json").stdout)["running"] is False

    @pytest.mark.parametrize("work", ["none", "ro"])
    def test_other_sessions_leave_nothing(self, contain, session, here, state_home, work):
        """Nothing was written over the user's directory."""
        one, container_id = session(work=work)
        one.run("open('/root/x', 'w')")
        one.stop()
        assert not state_home.exists()
        assert contain("diff", container_id).returncode == 127

    def test_killed_client_leaves_the_record(self, client_process, here):
        """The supervisor writes it."""
        process = client_process(
            f"""
            import container_magic as cm, time
            session = cm.Session(work="overlay", **{OPTIONS!r})
            print(session.run("open('added', 'w')").container_id, flush=True)
            time.sleep(60)
            """,
            cwd=here,
        )
        container_id = process.stdout.readline().strip()
        process.send_signal(signal.SIGKILL)
        process.wait()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while diff(container_id).running:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert changes_of(container_id) == [f"C {here}", f"A {here}/added"]

    def test_no_link_is_followed_and_the_number_is_bounded(self, session, here, state_home, tmp_path, monkeypatch):
        """The oldest go; what is no record stays."""
        state_home.mkdir(parents=True)
        target = tmp_path / "target"
        target.write_text("mine")
        (state_home / f"{'ab' * 32}.json").symlink_to(target)
        (state_home / "notes.txt").touch()
        for number in range(30):
            path = state_home / f"{number:064x}.json"
            path.write_text('{"changes": []}')
            os.utime(path, (number + 1, number + 1))
        one, container_id = session(work="overlay")
        one.stop()
        left = {path.name for path in state_home.iterdir()}
        assert f"{container_id}.json" in left
        assert f"{29:064x}.json" in left
        assert f"{10:064x}.json" not in left
        assert len(left) == records.KEPT_RECORDS + 2
        assert target.read_text() == "mine"
        with pytest.raises(cm.NotFoundError):
            diff("ab" * 32)


def test_record_directory_that_cannot_be_had_is_none(session, here, monkeypatch):
    """The session runs all the same."""
    monkeypatch.setenv("XDG_STATE_HOME", "/proc/nowhere")
    one, container_id = session(work="overlay")
    assert one.run("open('added', 'w')").ok
    assert changes_of(container_id) == [f"C {here}", f"A {here}/added"]
    one.stop()
    assert not Path("/proc/nowhere").exists()
