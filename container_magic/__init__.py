"""Run notebook cells in containers: fresh namespaces, cgroup limits, honest measurements."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from container_magic.forks import importing

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__version__ = "0.1.0"

# name -> module: resolved on first use, so that importing the package costs nothing and does nothing
_EXPORTS = {
    "run": "container_magic.verbs.run",
    "stream": "container_magic.verbs.run",
    "map": "container_magic.verbs.map",
    "Session": "container_magic.verbs.sessions",
    "RunReport": "container_magic.report",
    "ContainError": "container_magic.errors",
    "OptionError": "container_magic.errors",
    "HostError": "container_magic.errors",
    "NotFoundError": "container_magic.errors",
    "StateError": "container_magic.errors",
    "ImageError": "container_magic.errors",
    "InternalError": "container_magic.errors",
}

__all__ = ["__version__", "load_ipython_extension", "unload_ipython_extension", *_EXPORTS]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with importing:
        import importlib

        value = getattr(importlib.import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})


def load_ipython_extension(ipython: InteractiveShell) -> None:
    """Register ``%%contain`` and ``%contain`` (called by ``%load_ext container_magic``).

    Where a cell has asked for it, what its first contained cell takes longest for is started at once. Where a
    configuration has, that would be for all its sessions, whether they contain anything or not.

    Raises:
        HostError: This is a container of this package itself.
    """
    from container_magic.rootfs.marker import refuse_nesting

    refuse_nesting()
    from container_magic.magics import ContainMagics

    magics = ContainMagics(shell=ipython)
    ipython.register_magics(magics)
    history = ipython.history_manager
    if history is not None and len(history.input_hist_raw) > 1:  # the first is nobody's
        magics.begin_ahead()


def unload_ipython_extension(ipython: InteractiveShell) -> None:
    """Forget the warm processes of this session (called by ``%unload_ext container_magic``)."""
    from container_magic.runtime.client import shutdown

    magics = ipython.magics_manager.registry.get("ContainMagics")
    if magics is not None:
        magics.await_ahead()  # what it starts would come after the end
    shutdown()
