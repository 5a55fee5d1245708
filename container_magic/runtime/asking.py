"""The asking side of ``runtime.control``: which containers of this user answer, and what one says."""

from __future__ import annotations

import json
import os
import re
import socket
from typing import Any

from container_magic.errors import NotFoundError, OptionError, StateError, error_of
from container_magic.runtime.control import CONTROL, control_path
from container_magic.runtime.sweep import runtime_directory

_MOST_ANSWER_BYTES = 64 * 1024 * 1024
_PATIENCE_SECONDS = 20.0


def find(name: str, ids: list[str]) -> str:
    """Return the one of ``ids`` that begins with ``name``; empty when none does.

    Raises:
        OptionError: ``name`` can be no id, or several ids begin so.
    """
    if not re.fullmatch(r"[0-9a-f]{1,64}", name):
        raise OptionError(f"{name[:80]!r} is no container's id; accepted: up to 64 of the characters 0-9 and a-f")
    found = [one for one in dict.fromkeys(ids) if one.startswith(name)]
    if len(found) > 1:
        raise OptionError(f"{name} begins {len(found)} ids: {', '.join(one[:12] for one in found[:5])}")
    return found[0] if found else ""


def containers(*, that_answer: bool = True) -> list[str]:
    """Return the ids of this user's containers, those that answer or all."""
    directory = runtime_directory()
    with os.scandir(directory) as entries:
        found = [entry.name for entry in entries if re.fullmatch(r"[0-9a-f]{64}", entry.name)]
    return [name for name in found if not that_answer or os.path.exists(f"{directory}/{name}/{CONTROL}")]


def ask(container_id: str, request: dict[str, Any]) -> dict[str, Any]:
    """Return what the supervisor of a container answers.

    Raises:
        NotFoundError: The container is gone.
        StateError: It does not answer, or answers that it cannot.
    """
    try:
        message, fds = _exchange(container_id, json.dumps(request).encode())
    except (FileNotFoundError, ConnectionError):
        raise NotFoundError(f"container {container_id[:12]} is gone") from None
    except OSError as error:
        reason = f"within {_PATIENCE_SECONDS:g} s" if isinstance(error, TimeoutError) else f"({error.strerror})"
        raise StateError(f"container {container_id[:12]} does not answer {reason}") from None
    if len(fds) != 1 or not message:
        for fd in fds:
            os.close(fd)
        raise NotFoundError(f"container {container_id[:12]} is gone")
    with open(fds[0], "rb") as file:
        answer = json.loads(os.pread(file.fileno(), _MOST_ANSWER_BYTES, 0))
    return _checked(answer)


def _exchange(container_id: str, request: bytes) -> tuple[bytes, list[int]]:
    path = f"{runtime_directory()}/{container_id}"
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as caller:
        try:
            for end in (ours, caller):
                end.settimeout(_PATIENCE_SECONDS)
            caller.connect(control_path(directory))
            socket.send_fds(caller, [request], [theirs.fileno()])
        finally:
            theirs.close()
            os.close(directory)
        message, fds, _, _ = socket.recv_fds(ours, 16, 1)
    return message, fds


def _checked(answer: dict[str, Any]) -> dict[str, Any]:
    if "failed" not in answer:
        return answer
    raise error_of(str(answer.get("kind")), answer["failed"], answer.get("hint", ""))
