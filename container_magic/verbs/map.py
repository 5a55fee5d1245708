"""``map``: one source over many inputs, each in a fresh container, a bounded number at a time."""

from __future__ import annotations

import inspect
import os
import select
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import field, replace
from typing import Any

from container_magic.deferred import dataclass
from container_magic.errors import ContainError, OptionError
from container_magic.events import Exited, Failed
from container_magic.folding import ReportBuilder
from container_magic.options.standard_input import StandardInput, standard_input
from container_magic.report import RunReport
from container_magic.runtime.pool import MOST_WAITING
from container_magic.runtime.request import RunRequest
from container_magic.runtime.run import Run
from container_magic.verbs.run import request_for

_MOST_WORKERS = 64


def map(
    source: str | bytes | Sequence[str | os.PathLike[str]] | Callable[[str], Any],
    inputs: Iterable[StandardInput],
    *,
    workers: int = 2,
    **options: Any,
) -> Iterator[RunReport]:
    """Run ``source`` once for each of ``inputs``, each in a fresh container, and yield the reports as runs end.

    Args:
        source: Python source, the words of a command, or a function of one text argument whose own source is sent; what
            it returns is printed.
        inputs: What each run reads on standard input: text, bytes, or the path object of a file, at most 64 MiB. Taken
            as runs begin, never more than are under way.
        workers: How many run at once.
        **options: As for ``run``.

    Yields:
        ``RunReport`` with ``index``, the number of its input, in order of completion. Where a sandbox broke, that run's
        report says ``INTERNAL_ERROR``, and the others go on.

    Raises:
        OptionError: An option is unknown or malformed, and nothing was started; or an input cannot be read.
        HostError: This host cannot do what was asked.
    """
    if isinstance(workers, bool) or not isinstance(workers, int) or not 1 <= workers <= _MOST_WORKERS:
        raise OptionError(f"workers {workers!r}: accepted: a whole number from 1 to {_MOST_WORKERS}")
    if isinstance(inputs, (str, bytes)) or not isinstance(inputs, Iterable):
        raise OptionError(f"inputs: accepted: a list, or anything else that yields them; not {type(inputs).__name__}")
    for name in ("stdin", "stdin_file"):
        if options.get(name) is not None:
            raise OptionError(f"{name} says what one run reads, and inputs what each does; accepted: inputs alone")
    request = request_for(_text_of(source) if callable(source) else source, options)
    if request.out_files:
        raise OptionError("out_file: the files of many runs would replace each other; accepted: cm.run for each input")
    # a supervisor whose run is over makes its next container while another one's runs
    request = replace(request, warm=min(2 * workers, MOST_WAITING) if request.warm else 0)
    return _Batch(request=request, inputs=enumerate(inputs), workers=workers).reports()


def _text_of(function: Callable[[str], Any]) -> str:
    """Return a program that calls ``function`` with all of standard input."""
    name = getattr(function, "__name__", "")
    try:
        text = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError) as error:
        raise OptionError(
            f"the source of {function!r} cannot be had ({error}); accepted: a function, or source text"
        ) from None
    if not name.isidentifier() or not text.lstrip().startswith("def "):
        raise OptionError(f"{function!r} is not a plain function; accepted: one made by def, or source text")
    return (
        f"{text}\nimport sys as _sys\n_value = {name}(_sys.stdin.read())\nif _value is not None:\n    print(_value)\n"
    )


@dataclass(kw_only=True)
class _Under:
    """A run under way."""

    run: Run
    index: int
    builder: ReportBuilder = field(default_factory=ReportBuilder)

    def take(self) -> bool:
        """Take what has come; return whether it is over."""
        try:
            for event in self.run.take():
                self.builder.add(event)
                if isinstance(event, Exited):
                    return True
        except ContainError as error:
            self.builder.add(Failed(message=error.message, hint=error.hint, kind=type(error).__name__))
            return True
        return False

    def report(self) -> RunReport:
        return replace(self.builder.report(), index=self.index)


@dataclass(kw_only=True)
class _Batch:
    """The runs of one ``map``."""

    request: RunRequest
    inputs: Iterator[tuple[int, StandardInput]]
    workers: int
    _under: dict[int, _Under] = field(default_factory=dict)
    _poll: select.poll = field(default_factory=select.poll)

    def reports(self) -> Iterator[RunReport]:
        try:
            while self._fill():
                for fd, _ in self._poll.poll():
                    under = self._under[fd]
                    if under.take():
                        self._end(fd)
                        self._fill()  # before the caller has a look at the report
                        yield under.report()
        finally:
            for fd in tuple(self._under):
                self._end(fd)

    def _fill(self) -> bool:
        """Start runs while there is room and input; return whether any is under way."""
        while len(self._under) < self.workers:
            try:
                index, value = next(self.inputs)
            except StopIteration:
                break
            self._start(index, value)
        return bool(self._under)

    def _start(self, index: int, value: StandardInput) -> None:
        try:
            stdin = standard_input(value)
        except ValueError as error:
            raise OptionError(f"input {index}: {error}") from None
        run = Run(replace(self.request, stdin=stdin))
        self._under[run.fileno()] = _Under(run=run, index=index)
        self._poll.register(run.fileno(), select.POLLIN)

    def _end(self, fd: int) -> None:
        self._poll.unregister(fd)
        self._under.pop(fd).run.close()
