"""Memory and CPU over time as a small SVG picture, made to stand in an ``<img>``: no script, no link, no font."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from container_magic.display.curve import Point, cpu_curve, memory_curve, scale
from container_magic.display.text import human_bytes, human_seconds
from container_magic.events import Sampled

_Unit = Callable[[float], str]

WIDTH = 480
PANEL_HEIGHT = 60
GAP = 22
"""Pixels above each panel for its title."""
POINTS = 240
"""A curve is drawn with at most so many points: two pixels each."""

# An <img> does not see the page's colours: these can be read on white and on black.
_TEXT = "#808080"
_MEMORY = "#3b82d0"
_CPU = "#d9822b"
_LIMIT = "#d9534f"


def usage_svg(samples: Sequence[Sampled], *, memory_limit_bytes: int | None = None, cpus: float | None = None) -> str:
    """Return the curves as one SVG document, limits as dashed lines where they are near; empty without two samples.

    Args:
        samples: The points of the run.
        memory_limit_bytes: The memory limit.
        cpus: How many CPUs the run could use.
    """
    memory, cpu = memory_curve(samples), cpu_curve(samples)
    panels = [
        *_panel("memory", memory, memory_limit_bytes, _MEMORY, lambda value: human_bytes(int(value))),
        *_panel("CPU", cpu, cpus, _CPU, lambda value: f"{value:.3g} CPUs"),
    ]
    if not panels:
        return ""
    step = PANEL_HEIGHT + GAP
    groups = (f'<g transform="translate(0 {GAP + number * step})">{panel}</g>' for number, panel in enumerate(panels))
    height = len(panels) * step + 4
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="sans-serif" font-size="11" fill="{_TEXT}">{"".join(groups)}</svg>'
    )


def _panel(name: str, points: Sequence[Point], limit: float | None, colour: str, unit: _Unit) -> list[str]:
    if len(points) < 2:
        return []
    highest = max(value for _, value in points)
    top, limited = scale(points, limit)
    title = f"{name}: highest {unit(highest)}{_of(limit, unit)} over {human_seconds(points[-1][0])}"
    curve = _scaled(points, top)
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in curve)
    parts = [
        f'<text x="0" y="-6">{title}</text>',
        f'<polygon points="{curve[0][0]:.1f},{PANEL_HEIGHT} {path} {WIDTH},{PANEL_HEIGHT}" '
        f'fill="{colour}" fill-opacity="0.25"/>',
        f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>',
        f'<line x1="0" y1="{PANEL_HEIGHT}" x2="{WIDTH}" y2="{PANEL_HEIGHT}" stroke="{_TEXT}"/>',
    ]
    if limited and limit is not None:
        y = _y(limit, top)
        dashed = f'stroke="{_LIMIT}" stroke-dasharray="5 4"'
        parts.append(f'<line x1="0" y1="{y:.1f}" x2="{WIDTH}" y2="{y:.1f}" {dashed}/>')
    return ["".join(parts)]


def _of(limit: float | None, unit: _Unit) -> str:
    return "" if limit is None else f" of {unit(limit)}"


def _scaled(points: Sequence[Point], top: float) -> list[Point]:
    end = points[-1][0] or 1.0
    group = -(-len(points) // POINTS)
    highest = [max(points[start : start + group], key=lambda point: point[1]) for start in range(0, len(points), group)]
    return [(time / end * WIDTH, _y(value, top)) for time, value in highest]


def _y(value: float, top: float) -> float:
    return PANEL_HEIGHT * (1 - value / top) if top else float(PANEL_HEIGHT)
