"""What a client asks for: a spec, and what belongs to one run of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from container_magic.deferred import dataclass
from container_magic.spec import ContainerSpec

if TYPE_CHECKING:
    from container_magic.runtime.variables import Variables
    from container_magic.sanitize.bundle import HtmlMode


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """What to run: the spec, the source (``None`` for a command), and what it reads on standard input.

    ``stdin`` is that, or a descriptor that stays the caller's, and open; None = /dev/null. ``warm`` is how
    many containers like this one are to wait for the next runs.
    """

    spec: ContainerSpec
    code: bytes | None
    stdin: bytes | int | None = None
    warm: int = 0
    html: HtmlMode = "safe"
    out_files: tuple[str, ...] = ()
    """Globs of the files that are written to the working directory after the end."""
    variables: Variables | None = None
    """What the code is given and what is wanted of it; closed when it has it, or when it cannot have it."""
    once: bool = False
    """Whether a zygote is started for this run alone."""

    @property
    def has_channel(self) -> bool:
        """Whether what runs can show things, and not only write."""
        return self.spec.process.shell != "script"
