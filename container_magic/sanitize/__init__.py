"""What contained code shows, made safe for the page and the terminal; pure, and the only such filter there is."""

from __future__ import annotations

from container_magic.sanitize.bundle import Clean, HtmlMode, sanitize_bundle
from container_magic.sanitize.escapes import EscapeFilter, plain_text, safe_text
from container_magic.sanitize.text import sanitize_traceback

__all__ = [
    "Clean",
    "EscapeFilter",
    "HtmlMode",
    "plain_text",
    "safe_text",
    "sanitize_bundle",
    "sanitize_traceback",
]
