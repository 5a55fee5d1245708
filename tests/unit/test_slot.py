"""The shared slot: what a payload leaves of itself, bounded whatever it writes."""

import json

import pytest

from container_magic.process.slot import (
    SLOT_BYTES,
    exit_code_of,
    leave_error,
    new_slot,
    read_error,
    read_line,
    set_line,
)


@pytest.fixture
def slot():
    """Return an empty slot."""
    with new_slot() as made:
        yield made


def test_error_and_line_stand_side_by_side(slot):
    """Neither overwrites the other."""
    set_line(slot, 7)
    leave_error(slot, "ValueError", "bad", ["a", "b"])
    set_line(slot, 8)
    assert json.loads(read_error(slot)) == {"ename": "ValueError", "evalue": "bad", "traceback": ["a", "b"]}
    assert read_line(slot) == 8


def test_empty_slot_says_nothing(slot):
    """No error, no line."""
    assert (read_error(slot), read_line(slot)) == (b"", None)


@pytest.mark.parametrize(
    ("evalue", "traceback"),
    [
        ("\U0001f600" * 200_000, []),
        ("x" * 1_000_000, ["\x1b[31m" * 10_000] * 1000),
        ("\ud800" * 100_000, ["\ud800" * 100] * 500),
    ],
)
def test_error_of_any_size_fits(slot, evalue, traceback):
    """Text is cut, and of a traceback the middle is left out; what is left is whole JSON."""
    leave_error(slot, "E" * 1000, evalue, traceback)
    found = json.loads(read_error(slot))
    assert len(read_error(slot)) <= SLOT_BYTES - 8
    assert found["ename"] == "E" * 200
    assert evalue.startswith(found["evalue"])
    assert found["evalue"]


@pytest.mark.parametrize("length", [0, SLOT_BYTES - 7, 2**32 - 1])
def test_length_that_lies_is_no_error(slot, length):
    """Nothing beyond the slot is read."""
    slot[:4] = length.to_bytes(4, "little")
    assert read_error(slot) == b""


@pytest.mark.parametrize(
    ("line", "found"), [(1, 1), (10_000_000, 10_000_000), (0, None), (2**32 - 1, None), (-1, None)]
)
def test_line_is_bounded(slot, line, found):
    """A number that no source has is none."""
    set_line(slot, line)
    assert read_line(slot) == found


def test_exit_code_is_pythons():
    """An error is 1, an interrupt 128 and the signal."""
    assert (exit_code_of(ValueError()), exit_code_of(KeyboardInterrupt())) == (1, 130)
