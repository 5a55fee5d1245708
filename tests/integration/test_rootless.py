"""An ordinary user without any privilege on this host: what works, what is refused, what best effort does instead."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sysconfig
import tempfile
import textwrap
from pathlib import Path

import pytest

import container_magic

NOBODY = 65534
SYSTEM_PYTHON = "/usr/bin/python3"

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user by setpriv"),
    pytest.mark.skipif(not os.access(SYSTEM_PYTHON, os.X_OK), reason="no interpreter that every user can reach"),
    pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv (util-linux) is not installed"),
]


@pytest.fixture(scope="module")
def package():
    """A copy of the package that every user can read."""
    version = subprocess.check_output(
        [SYSTEM_PYTHON, "-c", "import sys; print(sys.version_info >= (3, 11))"], text=True
    )
    if version.strip() != "True":
        pytest.skip(f"{SYSTEM_PYTHON} is older than 3.11")
    folder = Path(tempfile.mkdtemp(prefix="container_magic-rootless-", dir="/tmp"))
    shutil.copytree(Path(container_magic.__file__).parent, folder / "container_magic")
    subprocess.check_call(["chmod", "-R", "a+rX", folder])
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def as_user(package):
    """Run ``cm.run`` as an ordinary user in a process of his own, after the shell commands ``before``."""

    def run(source, *, uid=NOBODY, gid=NOBODY, before="", at="/", **options):
        script = f"""
            import json, sys
            sys.path.insert(0, {str(package)!r})
            import container_magic as cm
            try:
                report = cm.run(**json.loads(sys.stdin.read()))
                print(report.to_json())
            except cm.ContainError as error:
                print(json.dumps({{"error": type(error).__name__, "message": error.message, "hint": error.hint}}))
        """
        user = f"setpriv --reuid {uid} --regid {gid} --clear-groups env -i PATH=/usr/bin:/bin HOME=/nonexistent"
        shell = f'set -e; {before}\ncd {at}; exec {user} {SYSTEM_PYTHON} -B -c "$SCRIPT"'
        finished = subprocess.run(
            ["unshare", "--mount", "sh", "-c", shell],
            input=json.dumps({"source": source, "timeout": "30s", **options}),
            env={"PATH": os.environ["PATH"], "SCRIPT": textwrap.dedent(script)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert finished.returncode == 0, finished.stderr
        return json.loads(finished.stdout)

    return run


@pytest.mark.parametrize("warm", [0, 1])
def test_cpu_time_counts_from_the_start_where_no_cgroup_counts(as_user, warm):
    """What its processes have used to be made is nobody's use; the clock of a process tells a part of that."""
    reports = [as_user("import time; print(time.process_time())", warm=warm) for _ in range(3)]
    report = min(reports, key=lambda report: report["usage"]["cpu_seconds"])
    usage = report["usage"]
    assert 0 < usage["cpu_seconds"] < float(report["stdout"])
    assert usage["cpu_user_seconds"] + usage["cpu_system_seconds"] == pytest.approx(usage["cpu_seconds"])


@pytest.mark.parametrize(("uid", "gid"), [(NOBODY, NOBODY), (4321, 100)])
def test_user_is_the_containers_root_and_nothing_more(as_user, uid, gid):
    """One id is mapped, in fresh namespaces, without capabilities, whatever the user's ids are."""
    source = """
        import os
        print(os.getuid(), os.getgid(), open("/proc/self/uid_map").read().split())
        print([line for line in open("/proc/self/status") if line.startswith(("CapBnd", "NoNewPrivs", "Seccomp:"))])
        print(os.listdir("/home"), os.listdir("/tmp"))
    """
    report = as_user(textwrap.dedent(source), uid=uid, gid=gid, best_effort=True)

    assert report["verdict"] == "OK", report
    assert report["stdout"].splitlines() == [
        "0 0 ['0', '0', '1']",
        "['CapBnd:\\t0000000000000000\\n', 'NoNewPrivs:\\t1\\n', 'Seccomp:\\t2\\n']",
        "['user'] []",
    ]


def test_interpreter_cannot_be_written_from_inside(as_user):
    """Neither the running interpreter nor what is mapped can be opened for writing."""
    source = """
        import os
        paths = {line.split()[-1] for line in open("/proc/self/maps") if ".so" in line or "/bin/python" in line}
        refused = 0
        for path in [*paths, "/proc/self/exe", os.__file__]:
            try:
                os.open(path, os.O_WRONLY)
            except OSError:
                refused += 1
        print(refused == len(paths) + 2)
    """
    report = as_user(textwrap.dedent(source), best_effort=True)

    assert report["stdout"] == "True\n", report


@pytest.mark.cgroup_v1
def test_changes_are_listed(as_user):
    """An ordinary user's supervisor, too, reads the container's upper layers."""
    report = as_user("_ = open('/root/new', 'w')", best_effort=True, changes=True)
    assert report["changes"] == {"count": 1, "written": ["/root/new"], "deleted": [], "complete": True}


def test_limit_without_a_cgroup_is_refused_with_the_remedy(as_user):
    """A memory limit that was asked for and cannot be held is an error before anything runs."""
    answer = as_user("print(1)", mem="200M")

    assert answer["error"] == "HostError"
    assert "--mem" in answer["message"]
    assert "--best-effort" in answer["hint"]


@pytest.mark.cgroup_v1
def test_best_effort_interrupts_at_the_memory_mark(as_user):
    """The supervisor adds up the processes and sends the interrupt; without best effort the mark is refused."""
    source = "x = []\nwhile True: x.append(bytearray(1_000_000))"
    report = as_user(source, mem="900M", mem_high="100M", best_effort=True)
    refused = as_user(source, mem_high="100M")

    assert report["verdict"] == "INTERRUPTED", report
    assert 100 << 20 <= report["memory_high"]["usage_bytes"] < 900 << 20
    assert "memory_high" in [downgrade["name"] for downgrade in report["downgrades"]]
    assert (refused["error"], "--mem-high" in refused["message"]) == ("HostError", True)


@pytest.mark.cgroup_v1
def test_best_effort_watches_memory_and_says_so(as_user):
    """The supervisor ends a program above the limit, and the report names the downgrade."""
    report = as_user("x = []\nwhile True: x.append(bytearray(5_000_000))", mem="150M", best_effort=True)

    assert report["verdict"] == "MEMORY_LIMIT"
    assert {item["name"] for item in report["downgrades"]} >= {"memory", "pids"}


@pytest.mark.cgroup_v1
def test_best_effort_bounds_processes(as_user):
    """A fork bomb meets RLIMIT_NPROC of its own user namespace."""
    source = """
        import os, time
        children = 0
        while True:
            try:
                if os.fork() == 0:
                    time.sleep(60)
            except OSError:
                break
            children += 1
        print(children)
    """
    report = as_user(textwrap.dedent(source), pids=30, best_effort=True)

    assert report["verdict"] == "OK", report
    assert 10 < int(report["stdout"]) < 30


def test_cpu_of_killed_processes_is_counted(as_user):
    """The CPU time limit holds over all processes, and what they used is in the report."""
    report = as_user("import os\nos.fork()\nwhile True: pass", cpu_time="1s", best_effort=True)

    assert report["verdict"] == "TIME_LIMIT"
    assert 0.9 <= report["usage"]["cpu_seconds"] < 2.5


def test_system_directory_with_a_mount_in_it_is_still_there(as_user):
    """Overlayfs refuses a lower with locked mounts below it: such a directory is bound, read-only, instead."""
    before = "mount -t tmpfs none /usr/share; echo seen > /usr/share/witness"
    source = 'print(open("/usr/share/witness").read()); open("/usr/new", "w")'

    report = as_user(source, before=before, best_effort=True)

    assert report["stdout"] == "seen\n\n", report
    assert report["error"]["ename"] == "OSError"


def test_other_user_needs_subordinate_ids(as_user):
    """With one id --user is refused, and the remedy names the range."""
    answer = as_user("print(1)", user="1000", best_effort=True)

    assert answer["error"] == "HostError"
    assert "--add-subuids" in answer["hint"]


@pytest.mark.skipif(shutil.which("newuidmap") is None, reason="newuidmap (uidmap) is not installed")
def test_subordinate_ids_give_a_range(as_user, tmp_path):
    """With newuidmap and a range in /etc/subuid the container has many ids, and --user works."""
    ranges = tmp_path / "subid"
    ranges.write_text("nobody:300000:65536\n")
    before = f"mount --bind {ranges} /etc/subuid; mount --bind {ranges} /etc/subgid"
    if not (Path("/etc/subuid").exists() and Path("/etc/subgid").exists()):
        pytest.skip("no /etc/subuid to lay another over")
    source = 'import os; print(os.getuid(), os.getcwd(), open("/proc/self/uid_map").read().split())'

    report = as_user(source, before=before, user="1000", best_effort=True)

    assert report["stdout"] == "1000 /home/user ['0', '0', '1', '1', '1', '65535']\n", report


def test_files_come_out(as_user):
    """The user's own supervisor may look into the container's root, and the user writes what it finds."""
    source = """
        import os
        os.mkdir("d"); open("d/a", "w").write("x"); os.chmod("d/a", 0); os.symlink("/etc/passwd", "d/link")
    """
    # the process stands in / and may not write there: that is said, file by file
    report = as_user(textwrap.dedent(source), out_file=["d/*"], best_effort=True)

    assert report["verdict"] == "OK", report
    assert [file["path"] for file in report["files_refused"]] == ["d/a", "d/link"]
    assert "Permission denied" in report["files_refused"][0]["reason"]

    directory = tempfile.mkdtemp(dir="/tmp", prefix="container_magic-rootless-")
    os.chown(directory, NOBODY, NOBODY)
    try:
        report = as_user(textwrap.dedent(source), out_file=["d/*"], best_effort=True, at=directory)
        assert [(file["path"], file["size_bytes"]) for file in report["files"]] == [("d/a", 1)], report
        assert (Path(directory) / "d/a").read_text() == "x"
        assert (Path(directory) / "d/a").stat().st_uid == NOBODY
    finally:
        shutil.rmtree(directory)


def test_snapshot_of_an_ordinary_users_notebook(package):
    """A copy of the user's own process, with its variables, as the root of a user namespace and nothing more."""
    script = f"""
        import os, sys
        sys.path[:0] = [{str(package)!r}]
        sys.path.append({sysconfig.get_path("purelib")!r})
        try:
            from IPython.core.interactiveshell import InteractiveShell
            import threadpoolctl
        except ImportError:
            sys.exit(77)
        from traitlets.config import Config
        config = Config()
        config.HistoryManager.enabled = False
        shell = InteractiveShell.instance(config=config)
        shell.run_line_magic("load_ext", "container_magic")
        items = shell.user_ns["items"] = [1, 2]
        cell = "items.append(3); print(items, open('/proc/self/uid_map').read().split(), os.listdir('/tmp'))"
        shell.run_cell("%%contain --snapshot --best-effort --quiet --timeout 30s\\nimport os; " + cell)
        print(items, shell.user_ns["_contain"].verdict)
    """
    home = tempfile.mkdtemp(prefix="container_magic-home-", dir="/tmp")
    os.chmod(home, 0o777)
    words = f"setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups env -i PATH=/usr/bin:/bin HOME={home}".split()
    finished = subprocess.run(
        [*words, SYSTEM_PYTHON, "-B", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    shutil.rmtree(home)
    if finished.returncode == 77:
        pytest.skip(f"{SYSTEM_PYTHON} cannot use this environment's IPython")
    assert finished.stdout.splitlines() == ["[1, 2, 3] ['0', '0', '1'] []", "[1, 2] OK"], finished.stderr


@pytest.fixture
def project():
    """Make a directory of the ordinary user's."""
    path = Path(tempfile.mkdtemp(prefix="container_magic-project-", dir="/tmp"))
    (path / "data").mkdir()
    (path / "file").write_text("the host's")
    for place in (path, path / "data", path / "file"):
        os.chown(place, NOBODY, NOBODY)
    (path / "file").chmod(0o600)
    yield path
    shutil.rmtree(path)


_WRITE = """
    import os
    print(os.getcwd(), open("file").read())
    open("file", "w").write("changed")
    open("data/new", "w")
    print(open("file").read(), os.listdir("data"))
"""


@pytest.mark.parametrize("mode", ["overlay", "copy"])
def test_work_directory_is_the_users_own_inside_and_stays_as_it_is(as_user, project, mode):
    """The files belong to the container's root, who is the caller."""
    report = as_user(textwrap.dedent(_WRITE), at=project, best_effort=True, work=mode)
    assert report["stdout"].splitlines() == [f"{project} the host's", "changed ['new']"], report
    assert report["downgrades"] == [one for one in report["downgrades"] if one["name"] != "work"]
    assert ((project / "file").read_text(), list((project / "data").iterdir())) == ("the host's", [])


def test_work_directory_with_mounts_in_it_cannot_have_an_overlay(as_user, project):
    """The kernel gives a user the whole or nothing; a copy has what is mounted, too."""
    before = f"mount -t tmpfs tmpfs {project}/data; echo x > {project}/data/deep; chown {NOBODY} {project}/data"
    refused = as_user("print(1)", at=project, before=before, best_effort=True, work="overlay")
    assert refused["error"] == "HostError"
    assert "no overlay can lie over" in refused["message"]
    assert "--work copy" in refused["hint"]
    source = "import os; print(os.listdir('data'))"
    for mode in ("copy", "ro"):
        report = as_user(source, at=project, before=before, best_effort=True, work=mode)
        assert report["stdout"] == "['deep']\n", report


def test_work_directory_on_a_stack_of_overlays_cannot_have_another(as_user, project):
    """Two are the most that the kernel takes; a copy is none."""
    before = f"""
        mount -t tmpfs tmpfs /mnt
        mkdir /mnt/u1 /mnt/w1 /mnt/m1 /mnt/u2 /mnt/w2 /mnt/m2
        chown {NOBODY}:{NOBODY} /mnt/u1 /mnt/u2
        mount -t overlay overlay -o lowerdir={project},upperdir=/mnt/u1,workdir=/mnt/w1 /mnt/m1
        mount -t overlay overlay -o lowerdir=/mnt/m1,upperdir=/mnt/u2,workdir=/mnt/w2 /mnt/m2
    """
    one = as_user(textwrap.dedent(_WRITE), at="/mnt/m1", before=before, best_effort=True, work="overlay")
    assert one["stdout"].splitlines() == ["/mnt/m1 the host's", "changed ['new']"], one
    refused = as_user("print(1)", at="/mnt/m2", before=before, best_effort=True, work="overlay")
    assert "a stack of overlays" in refused["message"]
    assert "--work copy" in refused["hint"]
    report = as_user(textwrap.dedent(_WRITE), at="/mnt/m2", before=before, best_effort=True, work="copy")
    assert report["stdout"].splitlines() == ["/mnt/m2 the host's", "changed ['new']"], report


@pytest.mark.parametrize("mode", ["ro", "overlay", "copy"])
def test_work_directory_that_the_user_may_not_read_is_refused(as_user, project, mode):
    """Another's, closed to others; with the mode."""
    os.chown(project, 0, 0)
    project.chmod(0o711)
    refused = as_user("print(1)", at=project, best_effort=True, work=mode)
    assert (refused["error"], refused["hint"][:10]) == ("HostError", "chmod o+rx"), refused
    assert f"may not read {project} (mode 0711)" in refused["message"]


def test_copy_names_the_file_that_cannot_be_read(as_user, project):
    """Nothing runs with half of the files; an overlay shows what can be read."""
    os.chown(project / "file", 0, 0)
    refused = as_user("print(1)", at=project, best_effort=True, work="copy")
    assert f"{project}/file: Permission denied" in refused["message"]
    assert "--work overlay" in refused["hint"]
    report = as_user("import os; print(os.listdir())", at=project, best_effort=True, work="overlay")
    assert "'file'" in report["stdout"]
