"""What a mistyped word was probably meant to be."""

from __future__ import annotations

from collections.abc import Sequence


def nearest(word: str, accepted: Sequence[str]) -> str:
    """Return the one of ``accepted`` that ``word`` was probably meant to be, or an empty string."""
    import difflib

    matches = difflib.get_close_matches(word, [name for name in accepted if len(name) > 2], n=1)
    return matches[0] if matches else ""
