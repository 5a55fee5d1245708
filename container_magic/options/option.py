"""``Option``: one row of the option table."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal

from container_magic.deferred import dataclass

Front = Literal["magic", "cli", "api", "kernel"]
"""Where options come from: ``%%contain`` lines, ``contain run``, keywords of Python functions, ``contain kernel``."""

Completes = Literal["", "path", "volume", "cpus", "variables"]

EVERYWHERE: frozenset[Front] = frozenset({"magic", "cli", "api", "kernel"})


@dataclass(frozen=True, kw_only=True)
class Option:
    """One option of a run, wherever it is given.

    ``parse`` turns the text into the value of ``field`` (a path into ``RunOptions``) and raises ``ValueError`` with
    what is accepted; a flag has none. ``default`` is text as the user would write it; None = nothing, or left to the
    plan, which ``help`` then says.
    """

    names: tuple[str, ...]
    help: str
    section: str
    field: str
    metavar: str = ""
    parse: Callable[[str], Any] | None = None
    default: str | None = None
    repeatable: bool = False
    fronts: frozenset[Front] = EVERYWHERE
    not_on_cli: tuple[str, ...] = ()
    """Names that mean something else on the command line (``-c`` is CODE there)."""
    choices: tuple[str, ...] = ()
    """Every accepted value, where they can be listed: for completion."""
    completes: Completes = ""
    """What else can be offered for its value: paths of the host, CPUs, names of the caller's session."""
    examples: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The spelling that messages and tables show."""
        return self.names[0]

    @property
    def flag(self) -> bool:
        """Whether it stands alone, without a value."""
        return self.parse is None

    @functools.cached_property
    def keyword(self) -> str:
        """Its name as a Python keyword and as a trait: ``--cpu-time`` is ``cpu_time``."""
        return self.keywords[0]

    @functools.cached_property
    def keywords(self) -> tuple[str, ...]:
        """Every long spelling as a Python keyword: ``("mem", "memory")``."""
        return tuple(name[2:].replace("-", "_") for name in self.names if name.startswith("--"))

    def names_on(self, front: Front) -> tuple[str, ...]:
        """Return the spellings that ``front`` accepts."""
        return tuple(name for name in self.names if front not in ("cli", "kernel") or name not in self.not_on_cli)
