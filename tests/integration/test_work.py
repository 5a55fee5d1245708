"""``--work``: the current directory inside, read-only, under an overlay or as a copy; the host's stays as it is."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from leftovers import PATIENCE_SECONDS, waiting

import container_magic as cm
from container_magic.runtime import client

MODES = ("ro", "overlay", "copy")
WRITABLE = ("overlay", "copy")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Make a project directory, be in it, and see that nothing in it has changed at the end."""
    path = tmp_path / "project"
    (path / "data").mkdir(parents=True)
    (path / "notes.txt").write_text("the host's")
    (path / "data/table.csv").write_text("a,b\n1,2\n")
    (path / "link").symlink_to("notes.txt")
    monkeypatch.chdir(path)
    return path


def tree(path):
    """Return what a change of any kind would change: names, kinds, modes, owners, times, content."""
    found = {}
    for place in [path, *sorted(path.rglob("*"))]:
        status = place.lstat()
        content = place.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found[str(place)] = (status.st_mode, status.st_uid, status.st_ino, status.st_nlink, status.st_mtime_ns, content)
    return found


def until_one_waits():
    """Wait until a container stands ready for the next run."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not waiting():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class TestWhatIsSeen:
    """Files, place and working directory."""

    @pytest.mark.parametrize("mode", MODES)
    def test_files_are_at_the_same_place_which_is_the_working_directory(self, inside, here, mode):
        """By relative and by absolute path; the links lead where they lead on the host."""
        found = inside(
            f"""
            import os
            table = open({str(here)!r} + "/data/table.csv").read()
            answer([os.getcwd(), sorted(os.listdir()), open("link").read(), table])
            """,
            work=mode,
        )
        assert found == [str(here), ["data", "link", "notes.txt"], "the host's", "a,b\n1,2\n"]

    def test_nothing_is_seen_unless_it_is_asked_for(self, inside, here):
        """None is the default, and a word that takes a default back."""
        code = f"import os; answer([os.getcwd(), os.path.exists({str(here)!r})])"
        assert inside(code) == inside(code, work="none") == ["/root", False]

    @pytest.mark.parametrize("mode", MODES)
    def test_a_working_directory_that_was_asked_for_goes_before(self, inside, here, mode):
        """``-w`` below it, or elsewhere."""
        assert inside("import os; answer(os.listdir())", work=mode, workdir=f"{here}/data") == ["table.csv"]
        assert inside("import os; answer(os.getcwd())", work=mode, workdir="/srv") == "/srv"

    @pytest.mark.parametrize("mode", MODES)
    def test_a_command_and_another_language_are_there_too(self, run, here, mode):
        """Not Python alone."""
        assert run(["/bin/sh", "-c", "cat notes.txt"], work=mode).stdout == "the host's"
        assert run("cat notes.txt", work=mode, lang="sh").stdout == "the host's"

    def test_modules_beside_the_notebook_can_be_imported(self, inside, here):
        """From the working directory, where Python looks first."""
        (here / "helper_of_mine.py").write_text("VALUE = 42")
        assert inside("import helper_of_mine; answer(helper_of_mine.VALUE)", work="overlay") == 42

    @pytest.mark.parametrize("mode", MODES)
    def test_map_and_session_have_it(self, here, mode):
        """Wherever options of a run are taken."""
        reports = list(cm.map("print(open('notes.txt').read(), input())", ["1", "2"], work=mode, warm=1))
        assert sorted(report.stdout for report in reports) == ["the host's 1\n", "the host's 2\n"]
        with cm.Session(work=mode) as session:
            assert session.run("print(open('notes.txt').read())").stdout == "the host's\n"

    def test_files_of_an_overlay_come_out_by_out_file(self, run, here):
        """What the run has written there is collected."""
        report = run("open('result.bin', 'w').write('x')", work="overlay", out_file="result.bin")
        assert [file.path for file in report.files] == ["result.bin"]
        assert (here / "result.bin").read_text() == "x"

    def test_plan_says_it(self, contain, here):
        """``--dry-run`` names directory and way, and starts nothing."""
        shown = {
            mode: contain("run", "--dry-run", "--work", mode, "-c", "1", cwd=here).stdout.decode() for mode in MODES
        }
        assert f"bind of {here} on {here} ro" in shown["ro"]
        assert f"overlay on {here}, lowerdir={here}" in shown["overlay"]
        assert f"copy of {here} on the writable layer" in shown["copy"]
        assert all(f"cwd {here}" in text for text in shown.values())


class TestWriting:
    """What is written stays inside, within the limit of the disk."""

    @pytest.mark.parametrize("mode", WRITABLE)
    @pytest.mark.parametrize("user", ["", "1000:1000"])
    def test_files_can_be_changed_made_and_deleted_inside(self, inside, needs, here, mode, user):
        """By the container's user, whose they are; the host's stay as they were."""
        if user:
            needs(user=user)
            if os.geteuid() != 0:
                pytest.skip("an ordinary user cannot give files away")
        before = tree(here)
        found = inside(
            """
            import os, shutil
            owner = os.stat("notes.txt").st_uid == os.getuid()
            open("notes.txt", "a").write(" and more")
            open("new.txt", "w").write("new")
            os.rename("new.txt", "data/renamed.txt")
            os.remove("link")
            os.remove("data/table.csv")
            shutil.copy("notes.txt", "copy.txt")
            os.mkdir("made")
            answer([owner, sorted(os.listdir()), os.listdir("data"), open("copy.txt").read()])
            """,
            work=mode,
            user=user or None,
        )
        assert found == [True, ["copy.txt", "data", "made", "notes.txt"], ["renamed.txt"], "the host's and more"]
        assert tree(here) == before

    @pytest.mark.parametrize("mode", WRITABLE)
    def test_disk_bounds_what_is_written(self, inside, here, mode):
        """ENOSPC, as anywhere on the writable layer."""
        code = 'answer(error_of(lambda: [open(f"f{n}", "wb").write(bytes(2**20)) for n in range(30)]))'
        assert inside(code, work=mode, disk="16M") == "ENOSPC"

    def test_read_only_means_read_only(self, inside, here):
        """Also for who owns the files."""
        assert (
            inside('answer([error_of(open, "notes.txt", "a"), error_of(open, "new", "w")])', work="ro") == ["EROFS"] * 2
        )

    @pytest.mark.parametrize("mode", WRITABLE)
    def test_without_a_writable_layer_nothing_can_be_written(self, inside, here, mode):
        """``--read-only`` holds for what lies on it, too."""
        code = 'answer([open("notes.txt").read(), error_of(open, "notes.txt", "a"), error_of(open, "new", "w")])'
        assert inside(code, work=mode, read_only=True) == ["the host's", "EROFS", "EROFS"]

    @pytest.mark.parametrize("mode", WRITABLE)
    def test_one_run_does_not_see_what_another_wrote(self, inside, here, mode):
        """Each container has a layer of its own."""
        inside('open("left", "w"); answer(1)', work=mode)
        assert "left" not in inside("import os; answer(os.listdir())", work=mode)

    @pytest.mark.parametrize("mode", MODES)
    def test_no_way_of_writing_reaches_the_host(self, inside, here, mode):
        """By name, through /proc, by rename and links, through descriptors opened anew, by mapping, by mounting."""
        before = tree(here)
        tried = inside(
            """
            import ctypes, mmap, os
            here, tried = os.getcwd(), []
            def attempt(name, function):
                try:
                    function()
                    tried.append(name)
                except OSError:
                    pass
            def write(path, flags=0):
                fd = os.open(path, os.O_WRONLY | flags)
                os.write(fd, b"attack")
                os.close(fd)
            reader, path_fd = os.open("notes.txt", os.O_RDONLY), os.open("notes.txt", os.O_PATH)
            directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
            roots = (f"/proc/self/root{here}", "/proc/self/cwd", f"/proc/1/root{here}", f"/proc/self/fd/{directory}")
            for place in roots:
                attempt(place, lambda: write(f"{place}/notes.txt"))
                attempt(place + " new", lambda: write(f"{place}/attack", os.O_CREAT))
            for fd in (reader, path_fd):
                attempt("fd", lambda: write(f"/proc/self/fd/{fd}", os.O_TRUNC))
                attempt("fd append", lambda: write(f"/proc/self/fd/{fd}", os.O_APPEND))
                attempt("truncate", lambda: os.truncate(f"/proc/self/fd/{fd}", 0))
                attempt("link", lambda: os.link(f"/proc/self/fd/{fd}", "/tmp/linked", follow_symlinks=True))
            attempt("hard link", lambda: os.link("notes.txt", "hard"))
            attempt("hard link write", lambda: write("hard"))
            attempt("hard link out", lambda: os.link("notes.txt", "/tmp/hard"))
            attempt("rename", lambda: os.rename("notes.txt", "data/moved"))
            attempt("exchange", lambda: os.replace("data/table.csv", "link"))
            attempt("rename directory", lambda: os.rename("data", "elsewhere"))
            attempt("rename the place", lambda: os.rename(here, here + ".old"))
            own = (os.getuid(), os.getgid())
            calls = {"chmod": (0o777,), "chown": own, "utime": (), "setxattr": ("user.x", b"x")}
            for name, arguments in calls.items():
                attempt(name, lambda: getattr(os, name)("/proc/self/fd/%d" % reader, *arguments))
            def mapped():
                fd = os.open("/proc/self/fd/%d" % reader, os.O_RDWR)
                with mmap.mmap(fd, 0) as memory:
                    memory[:6] = b"attack"
            attempt("mmap", mapped)
            libc = ctypes.CDLL(None, use_errno=True)
            for flags in (0x1000 | 32, 32, 0x1000):
                if libc.mount(b"none", here.encode(), None, flags, None) == 0:
                    tried.append(f"mount {flags}")
            if libc.umount2(here.encode(), 2) == 0:
                tried.append("umount")
            attempt("remove", lambda: os.remove("notes.txt"))
            answer(tried)
            """,
            work=mode,
        )
        assert not [name for name in tried if "mount" in name]
        assert mode != "ro" or tried == []
        assert mode == "ro" or "mmap" in tried  # it does write, somewhere else
        assert tree(here) == before

    @pytest.mark.parametrize("mode", WRITABLE)
    def test_sockets_and_pipes_of_the_host_lead_nowhere(self, inside, here, mode):
        """What has one of the names inside is another thing than on the host, or is not there."""
        os.mkfifo(here / "pipe", 0o666)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("socket")
            os.chmod("socket", 0o666)
            listener.listen()
            reader = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)
            try:
                found = inside(
                    """
                    import os, socket
                    connected = error_of(socket.socket(socket.AF_UNIX).connect, "socket")
                    answer([connected, error_of(os.open, "pipe", os.O_WRONLY | os.O_NONBLOCK)])
                    """,
                    work=mode,
                )
            finally:
                os.close(reader)
        assert found == (["ECONNREFUSED", "ENXIO"] if mode == "overlay" else ["ENOENT", "ENOENT"])

    @pytest.mark.root
    @pytest.mark.parametrize("mode", MODES)
    def test_no_mount_inside_is_a_writable_one_of_the_host(self, inside, here, mode):
        """The file system of the host is there read-only, as the kernel lists the mounts."""
        lines = inside("answer([line.split() for line in open('/proc/self/mountinfo')])", work=mode)
        at = [line for line in lines if line[4] == str(here)]
        assert [(line[line.index("-") + 1], "ro" in line[5].split(",")) for line in at] == [
            {"overlay": ("overlay", False), "copy": ("tmpfs", False)}.get(mode, (at[0][at[0].index("-") + 1], True))
        ]


class TestOwners:
    """Under root the files are mapped: who owns the directory is the container's user inside."""

    pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="gives files to others")]

    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("user", [None, "1000:1000", "nobody"])
    def test_directory_of_another_user_is_the_containers_users(self, inside, here, mode, user):
        """A submission that belongs to a student; what the student may not read on the host stays closed."""
        for path in (here, here / "notes.txt"):
            os.chown(path, 4321, 4321)
        here.chmod(0o700)
        (here / "notes.txt").chmod(0o600)
        (here / "secret").write_text("root's")
        (here / "secret").chmod(0o600)
        found = inside(
            """
            import os
            status = os.stat("notes.txt")
            own = (status.st_uid, status.st_gid) == (os.getuid(), os.getgid())
            answer([own, open("notes.txt").read(), error_of(open, "secret"), error_of(open, "notes.txt", "a")])
            """,
            work=mode,
            user=user,
        )
        assert found == [True, "the host's", "EACCES", "EROFS" if mode == "ro" else None]

    @pytest.mark.parametrize("mode", MODES)
    def test_directory_that_its_owner_may_not_read_is_refused(self, run, here, mode):
        """Before anything runs, with the mode and what would change that."""
        here.chmod(0o300)
        with pytest.raises(cm.HostError, match=rf"may not read {here} \(mode 0300\)") as refused:
            run("print('ran')", work=mode)
        assert refused.value.hint.startswith(f"chmod u+rx {here}")


class TestCopy:
    """What a copy holds, and when there is none."""

    def test_links_modes_and_times_are_kept_and_odd_files_left_out(self, inside, here):
        """Pipes and sockets are not opened; set-user-ID stays behind."""
        os.mkfifo(here / "pipe")
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind("socket")
        (here / "program").touch()
        (here / "program").chmod(0o4755)
        os.utime(here / "program", (1e9, 1e9))
        (here / "dangling").symlink_to("/nowhere")
        found = inside(
            """
            import os
            status = os.stat("program")
            answer([sorted(os.listdir()), os.readlink("dangling"), oct(status.st_mode), status.st_mtime])
            """,
            work="copy",
        )
        assert found == [["dangling", "data", "link", "notes.txt", "program"], "/nowhere", "0o100755", 1e9]

    def test_too_large_a_directory_is_an_error_before_anything_runs(self, run, here):
        """In bytes and in files, with what can be done instead."""
        (here / "large").write_bytes(bytes(20 * 2**20))
        with pytest.raises(cm.HostError, match="does not fit into the writable layer") as refused:
            run("print('ran')", work="copy", disk="16M")
        assert "--work overlay" in refused.value.hint
        (here / "large").unlink()
        for number in range(5000):
            (here / f"data/{number}").touch()
        with pytest.raises(cm.HostError, match="does not fit"):
            run("print('ran')", work="copy", disk="16M")

    def test_copy_is_paid_by_the_container(self, run, needs, here):
        """The memory that it takes counts against the limit."""
        needs(mem="256M")
        (here / "large").write_bytes(bytes(64 * 2**20))
        report = run("pass", work="copy", disk="100M")
        assert report.usage.memory_peak_bytes is None or report.usage.memory_peak_bytes > 60 * 2**20

    def test_copy_is_never_an_old_one(self, inside, here):
        """No container waits with it."""
        for text in ("first", "second", "third"):
            (here / "notes.txt").write_text(text)
            assert inside("answer(open('notes.txt').read())", work="copy", warm=2) == text


class TestWaiting:
    """Containers that were made ahead show the directory that is there now."""

    @pytest.mark.parametrize("mode", ["ro", "overlay"])
    def test_change_of_a_file_is_seen_by_a_container_that_waited(self, run, here, mode):
        """The directory is the host's, not a picture of it."""
        reports = []
        for text in ("first", "second", "third"):
            (here / "notes.txt").write_text(text)
            (here / f"{text}.txt").touch()
            reports.append(run("import os; print(open('notes.txt').read(), len(os.listdir()))", work=mode, warm=1))
        assert [report.stdout for report in reports] == ["first 4\n", "second 5\n", "third 6\n"]

    def test_overlay_waits_also_when_files_come_and_go(self, run, here):
        """The identity of the directory counts, not what is in it."""
        client.shutdown()
        run("pass", work="overlay", warm=1)
        until_one_waits()
        (here / "another.txt").touch()
        report = run("import os; print(len(os.listdir()))", work="overlay", warm=1)
        assert (report.start, report.stdout) == ("warm", "4\n")

    @pytest.mark.parametrize("mode", ["ro", "overlay"])
    def test_directory_in_the_place_of_another_is_shown(self, inside, here, mode, monkeypatch):
        """No container that waits with the old one is used."""
        code = "answer(open('notes.txt').read())"
        client.shutdown()
        assert inside(code, work=mode, warm=1) == "the host's"
        until_one_waits()
        here.rename(here.with_name("old"))
        here.mkdir()
        (here / "notes.txt").write_text("another")
        monkeypatch.chdir(here)
        assert inside(code, work=mode, warm=1) == "another"

    def test_removed_directory_is_an_error(self, run, here):
        """There is no current directory then."""
        run("pass", work="overlay", warm=1)
        shutil.rmtree(here)
        with pytest.raises(cm.OptionError, match="there is no current directory"):
            run("pass", work="overlay", warm=1)


class TestPlaces:
    """Which directories can be shown, and beside what."""

    @pytest.mark.parametrize("place", ["/", "/tmp", "/usr", "/etc", "/proc/self", "/var", "/dev"])
    @pytest.mark.parametrize("mode", MODES)
    def test_what_the_container_has_itself_is_refused(self, run, monkeypatch, place, mode):
        """With the place and the remedy, before anything starts."""
        monkeypatch.chdir(place)
        with pytest.raises(
            cm.OptionError, match=f"--work cannot show {os.getcwd()}: the container has its own"
        ) as error:
            run("pass", work=mode)
        assert "change to" in error.value.hint

    def test_directory_above_a_home_is_refused(self, run, here, monkeypatch):
        """Keys and tokens of its owner lie below."""
        monkeypatch.setenv("HOME", str(here / "data"))
        with pytest.raises(cm.OptionError, match="it holds home directories"):
            run("pass", work="overlay")

    @pytest.mark.parametrize("mode", MODES)
    def test_hidden_files_of_a_home_stay_outside(self, inside, here, mode, monkeypatch):
        """Keys, tokens and configuration; the code may have such files of its own."""
        for name in (".ssh", ".config/tokens"):
            (here / name).mkdir(parents=True)
        (here / ".ssh/id_rsa").write_text("secret")
        (here / ".netrc").write_text("secret")
        monkeypatch.setenv("HOME", str(here))
        found = inside(
            """
            import os
            before = sorted(name for name in os.listdir() if name not in (".pyenv", ".local", ".venv"))
            refused = [error_of(open, name) for name in (".netrc", ".ssh/id_rsa")]
            made = error_of(os.mkdir, ".ssh")
            answer([before, refused, made, os.listdir(".ssh") if not made else None])
            """,
            work=mode,
        )
        made = ["EROFS", None] if mode == "ro" else [None, []]
        assert found == [["data", "link", "notes.txt"], ["ENOENT", "ENOENT"], *made]
        assert (here / ".ssh/id_rsa").read_text() == "secret"

    def test_below_a_home_hidden_files_are_shown(self, inside, here, monkeypatch):
        """They are the project's."""
        (here / ".settings").write_text("project")
        monkeypatch.setenv("HOME", str(here.parent))
        assert inside("answer(open('.settings').read())", work="overlay") == "project"

    @pytest.mark.parametrize("mode", MODES)
    def test_volume_inside_it_lies_on_top(self, inside, here, tmp_path, mode):
        """Where the directory has a place for it, and where the place is made inside alone."""
        volume = tmp_path / "volume"
        volume.mkdir()
        (volume / "file").write_text("volume")
        before = tree(here)
        code = "answer([open('data/file').read(), open('notes.txt').read()])"
        assert inside(code, work=mode, volume=f"{volume}:{here}/data:ro") == ["volume", "the host's"]
        if mode != "ro":
            made = inside("answer(open('made/file').read())", work=mode, volume=f"{volume}:{here}/made:ro")
            assert made == "volume"
        assert tree(here) == before

    def test_volume_at_the_same_place_is_refused(self, run, here, tmp_path):
        """Two things cannot be there."""
        with pytest.raises(cm.OptionError, match="something else is to be mounted there"):
            run("pass", work="ro", volume=f"{tmp_path}:{here}")

    @pytest.mark.parametrize("mode", ["ro", "overlay"])
    def test_environment_inside_it_stays_what_it_is(self, inside, monkeypatch, mode):
        """A ``.venv`` in the project is the container's own, writable as everywhere."""
        project = Path(sys.prefix).parent
        if str(project) in ("/", "/usr", "/opt") or Path.home().is_relative_to(project):
            pytest.skip("the environment lies in no project")
        monkeypatch.chdir(project)
        found = inside(
            """
            import os, sys
            answer([os.getcwd(), error_of(open, f"{sys.prefix}/made", "w"), error_of(open, "made", "w")])
            """,
            work=mode,
        )
        assert found == [str(project), None, "EROFS" if mode == "ro" else None]
        assert not (project / "made").exists()

    @pytest.mark.parametrize("mode", MODES)
    def test_odd_names_are_no_trouble(self, inside, tmp_path, monkeypatch, mode):
        """Colons, commas, backslashes, blanks, text that is no ASCII."""
        path = tmp_path / "a:b,c\\d e=é"
        path.mkdir()
        (path / "file").write_text("x")
        monkeypatch.chdir(path)
        assert inside("import os; answer([os.getcwd(), open('file').read()])", work=mode) == [str(path), "x"]

    def test_same_session_with_another_directory_is_refused(self, here):
        """A container that stands cannot take it on."""
        from container_magic.options import from_argv
        from container_magic.runtime.run import RunRequest
        from container_magic.verbs.sessions import open_cell, stop_session

        def request(*words):
            return RunRequest(spec=from_argv(list(words), "magic").spec, code=b"1")

        with open_cell("worker", request("--work", "overlay")) as (cell, _):
            for event in cell:
                if type(event).__name__ == "Exited":
                    break
        try:
            with pytest.raises(cm.OptionError, match="another --work"), open_cell("worker", request("--work", "ro")):
                pass
        finally:
            stop_session("worker")


class TestFileSystems:
    """What the directory lies on; mounts are made for it here."""

    pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="mounts file systems")]

    @pytest.fixture
    def mount(self):
        """Return a function that mounts; undone after the test."""
        mounted = []

        def mount(kind, target, options=""):
            words = ["-o", options] if options else []
            subprocess.run(["mount", "-t", kind, *words, kind, str(target)], check=True)
            mounted.append(str(target))

        yield mount
        for target in reversed(mounted):
            subprocess.run(["umount", target], check=True)

    @pytest.mark.parametrize("mode", MODES)
    def test_tmpfs(self, inside, here, mount, mode):
        """Files in memory."""
        mount("tmpfs", here / "data")
        (here / "data/file").write_text("x")
        os.chdir(here / "data")
        try:
            assert inside("answer(open('file').read())", work=mode) == "x"
            if mode != "ro":
                assert inside("open('file', 'w').write('y'); answer(open('file').read())", work=mode) == "y"
        finally:
            os.chdir(here)

    def test_overlay_on_an_overlay_is_refused_with_the_remedy(self, run, inside, here, tmp_path, mount):
        """Its files cannot be mapped, so that nothing could be written; a copy can, and reading works."""
        for name in ("top", "upper", "scratch"):
            (tmp_path / name).mkdir()
        mount("tmpfs", tmp_path / "scratch")
        for name in ("upper", "work"):
            (tmp_path / "scratch" / name).mkdir()
        layers = f"lowerdir={here},upperdir={tmp_path}/scratch/upper,workdir={tmp_path}/scratch/work"
        mount("overlay", tmp_path / "top", layers)
        os.chdir(tmp_path / "top")
        try:
            with pytest.raises(cm.HostError, match="no idmapped mounts") as refused:
                run("pass", work="overlay")
            assert "--work copy" in refused.value.hint
            assert (
                inside("open('notes.txt', 'a').write('!'); answer(open('notes.txt').read())", work="copy")
                == "the host's!"
            )
            report = run("print(open('notes.txt').read())", work="ro")
            assert (report.stdout, [downgrade.name for downgrade in report.downgrades]) == ("the host's\n", ["work"])
        finally:
            os.chdir(here)

    def test_what_is_mounted_in_it_is_said_to_be_missing_from_an_overlay(self, run, here, mount):
        """Bind and copy take it along."""
        mount("tmpfs", here / "data")
        (here / "data/deep").write_text("deep")
        code = "import os; print(os.listdir('data'))"
        reports = {mode: run(code, work=mode) for mode in MODES}
        assert {mode: report.stdout for mode, report in reports.items()} == {
            "ro": "['deep']\n",
            "overlay": "['table.csv']\n",
            "copy": "['deep']\n",
        }
        assert [downgrade.asked for downgrade in reports["overlay"].downgrades] == [f"what is mounted at {here}/data"]
        assert reports["ro"].downgrades == reports["copy"].downgrades == ()


def test_contain_run_shows_the_directory_of_the_shell(contain, here):
    """The command's own working directory; the exit status is the program's."""
    finished = contain(
        "run", "--quiet", "--work", "overlay", "--", "/bin/sh", "-c", "cat notes.txt; echo > notes.txt", cwd=here
    )
    assert (finished.returncode, finished.stdout) == (0, b"the host's")
    assert (here / "notes.txt").read_text() == "the host's"
    refused = contain("run", "--work", "rw", "-c", "1", cwd=here)
    assert refused.returncode == 125
    assert b"accepted: none, ro, overlay, copy" in refused.stderr


def test_options_know_it_as_json(here):
    """A spec with it goes through JSON and back."""
    from container_magic.options import from_keywords
    from container_magic.spec import ContainerSpec, Work

    spec = from_keywords({"work": "overlay"}).spec
    assert spec.work == Work(mode="overlay", path=str(here))
    assert ContainerSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
