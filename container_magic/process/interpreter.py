"""Runs Python source in this process as ``__main__``, the way ``python -u FILE`` would.

Standard library only, and nothing of this package stays visible to the code that runs.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import io
import linecache
import mmap
import os
import signal
import stat
import sys
import traceback
import types
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from container_magic.process import sigint
from container_magic.process.init import FAREWELLS
from container_magic.process.shells import EXCHANGE, IPYTHON_SHELL, KERNEL_SHELL, LIVE_SHELL, PLAIN_SHELL
from container_magic.process.slot import exit_code_of, leave_error, set_leaving, set_line

if TYPE_CHECKING:
    from container_magic.process.channel import Channel
    from container_magic.spec import Process, ShellName

# what Python itself calls code that comes from no file
_UNNAMED = {"": "<cell>", "-c": "<string>", "-": "<stdin>"}
_MAX_LINES = 60
_INTERRUPTED = 128 + signal.SIGINT
_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it, musl not


class Shell(Protocol):
    """A way to run source."""

    def main_module(self) -> types.ModuleType:
        """Return the module that the source runs in."""

    def attach(self, channel_fd: int) -> Channel | None:
        """Show things on this channel from now on."""

    def touch(self, filename: str, module: types.ModuleType) -> None:
        """Run an empty cell, and leave no trace of it."""

    def run(self, source: bytes, filename: str, module: types.ModuleType) -> int:
        """Run ``source`` and return the exit code; what the source raises is raised, unless the error is left."""


class _Script:
    """The way that a file is run: nothing is shown but what it writes."""

    def main_module(self) -> types.ModuleType:
        return types.ModuleType("__main__")

    def attach(self, channel_fd: int) -> Channel | None:
        os.close(channel_fd)
        return None

    def touch(self, filename: str, module: types.ModuleType) -> None:
        self.run(b"1", filename, module)

    def run(self, source: bytes, filename: str, module: types.ModuleType) -> int:
        code = compile(source, filename, "exec", dont_inherit=True)
        sigint.let_in()
        exec(code, module.__dict__)
        return 0


def _shell(name: ShellName, slot: mmap.mmap) -> Shell:
    """Return a shell; its module was imported in the zygote, because nothing of this package is in the container."""
    shell: Shell = _Script()
    if name == "plain":
        shell = _own(PLAIN_SHELL).PlainShell(slot)
    if name == "ipython":
        shell = _own(IPYTHON_SHELL).SHELL.owned_by(slot)
    if name == "live":
        shell = _own(LIVE_SHELL).take_over(slot)
    if name == "kernel":
        shell = _own(KERNEL_SHELL).KernelShell(slot)
    return shell


class Interpreter:
    """This process as the one that a cell will run in."""

    def __init__(self, process: Process, error_slot: mmap.mmap) -> None:
        self._process = process
        self._slot = error_slot
        self._shell = _shell(process.shell, error_slot)
        self._exchange = _own(EXCHANGE)
        self._channel: Channel | None = None
        self._stopped = self._tells_client = False

    def prepare(self, *, touched: str = "") -> None:
        """Do what needs no code: forget this package, and touch, while nobody waits, what every cell will write to.

        A fork shares its parent's pages until it writes to them; each first write costs a page fault and a copy.
        A snapshot is left as the notebook is: its modules are the user's, and nobody waits in it. ``touched`` is the
        shell that has touched them in this process already.
        """
        if self._process.shell == "live":
            return
        _reseed()
        if self._process.shell != touched:
            self.touch()
        set_line(self._slot, 0)
        forget_ourselves()

    def touch(self) -> None:
        """Run an empty cell, and with it what every cell writes to."""
        if not _streams:
            _open_streams()
        _is_null(0)  # as every cell asks
        filename, module = self._begin(b"1", ())
        sigint.put_off()  # as before every cell, so that this lets it in as that will
        self._shell.touch(filename, module)

    def run_cell(
        self,
        source: bytes,
        channel_fd: int | None = None,
        variables_fd: int | None = None,
        *,
        tells_client: bool = False,
    ) -> NoReturn:
        """Run ``source`` and end this process with the exit code that Python would give.

        An uncaught exception is left in the slot as JSON (ename, evalue, traceback) and, where the process asks for
        it, printed to standard error as usual. ``channel_fd`` is where a shell shows things, ``variables_fd`` holds the
        variables that the cell is given, and the names of those that are wanted of it. ``tells_client``: that the code
        has ended well is said on the channel, and not to init.
        """
        self._tells_client = tells_client
        if not _streams:
            _open_streams()
        elif not _is_null(0):
            _open_stdin()
        self._channel = self._shell.attach(channel_fd) if channel_fd is not None else None
        filename, module = self._begin(source, self._process.args)
        code, pid = 1, os.getpid()
        try:
            if self._process.session and self._process.shell != "kernel" and self._channel is not None:
                code = self._execute_and_listen_no_more(source, filename, module, variables_fd)
                code = self._live_on(self._channel, code, module)
            else:
                code = self._execute(source, filename, module, variables_fd)
        finally:
            self._finish(code, pid)

    def _begin(self, source: bytes, args: Sequence[str]) -> tuple[str, types.ModuleType]:
        """Return the name of ``source`` and the module that it will run in, with the arguments that it will see."""
        sys.argv = list(args) or [""]
        return _prepare_main(self._shell.main_module(), source, sys.argv)

    def _live_on(self, channel: Channel, code: int, module: types.ModuleType) -> int:
        """Run a session's next cells in the same module, until there is none or the code ends the interpreter."""
        number, was_interrupted = 1, False
        while not self._stopped:
            was_interrupted = was_interrupted or code == _INTERRUPTED
            if was_interrupted and _malloc_trim is not None:
                # perhaps for its memory: what it frees shall be seen, and malloc keeps what lies below its last piece
                _malloc_trim(0)
            cell = channel.next_cell(code)
            if cell is None:
                return code
            source, variables_fd = cell
            number += 1
            filename = f"<cell {number}>"
            _remember(source, filename)
            sigint.put_off()  # one that has come between two cells means none
            channel.say_begun()
            code = self._execute_and_listen_no_more(source, filename, module, variables_fd)
        return code

    def _execute_and_listen_no_more(
        self, source: bytes, filename: str, module: types.ModuleType, variables_fd: int | None
    ) -> int:
        """Run a session's cell; a Ctrl-C that comes when it is all but over ends it, and not the session."""
        try:
            code = self._execute(source, filename, module, variables_fd)
            sigint.put_off()
        except KeyboardInterrupt as error:
            sigint.put_off()
            error.__traceback__ = _own_frames(error, filename)
            leave_error(self._slot, *_describe(error))
            return exit_code_of(error)
        return code

    def _execute(self, source: bytes, filename: str, module: types.ModuleType, variables_fd: int | None) -> int:
        try:
            if variables_fd is None:
                return self._run(source, filename, module)
            wanted = self._exchange.take_in(variables_fd, module.__dict__)
            code = self._run(source, filename, module)
            if not code and self._channel is not None:
                self._exchange.send_out(self._channel, wanted, module.__dict__)
            return code
        except BaseException as error:
            error.__traceback__ = _own_frames(error, filename)
            leave_error(self._slot, *_describe(error))
            if self._process.print_traceback:
                _show(error)
            return exit_code_of(error)

    def _run(self, source: bytes, filename: str, module: types.ModuleType) -> int:
        try:
            return self._shell.run(source, filename, module)
        except SystemExit as stop:
            self._stopped = True
            return _exit_code(stop)

    def _finish(self, code: int, pid: int) -> NoReturn:
        """End as the interpreter does: threads joined, exit handlers run, streams flushed; then without unwinding.

        ``pid`` is the payload's: a fork of it may come here, too.
        """
        try:
            sigint.let_in(kept=False)
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
        if code in range(len(FAREWELLS)) and os.getpid() == pid:
            self._say_farewell(code)
        os._exit(code)

    def _say_farewell(self, code: int) -> None:
        if code == 0 and self._tells_client and self._channel is not None:
            self._channel.say_farewell()
        os.sched_yield()  # what has run until now is accounted for
        set_leaving(self._slot)
        with contextlib.suppress(OSError):
            os.kill(1, FAREWELLS[code])


def _reseed() -> None:
    """Give preloaded generators of random numbers a seed of their own; ``random`` does that itself at every fork."""
    for name, function in (("numpy.random", "seed"), ("torch", "seed")):
        if name in sys.modules:
            getattr(sys.modules[name], function)()


def _open_streams() -> None:
    """Fresh, unbuffered standard streams: what is printed is out, also when the process is killed next."""
    _open_stdin()
    for name, fd, errors in (("stdout", 1, "surrogateescape"), ("stderr", 2, "backslashreplace")):
        raw = io.FileIO(fd, "w", closefd=False)
        stream = io.TextIOWrapper(raw, encoding="utf-8", errors=errors, write_through=True)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _open_stdin() -> None:
    sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
    setattr(sys, "__stdin__", sys.stdin)  # noqa: B010 - typeshed calls it final


def _is_null(fd: int) -> bool:
    status = os.fstat(fd)
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == _NULL


def open_streams_ahead() -> None:
    """Give this process, and all that are forked of it, the streams of a payload.

    Streams ask their descriptors once what they are. So this is done over what a payload will have: the null device to
    read from, for which it gets another stream if it has anything else, and pipes to write to.
    """
    kept = [os.dup(fd) for fd in _STANDARD]
    null, (reader, writer) = os.open("/dev/null", os.O_RDONLY), os.pipe()
    try:
        for fd, source in zip(_STANDARD, (null, writer, writer), strict=True):
            os.dup2(source, fd)
        _open_streams()
        _streams.append(True)
    finally:
        for fd, source in zip(_STANDARD, kept, strict=True):
            os.dup2(source, fd)
        for fd in (null, reader, writer, *kept):
            os.close(fd)


_STANDARD = (0, 1, 2)
_NULL = os.makedev(1, 3)  # Documentation/admin-guide/devices.txt
_streams: list[bool] = []
"""Not empty: they were opened ahead."""
_ours: dict[str, types.ModuleType] = {}


@functools.cache
def own_modules() -> tuple[str, ...]:
    """Return the names of this package's modules.

    Asked for once, in the zygote: to go through all modules is to count a reference to each name, on as many pages.
    """
    return tuple(name for name in sys.modules if name.startswith("container_magic"))


def _own(name: str) -> Any:
    """Return a module of this package, if it was imported, from wherever it is now."""
    return _ours.get(name) or sys.modules.get(name)


def forget_ourselves() -> None:
    """Let nobody who imports find this package; once more does nothing."""
    if _ours:
        return
    for name in own_modules():
        # kept alive: to free them would write to, and so copy, every page that they lie on
        _ours[name] = sys.modules.pop(name)
    sys.path[:] = ["", *(entry for entry in sys.path if entry and not entry.startswith("/.container_magic"))]


def rehearse_forgetting() -> None:
    """Forget and remember: when it is for good, the pages that this writes to are written to."""
    path = list(sys.path)
    forget_ourselves()
    sys.modules.update(_ours)
    _ours.clear()
    sys.path[:] = path


def main_path(argv: Sequence[str]) -> str:
    """Return the file that holds the source of a main module which other processes may have to import."""
    name = argv[0] if argv else ""
    return f"/tmp/{os.path.basename(_UNNAMED.get(name, name)).strip('<>') or 'main'}"


def _prepare_main(module: types.ModuleType, source: bytes, argv: Sequence[str]) -> tuple[str, types.ModuleType]:
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
    _remember(source, filename)
    return filename, module


def _remember(source: bytes, filename: str) -> None:
    """Let tracebacks show the lines of a source that is in no file."""
    lines = source.decode("utf-8", errors="replace").splitlines(keepends=True)
    linecache.cache[filename] = (len(source), None, lines, filename)


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
