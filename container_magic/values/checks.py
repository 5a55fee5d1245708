"""Small checks of what came from inside: each returns what it was given, of a known type and within bounds."""

from __future__ import annotations

from typing import Any

from container_magic.values.wire import RefusedError


def whole(value: Any, least: int = -(2**63), most: int = 2**63 - 1) -> int:
    """Return ``value`` if it is a whole number between these.

    Raises:
        RefusedError: It is not.
    """
    if type(value) is not int or not least <= value <= most:
        raise RefusedError("a number is out of bounds")
    return value


def text(value: Any, longest: int) -> str:
    """Return ``value`` if it is a text of at most so many characters.

    Raises:
        RefusedError: It is not.
    """
    if not isinstance(value, str) or len(value) > longest:
        raise RefusedError("a text is too long, or none")
    return value


def items(body: Any, count: int) -> list[Any]:
    """Return ``body`` if it is a list of ``count`` items.

    Raises:
        RefusedError: It is not.
    """
    if not isinstance(body, list) or len(body) != count:
        raise RefusedError(f"what should be a list of {count} is none")
    return body


def listed(body: Any) -> list[Any]:
    """Return ``body`` if it is a list.

    Raises:
        RefusedError: It is not.
    """
    if not isinstance(body, list):
        raise RefusedError("what should be a list is none")
    return body
