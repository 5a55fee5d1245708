"""Results that are remembered for the very objects that they were made of."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Concatenate, ParamSpec, TypeVar

_MOST = 64
_Thing = TypeVar("_Thing")
_Rest = ParamSpec("_Rest")
_Result = TypeVar("_Result")


def by_identity(
    function: Callable[Concatenate[_Thing, _Rest], _Result],
) -> Callable[Concatenate[_Thing, _Rest], _Result]:
    """Remember what ``function`` returns for the last few first arguments, which never change.

    They are told apart by identity. Whoever runs the same options again has the same spec again, and to make another
    of it, or only its hash, is a good part of a millisecond in a process that has slept.
    """
    known: OrderedDict[tuple[Hashable, ...], tuple[_Thing, _Result]] = OrderedDict()

    @functools.wraps(function)
    def call(thing: _Thing, /, *args: _Rest.args, **kwargs: _Rest.kwargs) -> _Result:
        key = (id(thing), *args, *kwargs.items())
        found = known.get(key)
        if found is not None:
            return found[1]
        result = function(thing, *args, **kwargs)
        known[key] = thing, result  # which keeps it, and with it its identity
        while len(known) > _MOST:
            known.popitem(last=False)
        return result

    return call
