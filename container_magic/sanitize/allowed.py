"""What of HTML may stand in the page: tags, attributes and their values, style properties and their values, classes.

Everything is an allow-list. ``id``, ``name`` and ``data-*`` are not on it: the page looks elements up by them, and
Jupyter runs commands that they name (CVE-2024-43805). Neither are classes that the page gives a meaning.
"""

from __future__ import annotations

import re
from collections.abc import Callable


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


INLINE = _words(
    "a abbr b bdi cite code del dfn em font i img ins kbd mark q s samp small span strike strong sub sup tt u var"
)
VOID = _words("br hr img col")
HEADINGS = _words("h1 h2 h3 h4 h5 h6")
_BLOCKS = _words(
    "address article aside blockquote caption center colgroup dd details div dl dt figcaption figure footer header li"
    " main ol p pre section summary table tbody td tfoot th thead tr ul"
)
TAGS = INLINE | VOID | HEADINGS | _BLOCKS

ATTRIBUTES = {
    "*": frozenset({"align", "class", "dir", "style", "title", "valign"}),
    "a": frozenset({"href"}),
    "col": frozenset({"span"}),
    "colgroup": frozenset({"span"}),
    "details": frozenset({"open"}),
    "font": frozenset({"color"}),
    "img": frozenset({"alt", "height", "src", "width"}),
    "ol": frozenset({"start", "type"}),
    "table": frozenset({"border"}),
    "td": frozenset({"colspan", "rowspan"}),
    "th": frozenset({"colspan", "rowspan", "scope"}),
}

# pandas, statsmodels, Pygments; see test_sanitize_html.py for what is not here
_CLASS = re.compile(
    r"dataframe|data|blank|index_name|col_heading|row_heading|null|simpletable|docutils|highlight|source|table"
    r"|(?:level|row|col|col_trim|row_trim)\d{0,6}|language-[a-z0-9+#-]{1,20}|[a-z][a-z0-9]{0,1}"
)
_LINK = re.compile(r"(?:https?://|mailto:)[^\s\x00-\x20\x7f<>\"'`\\]{1,2048}", re.IGNORECASE)
_SIZE = re.compile(r"\d{1,4}%?")
_WORD = re.compile(r"[#a-zA-Z0-9]{1,32}")

_PROPERTY = re.compile(
    r"(?:background|background-color|color|display|font-family|font-size|font-style|font-variant|font-weight|opacity"
    r"|overflow|overflow-x|overflow-y|text-align|text-decoration(?:-color)?|text-transform|vertical-align|visibility|white-space"
    r"|word-break|border-collapse|border-spacing|(?:min-|max-)?(?:width|height)"
    r"|(?:margin|padding)(?:-(?:top|right|bottom|left))?"
    r"|border(?:-(?:top|right|bottom|left))?(?:-(?:color|style|width|radius))?|caption-side|list-style-type)"
)
# No quote, backslash, comment, colon or at-sign: nothing that could begin a URL, an escape or another declaration.
_STYLE_VALUE = re.compile(r"[\w\s#%.,()+-]{1,400}", re.ASCII)
_FUNCTION = re.compile(r"([\w-]*)\s*\(")
_FUNCTIONS = frozenset({"rgb", "rgba", "hsl", "hsla", "linear-gradient"})
_OUT_OF_PLACE = re.compile(r"(?<![\w-])-[\d.]|(?<![#\w.])\d{5}|(?:fixed|sticky|absolute)")
"""Negative lengths reach over what stands beside; lengths of five digits are no layout."""

STYLE_CHARACTERS = 8192


def safe_style(style: str) -> str | None:
    """Return the allowed declarations of a ``style`` attribute; None when there is none."""
    kept = []
    for declaration in style[:STYLE_CHARACTERS].split(";"):
        name, colon, value = declaration.partition(":")
        name, value = name.strip().lower(), value.strip().lower()
        if name == "font-family":
            value = value.replace('"', "").replace("'", "")
        if colon and _PROPERTY.fullmatch(name) and safe_value(value):
            kept.append(f"{name}: {value}")
    return "; ".join(kept) or None


def safe_attribute(name: str, value: str) -> str | None:
    """Return what the attribute may say; None when it has to go. An ``<img>``'s ``src`` is not decided here."""
    if name in {"title", "alt"}:
        return value[:1000]
    if name == "class":
        return " ".join(word for word in value[:1000].split() if _CLASS.fullmatch(word)) or None
    checked = _CHECKS.get(name)
    return checked(value.strip()) if checked else None


def safe_value(value: str) -> bool:
    """Return whether the value of a style property, in lower case, is one that loads nothing and covers nothing."""
    if not _STYLE_VALUE.fullmatch(value) or _OUT_OF_PLACE.search(value):
        return False
    return set(_FUNCTION.findall(value)) <= _FUNCTIONS


def _matching(pattern: re.Pattern[str]) -> Callable[[str], str | None]:
    return lambda value: value if pattern.fullmatch(value) else None


_CHECKS: dict[str, Callable[[str], str | None]] = {
    # what nh3 itself sets for links passes here, too
    "rel": _matching(re.compile("noopener noreferrer")),
    "target": _matching(re.compile("_blank")),
    "style": safe_style,
    "href": _matching(_LINK),
    "open": lambda _: "",
    **dict.fromkeys(("border", "colspan", "height", "rowspan", "span", "start", "width"), _matching(_SIZE)),
    **dict.fromkeys(("align", "color", "dir", "scope", "type", "valign"), _matching(_WORD)),
}
