"""What is asked of a volume's source before a container that shows it is started."""

import os

import pytest

from container_magic.runtime.sources import any_removed


@pytest.fixture
def source(tmp_path):
    """Return an open directory and its path."""
    path = tmp_path / "data"
    path.mkdir()
    fd = os.open(path, os.O_PATH)
    yield fd, path
    os.close(fd)


def test_source_that_is_there_is_not_removed(source):
    """Whatever its path is by now."""
    fd, path = source
    path.rename(path.with_name("moved"))
    assert not any_removed([fd, fd])


def test_removed_source_is_found_among_others(source, tmp_path):
    """Also when there is something else at its path."""
    fd, path = source
    path.rmdir()
    path.mkdir()
    other = os.open(tmp_path, os.O_PATH)
    assert any_removed([other, fd])
    os.close(other)


def test_source_that_cannot_be_asked_counts_as_removed():
    """As on a server that has gone."""
    assert any_removed([2**30])
