"""JSON and metadata of a bundle: bounded, with text as keys, and nothing that JSON has no word for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from container_magic.sanitize.text import RefusedError, as_text

JSON_BYTES = 1 << 20
JSON_DEPTH = 64
JSON_VALUES = 100_000
INTEGER_BITS = 1024
"""More would be a number of hundreds of digits; from 4300 digits on Python refuses to write it."""

PICTURE_PIXELS = 10_000
"""The greatest width and height that metadata may ask for."""


def safe_json(value: object) -> Any:
    """Return a copy of ``value``; not-a-number and infinity become null, as JavaScript has it.

    Raises:
        RefusedError: It is nested too deeply, too large, or has keys or values that are no JSON.
    """
    return _Copier().copy(value, JSON_DEPTH)


class _Copier:
    """Copies JSON while it counts down what is left of the limits."""

    def __init__(self) -> None:
        self._bytes = JSON_BYTES
        self._values = JSON_VALUES

    def copy(self, value: object, depth: int) -> Any:
        self._values -= 1
        if depth <= 0 or self._values < 0:
            raise RefusedError(f"it is nested more than {JSON_DEPTH} deep or has more than {JSON_VALUES:,} values")
        if isinstance(value, Mapping):
            return {self._key(key): self.copy(below, depth - 1) for key, below in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.copy(below, depth - 1) for below in value]
        return self._text(value) if isinstance(value, str) else _number(value)

    def _key(self, key: object) -> str:
        if not isinstance(key, str):
            raise RefusedError("a key is not text")
        return self._text(key)

    def _text(self, text: str) -> str:
        self._bytes -= len(text)
        if self._bytes < 0:
            raise RefusedError(f"it has more than {JSON_BYTES:,} characters of text")
        return as_text(text)


def _number(value: object) -> bool | int | float | None:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and value.bit_length() <= INTEGER_BITS:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    raise RefusedError("a value is no JSON")


def pixels(metadata: Mapping[str, Any], mime: str, name: str) -> int | None:
    """Return the ``width`` or ``height`` that ``metadata`` asks for ``mime``; None for whatever is no such number."""
    value = _of(metadata, mime).get(name)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 1 <= value <= PICTURE_PIXELS:
        return int(value)
    return None


def picture_metadata(metadata: Mapping[str, Any], mime: str) -> dict[str, Any]:
    """Return what ``metadata`` says of a picture: its size in the page, and what it needs behind it."""
    kept: dict[str, Any] = {}
    for name in ("width", "height"):
        if (size := pixels(metadata, mime, name)) is not None:
            kept[name] = size
    background = _of(metadata, mime).get("needs_background", metadata.get("needs_background"))
    if isinstance(background, str) and background in {"light", "dark"}:
        kept["needs_background"] = background
    return kept


def _of(metadata: Mapping[str, Any], mime: str) -> Mapping[str, Any]:
    """Return the metadata of one MIME type; IPython also puts it beside them all where there is only one."""
    own = metadata.get(mime)
    return own if isinstance(own, Mapping) else metadata
