"""Bad input: one clear line or the code's own error; nothing started, nothing lost."""

from __future__ import annotations

import os

import pytest

import container_magic as cm
from container_magic.runtime import client

REFUSED = [
    {"bogus": 1},
    {"mem": "banana"},
    {"mem": "1K"},
    {"mem": "-5M"},
    {"mem": ""},
    {"mem": "1e99"},
    {"mem": float("nan")},
    {"mem": "99999999999999G"},
    {"cpus": "99"},
    {"cpus": "3-1"},
    {"cpus": "0"},
    {"cpus": "-1"},
    {"cpus": "0,,1"},
    {"cpuset_cpus": "4000-4001"},
    {"cpuset_mems": "77"},
    {"net": "foo"},
    {"net": ""},
    {"pids": 0},
    {"pids": "many"},
    {"disk": "1"},
    {"timeout": "0"},
    {"timeout": "soon"},
    {"timeout": -1},
    {"cpu_time": "-1s"},
    {"max_output": "none at all"},
    {"max_output": 0},
    {"ulimit": "nofile"},
    {"ulimit": "bogus=1"},
    {"ulimit": "nofile=20:10"},
    {"hostname": "-bad-"},
    {"hostname": "a" * 64},
    {"hostname": "a\nb"},
    {"volume": ""},
    {"volume": "a:b:c:d"},
    {"volume": "/usr:relative"},
    {"volume": "/usr:/:ro"},
    {"volume": "/usr:/x:rwx"},
    {"mount": "type=nfs,dst=/x"},
    {"mount": "dst=/x"},
    {"tmpfs": "/x:size=banana"},
    {"workdir": "relative"},
    {"env": "=x"},
    {"env": "A=\0"},
    {"env_file": "/no/such/file"},
    {"user": "a b"},
    {"user": "1:2:3"},
    {"lang": "cobol"},
    {"profile": "nice"},
    {"blkio_weight": "1"},
    {"device_read_bps": "/dev/null"},
    {"memory_swap": "100M"},
    {"mem": "100M", "memory_swap": "50M"},
    {"read_only": "maybe"},
]


def _short(options):
    return " ".join(f"{name}={value!r}"[:30] for name, value in options.items())


@pytest.mark.parametrize("options", REFUSED, ids=_short)
def test_option_is_refused_in_one_line(options):
    """An option that makes no sense: OptionError of one line that names option and value; nothing was started."""
    with pytest.raises(cm.OptionError) as caught:
        cm.run("print('never')", **options)

    message = caught.value.message
    assert "\n" not in message
    assert any(name in message.replace("-", "_") for name in options)
    assert len(message) < 600


@pytest.mark.parametrize("place", ["/", "/proc", "/proc/", "/sys", "/dev", "//proc", "/x/../proc"])
def test_mounts_over_the_containers_own_places_are_refused(place):
    """Nothing of the host comes over /, /proc, /sys, /dev, however it is spelled."""
    with pytest.raises(cm.OptionError):
        cm.run("pass", volume=f"/usr:{place}:ro")


@pytest.mark.parametrize("place", ["/proc/self", "/proc/sys", "/proc/1/x", "/proc/kcore"])
def test_mounts_inside_of_proc_are_refused(run, place, tmp_path):
    """Nothing of the host covers a part of procfs, as in runc (CVE-2019-16884)."""
    with pytest.raises(cm.ContainError) as caught:
        run("pass", volume=f"{tmp_path}:{place}")

    assert "\n" not in caught.value.message
    assert place in caught.value.message


@pytest.mark.parametrize("place", ["/sys/fs", "/dev/shm/x", "/dev/null", "/dev/new", "/sys/new"])
def test_mounts_inside_of_sys_and_dev_work_or_fail_as_a_whole(run, place, tmp_path):
    """A mount below /sys or /dev is there, or an error names it; isolation is the same either way."""
    try:
        report = run("print(open('/proc/self/status').read().count('Seccomp:\\t2'))", volume=f"{tmp_path}:{place}")
    except cm.ContainError as error:
        assert "\n" not in error.message
        assert place in error.message
    else:
        assert report.stdout == "1\n"


def test_missing_volume_is_named():
    """-v /does-not-exist:/x: an error with the path; the directory is not made, as Docker would."""
    with pytest.raises(cm.ContainError, match="/does-not-exist"):
        cm.run("pass", volume="/does-not-exist:/x")

    assert not os.path.exists("/does-not-exist")


def test_volume_over_a_file_says_what_is_wrong(run, tmp_path):
    """A directory cannot be mounted on a file."""
    with pytest.raises(cm.ContainError) as caught:
        run("pass", volume=f"{tmp_path}:/etc/passwd")

    assert "/etc/passwd" in caught.value.message


def test_user_that_does_not_exist_is_named(run):
    """Nothing is started for an unknown user."""
    with pytest.raises(cm.ContainError, match="nosuchuser"):
        run("pass", user="nosuchuser")


@pytest.mark.root
def test_user_beyond_the_map_is_refused(run):
    """An id that the container does not have."""
    for user in ("65536", "1000:65536", "4294967294"):
        with pytest.raises(cm.ContainError) as caught:
            run("pass", user=user)
        assert user.partition(":")[0] in caught.value.message or "65536" in caught.value.message


def test_workdir_that_is_a_file(run):
    """A working directory that cannot be made is an error of one line."""
    with pytest.raises(cm.ContainError) as caught:
        run("pass", workdir="/etc/passwd")

    assert "working directory" in caught.value.message


def test_ulimit_beyond_the_hard_limit_is_refused(run):
    """A hard limit that this process may not give."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY:
        pytest.skip("no hard limit here")
    with pytest.raises(cm.HostError, match="nofile"):
        run("pass", ulimit=f"nofile={hard + 1}")


def test_ulimit_beyond_what_any_container_has_is_refused(run):
    """What is counted for the user on the host as well; the message says how much there can be."""
    with pytest.raises(cm.HostError, match=r"sigpending to 1025: .* is (1024|\d{1,3})$"):
        run("pass", ulimit="sigpending=1025")


@pytest.mark.parametrize("value", ["1000", "0:-1", "-1"])
def test_ulimit_that_asks_for_core_dumps_is_refused(run, value):
    """There are none: one would leave the container."""
    with pytest.raises(cm.OptionError, match="core_pattern; accepted: core=0"):
        run("pass", ulimit=f"core={value}")


@pytest.mark.parametrize("source", [None, 5, {"print"}, [b"echo"], ["echo", 5]], ids=repr)
def test_what_is_no_source_is_refused(run, source):
    """Neither code nor a command."""
    with pytest.raises(cm.OptionError, match=r"^source: "):
        run(source)


@pytest.mark.parametrize("source", ["", " \n\t\n", "# only a comment\n", b""], ids=lambda source: type(source).__name__)
def test_empty_code_is_fine(run, source):
    """Nothing to do is OK."""
    report = run(source)

    assert (report.verdict, report.stdout, report.stderr) == ("OK", "", "")


@pytest.mark.parametrize(
    "source",
    ["x =", "if:\n", "\tx\n  y", "print('a", "\x00", "a\0b", "return 5", "def"],
    ids=lambda source: type(source).__name__,
)
def test_broken_code_is_its_own_error(run, source):
    """What cannot be compiled ends with a SyntaxError of the code, exit code 1."""
    report = run(source)

    assert (report.verdict, report.exit_code) == ("RUNTIME_ERROR", 1)
    assert report.error.ename in ("SyntaxError", "IndentationError", "TabError", "ValueError")
    assert "container_magic" not in report.stderr


def test_code_that_is_not_utf8_is_its_own_error(run):
    """Bytes that are no UTF-8 are a SyntaxError as for ``python FILE``."""
    report = run(b"print('\xff')\n")

    assert (report.verdict, report.error.ename) == ("RUNTIME_ERROR", "SyntaxError")


def test_lone_surrogate_in_the_code(run):
    """A string that cannot be encoded is an error of the code or runs, and breaks nothing."""
    assert run("print('\ud800')").verdict in ("OK", "RUNTIME_ERROR")


def test_five_megabytes_of_code_run(run):
    """A cell of 5 MB arrives whole."""
    source = "x = '" + "y" * 5_000_000 + "'\nprint(len(x))\n"

    assert run(source).stdout == "5000000\n"


def test_code_of_many_lines_runs(run):
    """A hundred thousand lines compile and run."""
    report = run("x = 0\n" + "x += 1\n" * 100_000 + "print(x)\n1/0\n", mem="512M")

    assert report.stdout == "100000\n"
    assert "line 100003" in report.stderr


@pytest.mark.parametrize("words", [[], [""], ["a\0b"], ()])
def test_empty_or_impossible_commands_are_refused(words):
    """A command needs a first word, and no NUL."""
    with pytest.raises(cm.OptionError):
        cm.run(words)


@pytest.mark.parametrize("source", [None, 5, 5.0, {"a": 1}.values, object()], ids=lambda source: type(source).__name__)
def test_source_of_a_wrong_type_is_refused(source):
    """Neither text nor a list of words: an error that says so, nothing started."""
    with pytest.raises((cm.OptionError, TypeError)):
        cm.run(source)


def test_argument_list_that_is_too_long_is_126(run):
    """E2BIG is an error of the command, not of the sandbox."""
    report = run(["echo", "x" * 200_000])

    assert report.exit_code == 126
    assert "echo" in report.stderr


def test_very_long_environment_is_an_error_of_the_command(run):
    """An environment that the kernel refuses ends the command with 126."""
    report = run(["true"], env=[f"A{i}={'x' * 100_000}" for i in range(30)])

    assert report.exit_code in (0, 126)


def test_refusals_start_no_zygote(client_process):
    """An option error costs nothing: no process is started for it."""
    process = client_process(
        """
        import container_magic as cm
        from container_magic.runtime import client
        try: cm.run("pass", mem="banana")
        except cm.OptionError: print(client._zygotes.get(()))
        """
    )
    output, complaints = process.communicate(timeout=60)

    assert output == "None\n", complaints


def test_next_run_works_after_every_refusal(run):
    """A refused run leaves the zygote as it was."""
    run("pass")
    zygote = client.zygote().process.pid
    for options in ({"volume": "/does-not-exist:/x"}, {"user": "nosuchuser"}, {"workdir": "/etc/passwd"}):
        with pytest.raises(cm.ContainError):
            run("pass", **options)

    assert run("print(1)").stdout == "1\n"
    assert client.zygote().process.pid == zygote
