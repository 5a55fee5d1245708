"""What containers that are over had changed: one file each, the last few are kept, beside the logs.

The supervisor writes them, whatever became of its client, through a descriptor that the client has given it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any

from container_magic.runtime.state_home import open_state_directory, state_directory
from container_magic.spec import ContainerSpec

KEPT_RECORDS = 20
_LARGEST_BYTES = 8 * 1024 * 1024
_FOLDER = "changes"
_NAME = re.compile(r"([0-9a-f]{64})\.json")


def wants_record(spec: ContainerSpec) -> bool:
    """Whether it is kept what such a container has changed: a session that writes over the caller's directory."""
    return spec.process.session and spec.work is not None and spec.work.mode != "ro"


def open_records() -> int | None:
    """Return a descriptor of the directory that records lie in, which is made; None where there can be none."""
    try:
        return open_state_directory(_FOLDER)
    except OSError:
        return None


def write_record(directory_fd: int, container_id: str, changes: Sequence[tuple[str, str]], *, complete: bool) -> None:
    """Write what a container has changed, and remove the oldest records beyond the number that is kept.

    Raises:
        OSError: It cannot be written.
    """
    record = {"container_id": container_id, "ended": time.time(), "complete": complete, "changes": list(changes)}
    name = f"{container_id}.json"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(name, flags, 0o600, dir_fd=directory_fd), "wb") as file:
        file.write(json.dumps(record, ensure_ascii=False).encode())
    for _, old in sorted(_records(directory_fd), reverse=True)[KEPT_RECORDS:]:
        with contextlib.suppress(OSError):
            os.unlink(f"{old}.json", dir_fd=directory_fd)


def kept_records() -> list[str]:
    """Return the ids of the containers that have a record, the latest first."""
    with contextlib.suppress(OSError), _opened() as directory_fd:
        return [name for _, name in sorted(_records(directory_fd), reverse=True)]
    return []


def read_record(container_id: str) -> dict[str, Any]:
    """Return the record of a container.

    Raises:
        OSError: There is none, or it cannot be read.
        ValueError: It is none.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with _opened() as directory_fd, open(os.open(f"{container_id}.json", flags, dir_fd=directory_fd), "rb") as file:
        record = json.loads(file.read(_LARGEST_BYTES))
    if not isinstance(record, dict) or not isinstance(record.get("changes"), list):
        raise ValueError("no record of changes")
    return record


@contextlib.contextmanager
def _opened() -> Iterator[int]:
    fd = os.open(state_directory(_FOLDER) or "/nonexistent", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _records(directory_fd: int) -> list[tuple[int, str]]:
    """Return when each record was written, and its container's id; what is no plain file is none."""
    found = []
    with os.scandir(directory_fd) as entries:
        for entry in entries:
            match = _NAME.fullmatch(entry.name)
            with contextlib.suppress(OSError):
                if match and entry.is_file(follow_symlinks=False):
                    found.append((entry.stat(follow_symlinks=False).st_mtime_ns, match[1]))
    return found
