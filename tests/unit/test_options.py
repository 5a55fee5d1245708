"""The option table and what reads it: lines, keywords, layers, help, documentation."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from container_magic import options
from container_magic.errors import OptionError
from container_magic.spec import ContainerSpec, DeviceRate, Mount, Rlimit

ROOT = Path(__file__).parents[2]
MIB = 1024**2


def magic(line, defaults=None):
    """Return what a ``%%contain`` line says."""
    return options.from_argv(options.split_line(line), "magic", defaults)


def error_of(line, front="magic", defaults=None):
    """Return the message that a line is refused with; it is one line and has no hint."""
    with pytest.raises(OptionError) as caught:
        options.from_argv(options.split_line(line), front, defaults)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- what an option becomes in the spec ---


def test_line_without_options_gives_the_defaults():
    """Nothing is explicit; what depends on the host is left to the plan."""
    run = magic("")
    assert run.spec == ContainerSpec(resources=run.spec.resources)
    assert (run.spec.resources.pids, run.spec.resources.memory_bytes, run.spec.root.disk_bytes) == (256, None, None)
    assert run.spec.watch.output_bytes == 8 * MIB
    assert (run.lang, run.report, run.result, run.raise_error, run.quiet, run.dry_run) == (
        "python", "line", None, True, False, False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("--mem 200M", "memory_bytes", 200 * MIB),
        ("--memory=1.5G", "memory_bytes", 1536 * MIB),
        ("-m 7M", "memory_bytes", 7 * MIB),
        ("-m7M", "memory_bytes", 7 * MIB),
        ("--mem 1G --mem-high 800M", "memory_high_bytes", 800 * MIB),
        ("--mem-high 800M", "memory_high_bytes", 800 * MIB),
        ("--mem 1G --memory-swap 2G", "memory_swap_bytes", 2048 * MIB),
        ("--mem 1G --memory-swap -1", "memory_swap_bytes", -1),
        ("--cpus 0-1", "cpuset_cpus", "0-1"),
        ("--cpus 0,1,2,6", "cpuset_cpus", "0-2,6"),
        ("--cpus 1.5", "cpus", 1.5),
        ("--cpus 2", "cpus", 2.0),
        ("--cpuset-cpus 0", "cpuset_cpus", "0"),
        ("--cpuset-mems 0", "cpuset_mems", "0"),
        ("--cpu-shares 512", "cpu_shares", 512),
        ("-c 512", "cpu_shares", 512),
        ("--pids 64", "pids", 64),
        ("--pids-limit 64", "pids", 64),
        ("--pids -1", "pids", None),
        ("--blkio-weight 300", "blkio_weight", 300),
        ("--device-read-bps /dev/sda:1M", "device_read_bps",
         (DeviceRate(path="/dev/sda", major=0, minor=0, rate=MIB),)),
        ("--device-write-bps /dev/sda:1M", "device_write_bps",
         (DeviceRate(path="/dev/sda", major=0, minor=0, rate=MIB),)),
        ("--device-read-iops /dev/sda:9", "device_read_iops",
         (DeviceRate(path="/dev/sda", major=0, minor=0, rate=9),)),
        ("--device-write-iops /dev/sda:9 --device-write-iops /dev/sdb:8", "device_write_iops",
         (DeviceRate(path="/dev/sda", major=0, minor=0, rate=9),
          DeviceRate(path="/dev/sdb", major=0, minor=0, rate=8))),
    ],
)  # fmt: skip
def test_resource_option_lands_in_its_field(line, field, value):
    """Each spelling of each limit reaches the field of ``Resources`` that the table names."""
    assert getattr(magic(line).spec.resources, field) == value


@pytest.mark.parametrize(
    ("line", "path", "value"),
    [
        ("--disk 100M", "spec.root.disk_bytes", 100 * MIB),
        ("--read-only", "spec.root.readonly", True),
        ("--timeout 2m", "spec.watch.wall_seconds", 120.0),
        ("--timeout none", "spec.watch.wall_seconds", None),
        ("--cpu-time 500ms", "spec.watch.cpu_seconds", 0.5),
        ("--max-output 64K", "spec.watch.output_bytes", 65536),
        ("--ulimit nofile=9:10 --ulimit core=0", "spec.process.rlimits",
         (Rlimit(name="nofile", soft=9, hard=10), Rlimit(name="core", soft=0, hard=0))),
        ("--net host", "spec.network", "host"),
        ("--network none", "spec.network", "none"),
        ("--hostname grader-1", "spec.hostname", "grader-1"),
        ("-w /a/../b//c/", "spec.process.cwd", "/b/c"),
        ("-u 1000:100", "spec.process.user", "1000:100"),
        ("--user nobody", "spec.process.user", "nobody"),
        ("-e A=1 --env 'B=x y=z'", "spec.process.env", (("A", "1"), ("B", "x y=z"))),
        ("--lang sh", "spec.process.args", ("sh",)),
        ("--lang bash", "spec.process.stdin_is_code", True),
        ("--lang python", "spec.process.kind", "python"),
        ("--interpreter /usr/bin/perl", "spec.process.args", ("/usr/bin/perl",)),
        ("--interpreter /usr/bin/perl", "spec.process.kind", "exec"),
        ("--interpreter python", "spec.process.kind", "exec"),
        ("--best-effort", "spec.best_effort", True),
        ("--lang sh", "lang", "sh"),
        ("--interpreter /usr/bin/perl", "lang", "/usr/bin/perl"),
        ("--result r", "result", "r"),
        ("--report full", "report", "full"),
        ("--no-raise-error", "raise_error", False),
        ("--quiet", "quiet", True),
        ("--dry-run", "dry_run", True),
    ],
)  # fmt: skip
def test_option_lands_in_its_field(line, path, value):
    """Each option that is no resource reaches the field that the table names."""
    found = magic(line)
    for name in path.split("."):
        found = getattr(found, name)
    assert found == value


@pytest.mark.parametrize("option", options.OPTIONS, ids=lambda option: option.name)
def test_no_option_parses_and_does_nothing(option, tmp_path, monkeypatch):
    """Each row's examples parse, and one of them at least changes what comes out."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.env").write_text("A=1")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "1.in").write_text("3 4\n")
    monkeypatch.setenv("LANG", "C")
    front = next(front for front in ("magic", "cli", "kernel") if front in option.fronts)
    base = ["--mem", "100M"] if option.name == "--memory-swap" else []
    words = [[option.names_on(front)[0], *([example] if example else [])] for example in option.examples or ("",)]
    outcomes = [without_explicit(options.from_argv([*base, *argv], front)) for argv in words]
    assert any(outcome != without_explicit(options.from_argv(base, front)) for outcome in outcomes)


def without_explicit(run):
    """Return ``run`` with nothing said to be given."""
    return dataclasses.replace(run, spec=dataclasses.replace(run.spec, explicit=()))


# --- mounts and environment ---


def test_volume_with_a_path_alone_is_read_only_at_the_same_place(tmp_path, monkeypatch):
    """Relative paths and ~ are the caller's; nothing is asked of the file system."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/ann")
    places = (f"{tmp_path}/data", "/home/ann/x")
    mounts = {mount.destination: mount for mount in magic("-v ./data -v ~/x").spec.mounts}
    assert mounts == {place: Mount(type="bind", source=place, destination=place, readonly=True) for place in places}


@pytest.mark.parametrize(("mode", "readonly"), [("", False), (":rw", False), (":ro", True)])
def test_volume_with_a_destination_is_writable_unless_ro(mode, readonly):
    """Docker's meaning."""
    assert magic(f"-v /src:/dst/{mode}").spec.mounts == (
        Mount(type="bind", source="/src", destination="/dst", readonly=readonly),
    )


def test_mount_takes_dockers_keys_and_aliases():
    """source/src, destination/dst/target, readonly/ro with and without a value, quotes around commas."""
    expected = Mount(type="bind", source="/s", destination="/d", readonly=True)
    for text in (
        "type=bind,source=/s,destination=/d,readonly",
        "type=bind,src=/s,dst=/d,ro",
        "readonly=true,target=/d,src=/s,type=bind",
        "type=bind,src=/s,dst=/d,ro=1",
    ):
        assert options.from_keywords({"mount": text}).spec.mounts == (expected,)
    (mount,) = options.from_keywords({"mount": 'type=bind,"src=/a,b",dst=/d'}).spec.mounts
    assert (mount.source, mount.readonly) == ("/a,b", False)


def test_tmpfs_has_size_and_mode_in_both_spellings():
    """``--tmpfs`` and ``--mount type=tmpfs`` say the same."""
    expected = (Mount(type="tmpfs", destination="/t", size_bytes=64 * MIB, mode=0o1777),)
    assert magic("--tmpfs /t:size=64m,mode=1777").spec.mounts == expected
    assert magic("--mount type=tmpfs,dst=/t,tmpfs-size=64m,tmpfs-mode=1777").spec.mounts == expected
    assert magic("--tmpfs /t").spec.mounts == (Mount(type="tmpfs", destination="/t"),)


def test_outer_mounts_come_before_inner_ones():
    """A bind at /data does not hide what is mounted at /data/in."""
    spec = magic("-v /b:/data/in -v /a:/data --tmpfs /data/in/deep").spec
    assert [mount.destination for mount in spec.mounts] == ["/data", "/data/in", "/data/in/deep"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("-v data:/data", "there are no named volumes: write ./data"),
        ("-v /a:b", "the place inside the container must be an absolute path"),
        ("-v /a:/", "nothing can be mounted over /"),
        ("-v /a:/x/..", "nothing can be mounted over /"),
        ("-v /a:/b:zz", "not a volume"),
        ("-v /a:/b:ro:x", "not a volume"),
        ("-v :/b", "not a volume"),
        ("-v ''", "not a volume"),
        ("-v /a:/x -v /b:/x", "something else is mounted at /x already"),
        ("-v /a:/x --tmpfs /x/", "something else is mounted at /x already"),
        ("--mount src=/a,dst=/b", "type must be bind or tmpfs"),
        ("--mount type=volume,dst=/b", "type must be bind or tmpfs"),
        ("--mount type=bind,dst=/b", "type=bind needs source="),
        ("--mount type=bind,src=/a", "the place inside the container must be an absolute path"),
        ("--mount type=bind,src=/a,dst=/b,tmpfs-size=1M", "type=bind has no 'tmpfs-size'"),
        ("--mount type=bind,src=/a,dst=/b,ro=maybe", "readonly must be true or false"),
        ("--mount type=bind,src=/a,src=/c,dst=/b", "source is given twice"),
        ("--mount type=bind,src,dst=/b", "'src' has no value"),
        ("--mount type=tmpfs,dst=/b,tmpfs-mode=9", "the mode '9' is not octal"),
        ("--tmpfs t", "the place inside the container must be an absolute path"),
        ("--tmpfs /t:size=x", "the size 'x': not a size"),
        ("--tmpfs /t:exec", "'exec' is no option of a tmpfs here"),
    ],
)
def test_mount_that_makes_no_sense_is_refused(line, problem):
    """The message names option and value and says what is wrong."""
    assert problem in error_of(line)


def test_env_name_alone_takes_the_callers_value(monkeypatch):
    """As in Docker: nothing when the caller has none."""
    monkeypatch.setenv("HAVE", "it")
    monkeypatch.delenv("HAVE_NOT", raising=False)
    assert magic("-e HAVE -e HAVE_NOT -e EMPTY=").spec.process.env == (("HAVE", "it"), ("EMPTY", ""))


def test_env_file_is_read_as_docker_reads_it_and_env_goes_before_it(tmp_path, monkeypatch):
    """Comments and empty lines are skipped, quotes stay, ``--env`` wins whatever the order."""
    monkeypatch.setenv("CALLER", "c")
    file = tmp_path / "job.env"
    file.write_text('\ufeff# comment\n\nA=file\nB="q" # no comment\n  C=1\nCALLER\nUNSET_HERE\n', encoding="utf-8")
    env = dict(magic(f"-e A=line --env-file {file}").spec.process.env)
    assert env == {"A": "line", "B": '"q" # no comment', "C": "1", "CALLER": "c"}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"A B=1\n", "line 1: a name is not empty and has no blanks"),
        (b"A=1\n=2\n", "line 2: "),
        (b"\xff\n", "it is not UTF-8"),
        (b"A=\0\n", "line 1 holds a NUL"),
    ],
)
def test_env_file_with_nonsense_is_refused_with_its_line(tmp_path, content, problem):
    """The message names the file, the line and the reason."""
    file = tmp_path / "job.env"
    file.write_bytes(content)
    message = error_of(f"--env-file {file}")
    assert problem in message
    assert "accepted: " in message


# --- bad input: one line that names the option, the value and what is accepted ---


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--mem banana", "--mem 'banana': not a size; accepted: a size such as 200M, 1.5G or 64KiB "
                         "(k m g t are powers of 1024) or none"),
        ("--mem 1K", "--mem '1K': the minimum is 6M; accepted: a size such as 200M, 1.5G or 64KiB "
                     "(k m g t are powers of 1024) or none"),
        ("--cpus 3-1",
         "--cpus '3-1': the range 3-1 runs backwards; accepted: CPU numbers and ranges such as 0-1, 0,2 or 1-3,6"),
        ("--net foo", "--net 'foo': accepted: none, host"),
        ("--network foo", "--net 'foo': accepted: none, host"),
        ("--lang cobol", "--lang 'cobol': accepted: python, bash, sh, node, Rscript, julia, perl, ruby"),
        ("--pids 0", "--pids '0': accepted: a whole number from 1 to 4194304, -1 or none = unlimited"),
        ("--blkio-weight 9", "--blkio-weight '9': accepted: a whole number from 10 to 1000"),
        ("--cpu-shares 1", "--cpu-shares '1': accepted: a whole number from 2 to 262144"),
        ("--timeout 0", "--timeout '0': it must be between 1ms and 366 days; accepted: a duration such as 500ms, 10s, "
                        "2m or 1h30m, or a number of seconds or none"),
        ("-w here", "--workdir 'here': accepted: an absolute path inside the container"),
        ("--hostname -x", "--hostname: '-x' looks like an option, not like its value; accepted: NAME such as grader, "
                          "--hostname=VALUE where VALUE begins with -"),
        ("--hostname=-x",
         "--hostname '-x': accepted: up to 63 letters, digits, - and ., with a letter or digit at both ends"),
        ("-u a:b:c", "--user 'a:b:c': accepted: UID, UID:GID, NAME or NAME:GROUP"),
        ("-u 4294967295",
         "--user '4294967295': the largest id is 2^32 - 2; accepted: UID, UID:GID, NAME or NAME:GROUP"),
        ("-e =x", "--env '=x': a name is not empty and has no blanks; "
         "accepted: NAME=VALUE, or NAME alone for the caller's value"),
        ("--result 1x", "--result '1x': accepted: a Python name"),
        ("--result class", "--result 'class': accepted: a Python name"),
        ("--mem", "--mem: its value is missing; accepted: SIZE such as 200M, --mem=VALUE where VALUE begins with -"),
        ("--quiet=yes", "--quiet 'yes': it takes no value; accepted: --quiet alone"),
        ("--memm 3", "unknown option '--memm'; did you mean --mem?"),
        ("--me 3M", "unknown option '--me'; did you mean --mem?"),
        ("-mem 200M", "unknown option -mem; did you mean --mem?"),
        ("--frobnicate", "unknown option '--frobnicate'; %%contain? shows all"),
        ("--report-file x", "--report-file is not an option of %%contain, only of contain run"),
        ("--help", "unknown option --help; %%contain? shows the options"),
        ("print(1)", "unexpected argument 'print(1)'; accepted: options only (%%contain? shows all)"),
        ("--", "unexpected argument '--'; accepted: options only (%%contain? shows all)"),
        ("--cpus 0-1 --cpuset-cpus 0",
         "--cpus and --cpuset-cpus both name CPUs; accepted: one of them, or an amount for --cpus"),
        ("--lang sh --interpreter x", "--lang and --interpreter both say what runs the code; accepted: one of them"),
        ("--stdin x --stdin-file y", "--stdin-file 'y': cannot be read: No such file or directory; accepted: a file"),
        ("--stdin x --stdin-file /dev/null",
         "--stdin and --stdin-file both say what the code reads; accepted: one of them"),
        ("--stdin-file /dev/zero", "--stdin-file '/dev/zero': it is too large; accepted: at most 64M, "
                                   "and any amount by contain run < FILE or a volume"),
        ("--stdin x --session s",
         "--stdin is for one run, and a session's cells ask for their input; accepted: one of them"),
        ("--stdin-file /dev/null --lang sh", "--stdin-file cannot reach the code: sh reads the code itself as standard "
                                             "input; accepted: python, or a command"),
        ("--mem 1G --mem-high 1G", "--mem-high 1G: accepted: less than --mem, which is 1G"),
        ("--mem none --mem-high 1G", "--mem-high 1G: accepted: less than --mem, which is lifted"),
        ("--memory-swap 1G", "--memory-swap is memory plus swap and means nothing without a limit; give --mem too"),
        ("--mem 1G --memory-swap 512M",
         "--memory-swap 512M: it is memory plus swap; accepted: at least --mem, which is 1G, or -1"),
    ],
)  # fmt: skip
def test_bad_line_is_refused_in_one_clear_line(line, message):
    """Unknown, malformed and contradictory options, word for word."""
    assert error_of(line) == message


def test_open_quote_is_refused_in_one_line():
    """A line that cannot be split says so."""
    with pytest.raises(OptionError, match="cannot be split into words: no closing quotation"):
        options.split_line("--env 'A=b c")


def test_quotes_are_those_of_a_shell():
    """IPython's own splitting keeps them; ours does not."""
    assert options.split_line("--env 'A=b c' -e B=\"d e\"") == ["--env", "A=b c", "-e", "B=d e"]


def test_nul_and_endless_values_are_refused_and_shortened():
    """A message stays one readable line whatever was typed."""
    assert "NUL" in error_of("--hostname 'a\0b'")
    assert len(error_of(f"--mem {'9' * 5000}")) < 250


def test_option_of_the_command_line_differs_where_docker_has_another_meaning():
    """``-c`` is CODE there, the report's name and the notebook's error are not options."""
    assert options.parse_line(["-c", "print(1)"], "cli").texts == {"code": "print(1)"}
    assert options.from_argv(["--cpu-shares", "512"], "cli").spec.resources.cpu_shares == 512
    assert error_of("--result r", "cli") == "--result is not an option of contain run, only of %%contain"
    assert options.from_argv(["--report-file", "f.json"], "cli").report_file == "f.json"


@pytest.mark.parametrize(
    ("argv", "rest", "dashes"),
    [
        (["--mem", "1G", "x.py", "--foo", "--mem", "3", "--", "z"], ("x.py", "--foo", "--mem", "3", "--", "z"), False),
        (["--", "ls", "-l", "--", "-mem"], ("ls", "-l", "--", "-mem"), True),
        (["--quiet", "--", "--quiet"], ("--quiet",), True),
        (["-"], ("-",), False),
        (["-c", "x", "a", "-b"], ("a", "-b"), False),
        (["x.py", "-mem", "-v", "-c"], ("x.py", "-mem", "-v", "-c"), False),
        ([], (), False),
    ],
)
def test_options_end_at_the_first_word_that_is_none(argv, rest, dashes):
    """What follows is the program's, untouched; as in Docker."""
    line = options.parse_line(argv, "cli")
    assert (line.rest, line.dashes) == (rest, dashes)


# --- keywords ---


def test_keywords_say_what_a_line_says():
    """Numbers, lists, dicts and paths stand for their text."""
    run = options.from_keywords(
        {"mem": 200 * MIB, "cpus": 1.5, "timeout": 10, "env": {"A": "b", "N": 1}, "volume": ["/a:/b"],
         "read_only": True, "best_effort": False, "workdir": Path("/w"), "disk": None, "tmpfs": "/t"},
    )  # fmt: skip
    line = magic("--mem 200M --cpus 1.5 --timeout 10s -e A=b -e N=1 -v /a:/b --read-only -w /w --tmpfs /t")
    assert run.spec.to_dict() | {"explicit": ()} == line.spec.to_dict() | {"explicit": ()}


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"memm": "1G"}, "unknown option 'memm'; did you mean mem?"),
        ({"frobnicate": 1}, "unknown option 'frobnicate'; see docs/options.md"),
        ({"quiet": True}, "quiet is not an option of a Python call"),
        ({"mem": "1G", "memory": "2G"}, "mem and memory are the same option; accepted: one of them"),
        ({"mem": True}, "mem True: accepted: text such as '200M', '1.5G', '64MiB', 'none'"),
        ({"cpus": [0, 1]}, "cpus [0, 1]: accepted: text such as '0-1', '0,2', '1-3,6', '2', '1.5'"),
        ({"read_only": "yes"}, "read_only 'yes': accepted: True or False"),
        ({"net": "foo"}, "net 'foo': accepted: none, host"),
        ({"timeout": float("nan")}, "timeout 'nan': not a duration; accepted: a duration such as 500ms, 10s, 2m "
                                    "or 1h30m, or a number of seconds or none"),
        ({"cpus": "0-1", "cpuset_cpus": "0"},
         "cpus and cpuset_cpus both name CPUs; accepted: one of them, or an amount for cpus"),
    ],
)  # fmt: skip
def test_bad_keyword_is_refused_in_one_clear_line(keywords, message):
    """The same errors, spelt as keywords."""
    with pytest.raises(OptionError) as caught:
        options.from_keywords(keywords)
    assert str(caught.value) == message


def test_what_the_code_reads_is_a_text_bytes_or_what_a_file_holds(tmp_path):
    """Text stands for itself, also where a file has that name; a path object is the file, as it is now."""
    path = tmp_path / "in"
    path.write_bytes(b"\xff")
    for keywords, data in [
        ({}, None),
        ({"stdin": ""}, b""),
        ({"stdin": f"{path}\n\0é"}, f"{path}\n\0é".encode()),
        ({"stdin": b"\0\xff"}, b"\0\xff"),
        ({"stdin": path}, b"\xff"),
        ({"stdin_file": str(path)}, b"\xff"),
    ]:
        assert options.from_keywords(keywords).stdin == data
    path.write_bytes(b"new")
    assert options.from_keywords({"stdin_file": str(path)}).stdin == b"new"


@pytest.mark.parametrize("value", [["a"], object(), "x" * (64 * MIB + 1), "\ud800", Path("/dev/zero"), Path("/")])
def test_what_the_code_cannot_read_is_refused(value):
    """No other type, no half characters, nothing endless; the message stays short."""
    with pytest.raises(OptionError, match=r"^stdin .*accepted: ") as caught:
        options.from_keywords({"stdin": value})
    assert len(caught.value.message) < 250


def test_what_a_run_reads_takes_the_place_of_the_sessions():
    """A text given replaces the session's file, and the other way round."""
    assert options.from_keywords({"stdin": "new"}, {"stdin_file": "/dev/null"}).stdin == b"new"
    assert options.from_keywords({"stdin_file": "/dev/null"}, {"stdin": "old"}).stdin == b""


def test_env_dict_value_none_takes_the_callers_value(monkeypatch):
    """None stands for NAME alone."""
    monkeypatch.setenv("HAVE", "it")
    assert options.from_keywords({"env": {"HAVE": None}}).spec.process.env == (("HAVE", "it"),)


# --- layers ---


def test_layers_override_each_other_in_order():
    """Built-in < profile < session < given."""
    run = magic("--pids 9", {"profile": "grade", "mem": "300M", "pids": 8})
    assert run.spec.resources.pids == 9
    assert run.spec.resources.memory_bytes == 300 * MIB
    assert run.spec.watch.wall_seconds == 10.0
    assert run.spec.watch.output_bytes == MIB
    assert run.report == "line"


def test_given_profile_stands_above_the_session_and_below_the_lines_options():
    """Only one profile counts, and one named on the line is not undone by the session's options, only by the line's."""
    run = magic("--profile strict --pids 40", {"profile": "teach", "mem": "300M", "net": "host"})
    assert (run.spec.resources.pids, run.spec.root.readonly, run.spec.resources.memory_bytes) == (40, True, 256 * MIB)
    assert run.spec.network == "none"


@pytest.mark.parametrize("name", sorted(options.PROFILES))
def test_profile_says_what_its_help_says(name):
    """Each profile parses, and giving it is giving its options."""
    words = [
        word
        for key, text in options.PROFILES[name].items()
        for word in ([f"--{key.replace('_', '-')}"] if text == "true" else [f"--{key.replace('_', '-')}", text])
    ]
    by_name, by_words = options.from_argv(["--profile", name], "magic"), options.from_argv(words, "magic")
    assert set(by_name.spec.explicit) == {*by_words.spec.explicit, "profile"}
    assert by_name.spec.to_dict() | {"explicit": ()} == by_words.spec.to_dict() | {"explicit": ()}
    assert " ".join(words) in next(option.help for option in options.OPTIONS if option.name == "--profile")


def test_explicit_names_what_was_given_by_every_spelling():
    """A default that cannot be enforced is a downgrade, a wish an error: the plan must be able to tell."""
    assert magic("").spec.explicit == ()
    run = magic("--mem none --cpus 0-1", {"pids": 5})
    assert run.spec.explicit == ("cpus", "cpuset_cpus", "mem", "memory", "pids", "pids_limit")
    assert run.spec.resources.memory_bytes is None


def test_repeatable_options_add_up_over_layers_and_replace_the_same_item():
    """Variables by name, mounts by place, limits by name, devices by path."""
    session = {"env": ["A=1", "B=1"], "volume": ["/s:/x", "/s:/y"], "ulimit": "core=0", "device_read_bps": "/dev/a:1"}
    spec = magic("-e B=2 --tmpfs /y --ulimit core=5 --device-read-bps /dev/a:2", session).spec
    assert dict(spec.process.env) == {"A": "1", "B": "2"}
    assert {mount.destination: mount.type for mount in spec.mounts} == {"/x": "bind", "/y": "tmpfs"}
    assert [rlimit.soft for rlimit in spec.process.rlimits] == [5]
    assert [rate.rate for rate in spec.resources.device_read_bps] == [2]


@pytest.mark.parametrize(
    ("line", "session", "expected"),
    [
        ("--cpus 0-1", {"cpuset_cpus": "3"}, (None, "0-1")),
        ("--cpuset-cpus 3", {"cpus": "0-1"}, (None, "3")),
        ("--cpus 2", {"cpus": "0-1"}, (2.0, None)),
        ("--cpus 2", {"cpuset_cpus": "3"}, (2.0, "3")),
        ("--cpuset-cpus 3", {"cpus": "2"}, (2.0, "3")),
    ],
)
def test_cpus_given_replace_the_sessions_cpus(line, session, expected):
    """A set replaces a set however it was spelt; an amount and a set stand together."""
    resources = magic(line, session).spec.resources
    assert (resources.cpus, resources.cpuset_cpus) == expected


def test_language_given_replaces_the_sessions_interpreter_and_the_other_way_round():
    """What is said closer to the run says what runs it."""
    assert magic("--lang python", {"interpreter": "perl"}).spec.process.kind == "python"
    run = magic("--interpreter perl", {"lang": "bash"})
    assert (run.spec.process.args, run.lang) == (("perl",), "perl")
    assert "lang" not in run.spec.explicit


def test_keywords_of_a_line_can_be_kept_as_defaults():
    """``%contain --mem 512M`` keeps text, checked at once."""
    kept = options.keywords_from_argv(["--mem", "512M", "-e", "A=1", "--quiet"], "magic")
    assert kept == {"mem": "512M", "env": ["A=1"], "quiet": True}
    assert magic("", kept) == magic("--mem 512M -e A=1 --quiet")
    with pytest.raises(OptionError, match="banana"):
        options.keywords_from_argv(["--mem", "banana"], "magic")


# --- what runs ---


def test_command_replaces_the_code():
    """A command is executed as it is and its standard input is its own."""
    process = options.for_command(magic("-w /d").spec, ["ls", "-l"]).process
    assert (process.kind, process.args, process.stdin_is_code, process.cwd) == ("exec", ("ls", "-l"), False, "/d")


@pytest.mark.parametrize(
    ("line", "args"), [("", []), ("", [""]), ("", ["a\0"]), ("--lang sh", ["ls"]), ("--interpreter x", ["ls"])]
)
def test_command_that_makes_no_sense_is_refused(line, args):
    """An empty command, a NUL, or a language on top of it."""
    with pytest.raises(OptionError, match="accepted: "):
        options.for_command(magic(line).spec, args)


def test_arguments_reach_code_in_its_languages_way():
    """sys.argv of Python, $1 of a shell, and none where the way is not known."""
    assert options.for_code(magic("").spec, "x.py", ["a"]).process.args == ("x.py", "a")
    assert options.for_code(magic("--lang bash").spec, "x.sh", []).process.args == ("bash", "/dev/stdin")
    assert options.for_code(magic("--lang bash").spec, "x.sh", ["a"]).process.args == ("bash", "/dev/stdin", "a")
    assert options.for_code(magic("--lang sh").spec, "x.sh", []).process.args == ("sh",)
    assert options.for_code(magic("--lang sh").spec, "x.sh", ["a"]).process.args == ("sh", "-s", "--", "a")
    assert options.for_code(magic("--lang perl").spec, "x.pl", ["a"]).process.args == ("perl", "-", "a")
    assert options.for_code(magic("--interpreter p").spec, "x", []).process.args == ("p",)
    with pytest.raises(OptionError, match="the argument 'a' cannot be passed"):
        options.for_code(magic("--interpreter p").spec, "x", ["a"])


# --- the table itself ---


def test_names_and_keywords_are_unique_on_every_front():
    """No two options share a spelling."""
    for front in ("magic", "cli", "api", "kernel"):
        names = [name for option in options.options_of(front) for name in option.names_on(front)]
        assert len(names) == len(set(names))
    keywords = [keyword for option in options.OPTIONS for keyword in option.keywords]
    assert len(keywords) == len(set(keywords))


def test_help_lists_every_option_of_its_front_and_no_other():
    """The help of magic and command line come from the table, at most 100 characters wide."""
    for front in ("magic", "cli", "kernel"):
        text = options.help_text(front)
        assert max(map(len, text.splitlines())) <= 100
        for option in options.OPTIONS:
            assert (f"  {option.names_on(front)[0]}" in text) == (front in option.fronts), option.name
    assert "-c CODE" in options.help_text("cli")
    assert "--cpu-shares, -c N" in options.help_text("magic")


def test_documentation_is_up_to_date():
    """docs/options.md is what the table says; ``python docs/make_options.py`` writes it."""
    spec = importlib.util.spec_from_file_location("make_options", ROOT / "docs" / "make_options.py")
    make_options = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_options)
    assert make_options.TARGET.read_text(encoding="utf-8") == make_options.markdown()


def test_importing_options_imports_no_parser():
    """A Python call pays for no argparse, csv, difflib or shlex."""
    code = "import container_magic.options, sys; container_magic.options.from_keywords({'mem': '1G', 'cpus': '0-1'})"
    code += "; print([n for n in ('argparse', 'csv', 'difflib', 'shlex', 'textwrap', 'IPython') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=os.fspath(ROOT))
    assert done.stdout == "[]\n"


@given(st.lists(st.text(max_size=12), max_size=6))
def test_no_line_fails_in_another_way(argv):
    """Whatever is typed gives options or one line that is an OptionError."""
    for front in ("magic", "cli"):
        try:
            options.from_argv(argv, front)
        except OptionError as error:
            assert "\n" not in error.message


OPTION_WORDS = [name for option in options.OPTIONS for name in option.names]


@given(
    st.lists(
        st.one_of(st.sampled_from(OPTION_WORDS), st.sampled_from(["0-1", "1G", "none", "--", "/a:/b", "-", "-5"])),
        max_size=8,
    )
)
def test_no_mixture_of_options_fails_in_another_way(argv):
    """The same for words that are nearly right."""
    for front in ("magic", "cli"):
        try:
            spec = options.from_argv(argv, front).spec
        except OptionError as error:
            assert "\n" not in error.message
        else:
            assert ContainerSpec.from_dict(spec.to_dict()) == spec
