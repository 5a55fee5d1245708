r"""TeX that MathJax and KaTeX typeset in the page: what of it does more than to set a formula.

``\href{javascript:...}`` is a link that runs script, ``\style`` and ``\bbox`` carry CSS (and so requests), ``\class``
and ``\cssId`` name the page's own, ``\require`` loads extensions, ``\def`` and its kin change the formulas of the
whole notebook, and spaces of any size paint over what stands beside the output.
(https://docs.mathjax.org/en/latest/input/tex/extensions/index.html)
"""

from __future__ import annotations

import re

from container_magic.sanitize.text import RefusedError, text_at_most

LATEX_BYTES = 64 << 10

_REFUSED = (
    "href url html[A-Za-z]* class cssId style data require unicode mmlToken bbox texttip mathtip toggle tooltip "
    "includegraphics input include write def gdef edef xdef let futurelet newcommand renewcommand providecommand "
    "newenvironment renewenvironment DeclareMathOperator DeclarePairedDelimiter[A-Za-z]* Newextarrow definecolor "
    "hspace mspace vspace hskip mskip kern mkern mmlspace hfil[l]* raise lower moveleft moveright rule Rule Space "
    "llap rlap clap mathllap mathrlap mathclap smash vphantom strut lap fontfamily fontsize "
    "csname endcsname catcode expandafter begingroup special loop newif number"
)
REFUSED_MACRO = re.compile(rf"\\(?=(?P<name>{'|'.join(_REFUSED.split())})(?![A-Za-z]))")
"""The backslash of a macro that is not passed on to a page."""

# What nh3 writes: a value in double quotes holds none.
_TAG = re.compile(r'<[^<>"]*+(?:"[^"]*+"[^<>"]*+)*+>')


def safe_latex(value: object) -> str:
    """Return TeX that does nothing but to set a formula.

    Raises:
        RefusedError: It is no text, too long, or has a macro of ``REFUSED_MACRO``.
    """
    text = text_at_most(value, LATEX_BYTES)
    if found := REFUSED_MACRO.search(text):
        raise RefusedError(f"the macro \\{found['name']} may do more than set a formula")
    return text


def defuse(html: str) -> str:
    r"""Return cleaned HTML in which no text can be typeset with a macro of ``REFUSED_MACRO``.

    The page typesets formulas in HTML too. A formula does not reach over a tag, so one around the backslash leaves
    it as text that still can be copied.
    """
    if not REFUSED_MACRO.search(html):
        return html
    pieces, end = [], 0
    for tag in _TAG.finditer(html):
        pieces += [REFUSED_MACRO.sub(r"<span>\\</span>", html[end : tag.start()]), tag[0]]
        end = tag.end()
    return "".join([*pieces, REFUSED_MACRO.sub(r"<span>\\</span>", html[end:])])
