"""Languages that ``--lang`` knows besides Python: how each is made to read code, and what its errors look like."""

from __future__ import annotations

from container_magic.deferred import dataclass


@dataclass(frozen=True, kw_only=True)
class Language:
    """One language: the program is called as the language is; ``reads`` makes it read code on standard input.

    ``takes`` stands in the place of ``reads`` when the code gets arguments; they follow it.
    """

    name: str
    reads: tuple[str, ...] = ("-",)
    takes: tuple[str, ...] = ("-",)


LANGUAGES: dict[str, Language] = {
    language.name: language
    for language in (
        # as a file, because bash names the line of an error only of those
        Language(name="bash", reads=("/dev/stdin",), takes=("/dev/stdin",)),
        Language(name="sh", reads=(), takes=("-s", "--")),  # POSIX: -s reads commands from standard input
        Language(name="node"),
        Language(name="Rscript"),
        Language(name="julia"),
        Language(name="perl"),
        Language(name="ruby"),
    )
}
"""By name, which is also the name of the program."""
