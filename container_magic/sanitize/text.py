"""Values of a MIME bundle -> bounded text that can be encoded, and the reason why one is refused."""

from __future__ import annotations

import re
from collections.abc import Iterable

from container_magic.errors import ContainError
from container_magic.report import dropped_marker
from container_magic.sanitize.escapes import safe_text

TEXT_BYTES = 1 << 20
"""Text that is shown of one output; of more, the head and the tail."""
TRACEBACK_LINES = 1000
"""Entries of a traceback that are shown: the first and the last."""

_SURROGATE = re.compile("[\ud800-\udfff]")


class RefusedError(ContainError):
    """One representation of an output cannot be made safe; the message says why."""


def as_text(value: object) -> str:
    """Return ``value`` (text, UTF-8 bytes, or nbformat's list of lines) as text that can be encoded.

    Raises:
        RefusedError: ``value`` is none of these.
    """
    if isinstance(value, (bytes, bytearray)):
        value = value.decode("utf-8", "replace")
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        value = "".join(value)
    if not isinstance(value, str):
        raise RefusedError("its value is not text")
    return _SURROGATE.sub("\ufffd", value)


def text_at_most(value: object, limit: int) -> str:
    """Return ``value`` as text of at most ``limit`` bytes of UTF-8.

    Raises:
        RefusedError: It is no text, or larger.
    """
    text = as_text(value)
    if len(text) > limit or len(text.encode()) > limit:
        raise RefusedError(f"it is larger than {limit:,} bytes")
    return text


def shown_text(value: object, *, limit: int = TEXT_BYTES) -> str:
    """Return ``value`` with escape sequences reduced to colours; of more than ``limit`` bytes only head and tail.

    Raises:
        RefusedError: ``value`` is no text.
    """
    text = as_text(value)
    if len(text) * 4 > limit and len(data := text.encode()) > limit:
        half = limit // 2
        head, tail = data[:half].decode("utf-8", "ignore"), data[-half:].decode("utf-8", "ignore")
        dropped = len(data) - len(head.encode()) - len(tail.encode())
        return safe_text(head) + dropped_marker(dropped) + safe_text(tail)
    return safe_text(text)


def sanitize_traceback(lines: Iterable[str]) -> list[str]:
    """Return the entries of a traceback as safe text without NUL; each and their number are bounded."""
    entries = list(lines)
    if len(entries) > TRACEBACK_LINES:
        half = TRACEBACK_LINES // 2
        entries = [*entries[:half], f"[... {len(entries) - 2 * half:,} entries not shown ...]", *entries[-half:]]
    return [shown_text(entry).replace("\0", "") for entry in entries]
