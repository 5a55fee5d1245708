"""What a run reads on standard input: a text, bytes, or what a file holds; bounded, and had before anything starts.

A word says one thing: ``--stdin`` is always text, ``--stdin-file`` always a file, as with ``--env`` and ``--env-file``.
"The file, if there is one of that name" would give a submission the wrong input the day somebody makes such a file, and
``@`` before a path is text that an input may begin with.
"""

from __future__ import annotations

import os

MAX_STDIN_BYTES = 64 * 1024 * 1024
_TOO_LARGE = "accepted: at most 64M, and any amount by contain run < FILE or a volume"

StandardInput = str | bytes | bytearray | os.PathLike[str]


def standard_input(value: StandardInput) -> bytes:
    """Return the bytes of a text, of bytes, or of the file that a path object names.

    Raises:
        ValueError: It is too large, or cannot be read; the message says what is accepted.
    """
    if isinstance(value, os.PathLike):
        return from_file(os.fspath(value))
    if isinstance(value, str):
        return from_text(value)
    if isinstance(value, (bytes, bytearray)):
        return _bounded(bytes(value))
    raise ValueError("accepted: text, bytes, or a path object such as pathlib.Path('1.in')")


def from_text(text: str) -> bytes:
    """``--stdin``: the bytes of a text, as it stands; no line end is added.

    Raises:
        ValueError: It is too large or no text.
    """
    try:
        return _bounded(text.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        raise ValueError("it holds half a surrogate pair, which UTF-8 cannot carry; accepted: text, bytes") from None


def from_file(path: str) -> bytes:
    """``--stdin-file``: what the file holds now.

    It is copied because a descriptor of a file of the host's could be opened anew inside, for writing, through
    /proc/self/fd (CVE-2017-5226 and its like).

    Raises:
        ValueError: It cannot be read, or is too large.
    """
    try:
        with open(os.path.expanduser(path), "rb") as file:
            return _bounded(file.read(MAX_STDIN_BYTES + 1))
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}; accepted: a file") from None


def _bounded(data: bytes) -> bytes:
    if len(data) > MAX_STDIN_BYTES:
        raise ValueError(f"it is too large; {_TOO_LARGE}")
    return data
