"""Shapes of JSON: functions that turn any value into one that a field may have. They raise nothing and are total.

A value of the wrong type becomes the field's harmless default instead of an error: a client that waits for a reply gets
one whatever the inside sends.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from container_magic.sanitize.data import INTEGER_BITS, safe_json
from container_magic.sanitize.escapes import plain_text, safe_text
from container_magic.sanitize.text import RefusedError, as_text

Shape = Callable[[Any], Any]

LINE_CHARACTERS = 1000
TEXT_CHARACTERS = 1 << 20
MORE = "\n[... the rest is not shown ...]\n"


def plain(limit: int = LINE_CHARACTERS) -> Shape:
    """Text without escape sequences and NUL, at most ``limit`` characters of it."""

    def shape(value: Any) -> str:
        return plain_text(as_text(value[:limit])).replace("\0", "") if isinstance(value, str) else ""

    return shape


def styled(limit: int = TEXT_CHARACTERS) -> Shape:
    """Text whose escape sequences are reduced to colours; of more than ``limit`` characters the first."""

    def shape(value: Any) -> str:
        if not isinstance(value, str):
            return ""
        return safe_text(as_text(value[:limit])) + (MORE if len(value) > limit else "")

    return shape


def matching(pattern: str, default: str | None = "") -> Shape:
    """Text that matches ``pattern`` as a whole; anything else is ``default``."""
    compiled = re.compile(pattern, re.ASCII)

    def shape(value: Any) -> str | None:
        return value if isinstance(value, str) and compiled.fullmatch(value) else default

    return shape


def one_of(*words: Any) -> Shape:
    """One of ``words``; anything else is the first of them."""

    def shape(value: Any) -> Any:
        known = isinstance(value, (str, bool)) or value is None
        return value if known and value in words else words[0]

    return shape


def flag(default: bool = False) -> Shape:
    """True or false."""
    return lambda value: value if isinstance(value, bool) else default


def integer(low: int = -(2**53), high: int = 2**53, default: int | None = 0) -> Shape:
    """A whole number between ``low`` and ``high``."""

    def shape(value: Any) -> int | None:
        good = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        return value if good else default

    return shape


def number(default: float | None = 0) -> Shape:
    """A finite number of moderate length."""

    def shape(value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return default
        fits = value.bit_length() <= INTEGER_BITS if isinstance(value, int) else math.isfinite(value)
        return value if fits else default

    return shape


def optional(inner: Shape) -> Shape:
    """What ``inner`` accepts, or nothing."""
    return lambda value: None if value is None else inner(value)


def items(inner: Shape, most: int) -> Shape:
    """A list of at most ``most`` items."""

    def shape(value: Any) -> list[Any]:
        return [inner(item) for item in value[:most]] if isinstance(value, (list, tuple)) else []

    return shape


def record(needed: Mapping[str, Shape], allowed: Mapping[str, Shape] | None = None) -> Shape:
    """An object with all ``needed`` fields, those of ``allowed`` that it has, and no others."""

    def shape(value: Any) -> dict[str, Any]:
        given = value if isinstance(value, Mapping) else {}
        kept = {name: inner(given.get(name)) for name, inner in needed.items()}
        return kept | {name: inner(given[name]) for name, inner in (allowed or {}).items() if name in given}

    return shape


def keyed(inner: Shape, most: int) -> Shape:
    """An object of at most ``most`` fields of any name, each as ``inner`` has it."""

    def shape(value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            return {}
        names = [name for name in value if isinstance(name, str)][:most]
        return {plain(256)(name): inner(value[name]) for name in names}

    return shape


def bounded_json(value: Any) -> Any:
    """Any JSON within the bounds of an output's; else null."""
    try:
        return safe_json(value)
    except RefusedError:
        return None


def strings(value: Any) -> Sequence[str]:
    """Return the texts of a list, whatever else it holds."""
    return [item for item in value if isinstance(item, str)] if isinstance(value, (list, tuple)) else []
