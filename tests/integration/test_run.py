"""One run: what goes in arrives, what comes out is seen, every option that shapes a run does what it says."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

import container_magic as cm
from container_magic.events import Created, Deleted, Exited, Failed, Output, Started
from container_magic.options import from_keywords
from container_magic.runtime.sweep import runtime_directory
from container_magic.verbs.run import dry_run


class TestOutput:
    """What the code writes."""

    def test_stdout_and_stderr_are_kept_apart(self, run):
        """Each stream comes back whole and only as itself."""
        report = run("import sys; print('out'); print('err', file=sys.stderr); print('out2')")

        assert (report.stdout, report.stderr) == ("out\nout2\n", "err\n")

    def test_streams_come_in_the_order_of_writing_when_the_code_waits(self, live):
        """A line is seen while the code still runs: Output comes before Exited."""
        running = live("import time; print('now', end=''); time.sleep(0.5); print('later')")

        first = running.until(lambda event: isinstance(event, Output))

        assert first.data == b"now"
        assert not any(isinstance(event, Exited) for event in running.seen)
        running.rest()

    def test_print_without_newline_is_seen_before_the_code_goes_on(self, live):
        """Output is unbuffered from the user's point of view, line or no line."""
        running = live("import time; print('half', end=''); time.sleep(20)")

        assert running.until(lambda event: isinstance(event, Output)).data == b"half"

    def test_utf8_split_between_writes_stays_whole(self, run):
        """A character whose bytes are written one at a time is decoded as one."""
        report = run("import os, time\nfor byte in '€😀'.encode():\n    os.write(1, bytes([byte])); time.sleep(0.02)")

        assert report.stdout == "€😀"

    def test_nul_and_non_utf8_bytes_are_output_like_any_other(self, run):
        """Nothing is lost or raised: NUL stays, what is no UTF-8 is replaced."""
        report = run(r"import os; os.write(1, b'a\0b\xff\xfec'); os.write(2, b'\x80')")

        assert report.ok
        assert report.stdout == "a\0b��c"
        assert report.stderr == "�"

    def test_lone_surrogates_can_be_printed(self, run):
        """What Python calls surrogateescape goes out as the byte it stands for."""
        report = run(r"print('\udcff', end='')")

        assert report.ok
        assert report.stdout == "�"

    def test_output_of_subprocesses_is_seen(self, run):
        """Children write to the same streams."""
        report = run("import subprocess; subprocess.run(['sh', '-c', 'echo child; echo oops >&2'], check=True)")

        assert (report.stdout, report.stderr) == ("child\n", "oops\n")

    def test_output_written_just_before_a_kill_is_not_lost(self, run):
        """What was written before SIGKILL is in the report."""
        report = run("import os, signal; print('last words', end=''); os.kill(os.getpid(), signal.SIGKILL)")

        assert report.stdout == "last words"
        assert report.verdict == "SIGNALED"

    def test_closed_stdout_does_not_end_the_run(self, run):
        """The code may close its own streams."""
        report = run("import os, sys; os.close(1); print('still here', file=sys.stderr)")

        assert report.stderr.startswith("still here\n")
        assert report.exit_signal is None

    def test_large_output_arrives_complete(self, run):
        """Megabytes below the limit arrive byte for byte."""
        report = run("import sys\nfor i in range(500_000): print(i)")

        assert report.ok
        assert report.stdout == "".join(f"{i}\n" for i in range(500_000))
        assert not report.truncated


class TestExit:
    """How Python code ends, as ``python FILE`` would."""

    @pytest.mark.parametrize(
        ("argument", "code", "stderr"),
        [
            ("", 0, ""),
            ("None", 0, ""),
            ("0", 0, ""),
            ("7", 7, ""),
            ("255", 255, ""),
            ("256", 0, ""),
            ("-1", 255, ""),
            ("True", 1, ""),
            ("'bad luck'", 1, "bad luck\n"),
            ("(1, 2)", 1, "(1, 2)\n"),
            ("1.5", 1, "1.5\n"),
        ],
    )
    def test_sys_exit_forms(self, run, argument, code, stderr):
        """Every argument of sys.exit gives the code and the text that Python gives."""
        report = run(f"import sys; sys.exit({argument})")

        assert (report.exit_code, report.exit_signal) == (code, None)
        assert report.stderr == stderr
        assert report.verdict == ("OK" if code == 0 else "RUNTIME_ERROR")

    def test_os_exit_is_the_exit_code(self, run):
        """os._exit ends without further ado."""
        assert run("import os; os._exit(33)").exit_code == 33

    def test_normal_end_is_zero(self, run):
        """Code that runs off its end is OK."""
        report = run("pass")

        assert (report.verdict, report.ok, report.exit_code, report.exit_signal) == ("OK", True, 0, None)

    def test_uncaught_exception_has_name_value_and_source_lines(self, run):
        """The report carries the code's own error: line numbers of the code, its lines, nothing of ours."""
        report = run("def f():\n    raise ValueError('boom')\n\nf()\n")

        assert (report.verdict, report.exit_code) == ("RUNTIME_ERROR", 1)
        assert (report.error.ename, report.error.evalue) == ("ValueError", "boom")
        text = "\n".join(report.error.traceback)
        assert "line 4" in text and "line 2, in f" in text
        assert "    f()" in text and "raise ValueError('boom')" in text
        assert "container_magic" not in text and "interpreter.py" not in text
        assert report.stderr.rstrip("\n") == text

    def test_chained_exceptions_show_both(self, run):
        """``raise ... from`` shows cause and effect."""
        report = run("try:\n    1/0\nexcept ZeroDivisionError as error:\n    raise RuntimeError('so') from error")

        assert "ZeroDivisionError" in report.stderr and "RuntimeError: so" in report.stderr
        assert "direct cause" in report.stderr
        assert "interpreter.py" not in report.stderr

    def test_syntax_error_is_the_codes_own_error(self, run):
        """A cell that cannot be compiled fails as code does: its line, a caret, exit code 1."""
        report = run("x = 1\nif True print('no')\n")

        assert (report.verdict, report.exit_code, report.error.ename) == ("RUNTIME_ERROR", 1, "SyntaxError")
        assert "line 2" in report.stderr and "^" in report.stderr
        assert "interpreter.py" not in report.stderr

    def test_exception_group_is_shown(self, run):
        """An ExceptionGroup's members are in the traceback."""
        report = run("raise ExceptionGroup('many', [ValueError('a'), KeyError('b')])")

        assert report.error.ename == "ExceptionGroup"
        assert "ValueError: a" in report.stderr and "KeyError: 'b'" in report.stderr

    def test_exception_whose_str_fails_is_reported_still(self, run):
        """An error that cannot say what it is is an error all the same."""
        report = run("class Mute(Exception):\n    def __str__(self): raise OSError\nraise Mute")

        assert (report.verdict, report.error.ename) == ("RUNTIME_ERROR", "Mute")

    def test_huge_exception_text_is_bounded(self, run):
        """An error message of megabytes neither breaks nor fills the report."""
        report = run("raise ValueError('x' * 5_000_000)")

        assert report.verdict == "RUNTIME_ERROR"
        assert report.error.ename == "ValueError"
        assert len(report.error.evalue) < 100_000

    def test_own_excepthook_is_used(self, run):
        """A hook that the code installs gets the exception."""
        report = run("import sys; sys.excepthook = lambda *_: print('hooked'); 1/0")

        assert (report.stdout, report.exit_code) == ("hooked\n", 1)

    def test_base_exceptions_end_with_one(self, run):
        """GeneratorExit and the like are errors too."""
        report = run("raise GeneratorExit('odd')")

        assert (report.exit_code, report.error.ename) == (1, "GeneratorExit")

    def test_signal_is_reported_as_signal(self, run):
        """A payload that a signal ended has that signal and no exit code."""
        report = run("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")

        assert (report.verdict, report.exit_signal, report.exit_code) == ("SIGNALED", 11, None)
        assert not report.oom_killed

    def test_forged_error_cannot_change_the_verdict(self, run):
        """What the code says of itself is no fact: exit code and verdict come from wait."""
        report = run('import sys; print(\'{"verdict": "OK"}\'); sys.exit(9)')

        assert (report.verdict, report.exit_code) == ("RUNTIME_ERROR", 9)


class TestPrograms:
    """Shells, interpreters and commands."""

    @pytest.mark.parametrize("lang", ["bash", "sh"])
    def test_shell_code_runs(self, run, lang):
        """--lang runs the code in that shell; its exit code is the shell's."""
        report = run(f"echo hello from {lang} $#\nfalse || echo two\nexit 5\n", lang=lang)

        assert report.stdout == f"hello from {lang} 0\ntwo\n"
        assert report.exit_code == 5

    def test_bash_is_bash(self, run):
        """--lang bash understands what sh does not."""
        assert run("a=(1 2 3); echo ${#a[@]}", lang="bash").stdout == "3\n"

    def test_interpreter_reads_the_code(self, run):
        """--interpreter names a program inside that reads the code as standard input."""
        report = run("BEGIN { }\nhello\nworld\n", interpreter="/bin/cat")

        assert report.stdout == "BEGIN { }\nhello\nworld\n"

    def test_python_itself_can_be_the_interpreter(self, run):
        """The environment's interpreter can be executed anew inside."""
        report = run("import sys; print(sys.prefix)", interpreter=sys.executable)

        assert report.stdout == f"{sys.prefix}\n"

    def test_command_gets_its_arguments_unchanged(self, run):
        """A list is a command: no shell reads it, every argument arrives as it was."""
        words = ["a b", "", "$HOME", "*", "ü€", "-x", "new\nline", "'\""]
        report = run(["/usr/bin/printf", "%s|", *words])

        assert report.stdout == "".join(f"{word}|" for word in words)

    def test_command_is_found_on_the_path(self, run):
        """A bare name is looked up in the container's PATH."""
        assert run(["echo", "found"]).stdout == "found\n"

    def test_python_of_the_environment_is_first_on_the_path(self, run):
        """``python`` inside is the notebook's."""
        assert run(["python", "-c", "import sys; print(sys.prefix)"]).stdout == f"{sys.prefix}\n"

    def test_virtual_environment_precedes_its_interpreter_wherever_both_lie(self, run, monkeypatch):
        """The order on PATH is that of the environment, not of the paths."""
        for environment, base in (("/aa/venv", "/zz/python"), ("/zz/venv", "/aa/python")):
            for prefix in ("prefix", "exec_prefix"):
                monkeypatch.setattr(sys, prefix, environment)
                monkeypatch.setattr(sys, f"base_{prefix}", base)

            path = run(["sh", "-c", "echo $PATH"], warm=0).stdout

            assert path.startswith(f"{environment}/bin:{base}/bin:"), path

    def test_missing_command_is_127(self, run):
        """A program that is not there ends with 127 and says so."""
        report = run(["/no/such/program"])

        assert (report.verdict, report.exit_code) == ("RUNTIME_ERROR", 127)
        assert "/no/such/program" in report.stderr and "No such file" in report.stderr

    def test_command_that_cannot_be_executed_is_126(self, run):
        """A file without the execute bit ends with 126."""
        report = run(["/etc/passwd"])

        assert report.exit_code == 126
        assert "/etc/passwd" in report.stderr

    def test_executed_program_has_default_signals(self, run):
        """SIGPIPE ends an executed program: CPython's ignoring it is not passed on, and nothing is blocked."""
        report = run(["sh", "-c", "grep -E 'SigIgn|SigBlk' /proc/self/status"])

        assert [line.split()[1] for line in report.stdout.splitlines()] == ["0" * 16, "0" * 16]

    def test_exit_code_of_a_command_is_its_own(self, run):
        """Whatever a command returns is the exit code."""
        assert run(["sh", "-c", "exit 42"]).exit_code == 42

    def test_stdin_is_empty(self, run):
        """Nothing of the caller's standard input can be read: it is at its end."""
        assert run("import sys; print(repr(sys.stdin.read()))").stdout == "''\n"

    def test_argv_of_a_cell_is_one_word(self, inside):
        """A cell has no arguments, and sees nothing of the runtime's own."""
        argv = inside("import sys; answer(sys.argv)")

        assert len(argv) == 1
        assert "container_magic" not in argv[0]


class TestEnvironment:
    """Variables by allow-list."""

    def test_callers_variables_are_not_inside(self, inside, monkeypatch):
        """A token in the caller's environment is not in the container's, wherever one looks for it."""
        monkeypatch.setenv("SECRET_TOKEN", "hunter2-very-secret")
        found = inside(
            """
            import os, glob
            seen = dict(os.environ)
            everywhere = b"".join(open(p, "rb").read() for p in glob.glob("/proc/self/environ"))
            answer([seen, "hunter2" in everywhere.decode("latin-1")])
            """
        )

        assert found[1] is False
        assert set(found[0]) <= {"PATH", "HOME", "LANG", "PYTHONUNBUFFERED", "PIP_ROOT_USER_ACTION", "TZ"}

    def test_callers_variables_are_not_in_the_zygote(self, client_process, monkeypatch):
        """A variable of a client reaches neither its zygote nor a supervisor, in environment, arguments or memory."""
        monkeypatch.setenv("EARLY_SECRET", "early-hunter2")
        client = client_process(
            """
            import os, container_magic as cm
            from container_magic.events import Created
            from container_magic.runtime import client

            def memory(pid):
                with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as mem:
                    for line in maps:
                        where, rights = line.split()[:2]
                        if rights.startswith("rw"):
                            start, end = (int(x, 16) for x in where.split("-"))
                            mem.seek(start)
                            yield mem.read(end - start)

            def places(pid):
                yield open(f"/proc/{pid}/environ", "rb").read()
                yield open(f"/proc/{pid}/cmdline", "rb").read()
                if pid == client._zygotes[()].process.pid:
                    yield from memory(pid)

            os.environ["LATE_SECRET"] = "late-hunter2"
            for event in cm.stream("import time; time.sleep(0.5)", mem="200M"):
                if isinstance(event, Created):
                    for pid in (client._zygotes[()].process.pid, event.supervisor_pid, event.pid):
                        print(any(b"hunter2" in text for text in places(pid)))
            """
        )
        output, complaints = client.communicate(timeout=60)

        assert output.split() == ["False"] * 3, complaints

    def test_env_option_sets_and_passes_on(self, inside, monkeypatch):
        """-e NAME=VALUE sets, -e NAME takes the caller's, an absent one is not set."""
        monkeypatch.setenv("FROM_CALLER", "given on")
        env = inside(
            "import os; answer(dict(os.environ))",
            env=["A=1", "SPACE=x y=z", "UNI=ü€", "FROM_CALLER", "NOT_THERE_AT_ALL"],
        )

        assert (env["A"], env["SPACE"], env["UNI"], env["FROM_CALLER"]) == ("1", "x y=z", "ü€", "given on")
        assert "NOT_THERE_AT_ALL" not in env

    def test_env_may_be_a_dict(self, inside):
        """From Python the variables may come as a dict."""
        assert inside("import os; answer(os.environ['A'])", env={"A": "1"}) == "1"

    def test_env_overrides_the_defaults(self, inside):
        """HOME and the like can be set."""
        assert inside("import os; answer(os.environ['HOME'])", env=["HOME=/tmp"]) == "/tmp"

    def test_env_reaches_executed_programs(self, run):
        """A command and a shell see the same variables."""
        assert run(["sh", "-c", "echo $A"], env=["A=1"]).stdout == "1\n"

    def test_env_file(self, inside, tmp_path):
        """Comments and empty lines are skipped; --env goes before the file."""
        file = tmp_path / "vars.env"
        file.write_text("# comment\n\nA=file\nB=two words\nC=\n")
        env = inside("import os; answer(dict(os.environ))", env_file=str(file), env=["A=option"])

        assert (env["A"], env["B"], env["C"]) == ("option", "two words", "")


class TestProcess:
    """Working directory, user, host name, limits."""

    def test_default_working_directory_is_home(self, inside):
        """Code starts in the container's own home, with nothing in it but the way to an interpreter that lies below."""
        cwd, home, entries = inside("import os; answer([os.getcwd(), os.environ['HOME'], os.listdir('.')])")

        way = {part for prefix in (sys.prefix, sys.base_prefix) for part in Path(prefix).parts}
        assert cwd == home
        assert set(entries) <= way

    def test_workdir_is_made_and_entered(self, inside):
        """-w makes a directory that is missing."""
        assert inside("import os; answer(os.getcwd())", workdir="/work/deep er") == "/work/deep er"

    def test_hostname(self, inside):
        """--hostname is what the code sees, and it resolves."""
        name, resolved = inside(
            "import socket; answer([socket.gethostname(), socket.gethostbyname('grader')])", hostname="grader"
        )

        assert (name, resolved) == ("grader", "127.0.0.1")

    def test_default_hostname_is_the_containers(self, inside):
        """Without --hostname the host's own name is not given away."""
        assert inside("import socket; answer(socket.gethostname())") != os.uname().nodename

    @pytest.mark.root
    @pytest.mark.parametrize(
        ("user", "ids"),
        [
            ("1000", [1000, 0]),
            ("1000:1001", [1000, 1001]),
            ("nobody", [65534, 65534]),
            ("nobody:root", [65534, 0]),
            ("12345:54321", [12345, 54321]),
            ("root", [0, 0]),
        ],
    )
    def test_user(self, inside, user, ids):
        """-u by number or name, looked up inside; no supplementary group remains."""
        found = inside("import os; answer([os.getuid(), os.getgid(), os.getgroups()])", user=user)

        assert found[:2] == ids or (user == "1000" and found[:2] == [1000, 1000])
        assert set(found[2]) <= {found[1]}

    @pytest.mark.root
    def test_ordinary_user_cannot_write_the_system(self, inside):
        """Another user than the container's root may not touch root's files, and has /tmp."""
        found = inside(
            "answer([error_of(open, '/etc/x', 'w'), error_of(open, '/usr/x', 'w'), error_of(open, '/tmp/x', 'w')])",
            user="1000",
        )

        assert found == ["EACCES", "EACCES", None]

    def test_ulimit(self, inside):
        """--ulimit sets soft and hard limits."""
        found = inside(
            "import resource as r; answer([r.getrlimit(r.RLIMIT_NOFILE), r.getrlimit(r.RLIMIT_FSIZE)])",
            ulimit=["nofile=100:200", "fsize=1048576"],
        )

        assert found == [[100, 200], [1048576, 1048576]]

    @pytest.mark.parametrize("warm", [0, 1])
    @pytest.mark.parametrize("limit", ["nofile=3", "nofile=7", "data=0"])
    def test_ulimit_is_the_codes_own(self, run, limit, warm):
        """It holds for the code and for nothing that comes before it, however little it leaves."""
        report = run("print('here')", ulimit=limit, warm=warm)

        assert (report.verdict, report.stdout, report.stderr) == ("OK", "here\n", "")

    def test_ulimit_of_a_command(self, run):
        """It has what it has been given, and fails in its own words where that is not enough."""
        reports = [run(["cat", "/dev/null"], ulimit=f"nofile={number}") for number in (3, 6)]

        assert [report.exit_code for report in reports] == [127, 0]
        assert "cannot open shared object file" in reports[0].stderr

    def test_limits_are_in_the_report(self, run):
        """What is enforced stands in the report with the file or mechanism that holds it."""
        report = run("pass", mem="200M", pids=50, timeout="9s", cpu_time="5s", max_output="1M", ulimit="nofile=99")

        limits = {limit.name: limit for limit in report.limits}
        assert limits["memory"].value == 200 * 2**20
        assert limits["pids"].value == 50
        assert (limits["timeout"].value, limits["cpu_time"].value) == (9, 5)
        assert limits["max_output"].value == 2**20
        assert limits["ulimit nofile"].value == 99
        assert all(limit.by for limit in report.limits)
        assert report.usage.memory_limit_bytes == 200 * 2**20

    def test_container_ids_are_long_and_differ(self, run):
        """Every container has an id of its own, 64 hexadecimal digits as Docker's."""
        ids = [run("pass").container_id for _ in range(2)]

        assert ids[0] != ids[1]
        assert all(len(bytes.fromhex(text)) == 32 for text in ids)


class TestFiles:
    """Volumes, mounts, tmpfs, read-only."""

    def test_volume_is_writable_and_the_host_sees_it(self, run, tmp_path):
        """-v SRC:DST: what is written inside is there after, and belongs to the caller."""
        report = run("open('/out/result.txt', 'w').write('done')", volume=f"{tmp_path}:/out")

        assert report.ok, report.stderr
        assert (tmp_path / "result.txt").read_text() == "done"
        assert (tmp_path / "result.txt").stat().st_uid == os.geteuid()

    def test_read_only_volume_cannot_be_written(self, inside, tmp_path):
        """-v SRC:DST:ro: reading works, writing and remounting do not."""
        (tmp_path / "in.txt").write_text("data")
        found = inside(
            """
            import os
            answer([open('/in/in.txt').read(), error_of(open, '/in/in.txt', 'w'), error_of(open, '/in/new', 'w'),
                    error_of(os.unlink, '/in/in.txt'), error_of(os.mkdir, '/in/d')])
            """,
            volume=f"{tmp_path}:/in:ro",
        )

        assert found == ["data", "EROFS", "EROFS", "EROFS", "EROFS"]
        assert (tmp_path / "in.txt").read_text() == "data"

    def test_bare_path_is_read_only_at_the_same_place(self, inside, tmp_path):
        """-v PATH mounts it at PATH, read-only."""
        (tmp_path / "in.txt").write_text("data")
        found = inside(
            f"answer([open('{tmp_path}/in.txt').read(), error_of(open, '{tmp_path}/new', 'w')])", volume=str(tmp_path)
        )

        assert found == ["data", "EROFS"]

    def test_single_file(self, inside, tmp_path):
        """A file can be mounted alone; its neighbours stay outside."""
        (tmp_path / "one").write_text("1")
        (tmp_path / "two").write_text("2")
        found = inside(
            "import os; answer([open('/data/one').read(), os.listdir('/data')])", volume=f"{tmp_path}/one:/data/one:ro"
        )

        assert found == ["1", ["one"]]

    def test_nested_mounts_in_any_order(self, inside, tmp_path):
        """A mount below another is visible whatever was named first."""
        for name in ("outer", "inner"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "name").write_text(name)
        (tmp_path / "outer" / "in").mkdir()
        found = inside(
            "answer([open('/d/name').read(), open('/d/in/name').read()])",
            volume=[f"{tmp_path}/inner:/d/in:ro", f"{tmp_path}/outer:/d:ro"],
        )

        assert found == ["outer", "inner"]

    def test_spaces_and_unicode_in_names(self, inside, tmp_path):
        """Names are bytes: blanks, umlauts, commas and backslashes arrive."""
        source = tmp_path / "my dätä, v1\\2"
        source.mkdir()
        (source / "fïle name").write_text("ü")
        found = inside(
            "import os; answer([os.listdir('/mnt/zi el/ö'), open('/mnt/zi el/ö/fïle name').read()])",
            volume=f"{source}:/mnt/zi el/ö:ro",
        )

        assert found == [["fïle name"], "ü"]

    def test_relative_source(self, inside, tmp_path, monkeypatch):
        """./NAME is the caller's directory."""
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "x").write_text("1")
        monkeypatch.chdir(tmp_path)

        assert inside("answer(open('/d/x').read())", volume="./data:/d:ro") == "1"

    def test_symlink_destination_stays_inside(self, inside, tmp_path):
        """A mounted tree with a link to the host's secret leads to the container's file of that name, or nowhere."""
        secret = tmp_path / "secret"
        secret.write_text("hunter2")
        shared = tmp_path / "shared"
        shared.mkdir()
        (shared / "link").symlink_to(secret)
        found = inside("answer(error_of(open, '/shared/link'))", volume=f"{shared}:/shared")

        assert found == "ENOENT"

    def test_mount_option_syntax(self, inside, tmp_path):
        """--mount type=bind and type=tmpfs as in Docker, aliases included."""
        (tmp_path / "x").write_text("1")
        found = inside(
            """
            import os
            size = os.statvfs('/scratch').f_blocks * os.statvfs('/scratch').f_frsize
            answer([open('/data/x').read(), error_of(open, '/data/y', 'w'), size, oct(os.stat('/scratch').st_mode)])
            """,
            mount=[
                f"type=bind,src={tmp_path},dst=/data,readonly",
                "type=tmpfs,dst=/scratch,tmpfs-size=4M,tmpfs-mode=700",
            ],
        )

        assert found == ["1", "EROFS", 4 * 2**20, "0o40700"]

    def test_tmpfs_option(self, inside):
        """--tmpfs is empty, writable, of the size that was asked."""
        found = inside(
            """
            import os
            def fill():
                with open('/scratch/big', 'wb') as f:
                    for _ in range(8): f.write(bytes(1 << 20))
            answer([os.listdir('/scratch'), error_of(fill), oct(os.stat('/scratch').st_mode)])
            """,
            tmpfs="/scratch:size=4M",
        )

        assert found == [[], "ENOSPC", "0o41777"]

    def test_read_only_root(self, inside):
        """--read-only: no place of the root file system can be written; a tmpfs and a volume can."""
        found = inside(
            """
            import sys
            places = ['/x', '/etc/x', '/tmp/x', '/root/x', '/usr/x', '/var/tmp/x', '/run/x', sys.prefix + '/x']
            answer([sorted({error_of(open, place, 'w') for place in places}), error_of(open, '/scratch/x', 'w')])
            """,
            read_only=True,
            tmpfs="/scratch",
        )

        assert found == [["EROFS"], None]

    def test_read_only_root_still_runs_python(self, run):
        """Printing, importing and threads need no writable root."""
        report = run(
            "import threading, json; t = threading.Thread(target=print, args=(1,)); t.start(); t.join()", read_only=True
        )

        assert (report.stdout, report.exit_code) == ("1\n", 0)

    def test_writes_vanish_with_the_container(self, inside):
        """What one run leaves in its root the next does not see, and the host never."""
        place = "/var/tmp/container_magic-test-leftover"
        inside(f"open({place!r}, 'w').write('x'); answer(1)")

        assert inside(f"import os; answer(os.path.exists({place!r}))") is False
        assert not os.path.exists(place)


class TestPlan:
    """Dry run, best effort, profiles."""

    def test_dry_run_starts_nothing(self):
        """The plan is described; no container is made (nothing_left sees to the rest)."""
        lines = dry_run(from_keywords({"mem": "200M", "net": "none", "volume": "/usr:/u:ro"}).spec).describe()

        text = "\n".join(lines)
        assert "namespaces: user, mount, pid" in text and "network" in text
        assert "bind of /usr on /u ro" in text
        assert "seccomp" in text

    @pytest.mark.root
    @pytest.mark.cgroup_v1
    def test_limit_that_cannot_be_enforced_is_an_error_with_a_remedy(self, run):
        """--blkio-weight without an I/O scheduler that knows weights: refused before anything starts."""
        self._skip_where_weights_work()
        with pytest.raises(cm.HostError) as caught:
            run("print('never')", blkio_weight=500)

        assert "blkio-weight" in caught.value.message and "500" in caught.value.message
        assert "best-effort" in caught.value.hint

    @pytest.mark.root
    @pytest.mark.cgroup_v1
    def test_best_effort_records_the_downgrade(self, run):
        """With --best-effort the code runs and the report says what was not enforced and why."""
        self._skip_where_weights_work()
        report = run("print('ran')", blkio_weight=500, best_effort=True)

        assert report.stdout == "ran\n"
        (downgrade,) = report.downgrades
        assert downgrade.name == "blkio_weight"
        assert "500" in downgrade.asked and downgrade.reason
        assert all(limit.name != "blkio_weight" for limit in report.limits)

    @staticmethod
    def _skip_where_weights_work() -> None:
        spec = from_keywords({"blkio_weight": 500, "best_effort": True}).spec
        if not dry_run(spec).downgrades:
            pytest.skip("this host can enforce --blkio-weight")

    def test_profile_sets_limits_and_options_override_it(self, run):
        """--profile grade is a set of limits; what is given beside it wins."""
        report = cm.run("pass", profile="grade", mem="300M")

        limits = {limit.name: limit.value for limit in report.limits}
        assert limits["memory"] == 300 * 2**20
        assert (limits["timeout"], limits["pids"], limits["max_output"]) == (10, 64, 2**20)

    def test_strict_profile_is_read_only(self):
        """--profile strict has a read-only root."""
        report = cm.run("open('/tmp/x', 'w')", profile="strict")

        assert report.error.ename == "OSError"


class TestStream:
    """The contract of the events."""

    def _events(self, source, **options):
        return list(cm.stream(source, mem="200M", timeout="30s", **options))

    @pytest.mark.parametrize(
        "source",
        ["print(1)", "1/0", "import os; os.kill(os.getpid(), 9)", "import sys; sys.exit(3)", ["/no/such"], ["true"]],
        ids=str,
    )
    def test_order_of_events(self, source):
        """Created first and once; Started once with exactly one Exited after it; Deleted last; no Failed."""
        events = self._events(source)

        kinds = [type(event) for event in events]
        assert kinds[0] is Created and kinds.count(Created) == 1
        assert kinds[1] is Started and kinds.count(Started) == 1
        assert kinds.count(Exited) == 1
        assert kinds[-1] is Deleted and kinds.count(Deleted) == 1
        assert Failed not in kinds
        assert all(1 < number < kinds.index(Exited) for number, kind in enumerate(kinds) if kind is Output)

    def test_created_says_who_is_who(self, live):
        """Created names init and supervisor as the host sees them; init is a child of the supervisor."""
        running = live("import time; time.sleep(5)")

        status = Path(f"/proc/{running.created.pid}/status").read_text()
        assert f"PPid:\t{running.created.supervisor_pid}\n" in status
        assert running.created.limits

    def test_nothing_starts_before_the_first_event_is_asked_for(self):
        """A stream that nobody reads has started nothing."""
        cm.stream("print(1)").close()

    def test_closing_the_stream_ends_the_container(self, live):
        """When close() returns the container is gone: no process inside, no state."""
        running = live("import time\nwhile True: time.sleep(0.1)")

        running.iterator.close()

        assert not os.path.exists(f"/proc/{running.created.pid}")
        assert not (Path(runtime_directory()) / running.created.container_id).exists()

    def test_stream_refuses_bad_options_at_once(self):
        """An option that makes no sense is an error of the call, not of the first event."""
        with pytest.raises(cm.OptionError):
            cm.stream("print(1)", mem="banana")

    def test_report_is_json_and_back(self, run):
        """The report of a real run survives a trip through JSON."""
        report = run("print('x'); 1/0")

        assert cm.RunReport.from_dict(json.loads(report.to_json())) == report

    def test_startup_and_wall_are_measured(self, run):
        """How long it took to start, and how long the code ran."""
        report = run("import time; time.sleep(0.3)", warm=0)

        assert 0.3 <= report.usage.wall_seconds < 5
        assert 0 < report.usage.startup_seconds < 5
        assert report.start == "cold"
