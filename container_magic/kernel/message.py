"""One message of the Jupyter protocol as the relay's parts hand it to each other: decoded, without its signature."""

from __future__ import annotations

from typing import Any

from container_magic.deferred import dataclass


@dataclass(frozen=True, kw_only=True)
class Message:
    """A message with what of its headers counts; of one that comes from inside nothing is believed."""

    msg_type: str
    msg_id: str
    date: str
    parent_id: str
    """The name of the request that it belongs to (``ParentHeader.name``); empty when there is none."""
    metadata: dict[str, Any]
    content: dict[str, Any]
    buffers: tuple[bytes, ...] = ()
