"""Ids inside: which accounts there are, and maps in which two ids have changed places."""

import pytest

from container_magic.linux.userns import IdMapping, swapped
from container_magic.rootfs.accounts import look_up

BASE = 1_000_000


def mapped(mappings, number):
    """Return what ``number`` is mapped to; None where it is not."""
    found = [m.host_id + number - m.container_id for m in mappings if 0 <= number - m.container_id < m.size]
    assert len(found) <= 1
    return found[0] if found else None


@pytest.mark.parametrize(("one", "other"), [(0, 0), (0, 10), (10, 0), (5, 6), (99, 0), (42, 99), (7, 7)])
def test_two_ids_change_places_and_the_others_stay(one, other):
    """Each id once, within the range and all of it."""
    mappings = swapped(IdMapping(container_id=0, host_id=BASE, size=100), one, other)
    expected = {number: BASE + number for number in range(100)}
    expected[one], expected[other] = BASE + other, BASE + one
    assert {number: mapped(mappings, number) for number in range(100)} == expected
    assert mapped(mappings, 100) is None
    assert all(mapping.size > 0 for mapping in mappings)


@pytest.mark.parametrize("other", [0, 50, 99])
def test_an_id_beyond_the_range_takes_the_others_place(other):
    """Whose own id is not mapped then: two owners cannot be one."""
    mappings = swapped(IdMapping(container_id=0, host_id=BASE, size=100), 4321, other)
    assert mapped(mappings, 4321) == BASE + other
    assert mapped(mappings, other) is None
    assert {mapped(mappings, number) for number in range(100)} == {
        None,
        *(BASE + number for number in range(100) if number != other),
    }


@pytest.mark.parametrize(
    ("user", "ids"),
    [
        ("", (0, 0)),
        ("root", (0, 0)),
        ("user", (1000, 1000)),
        ("1000", (1000, 1000)),
        ("nobody", (65534, 65534)),
        ("nobody:nogroup", (65534, 65534)),
        ("4321", (4321, 0)),
        ("4321:1234", (4321, 1234)),
        ("user:0", (1000, 0)),
    ],
)
def test_users_are_those_of_the_container(user, ids):
    """By name and by number, the group from the account or as it is given."""
    assert look_up(user) == ids


@pytest.mark.parametrize("user", ["alice", "user:students"])
def test_who_is_not_there_is_not_found(user):
    """The message names it."""
    with pytest.raises(LookupError, match="no user or group"):
        look_up(user)
