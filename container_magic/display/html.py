"""A report as HTML: a line, or the line with every figure and a picture below it.

Everything that is put in is escaped, there is no script, and the picture is an image (nothing runs in there). Colours
are JupyterLab's theme variables with fallbacks that can be read on light and on dark.
"""

from __future__ import annotations

import base64
from html import escape

from container_magic.display.curve import cpu_limit
from container_magic.display.svg import usage_svg
from container_magic.display.text import line_parts, rows
from container_magic.report import RunReport

# JupyterLab indents the text of outputs by one character: the report begins where the lines above it do
_LINE = (
    "font-family:var(--jp-code-font-family,monospace);font-size:var(--jp-code-font-size,13px);opacity:0.85;"
    "padding-left:1ch"
)
_LABEL = "text-align:left;vertical-align:top;padding:0 1.5em 0 0;font-weight:normal;opacity:0.7"
_VALUE = "text-align:left;vertical-align:top;padding:0;white-space:pre-wrap"
_GREEN = "var(--jp-success-color1,#388e3c)"
_ORANGE = "var(--jp-warn-color1,#e07b00)"
_RED = "var(--jp-error-color1,#d9534f)"
_COLOURS = {"OK": _GREEN, "OUTPUT_LIMIT": _ORANGE, "INTERRUPTED": _ORANGE}


def report_line_html(report: RunReport) -> str:
    """Return the report in one line of HTML."""
    return f'<div style="{_LINE}">{_line(report)}</div>'


def report_full_html(report: RunReport) -> str:
    """Return the line, a table of every figure, and memory and CPU over time as a picture."""
    table = "".join(
        f'<tr style="background:none"><th style="{_LABEL}">{escape(label)}</th>'
        f'<td style="{_VALUE}">{escape(value)}</td></tr>'
        for label, value in rows(report)
    )
    return (
        f'<div style="{_LINE}">{_line(report)}'
        f'<table style="margin:0.4em 0;border:none;font-size:inherit">{table}</table>{_picture(report)}</div>'
    )


def _line(report: RunReport) -> str:
    colour = _COLOURS.get(report.verdict, _RED)
    parts = "".join(f" &nbsp;{escape(part)}" for part in line_parts(report))
    return f'<b style="color:{colour}">{escape(report.verdict)}</b>{parts}'


def _picture(report: RunReport) -> str:
    svg = usage_svg(report.usage.samples, memory_limit_bytes=report.usage.memory_limit_bytes, cpus=cpu_limit(report))
    if not svg:
        return ""
    data = base64.b64encode(svg.encode()).decode("ascii")
    return f'<img alt="memory and CPU over time" style="max-width:100%" src="data:image/svg+xml;base64,{data}">'
