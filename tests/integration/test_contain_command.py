"""``contain`` as a process: words in; exit code, bytes and files out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest


@pytest.fixture
def program(tmp_path):
    """Return a function that writes a program to a file and returns its path."""

    def program(source, name="program.py"):
        path = tmp_path / name
        path.write_text(source)
        return path

    return program


class TestPrograms:
    """FILE, -c, - and -- COMMAND."""

    def test_file_with_arguments(self, contain, program):
        """Contain run FILE ARG... runs the file with sys.argv."""
        path = program("import sys; print(sys.argv[1:], __name__)")
        done = contain("run", "--quiet", path, "a b", "-x", "--mem")

        assert done.stdout == b"['a b', '-x', '--mem'] __main__\n", done.stderr
        assert done.returncode == 0

    def test_file_is_named_in_the_traceback(self, contain, program):
        """A traceback names the file and shows its lines."""
        done = contain("run", "--quiet", program("def f():\n    raise ValueError('boom')\nf()\n"))

        assert done.returncode == 1
        assert b"program.py" in done.stderr and b"line 2" in done.stderr and b"raise ValueError('boom')" in done.stderr

    def test_code_with_arguments(self, contain):
        """Contain run -c CODE ARG... as python -c."""
        assert contain("run", "--quiet", "-c", "import sys; print(sys.argv)", "x").stdout == b"['-c', 'x']\n"

    def test_code_from_standard_input(self, contain):
        """Contain run - reads the code."""
        assert contain("run", "--quiet", "-", input=b"print('from stdin')").stdout == b"from stdin\n"

    def test_command(self, contain):
        """Contain run -- COMMAND ARG... executes it."""
        done = contain("run", "--quiet", "--", "printf", "%s|", "a b", "--mem")

        assert (done.returncode, done.stdout) == (0, b"a b|--mem|")

    def test_shell_code(self, contain, program):
        """--lang bash FILE runs a script with its arguments."""
        done = contain("run", "--quiet", "--lang", "bash", program("echo $1 $#; exit 3", "script.sh"), "one", "two")

        assert (done.returncode, done.stdout) == (3, b"one 2\n"), done.stderr

    def test_multiprocessing_spawn_of_a_file(self, contain, program):
        """A file that uses spawn under a guard works."""
        path = program(
            "import multiprocessing as mp\n"
            "def f(x): return x * 2\n"
            "if __name__ == '__main__':\n"
            "    with mp.get_context('spawn').Pool(2) as pool: print(pool.map(f, [1, 2]))\n"
        )

        assert contain("run", "--quiet", path).stdout == b"[2, 4]\n"


def interrupted_at_import(tmp_path, module, *words):
    """Run ``contain`` with ``words``; a terminal's Ctrl-C comes when it imports ``module``."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == 'container_magic.{module}':\n"
        "            os.kill(0, signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    return subprocess.run(
        [sys.executable, "-m", "container_magic", *words],
        capture_output=True,
        check=False,
        timeout=30,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        start_new_session=True,
    )


class TestExitCodes:
    """Docker's, and 124."""

    @pytest.mark.parametrize(
        ("words", "code"),
        [
            (["-c", "pass"], 0),
            (["-c", "raise SystemExit(7)"], 7),
            (["-c", "1/0"], 1),
            (["-c", "import os; os.kill(os.getpid(), 15)"], 143),
            (["-c", "import os; os.abort()"], 134),
            (["--timeout", "300ms", "-c", "import time; time.sleep(60)"], 124),
            (["--cpu-time", "300ms", "-c", "while True: pass"], 124),
            (["--mem", "64M", "-c", "x = bytearray(300 << 20)"], 137),
            (["--", "/no/such/command"], 127),
            (["--", "/etc/passwd"], 126),
            (["--", "sh", "-c", "exit 200"], 200),
            (["/no/such/file.py"], 127),
            (["--mem", "banana", "-c", "pass"], 125),
            (["--no-such-option", "-c", "pass"], 125),
            ([], 125),
        ],
        ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else str(value),
    )
    def test_exit_code(self, contain, words, code):
        """The program's own; 124 time; 125 contain; 126 and 127 not executed or not found; 128+N a signal; 137 OOM."""
        assert contain("run", "--quiet", *words).returncode == code

    def test_unreadable_file_is_126(self, contain, tmp_path):
        """A program file that exists and cannot be read."""
        done = contain("run", "--quiet", tmp_path)

        assert done.returncode == 126
        assert done.stderr.count(b"\n") == 1

    @pytest.mark.parametrize(
        ("code", "bounds"),
        [
            ("import time\nprint('ready', end='')\ntime.sleep(60)", (0, 15)),
            (
                "import signal, time\nsignal.signal(2, signal.SIG_IGN)\nprint('ready', end='')\nwhile 1: time.sleep(1)",
                (1.5, 15),
            ),
        ],
        ids=["ends", "ignores"],
    )
    def test_interrupt_is_130(self, code, bounds):
        """SIGINT to contain: the program is interrupted, and killed after two seconds if it ignores that."""
        process = subprocess.Popen(
            [sys.executable, "-m", "container_magic", "run", "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdout.read(5) == b"ready"
        time.sleep(0.2)
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=30)

        assert process.returncode == 130, complaints
        assert bounds[0] <= time.monotonic() - begun < bounds[1]
        assert b"Traceback" not in complaints.replace(b'Traceback (most recent call last):\n  File "<string>"', b"")

    @pytest.mark.parametrize("module", ["cli", "options", "display.text", "verbs.run"])
    def test_interrupt_before_there_is_a_container_ends_contain_without_a_word(self, tmp_path, module):
        """As a program that is not made of a hundred modules: a traceback of imports says nothing to anybody."""
        done = interrupted_at_import(tmp_path, module, "run", "-c", "pass")

        assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"", b"")

    @pytest.mark.parametrize(
        ("module", "words"),
        [("languages.complaint", ("run", "--lang", "bash", "-c", "sleep 60")), ("verbs.doctor", ("doctor",))],
        ids=["a container", "a verb"],
    )
    def test_interrupt_where_there_is_something_to_put_in_order_is_130(self, tmp_path, module, words):
        """A container whose run has not begun to listen, and what a verb is at (nothing_left checks)."""
        done = interrupted_at_import(tmp_path, module, *words)

        assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")

    def test_terminated_contain_leaves_nothing(self):
        """SIGTERM to contain ends the container (nothing_left checks)."""
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "container_magic",
                "run",
                "-c",
                "import time; print('ready', end=''); time.sleep(60)",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert process.stdout.read(5) == b"ready"
        process.terminate()
        process.communicate(timeout=20)

        assert process.returncode in (-signal.SIGTERM, 128 + signal.SIGTERM)


class TestStreams:
    """Standard input, output, error."""

    def test_stdin_is_passed_through(self, contain):
        """The program reads what contain reads, byte for byte."""
        data = bytes(range(256)) * 1000
        done = contain(
            "run",
            "--quiet",
            "-c",
            "import sys; d = sys.stdin.buffer.read(); sys.stdout.buffer.write(d[::-1])",
            input=data,
        )

        assert done.stdout == data[::-1]

    def test_job_in_the_background_runs_and_reads_its_terminal_when_that_is_its_own(self):
        """``contain run x.py &``: who reads its terminal there is stopped (SIGTTIN)."""
        source = """
import os, pty, signal, subprocess, sys, time
pid, master = pty.fork()
if pid == 0:
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # as a shell that hands its terminal over
    words = ["-m", "container_magic", "run", "--quiet", "-c", "print('runs', flush=True); print('has', input())"]
    job = subprocess.Popen([sys.executable, *words], process_group=0)
    time.sleep(1.5)
    print("state", os.waitpid(job.pid, os.WNOHANG | os.WUNTRACED), flush=True)
    os.tcsetpgrp(0, job.pid)
    print("end", job.wait(20), flush=True)
    os._exit(0)
seen, given = b"", False
while b"end" not in seen:
    seen += os.read(master, 1000)
    if b"state" in seen and not given:
        given = os.write(master, b"a line\\n")
print(seen.decode().replace("\\r", ""))
os.waitpid(pid, 0)
"""
        done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=False)

        for line in ("runs", "state (0, 0)", "has a line", "end 0"):
            assert line in done.stdout.splitlines(), (done.stdout, done.stderr)

    def test_stdin_is_given_as_an_option(self, contain, tmp_path):
        """A text or a file takes the place of the caller's own standard input, whatever the file is called."""
        (tmp_path / "in").write_bytes(b"from \xff a file")
        read = ["-c", "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read())"]
        given = [("--stdin", "in"), ("--stdin-file", "in"), ("--stdin", "@in")]
        found = [contain("run", "--quiet", *words, *read, input=b"ours", cwd=tmp_path).stdout for words in given]
        assert found == [b"in", b"from \xff a file", b"@in"]
        assert contain("run", "--quiet", "--stdin", "x", "--", "cat", input=b"ours").stdout == b"x"
        assert contain("run", "--quiet", "--stdin", "x", "-", input=b"print(input())").stdout == b"x\n"

    def test_stdin_of_a_command(self, contain):
        """Commands too."""
        assert contain("run", "--quiet", "--", "tr", "a-z", "A-Z", input=b"hello\n").stdout == b"HELLO\n"

    def test_output_is_raw_bytes(self, contain):
        """NUL and invalid UTF-8 are not touched."""
        done = contain("run", "--quiet", "-c", r"import os; os.write(1, b'a\0\xff\xfe'); os.write(2, b'\x80')")

        assert (done.stdout, done.stderr) == (b"a\0\xff\xfe", b"\x80")

    def test_report_goes_to_stderr(self, contain):
        """One line on standard error; standard output is the program's alone."""
        done = contain("run", "-c", "print(1)")

        assert done.stdout == b"1\n"
        assert done.stderr.count(b"\n") == 1
        assert b"OK" in done.stderr

    def test_full_report(self, contain):
        """--report full shows every figure as text, no escape codes into a pipe."""
        done = contain("run", "--report", "full", "-c", "print(1)")

        assert b"\x1b" not in done.stderr
        assert done.stderr.count(b"\n") > 5

    def test_large_output_through_a_slow_pipe(self):
        """Nothing is lost when the reader is slow."""
        command = [sys.executable, "-m", "container_magic", "run", "--quiet", "-c", "print('x' * 3_000_000)"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            time.sleep(1)
            data = process.stdout.read()

        assert len(data) == 3_000_001

    def test_closed_pipe_ends_the_program(self):
        """``contain run ... | head -1``: contain ends with the reader, quietly, and so does the container."""
        command = f"{sys.executable} -m container_magic run -c \"while True: print('y')\" | head -1"
        done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, timeout=60, check=False)

        assert done.stdout == b"y\n"
        assert done.returncode == 141
        assert b"Traceback" not in done.stderr

    def test_closed_standard_input(self):
        """Contain works where standard input is closed."""
        done = subprocess.run(
            ["bash", "-c", f"{sys.executable} -m container_magic run --quiet -c 'print(1)' <&-"],
            capture_output=True,
            check=False,
        )

        assert (done.stdout, done.returncode) == (b"1\n", 0), done.stderr

    def test_output_cut_is_said_on_stderr(self, contain):
        """What is beyond --max-output is counted on standard error, never written into the data."""
        done = contain("run", "--max-output", "1000", "-c", "print('x' * 5000)")

        assert done.stdout.count(b"x") + 1 <= 1000 and set(done.stdout) <= set(b"x\n")
        assert b"bytes not shown" in done.stderr


class TestReportFile:
    """--report-file."""

    def test_report_is_written(self, contain, tmp_path):
        """The RunReport as JSON."""
        path = tmp_path / "report.json"
        contain("run", "--quiet", "--report-file", path, "-c", "print('hi'); raise SystemExit(3)")
        report = json.loads(path.read_text())

        assert (report["verdict"], report["exit_code"], report["stdout"]) == ("RUNTIME_ERROR", 3, "hi\n")
        assert report["usage"]["wall_seconds"] > 0

    def test_oom_is_in_the_report(self, contain, tmp_path):
        """137 with oom_killed."""
        path = tmp_path / "report.json"
        done = contain("run", "--quiet", "--mem", "64M", "--report-file", path, "-c", "x = bytearray(300 << 20)")

        assert done.returncode == 137
        assert json.loads(path.read_text())["oom_killed"] is True

    def test_report_file_that_cannot_be_written_is_refused_before(self, contain, tmp_path):
        """Nothing runs when its report could not be kept."""
        done = contain("run", "--report-file", tmp_path / "no" / "such", "-c", "print('never')")

        assert (done.returncode, done.stdout) == (125, b"")


class TestErrors:
    """One line, 125, nothing started."""

    @pytest.mark.parametrize(
        "words",
        [
            ["run", "--mem", "banana", "-c", "pass"],
            ["run", "--mem", "1K", "-c", "pass"],
            ["run", "--cpus", "99", "-c", "pass"],
            ["run", "--cpus", "3-1", "-c", "pass"],
            ["run", "--cpuset-cpus", "5000", "-c", "pass"],
            ["run", "--net", "foo", "-c", "pass"],
            ["run", "--bogus", "-c", "pass"],
            ["run", "--timeout", "soon", "-c", "pass"],
            ["run", "--volume", "relative:no", "-c", "pass"],
            ["run", "--user", "a b", "-c", "pass"],
            ["run", "--mem"],
            ["run"],
            ["run", "--"],
            ["nonsense"],
            ["doctor", "--format", "yaml"],
        ],
        ids=" ".join,
    )
    def test_bad_input_is_one_line_and_125(self, contain, words):
        """The option, the value, what is accepted; no traceback."""
        done = contain(*words)
        lines = [line for line in done.stderr.decode().splitlines() if not line.startswith("hint: ")]

        assert (done.returncode, done.stdout) == (125, b"")
        assert len(lines) == 1 and lines[0].startswith("contain: ")

    def test_missing_volume_is_named(self, contain):
        """A path that does not exist is named; exit code 125 or 127, one line."""
        done = contain("run", "-v", "/does-not-exist:/x", "-c", "print('never')")

        assert done.returncode in (125, 127)
        assert b"/does-not-exist" in done.stderr and done.stdout == b""

    def test_unknown_user_is_named(self, contain):
        """A user that the container does not have is named."""
        done = contain("run", "-u", "nosuchuser", "-c", "print('never')")

        assert done.returncode == 125
        assert b"nosuchuser" in done.stderr and b"Traceback" not in done.stderr

    def test_dry_run_prints_and_starts_nothing(self, contain):
        """--dry-run says what would be done."""
        done = contain("run", "--dry-run", "--mem", "200M", "-c", "print('never')")

        assert done.returncode == 0
        assert b"never" not in done.stdout and b"209715200" in done.stdout


class TestDoctor:
    """contain doctor."""

    def test_text(self, contain):
        """A line for each check."""
        done = contain("doctor")

        assert done.returncode == 0
        assert done.stdout.count(b"\n") >= 4
        assert b"Linux" in done.stdout

    def test_json(self, contain):
        """The same as JSON: name, ok, detail, remedy; a remedy wherever something is not ok."""
        done = contain("doctor", "--format", "json")
        checks = json.loads(done.stdout)

        assert len(checks) >= 4
        assert all({"name", "ok", "detail", "remedy"} <= set(check) for check in checks)
        assert all(check["remedy"] for check in checks if check["ok"] is False), checks

    def test_doctor_leaves_the_host_as_it_was(self, contain):
        """Looking changes nothing (nothing_left checks), twice in a row gives the same answers."""
        first, second = (json.loads(contain("doctor", "--format", "json").stdout) for _ in range(2))

        assert [(check["name"], check["ok"]) for check in first] == [(check["name"], check["ok"]) for check in second]


def test_help_names_every_option(contain):
    """Contain run --help comes from the one table."""
    from container_magic.options.table import options_of

    text = contain("run", "--help").stdout.decode()

    assert [option.names[0] for option in options_of("cli") if option.names[0] not in text] == []


def test_installed_command_works(tmp_path):
    """The console script beside the interpreter is there and runs."""
    script = os.path.join(os.path.dirname(sys.executable), "contain")
    if not os.path.exists(script):
        pytest.skip(f"no {script}")
    done = subprocess.run(
        [script, "run", "--quiet", "-c", "print(6*7)"], capture_output=True, check=False, cwd=tmp_path
    )

    assert done.stdout == b"42\n"


class TestOwnZygote:
    """A run from the shell has a zygote of its own, whose boot is a fork of contain."""

    def test_nothing_of_the_caller_reaches_the_zygote(self, tmp_path):
        """Neither variables nor descriptors, also not one above the limit of descriptors."""
        secret = tmp_path / "secret"
        secret.write_text("hidden")
        script = (
            "import os, resource, subprocess, sys\n"
            f"fd = os.open({str(secret)!r}, os.O_RDONLY)\n"
            "for target in (9, 77): os.dup2(fd, target)\n"
            "resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))\n"
            "os.execv(sys.executable, [sys.executable, '-m', 'container_magic', 'run', '--quiet', '-c',"
            " 'import time; print(1, flush=True); time.sleep(60)'])\n"
        )
        environment = {**os.environ, "MY_TOKEN": "hunter2"}
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment) as process:
            try:
                assert process.stdout.readline() == b"1\n"
                with open(f"/proc/{process.pid}/task/{process.pid}/children", encoding="ascii") as file:
                    (zygote,) = file.read().split()
                with open(f"/proc/{zygote}/environ", "rb") as file:
                    assert b"hunter2" not in file.read()
                held = [os.readlink(entry.path) for entry in os.scandir(f"/proc/{zygote}/fd")]
                assert str(secret) not in held
                assert os.getsid(int(zygote)) == int(zygote)
            finally:
                process.kill()

    def test_boot_that_is_not_needed_is_ended(self, contain):
        """An option that is refused leaves nothing (nothing_left checks), whatever boot had begun."""
        for _ in range(5):
            assert contain("run", "--mem", "nonsense", "-c", "1").returncode == 125


def test_environment_that_is_reached_by_a_link(tmp_path):
    """A virtual environment is used where it really is, whatever name it goes by."""
    (tmp_path / "env").symlink_to(sys.prefix)
    words = [str(tmp_path / "env" / "bin" / "python"), "-m", "container_magic", "run", "-c"]
    done = subprocess.run(
        [*words, "import sys, IPython; print(sys.prefix)"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, f"{os.path.realpath(sys.prefix)}\n"), done.stderr
