"""Resource limits (getrlimit(2)) by their names without ``RLIMIT_``, and what every container has of them."""

from __future__ import annotations

import resource
from collections.abc import Mapping

MOST: Mapping[str, int] = {
    # not 0: that does not keep the kernel from piping a dump to a program of the host, 1 does (fs/coredump.c); for a
    # dump to a file both are too little. The seccomp profile keeps it there
    "core": 1,
    "msgqueue": 256 * 1024,
    "nice": 0,
    "rtprio": 0,
    "sigpending": 1024,
}
"""What a container can have at most, whatever this process may: counted for the user on the host as well, or a way past
the CPU controller."""


def number_of(name: str) -> int:
    """Return the kernel's number."""
    number: int = getattr(resource, f"RLIMIT_{name.upper()}")
    return number


def hard_limit(name: str) -> int | None:
    """Return the hard limit of this process, None where there is none."""
    _, hard = resource.getrlimit(number_of(name))
    return None if hard == resource.RLIM_INFINITY else hard


def most_of(name: str) -> int | None:
    """Return the highest hard limit that a container of this process can have, None where there is none."""
    most = [value for value in (hard_limit(name), MOST.get(name)) if value is not None]
    return min(most, default=None)
