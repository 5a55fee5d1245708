"""Where the command ``contain`` begins: Ctrl-C before its verbs are imported ends it as any program, without a word."""

from __future__ import annotations

# signal's own functions make enums of what they are given, which takes as long as the rest of this
import _signal  # type: ignore[import-not-found]

if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:  # else it is ignored: a job in the background
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)

from container_magic import cli


def main() -> int:
    """Run ``contain`` with the process's arguments and return its exit code."""
    return cli.main()
