"""Classes that become dataclasses when they are first used."""

import dataclasses
import pickle
import sys
import threading
from dataclasses import field

import pytest

from container_magic import deferred


def waiting_pair():
    """Return two classes that nobody has used, the second derived from the first."""

    @deferred.dataclass(frozen=True, kw_only=True)
    class Base:
        """A base."""

        number: int
        words: list[str] = field(default_factory=list)

    @deferred.dataclass(frozen=True, kw_only=True)
    class Derived(Base):
        """Has one field more."""

        more: int = 3

    return Base, Derived


def is_made(cls):
    """Whether the standard decorator has been at work."""
    return "__init__" in cls.__dict__


def test_class_is_made_when_it_is_called():
    """Not when it is defined, and its derived ones not with it."""
    base, derived = waiting_pair()
    assert not is_made(base) and not is_made(derived)
    assert repr(base(number=1)).endswith("Base(number=1, words=[])")
    assert is_made(base) and not is_made(derived)


def test_made_class_is_what_the_standard_decorator_makes():
    """Frozen, compared and hashed by value, fields in order, those of the base first."""
    _, derived = waiting_pair()
    one, same, other = derived(number=1, words=()), derived(number=1, words=()), derived(number=2, words=())
    assert one == same and hash(one) == hash(same) and one != other
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.number = 2
    assert dataclasses.asdict(dataclasses.replace(one, more=4)) == {"number": 1, "words": (), "more": 4}
    with pytest.raises(TypeError, match="number"):
        derived()


def test_looking_at_fields_makes_the_class():
    """Whoever asks for the fields gets those of the class, not those of its base."""
    _, derived = waiting_pair()
    assert dataclasses.is_dataclass(derived)
    assert [item.name for item in dataclasses.fields(derived)] == ["number", "words", "more"]


@pytest.mark.parametrize("plain", [False, True])
def test_looking_at_fields_of_what_came_out_of_a_pickle_makes_its_class(plain):
    """It has its fields' values, and nobody has called its class."""
    _, derived = waiting_pair()
    cls = type("Plain", (derived,), {}) if plain else derived
    instance = object.__new__(cls)
    instance.__dict__.update(number=1, words=[], more=2)
    assert not is_made(derived)
    assert [item.name for item in dataclasses.fields(instance)] == ["number", "words", "more"]
    assert dataclasses.astuple(instance) == (1, [], 2)


def test_class_without_a_decorator_of_its_own_is_that_of_its_base():
    """It has the fields of its base, and none of its own."""
    _, derived = waiting_pair()

    class Plain(derived):
        pass

    assert Plain(number=1).more == 3
    assert is_made(derived) and not is_made(Plain)


def test_class_can_be_derived_from_one_that_is_made():
    """Modules are imported late: what they derive from may have been used by then."""
    base, other = waiting_pair()
    base(number=1)

    @deferred.dataclass(frozen=True, kw_only=True)
    class Late(base):
        last: int = 9

    class Both(Late, other):
        pass

    assert Late(number=1) == Late(number=1, last=9)
    assert Both(number=1).more == 3


def test_class_that_names_itself_is_made_at_once():
    """A copy of it would not be the class that its ``super()`` means."""

    @deferred.dataclass(kw_only=True)
    class Calling:
        number: int = 0

        def __repr__(self):
            return super().__repr__()

    assert is_made(Calling)
    assert repr(Calling()).startswith("<")


def test_threads_that_call_at_once_find_it_made():
    """Whoever comes while a class is made waits for it."""
    for _ in range(50):
        base, derived = waiting_pair()
        made = []
        start = threading.Barrier(4)

        def call(cls, made=made, start=start):
            start.wait()
            made.append(cls(number=7).number)

        threads = [threading.Thread(target=call, args=(cls,)) for cls in (base, derived, base, derived)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert made == [7] * 4


def test_class_of_a_forgotten_module_is_made(monkeypatch):
    """In a container the modules of this package are forgotten, and stay so."""
    base, _ = waiting_pair()
    monkeypatch.delitem(sys.modules, __name__)
    assert base(number=1).words == []
    assert __name__ not in sys.modules


def test_all_can_be_made_at_once():
    """What is made ahead is not made again."""
    base, derived = waiting_pair()
    deferred.make_all()
    assert is_made(base) and is_made(derived)


@deferred.dataclass(frozen=True, kw_only=True)
class Sent:
    """Goes through a pickle."""

    number: int = 1


def test_instances_can_be_pickled():
    """A pickle names the class, and finds it."""
    assert pickle.loads(pickle.dumps(Sent(number=5))) == Sent(number=5)
