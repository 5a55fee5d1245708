"""Bytes per block device, from the files of both cgroup versions."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from container_magic.events import DeviceIO

Counters = Mapping[str, tuple[int, int]]
"""``MAJ:MIN`` -> bytes read and written."""

MOST_DEVICES = 5


def v1_counters(text: str) -> Counters:
    """Return what a blkio file says (``MAJ:MIN Read BYTES``, a line for each operation)."""
    found: dict[str, tuple[int, int]] = {}
    for fields in map(str.split, text.splitlines()):
        if len(fields) == 3 and fields[1] in ("Read", "Write"):
            read, written = found.get(fields[0], (0, 0))
            count = int(fields[2])
            found[fields[0]] = (read + count, written) if fields[1] == "Read" else (read, written + count)
    return found


def v2_counters(text: str) -> Counters:
    """Return what ``io.stat`` says (``MAJ:MIN rbytes=N wbytes=N ...``)."""
    found = {}
    for number, *pairs in (line.split() for line in text.splitlines() if line.strip()):
        values = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        found[number] = (int(values.get("rbytes", 0)), int(values.get("wbytes", 0)))
    return found


def counters_of(plain: Mapping[str, Sequence[int]] | None) -> Counters | None:
    """Return counters that have been JSON."""
    return None if plain is None else {number: (read, written) for number, (read, written) in plain.items()}


def total(counters: Counters) -> tuple[int, int]:
    """Return bytes read and written on all devices together."""
    return sum(read for read, _ in counters.values()), sum(written for _, written in counters.values())


def busiest(now: Counters, then: Counters) -> tuple[DeviceIO, ...]:
    """Return the devices with most bytes since ``then``, the first few, those without any left out."""
    used = {}
    for number, (read, written) in now.items():
        read_before, written_before = then.get(number, (0, 0))
        if read > read_before or written > written_before:
            used[number] = (read - read_before, written - written_before)
    order = sorted(used, key=lambda number: (-sum(used[number]), number))
    return tuple(
        DeviceIO(device=_name(number), read_bytes=used[number][0], written_bytes=used[number][1])
        for number in order[:MOST_DEVICES]
    )


def _name(number: str) -> str:
    """Return the kernel's name of a device (``sda``); its numbers where /sys has none."""
    try:
        return os.path.basename(os.readlink(f"/sys/dev/block/{number}"))
    except OSError:
        return number
