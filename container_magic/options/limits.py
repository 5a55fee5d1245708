"""The option table's rows that limit memory, CPU, tasks, disk, block I/O, time and output."""

from __future__ import annotations

from container_magic import units
from container_magic.errors import OptionError
from container_magic.options import values
from container_magic.options.option import Option

RESOURCES = "Memory, CPU, tasks and disk"
BLOCK_IO = "Block I/O"
TIME = "Time and output"


def check_high(high_bytes: int | None, limit_bytes: int | None) -> None:
    """Refuse a ``--mem-high`` that is not below the limit ``--mem``, None being no limit.

    Raises:
        OptionError: It is not.
    """
    if high_bytes is None or (limit_bytes is not None and high_bytes < limit_bytes):
        return
    limit = "lifted" if limit_bytes is None else units.format_size(limit_bytes)
    raise OptionError(f"--mem-high {units.format_size(high_bytes)}: accepted: less than --mem, which is {limit}")


LIMITS: tuple[Option, ...] = (
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
        names=("--mem-high", "--memory-high"),
        metavar="SIZE",
        parse=values.size(values.MIN_MEMORY_BYTES),
        field="spec.resources.memory_high_bytes",
        section=RESOURCES,
        help=(
            "less than --mem: who holds so much memory, cached files not counted, is interrupted as by Ctrl-C; a "
            "session lives on with what it has"
        ),
        examples=("150M", "1.5G"),
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
        completes="cpus",
        section=RESOURCES,
        help="a range or list: these CPUs (0-0 is CPU 0 alone); a plain number: that much CPU time per second",
        examples=("0-1", "0,2", "1-3,6", "2", "1.5"),
    ),
    Option(
        names=("--cpuset-cpus",),
        metavar="LIST",
        parse=values.cpuset,
        field="spec.resources.cpuset_cpus",
        completes="cpus",
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
)
