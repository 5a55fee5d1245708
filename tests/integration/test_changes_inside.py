"""The files that a run changed, in its report when it is asked for."""

import pytest

from container_magic.options import from_argv


def test_report_names_files_that_the_run_changed(run):
    """Written, replaced, deleted; not what the runtime itself wrote, nor volumes."""
    report = run(
        """
        import os, sys, pathlib
        open('/root/new', 'w').write('x')
        open('/etc/hostname', 'a').write('x')
        open('/dev/shm/memory', 'w')
        os.makedirs('/var/d/e')
        os.remove(pathlib.Path(sys.prefix, 'pyvenv.cfg'))
        if __name__ == '__main__':
            pass
        """,
        changes=True,
    )
    assert report.ok, report.stderr
    assert report.changes.count == 3
    assert report.changes.written == ("/etc/hostname", "/root/new")
    assert [path.rpartition("/")[2] for path in report.changes.deleted] == ["pyvenv.cfg"]
    assert report.changes.complete


def test_nothing_is_looked_at_unless_it_is_asked_for(run):
    """A full report asks; other runs do not pay."""
    assert run("open('a', 'w')").changes is None
    assert from_argv(["--report", "full"], "magic").spec.root.list_changes
    assert not from_argv([], "magic").spec.root.list_changes


@pytest.mark.parametrize("warm", [0, 1])
def test_run_that_changes_nothing_says_so(run, warm):
    """None of the runtime's own files, also of a container that waited."""
    for _ in range(3):
        report = run("import json", changes=True, warm=warm)
        assert (report.changes.count, report.changes.complete) == (0, True)


def test_killed_run_has_its_changes(run):
    """A limit ended it; what it had written by then is known."""
    report = run("open('part', 'w').write('x')\nwhile True: pass", changes=True, timeout="500ms")
    assert (report.verdict, report.changes.written) == ("TIME_LIMIT", ("/root/part",))


def test_hostile_tree_is_bounded_and_harmless(run):
    """Names of any bytes, deep directories, links, fifos, many files: a report all the same."""
    report = run(
        r"""
        import os
        os.chdir('/tmp')
        for name in (b'new\nline', b'\xff\xfe', b'\x1b]0;title\x07', b'..x', b' '):
            open(name, 'w')
        os.symlink('/', 'root'); os.mkfifo('fifo'); os.symlink('root', 'chain')
        os.makedirs('closed'); open('closed/file', 'w'); os.chmod('closed', 0)
        for number in range(3000): open(f'many{number}', 'w')
        for _ in range(300):
            os.mkdir('d'); os.chdir('d')
        """,
        changes=True,
    )
    assert report.ok, report.stderr
    assert report.changes.count >= 3008
    assert len(report.changes.written) == 10
    assert all(path.isprintable() for path in report.changes.written)
    assert not report.changes.complete


def test_container_has_no_descriptor_of_the_layers(inside):
    """The code sees its standard streams only, and init's descriptors are closed to it."""
    fds = inside("import os; answer(sorted(os.listdir('/proc/self/fd')))", changes=True)
    assert len(fds) == 5  # 0, 1, 2, the channel and the listing's own
