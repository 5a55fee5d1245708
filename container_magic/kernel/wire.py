"""Jupyter's wire protocol: frames and their signature (jupyter_client.readthedocs.io/en/stable/messaging.html)."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import field

import msgspec

from container_magic.deferred import dataclass
from container_magic.errors import OptionError

_DELIMITER = b"<IDS|MSG>"
_MOST_DIGESTS = 65_536
_MOST_IDENTITIES = 8
_SCHEME = re.compile(r"hmac-([a-z0-9_]+)")


class WireError(ValueError):
    """What came is no message, or not signed with the key."""


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What of a header counts."""

    msg_id: str
    msg_type: str
    date: str = ""
    subshell_id: str | None = None


class ParentHeader(msgspec.Struct, frozen=True, kw_only=True):
    """What of a parent's header counts; it is empty where nobody has asked."""

    msg_id: str = ""
    msg_type: str = ""

    @property
    def name(self) -> str:
        """What tells a request from others; empty where nobody has asked.

        A manager and its client share a session and count by themselves: they give one ``msg_id`` to two requests.
        """
        return f"{self.msg_type} {self.msg_id}" if self.msg_id else ""


@dataclass(frozen=True, kw_only=True)
class Frames:
    """A message as it travels: who it came from or goes to, four pieces of JSON, and buffers."""

    identities: tuple[bytes, ...] = ()
    header: bytes
    parent: bytes = b"{}"
    metadata: bytes = b"{}"
    content: bytes = b"{}"
    buffers: tuple[bytes, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Size of all that is content."""
        return len(self.metadata) + len(self.content) + sum(map(len, self.buffers))


@dataclass(kw_only=True)
class Signer:
    """Signs messages with a key and tells which are; an empty key signs nothing, as Jupyter has it.

    ``once``: a message that was taken is not taken a second time.
    """

    key: bytes
    digest: str = "sha256"
    once: bool = False
    _seen: OrderedDict[bytes, None] = field(default_factory=OrderedDict)

    def pack(self, frames: Frames) -> list[bytes]:
        """Return the parts of a message, signed."""
        signed = (frames.header, frames.parent, frames.metadata, frames.content)
        return [*frames.identities, _DELIMITER, self._sign(signed), *signed, *frames.buffers]

    def unpack(self, parts: Sequence[bytes]) -> Frames:
        """Return what came.

        Raises:
            WireError: It is no message, its signature is not of this key, or it has come before.
        """
        try:
            start = parts.index(_DELIMITER, 0, _MOST_IDENTITIES + 1)
        except ValueError:
            raise WireError("a message without its delimiter") from None
        if len(parts) < start + 6:
            raise WireError("a message with too few parts")
        signature = bytes(parts[start + 1])
        header, parent, metadata, content = parts[start + 2 : start + 6]
        if not hmac.compare_digest(signature, self._sign((header, parent, metadata, content))):
            raise WireError("a message with a wrong signature")
        if self.once and self.key:
            self._remember(signature)
        return Frames(
            identities=tuple(parts[:start]),
            header=header,
            parent=parent,
            metadata=metadata,
            content=content,
            buffers=tuple(parts[start + 6 :]),
        )

    def _sign(self, signed: Sequence[bytes]) -> bytes:
        if not self.key:
            return b""
        code = hmac.new(self.key, digestmod=self.digest)
        for part in signed:
            code.update(part)
        return code.hexdigest().encode()

    def _remember(self, signature: bytes) -> None:
        if signature in self._seen:
            raise WireError("a message that has come before")
        self._seen[signature] = None
        if len(self._seen) > _MOST_DIGESTS:
            self._seen.popitem(last=False)


def digest_of(scheme: str) -> str:
    """Return the hash of a connection file's ``signature_scheme``.

    Raises:
        OptionError: It is none that is known here.
    """
    found = _SCHEME.fullmatch(scheme)
    if found is None or found[1] not in hashlib.algorithms_available or found[1].startswith("shake"):
        raise OptionError(f"signature_scheme {scheme!r} is not known here; accepted: hmac-sha256 and other hashes")
    return found[1]
