"""Events and reports as notebook streams, text, HTML and pictures; what comes out of a container is made safe here."""

from __future__ import annotations

from container_magic.display.html import report_full_html, report_line_html
from container_magic.display.streams import StreamDecoder
from container_magic.display.text import advice, reason, report_full, report_line

__all__ = [
    "StreamDecoder",
    "advice",
    "reason",
    "report_full",
    "report_full_html",
    "report_line",
    "report_line_html",
]
