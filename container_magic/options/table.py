"""THE option table: magics, command line, Python keywords, traits, help and docs/options.md all come from it.

Spelling and meaning are Docker's wherever Docker has the option
(https://docs.docker.com/reference/cli/docker/container/run/). Where a short word is shown first (``--mem``,
``--net``), Docker's own spelling stands beside it.
"""

from __future__ import annotations

from container_magic import units
from container_magic.options import values
from container_magic.options.option import Front, Option

RESOURCES = "Memory, CPU, tasks and disk"
BLOCK_IO = "Block I/O"
TIME = "Time and output"
NETWORK = "Network"
FILES = "Files"
PROCESS = "Process"
RUN = "The run and its report"

_NOTEBOOK: frozenset[Front] = frozenset({"magic"})
_SHOWN: frozenset[Front] = frozenset({"magic", "cli"})
_COMMAND_LINE: frozenset[Front] = frozenset({"cli"})
_LASTING: frozenset[Front] = frozenset({"magic", "api"})

PROFILES: dict[str, dict[str, str]] = {
    "grade": {
        "net": "none",
        "timeout": "10s",
        "cpu_time": "10s",
        "pids": "64",
        "mem": "512M",
        "max_output": "1M",
    },
    "teach": {"timeout": "60s", "mem": "1G", "pids": "128"},
    "strict": {
        "net": "none",
        "read_only": "true",
        "pids": "32",
        "mem": "256M",
        "timeout": "30s",
        "max_output": "256K",
    },
}
"""What ``--profile`` stands for, by keyword; ``true`` is a flag that is set."""


def _profiles_help() -> str:
    spelled = []
    for name, settings in PROFILES.items():
        words = [
            f"--{key.replace('_', '-')}" + ("" if value == "true" else f" {value}") for key, value in settings.items()
        ]
        spelled.append(f"{name} = {' '.join(words)}")
    return "a set of defaults, which any other option overrides: " + "; ".join(spelled)


OPTIONS: tuple[Option, ...] = (
    Option(
        names=("--mem", "--memory", "-m"),
        metavar="SIZE",
        parse=values.memory,
        field="spec.resources.memory_bytes",
        section=RESOURCES,
        help="memory limit, at least 6M; none lifts it (default: half of the memory that the caller may use)",
        examples=("200M", "1.5G", "64MiB", "none"),
    ),
    Option(
        names=("--memory-swap",),
        metavar="SIZE",
        parse=values.memory_swap,
        field="spec.resources.memory_swap_bytes",
        section=RESOURCES,
        help="memory plus swap, needs --mem; -1 = unlimited swap (default: equal to --mem, that is no swap)",
        examples=("400M", "-1"),
    ),
    Option(
        names=("--cpus",),
        metavar="SPEC",
        parse=units.parse_cpus,
        field="spec.resources.cpus",
        section=RESOURCES,
        help="a range or list: these CPUs (0-0 is CPU 0 alone); a plain number: that much CPU time per second",
        examples=("0-1", "0,2", "1-3,6", "2", "1.5"),
    ),
    Option(
        names=("--cpuset-cpus",),
        metavar="LIST",
        parse=values.cpuset,
        field="spec.resources.cpuset_cpus",
        section=RESOURCES,
        help="the CPUs that may be used",
        examples=("0-1", "0"),
    ),
    Option(
        names=("--cpuset-mems",),
        metavar="LIST",
        parse=values.cpuset,
        field="spec.resources.cpuset_mems",
        section=RESOURCES,
        help="the memory nodes (NUMA) that may be used",
        examples=("0", "0-1"),
    ),
    Option(
        names=("--cpu-shares", "-c"),
        not_on_cli=("-c",),
        metavar="N",
        parse=values.whole(2, 262144),  # the kernel's bounds of cpu.shares (MIN_SHARES, MAX_SHARES)
        field="spec.resources.cpu_shares",
        section=RESOURCES,
        help="CPU weight against other containers when CPUs are busy; 1024 is the normal one",
        examples=("512",),
    ),
    Option(
        names=("--pids", "--pids-limit"),
        metavar="N",
        parse=values.pids,
        default="256",
        field="spec.resources.pids",
        section=RESOURCES,
        help="how many tasks, threads included; -1 or none = unlimited",
        examples=("64", "-1"),
    ),
    Option(
        names=("--disk",),
        metavar="SIZE",
        parse=values.size(values.MIN_DISK_BYTES),
        field="spec.root.disk_bytes",
        section=RESOURCES,
        help=(
            "size of the writable layer, inodes bounded with it; it is memory and counts against --mem "
            "(default: half of --mem, at most 512M)"
        ),
        examples=("100M",),
    ),
    Option(
        names=("--ulimit",),
        metavar="NAME=SOFT[:HARD]",
        parse=values.rlimit,
        repeatable=True,
        field="spec.process.rlimits",
        section=RESOURCES,
        help=f"limit of each process, -1 = unlimited; NAME is one of {', '.join(units.ULIMIT_NAMES)}",
        examples=("nofile=1024:2048", "core=0"),
    ),
    Option(
        names=("--blkio-weight",),
        metavar="N",
        parse=values.whole(10, 1000),
        field="spec.resources.blkio_weight",
        section=BLOCK_IO,
        help="weight of block I/O against other containers, 10 to 1000",
        examples=("300",),
    ),
    Option(
        names=("--device-read-bps",),
        metavar="DEV:RATE",
        parse=values.device_bps,
        repeatable=True,
        field="spec.resources.device_read_bps",
        section=BLOCK_IO,
        help="bytes per second read from a block device",
        examples=("/dev/sda:10M",),
    ),
    Option(
        names=("--device-write-bps",),
        metavar="DEV:RATE",
        parse=values.device_bps,
        repeatable=True,
        field="spec.resources.device_write_bps",
        section=BLOCK_IO,
        help="bytes per second written to a block device",
        examples=("/dev/sda:10M",),
    ),
    Option(
        names=("--device-read-iops",),
        metavar="DEV:RATE",
        parse=values.device_iops,
        repeatable=True,
        field="spec.resources.device_read_iops",
        section=BLOCK_IO,
        help="reads per second from a block device",
        examples=("/dev/sda:1000",),
    ),
    Option(
        names=("--device-write-iops",),
        metavar="DEV:RATE",
        parse=values.device_iops,
        repeatable=True,
        field="spec.resources.device_write_iops",
        section=BLOCK_IO,
        help="writes per second to a block device",
        examples=("/dev/sda:1000",),
    ),
    Option(
        names=("--timeout",),
        metavar="DUR",
        parse=values.duration,
        field="spec.watch.wall_seconds",
        section=TIME,
        help="wall time after which the run is ended; none = no limit (default: none)",
        examples=("10s", "2m", "500ms", "1h30m"),
    ),
    Option(
        names=("--cpu-time",),
        metavar="DUR",
        parse=values.duration,
        field="spec.watch.cpu_seconds",
        section=TIME,
        help="CPU time of all processes together, the dead ones included; none = no limit (default: none)",
        examples=("5s",),
    ),
    Option(
        names=("--max-output",),
        metavar="SIZE",
        parse=values.size(1),
        default="8M",
        field="spec.watch.output_bytes",
        section=TIME,
        help="how much of stdout and stderr is shown; what is beyond is counted, not shown",
        examples=("64K",),
    ),
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
        names=("--lang",),
        metavar="LANG",
        parse=values.choice("python", "bash", "sh"),
        choices=("python", "bash", "sh"),
        default="python",
        field="lang",
        section=PROCESS,
        help="what runs the code: a warm Python, or a shell that reads it as standard input",
        examples=("bash",),
    ),
    Option(
        names=("--interpreter",),
        metavar="PATH",
        parse=values.nonempty,
        field="interpreter",
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
        help=_profiles_help(),
        examples=("grade",),
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
        fronts=_SHOWN,
        field="report",
        section=RUN,
        help="how the report is shown: one line, every figure, or not at all",
        examples=("full",),
    ),
    Option(
        names=("--html",),
        metavar="HOW",
        parse=values.choice("text", "safe", "iframe"),
        choices=("text", "safe", "iframe"),
        default="safe",
        fronts=_LASTING,
        field="html",
        section=RUN,
        help="HTML that the code shows: its text only, what is harmless of it, or all in a frame of its own",
        examples=("iframe",),
    ),
    Option(
        names=("--report-file",),
        metavar="FILE.json",
        parse=values.nonempty,
        fronts=_COMMAND_LINE,
        field="report_file",
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
