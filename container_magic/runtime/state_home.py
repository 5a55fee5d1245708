"""Where this user keeps what outlives a run: the state directory (XDG base directory specification)."""

from __future__ import annotations

import os


def state_directory(name: str) -> str:
    """Return the directory ``name`` for what outlives a run; empty where this user has none for state."""
    state = os.environ.get("XDG_STATE_HOME", "")
    if not state.startswith("/"):
        home = os.path.expanduser("~")
        if not home.startswith("/") or not _is_own(home):  # sudo keeps HOME: nothing of root's belongs there
            return ""
        state = f"{home}/.local/state"
    return f"{state}/container_magic/{name}"


def open_state_directory(name: str) -> int:
    """Return a descriptor of ``state_directory(name)``, which is made when it is missing.

    Raises:
        OSError: There is none, it cannot be made, or it is another user's.
    """
    directory = state_directory(name)
    if not directory:
        raise FileNotFoundError("no directory for state")
    os.makedirs(directory, mode=0o700, exist_ok=True)
    folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.fstat(folder).st_uid != os.geteuid():
            raise PermissionError(f"{directory} is another user's")
        os.fchmod(folder, 0o700)
    except OSError:
        os.close(folder)
        raise
    return folder


def _is_own(path: str) -> bool:
    try:
        return os.stat(path).st_uid == os.geteuid()
    except OSError:
        return False
