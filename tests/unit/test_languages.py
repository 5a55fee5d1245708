"""What each language says of its failure, from recordings of what its interpreter wrote to standard error.

Recorded with bash 5.2, dash 0.5, node 20, R 4.2, perl 5.36, ruby 3.1 and Python 3.11; julia's are those of its manual,
because no package of it was at hand.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from container_magic.display.failure import failure
from container_magic.events import CodeError, Created, Exited, Output, Started
from container_magic.folding import fold
from container_magic.languages import LANGUAGES
from container_magic.languages.complaint import TAIL_BYTES, Complaint

NODE_NAMED = """[stdin]:2
function f() { return x; }
               ^

ReferenceError: x is not defined
    at f ([stdin]:2:16)
    at [stdin]:3:1
    at runScriptInThisContext (node:internal/vm:209:10)

Node.js v20.20.2
"""
NODE_LINES = """[stdin]:2
throw new MyErr("two\\nlines")
^

MyErr: two
lines
    at [stdin]:2:7 {
  code: 3
}

Node.js v20.20.2
"""
NODE_TEXT = """
[stdin]:1
throw "abc"
^
abc
(Use `node --trace-uncaught ...` to show where the exception was thrown)

Node.js v20.20.2
"""
NODE_EMPTY = """[stdin]:1
throw new Error()
^

Error
    at [stdin]:1:7

Node.js v20.20.2
"""
NODE_MODULE = """node:internal/modules/cjs/loader:1210
  throw err;
  ^

Error: Cannot find module 'nope'
Require stack:
- /home/user/[stdin]
    at Module._resolveFilename (node:internal/modules/cjs/loader:1207:15) {
  code: 'MODULE_NOT_FOUND',
}

Node.js v20.20.2
"""
R_LONG = """Warning message:
w
Error in g(n) :\x20
  a rather long message so that it does not fit
Calls: f -> g
Execution halted
"""
PERL_SYNTAX = """syntax error at - line 1, near "= ;"
Execution of - aborted due to compilation errors.
"""
JULIA = """ERROR: LoadError: UndefVarError: `x` not defined
Stacktrace:
 [1] top-level scope
   @ stdin:2
in expression starting at stdin:2
"""
JULIA_DOMAIN = """ERROR: LoadError: DomainError with -1.0:
sqrt was called with a negative real argument
Stacktrace:
 [1] throw_complex_domainerror(f::Symbol, x::Float64)
in expression starting at stdin:1
"""
RUBY = """-:1:in `f': two (ArgumentError)
lines
\tfrom -:2:in `<main>'
"""
PYTHON = """Traceback (most recent call last):
  File "<stdin>", line 2, in <module>
  File "<stdin>", line 1, in f
json.decoder.JSONDecodeError: Expecting value: line 1
"""
BASH_SYNTAX = """/dev/stdin: line 3: syntax error near unexpected token `do'
/dev/stdin: line 3: `if x; do'
"""


def error_in(program, stderr, exit_code=1):
    """Return name and message of the error that ``program`` wrote, None when there is none."""
    complaint = Complaint(program)
    complaint.feed(stderr.encode())
    error = complaint.error(exit_code)
    return None if error is None else (error.ename, error.evalue)


@pytest.mark.parametrize(
    ("program", "stderr", "exit_code", "expected"),
    [
        ("bash", "a\n/dev/stdin: line 2: foo: command not found\n", 127, ("bash", "line 2: foo: command not found")),
        ("bash", BASH_SYNTAX, 2, ("bash", "line 3: syntax error near unexpected token `do'")),
        ("/bin/bash", "bash: x: unbound variable\n", 127, ("bash", "x: unbound variable")),
        ("sh", "sh: 2: foo: not found\n", 127, ("sh", "line 2: foo: not found")),
        ("sh", 'sh: 2: Syntax error: end of file unexpected (expecting "then")\n', 2,
         ("sh", 'line 2: Syntax error: end of file unexpected (expecting "then")')),
        ("node", NODE_NAMED, 1, ("ReferenceError", "x is not defined")),
        ("node", NODE_LINES, 1, ("MyErr", "two\nlines")),
        ("node", NODE_TEXT, 1, ("Uncaught", "abc")),
        ("node", NODE_EMPTY, 1, ("Error", "")),
        ("/usr/bin/node", NODE_MODULE, 1, ("Error", "Cannot find module 'nope'")),
        ("Rscript", "Error: object 'x' not found\nExecution halted\n", 1, ("Error", "object 'x' not found")),
        ("Rscript", "Error in f(1) : boom\nExecution halted\n", 1, ("Error", "in f(1): boom")),
        ("Rscript", R_LONG, 1, ("Error", "in g(n): a rather long message so that it does not fit")),
        ("Rscript", "Error: e\nf\nExecution halted\n", 1, ("Error", "e\nf")),
        ("perl", "Illegal division by zero at - line 3.\n", 255, ("perl", "Illegal division by zero at - line 3.")),
        ("perl", PERL_SYNTAX, 255, ("perl", 'syntax error at - line 1, near "= ;"')),
        ("perl", "own words\n", 255, ("perl", "own words")),
        ("perl5.36.0", "no at - line 1, <STDIN> line 4.\n", 9, ("perl", "no at - line 1, <STDIN> line 4.")),
        ("julia", JULIA, 1, ("UndefVarError", "`x` not defined")),
        ("julia", JULIA_DOMAIN, 1, ("DomainError", "sqrt was called with a negative real argument")),
        ("julia", "ERROR: LoadError: boom\nStacktrace:\n", 1, ("ErrorException", "boom")),
        ("ruby", RUBY, 1, ("ArgumentError", "two\nlines")),
        ("ruby", "-:2:in `<main>': undefined local variable or method `x' for main:Object (NameError)\n", 1,
         ("NameError", "undefined local variable or method `x' for main:Object")),
        ("ruby", "-:1: syntax error, unexpected end-of-input\n", 1,
         ("SyntaxError", "syntax error, unexpected end-of-input")),
        ("ruby", "-:1:in `<main>': unhandled exception\n", 1, ("RuntimeError", "unhandled exception")),
        ("/usr/bin/python3.11", PYTHON, 1, ("JSONDecodeError", "Expecting value: line 1")),
    ],
)  # fmt: skip
def test_error_of_a_language_is_found_in_what_it_wrote(program, stderr, exit_code, expected):
    """Name and message, whatever stands before."""
    assert error_in(program, f"some warning\n{stderr}", exit_code) == expected


@pytest.mark.parametrize(
    ("program", "stderr", "exit_code"),
    [
        ("bash", "ls: cannot access '/nope': No such file or directory\n", 2),
        ("bash", "/dev/stdin: line 2: foo: command not found\n", 3),  # the code went on after it, and said exit 3
        ("bash", "/dev/stdin: line 2: foo: command not found\nlater\n", 127),
        ("node", "npm is unhappy\n", 1),
        ("perl", "own words\n", 3),
        ("Rscript", "Error: told, not raised\n", 3),
        ("ruby", "x\n", 1),
        ("/opt/strange", NODE_NAMED, 1),
        ("node", NODE_NAMED, 0),
        ("node", NODE_NAMED, None),
        ("node", "", 1),
    ],
)
def test_what_has_no_known_shape_is_no_error(program, stderr, exit_code):
    """Other text, an interpreter that is not known, an end that was no failure."""
    assert error_in(program, stderr, exit_code) is None


def test_only_the_end_of_a_flood_is_kept():
    """However much is written, in whatever pieces, the error at the end is found and memory is bounded."""
    complaint = Complaint("node")
    for _ in range(100):
        complaint.feed(b"x" * TAIL_BYTES * 3)
    for byte in b"\n" + NODE_NAMED.encode():
        complaint.feed(bytes([byte]))
    assert len(complaint._tail) <= TAIL_BYTES
    error = complaint.error(1)
    assert error.traceback[0] == "[stdin]:2"
    assert error.printed


@given(st.sampled_from([*LANGUAGES, "python3", "R"]), st.binary(max_size=2000), st.integers(1, 255))
def test_no_bytes_break_a_parser(program, stderr, exit_code):
    """Hostile output gives an error of bounded size, or none."""
    complaint = Complaint(program)
    complaint.feed(stderr)
    error = complaint.error(exit_code)
    assert error is None or (len(error.ename) <= 200 and len(error.traceback) <= 60)


@pytest.mark.parametrize("language", sorted(LANGUAGES))
@pytest.mark.parametrize(
    "piece", ["Error in ", "a: " * 40, "ERROR: LoadError: ", " at - line 1, ", "-:1:in `", "^\n \n"]
)
def test_hostile_repetition_takes_no_time(language, piece):
    """Patterns do not backtrack: the largest tail is read at once (the runner's time limit holds this)."""
    complaint = Complaint(language)
    complaint.feed((piece * TAIL_BYTES).encode())
    complaint.error(127)


def test_notebook_shows_lines_of_standard_error_once():
    """What the interpreter printed stands in the output already; the error adds one line."""
    complaint = Complaint("node")
    complaint.feed(NODE_NAMED.encode())
    error = complaint.error(1)
    exited = Exited(exit_code=1)
    events = [Created(container_id="c"), Started(), Output(stream="stderr", data=NODE_NAMED.encode()), error, exited]
    report = fold(events)
    assert report.error.traceback[0] == "[stdin]:2"
    shown = failure(report)
    assert (type(shown).__name__, str(shown)) == ("ReferenceError", "x is not defined")
    assert shown.lines == ["ReferenceError: x is not defined"]
    own = CodeError(ename="ValueError", evalue="v", traceback=("Traceback", "ValueError: v"))
    assert failure(fold([*events[:2], own, exited])).lines == ["Traceback", "ValueError: v"]
