"""Runs Python source in this process as ``__main__``, the way ``python -u FILE`` would.

Standard library only, and nothing of this package stays visible to the code that runs.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import io
import json
import linecache
import mmap
import os
import signal
import sys
import traceback
import types
from collections.abc import Sequence
from typing import NoReturn

# what Python itself calls code that comes from no file
_UNNAMED = {"": "<cell>", "-c": "<string>", "-": "<stdin>"}
_MAX_TEXT = 16_000
_MAX_LINES = 60


def prepare(error_slot: mmap.mmap) -> None:
    """Do what needs no code: forget this package, and touch, while nobody waits, what every cell will write to.

    A fork shares its parent's pages until it writes to them; each first write costs a page fault and a copy.
    """
    _reseed()
    _open_streams()
    filename, module = _prepare_main(b"pass", [""])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _execute(b"pass", filename, module, error_slot, show_traceback=False)
    _forget_ourselves()


def _reseed() -> None:
    """Give preloaded generators of random numbers a seed of their own; ``random`` does that itself at every fork."""
    for name, function in (("numpy.random", "seed"), ("torch", "seed")):
        if name in sys.modules:
            getattr(sys.modules[name], function)()


def run_cell(source: bytes, argv: Sequence[str], error_slot: mmap.mmap, *, show_traceback: bool) -> NoReturn:
    """Run ``source`` and end this process with the exit code that Python would give.

    An uncaught exception is left in ``error_slot`` as JSON (ename, evalue, traceback) and, with ``show_traceback``,
    printed to standard error as usual.
    """
    _open_streams()
    filename, module = _prepare_main(source, argv)
    sys.argv = list(argv) or [""]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    code = 1
    try:
        code = _execute(source, filename, module, error_slot, show_traceback=show_traceback)
    finally:
        _finish(code)


def _open_streams() -> None:
    """Fresh, unbuffered standard streams: what is printed is out, also when the process is killed next."""
    sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
    for name, fd, errors in (("stdout", 1, "surrogateescape"), ("stderr", 2, "backslashreplace")):
        raw = io.FileIO(fd, "w", closefd=False)
        stream = io.TextIOWrapper(raw, encoding="utf-8", errors=errors, write_through=True)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    setattr(sys, "__stdin__", sys.stdin)  # noqa: B010 - typeshed calls it final


_ours: list[types.ModuleType] = []


@functools.cache
def own_modules() -> tuple[str, ...]:
    """Return the names of this package's modules.

    Asked for once, in the zygote: to go through all modules is to count a reference to each name, on as many pages.
    """
    return tuple(name for name in sys.modules if name.startswith("container_magic"))


def _forget_ourselves() -> None:
    for name in own_modules():
        # kept alive: to free them would write to, and so copy, every page that they lie on
        _ours.append(sys.modules.pop(name))
    sys.path[:] = ["", *(entry for entry in sys.path if entry and not entry.startswith("/.container_magic"))]


def main_path(argv: Sequence[str]) -> str:
    """Return the file that holds the source of a main module which other processes may have to import."""
    name = argv[0] if argv else ""
    return f"/tmp/{os.path.basename(_UNNAMED.get(name, name)).strip('<>') or 'main'}"


def _prepare_main(source: bytes, argv: Sequence[str]) -> tuple[str, types.ModuleType]:
    module = types.ModuleType("__main__")
    module.__dict__["__builtins__"] = __builtins__
    module.__dict__["__spec__"] = None
    sys.modules["__main__"] = module
    name = argv[0] if argv else ""
    filename = _UNNAMED.get(name, name)
    text = source.decode("utf-8", errors="replace")
    # multiprocessing's spawn and forkserver import the main module anew from its file: only code that guards itself
    # with __name__ == "__main__" can bear that
    if name not in _UNNAMED or "__main__" in text:
        path = main_path(argv)
        with contextlib.suppress(OSError), open(path, "xb") as file:  # a read-only root: no file, no spawn
            file.write(source)
            module.__file__ = path
    linecache.cache[filename] = (len(source), None, text.splitlines(keepends=True), filename)
    return filename, module


def _execute(
    source: bytes, filename: str, module: types.ModuleType, error_slot: mmap.mmap, *, show_traceback: bool
) -> int:
    try:
        exec(compile(source, filename, "exec", dont_inherit=True), module.__dict__)
    except SystemExit as stop:
        return _exit_code(stop)
    except BaseException as error:
        error.__traceback__ = _own_frames(error, filename)
        leave_error(error_slot, *_describe(error))
        if show_traceback:
            _show(error)
        if isinstance(error, KeyboardInterrupt):
            return 128 + signal.SIGINT
        return 1
    return 0


def _show(error: BaseException) -> None:
    if sys.excepthook is not sys.__excepthook__:
        sys.excepthook(type(error), error, error.__traceback__)
        return
    # the default hook is C and knows no linecache: it could not show the lines of a cell that is in no file
    traceback.print_exception(error)


def _exit_code(stop: SystemExit) -> int:
    if stop.code is None:
        return 0
    if isinstance(stop.code, int):
        return stop.code & 0xFF
    sys.stderr.write(f"{stop.code}\n")
    return 1


def _own_frames(error: BaseException, filename: str) -> types.TracebackType | None:
    """Return the traceback without the frames of this module."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_code.co_filename != filename:
        traceback = traceback.tb_next
    return traceback


def leave_error(error_slot: mmap.mmap, ename: str, evalue: str, traceback: Sequence[str]) -> None:
    """Write an error as JSON into the slot that init reads when this process has ended."""
    body = {"ename": ename[:200], "evalue": evalue[:_MAX_TEXT], "traceback": [line[:1000] for line in traceback]}
    data = json.dumps(body).encode()
    if len(data) > len(error_slot) - 4:
        data = json.dumps({**body, "traceback": []}).encode()[: len(error_slot) - 4]
    error_slot[4 : 4 + len(data)] = data
    # the length last: a reader of a half-written slot finds nothing
    error_slot[:4] = len(data).to_bytes(4, "little")


def _describe(error: BaseException) -> tuple[str, str, list[str]]:
    try:
        evalue = str(error)
    except Exception:
        evalue = "<exception str() failed>"
    try:
        lines = "".join(traceback.format_exception(error)).rstrip("\n").split("\n")
    except Exception:
        lines = [f"{type(error).__name__}: {evalue}"]
    if len(lines) > _MAX_LINES:
        lines = [*lines[: _MAX_LINES // 2], f"  [... {len(lines) - _MAX_LINES} lines ...]", *lines[-_MAX_LINES // 2 :]]
    return type(error).__name__, evalue, lines


def _finish(code: int) -> NoReturn:
    """End as the interpreter does: threads joined, exit handlers run, streams flushed; then without unwinding."""
    try:
        # not imported here: its fork handler would cost every fork of the zygote half a millisecond
        if "threading" in sys.modules:
            sys.modules["threading"]._shutdown()
        atexit._run_exitfuncs()
    except BaseException:
        sys.excepthook(*sys.exc_info())
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            code = code or 120  # what CPython's finalisation says of a stream that cannot be flushed
    os._exit(code)
