"""THE option table: magics, command line, Python keywords, traits, help and docs/options.md all come from it.

Spelling and meaning are Docker's wherever Docker has the option
(https://docs.docker.com/reference/cli/docker/container/run/). Where a short word is shown first (``--mem``,
``--net``), Docker's own spelling stands beside it.
"""

from __future__ import annotations

from container_magic.languages import LANGUAGES
from container_magic.options import standard_input, values
from container_magic.options.limits import LIMITS
from container_magic.options.option import Front, Option
from container_magic.options.profiles import PROFILES, profiles_help

NETWORK = "Network"
FILES = "Files"
PROCESS = "Process"
RUN = "The run and its report"

_RUNS: frozenset[Front] = frozenset({"magic", "cli", "api"})
_NOTEBOOK: frozenset[Front] = frozenset({"magic"})
_SHOWN: frozenset[Front] = frozenset({"magic", "cli"})
_COMMAND_LINE: frozenset[Front] = frozenset({"cli"})
_LASTING: frozenset[Front] = frozenset({"magic", "api"})
_KERNEL: frozenset[Front] = frozenset({"kernel"})

OPTIONS: tuple[Option, ...] = (
    *LIMITS,
    Option(
        names=("--net", "--network"),
        metavar="MODE",
        parse=values.choice("none", "host"),
        choices=("none", "host"),
        default="none",
        field="spec.network",
        section=NETWORK,
        help="none: a loopback device and nothing else; host: the network of the host",
        examples=("none", "host"),
    ),
    Option(
        names=("--hostname",),
        metavar="NAME",
        parse=values.hostname,
        field="spec.hostname",
        section=NETWORK,
        help="host name inside (default: the container's id)",
        examples=("grader",),
    ),
    Option(
        names=("--volume", "-v"),
        metavar="SRC:DST[:ro|rw]",
        parse=values.volume,
        repeatable=True,
        field="spec.mounts",
        completes="volume",
        section=FILES,
        help="bind a file or directory of the host, writable unless :ro; PATH alone = read-only at the same place",
        examples=("./data:/data:ro", "~/results:/results", "./data"),
    ),
    Option(
        names=("--mount",),
        metavar="KEY=VALUE,...",
        parse=values.mount,
        repeatable=True,
        field="spec.mounts",
        section=FILES,
        help=(
            "type=bind with source (src), destination (dst, target), readonly (ro); "
            "type=tmpfs with destination, tmpfs-size, tmpfs-mode, readonly"
        ),
        examples=("type=bind,src=./data,dst=/data,readonly", "type=tmpfs,dst=/scratch,tmpfs-size=64M"),
    ),
    Option(
        names=("--tmpfs",),
        metavar="DST[:OPTIONS]",
        parse=values.tmpfs,
        repeatable=True,
        field="spec.mounts",
        section=FILES,
        help="an empty file system in memory; OPTIONS are size=SIZE, mode=OCTAL, ro",
        examples=("/scratch:size=64M,mode=1777",),
    ),
    Option(
        names=("--work",),
        metavar="HOW",
        parse=values.work,
        choices=("none", "ro", "overlay", "copy"),
        default="none",
        field="spec.work",
        section=FILES,
        help=(
            "show the current directory at the same place inside, as the working directory: ro = read-only; overlay = "
            "what is written stays in the container; copy = a copy made before the code starts; none = not at all"
        ),
        examples=("overlay", "ro"),
    ),
    Option(
        names=("--out-file",),
        metavar="GLOB",
        parse=values.file_glob,
        repeatable=True,
        fronts=_RUNS,
        field="out_files",
        section=FILES,
        help=(
            "files to write to the own directory after the run, also after one that failed: relative to the working "
            "directory inside or absolute, ** is any number of directories; at most 1000 files and 1G"
        ),
        examples=("model.bin", "plots/*.png", "out/**/*.csv"),
    ),
    Option(
        names=("--workdir", "-w"),
        metavar="DIR",
        parse=values.workdir,
        field="spec.process.cwd",
        section=FILES,
        help="working directory inside (default: the container's home directory)",
        examples=("/data",),
    ),
    Option(
        names=("--read-only",),
        field="spec.root.readonly",
        section=FILES,
        help="no writable layer: the root file system is read-only",
    ),
    Option(
        names=("--env", "-e"),
        metavar="NAME[=VALUE]",
        parse=values.env,
        repeatable=True,
        field="spec.process.env",
        section=PROCESS,
        help="set a variable; NAME alone takes the caller's value",
        examples=("SEED=1", "LANG"),
    ),
    Option(
        names=("--env-file",),
        metavar="FILE",
        parse=values.env_file,
        repeatable=True,
        field="spec.process.env",
        completes="path",
        section=PROCESS,
        help="variables from a file, one NAME=VALUE or NAME per line, # begins a comment; --env goes before it",
        examples=("job.env",),
    ),
    Option(
        names=("--user", "-u"),
        metavar="USER[:GROUP]",
        parse=values.user,
        field="spec.process.user",
        section=PROCESS,
        help="user and group inside, by number or name (default: the container's root, without any capability)",
        examples=("1000:1000", "nobody"),
    ),
    Option(
        names=("--stdin",),
        metavar="TEXT",
        parse=standard_input.from_text,
        fronts=_RUNS,
        field="stdin",
        section=PROCESS,
        help="what the code reads on standard input, at most 64M; input() in a cell reads it instead of asking",
        examples=("'3 4'",),
    ),
    Option(
        names=("--stdin-file",),
        metavar="FILE",
        parse=standard_input.from_file,
        fronts=_RUNS,
        field="stdin",
        completes="path",
        section=PROCESS,
        help="the same from a file, as it is now, at most 64M",
        examples=("tests/1.in",),
    ),
    Option(
        names=("--lang",),
        metavar="LANG",
        parse=values.choice("python", *LANGUAGES),
        choices=("python", *LANGUAGES),
        default="python",
        fronts=_RUNS,
        field="lang",
        section=PROCESS,
        help=(
            f"what runs the code: a warm Python, or another program that this host has, which reads it as standard "
            f"input: {', '.join(LANGUAGES)}"
        ),
        examples=("bash", "node"),
    ),
    Option(
        names=("--interpreter",),
        metavar="PATH",
        parse=values.nonempty,
        fronts=_RUNS,
        field="interpreter",
        completes="path",
        section=PROCESS,
        help="another program inside that reads the code as standard input",
        examples=("/usr/bin/perl",),
    ),
    Option(
        names=("--preload",),
        metavar="MODULE,...",
        parse=values.modules,
        field="spec.process.preload",
        section=PROCESS,
        help="modules to import once, before the fork: Python code that imports them finds them there",
        examples=("numpy,pandas",),
    ),
    Option(
        names=("--warm",),
        metavar="N",
        parse=values.waiting,
        default="2",
        fronts=_LASTING,
        field="warm",
        section=RUN,
        help="containers that wait, ready made, for the next runs with these options; 0 = every start is cold",
        examples=("0", "4"),
    ),
    Option(
        names=("-c",),
        metavar="CODE",
        parse=str,
        fronts=_COMMAND_LINE,
        field="code",
        section=RUN,
        help="the code itself, instead of a file",
        examples=("'print(6*7)'",),
    ),
    Option(
        names=("--profile",),
        metavar="NAME",
        parse=values.choice(*PROFILES),
        choices=tuple(PROFILES),
        field="profile",
        section=RUN,
        help=profiles_help(),
        examples=("grade",),
    ),
    Option(
        names=("--input", "--in", "-i"),
        metavar="NAMES",
        parse=values.variables,
        repeatable=True,
        fronts=_NOTEBOOK,
        field="inputs",
        section=RUN,
        help="variables of the notebook that the cell is given, as copies; in Python a mapping: input={'df': df}",
        examples=("df", "x,y"),
        completes="variables",
    ),
    Option(
        names=("--output", "--out", "-o"),
        metavar="NAMES",
        parse=values.variables,
        repeatable=True,
        fronts=_LASTING,
        field="outputs",
        section=RUN,
        help=(
            "variables of the cell that the notebook gets when the cell has ended without an error: numbers, texts, "
            "bytes, NumPy, pandas, Arrow, pictures, and lists and dicts of these; in Python they are report.values"
        ),
        examples=("result", "x,y"),
        completes="variables",
    ),
    Option(
        names=("--session",),
        metavar="NAME",
        parse=values.session_name,
        fronts=_NOTEBOOK,
        field="session",
        section=RUN,
        help=(
            "keep the interpreter: the next cell with this name goes on in the same process; "
            "%%contain sessions lists them, %%contain stop NAME ends one"
        ),
        examples=("work",),
    ),
    Option(
        names=("--idle",),
        metavar="DUR",
        parse=values.duration,
        fronts=_LASTING | _KERNEL,
        default="1h",
        field="spec.watch.idle_seconds",
        section=RUN,
        help="end a session that has waited so long for its next cell; none = never",
        examples=("10m", "8h"),
    ),
    Option(
        names=("--snapshot",),
        fronts=_NOTEBOOK,
        field="snapshot",
        section=RUN,
        help="for your own risky code, not for code that you do not trust: run the cell on a copy of the notebook's "
        "process, with all its variables, which it cannot change; --timeout is 60s then, unless given",
    ),
    Option(
        names=("--result",),
        metavar="NAME",
        parse=values.identifier,
        fronts=_NOTEBOOK,
        field="result",
        section=RUN,
        help="store the RunReport under this name; _contain always holds the last one",
        examples=("r",),
    ),
    Option(
        names=("--report",),
        metavar="HOW",
        parse=values.choice("line", "full", "none"),
        choices=("line", "full", "none"),
        default="line",
        fronts=_SHOWN | _KERNEL,
        field="report",
        section=RUN,
        help="how the report is shown: one line, every figure, or not at all",
        examples=("full",),
    ),
    Option(
        names=("--changes",),
        field="spec.root.list_changes",
        section=RUN,
        help="count the files that the run changes, volumes not counted, and name the first ten in the report; "
        "--report full does it too",
    ),
    Option(
        names=("--html",),
        metavar="HOW",
        parse=values.choice("text", "safe", "iframe"),
        choices=("text", "safe", "iframe"),
        default="safe",
        fronts=_LASTING | _KERNEL,
        field="html",
        section=RUN,
        help="HTML that the code shows: its text only, what is harmless of it, or all in a frame of its own",
        examples=("iframe",),
    ),
    Option(
        names=("--allow-widgets",),
        fronts=_KERNEL,
        field="allow_widgets",
        section=RUN,
        help="let the standard widgets of ipywidgets talk to the page; without it nothing inside can open a comm",
    ),
    Option(
        names=("--report-file",),
        metavar="FILE.json",
        parse=values.nonempty,
        fronts=_COMMAND_LINE,
        field="report_file",
        completes="path",
        section=RUN,
        help="write the report there as JSON",
        examples=("report.json",),
    ),
    Option(
        names=("--no-raise-error",),
        fronts=_NOTEBOOK,
        field="no_raise_error",
        section=RUN,
        help="show the error of a failing cell, but let the notebook go on",
    ),
    Option(
        names=("--quiet",),
        fronts=_SHOWN,
        field="quiet",
        section=RUN,
        help="no report, only what the code writes",
    ),
    Option(
        names=("--best-effort",),
        field="spec.best_effort",
        section=RUN,
        help="do what this host can enforce and record the rest as downgrades, instead of refusing to start",
    ),
    Option(
        names=("--dry-run",),
        fronts=_SHOWN,
        field="dry_run",
        section=RUN,
        help="print what would be enforced, and by what; start nothing",
    ),
)


def options_of(front: Front) -> tuple[Option, ...]:
    """Return the options that ``front`` accepts, in the order of the table."""
    return tuple(option for option in OPTIONS if front in option.fronts)
