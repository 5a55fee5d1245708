"""``dataclasses.dataclass``, put off until a class is first used.

The standard decorator writes and compiles six functions for a frozen class, half a millisecond whenever the module is
imported. ``contain run`` imports ninety such classes and uses a third of them: that would cost more than its container.

What comes out of a pickle has its fields, and does not make its class: until something else does it is compared by
identity. The zygote makes all classes before it forks.
"""

from __future__ import annotations

import _thread
import dataclasses
import sys
from typing import TYPE_CHECKING

from container_magic.forks import hold_at_fork

if TYPE_CHECKING:
    from collections.abc import Callable
    from dataclasses import dataclass as dataclass
    from types import ModuleType
    from typing import Any
else:

    def dataclass(**options: Any) -> Callable[[type], type]:
        """Have ``dataclasses.dataclass(**options)`` applied to a class when it is first called or looked at."""

        def decorate(cls: type) -> type:
            if type(cls) not in (type, _Waiting, _Made) or _knows_itself(cls):
                return dataclasses.dataclass(**options)(cls)
            body = {name: value for name, value in cls.__dict__.items() if name not in ("__dict__", "__weakref__")}
            body["__dataclass_fields__"] = property(_fields_of_instance)
            waiting = _Waiting(cls.__name__, cls.__bases__, body)
            waiting.__qualname__ = cls.__qualname__
            _waiting[waiting] = options, sys.modules[cls.__module__]
            return waiting

        return decorate


_waiting: dict[type, tuple[dict[str, Any], ModuleType]] = {}
_lock = _thread.RLock()  # not threading's: the zygote does without that module
hold_at_fork(_lock)


class _Made(type):
    """The metaclass of a class that is as the standard decorator has made it."""


class _Making(_Made):
    """The metaclass of a class while that is done: who calls it in another thread waits."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        with _lock:
            return cls(*args, **kwargs)


class _Waiting(_Made):
    """The metaclass of a class that waits, which is in the way of whoever calls it or looks at its fields."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        _make(cls)
        return cls(*args, **kwargs)

    @property
    def __dataclass_fields__(cls) -> Any:
        _make(cls)
        return cls.__dataclass_fields__


def _fields_of_instance(instance: Any) -> Any:
    """Make the class of what has come out of a pickle, and return its fields; in the way of ``dataclasses.fields``."""
    _make(type(instance))
    return type(instance).__dataclass_fields__


def make_all() -> None:
    """Make every class that waits: in a process whose forks would each do it again."""
    for cls in tuple(_waiting):
        _make(cls)


def _make(cls: type) -> None:
    with _lock:
        for one in reversed(cls.__mro__):
            if type(one) is _Waiting:
                type.__setattr__(one, "__class__", _Making)
                if one in _waiting:  # else it is derived from one, without a decorator of its own
                    _decorate(one, *_waiting.pop(one))
                type.__setattr__(one, "__class__", _Made)


def _decorate(cls: type, options: dict[str, Any], module: ModuleType) -> None:
    decorate: Callable[[type], type] = dataclasses.dataclass(**options)
    name = cls.__module__
    if name in sys.modules:
        decorate(cls)
        return
    # a container forgets the modules of this package, and the decorator looks names like ClassVar up in the class's own
    sys.modules[name] = module
    try:
        decorate(cls)
    finally:
        del sys.modules[name]


def _knows_itself(cls: type) -> bool:
    """Whether a function of the class names it, as ``super()`` does: a copy of the class would not be the one."""
    codes = [getattr(value, "__code__", None) for value in cls.__dict__.values()]
    return any("__class__" in code.co_freevars for code in codes if code is not None)
