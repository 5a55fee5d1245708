"""Any HTML -> well-nested HTML of allowed tags, in linear time; what is safe in it is decided afterwards, by nh3.

A parser that follows the HTML standard is quadratic, and worse, in input that is made for it: every unclosed
``<b>`` is opened anew in each paragraph that follows, every end tag looks through all that is open. Ten kilobytes
would cost gigabytes. So what nh3 gets is balanced, shallow, without comments, raw text, or foreign elements.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import field

from container_magic.deferred import dataclass
from container_magic.sanitize.allowed import ATTRIBUTES, HEADINGS, INLINE, TAGS, VOID
from container_magic.sanitize.text import RefusedError

MAX_TAGS = 100_000
MAX_DEPTH = 64
MAX_ATTRIBUTES = 64
INLINED_CHARACTERS = 32 << 20
"""What rules of ``<style>`` may add to the text when they move to their elements."""

# Their content is no markup, or markup of another world.
_OPAQUE = (
    "applet|audio|canvas|frameset|iframe|math|noembed|noframes|noscript|object|script|select|style|svg"
    "|template|textarea|title|video|xmp"
)
_TOKEN = re.compile(
    rf"""
    <!--(?:.*?-->|.*)
  | <(?P<opaque>{_OPAQUE})(?=[\s/>])(?P<inside>.*?)(?:</(?P=opaque)(?=[\s/>])[^>]*+(?:>|\Z)|\Z)
  | <(?P<slash>/?)(?P<name>[a-z][a-z0-9:-]*+)
    (?P<attributes>(?:[^>=]++|=\s*+"[^"]*+(?:"|\Z)|=\s*+'[^']*+(?:'|\Z)|=)*+)(?:>|\Z)
  | <[!/?][^>]*+(?:>|\Z)
    """,
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
_ATTRIBUTE = re.compile(r"""([a-z-]++)(?:\s*+=\s*+(?:"([^"]*+)"?|'([^']*+)'?|([^\s"'>]++)))?+""", re.IGNORECASE)

_TABLE_PARTS = frozenset({"thead", "tbody", "tfoot"})
# Where only these may stand; a parser would move everything else out in front of the table.
_CHILDREN = {
    "table": _TABLE_PARTS | {"caption", "colgroup", "col", "tr"},
    **dict.fromkeys(_TABLE_PARTS, frozenset({"tr"})),
    "tr": frozenset({"td", "th"}),
    "colgroup": frozenset({"col"}),
}
_INNER = frozenset().union(*_CHILDREN.values())
_CELLS = frozenset({"table", "td", "th", "caption"})
_SECTIONS = _TABLE_PARTS | {"caption", "colgroup"}
_ENDS = {
    "li": (frozenset({"li"}), _CELLS | {"ul", "ol"}),
    **dict.fromkeys(("dt", "dd"), (frozenset({"dt", "dd"}), _CELLS | {"dl"})),
    **dict.fromkeys(("td", "th"), (frozenset({"td", "th", "caption"}), frozenset({"table", "tr"}))),
    "tr": (frozenset({"tr", "caption", "colgroup"}), frozenset({"table"})),
    **dict.fromkeys(_SECTIONS, (_SECTIONS, frozenset({"table"}))),
    **dict.fromkeys(HEADINGS, (HEADINGS | {"p"}, _CELLS)),
}
"""Which open elements a start tag ends by itself, and beyond which one it does not look."""


def well_nested(html: str) -> str:
    """Return the allowed tags and the text of ``html``, every element closed where it ends.

    Rules of its ``<style>`` elements for single ids, as pandas' Styler writes them, move to the elements.

    Raises:
        RefusedError: It has more than ``MAX_TAGS`` tags.
    """
    writer = _Writer()
    end, count = 0, 0
    for count, token in enumerate(_TOKEN.finditer(html), 1):
        if count > MAX_TAGS:
            raise RefusedError(f"it has more than {MAX_TAGS:,} tags")
        writer.text(html[end : token.start()])
        end = token.end()
        if token["name"]:
            writer.tag(token["name"].lower(), token["attributes"], is_end=bool(token["slash"]))
        elif token["opaque"] and token["opaque"].lower() == "style":
            writer.rules.update(_rules_by_id(token["inside"].partition(">")[2]))
    writer.text(html[end:])
    writer.close_down_to(0)
    return "".join(writer.pieces)


@dataclass(kw_only=True)
class _Writer:
    """Writes tags so that at any place what is open is what stands in ``open``."""

    pieces: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    rules: dict[str, str] = field(default_factory=dict)
    inlined: int = 0

    def text(self, text: str) -> None:
        self.pieces.append(text.replace("<", "&lt;").replace("\0", ""))

    def tag(self, name: str, attributes: str, *, is_end: bool) -> None:
        if name not in TAGS:
            return
        if is_end:
            if name in self.open[self._scope(name) :]:
                self.close_down_to(len(self.open) - 1 - self.open[::-1].index(name))
            return
        self._make_room(name)
        if self._fits(name):
            self.pieces.append(f"<{name}{self._written(name, attributes)}>")
            if name not in VOID:
                self.open.append(name)

    def close_down_to(self, depth: int) -> None:
        while len(self.open) > depth:
            self.pieces.append(f"</{self.open.pop()}>")

    def _scope(self, name: str) -> int:
        """Return from where on an end tag looks for its element: not beyond the cell it stands in."""
        if name in _CHILDREN or name in _INNER:
            return 0
        return self._last(_CELLS) + 1

    def _last(self, names: frozenset[str], beyond: frozenset[str] = frozenset()) -> int:
        for place in range(len(self.open) - 1, -1, -1):
            if self.open[place] in names:
                return place
            if self.open[place] in beyond:
                break
        return -1

    def _make_room(self, name: str) -> None:
        if name in _ENDS:
            ended = self._last(*_ENDS[name])
        elif name not in INLINE and name != "br":
            ended = self._last(frozenset({"p"}), _CELLS)
        else:
            ended = -1
        if ended >= 0:
            self.close_down_to(ended)

    def _fits(self, name: str) -> bool:
        parent = self.open[-1] if self.open else ""
        if len(self.open) >= MAX_DEPTH or (name == "a" and "a" in self.open):
            return False
        if parent in _CHILDREN:
            return name in _CHILDREN[parent]
        return name not in _INNER

    def _written(self, name: str, attributes: str) -> str:
        found: dict[str, str] = {}
        for key, value in _attributes(attributes):
            if key == "id" or key in ATTRIBUTES["*"] or key in ATTRIBUTES.get(name, ()):
                found.setdefault(key, value)
        if rule := self.rules.get(found.pop("id", "")):
            self.inlined += len(rule)
            if self.inlined <= INLINED_CHARACTERS:
                found["style"] = f"{found.get('style', '')};{rule}"
        return "".join(f' {key}="{value.replace(chr(34), "&quot;")}"' for key, value in found.items())


def _attributes(text: str) -> Iterator[tuple[str, str]]:
    for count, found in enumerate(_ATTRIBUTE.finditer(text)):
        if count >= MAX_ATTRIBUTES:
            return
        yield found[1].lower(), (found[2] or found[3] or found[4] or "").replace("\0", "")


def _rules_by_id(css: str) -> dict[str, str]:
    """Return the declarations that a flat style sheet makes for single ids."""
    rules: dict[str, str] = {}
    room = INLINED_CHARACTERS
    for rule in css.split("}"):
        selectors, _, declarations = rule.partition("{")
        declarations = " ".join(declarations.split())
        if len(declarations) > 512 or '"' in declarations:
            continue
        for name in (selector.strip()[1:] for selector in selectors.split(",") if selector.strip().startswith("#")):
            room -= 1024
            if room >= 0 and name.replace("_", "").isalnum():
                rules[name] = f"{rules.get(name, '')[:512]}{declarations};"
    return rules
