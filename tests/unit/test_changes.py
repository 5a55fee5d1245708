"""What changed in upper layers: counted and named whatever stands there."""

import os
import shutil

import pytest

from container_magic.events import FilesChanged, from_dict, to_dict
from container_magic.folding import fold
from container_magic.report import RunReport
from container_magic.rootfs import changes
from container_magic.rootfs.changes import Diff, Layers, Place
from container_magic.rootfs.host import Lower


@pytest.fixture
def upper(tmp_path):
    """Make the directories of two upper layers."""
    for name in ("upper-root", "upper-1", "work-root"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.fixture
def layers(upper):
    """Return the layers below ``upper``: the first lower has no overlay."""
    lowers = [Lower(path="/bound", view=""), Lower(path="/usr", view="")]
    made = Layers(os.open(upper, os.O_RDONLY | os.O_DIRECTORY), lowers)
    yield made
    made.close()


def test_files_since_begin_are_counted_and_named(upper, layers):
    """What was there before and is as it was does not count; directories do not count."""
    (upper / "upper-root/etc").mkdir()
    (upper / "upper-root/etc/hostname").write_text("a")
    (upper / "upper-root/etc/hosts").write_text("a")
    layers.begin()
    assert layers.changes() == FilesChanged(count=0)
    (upper / "upper-root/etc/hosts").write_text("b")
    (upper / "upper-root/root/empty").mkdir(parents=True)
    (upper / "upper-root/root/link").symlink_to("/etc/shadow")
    (upper / "upper-1/lib").mkdir()
    (upper / "upper-1/lib/x.py").touch()
    (upper / "work-root/not").touch()
    assert layers.changes() == FilesChanged(count=3, written=("/etc/hosts", "/root/link", "/usr/lib/x.py"))
    assert layers.changes(own=b"/usr/lib/x.py").count == 2


@pytest.mark.root
def test_whiteouts_are_what_was_deleted(upper, layers):
    """A character device 0:0 stands for a file or a whole directory."""
    layers.begin()
    os.mknod(upper / "upper-1/perl", 0o020600, os.makedev(0, 0))
    assert layers.changes() == FilesChanged(count=1, deleted=("/usr/perl",))


def test_first_ten_are_named(upper, layers):
    """The rest is counted."""
    layers.begin()
    for number in range(25):
        (upper / f"upper-root/{number:02}").touch()
    found = layers.changes()
    assert (found.count, found.written) == (25, tuple(f"/{number:02}" for number in range(10)))


def test_hostile_names_are_one_short_printable_line(upper, layers):
    """Newlines, escapes, bytes that are no text, direction marks, names without end."""
    layers.begin()
    for name in (b"a\nb", b"c\x1b[2J", b"d\xff", "e\u202ef".encode(), b"g" * 255, b"<script>"):
        with open(os.fsencode(upper) + b"/upper-root/" + name, "wb"):
            pass
    names = layers.changes().written
    assert "/a\\nb" in names
    assert "/c\\x1b[2J" in names
    assert "/d\\xff" in names
    assert "/e\\u202ef" in names
    assert all(name.isprintable() and len(name) <= 203 for name in names)


def test_links_are_not_followed(upper, layers, tmp_path):
    """A directory that is a link out of the layer is one changed file."""
    layers.begin()
    (upper / "upper-root/out").symlink_to("/etc")
    assert layers.changes() == FilesChanged(count=1, written=("/out",))


def test_number_and_depth_are_bounded(upper, layers, monkeypatch):
    """What was not looked at is said."""
    layers.begin()
    deep = upper / "upper-root"
    for _ in range(70):
        deep = deep / "d"
        deep.mkdir()
    (deep / "file").touch()
    assert layers.changes() == FilesChanged(count=0, complete=False)
    monkeypatch.setattr(changes, "MOST_ENTRIES", 5)
    for number in range(10):
        (upper / f"upper-1/{number}").touch()
    found = layers.changes()
    assert (found.count <= 5, found.complete) == (True, False)


def test_changes_stand_in_the_report(layers, upper):
    """Through events and JSON and back, and in the text."""
    layers.begin()
    for number in range(12):
        (upper / f"upper-root/{number:02}").touch()
    event = from_dict(to_dict(layers.changes()))
    report = fold([event])
    assert report.changes == layers.changes()
    assert RunReport.from_dict(report.to_dict()) == report
    from container_magic.display.text import report_full

    text = report_full(report)
    assert "files       12 changed\n            /00\n" in text
    assert "            and 2 more\n" in text
    assert "files" not in report_full(fold([]))


class TestDiff:
    """Docker's letters: added, changed, deleted, against what lies below and what was there before the code ran."""

    @pytest.fixture
    def below(self, tmp_path_factory):
        """Make the directory that lies below the working directory's layer."""
        path = tmp_path_factory.mktemp("below")
        (path / "kept").mkdir()
        for name in ("kept/file", "replaced"):
            (path / name).touch()
        return path

    @pytest.fixture
    def work(self, upper, below):
        """Return layers with one of a working directory."""
        (upper / "upper-here").mkdir()
        place = Place(name="upper-here", path=b"/home/u/project", lower=str(below))
        made = Layers(os.open(upper, os.O_RDONLY | os.O_DIRECTORY), [], place)
        yield made
        made.close()

    def test_what_lies_below_tells_added_from_changed(self, upper, work):
        """With the directories on the way, up to where the layer is mounted."""
        work.begin()
        (upper / "upper-here/kept").mkdir()
        for name in ("kept/file", "kept/new", "replaced"):
            (upper / "upper-here" / name).touch()
        (upper / "upper-root/srv").mkdir()
        (upper / "upper-root/srv/x").touch()
        assert work.diff() == Diff(
            changes=(
                ("C", "/home/u/project"),
                ("C", "/home/u/project/kept"),
                ("C", "/home/u/project/kept/file"),
                ("A", "/home/u/project/kept/new"),
                ("C", "/home/u/project/replaced"),
                ("A", "/srv"),
                ("A", "/srv/x"),
            ),
            complete=True,
        )

    @pytest.mark.root
    def test_whiteouts_are_deleted_unless_they_were_there_before(self, upper, work):
        """What a home hides was never there."""
        for name in (".ssh", ".netrc"):
            os.mknod(upper / "upper-here" / name, 0o020600, os.makedev(0, 0))
        work.begin()
        os.mknod(upper / "upper-here/replaced", 0o020600, os.makedev(0, 0))
        (upper / "upper-here/.ssh").unlink()
        (upper / "upper-here/.ssh").mkdir()
        (upper / "upper-here/.netrc").unlink()
        os.mknod(upper / "upper-here/.netrc", 0o020600, os.makedev(0, 0))
        assert work.diff().changes == (
            ("C", "/home/u/project"),
            ("A", "/home/u/project/.ssh"),
            ("D", "/home/u/project/replaced"),
        )

    def test_files_of_a_copy_that_are_gone_were_deleted(self, upper, work):
        """Nothing lies below one; of a directory that is gone the directory is named."""
        copy = upper / "upper-here"
        (copy / "directory/deep").mkdir(parents=True)
        (copy / "directory/deep/file").touch()
        (copy / "file").touch()
        (copy / "written").touch()
        work.begin()
        shutil.rmtree(copy / "directory")
        (copy / "file").unlink()
        (copy / "written").write_text("x")
        assert work.diff().changes == (
            ("C", "/home/u/project"),
            ("D", "/home/u/project/directory"),
            ("D", "/home/u/project/file"),
            ("C", "/home/u/project/written"),
        )
        assert work.changes().deleted == ("/home/u/project/directory/deep/file", "/home/u/project/file")

    def test_characters_are_bounded(self, upper, work, monkeypatch):
        """What is not listed is said."""
        work.begin()
        for number in range(10):
            (upper / f"upper-here/{number}").touch()
        monkeypatch.setattr(changes, "MOST_CHARACTERS", 60)
        found = work.diff()
        assert (len(found.changes), found.complete) == (3, False)
