"""A report as text: one line for every run, and a page with every figure for who asks."""

from __future__ import annotations

import signal
from collections.abc import Sequence

from container_magic.display.curve import Point, cpu_curve, cpu_limit, memory_curve, resample, scale
from container_magic.events import FilesChanged, Limit, MemoryHigh
from container_magic.report import RunReport
from container_magic.sanitize.escapes import plain_text
from container_magic.units import format_duration, format_size

PICTURE_WIDTH = 60
PICTURE_HEIGHT = 3
FILES_SHOWN = 20
"""Of those that ``--out-file`` has taken or not; the report has all."""

_LEAST_COLUMNS = 12
_BLOCKS = " ▁▂▃▄▅▆▇█"
_ASCII = " _.,:-=+#"
_FRAMES = {_BLOCKS: "│", _ASCII: "|"}
_SIZES = frozenset({"memory", "memory_high", "memory_swap", "disk", "max_output"})
_DURATIONS = frozenset({"timeout", "cpu_time"})
_NAME_REFUSALS = frozenset({"RUNTIME_ERROR", "SIGNALED", "TIME_LIMIT"})
_RAISED_BY = {"wall": "timeout", "cpu": "cpu_time", "output": "max_output", "pids": "pids", "disk": "disk"}
"""The option that raises a limit, by the limit's name."""


def human_bytes(count: int | None) -> str:
    """Return a number of bytes for people: ``152 MB``, ``1.5 GB``; powers of 1024, as the options have them."""
    if count is None:
        return "unknown"
    text = format_size(count)
    return f"{text[:-1]} {'' if text.endswith('B') else text[-1]}B"


def human_seconds(seconds: float | None) -> str:
    """Return a time for people: ``1.02 s``, ``12.3 ms``, ``1m30s``."""
    if seconds is None:
        return "unknown"
    if seconds >= 59.995:
        return format_duration(seconds)
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{seconds * 1000:.3g} ms"


def reason(report: RunReport) -> str:
    """Return in a few words what ended the run: the limit with its value, the signal, the exit code; empty when OK."""
    place = f" in line {report.line}" if says_line(report) else ""
    ended = _reason(report) + place
    return ", ".join([*refusals(report), ended]) if report.verdict in _NAME_REFUSALS else ended


def refusals(report: RunReport) -> list[str]:
    """Return the limits that did not end the run but refused it something: ``task limit 64 reached``."""
    return [
        _limit_reached(f"{what} limit", _limit(report, name))
        for name, what in (("pids", "task"), ("disk", "disk"))
        if name in report.limits_reached
    ]


def says_line(report: RunReport) -> bool:
    """Whether it is known and worth saying where the code was when it was ended."""
    return report.line is not None and report.verdict in ("MEMORY_LIMIT", "TIME_LIMIT", "SIGNALED")


def _reason(report: RunReport) -> str:
    if report.verdict == "OK":
        return ""
    if report.verdict == "MEMORY_LIMIT":
        limit = report.usage.memory_limit_bytes
        return "memory limit reached" if limit is None else f"memory limit {human_bytes(limit)} reached"
    if report.verdict == "TIME_LIMIT":
        kind, option = ("wall", "timeout") if "wall" in report.limits_reached else ("CPU time", "cpu_time")
        return _limit_reached(f"{kind} limit", _limit(report, option))
    if report.verdict == "OUTPUT_LIMIT":
        if report.error is not None and report.error.ename == "ChannelError":
            return "rich output that cannot be understood"
        return _limit_reached("output limit", _limit(report, "max_output"))
    if report.verdict == "INTERRUPTED":
        ended = "interrupted and killed" if report.exit_signal == signal.SIGKILL else "interrupted"
        high = report.memory_high
        return ended if high is None else f"memory {human_bytes(high.limit_bytes)} (--mem-high) reached: {ended}"
    if report.verdict == "INTERNAL_ERROR":
        return plain_text(report.error.evalue) if report.error else "ended, but nobody knows how"
    return ending(report)


def advice(report: RunReport) -> str:
    """Return what would let the run get further; empty when there is nothing to say."""
    memory = report.usage.memory_limit_bytes
    if report.verdict == "MEMORY_LIMIT" and memory is not None:
        return f"peak {human_bytes(report.usage.memory_peak_bytes)}; try --mem {format_size(2 * memory)}"
    if report.verdict == "INTERRUPTED" and report.memory_high is not None:
        return _more_before_interrupt(report.memory_high, memory)
    reached = {"TIME_LIMIT": ("wall", "cpu"), "OUTPUT_LIMIT": ("output",)}.get(report.verdict, ("pids", "disk"))
    words = [
        word
        for name, option in _RAISED_BY.items()
        if name in reached and name in report.limits_reached
        for word in _twice(option, _limit(report, option), memory)
    ]
    return f"try {' '.join(words)}" if words else ""


def _more_before_interrupt(high: MemoryHigh, memory_bytes: int | None) -> str:
    """Return what lets the code hold twice as much."""
    twice = 2 * high.limit_bytes
    more = f" --mem {format_size(2 * memory_bytes)}" if memory_bytes is not None and twice >= memory_bytes else ""
    return f"try --mem-high {format_size(twice)}{more}"


def _twice(option: str, limit: Limit | None, memory_bytes: int | None) -> list[str]:
    """Return the option with twice its value; a larger disk has to be paid with memory."""
    if limit is None or isinstance(limit.value, str) or limit.value <= 0:
        return []
    value = 2 * limit.value
    text = (
        format_size(int(value))
        if option in _SIZES
        else format_duration(value)
        if option in _DURATIONS
        else f"{value:g}"
    )
    words = [f"--{_option(option)} {text}"]
    if option == "disk" and memory_bytes is not None and 2 * value > memory_bytes:
        words.append(f"--mem {format_size(int(2 * value))}")
    return words


def ending(report: RunReport) -> str:
    """Return how the process ended: ``exit code 1``, ``signal 11 (SIGSEGV)``."""
    if report.exit_signal is not None:
        return f"signal {report.exit_signal} ({_signal_name(report.exit_signal)})"
    return "exit status unknown" if report.exit_code is None else f"exit code {report.exit_code}"


def report_line(report: RunReport) -> str:
    """Return the report in one line: what is unknown is left out."""
    return "  ".join([report.verdict, *line_parts(report)])


def line_parts(report: RunReport) -> list[str]:
    """Return the parts of the line after the verdict."""
    usage = report.usage
    parts = [" ".join(reason(report).split())]
    if usage.wall_seconds is not None:
        parts.append(f"{human_seconds(usage.wall_seconds)} wall")
    if usage.cpu_seconds is not None:
        parts.append(f"{human_seconds(usage.cpu_seconds)} CPU")
    if usage.memory_peak_bytes is not None:
        parts.append(_memory(report))
    if report.dropped_bytes:
        where = f" (contain logs {report.container_id[:12]})" if report.log_path else ""
        parts.append(f"{human_bytes(report.dropped_bytes)} of output not shown{where}")
    if report.files_refused:
        parts.append(f"{len(report.files_refused)} of --out-file not taken")
    if report.downgrades:
        parts.append("downgraded: " + ", ".join(_option(downgrade.name) for downgrade in report.downgrades))
    return [part for part in [*parts, report.start or ""] if part]


def report_full(report: RunReport, *, columns: int = PICTURE_WIDTH + 2, ascii_only: bool = False) -> str:
    """Return the report as a page of text: the line, every figure, and memory and CPU over time.

    Args:
        report: The report.
        columns: How wide the pictures may be, frame included.
        ascii_only: Draw with what every encoding has.
    """
    lines = [f"{label:<11} {value}" for label, value in rows(report)]
    width = max(columns, _LEAST_COLUMNS) - 2
    return "\n".join([report_line(report), *lines, *_pictures(report, width, _ASCII if ascii_only else _BLOCKS)])


def rows(report: RunReport) -> list[tuple[str, str]]:
    """Return every figure with its label; labels repeat as an empty string where one has several lines."""
    usage = report.usage
    found = [
        ("ended", ending(report) + (", out of memory" if report.oom_killed else "")),
        ("wall", human_seconds(usage.wall_seconds)),
        ("CPU", _cpu(report)),
        ("memory", f"peak {_memory(report)}"),
        ("tasks", "unknown" if usage.pids_peak is None else f"peak {usage.pids_peak}"),
        ("I/O", f"read {human_bytes(usage.io_read_bytes)}, written {human_bytes(usage.io_write_bytes)}"),
    ]
    found += [
        ("", f"{device.device}: read {human_bytes(device.read_bytes)}, written {human_bytes(device.written_bytes)}")
        for device in usage.io_devices or ()
    ]
    found.append(("start", _start(report)))
    if report.truncated:
        where = f", all of it is in {report.log_path}" if report.log_path else ""
        found.append(("output", f"{report.dropped_bytes:,} bytes not shown{where}"))
    found += _labelled("files", _changes(report.changes))
    found += _labelled("taken out", _shortened([f"{f.path}, {human_bytes(f.size_bytes)}" for f in report.files]))
    found += _labelled("not taken", _shortened([f"{f.path}: {f.reason}" for f in report.files_refused]))
    found += _labelled("limits", [_limit_text(limit) for limit in report.limits])
    found += _labelled(
        "downgraded", [f"{_option(d.name)} {d.asked}: {d.got} instead, {d.reason}" for d in report.downgrades]
    )
    return [*found, ("container", report.container_id or "unknown")]


def chart(
    points: Sequence[Point],
    top: float,
    *,
    width: int = PICTURE_WIDTH,
    height: int = PICTURE_HEIGHT,
    blocks: str = _BLOCKS,
) -> list[str]:
    """Return a curve as ``height`` lines of ``blocks`` (nine, from empty to full), ``top`` being the upper edge."""
    levels = [round(min(value / top, 1.0) * height * 8) if top else 0 for value in resample(points, width)]
    return ["".join(blocks[max(0, min(8, level - 8 * row))] for level in levels) for row in reversed(range(height))]


def _pictures(report: RunReport, width: int, blocks: str) -> list[str]:
    memory, cpu = memory_curve(report.usage.samples), cpu_curve(report.usage.samples)
    memory_top, memory_limited = scale(memory, report.usage.memory_limit_bytes)
    cpu_top, cpu_limited = scale(cpu, cpu_limit(report))
    return [
        *_picture("memory", memory, memory_top, human_bytes(int(memory_top)), memory_limited, width, blocks),
        *_picture("CPU", cpu, cpu_top, f"{cpu_top:.2g} CPUs", cpu_limited, width, blocks),
    ]


def _picture(
    name: str, points: Sequence[Point], top: float, top_text: str, limited: bool, width: int, blocks: str
) -> list[str]:
    if len(points) < 2:
        return []
    title = f"{name} over {human_seconds(points[-1][0])}, top is {top_text}{' (the limit)' if limited else ''}"
    frame = _FRAMES[blocks]
    return ["", title, *(f"{frame}{line}{frame}" for line in chart(points, top, width=width, blocks=blocks))]


def _shortened(lines: list[str]) -> list[str]:
    more = len(lines) - FILES_SHOWN
    return lines if more <= 0 else [*lines[:FILES_SHOWN], f"and {more} more"]


def _labelled(label: str, values: list[str]) -> list[tuple[str, str]]:
    return [(label if number == 0 else "", value) for number, value in enumerate(values)]


def _changes(changes: FilesChanged | None) -> list[str]:
    if changes is None:
        return []
    named = [*changes.written, *(f"{path} (deleted)" for path in changes.deleted)]
    some = "" if changes.complete else "at least "
    more = [f"and {changes.count - len(named):,} more"] if changes.count > len(named) else []
    return [f"{some}{changes.count:,} changed", *named, *more]


def _limit(report: RunReport, option: str) -> Limit | None:
    return next((limit for limit in report.limits if limit.name == option), None)


def _limit_reached(what: str, limit: Limit | None) -> str:
    return f"{what} reached" if limit is None else f"{what} {_human_value(limit)} reached"


def _human_value(limit: Limit) -> str:
    if isinstance(limit.value, str):
        return limit.value
    if limit.value == -1:
        return "unlimited"
    if limit.name in _SIZES:
        return human_bytes(int(limit.value))
    return f"{limit.value:g} s" if limit.name in _DURATIONS else f"{limit.value:g}"


def _limit_text(limit: Limit) -> str:
    return f"{_option(limit.name)} {_human_value(limit)}, held by {limit.by}"


def _option(name: str) -> str:
    return name.replace("_", "-")


def _memory(report: RunReport) -> str:
    peak, limit = report.usage.memory_peak_bytes, report.usage.memory_limit_bytes
    return human_bytes(peak) + (f" of {human_bytes(limit)}" if limit is not None else "")


def _cpu(report: RunReport) -> str:
    usage = report.usage
    parts = [
        f"{name} {human_seconds(seconds)}"
        for name, seconds in (
            ("user", usage.cpu_user_seconds),
            ("system", usage.cpu_system_seconds),
            ("throttled", usage.throttled_seconds),
        )
    ]
    return f"{human_seconds(usage.cpu_seconds)} ({', '.join(parts)})"


def _start(report: RunReport) -> str:
    usage = report.usage
    parts = ", ".join(f"{name} {human_seconds(seconds)}" for name, seconds in usage.startup.items())
    took = f"{report.start or 'never'}, {human_seconds(usage.startup_seconds)}"
    return f"{took} ({parts})" if parts else took


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "real-time"
