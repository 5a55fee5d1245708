"""What ``--work`` becomes: asked for it is done or refused, as a kernel's default it is done as far as it can be."""

from __future__ import annotations

import os

import pytest

from container_magic import workdir
from container_magic.errors import OptionError
from container_magic.spec import ContainerSpec, Mount, Work
from container_magic.workdir import with_work


@pytest.fixture
def spec(tmp_path):
    """Return a function that makes a spec with a work directory below a project."""

    def spec(mode="overlay", path=tmp_path, *, asked=True, **fields):
        return ContainerSpec(work=Work(mode=mode, path=str(path)), explicit=("work",) if asked else (), **fields)

    return spec


def mounted(monkeypatch, **points):
    """Let these file systems be mounted: kinds by name, below the project or at its place."""
    monkeypatch.setattr(workdir, "_mount_points", lambda: points)


@pytest.mark.parametrize(("mode", "kind"), [("ro", "bind"), ("overlay", "overlay"), ("copy", "copy")])
def test_mount_comes_first_and_is_the_working_directory(spec, tmp_path, mode, kind):
    """Others may lie in it."""
    inner = Mount(type="bind", source="/usr", destination=f"{tmp_path}/data")
    shown, missing = with_work(spec(mode, mounts=(inner,)), (), rootless=False)
    assert [mount.type for mount in shown.mounts] == [kind, "bind"]
    assert (shown.mounts[0].source, shown.mounts[0].destination) == (str(tmp_path), str(tmp_path))
    assert (shown.process.cwd, missing) == (str(tmp_path), ())


@pytest.mark.parametrize("mode", ["ro", "overlay"])
def test_home_is_an_overlay_without_hidden_names(spec, tmp_path, mode, monkeypatch):
    """Also when it is read-only: a bind could not leave them out."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (mount,) = with_work(spec(mode), (), rootless=False)[0].mounts
    assert (mount.type, mount.hide_dotted, mount.readonly) == ("overlay", True, mode == "ro")


@pytest.mark.parametrize("place", ["/", "/tmp", "/etc/ssl", "/usr"])
def test_what_cannot_be_shown_is_refused_when_asked_for_and_left_out_by_default(spec, place):
    """A kernel starts all the same, and says what it does without."""
    with pytest.raises(OptionError, match=f"--work cannot show {place}"):
        with_work(spec(path=place), (), rootless=False)
    shown, (downgrade,) = with_work(spec(path=place, asked=False), (), rootless=False)
    assert (shown.work, shown.mounts, shown.process.cwd) == (None, (), "")
    assert (downgrade.name, downgrade.asked, downgrade.got) == ("work", f"overlay of {place}", "nothing of it")
    assert "the container has its own" in downgrade.reason


@pytest.mark.parametrize(
    ("kind", "rootless", "got"),
    [
        ("overlay", False, "bind"),
        ("overlay", True, "overlay"),
        ("nfs4", False, "bind"),
        ("ext4", False, "overlay"),
    ],
)
def test_default_is_read_only_where_an_overlay_could_not_be_written_to(
    spec, tmp_path, monkeypatch, kind, rootless, got
):
    """By the file system that the directory lies on; who asks for an overlay is refused by the kernel's word."""
    mounted(monkeypatch, **{"/": "ext4", str(tmp_path.parent): kind})
    shown, missing = with_work(spec(asked=False), (), rootless=rootless)
    assert (shown.mounts[0].type, [item.got for item in missing]) == (got, ["read-only"] if got == "bind" else [])
    assert with_work(spec(), (), rootless=rootless)[0].mounts[0].type == "overlay"


@pytest.mark.parametrize(("rootless", "got"), [(True, "bind"), (False, "overlay")])
def test_default_of_an_ordinary_user_is_read_only_where_something_is_mounted_in_it(
    spec, tmp_path, monkeypatch, rootless, got
):
    """Root can leave it out, and is told what."""
    mounted(monkeypatch, **{"/": "ext4", f"{tmp_path}/data": "tmpfs"})
    shown, (downgrade,) = with_work(spec(asked=False), (), rootless=rootless)
    assert (shown.mounts[0].type, f"{tmp_path}" in downgrade.asked) == (got, True)


def test_mount_points_with_blanks_are_read(monkeypatch, tmp_path):
    """The kernel writes them as octal numbers."""
    assert workdir._mount_points()["/proc"] == "proc"
    lines = tmp_path / "mountinfo"
    lines.write_bytes(b"1 2 0:1 / /mnt/a\\040b\xc3\xa9 rw shared:1 - fuse.sshfs host rw\n")
    monkeypatch.setattr("builtins.open", lambda _path, _mode, _open=open: _open(lines, "rb"))
    assert workdir._mount_points() == {os.fsdecode(b"/mnt/a b\xc3\xa9"): "fuse.sshfs"}
