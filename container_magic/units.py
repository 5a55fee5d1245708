"""Sizes, durations, CPU sets and limits as text and as numbers: pure functions, no state, no I/O.

Every ``parse_*`` raises ``ValueError`` whose message says what is accepted, ready to follow an option's name and value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from container_magic.deferred import dataclass

KIB = 1024
MIB = 1024**2

MAX_SIZE_BYTES = 2**63 - 1
"""What a cgroup file holds: the kernel reads limits as signed 64-bit numbers."""
MAX_CPU = 8191
"""Largest CPU or memory node number that can be named: CONFIG_NR_CPUS of a MAXSMP kernel is 8192."""
MIN_CPUS = 0.01
"""Docker's smallest ``--cpus``."""
MAX_RLIMIT = 2**63 - 1

SIZE_ACCEPTED = "accepted: a size such as 200M, 1.5G or 64KiB (k m g t are powers of 1024)"
DURATION_ACCEPTED = "accepted: a duration such as 500ms, 10s, 2m or 1h30m, or a number of seconds"
CPUSET_ACCEPTED = "accepted: CPU numbers and ranges such as 0-1, 0,2 or 1-3,6"
CPUS_ACCEPTED = "accepted: CPU numbers such as 0-1, 0,2 or 1-3,6, or an amount of CPU such as 2 or 1.5"
ULIMIT_ACCEPTED = "accepted: NAME=SOFT[:HARD] with whole numbers, -1 = unlimited, such as nofile=1024:2048"
RATE_ACCEPTED = "accepted: DEV:RATE such as /dev/sda:1M"

_SIZE = re.compile(r"([0-9]{1,20})(?:\.([0-9]{1,20}))? ?(?:([kmgtp])(?:i?b)?|b)?", re.IGNORECASE)
_SHIFT = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50}
_DURATION = re.compile(r"(?:([0-9]{1,15}(?:\.[0-9]{1,15})?)(ms|[hms]))")
_SECONDS = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,15})?")
_SCALE = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_CPU_RANGE = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?")
_AMOUNT = re.compile(r"[0-9]{1,9}(?:\.[0-9]{0,9})?|\.[0-9]{1,9}")

ULIMIT_NAMES = (
    "core", "cpu", "data", "fsize", "memlock", "msgqueue", "nice", "nofile",
    "nproc", "rss", "rtprio", "rttime", "sigpending", "stack",
)  # fmt: skip
"""Docker's names (go-units ``ulimit.go``) without ``locks``, which no kernel since 2.4 heeds."""


def parse_size(text: str, *, minimum: int = 0, unlimited: tuple[str, ...] = ()) -> int | None:
    """Return ``text`` in bytes, None for a word in ``unlimited``; ``k m g t p`` are powers of 1024, as in Docker.

    Raises:
        ValueError: It is no size, is below ``minimum`` bytes or does not fit 64 bits.
    """
    accepted = " or ".join([SIZE_ACCEPTED, *unlimited])
    if text.lower() in unlimited:
        return None
    match = _SIZE.fullmatch(text)
    if not match:
        raise ValueError(f"not a size; {accepted}")
    whole, fraction, unit = match.group(1), match.group(2) or "", (match.group(3) or "").lower()
    size = (int(whole + fraction) << _SHIFT[unit]) // int("1" + "0" * len(fraction))
    if size < minimum:
        raise ValueError(f"the minimum is {format_size(minimum)}; {accepted}")
    if size > MAX_SIZE_BYTES:
        raise ValueError(f"the maximum is 2^63 - 1 bytes; {accepted}")
    return size


def format_size(size_bytes: int) -> str:
    """Return ``size_bytes`` as ``parse_size`` reads it, with at most one decimal: ``200M``, ``1.5G``, ``512B``."""
    for unit in "PTGMK":
        scale = 1 << _SHIFT[unit.lower()]
        if size_bytes >= scale:
            tenths = (size_bytes * 10 + scale // 2) // scale
            return f"{tenths // 10}.{tenths % 10}{unit}" if tenths % 10 else f"{tenths // 10}{unit}"
    return f"{size_bytes}B"


def parse_duration(text: str) -> float:
    """Return ``text`` in seconds: ``500ms``, ``10s``, ``2m``, ``1h30m``; a plain number is seconds.

    Raises:
        ValueError: It is no duration.
    """
    if _SECONDS.fullmatch(text):
        return float(text)
    position, seconds, units = 0, 0.0, []
    while match := _DURATION.match(text, position):
        seconds += float(match.group(1)) * _SCALE[match.group(2)]
        units.append(match.group(2))
        position = match.end()
    in_order = units == sorted(set(units), key=lambda unit: -_SCALE[unit])
    if not units or position != len(text) or not in_order:
        raise ValueError(f"not a duration; {DURATION_ACCEPTED}")
    return seconds


def format_duration(seconds: float) -> str:
    """Return ``seconds`` as ``parse_duration`` reads it: ``12.3ms``, ``1.25s``, ``1m30s``, ``2h``."""
    if seconds < 0.9995:
        return f"{_short(seconds * 1000, 1)}ms" if seconds else "0s"
    if seconds < 59.995:
        return f"{_short(seconds, 2)}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "m"), (rest, "s")]
    return "".join(f"{number}{unit}" for number, unit in parts if number)


def _short(number: float, decimals: int) -> str:
    text = f"{number:.{decimals}f}"
    return text.rstrip("0").rstrip(".")


def parse_cpuset(text: str) -> tuple[int, ...]:
    """Return the numbers in a kernel list (``cpuset.cpus``): ``1-3,6`` is ``(1, 2, 3, 6)``, sorted, each once.

    Raises:
        ValueError: It is no list, a range runs backwards or a number is beyond ``MAX_CPU``.
    """
    numbers: set[int] = set()
    for part in text.split(","):
        match = _CPU_RANGE.fullmatch(part)
        if not match:
            raise ValueError(f"not a CPU set; {CPUSET_ACCEPTED}")
        first, last = int(match.group(1)), int(match.group(2) or match.group(1))
        if first > last:
            raise ValueError(f"the range {part} runs backwards; {CPUSET_ACCEPTED}")
        if last > MAX_CPU:
            raise ValueError(f"no CPU has a number above {MAX_CPU}; {CPUSET_ACCEPTED}")
        numbers.update(range(first, last + 1))
    return tuple(sorted(numbers))


def format_cpuset(numbers: Iterable[int]) -> str:
    """Return ``numbers`` as the kernel writes a list: ``(0, 1, 2, 5)`` is ``0-2,5``."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(f"{first}-{last}" if last > first else f"{first}" for first, last in runs)


@dataclass(frozen=True, kw_only=True)
class Cpus:
    """What ``--cpus`` said: exactly one of an amount (CPU seconds per second) and a set of CPU numbers."""

    amount: float | None = None
    cpuset: tuple[int, ...] | None = None


def parse_cpus(text: str) -> Cpus:
    """Return a CPU set for a range or list (``0-1``, ``0,2``), an amount for a plain number (``2``, ``1.5``: Docker's).

    Raises:
        ValueError: It is neither, or the amount is below ``MIN_CPUS``.
    """
    if _AMOUNT.fullmatch(text):
        amount = float(text)
        if amount < MIN_CPUS:
            raise ValueError(f"the smallest amount is {MIN_CPUS}, CPU 0 alone is 0-0; {CPUS_ACCEPTED}")
        return Cpus(amount=amount)
    if not re.fullmatch(r"[0-9,-]+", text):
        raise ValueError(f"neither CPU numbers nor an amount; {CPUS_ACCEPTED}")
    return Cpus(cpuset=parse_cpuset(text))


@dataclass(frozen=True, kw_only=True)
class Ulimit:
    """One ``--ulimit``: Docker's name (``nofile``), soft and hard limit, -1 = unlimited."""

    name: str
    soft: int
    hard: int


def parse_ulimit(text: str) -> Ulimit:
    """Return ``NAME=SOFT[:HARD]`` in parts; HARD is SOFT when it is left out, as in Docker.

    Raises:
        ValueError: It has another form, the name is unknown or SOFT is above HARD.
    """
    match = re.fullmatch(r"([a-z]+)=(-1|[0-9]{1,19})(?::(-1|[0-9]{1,19}))?", text)
    if not match:
        raise ValueError(f"not a limit; {ULIMIT_ACCEPTED}")
    name, soft = match.group(1), int(match.group(2))
    hard = soft if match.group(3) is None else int(match.group(3))
    if name not in ULIMIT_NAMES:
        raise ValueError(f"no limit is called {name}; accepted: {', '.join(ULIMIT_NAMES)}")
    if max(soft, hard) > MAX_RLIMIT:
        raise ValueError(f"the maximum is 2^63 - 1, -1 is unlimited; {ULIMIT_ACCEPTED}")
    if hard != -1 and (soft == -1 or soft > hard):
        raise ValueError(f"the soft limit is above the hard limit; {ULIMIT_ACCEPTED}")
    return Ulimit(name=name, soft=soft, hard=hard)


def parse_device_rate(text: str, *, in_bytes: bool) -> tuple[str, int]:
    """Return path and rate per second of ``DEV:RATE``; RATE is a size when ``in_bytes``, else a whole number.

    Raises:
        ValueError: It has another form, DEV is not below /dev or RATE is not positive.
    """
    accepted = RATE_ACCEPTED if in_bytes else "accepted: DEV:RATE with a whole number, such as /dev/sda:100"
    path, separator, rate_text = text.rpartition(":")  # names below /dev/disk/by-path hold colons themselves
    if not separator or not re.fullmatch(r"/dev/[^\0]+", path):
        raise ValueError(f"not a device and a rate; {accepted}")
    if in_bytes:
        try:
            rate = parse_size(rate_text) or 0
        except ValueError:
            raise ValueError(f"the rate {rate_text!r} is not a size; {accepted}") from None
    elif re.fullmatch(r"[0-9]{1,18}", rate_text):
        rate = int(rate_text)
    else:
        raise ValueError(f"the rate {rate_text!r} is not a whole number; {accepted}")
    if rate < 1:
        raise ValueError(f"the rate must be at least 1; {accepted}")
    return path, rate
