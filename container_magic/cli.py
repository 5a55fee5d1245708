"""``contain``: parse, call a verb, show what it gives; no other logic, and nothing of IPython.

Exit codes are Docker's (https://docs.docker.com/reference/cli/docker/container/run/#exit-status) with 124 for a time
limit, as timeout(1) has it.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from container_magic.deferred import dataclass
from container_magic.errors import ContainError, InternalError, NotFoundError, OptionError
from container_magic.process import launch
from container_magic.process.shells import KERNEL_SHELL
from container_magic.rootfs.marker import is_inside
from container_magic.standard_streams import is_open, stdin_for, take_standard_numbers, write_all

if TYPE_CHECKING:
    from container_magic.display.live import Screen
    from container_magic.events import Output
    from container_magic.options import ParsedLine, RunOptions
    from container_magic.report import RunReport
    from container_magic.spec import ContainerSpec
    from container_magic.verbs.run import RunRequest

EXIT_SELF_TEST_FAILED = 1
EXIT_TIME_LIMIT = 124
EXIT_FAILED = 125
EXIT_CANNOT_INVOKE = 126
EXIT_NOT_FOUND = 127
EXIT_INTERRUPTED = 130
EXIT_OOM_KILLED = 137
EXIT_SIGPIPE = 141
_MOST_COLUMNS = 122

_VERSION_HELP = "usage: contain version\n\nShow the version.\n"


_COMPLETION_HELP = """
eval "$(contain --completion bash)" makes Tab complete it in this shell; zsh and fish likewise.
"""


class CannotInvokeError(ContainError):
    """The file that was named exists and cannot be read."""


@dataclass(frozen=True, kw_only=True)
class Verb:
    """One word after ``contain``: what it does in a line, and the function that takes its arguments."""

    summary: str
    main: Callable[[Sequence[str]], int]
    words: tuple[str, ...] = ()
    """Options of the verb, for completion; those of ``run`` come from the option table."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``contain`` with ``argv`` (default: the process's own) and return its exit code."""
    if argv is None and "_ARGCOMPLETE" in os.environ:  # the shell asks: somebody pressed Tab
        _answer_shell()
    if argv is None:
        take_standard_numbers()
        _begin_early(sys.argv[1:])
    try:
        return _dispatch(sys.argv[1:] if argv is None else argv)
    except ContainError as error:
        return _complain(error)
    except BrokenPipeError:
        return EXIT_SIGPIPE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    finally:
        launch.end_early()
        if argv is None:
            gc.freeze()  # at its end the interpreter would look through all of it several times


def _begin_early(words: Sequence[str]) -> None:
    """Start what a container needs while this process, which is ours and has no thread yet, still imports."""
    preload = (KERNEL_SHELL,) if words[:2] == ["kernel", "start"] else () if words[:1] == ["run"] else None
    if preload is not None:
        if not is_inside():
            launch.begin_early(preload)
        gc.disable()  # what is imported now leaves no garbage


def _dispatch(words: Sequence[str]) -> int:
    if not words or words[0] in ("--help", "-h", "help"):
        return _say(_help())
    if words[0] == "--version":
        return _version(words[1:])
    if words[0].partition("=")[0] == "--completion":
        return _completion(words)
    if words[0] not in VERBS:
        raise OptionError(_unknown_verb(words[0]))
    if words[0] != "run":
        _hear_interrupts()
    return VERBS[words[0]].main(words[1:])


def _hear_interrupts() -> None:
    """Have Ctrl-C raise from here on, where there is something to put in order; before it ends this process."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _completion(words: Sequence[str]) -> int:
    from container_magic.shell_completion import shell_script

    shells = [words[0].partition("=")[2]] if "=" in words[0] else list(words[1:2])
    _refuse_words(words[1 if "=" in words[0] else 2 :])
    return _say(shell_script(shells[0] if shells else ""))


def _answer_shell() -> None:
    from container_magic.kernel.command import completions
    from container_magic.shell_completion import answer
    from container_magic.verbs.diff import known_ids
    from container_magic.verbs.logs import kept_ids

    with contextlib.suppress(ContainError):  # without argcomplete there is nothing to offer
        names = {"logs": kept_ids, "diff": known_ids}
        answer({name: verb.words for name, verb in VERBS.items()}, names, completions())


def _help() -> str:
    verbs = "\n".join(f"  {name:<10}{verb.summary}" for name, verb in VERBS.items())
    return f"usage: contain VERB [ARG...]\n\n{verbs}\n\ncontain VERB --help says more.\n{_COMPLETION_HELP}"


def _unknown_verb(word: str) -> str:
    from container_magic.options.command_line import shorten
    from container_magic.options.near import nearest

    kind = "option" if word.startswith("-") else "verb"
    near = nearest(word, [*VERBS, "--help", "--version", "--completion"])
    if not near and kind == "verb" and os.path.exists(word):
        near = f"run {word}"
    more = f"did you mean contain {near}?" if near else f"accepted: {', '.join(VERBS)}, --help, --version"
    return f"unknown {kind} {shorten(word)}; {more}"


def _version(words: Sequence[str]) -> int:
    from container_magic import __version__

    if "--help" in words:
        return _say(_VERSION_HELP)
    _refuse_words(words)
    return _say(f"contain {__version__}\n")


def _refuse_words(words: Sequence[str]) -> None:
    if words:
        raise OptionError(f"unexpected argument {words[0]!r}; accepted: no argument")


def _doctor(words: Sequence[str]) -> int:
    from container_magic.verbs.doctor_words import HELP, parse_words

    if "--help" in words:
        return _say(HELP)
    asked = parse_words(words)
    if asked.self_test:
        return _self_test(json_format=asked.json_format)
    from container_magic.display.tables import checks_json, checks_text
    from container_magic.verbs.doctor import doctor

    return _say((checks_json(doctor()) if asked.json_format else checks_text(doctor())) + "\n")


def _logs(words: Sequence[str]) -> int:
    from container_magic.display.streams import StreamDecoder
    from container_magic.events import Output
    from container_magic.verbs.logs import HELP, find_log, parse_words, read

    if "--help" in words:
        return _say(HELP)
    name, raw = parse_words(words)
    decoder = StreamDecoder()
    for data in read(find_log(name)):
        write_all(1, data if raw else decoder.feed(Output(stream="stdout", data=data)).encode())
    return _say("" if raw else decoder.finish())


def _diff(words: Sequence[str]) -> int:
    from container_magic.display.tables import changes_json, changes_text
    from container_magic.verbs.diff import HELP, diff, parse_words

    if "--help" in words:
        return _say(HELP)
    name, json_format = parse_words(words)
    text = (changes_json if json_format else changes_text)(diff(name))
    return _say(f"{text}\n" if text else "")


def _self_test(*, json_format: bool) -> int:
    from container_magic.verbs.self_test import outcomes_json, self_test

    outcomes = []
    for outcome in self_test():
        outcomes.append(outcome)
        if not json_format:
            _say(outcome.line() + "\n")
    if json_format:
        _say(outcomes_json(outcomes) + "\n")
    return EXIT_SELF_TEST_FAILED if any(outcome.result == "FAILED" for outcome in outcomes) else 0


def _kernel(words: Sequence[str]) -> int:
    from container_magic.kernel.command import kernel, start

    return start(words[1:]) if list(words[:1]) == ["start"] and "--help" not in words else _say(kernel(words))


def _run(words: Sequence[str]) -> int:
    from container_magic.options import from_keywords, help_text, parse_line
    from container_magic.options.help import RUN_HELP

    line = parse_line(words, "cli")
    if line.help:
        return _say(RUN_HELP.format(options=help_text("cli")))
    options = from_keywords(line.texts, front="cli")
    spec, code = _program(options, line)
    if options.dry_run:
        from container_magic.verbs.run import dry_run

        return _say("".join(f"{text}\n" for text in dry_run(spec).describe()))
    _check_report_file(options.report_file)
    _prepare_to_show(options)
    request = _request(replace(options, spec=spec), code, code_is_stdin=line.rest[:1] == ("-",))
    report = _stream(request, _screen(options), quiet=options.quiet)
    _show(report, options)
    return exit_code(report)


def _program(options: RunOptions, line: ParsedLine) -> tuple[ContainerSpec, bytes | None]:
    from container_magic.options import for_code, for_command

    if options.code is not None:
        return for_code(options.spec, "-c", line.rest), os.fsencode(options.code)
    if line.dashes:
        return for_command(options.spec, line.rest), None
    if not line.rest:
        raise OptionError("nothing to run; accepted: FILE.py, -c CODE or -- COMMAND ARG...")
    name, *args = line.rest
    spec = for_code(options.spec, name, args)
    return spec, _read(name)


def _read(name: str) -> bytes:
    try:
        with open(0 if name == "-" else name, "rb", closefd=name != "-") as file:
            return file.read()
    except FileNotFoundError:
        hint = "" if os.sep in name or "." in name else f"a command follows two dashes: contain run -- {name}"
        raise NotFoundError(f"cannot run {name}: no such file", hint=hint) from None
    except OSError as error:
        raise CannotInvokeError(f"cannot read {name}: {error.strerror}") from None


def _request(options: RunOptions, code: bytes | None, *, code_is_stdin: bool) -> RunRequest:
    from container_magic.verbs.run import RunRequest

    spec = options.spec
    stdin = stdin_for(spec, code_is_stdin=code_is_stdin) if options.stdin is None else options.stdin
    return RunRequest(spec=spec, code=code, stdin=stdin, out_files=options.out_files, once=True)


def _screen(options: RunOptions) -> Screen | None:
    """Return the line that tells how a long run is getting on; None where there is no terminal for it."""
    if options.quiet or options.report == "none" or not is_open(2) or not os.isatty(2):
        return None
    from container_magic.display.live import Screen

    return Screen(2, write_all) if os.environ.get("TERM", "dumb") != "dumb" else None


def _stream(request: RunRequest, screen: Screen | None, *, quiet: bool) -> RunReport:
    from container_magic.events import Output, until_exited
    from container_magic.folding import ReportBuilder
    from container_magic.verbs.run import open_run

    builder = ReportBuilder()
    _hear_interrupts()
    with open_run(request) as run:
        gc.freeze()
        gc.enable()  # from here on it may take hours
        if screen is not None:
            run.when_idle(screen.every_seconds, screen.tick)
        try:
            for event in until_exited(run):
                if isinstance(event, Output):
                    _pass_on(event, screen, quiet=quiet)
                builder.add(event)
                if screen is not None:
                    screen.add(event)
        finally:
            if screen is not None:
                screen.erase()
    return builder.report()


def _pass_on(output: Output, screen: Screen | None, *, quiet: bool) -> None:
    from container_magic.report import dropped_marker

    fd = 1 if output.stream == "stdout" else 2
    if screen is not None and os.isatty(fd):
        screen.make_way(output.data)
    if output.dropped_bytes and not quiet:
        write_all(2, dropped_marker(output.dropped_bytes).encode())  # never into stdout, which may be data
    write_all(fd, output.data)


def exit_code(report: RunReport) -> int:
    """Return what ``contain run`` exits with for ``report``."""
    special = {
        "INTERNAL_ERROR": EXIT_FAILED,
        "TIME_LIMIT": EXIT_TIME_LIMIT,
        "MEMORY_LIMIT": EXIT_OOM_KILLED,
        "INTERRUPTED": EXIT_INTERRUPTED,
    }
    if report.verdict in special:
        return special[report.verdict]
    if report.exit_signal is not None:
        return 128 + report.exit_signal
    return EXIT_FAILED if report.exit_code is None else report.exit_code


def _check_report_file(path: str | None) -> None:
    """Refuse now what could not be written after the run."""
    if path is None:
        return
    folder = os.path.dirname(path) or "."
    writable = os.access(path if os.path.exists(path) else folder, os.W_OK)
    if os.path.isdir(path) or not os.path.isdir(folder) or not writable:
        raise OptionError(f"--report-file {path!r}: cannot be written; accepted: a file in a directory that exists")


def _prepare_to_show(options: RunOptions) -> None:
    """Load what the report is shown with while the zygote starts, instead of when the user waits for nothing else."""
    if not options.quiet and options.report != "none":
        importlib.import_module("container_magic.display.text")


def _show(report: RunReport, options: RunOptions) -> None:
    if options.report_file is not None:
        try:
            with open(options.report_file, "w", encoding="utf-8") as file:
                file.write(report.to_json() + "\n")
        except OSError as error:
            raise InternalError(f"cannot write the report to {options.report_file}: {error.strerror}") from None
    if options.quiet or options.report == "none":
        if report.verdict == "INTERNAL_ERROR" and report.error is not None:  # that is no report, it is our own failure
            _say(f"contain: {report.error.evalue}\n", fd=2)
        return
    from container_magic.display.text import report_full, report_line

    shown = report_line(report) if options.report == "line" else report_full(report, **_terminal())
    _say(shown.rstrip("\n") + "\n", fd=2)


def _terminal() -> dict[str, Any]:
    """Return what pictures have to know of standard error: how wide it is, and whether it has more than ASCII."""
    import shutil

    encoding = getattr(sys.stderr, "encoding", None) or "ascii"  # sys.stderr is None where it is closed
    try:
        "█".encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return {"columns": min(shutil.get_terminal_size().columns, _MOST_COLUMNS), "ascii_only": True}
    return {"columns": min(shutil.get_terminal_size().columns, _MOST_COLUMNS)}


def _say(text: str, fd: int = 1) -> int:
    write_all(fd, text.encode("utf-8", "replace"))
    return 0


def _complain(error: ContainError) -> int:
    hint = f"hint: {error.hint}\n" if error.hint else ""
    with contextlib.suppress(OSError):  # standard error may be closed: the exit code still says it
        _say(f"contain: {error.message}\n{hint}", fd=2)
    if isinstance(error, NotFoundError):
        return EXIT_NOT_FOUND
    return EXIT_CANNOT_INVOKE if isinstance(error, CannotInvokeError) else EXIT_FAILED


VERBS: dict[str, Verb] = {
    "run": Verb(summary="run a file, code or a command in a container", main=_run),
    "doctor": Verb(summary="show what this host can enforce", main=_doctor, words=("--self-test", "--format")),
    "kernel": Verb(summary="make kernels that run whole notebooks in containers", main=_kernel),
    "logs": Verb(summary="show the whole output of a run that wrote too much", main=_logs, words=("--raw",)),
    "diff": Verb(summary="show what a session or kernel changed in its files", main=_diff, words=("--format",)),
    "version": Verb(summary="show the version", main=_version),
}
