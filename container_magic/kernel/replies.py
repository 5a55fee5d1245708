"""Replies of a kernel: for each message type exactly the fields that the protocol has.

https://jupyter-client.readthedocs.io/en/stable/messaging.html; what is a MIME bundle in them is cleaned as outputs are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from container_magic.kernel import shape
from container_magic.kernel.outputs import Outputs

Reply = Callable[[Mapping[str, Any], Outputs, Callable[[str], None]], dict[str, Any]]

MATCHES = 10_000
HISTORY_ENTRIES = 10_000
HISTORY_CHARACTERS = 4 << 20
PROMPT_CHARACTERS = 2000
EXPRESSIONS = 256
PAYLOADS = 64
HELP_HOSTS = frozenset(
    {
        "docs.jupyter.org",
        "docs.python.org",
        "docs.scipy.org",
        "docs.sympy.org",
        "ipython.org",
        "ipython.readthedocs.io",
        "jupyter.org",
        "matplotlib.org",
        "numpy.org",
        "pandas.pydata.org",
        "scipy.org",
    }
)

_VERSION = r"[0-9A-Za-z.+!_-]{1,64}"
_NAME = r"[A-Za-z0-9_.+# /;=-]{1,64}"
_PAYLOADS_WITH_A_NAME = frozenset({"set_next_input", "edit_magic", "edit"})

_type = shape.record(
    {"start": shape.integer(0), "end": shape.integer(0), "text": shape.plain(), "type": shape.plain(64)},
    {"signature": shape.plain()},
)
_complete = shape.record(
    {
        "status": shape.one_of("ok"),
        "matches": shape.items(shape.plain(), MATCHES),
        "cursor_start": shape.integer(0),
        "cursor_end": shape.integer(0),
        "metadata": shape.record({}, {"_jupyter_types_experimental": shape.items(_type, MATCHES)}),
    }
)
_is_complete = shape.record(
    {"status": shape.one_of("unknown", "complete", "incomplete", "invalid")},
    {"indent": shape.matching(r"[ \t]{0,999}")},
)
_mode = shape.matching(_NAME)
_codemirror = shape.record(
    {"name": shape.matching(_NAME, "ipython")}, {"version": shape.integer(0, 99), "mode": shape.matching(_NAME)}
)
_language = shape.record(
    {
        "name": shape.matching(_NAME, "python"),
        "version": shape.matching(_VERSION),
        "mimetype": shape.matching(r"[a-z]{1,20}/[A-Za-z0-9.+_-]{1,80}", "text/plain"),
        "file_extension": shape.matching(r"\.[A-Za-z0-9]{1,10}", ".txt"),
    },
    {
        "pygments_lexer": shape.matching(_NAME),
        "codemirror_mode": lambda value: _codemirror(value) if isinstance(value, Mapping) else _mode(value),
        # nbconvert imports what it names when there is a dot in it
        "nbconvert_exporter": shape.matching(r"[a-z]{1,30}", "script"),
    },
)
_kernel_info = shape.record(
    {
        "status": shape.one_of("ok"),
        "protocol_version": shape.matching(r"\d{1,2}(?:\.\d{1,2}){0,2}", "5.3"),
        "implementation": shape.matching(_NAME),
        "implementation_version": shape.matching(_VERSION),
        "language_info": _language,
        "banner": shape.plain(8192),
    },
    {
        "debugger": shape.flag(),
        "supported_features": shape.items(shape.matching(r"[a-z0-9 _-]{1,40}"), 32),
    },
)
_status = shape.record({"status": shape.one_of("ok")})
_subshell = shape.matching(r"[A-Za-z0-9_-]{1,64}")


def clean_reply(
    kind: Reply, content: Mapping[str, Any], outputs: Outputs, note: Callable[[str], None]
) -> dict[str, Any]:
    """Return the content of a reply: as ``kind`` has it, or as every reply that failed has it."""
    if content.get("status") in ("aborted", "abort"):
        return {"status": "aborted"}
    if content.get("status") == "error" and kind is not _execute:
        return {"status": "error", **outputs.error(content)}
    return kind(content, outputs, note)


def _of(shaped: shape.Shape) -> Reply:
    return lambda content, _outputs, _note: shaped(content)


def _execute(content: Mapping[str, Any], outputs: Outputs, note: Callable[[str], None]) -> dict[str, Any]:
    clean: dict[str, Any] = {
        "status": "error" if content.get("status") == "error" else "ok",
        "execution_count": shape.integer(0, default=None)(content.get("execution_count")),
        "user_expressions": shape.keyed(lambda value: _expression(value, outputs), EXPRESSIONS)(
            content.get("user_expressions")
        ),
        "payload": _payloads(content.get("payload"), outputs, note),
    }
    return clean | outputs.error(content) if clean["status"] == "error" else clean


def _expression(value: Any, outputs: Outputs) -> dict[str, Any]:
    given = value if isinstance(value, Mapping) else {}
    if given.get("status") == "error":
        return {"status": "error", **outputs.error(given)}
    return {"status": "ok", **outputs.bundle(given.get("data"), given.get("metadata"))}


def _payloads(value: Any, outputs: Outputs, note: Callable[[str], None]) -> list[dict[str, Any]]:
    kept = []
    for payload in value[:PAYLOADS] if isinstance(value, list) else []:
        source = payload.get("source") if isinstance(payload, Mapping) else None
        if source == "page":
            data = payload.get("data")
            bundle = data if isinstance(data, Mapping) else {"text/plain": payload.get("text")}
            start = shape.integer(0, 1 << 31)(payload.get("start"))
            kept.append({"source": "page", "data": outputs.bundle(bundle, {})["data"], "start": start})
        elif source == "ask_exit":  # `exit` in a console: the kernel ends, and a console that is not told waits for it
            kept.append({"source": "ask_exit", "keepkernel": False})
        else:
            named = source if isinstance(source, str) and source in _PAYLOADS_WITH_A_NAME else "of an unknown kind"
            note(f"a payload ({named}) was dropped: contained code may not change the notebook")
    return kept


def _inspect(content: Mapping[str, Any], outputs: Outputs, _note: Callable[[str], None]) -> dict[str, Any]:
    if content.get("found") is not True:
        return {"status": "ok", "found": False, "data": {}, "metadata": {}}
    return {"status": "ok", "found": True, **outputs.bundle(content.get("data"), content.get("metadata"))}


def _history(content: Mapping[str, Any], _outputs: Outputs, _note: Callable[[str], None]) -> dict[str, Any]:
    kept: list[list[Any]] = []
    left = HISTORY_CHARACTERS
    given = content.get("history")
    for entry in given[:HISTORY_ENTRIES] if isinstance(given, list) else []:
        if not isinstance(entry, (list, tuple)) or len(entry) != 3:
            continue
        session, line, text = shape.integer()(entry[0]), shape.integer()(entry[1]), entry[2]
        pair = isinstance(text, (list, tuple)) and len(text) == 2
        texts = [shape.styled()(part) if part is not None else None for part in (text if pair else [text])]
        left -= sum(len(part) for part in texts if part is not None)
        if left < 0:
            break
        kept.append([session, line, texts if pair else texts[0] or ""])
    return {"status": "ok", "history": kept}


def _info(content: Mapping[str, Any], _outputs: Outputs, _note: Callable[[str], None]) -> dict[str, Any]:
    given = content.get("help_links")
    links = [link for link in given[:32] if isinstance(link, Mapping)] if isinstance(given, list) else []
    shown = [{"text": shape.plain(100)(link.get("text")), "url": _help_url(link.get("url"))} for link in links]
    return {**_kernel_info(content), "help_links": [link for link in shown if link["text"] and link["url"]]}


def _help_url(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"https?://[A-Za-z0-9._~/#%-]{1,500}", value, re.ASCII):
        return ""
    return value if urlsplit(value).netloc in HELP_HOSTS else ""


def _debug(content: Mapping[str, Any], outputs: Outputs, _note: Callable[[str], None]) -> dict[str, Any]:
    shown = _debug_reply(content)
    given = content.get("body")
    # a rich variable: the page renders its bundle, and trusts it
    if isinstance(given, Mapping) and isinstance(given.get("data"), Mapping):
        shown["body"] = outputs.bundle(given["data"], given.get("metadata"))
    return dict(shown)


_debug_reply = shape.record(
    {},
    {
        "type": shape.plain(64),
        "seq": shape.integer(),
        "request_seq": shape.integer(),
        "success": shape.flag(),
        "command": shape.plain(64),
        "message": shape.plain(8192),
        "body": shape.bounded_json,
    },
)
DEBUG_EVENT = shape.record(
    {"type": shape.one_of("event"), "event": shape.plain(64)}, {"seq": shape.integer(), "body": shape.bounded_json}
)
INPUT_REQUEST = shape.record({"prompt": shape.plain(PROMPT_CHARACTERS), "password": shape.flag()})
SHUTDOWN = shape.record({"status": shape.one_of("ok"), "restart": shape.flag()})
EXECUTE_METADATA = shape.record(
    {},
    {
        "started": shape.matching(r"[0-9T:.+Z-]{1,40}"),
        "dependencies_met": shape.flag(True),
        "engine": shape.matching(r"[A-Za-z0-9-]{1,64}"),
        "status": shape.one_of("ok", "error", "aborted"),
    },
)

_SHARED: dict[str, Reply] = {
    "kernel_info_reply": _info,
    "interrupt_reply": _of(_status),
    "shutdown_reply": _of(SHUTDOWN),
}
SHELL: dict[str, Reply] = {
    **_SHARED,
    "execute_reply": _execute,
    "inspect_reply": _inspect,
    "complete_reply": _of(_complete),
    "is_complete_reply": _of(_is_complete),
    "history_reply": _history,
}
CONTROL: dict[str, Reply] = {
    **_SHARED,
    "debug_reply": _debug,
    "create_subshell_reply": _of(shape.record({"status": shape.one_of("ok"), "subshell_id": _subshell})),
    "delete_subshell_reply": _of(_status),
    "list_subshell_reply": _of(
        shape.record({"status": shape.one_of("ok"), "subshell_id": shape.items(_subshell, 1000)})
    ),
}
