"""A MIME bundle of contained code -> one that may be shown, with a sentence for everything that is not."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field
from typing import Any, Literal

from container_magic.deferred import dataclass
from container_magic.sanitize.data import picture_metadata, pixels, safe_json
from container_magic.sanitize.frame import framed
from container_magic.sanitize.html import safe_html, safe_markdown, shows_something, text_of
from container_magic.sanitize.images import Pictures, svg_image
from container_magic.sanitize.mathematics import safe_latex
from container_magic.sanitize.text import RefusedError, shown_text

HtmlMode = Literal["text", "safe", "iframe"]
"""``text``: text and pictures only; ``safe``: cleaned HTML; ``iframe``: HTML with its scripts in a frame cut off."""

NAMES_LOOKED_AT = 256
NOTES = 16

_TEXT, _HTML, _SVG = "text/plain", "text/html", "image/svg+xml"
_MARKDOWN, _LATEX, _JSON = "text/markdown", "text/latex", "application/json"
_PICTURES = ("image/png", "image/jpeg", "image/gif")
_NAME = re.compile(r"[a-z]{1,20}/[A-Za-z0-9.+_-]{1,80}")


@dataclass(frozen=True, kw_only=True)
class Clean:
    """What of a bundle may be shown, in nbformat's shape, and one sentence for each thing that is missing."""

    data: dict[str, Any]
    metadata: dict[str, Any]
    notes: tuple[str, ...] = ()


def sanitize_bundle(data: Mapping[str, Any], metadata: Mapping[str, Any], *, mode: HtmlMode) -> Clean:
    """Return what of ``data`` and ``metadata`` is safe in a page; whatever they hold, this raises nothing.

    ``data`` maps MIME types to values (pictures as bytes or base64 text). The result has at least ``text/plain``,
    if need be with the notes.
    """
    work = _Work(data=data, metadata=metadata, mode=mode)
    for mime, render in _RENDERERS.items():
        if mime in data:
            work.attempt(mime, render)
    work.note_unknown()
    notes = _limited(work.notes)
    if not work.clean:
        work.clean[_TEXT] = "\n".join(notes)
    return Clean(data=work.clean, metadata=work.clean_metadata, notes=notes)


@dataclass(kw_only=True)
class _Work:
    """One bundle on its way through the renderers."""

    data: Mapping[str, Any]
    metadata: Mapping[str, Any]
    mode: HtmlMode
    clean: dict[str, Any] = field(default_factory=dict)
    clean_metadata: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    pictures: Pictures = field(default_factory=Pictures)

    def attempt(self, mime: str, render: Callable[[_Work, object], None]) -> None:
        """Show one representation, or note why not: one that cannot be cleaned is never shown as it came."""
        try:
            render(self, self.data[mime])
        except RefusedError as refused:
            self.note(mime, refused.message)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # a panic inside nh3 derives from BaseException
            self.note(mime, "it could not be cleaned")

    def note(self, mime: str, reason: str) -> None:
        hint = ""
        if self.mode == "safe" and mime != _TEXT and _HTML in self.data and mime.startswith(("text/html", "applic")):
            hint = "; --html iframe shows the HTML of this output in a frame of its own"
        self.notes.append(f"{mime} was not shown: {reason}{hint}")

    def note_unknown(self) -> None:
        """Note the types that have no renderer, but for those which a frame with their HTML stands for."""
        unknown = 0
        for looked_at, name in enumerate(self.data):
            if isinstance(name, str) and name in _RENDERERS:
                continue
            if looked_at >= NAMES_LOOKED_AT or not isinstance(name, str) or not _NAME.fullmatch(name):
                unknown += 1
            elif not (self.mode == "iframe" and _HTML in self.clean and name.startswith("application/")):
                self.note(name, _why_not(name))
        if unknown:
            self.notes.append(f"{unknown:,} representations were not shown: their MIME types are none that are known")

    def set_text(self, text: str) -> None:
        """Show ``text`` unless the bundle brought its own."""
        if not self.clean.get(_TEXT):
            self.clean[_TEXT] = shown_text(text)


def _plain(work: _Work, value: object) -> None:
    work.clean[_TEXT] = shown_text(value)


def _html(work: _Work, value: object) -> None:
    if work.mode == "iframe":
        sizes = {name: pixels(work.metadata, _HTML, name) for name in ("width", "height")}
        work.clean[_HTML] = framed(value, width=sizes["width"], height=sizes["height"])
        return
    if work.mode == "text" and work.clean.get(_TEXT):
        return
    cleaned, missing = safe_html(value, work.pictures)
    if work.mode == "text":
        work.set_text(text_of(cleaned))
        return
    work.clean[_HTML] = cleaned
    if missing:
        hint = "; --html iframe runs them in a frame of its own" if missing[0].endswith("scripts") else ""
        work.notes.append(f"{_HTML} is shown {' and '.join(missing)}{hint}")


def _svg(work: _Work, value: object) -> None:
    sizes = {name: pixels(work.metadata, _SVG, name) for name in ("width", "height")}
    image = svg_image(value, width=sizes["width"], height=sizes["height"])
    work.clean.setdefault(_HTML, image)


def _markdown(work: _Work, value: object) -> None:
    work.set_text(shown_text(value))
    if work.mode == "text" or _HTML in work.clean:
        return
    cleaned = safe_markdown(value, work.pictures)
    if shows_something(cleaned):
        work.clean[_HTML] = cleaned


def _latex(work: _Work, value: object) -> None:
    work.set_text(shown_text(value))
    if work.mode != "text":
        work.clean[_LATEX] = safe_latex(value)


def _picture(mime: str) -> Callable[[_Work, object], None]:
    def render(work: _Work, value: object) -> None:
        shown_as, encoded = work.pictures.encode_anew(mime, value)
        if shown_as != mime:
            if shown_as in work.clean:
                return
            work.notes.append(f"{mime} is shown as a still picture")
        work.clean[shown_as] = encoded
        if kept := picture_metadata(work.metadata, mime):
            work.clean_metadata[shown_as] = kept

    return render


def _json(work: _Work, value: object) -> None:
    work.clean[_JSON] = safe_json(value)


_RENDERERS: dict[str, Callable[[_Work, object], None]] = {
    _TEXT: _plain,
    _HTML: _html,
    _SVG: _svg,
    _MARKDOWN: _markdown,
    _LATEX: _latex,
    **{mime: _picture(mime) for mime in _PICTURES},
    _JSON: _json,
}


def _why_not(mime: str) -> str:
    if "javascript" in mime or "ecmascript" in mime:
        return "contained code may not run script in the page"
    if mime.startswith("application/vnd.jupyter.widget"):
        return "a widget would run script in the page and talk to it"
    if mime.startswith("application/vnd."):
        return "what draws it is script in the page"
    return "it is not among the types that can be made safe"


def _limited(notes: Iterable[str]) -> tuple[str, ...]:
    found = tuple(notes)
    if len(found) <= NOTES:
        return found
    return (*found[:NOTES], f"{len(found) - NOTES:,} further representations were not shown")
