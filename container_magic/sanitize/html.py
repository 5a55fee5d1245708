"""HTML and Markdown of contained code -> HTML that runs nothing, requests nothing and looks like nothing of the page's.

Two allow-lists in a row: ``markup`` makes the text well-nested, and nh3, which parses as browsers do, decides.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from container_magic.sanitize import allowed
from container_magic.sanitize.images import FORMATS, Pictures
from container_magic.sanitize.markup import well_nested
from container_magic.sanitize.mathematics import defuse
from container_magic.sanitize.text import RefusedError, text_at_most

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

HTML_BYTES = 4 << 20
MARKDOWN_BYTES = 128 << 10

_DATA_URL = re.compile(r"data:(image/(?:png|jpeg|gif));base64,", re.IGNORECASE)
_SCRIPTED = re.compile(r"<(?:script|iframe)\b", re.IGNORECASE)
_LINE_END = re.compile(r"<br>|</(?:p|div|tr|li|h[1-6]|pre|table|dt|dd|caption|summary)>")
_CELL_END = re.compile(r"</t[dh]>")
_BLANKS = re.compile(r"\s+")
_ANY_TAG = re.compile(r"<[^>]*>")
_SHOWS_SOMETHING = re.compile(r"<img[^>]* src=|<hr")


def safe_html(value: object, pictures: Pictures) -> tuple[str, list[str]]:
    """Return what may stand in the page, and what is missing in it, as ends of the sentence "text/html is shown ...".

    Raises:
        RefusedError: It is no text, too large, or nothing is left of it.
    """
    html = text_at_most(value, HTML_BYTES)
    cleaner = _Cleaner(pictures)
    cleaned = cleaner.clean(html)
    missing = ["without its scripts"] if _SCRIPTED.search(html) else []
    if not shows_something(cleaned):
        raise RefusedError(f"nothing is left of it without its {'scripts' if missing else 'markup'}")
    if cleaner.left_out:
        missing.append(f"without {cleaner.left_out} of its pictures")
    return cleaned, missing


def safe_markdown(value: object, pictures: Pictures) -> str:
    """Return Markdown as HTML, cleaned as HTML is; it is rendered here, so that no renderer of the page sees it.

    Raises:
        RefusedError: It is no text, or too large.
    """
    return _Cleaner(pictures).clean(_markdown().render(text_at_most(value, MARKDOWN_BYTES)))


def text_of(html: str) -> str:
    """Return the text of cleaned HTML, a line for each row and paragraph."""
    preformatted = "<pre" in html
    if not preformatted:
        html = _BLANKS.sub(" ", html)
    lines = _ANY_TAG.sub("", _CELL_END.sub("\t", _LINE_END.sub("\n", html)))
    for entity, character in (("&nbsp;", " "), ("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&amp;", "&")):
        lines = lines.replace(entity, character)
    stripped = str.rstrip if preformatted else str.strip
    return "\n".join(stripped(line) for line in lines.splitlines() if line.strip())


def shows_something(html: str) -> bool:
    """Return whether cleaned HTML has text or a picture."""
    return bool(_SHOWS_SOMETHING.search(html) or text_of(html))


class _Cleaner:
    """One call of nh3; counts the pictures that it left out."""

    def __init__(self, pictures: Pictures) -> None:
        self._pictures = pictures
        self._unfinished = 0
        self.left_out = 0

    def clean(self, html: str) -> str:
        import nh3

        cleaned: str = nh3.clean(
            well_nested(html),
            tags=set(allowed.TAGS),
            attributes={tag: set(names) for tag, names in allowed.ATTRIBUTES.items()},
            attribute_filter=self._attribute,
            clean_content_tags={"script", "style"},
            url_schemes={"http", "https", "mailto", "data"},
            link_rel="noopener noreferrer",
            set_tag_attribute_values={"a": {"target": "_blank"}},
        )
        if self._unfinished:
            raise RefusedError("cleaning it was interrupted")
        return defuse(cleaned)

    def _attribute(self, _tag: str, name: str, value: str) -> str | None:
        # nh3 keeps an attribute whose filter raises, be it by an interrupt of the user: then nothing is believed
        self._unfinished += 1
        kept = self._source(value) if name == "src" else allowed.safe_attribute(name, value)
        self._unfinished -= 1
        return kept

    def _source(self, value: str) -> str | None:
        found = _DATA_URL.match(value)
        try:
            if found and found[1].lower() in FORMATS:
                mime, data = self._pictures.encode_anew(found[1].lower(), value[found.end() :])
                return f"data:{mime};base64,{data}"
        except RefusedError:
            pass
        self.left_out += 1
        return None


@functools.cache
def _markdown() -> MarkdownIt:
    """Return the renderer: CommonMark with tables and TeX, which is left as it is for the page to typeset."""
    from markdown_it import MarkdownIt
    from mdit_py_plugins.dollarmath import dollarmath_plugin

    made = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    made.use(dollarmath_plugin, double_inline=True, allow_labels=False)
    for rule, dollars in (("math_inline", "$"), ("math_inline_double", "$$"), ("math_block", "$$")):
        made.add_render_rule(rule, _math_between(dollars))
    return made


def _math_between(dollars: str) -> Callable[..., str]:
    def render(_renderer: Any, tokens: Any, index: int, _options: Any, _env: Any) -> str:
        content = tokens[index].content.replace("&", "&amp;").replace("<", "&lt;")
        return f"{dollars}{content}{dollars}"

    return render
