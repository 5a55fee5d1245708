"""Outputs of cells: bundles and errors through the one filter that there is, widgets by their own rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from container_magic.kernel import shape
from container_magic.sanitize.bundle import HtmlMode, sanitize_bundle
from container_magic.sanitize.text import sanitize_traceback

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
WIDGETS_OFF = "widgets are off: contain kernel install --allow-widgets"
DISPLAY_ID_CHARACTERS = 256

_error = shape.record({"ename": shape.plain(), "evalue": shape.styled(64 << 10)})


class Outputs:
    """Cleans bundles.

    Args:
        html: What becomes of HTML.
        is_widget: Says whether a model id is one of a widget that may be shown; None when none may.
        note: Takes a sentence for the user.
    """

    def __init__(self, html: HtmlMode, is_widget: Callable[[str], bool] | None, note: Callable[[str], None]) -> None:
        self._html = html
        self._is_widget = is_widget
        self._note = note

    def bundle(self, data: Any, metadata: Any) -> dict[str, Any]:
        """Return the ``data`` and ``metadata`` of a bundle that may be shown."""
        given = dict(data) if isinstance(data, Mapping) else {}
        view = self._view(given.pop(WIDGET_VIEW)) if WIDGET_VIEW in given else None
        if not given and view is not None:
            given = {"text/plain": "a widget"}
        clean = sanitize_bundle(given, metadata if isinstance(metadata, Mapping) else {}, mode=self._html)
        for note in clean.notes:
            self._note(note)
        shown = clean.data if view is None else clean.data | {WIDGET_VIEW: view}
        return {"data": shown, "metadata": clean.metadata}

    def _view(self, value: Any) -> dict[str, Any] | None:
        model = value.get("model_id") if isinstance(value, Mapping) else None
        if self._is_widget is None:
            self._note(WIDGETS_OFF)
        elif isinstance(model, str) and self._is_widget(model):
            return {"version_major": 2, "version_minor": 0, "model_id": model}
        else:
            self._note("a widget was not shown: it is not one of ipywidgets' own")
        return None

    def display(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Return the content of ``display_data`` and ``update_display_data``."""
        clean = self.bundle(content.get("data"), content.get("metadata"))
        return clean | {"transient": _transient(content.get("transient"))}

    def result(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Return the content of ``execute_result``."""
        clean = (
            self.display(content)
            if "transient" in content
            else self.bundle(content.get("data"), content.get("metadata"))
        )
        return clean | {"execution_count": shape.integer(0)(content.get("execution_count"))}

    def error(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of an error."""
        lines = shape.strings(content.get("traceback"))
        return {**_error(content), "traceback": sanitize_traceback(lines)}

    def stored(self, output: Any) -> dict[str, Any] | None:
        """Return an output as a notebook stores it; None when it is of no known type."""
        if not isinstance(output, Mapping):
            return None
        kind = output.get("output_type")
        if kind == "stream":
            return {"output_type": "stream", **_stored_stream(output)}
        if kind == "error":
            return {"output_type": "error", **self.error(output)}
        if kind not in ("display_data", "execute_result"):
            return None
        clean = {"output_type": kind, **self.bundle(output.get("data"), output.get("metadata"))}
        if kind == "execute_result":
            clean["execution_count"] = shape.integer(0, default=None)(output.get("execution_count"))
        return clean


_stored_stream = shape.record({"name": shape.one_of("stdout", "stderr"), "text": shape.styled()})


def _transient(value: Any) -> dict[str, Any]:
    name = value.get("display_id") if isinstance(value, Mapping) else None
    if not isinstance(name, str) or not name:
        return {}
    return {"display_id": shape.plain(DISPLAY_ID_CHARACTERS)(name)}
