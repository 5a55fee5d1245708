"""The mark that every container carries, by which this package knows that it is inside one.

It stands where systemd's Container Interface has container managers write their name
(https://systemd.io/CONTAINER_INTERFACE). Code inside may remove it: then nesting fails as it does in any place where
user namespaces are forbidden.
"""

from __future__ import annotations

from container_magic.errors import HostError

MARKER = "/run/host/container-manager"
NAME = "container_magic"
NO_NESTING = "a container cannot be started inside a container of container_magic: user namespaces are forbidden there"
HINT = "run this outside of the container"


def is_inside() -> bool:
    """Return whether this process runs in a container of this package."""
    try:
        with open(MARKER, "rb") as file:
            return file.read(len(NAME) + 2).strip() == NAME.encode()
    except OSError:
        return False


def refuse_nesting() -> None:
    """Say that a container is no place for containers, when this is one.

    Raises:
        HostError: It is.
    """
    if is_inside():
        raise HostError(NO_NESTING, hint=HINT)
