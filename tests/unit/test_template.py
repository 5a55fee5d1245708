"""The template of the containers' root: what is there first, and what follows beside the zygote's start."""

import os
from pathlib import Path

import pytest

from container_magic.process.boot import seal_template
from container_magic.rootfs.host import host_tree, interpreter_prefixes
from container_magic.rootfs.template import build_template, fill_template

FIRST = ("ld.so.cache", "localtime")
LATER = ("alternatives", "ssl", "mime.types")


def names(directory):
    """Return what is in a directory."""
    return set(os.listdir(directory))


@pytest.fixture
def template(tmp_path):
    """Return a template that is built and not filled, whose owner is this user."""
    if os.getuid() != os.getgid():
        pytest.skip("what belongs to a container has one number for user and group")
    root = tmp_path / "template"
    root.mkdir()
    build_template(str(root), host_tree(interpreter_prefixes()), os.getuid(), os.getuid())
    return root


def test_interpreter_finds_its_libraries_before_the_template_is_filled(template):
    """The zygote is executed while a child still copies: what the linker reads has to be whole by then."""
    for name in FIRST:
        assert (name in names(template / "etc")) == os.path.lexists(f"/etc/{name}")
    assert {"passwd", "group", "nsswitch.conf", "hosts"} <= names(template / "etc")
    assert not set(LATER) & names(template / "etc")


def test_filled_template_has_what_programs_look_up(template):
    """Certificates, alternatives and types of files as the host has them, private keys not."""
    fill_template(str(template), os.getuid())
    for name in LATER:
        assert (name in names(template / "etc")) == os.path.lexists(f"/etc/{name}")
    if Path("/etc/alternatives").is_dir():
        assert names(template / "etc/alternatives") == names("/etc/alternatives")
    assert not (template / "etc/ssl/private").exists()
    assert not {"shadow", "sudoers", "fstab"} & names(template / "etc")


def test_name_with_a_star_means_every_version(template):
    """Of Python and Java there is what the host has, whatever its number: no release of theirs is named here."""
    fill_template(str(template), os.getuid())
    for begin in ("python3", "java-"):
        wanted = {name for name in names("/etc") if name.startswith(begin)}
        assert {name for name in names(template / "etc") if name.startswith(begin)} == wanted


def test_template_that_could_not_be_filled_is_not_used():
    """The zygote ends when the child that fills it has failed: half a root is none."""
    filler = os.fork()
    if filler == 0:
        os._exit(1)
    with pytest.raises(ChildProcessError, match="template"):
        seal_template(filler)
