"""What an interpreter says of its own end: the error that it printed to standard error before it failed.

The text comes from inside: bounded, shown, never a basis of the verdict. Each language has a shape of its own; what
has none of these shapes is no error here, and the report then says how the process ended and no more.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence

from container_magic.deferred import dataclass
from container_magic.events import CodeError

TAIL_BYTES = 16 * 1024
"""How much of the end of standard error is looked at."""
_LINES = 60
_NAME_CHARACTERS = 200


@dataclass(frozen=True, kw_only=True)
class _Found:
    """An error: its name and message, and the number of the line at which its text begins."""

    ename: str
    evalue: str
    begin: int


_Parser = Callable[[Sequence[str], int], "_Found | None"]


class Complaint:
    """Keeps the end of what ``program`` writes to standard error, and finds the error in it."""

    def __init__(self, program: str) -> None:
        match = _FAMILY.fullmatch(program.rpartition("/")[2])
        self._parse = _PARSERS[match[1]] if match else None
        self._tail = bytearray()

    def feed(self, data: bytes) -> None:
        """Take the next bytes of standard error."""
        if self._parse is not None:
            self._tail += data[-TAIL_BYTES:]
            del self._tail[:-TAIL_BYTES]

    def error(self, exit_code: int | None) -> CodeError | None:
        """Return the error that made the program end with ``exit_code``; None when it names none."""
        if self._parse is None or not exit_code:
            return None
        text = self._tail.decode("utf-8", "replace").replace("\r\n", "\n").rstrip()
        lines = [line[:1000] for line in text.split("\n")]
        found = self._parse(lines, exit_code)
        if found is None:
            return None
        return CodeError(
            ename=found.ename[:_NAME_CHARACTERS],
            evalue=found.evalue,
            traceback=tuple(lines[found.begin :][:_LINES]),
            printed=True,
        )


def _last(lines: Sequence[str], pattern: re.Pattern[str]) -> tuple[int, re.Match[str]] | None:
    for number in range(len(lines) - 1, -1, -1):
        match = pattern.match(lines[number])
        if match:
            return number, match
    return None


_SHELL = re.compile(r"(?:\S*/)?(?P<name>bash|sh|dash|stdin): (?:(?:line )?(?P<line>\d+): )?(?P<what>.+)")


def _shell(lines: Sequence[str], exit_code: int) -> _Found | None:
    """``/dev/stdin: line 2: foo: command not found``; of a syntax error bash repeats the line of the code."""
    number = len(lines) - 1
    match = _SHELL.match(lines[number])
    if match and match["what"].startswith("`") and number > 0:
        number -= 1
        match = _SHELL.match(lines[number])
    if match is None or (match["what"].endswith("not found") and exit_code != 127):
        return None
    name = "bash" if match["name"] == "stdin" else match["name"]
    place = f"line {match['line']}: " if match["line"] else ""
    return _Found(ename=name, evalue=place + match["what"], begin=number)


_NODE_CARETS = re.compile(r"\s*\^+$")
_NODE_NAMED = re.compile(r"(?:Uncaught )?([A-Za-z_$][\w$]*)(?: \[\w+\])?: (.*)", re.DOTALL)
_NODE_END = re.compile(r"    at |Require stack:|\(Use `node |Node\.js v|$")


def _node(lines: Sequence[str], _exit_code: int) -> _Found | None:
    """Place, line of code and carets, then ``ReferenceError: x is not defined`` and its frames."""
    carets = _last(lines, _NODE_CARETS)
    if carets is None:
        return None
    begin = carets[0] + 1
    while begin < len(lines) and not lines[begin]:
        begin += 1
    end = begin
    while end < len(lines) and not _NODE_END.match(lines[end]):
        end += 1
    text = "\n".join(lines[begin:end])
    if not text:
        return None
    start = max(carets[0] - 2, 0)
    named = _NODE_NAMED.fullmatch(text)
    if named:
        return _Found(ename=named[1], evalue=named[2], begin=start)
    if re.fullmatch(r"[A-Z][\w$]*", text) and end < len(lines) and lines[end].startswith("    at "):
        return _Found(ename=text, evalue="", begin=start)  # an error without a message
    return _Found(ename="Uncaught", evalue=text, begin=start)


_R = re.compile(r"Error(?: (?P<call>in .*?)\s*)?:\s?(?P<what>.*)")


def _r(lines: Sequence[str], _exit_code: int) -> _Found | None:
    """``Error in f() : boom``; a long message begins in the next line, and ``Execution halted`` ends it."""
    found = _last(lines, _R)
    if found is None or not lines[-1].startswith("Execution halted"):
        return None
    number, match = found
    rest = []
    for line in lines[number + 1 : -1]:
        if line.startswith("Calls: "):
            break
        rest.append(line.strip())
    what = "\n".join(part for part in (match["what"].strip(), *rest) if part)
    return _Found(ename="Error", evalue=f"{match['call']}: {what}" if match["call"] else what, begin=number)


_JULIA = re.compile(r"ERROR: (?:LoadError: )*(?P<what>.*)")
_JULIA_NAMED = re.compile(r"([A-Z]\w*(?:Error|Exception))(?: with [^:]*)?: ?(.*)", re.DOTALL)


def _julia(lines: Sequence[str], _exit_code: int) -> _Found | None:
    """``ERROR: LoadError: UndefVarError: `x` not defined``; ``error("boom")`` has no name of its own."""
    found = _last(lines, _JULIA)
    if found is None:
        return None
    number, match = found
    rest = []
    for line in lines[number + 1 :]:
        if line.startswith(("Stacktrace:", "in expression starting at")):
            break
        rest.append(line)
    what = "\n".join([match["what"], *rest]).rstrip()
    named = _JULIA_NAMED.fullmatch(what)
    if named:
        return _Found(ename=named[1], evalue=named[2].strip(), begin=number)
    return _Found(ename="ErrorException", evalue=what, begin=number)


_PERL = re.compile(r".* at \S+ line \d+(?:, (?:near|at) .*|, <.*> (?:line|chunk) \d+)?\.?$")
_PERL_ECHO = re.compile(r"Execution of .* aborted due to compilation errors\.|BEGIN failed--compilation aborted at ")
_PERL_DIED = 255


def _perl(lines: Sequence[str], exit_code: int) -> _Found | None:
    """``Illegal division by zero at - line 3.``; what ``die`` says with a line's end of its own has no place."""
    number = len(lines) - 1
    while number > 0 and (_PERL_ECHO.match(lines[number]) or not lines[number]):
        number -= 1
    if not lines[number] or not (_PERL.match(lines[number]) or exit_code == _PERL_DIED):
        return None
    return _Found(ename="perl", evalue=lines[number], begin=number)


_RUBY = re.compile(r"\S+?:(?:\d+:in [`'].*?'| \S+?:\d+): (?P<what>.*) \((?P<name>(?:\w+::)*[A-Z]\w*)\)$")
_RUBY_UNNAMED = re.compile(r"\S+?:\d+:(?:in [`'].*?': (?P<what>unhandled exception)$| (?P<syntax>syntax error.*))")


def _ruby(lines: Sequence[str], _exit_code: int) -> _Found | None:
    """``-:2:in `f': undefined method ... (NoMethodError)``, then frames, then the error that caused it."""
    number = next((number for number, line in enumerate(lines) if _RUBY.match(line)), None)
    if number is None:
        found = _last(lines, _RUBY_UNNAMED)
        if found is None:
            return None
        name = "SyntaxError" if found[1]["syntax"] else "RuntimeError"
        return _Found(ename=name, evalue=found[1]["syntax"] or found[1]["what"], begin=found[0])
    match = _RUBY.match(lines[number])
    assert match is not None
    rest = itertools.takewhile(lambda line: line and not line.startswith("\tfrom "), lines[number + 1 :])
    return _Found(ename=match["name"], evalue="\n".join([match["what"], *rest]), begin=number)


_PYTHON_BEGIN = re.compile(r"Traceback \(most recent call last\):|  File \"")
_PYTHON = re.compile(r"(?:[A-Za-z_]\w*\.)*([A-Za-z_]\w*)(?:: (.*))?$")


def _python(lines: Sequence[str], _exit_code: int) -> _Found | None:
    """A traceback, whose first line after the frames has name and message."""
    begin = _last(lines, re.compile(r"Traceback \(most recent call last\):")) or _last(lines, _PYTHON_BEGIN)
    if begin is None:
        return None
    for number in range(begin[0] + 1, len(lines)):
        match = _PYTHON.match(lines[number])
        if match:
            evalue = "\n".join([match[2] or "", *lines[number + 1 :]])
            return _Found(ename=match[1], evalue=evalue, begin=begin[0])
    return None


_PARSERS: dict[str, _Parser] = {
    "bash": _shell,
    "sh": _shell,
    "dash": _shell,
    "node": _node,
    "nodejs": _node,
    "Rscript": _r,
    "R": _r,
    "julia": _julia,
    "perl": _perl,
    "ruby": _ruby,
    "python": _python,
    "pypy": _python,
}
_FAMILY = re.compile(rf"({'|'.join(_PARSERS)})[0-9.]*")
