"""The sources of volumes, while a container that shows them waits: whoever starts it has to look at them once more."""

from __future__ import annotations

import os
from collections.abc import Iterable

MOST_HANDED_OVER = 12
"""A client that starts containers holds a descriptor of each source; with more of them its supervisor does that."""


def any_removed(fds: Iterable[int]) -> bool:
    """Return whether what is behind ``fds`` was removed, or cannot be reached: another may be at its path now."""
    try:
        return any(os.fstat(fd).st_nlink == 0 for fd in fds)
    except OSError:  # ESTALE of NFS, ENOTCONN of FUSE
        return True
