"""Contained text -> text that is safe on a page and in a terminal.

Of the escape sequences of ECMA-48 and xterm (https://invisible-island.net/xterm/ctlseqs/ctlseqs.html) the colours
and styles (SGR) pass. Cursor moves, titles, links, device control, private modes and the other controls are dropped:
with them contained code could paint over what the notebook or the shell says, or make a terminal answer as if the
user had typed.
"""

from __future__ import annotations

import re

STRING_LIMIT = 4096
"""Characters of an OSC, DCS or similar string; one that is longer is no string: its text is shown as text."""

# A pattern begins with this class, so that the search skips text at full speed; what follows looks back at it.
_CONTROL = r"[\x01-\x07\x0b\x0c\x0e-\x1f\x7f-\x9f]"
_CSI = r"(?:(?<=\x1b)\[|(?<=\x9b))"
_CSI_BODY = r"[0-?]{0,256}+[ -/]{0,16}+"
_STRING = r"(?:(?<=\x1b)[\]PX^_]|(?<=[\x90\x98\x9d-\x9f]))"
# No control but those of layout, hence no second introducer: scanning stays linear whatever is thrown at it.
_STRING_BODY = rf"[^\x00-\x07\x0e-\x1f\x7f-\x9f]{{0,{STRING_LIMIT}}}+"

_WHOLE = rf"""
    (?P<sgr>{_CSI}(?P<parameters>[0-9;:]{{0,256}}+)m)
  | {_CSI}{_CSI_BODY}[@-~]
  | {_STRING}{_STRING_BODY}(?:\x1b\\|\x07|\x9c)
  | (?<=\x1b)[ -/]{{1,16}}+[0-~]
  | (?<=\x1b)(?![\[\]PX^_])[0-~]
"""
_UNFINISHED = rf"(?P<unfinished>(?:{_CSI}{_CSI_BODY}|{_STRING}{_STRING_BODY}\x1b?|(?<=\x1b)[ -/]{{0,16}}+)\Z)"
# the last, empty alternative: what is no whole sequence loses its control, and the rest of it is text
_INSIDE = re.compile(f"{_CONTROL}(?:{_WHOLE}|{_UNFINISHED}|)", re.VERBOSE)
_AT_END = re.compile(f"{_CONTROL}(?:{_WHOLE}|)", re.VERBOSE)
_RESET_PARAMETERS = re.compile(r"(?:.*;)?0*\Z")
_SGR_RESET = "\x1b[0m"


def safe_text(text: str) -> str:
    """Return ``text`` with its escape sequences reduced to colours and styles."""
    filtered = EscapeFilter()
    return filtered.feed(text) + filtered.finish()


def plain_text(text: str) -> str:
    """Return ``text`` without any escape sequence."""
    return re.sub(r"\x1b\[[0-9;:]*m", "", safe_text(text))


class EscapeFilter:
    """Reduces escape sequences in text that comes in pieces; the cuts make no difference to the result."""

    def __init__(self) -> None:
        self._unfinished = ""
        self._styled = False

    def feed(self, text: str) -> str:
        """Return what is safe of ``text``; an unfinished sequence at its end waits for the next call."""
        text, self._unfinished = self._unfinished + text, ""
        return _INSIDE.sub(self._replace, text)

    def break_off(self) -> str:
        """Return what is left of an unfinished sequence whose rest will not come."""
        text, self._unfinished = self._unfinished, ""
        return _AT_END.sub(self._replace, text)

    def finish(self) -> str:
        """Return the rest, and end a style that is still on so that it does not colour what follows."""
        text = self.break_off()
        styled, self._styled = self._styled, False
        return text + (_SGR_RESET if styled else "")

    def _replace(self, match: re.Match[str]) -> str:
        if match.lastgroup == "sgr":
            self._styled = _RESET_PARAMETERS.match(match["parameters"]) is None
            return f"\x1b[{match['parameters']}m"
        if match.lastgroup == "unfinished":
            self._unfinished = match[0]
            return ""
        return "\n" if match[0] in "\x0b\x0c" else ""
