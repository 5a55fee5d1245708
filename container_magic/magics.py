"""``%%contain`` and ``%contain``: parse the line, call a verb, show what comes back; no other logic."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from threading import Thread
from typing import TYPE_CHECKING, Any

from IPython import get_ipython
from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, line_cell_magic, magics_class
from traitlets import Bool, Dict, Float, Int, List, TraitType, Unicode, Union
from traitlets.config import Configurable

from container_magic import options
from container_magic.display.failure import CellError, failure
from container_magic.display.html import report_full_html, report_line_html
from container_magic.display.notebook import Page, ask, show_last
from container_magic.display.sending import Idle, Streams
from container_magic.display.text import report_full, report_line
from container_magic.errors import ContainError, OptionError
from container_magic.events import Cleared, Displayed, Failed, InputAsked, Output, until_exited
from container_magic.folding import ReportBuilder
from container_magic.forks import importing
from container_magic.line_verbs import VERBS, call_verb, verb_words
from container_magic.options.completion import at_cursor
from container_magic.remembered import by_identity
from container_magic.report import RunReport

if TYPE_CHECKING:
    from container_magic.display.cell import CellLine
    from container_magic.runtime.variables import Variables
    from container_magic.spec import ContainerSpec, Process
    from container_magic.verbs.run import Run, RunRequest

STARTER = "container_magic: zygote"
"""Name of the thread that starts what the first cell will need."""
_USAGE = """Run a cell in a container: %%contain [options], the code below it.

%contain --mem 512M ... sets defaults of the session, %contain alone shows them, %contain VERB runs a verb.

"""


def _trait(option: options.Option) -> TraitType[Any, Any]:
    if option.flag:
        trait: TraitType[Any, Any] = Bool(None, allow_none=True)
    elif option.repeatable:
        trait = Union([Unicode(), List(Unicode()), Dict()], default_value=None, allow_none=True)
    else:
        trait = Union([Unicode(), Int(), Float()], default_value=None, allow_none=True)
    return trait.tag(config=True)


_OPTIONS = options.options_of("magic")
# One trait per row of the option table; a trait that is None says nothing and leaves the built-in default.
_Defaults: Any = type(
    "_Defaults", (Configurable,), {option.keyword: _trait(option) for option in _OPTIONS} | {"__module__": __name__}
)


@magics_class
class ContainMagics(_Defaults, Magics):  # type: ignore[misc]  # made above, from the table
    """The magics; their traits are the defaults of the session (``c.ContainMagics.mem = "512M"``)."""

    shell: InteractiveShell

    def __init__(self, shell: InteractiveShell, **kwargs: Any) -> None:
        self._kept_defaults: dict[str, Any] | None = None
        self._ahead: list[Thread] = []
        super().__init__(shell=shell, **kwargs)
        self.observe(self._forget_defaults)
        if _complete not in shell.Completer.custom_matchers:
            shell.Completer.custom_matchers.append(_complete)

    def begin_ahead(self) -> None:
        """Start the zygote of cells without options, while nobody waits for it; ``warm`` 0: nothing is made ahead."""
        # defaults that make no sense, or no thread to be had: the first cell says it, or does without
        with suppress(ContainError, RuntimeError):
            asked = options.from_argv([], "magic", self._defaults())
            if asked.warm > 0:
                process = _spec_for_cell(asked.spec, asked.snapshot).process
                # no daemon: a session that ends meanwhile waits for it, and ends what it has started
                thread = Thread(target=_start_zygote, args=(process,), name=STARTER, daemon=False)
                thread.start()
                self._ahead = [*(one for one in self._ahead if one.is_alive()), thread]

    def await_ahead(self) -> None:
        """Wait until what is started ahead has been, or could not be."""
        for thread in self._ahead:
            thread.join()

    @line_cell_magic
    def contain(self, line: str, cell: str | None = None) -> None:
        """Run a cell in a container."""  # the whole text, with every option, is put in below
        words = options.split_line(line)
        if cell is not None:
            self._run(words, cell)
        elif not words:
            print("\n".join(self._described_defaults()))  # noqa: T201 - a magic's answer goes to stdout
        elif words[0].startswith("-"):
            self._set_defaults(words)
        else:
            call_verb(words[0], words[1:])

    def _run(self, words: list[str], cell: str) -> None:
        asked = options.from_argv(words, "magic", self._defaults())
        if not cell.strip():
            raise OptionError("the cell is empty: there is nothing to run")
        from container_magic.verbs.run import dry_run

        asked = replace(asked, spec=_spec_for_cell(asked.spec, asked.snapshot))
        if asked.dry_run:
            print("\n".join(dry_run(asked.spec).describe()))  # noqa: T201 - a magic's answer goes to stdout
            return
        variables = self._variables(asked)
        builder = ReportBuilder()
        try:
            silent = _stream(asked, cell, variables, builder, lambda: Page(self.shell, self._line(asked)))
        except ContainError as error:
            builder.add(Failed(message=error.message, hint=error.hint, kind=type(error).__name__))
            raise
        finally:
            report = builder.report()
            self.shell.user_ns.update({name: report for name in ("_contain", asked.result) if name})
        self.shell.user_ns.update(report.values)
        _show(self.shell.display_pub, report, "none" if asked.quiet else asked.report, silent=silent)
        _fail(failure(report, cell, asked.outputs), raise_error=asked.raise_error)

    def _line(self, asked: options.RunOptions) -> CellLine | None:
        """Return the line that tells how a long cell is getting on: in a notebook, unless no report is wanted."""
        if asked.quiet or asked.report == "none" or not self._has_cell_for_itself():
            return None
        from container_magic.display.cell import CellLine

        return CellLine()

    def _has_cell_for_itself(self) -> bool:
        """Whether the outputs of the notebook's cell are all ours: at the end of a line they are cleared."""
        if getattr(self.shell, "kernel", None) is None:
            return False
        request = self.shell.get_parent().get("content", {})  # type: ignore[attr-defined]  # ipykernel's shell
        return str(request.get("code", "")).lstrip().startswith("%%contain")

    def _variables(self, asked: options.RunOptions) -> Variables | None:
        if not asked.inputs and not asked.outputs:
            return None
        from container_magic.verbs.run import variables_for

        return variables_for(asked.spec, self.shell.user_ns, asked.outputs, asked.inputs)

    def _defaults(self) -> dict[str, Any]:
        if self._kept_defaults is None:
            values = {option.keyword: getattr(self, option.keyword) for option in _OPTIONS}
            self._kept_defaults = {keyword: value for keyword, value in values.items() if value is not None}
        return dict(self._kept_defaults)

    def _forget_defaults(self, _change: object) -> None:
        self._kept_defaults = None

    def _set_defaults(self, words: list[str]) -> None:
        options.from_argv(words, "magic", self._defaults())
        given = options.parse_line(words, "magic").texts
        # the next line has to make sense with these alone, not only over the old ones
        options.from_keywords({}, {**self._defaults(), **given}, front="magic")
        for keyword, value in given.items():
            setattr(self, keyword, value)
        self.begin_ahead()

    def _described_defaults(self) -> list[str]:
        session = self._defaults()
        lines = [f"  {_spelled(option, session[option.keyword])}" for option in _OPTIONS if option.keyword in session]
        built_in = " ".join(
            _spelled(option, option.default) for option in _OPTIONS if option.default and option.keyword not in session
        )
        return [
            "session defaults:" if lines else "session defaults: none; set some with %contain --mem 512M ...",
            *lines,
            f"built in: {built_in}",
        ]


def _start_zygote(process: Process) -> None:
    with suppress(Exception):  # the first cell meets the same, and has somebody to tell
        with importing:
            importlib.import_module("container_magic.verbs.run")  # as that cell will
            from container_magic.runtime.client import modules_of, zygote

        zygote(modules_of(process))


@by_identity
def _spec_for_cell(spec: ContainerSpec, snapshot: bool) -> ContainerSpec:
    # the error becomes the cell's own output: printed by the container as well it would be there twice
    quiet = replace(spec, process=replace(spec.process, print_traceback=False))
    return options.for_snapshot(quiet) if snapshot else options.for_shell(quiet, "ipython")


ContainMagics.contain.__doc__ = _USAGE + options.help_text("magic")


def _stream(
    asked: options.RunOptions,
    cell: str,
    variables: Variables | None,
    builder: ReportBuilder,
    open_page: Callable[[], Page],
) -> bool:
    """Run ``cell`` and show in the notebook what it writes and shows as it comes; every event goes to ``builder``.

    The page is opened when the code is under way: whatever is done before, it waits for.

    Returns:
        Whether it has written nothing.
    """
    from container_magic.verbs.run import RunRequest

    request = RunRequest(
        spec=asked.spec,
        code=_encoded(cell),
        stdin=asked.stdin,
        warm=asked.warm,
        html=asked.html,
        out_files=asked.out_files,
        variables=variables,
    )
    with _opened(request, asked.session) as run:
        page = open_page()
        streams = Streams(page.line)
        try:
            idle = Idle(run, streams, page.line)
            for event in until_exited(run):
                builder.add(event)
                if isinstance(event, Output):
                    streams.write(event)
                    idle.flush_soon(event)
                elif isinstance(event, Displayed):
                    page.show(event)
                elif isinstance(event, Cleared):
                    page.clear(event)
                elif isinstance(event, InputAsked):
                    _answer(run, event)
                if page.line is not None:
                    page.line.add(event)
                    page.line.tick()
        finally:
            streams.finish()
            if page.line is not None:
                page.line.finish()
    return streams.is_silent and page.is_silent


@contextmanager
def _opened(request: RunRequest, session: str | None) -> Iterator[Run]:
    """Open a run of its own, or the next cell of a session."""
    if session is None:
        from container_magic.verbs.run import open_run

        with open_run(request) as run:
            yield run
        return
    from container_magic.verbs.sessions import open_cell

    with open_cell(session, request) as (run, note):
        if note:
            sys.stderr.write(f"{note}\n")
            sys.stderr.flush()
        yield run


def _answer(run: Run, event: InputAsked) -> None:
    try:
        run.reply(ask(event))
    except KeyboardInterrupt:
        run.on_sigint()


def _encoded(cell: str) -> bytes:
    try:
        return cell.encode()
    except UnicodeEncodeError as error:
        line = cell.count("\n", 0, error.start) + 1
        raise OptionError(f"line {line} of the cell holds half a surrogate pair, which UTF-8 cannot carry") from None


def _show(publisher: Any, report: RunReport, how: str, *, silent: bool) -> None:
    if how == "none":
        return
    text, html = (report_full, report_full_html) if how == "full" else (report_line, report_line_html)
    show_last(publisher, {"text/plain": text(report), "text/html": html(report)}, silent=silent)


def _fail(error: CellError | None, *, raise_error: bool) -> None:
    if error is None:
        return
    if raise_error:
        raise error
    sys.stderr.write("\n".join(error.lines) + "\n")


def _spelled(option: options.Option, value: Any) -> str:
    if isinstance(value, dict):
        value = [name if content is None else f"{name}={content}" for name, content in value.items()]
    if isinstance(value, list):
        return " ".join(f"{option.name} {item}" for item in value)
    return option.name if value is True else f"{option.name} {value}"


@context_matcher()  # type: ignore[untyped-decorator]
def _complete(context: CompletionContext) -> SimpleMatcherResult:
    """Return what may stand at the cursor of a ``%%contain`` or ``%contain`` line, in place of names of Python."""
    line = context.text_until_cursor
    words = line.split()
    current = words.pop() if words and not line[-1].isspace() else ""
    if not words or words[0] not in ("%contain", "%%contain") or not current.endswith(context.token):
        return {"completions": []}
    # IPython replaces its token, which = , : and other characters begin, not the whole word
    known = len(current) - len(context.token)
    found = [word[known:] for word in _candidates(words, current) if not _UNQUOTED.search(word)]
    return {"completions": [SimpleCompletion(word, type="param") for word in found], "suppress": bool(found)}


_UNQUOTED = re.compile(r"""[\s'"\\${}]""")
"""What would have to be quoted in a magic's line."""


def _candidates(words: list[str], current: str) -> list[str]:
    if words[:3] == ["%contain", "kernel", "install"]:
        return at_cursor(words[3:], current, "kernel")
    if len(words) > 1 and words[0] == "%contain" and words[1] in VERBS:
        return [word for word in verb_words(words[1], words[-1]) if word.startswith(current)]
    found = at_cursor(words[1:], current, "magic", _own_names())
    verbs = [verb for verb in VERBS if verb.startswith(current)] if words == ["%contain"] else []
    return [*verbs, *found]


def _own_names() -> list[str]:
    """Return the names that the user gave to something, as ``%who`` lists them."""
    shell = get_ipython()
    names = set() if shell is None else set(shell.user_ns) - set(shell.user_ns_hidden)
    return [name for name in names if not name.startswith("_")]
