"""What may stand behind ``doctor``, the same on the command line and in a notebook."""

from __future__ import annotations

from collections.abc import Sequence

from container_magic.deferred import dataclass
from container_magic.errors import OptionError

HELP = """\
usage: contain doctor [--self-test] [--format json]

Show what this host can enforce, one line each, with the remedy for what it cannot.

  --self-test     attack containers on this host from inside instead: held, FAILED or not applicable, a line each;
                  the exit status is 1 when an attack was not held
  --format json   the same as JSON
"""


@dataclass(frozen=True, kw_only=True)
class DoctorWords:
    """What stands behind ``doctor``."""

    self_test: bool = False
    json_format: bool = False


def parse_words(words: Sequence[str]) -> DoctorWords:
    """Return what ``contain doctor WORDS`` asks for.

    Raises:
        OptionError: A word is none of ``--self-test`` and ``--format json``.
    """
    rest = [part for word in words for part in (word.split("=", 1) if word.startswith("--format=") else [word])]
    self_test = "--self-test" in rest
    rest = [word for word in rest if word != "--self-test"]
    if rest not in ([], ["--format", "json"]):
        raise OptionError(f"contain doctor does not take {' '.join(words)!r}; accepted: --format json, --self-test")
    return DoctorWords(self_test=self_test, json_format=bool(rest))
