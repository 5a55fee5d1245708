"""The help of ``contain run --help`` and ``%%contain?``, written from the table."""

from __future__ import annotations

from container_magic.options.for_kernel import default_of
from container_magic.options.option import Front, Option
from container_magic.options.table import options_of

RUN_HELP = """\
usage: contain run [OPTIONS] FILE.py [ARG...]
       contain run [OPTIONS] -c CODE [ARG...]
       contain run [OPTIONS] -- COMMAND [ARG...]

Run a program in fresh namespaces under limits.
FILE - reads the code from standard input.

{options}
Exit status: the program's own; 124 wall or CPU time limit; 125 contain failed;
126 cannot be invoked; 127 not found; 128+N ended by signal N; 130 interrupted;
137 memory limit.
"""
_COLUMN = 28
_WIDTH = 79
_UNBREAKABLE = "\x1f"


def help_text(front: Front) -> str:
    """Return every option of ``front`` by section, with default and example, as wide as a pager of 80 shows."""
    sections: dict[str, list[str]] = {}
    for option in options_of(front):
        sections.setdefault(option.section, []).extend(_lines(option, front))
    return "\n\n".join("\n".join([f"{title}:", *lines]) for title, lines in sections.items()) + "\n"


def described(option: Option, front: Front = "magic") -> str:
    """Return the help of ``option`` with its default and whether it may be repeated."""
    default = default_of(option, front)
    more = [f"default: {default}"] if default is not None else []
    more += ["may be repeated"] if option.repeatable else []
    return option.help + (f" ({', '.join(more)})" if more else "")


def spelled(option: Option, front: Front) -> str:
    """Return the spellings of ``option`` with its value: ``--mem, --memory, -m SIZE``."""
    return ", ".join(option.names_on(front)) + (f" {option.metavar}" if option.metavar else "")


def _lines(option: Option, front: Front) -> list[str]:
    import textwrap

    # example and option stay in one line: a blank that does not break, as far as it fits
    example = f"; example: {option.name}{_UNBREAKABLE}{option.examples[0]}" if option.examples else ""
    wrapped = [
        line.replace(_UNBREAKABLE, " ")
        for line in textwrap.wrap(described(option, front) + example, _WIDTH - _COLUMN, break_on_hyphens=False)
    ]
    head = f"  {spelled(option, front)}"
    if len(head) + 2 > _COLUMN:
        return [head, *(" " * _COLUMN + line for line in wrapped)]
    return [head.ljust(_COLUMN) + wrapped[0], *(" " * _COLUMN + line for line in wrapped[1:])]
