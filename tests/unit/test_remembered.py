"""Results that are remembered by the identity of what they were made of."""

from container_magic.remembered import by_identity


def counted():
    """Return a remembering function, and the list of what it was really called with."""
    calls = []

    @by_identity
    def function(thing, *rest):
        calls.append((thing, *rest))
        return [*thing, *rest]

    return function, calls


def test_same_object_is_asked_about_once():
    """The very same result comes back."""
    function, calls = counted()
    thing = (1, 2)
    assert function(thing, 3) is function(thing, 3)
    assert calls == [((1, 2), 3)]


def test_equal_object_and_other_arguments_are_asked_about_anew():
    """Equality is what nobody looked at."""
    function, calls = counted()
    one, other = frozenset([1]), frozenset([1])
    assert function(one, 2) == function(other, 2) is not function(one, 3)
    assert len(calls) == 3


def test_only_the_last_few_are_kept():
    """What is kept does not grow with the number of objects, nor keeps them for ever."""
    function, calls = counted()
    things = [(number,) for number in range(1000)]
    for thing in things:
        function(thing)
    function(things[-1])
    function(things[0])
    assert len(calls) == 1001
