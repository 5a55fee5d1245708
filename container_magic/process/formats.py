"""An object as a MIME bundle, by the methods that notebooks ask it for; standard library only."""

from __future__ import annotations

import io
import sys
from typing import Any

# https://ipython.readthedocs.io/en/stable/config/integrating.html
_METHODS = {
    "text/html": "_repr_html_",
    "text/markdown": "_repr_markdown_",
    "image/svg+xml": "_repr_svg_",
    "image/png": "_repr_png_",
    "image/jpeg": "_repr_jpeg_",
    "text/latex": "_repr_latex_",
    "application/json": "_repr_json_",
    "application/javascript": "_repr_javascript_",
}

Bundle = tuple[dict[str, Any], dict[str, Any]]


def bundle_of(value: Any) -> Bundle:
    """Return data and metadata by MIME type; ``text/plain`` is always there, what fails is left out."""
    data, metadata = _own_bundle(value)
    if not data:
        for name, method in _METHODS.items():
            found, about = _pair(_call(value, method))
            if found is not None:
                data[name] = found
                metadata |= {name: about} if about else {}
    if not data and _is_figure(value):
        data["image/png"] = _drawn(value)
    if "text/plain" not in data:
        data["text/plain"] = _text(value)
    return data, metadata


def open_figures() -> list[Any]:
    """Return matplotlib's figures that are open, if its pyplot was imported, and close them."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is None:
        return []
    figures = [pyplot.figure(number) for number in pyplot.get_fignums()]
    pyplot.close("all")
    return figures


def _own_bundle(value: Any) -> Bundle:
    found, about = _pair(_call(value, "_repr_mimebundle_", include=None, exclude=None))
    return (dict(found), dict(about or {})) if isinstance(found, dict) else ({}, {})


def _pair(found: Any) -> tuple[Any, Any]:
    return found if isinstance(found, tuple) and len(found) == 2 else (found, None)


def _call(value: Any, name: str, **keywords: Any) -> Any:
    # a class has the methods of its instances, which cannot be called on it
    if isinstance(value, type):
        return None
    try:
        method = getattr(value, name, None)
        return method(**keywords) if callable(method) else None
    except Exception:
        return None


def _text(value: Any) -> str:
    try:
        return repr(value)
    except Exception as error:
        return f"<{type(value).__name__}: repr failed: {type(error).__name__}>"


def _is_figure(value: Any) -> bool:
    figure = getattr(sys.modules.get("matplotlib.figure"), "Figure", None)
    return isinstance(figure, type) and isinstance(value, figure)


def _drawn(figure: Any) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", bbox_inches="tight")
    return file.getvalue()
