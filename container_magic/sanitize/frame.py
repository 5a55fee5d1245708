"""HTML with its scripts, in a frame that is cut off from the page and from the network.

``sandbox="allow-scripts"`` without ``allow-same-origin``: an origin of its own, no storage, no cookies, no forms, no
popups, no downloads, no dialogs, no navigation of the page. The content security policy forbids every request.

A policy does not stop a frame from navigating itself, which is a request, too. What stops that is the ``frame-src``
of the document *around* it (https://www.w3.org/TR/CSP3/#frame-src-navigate). So there are two frames: the outer
one holds nothing but the policy and the inner one; the inner one holds the HTML.
"""

from __future__ import annotations

import html as standard_html

from container_magic.sanitize.text import text_at_most

FRAME_BYTES = 16 << 20
DEFAULT_HEIGHT = 400

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:; "
    "font-src data:; media-src data: blob:; frame-src 'none'; worker-src 'none'; form-action 'none'; base-uri 'none'; "
    "webrtc 'block'"
)
_HEAD = (
    f'<!doctype html><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    '<meta http-equiv="x-dns-prefetch-control" content="off"><meta name="referrer" content="no-referrer">'
)
_FILL = "<style>html,body{margin:0;height:100%}iframe{display:block;width:100%;height:100%;border:0}</style>"


def framed(value: object, *, width: int | None, height: int | None) -> str:
    """Return the frame with the HTML of ``value``, ``width`` and ``height`` in pixels.

    Raises:
        RefusedError: It is no text, or too large.
    """
    inner = _frame(_HEAD + text_at_most(value, FRAME_BYTES))
    size = f"width:{f'{width}px' if width else '100%'};height:{height or DEFAULT_HEIGHT}px"
    return _frame(_HEAD + _FILL + inner, style=f"{size};border:0")


def _frame(document: str, *, style: str = "") -> str:
    styled = f' style="{style}"' if style else ""
    # NUL ends nothing in a browser, but a front end may be written in a language where it does
    source = standard_html.escape(document.replace("\0", ""), quote=True)
    return f'<iframe sandbox="allow-scripts" referrerpolicy="no-referrer"{styled} srcdoc="{source}"></iframe>'
