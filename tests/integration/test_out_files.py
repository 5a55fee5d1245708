"""Files out: what globs name is written to the caller's directory, whatever the container has put there instead."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from leftovers import waiting

from container_magic.errors import OptionError
from container_magic.runtime import client, collect


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A directory of its own as the caller's."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def taken(report):
    """Return the files of a report as a dict of sizes."""
    return {file.path: file.size_bytes for file in report.files}


def refused(report):
    """Return what a report says was not taken as a dict of reasons."""
    return {file.path: file.reason for file in report.files_refused}


def tree(directory):
    """Return the files below ``directory`` with their contents."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_files_are_written_with_their_paths(run, here):
    """Relative paths stay, files of other places come by what the pattern leaves open, and nothing else comes."""
    source = """
        import os
        os.makedirs("plots/deep"); os.makedirs("/tmp/x/y")
        open("model.bin", "wb").write(bytes(range(256)) * 1000)
        for name in ("plots/a.png", "plots/b.png", "plots/deep/c.png", "plots/.hidden.png", "plots/no.txt"):
            open(name, "w").write(name)
        open("/tmp/x/y/z.csv", "w").write("z")
        print("done")
    """
    report = run(source, out_file=["model.bin", "plots/**/*.png", "/tmp/x/**/*.csv"])

    assert report.ok, report
    assert report.stdout == "done\n"
    names = ["plots/a.png", "plots/b.png", "plots/deep/c.png"]
    assert tree(here) == {"model.bin": bytes(range(256)) * 1000, "y/z.csv": b"z", **{n: n.encode() for n in names}}
    assert taken(report) == {name: len(data) for name, data in tree(here).items()}
    assert report.files_refused == ()
    assert not (here / "model.bin").stat().st_mode & 0o111


@pytest.mark.parametrize(
    ("source", "options", "verdict"),
    [
        ("1/0", {}, "RUNTIME_ERROR"),
        ("import os; os.kill(os.getpid(), 9)", {}, "SIGNALED"),
        ("while True: pass", {"timeout": "1s"}, "TIME_LIMIT"),
        ("import os\nif os.fork() == 0:\n    while True: pass", {}, "OK"),
        ("print('x' * 10**7, flush=True)", {"max_output": "1K"}, "OUTPUT_LIMIT"),
    ],
)
def test_what_a_failed_run_has_left_comes_out(run, here, source, options, verdict):
    """A crash, a limit, and processes that were left behind: the files are there."""
    report = run(f"open('part', 'w').write('so far')\n{source}", out_file="part", **options)

    assert report.verdict == verdict, report
    assert tree(here) == {"part": b"so far"}


def test_memory_limit_leaves_the_files(run, here, needs):
    """The kernel has killed the program, and what it wrote before comes out."""
    needs(mem="64M")
    report = run(
        "open('part', 'w').write('so far')\nx = []\nwhile True: x.append(bytearray(10**6))", mem="64M", out_file="part"
    )

    assert report.verdict == "MEMORY_LIMIT"
    assert tree(here) == {"part": b"so far"}


def test_file_of_another_user_and_without_permission_comes_out(run, here):
    """Modes inside mean nothing outside: the caller owns what the container made."""
    report = run("import os; open('p', 'w').write('x'); os.chmod('p', 0)", out_file="p", user="1000")

    assert tree(here) == {"p": b"x"}, report


def test_command_and_warm_container_have_files_too(run, here):
    """A shell's files; and the second container of a pool, which stood before."""
    client.shutdown()  # what waits is then of this run
    for _ in range(2):
        report = run(["/bin/sh", "-c", "echo x > out"], out_file="out", workdir="/tmp")
        assert report.ok, report
        assert (here / "out").read_text() == "x\n"
        (here / "out").unlink()
        deadline = time.monotonic() + 20
        while not waiting() and time.monotonic() < deadline:
            time.sleep(0.01)
    assert report.start == "warm"


def test_links_devices_pipes_and_odd_names_stay_inside(run, here):
    """Nothing is followed, nothing but plain files is opened, and each is named with the reason."""
    source = r"""
        import os, socket
        os.makedirs("d/real"); open("d/real/file", "w").write("ok")
        os.symlink("/etc/shadow", "d/shadow")
        os.symlink("real/file", "d/inner")
        os.symlink("/etc", "d/etc"); os.symlink("real", "d/real_link"); os.symlink("/proc/self/root", "d/root")
        os.mkfifo("d/fifo")
        socket.socket(socket.AF_UNIX).bind("d/sock")
        open("d/new\nline", "w"); open(b"d/not\xffutf8", "w"); open("d/esc\x1b[31m", "w")
        open("d/back\\slash", "w").write("b")
    """
    report = run(source, out_file=["d/*", "d/*/file", "d/*/passwd", "/dev/null", "/proc/1/environ", "/sys/**"])

    assert tree(here) == {"d/real/file": b"ok", "d/back\\slash": b"b"}, report
    reasons = refused(report)
    assert reasons.pop("d/fifo") == "it is a pipe, not a file"
    assert reasons.pop("d/sock") == "it is a socket, not a file"
    for name in ("shadow", "inner", "etc", "real_link", "root"):
        assert reasons.pop(f"d/{name}") == "it is a link, not a file"
    for name in ("d/new\nline", "d/not\udcffutf8", "d/esc\x1b[31m"):
        assert reasons.pop(ascii(name)) == "its name holds what is no text"
    assert set(reasons) == {"d/*/passwd", "/dev/null", "/proc/1/environ", "/sys/**"}
    assert set(reasons.values()) == {"no file matches"}


def test_hard_link_to_a_file_of_the_lower_layer_is_a_copy_of_it(run, here):
    """It is a file of the container like any other: what everybody may read."""
    report = run("import os; os.chdir('/etc'); os.link('services', 'h')", out_file="/etc/h")

    assert report.ok, report
    assert tree(here) == {"h": Path("/etc/services").read_bytes()}
    assert (here / "h").stat().st_nlink == 1


def test_sparse_terabyte_is_refused_by_its_size(run, here):
    """What counts is how long a file would be outside; what is small still comes."""
    report = run("open('a', 'w').truncate(2**40)\nopen('b', 'w').write('x')", out_file=["a", "b"])

    assert tree(here) == {"b": b"x"}
    assert "1099511627776 bytes are more than is left" in refused(report)["a"]


def test_number_of_files_is_bounded(run, here):
    """Of fifteen hundred the first thousand come, and the report says so."""
    report = run("for n in range(1500): open(f'{n:05}', 'w').close()", out_file="*")

    assert len(tree(here)) == len(report.files) == collect.MAX_FILES
    assert list(refused(report).values()) == ["1000 files were taken already, and no more are"]


def test_deep_and_wide_trees_are_searched_within_bounds(run, here):
    """A thousand levels, and links that go round in circles."""
    source = """
        import os
        for n in range(1000):
            os.mkdir("d"); os.symlink("..", "up"); os.symlink("/", "root"); os.chdir("d")
        open("bottom", "w")
    """
    report = run(source, out_file=["**/bottom", "**/**/bottom"])

    assert tree(here) == {}
    assert set(refused(report).values()) == {"no file matches"}


def test_existing_file_is_replaced_and_links_outside_are_not_followed(run, here):
    """A link at the place of a file is replaced itself; a link at the place of a directory stops."""
    elsewhere = here / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("precious")
    (here / "old").write_text("old")
    (here / "link").symlink_to(elsewhere / "precious")
    (here / "dir").symlink_to(elsewhere)
    (here / "taken").mkdir()
    source = """
        import os
        os.mkdir("dir")
        for name in ("old", "link", "dir/precious", "taken"): open(name, "w").write("new")
    """
    report = run(source, out_file=["*", "*/*"])

    assert (here / "old").read_text() == (here / "link").read_text() == "new"
    assert not (here / "link").is_symlink()
    assert (elsewhere / "precious").read_text() == "precious"
    assert sorted(os.listdir(elsewhere)) == ["precious"]
    assert set(refused(report)) == {"dir/precious", "taken"}
    assert not list(here.glob(".container_magic*"))


@pytest.mark.parametrize("glob", ["../x", "a/../../x", "", "/", ".", "a\0b", "x" * 5000])
def test_glob_that_leads_up_is_refused(run, glob):
    """Before anything is started."""
    with pytest.raises(OptionError, match="out_file"):
        run("pass", out_file=glob)


def test_file_of_a_volume_comes_out_as_well(run, here, tmp_path_factory):
    """What lies on a mount below the root is found there."""
    volume = tmp_path_factory.mktemp("volume")
    (volume / "v").write_text("v")
    volume.chmod(0o755)
    report = run("pass", volume=f"{volume}:/data:ro", out_file="/data/*")

    assert tree(here) == {"v": b"v"}, report


def test_command_line_writes_files_and_reports_them(contain, here):
    """``contain run --out-file``; the report has them."""
    done = contain("run", "--out-file", "a*", "--report-file", "r.json", "-c", "open('ab', 'w').write('x')")

    assert done.returncode == 0, done.stderr
    assert (here / "ab").read_text() == "x"
    assert '"files": [{"path": "ab", "size_bytes": 1}]' in Path("r.json").read_text()
