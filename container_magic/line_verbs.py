"""The verbs of ``%contain VERB``: each takes the words behind it and returns what is printed."""

from __future__ import annotations

from collections.abc import Callable

from container_magic.display.streams import StreamDecoder
from container_magic.errors import OptionError
from container_magic.options.near import nearest

_LOG_BYTES = 2 * 1024 * 1024
"""How much of a log a notebook shows: a Jupyter server drops what comes faster than some megabytes per second."""


def call_verb(verb: str, words: list[str]) -> None:
    """Run a verb and print what it returns.

    Raises:
        OptionError: There is no such verb, or it does not understand the words.
    """
    if verb not in VERBS:
        near = nearest(verb, [*VERBS, *_CELL_ONLY])
        meant = _CELL_ONLY.get(near, f"%contain {near}") if near else ""
        more = f"did you mean {meant}?" if meant else f"accepted: {', '.join(VERBS)}, or options"
        raise OptionError(f"unknown verb {verb!r}; {more}")
    print(VERBS[verb](words))  # noqa: T201 - a magic's answer goes to stdout


def _doctor(words: list[str]) -> str:
    from container_magic.verbs.doctor_words import parse_words

    asked = parse_words(words)
    if asked.self_test:
        from container_magic.verbs.self_test import outcomes_json, self_test

        outcomes = list(self_test())
        return outcomes_json(outcomes) if asked.json_format else "\n".join(outcome.line() for outcome in outcomes)
    from container_magic.display.tables import checks_json, checks_text
    from container_magic.verbs.doctor import doctor

    return checks_json(doctor()) if asked.json_format else checks_text(doctor())


def _kernel(words: list[str]) -> str:
    from container_magic.kernel.command import kernel

    return kernel(words).rstrip("\n")


def _logs(words: list[str]) -> str:
    from container_magic.runtime.output import OutputGate
    from container_magic.verbs.logs import find_log, parse_words, read

    name, raw = parse_words(words)
    if raw:
        raise OptionError("a notebook does not show raw bytes; accepted: %contain logs without --raw, or a terminal")
    log = find_log(name)
    gate, decoder = OutputGate(_LOG_BYTES), StreamDecoder()
    text = "".join(decoder.feed(output) for data in read(log) for output in gate.feed("stdout", data))
    text += "".join(map(decoder.feed, gate.finish())) + decoder.finish()
    return f"{text}\n[all {log.size_bytes:,} bytes are in {log.path}]" if gate.exceeded else text


def _diff(words: list[str]) -> str:
    from container_magic.display.tables import changes_json, changes_text
    from container_magic.verbs.diff import diff, parse_words

    name, json_format = parse_words(words)
    return (changes_json if json_format else changes_text)(diff(name))


def _version(words: list[str]) -> str:
    from container_magic import __version__

    if words:
        raise OptionError(f"unexpected argument {words[0]!r}; accepted: no argument")
    return f"contain {__version__}"


def _sessions(words: list[str]) -> str:
    from container_magic.display.tables import sessions_text
    from container_magic.verbs.sessions import list_sessions

    if words:
        raise OptionError(f"unexpected argument {words[0]!r}; accepted: no argument")
    return sessions_text(list_sessions())


def _stop(words: list[str]) -> str:
    from container_magic.verbs.sessions import stop_session

    if not words:
        raise OptionError("which session is to be stopped? accepted: %contain stop NAME ...")
    for name in words:
        stop_session(name)
    return "\n".join(words)


VERBS: dict[str, Callable[[list[str]], str]] = {
    "diff": _diff,
    "doctor": _doctor,
    "kernel": _kernel,
    "logs": _logs,
    "sessions": _sessions,
    "stop": _stop,
    "version": _version,
}
_CELL_ONLY = {"run": "%%contain with the code below it"}


def verb_words(verb: str, last: str) -> list[str]:
    """Return what may follow ``last`` in the words of a verb."""
    if verb == "doctor":
        return ["json"] if last == "--format" else ["--format", "--self-test"]
    if verb == "kernel":
        return ["install", "list", "remove"] if last == "kernel" else []
    if verb == "diff":
        from container_magic.verbs.diff import known_ids

        return ["json"] if last == "--format" else ["--format", *known_ids()]
    if verb == "logs":
        from container_magic.verbs.logs import kept_ids

        return kept_ids()
    return []
