"""The options of a run: one table, and what reads it."""

from __future__ import annotations

from container_magic.options.build import (
    RunOptions,
    from_argv,
    from_keywords,
    keywords_from_argv,
)
from container_magic.options.command_line import ParsedLine, parse_line, split_line
from container_magic.options.help import help_text
from container_magic.options.option import Front, Option
from container_magic.options.profiles import PROFILES
from container_magic.options.program import for_code, for_command, for_shell, for_snapshot
from container_magic.options.table import OPTIONS, options_of

__all__ = [
    "OPTIONS",
    "PROFILES",
    "Front",
    "Option",
    "ParsedLine",
    "RunOptions",
    "for_code",
    "for_command",
    "for_shell",
    "for_snapshot",
    "from_argv",
    "from_keywords",
    "help_text",
    "keywords_from_argv",
    "options_of",
    "parse_line",
    "split_line",
]
