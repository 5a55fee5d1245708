"""Values in the state of widgets, kind by kind: what ipywidgets' views do with them decides what they may be.

Most become text, a number or an attribute. HTML becomes part of the page, descriptions and labels are searched for
formulas, layouts and styles are set as CSS (which could load addresses or cover the page), names of icons and classes
become classes, and tokens that are none stand in the message of an error, which the page shows as HTML.
"""

from __future__ import annotations

import base64
import html as standard_html
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from container_magic.kernel import shape
from container_magic.sanitize.allowed import safe_attribute, safe_value
from container_magic.sanitize.bundle import HtmlMode
from container_magic.sanitize.html import safe_html, text_of
from container_magic.sanitize.images import Pictures
from container_magic.sanitize.mathematics import REFUSED_MACRO
from container_magic.sanitize.text import RefusedError, text_at_most

TEXT_BYTES = 1 << 20
ITEMS = 10_000

Check = Callable[[Any], Any]

_WORDS = frozenset(
    {"", "primary", "success", "info", "warning", "danger", "horizontal", "vertical"}
    | {"drag-tap", "drag-snap", "tap", "drag", "snap"}
)
# a width or precision of more digits would have the page make a text of that length
_D3 = re.compile(r"(?:.?[<>=^])?[-+( ]?[$#]?0?\d{0,2},?(?:\.\d{1,2})?~?[a-zA-Z%]?")
_COLOUR = re.compile(r"[a-zA-Z]{1,30}|#[0-9a-fA-F]{3,8}|(?:rgb|hsl)a?\([0-9a-z.,%/ ]{1,60}\)", re.ASCII)
_LENGTH = re.compile(r"[\w\s#%.,()/+*\"'-]{0,400}", re.ASCII)
_FUNCTION = re.compile(r"([\w-]*)\s*\(")
_FUNCTIONS = frozenset(
    {"rgb", "rgba", "hsl", "hsla", "var", "repeat", "minmax", "fit-content", "min", "max", "clamp", "calc"}
)
_NEGATIVE = re.compile(r"(?<![\w-])-\s*[\d.]|(?<![#\w.])\d{5}|\b(?:fixed|sticky|absolute)\b")
_SIZES = frozenset({"width", "height", "min_width", "max_width", "min_height", "max_height"})
_ICON = re.compile(r"[A-Za-z0-9 -]{0,64}", re.ASCII)
_CLASS = re.compile(r"(?:jupyter-)?widgets?-[a-z-]{1,40}")
_NAME = re.compile(r"[A-Za-z0-9_-]{0,128}", re.ASCII)
_PIXELS = re.compile(r"\d{0,5}(?:px|%)?", re.ASCII)
_MODEL = re.compile(r"IPY_MODEL_([A-Za-z0-9_-]{1,64})", re.ASCII)
_DATE = frozenset({"year", "month", "date", "hours", "minutes", "seconds", "milliseconds"})


def model_id(value: Any) -> str:
    """Return the id that a reference to another model names.

    Raises:
        RefusedError: It is no reference.
    """
    found = _MODEL.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise RefusedError("a reference to a widget is none")
    return found[1]


def text(value: Any) -> str:
    """Return text that is shown as text."""
    if not isinstance(value, str):
        raise RefusedError("its value is not text")
    return text_at_most(value, TEXT_BYTES).replace("\0", "")


def typeset(value: Any) -> str:
    """Return text in which a page looks for formulas: a macro that may do more than set one loses its name."""
    return REFUSED_MACRO.sub("\\\\\u200b", text(value))


def html(value: Any, mode: HtmlMode) -> str:
    """Return HTML for the page; a frame with scripts is for outputs only."""
    given = text(value)
    if not given.strip():
        return ""
    cleaned, _ = safe_html(given, Pictures())
    return standard_html.escape(text_of(cleaned), quote=False) if mode == "text" else cleaned


def number(value: Any) -> float:
    """Return a number that JSON has."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or shape.number(None)(value) is None:
        raise RefusedError("its value is no number")
    return value


def length(key: str, value: Any) -> str:
    """Return a value of a layout, which is set as CSS."""
    given = text(value)
    functions = set(_FUNCTION.findall(given))
    if not _LENGTH.fullmatch(given) or not functions <= _FUNCTIONS or ("calc" in functions and key not in _SIZES):
        raise RefusedError(f"the layout's {key} is not one that is safe")
    if _NEGATIVE.search(given.lower()) and "calc" not in functions:
        raise RefusedError(f"the layout's {key} would cover what stands beside it")
    return given


def picture(value: Any) -> tuple[str, bytes]:
    """Return the format and the bytes of a picture, encoded anew."""
    data = bytes(value)
    for magic, mime in ((b"\x89PNG", "image/png"), (b"\xff\xd8", "image/jpeg"), (b"GIF8", "image/gif")):
        if data.startswith(magic):
            shown_as, encoded = Pictures().encode_anew(mime, data)
            return shown_as.removeprefix("image/"), base64.b64decode(encoded)
    raise RefusedError("a widget's picture is neither PNG, JPEG nor GIF")


def checks(mode: HtmlMode) -> dict[str, Check]:
    """Return the check of every kind that needs nothing but the value."""
    return {
        "background": _matching(_COLOUR),
        "classes": _classes,
        "colour": _matching(_COLOUR),
        "colours": _list(_matching(_COLOUR)),
        "css": _css,
        "d3": _matching(_D3),
        "date": _date,
        "flag": _flag,
        "html": lambda value: html(value, mode),
        "icon": _matching(_ICON),
        "icons": _list(_matching(_ICON)),
        "indices": _list(number),
        "model": lambda value: f"IPY_MODEL_{model_id(value)}",
        "models": _list(lambda value: f"IPY_MODEL_{model_id(value)}"),
        "name": _matching(_NAME),
        "number": number,
        "numbers": _list(number),
        "pixels": _matching(_PIXELS),
        "step": lambda value: value if value == "any" else number(value),
        "text": text,
        "texts": _list(text),
        "typeset": typeset,
        "word": _word,
    }


def may_follow(source: str, target: str) -> bool:
    """Return whether a link may copy values of the kind ``source``, which the page does itself, to a ``target``.

    What a view renders must not come from where the user, or the code, writes plain text.
    """
    simple = {"number", "flag"}
    if source in simple:
        return target in simple | {"text", "typeset"}
    if target == "text":
        return source in {"text", "typeset", "colour"}
    return source == target and source in {"typeset", "colour", "numbers", "indices", "texts", "date", "word"}


def _matching(pattern: re.Pattern[str]) -> Check:
    def check(value: Any) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise RefusedError("its value is not one that is safe")
        return value

    return check


def _list(inner: Check) -> Check:
    def check(value: Any) -> list[Any]:
        if not isinstance(value, (list, tuple)) or len(value) > ITEMS:
            raise RefusedError("its value is no list, or too long")
        room = TEXT_BYTES
        checked = []
        for item in value:
            checked.append(inner(item))
            room -= len(item) if isinstance(item, str) else 0
            if room < 0:
                raise RefusedError(f"it has more than {TEXT_BYTES:,} characters of text")
        return checked

    return check


def _classes(value: Any) -> list[str]:
    names = shape.strings(value)[:100]
    return [name for name in names if _CLASS.fullmatch(name) or safe_attribute("class", name) == name]


def _css(value: Any) -> str:
    given = text(value)
    if given and not safe_value(given.lower()):
        raise RefusedError("its value is not one that is safe")
    return given


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise RefusedError("its value is neither true nor false")
    return value


def _word(value: Any) -> str:
    if not isinstance(value, str) or value not in _WORDS:
        raise RefusedError("its value is unknown")
    return value


def _date(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not set(value) <= _DATE:
        raise RefusedError("its value is no date")
    parts = {name: number(part) for name, part in value.items()}
    if not all(math.isfinite(part) and abs(part) < 1e6 for part in parts.values()):
        raise RefusedError("its value is no date")
    return parts
