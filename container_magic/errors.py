"""Exceptions of container_magic.

::

    ContainError
    ├── OptionError      an option or argument cannot be understood or makes no sense
    ├── HostError        this host cannot do what was asked; the hint says what would change that
    ├── NotFoundError    no such container, image, file or program
    ├── StateError       the container is not in a state in which this can be done
    ├── ImageError       an image cannot be read, pulled or unpacked
    └── InternalError    the sandbox itself broke: never the fault of the code that ran

The failure of contained code is not an exception here: it is a fact in a ``RunReport``.
"""

from __future__ import annotations


class ContainError(Exception):
    """Base of every error that container_magic raises.

    Args:
        message: What could not be done, with which value, why; one sentence without a full stop.
        hint: The next thing to try, usually a command; empty when there is none.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message

    def _render_traceback_(self) -> list[str]:
        """IPython shows these lines instead of a traceback."""
        return [f"{type(self).__name__}: {self.message}", *([f"hint: {self.hint}"] if self.hint else [])]


class OptionError(ContainError):
    """An option or argument cannot be understood or makes no sense; nothing was started."""


class HostError(ContainError):
    """This host cannot do what was asked; nothing was started."""


class NotFoundError(ContainError):
    """No such container, image, file or program."""


class StateError(ContainError):
    """The container is not in a state in which this can be done."""


class ImageError(ContainError):
    """An image cannot be read, pulled or unpacked."""


class InternalError(ContainError):
    """The sandbox itself broke; the code that ran is not to blame."""


def error_of(kind: str, message: str, hint: str = "") -> ContainError:
    """Return what another process of this package says has failed as the exception that it was there."""
    found = globals().get(kind)
    if isinstance(found, type) and issubclass(found, ContainError):
        return found(message, hint=hint)
    return InternalError(message, hint=hint)
