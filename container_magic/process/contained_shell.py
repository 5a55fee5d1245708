"""What IPython's shell is in a container: what it shows goes over the channel, its errors into the slot.

Two shells are made of it: the one of a clean interpreter, and the notebook's own in a snapshot.
"""

from __future__ import annotations

import builtins
import getpass
import mmap
import os
import stat
import traceback
import types
from typing import Any

from IPython.core.autocall import ExitAutocall
from IPython.core.compilerop import CachingCompiler
from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell

from container_magic.process import sigint
from container_magic.process.channel import Channel
from container_magic.process.slot import exit_code_of, leave_error, set_line
from container_magic.rootfs.marker import HINT, NO_NESTING

BACKEND = "module://matplotlib_inline.backend_inline"
_NO_TEXT = "<exception str() failed>"
_MOST_LINES = 200
_HERE = os.path.dirname(__file__)


class Publisher(DisplayPublisher):
    """What ``display()`` publishes with."""

    def publish(
        self,
        data: dict[str, Any],
        metadata: dict[str, Any] | None = None,
        source: Any = None,  # noqa: ARG002 - IPython's signature
        *,
        transient: dict[str, Any] | None = None,
        update: bool = False,
        **_others: Any,
    ) -> None:
        """Show a bundle."""
        self._validate_data(data, metadata)  # type: ignore[no-untyped-call]
        display_id = (transient or {}).get("display_id")
        self.shell.show(data, metadata, display_id=display_id, update=update)

    def clear_output(self, wait: bool = False) -> None:
        """Clear what the cell has shown."""
        if self.shell.channel is not None:
            self.shell.channel.clear(wait=wait)


class Hook(DisplayHook):
    """What shows the value of an expression."""

    shell: Any

    def quiet(self) -> bool:
        """Whether a semicolon ends the cell."""
        return bool(self.semicolon_at_end_of_expression(self.shell.source))  # type: ignore[no-untyped-call]

    def start_displayhook(self) -> None:
        """Prepare nothing."""
        self._is_active = True

    def write_output_prompt(self) -> None:
        """Nothing: the front end numbers the cell."""

    def write_format_data(self, format_dict: dict[str, Any], md_dict: dict[str, Any] | None = None) -> None:
        """Show the value."""
        self.shell.show(format_dict, md_dict, result=True)

    def finish_displayhook(self) -> None:
        """Write no end of a line."""
        self._is_active = False


class Compiler(CachingCompiler):
    """Names the cell as the other shells do, whatever its number."""

    filename = ""

    def get_code_name(self, raw_code: str, transformed_code: str, number: int) -> str:  # noqa: ARG002
        """Return the name of the cell."""
        return self.filename

    def format_code_name(self, name: str) -> tuple[str, str] | None:
        """Return how tracebacks call it."""
        return ("File", name) if name == self.filename else None


class Exit(ExitAutocall):
    """``exit`` and ``quit``, with and without brackets: the code ends, as in a script."""

    def __call__(self, code: Any = None) -> None:  # noqa: D102 - IPython shows the class's
        raise SystemExit(code)


class Contained(InteractiveShell):
    """What an IPython shell does otherwise in a container: it has a channel for a front end."""

    # the child's own descriptors: what it writes comes in order, and nothing goes through a terminal
    system = InteractiveShell.system_raw

    channel: Channel | None = None
    compile: Any
    history_manager: Any
    slot: mmap.mmap
    source = ""
    failed = False
    rehearses = False
    """Whether what runs is to go the way of a cell of the user's, and to leave no trace."""

    def show(self, data: dict[str, Any], metadata: dict[str, Any] | None, **how: Any) -> None:
        """Show a bundle; as text where nobody can take more, in a forked child or after the channel was closed."""
        if self.channel is not None and not self.channel.show(data, metadata, **how):
            print(data.get("text/plain", ""))  # noqa: T201

    async def run_ast_nodes(self, *arguments: Any, **keywords: Any) -> bool:
        """Run a cell's statements; Ctrl-C means them, and what shows figures behind them, and not IPython between."""
        try:
            return bool(await super().run_ast_nodes(*arguments, **keywords))
        finally:
            sigint.let_in()

    async def run_code(self, code_obj: types.CodeType, result: Any = None, *, async_: bool = False) -> bool:
        """Run one statement; unlike IPython's own it leaves ``SystemExit`` to its caller."""
        set_line(self.slot, next((line for _, _, line in code_obj.co_lines() if line), 0))
        with sigint.put_off_behind():
            try:
                sigint.let_in()
                if async_:
                    await eval(code_obj, self.user_global_ns, self.user_ns)
                else:
                    exec(code_obj, self.user_global_ns, self.user_ns)
            except BaseException as error:
                if result is not None:
                    result.error_in_exec = error
                self._show_error(error)
                return True
            return False

    def _show_error(self, error: BaseException) -> None:
        error.__traceback__ = trace = _foreign(error.__traceback__)
        if isinstance(error, SystemExit):
            return
        if _has_group(error) or _text(error) == _NO_TEXT:  # IPython would print these, not hand them on
            self._showtraceback(type(error), error, traceback.format_exception(error))
        else:
            self.showtraceback((type(error), error, trace), tb_offset=0, running_compiled_code=True)

    def _format_exception_for_storage(self, *_arguments: Any, **_keywords: Any) -> dict[str, Any]:
        return {}  # for a history that there is not; it would format everything a second time

    def show_usage_error(self, exc: BaseException) -> None:
        """Leave the message of a magic that was used wrongly."""
        self._showtraceback(UsageError, exc, [f"UsageError: {exc}"])

    def _showtraceback(self, etype: type[BaseException], evalue: BaseException | None, stb: list[str]) -> None:
        self.failed = True
        lines = "\n".join(stb).split("\n")
        if len(lines) > _MOST_LINES:
            half = _MOST_LINES // 2
            lines = [*lines[:half], f"[... {len(lines) - 2 * half} lines ...]", *lines[-half:]]
        leave_error(self.slot, etype.__name__, _text(evalue), lines)

    def owned_by(self, slot: mmap.mmap) -> Contained:
        """Leave word of this process in ``slot`` from now on."""
        self.slot = slot
        return self

    def main_module(self) -> types.ModuleType:
        """Return the module that all cells of this shell run in."""
        main: types.ModuleType = self.user_module
        return main

    def attach(self, channel_fd: int) -> Channel:
        """Show things on this channel, and ask there for input."""
        self.channel = Channel(channel_fd)
        os.environ.setdefault("MPLBACKEND", BACKEND)
        if _reads_nothing():  # who was given something to read reads it
            builtins.input = self._input
            getpass.getpass = self._getpass
        return self.channel

    def _input(self, prompt: object = "", /) -> str:
        return self._ask(prompt, password=False)

    def _getpass(self, prompt: str = "Password: ", stream: Any = None, **_others: Any) -> str:  # noqa: ARG002
        return self._ask(prompt, password=True)

    def _ask(self, prompt: object, *, password: bool) -> str:
        if self.channel is None:
            raise EOFError("nobody can be asked")
        return self.channel.ask(str(prompt), password=password)

    def run(self, source: bytes, filename: str, module: types.ModuleType) -> int:  # noqa: ARG002 - its own
        """Run a cell; an error is left where it was shown, ``SystemExit`` is raised."""
        self.source = source.decode("utf-8", errors="replace")
        self.compile.filename = filename
        self.failed = False
        result = self.run_cell(self.source, store_history=self.keeps_history())  # type: ignore[no-untyped-call]
        error: BaseException | None = result.error_before_exec or result.error_in_exec
        if isinstance(error, SystemExit):
            raise error
        return exit_code_of(error) if error is not None else int(self.failed)

    def keeps_history(self) -> bool:
        """Whether what runs is a cell of the user's, to be found in ``In`` and ``Out``."""
        return self.channel is not None or self.rehearses


def refuse_nesting(shell: InteractiveShell) -> None:
    """Have ``%%contain`` say that a container is no place for containers."""
    for kind in ("line", "cell", "line_cell"):
        shell.register_magic_function(_no_nesting, kind, "contain")  # type: ignore[arg-type]


def _reads_nothing() -> bool:
    """Whether standard input is the null device: nothing was given to this run."""
    status = os.fstat(0)
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == os.makedev(1, 3)


def _text(error: BaseException | None) -> str:
    try:
        return str(error)
    except Exception:
        return _NO_TEXT


def _foreign(trace: types.TracebackType | None) -> types.TracebackType | None:
    """Return a traceback without the frames of this package: what asks, shows and runs is not the user's affair."""
    while trace is not None and os.path.dirname(trace.tb_frame.f_code.co_filename) == _HERE:
        trace = trace.tb_next
    if trace is not None:
        trace.tb_next = _foreign(trace.tb_next)
    return trace


def _has_group(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, BaseExceptionGroup):
        error = error.__context__
    return error is not None


def _no_nesting(*_arguments: str) -> None:
    """Say that a container is no place for containers."""
    raise UsageError(f"{NO_NESTING}; {HINT}")
