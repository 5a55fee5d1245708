"""Capabilities: take all of them away (capabilities(7))."""

from __future__ import annotations

import ctypes
import functools
import struct

from container_magic.linux import constants as c
from container_magic.linux.syscalls import _libc, _raise, prctl

_LINUX_CAPABILITY_VERSION_3 = 0x20080522
_HEADER = ctypes.create_string_buffer(struct.pack("=Ii", _LINUX_CAPABILITY_VERSION_3, 0))
_NONE = ctypes.create_string_buffer(24)


@functools.cache
def last_capability() -> int:
    """Return the highest capability number that this kernel knows."""
    with open("/proc/sys/kernel/cap_last_cap", encoding="utf-8") as file:
        return int(file.read())


def drop_bounding_set(last: int) -> None:
    """Empty the bounding and ambient sets and lock the securebits, so that no exec gives anything back.

    Needs CAP_SETPCAP; the other sets follow with ``clear``.
    """
    prctl(c.PR_CAP_AMBIENT, c.PR_CAP_AMBIENT_CLEAR_ALL)
    prctl(c.PR_SET_SECUREBITS, c.SECBITS_LOCKED_DOWN)
    for capability in range(last + 1):
        prctl(c.PR_CAPBSET_DROP, capability)


def clear() -> None:
    """Empty the effective, permitted and inheritable sets (capset(2))."""
    if _libc.capset(_HEADER, _NONE) < 0:
        _raise("capset", None)
