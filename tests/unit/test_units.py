"""Sizes, durations, CPU sets, limits and rates as text and as numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from container_magic import units


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("200M", 200 * 1024**2),
        ("1.5G", 3 * 1024**3 // 2),
        ("64KiB", 65536),
        ("64kb", 65536),
        ("1t", 1024**4),
        ("2P", 2 * 1024**5),
        ("512", 512),
        ("512b", 512),
        ("1 MB", 1024**2),
        ("0.1M", 104857),
        ("0", 0),
    ],
)
def test_size_is_read_in_powers_of_1024(text, size_bytes):
    """Every spelling of a unit is Docker's: binary."""
    assert units.parse_size(text) == size_bytes


@pytest.mark.parametrize(
    "text", ["", "banana", "-1", "1e3", "M", "1.M", ".5G", "1X", "1MM", "٣M", "1M\n", "9" * 30, "1 0M"]
)
def test_what_is_no_size_is_refused_with_what_is_accepted(text):
    """The message shows sizes that would do."""
    with pytest.raises(ValueError, match=r"not a size; accepted: a size such as 200M"):
        units.parse_size(text)


def test_size_below_the_minimum_is_refused_and_names_it():
    """The message says how small it may be."""
    assert units.parse_size("6M", minimum=6 * units.MIB) == 6 * units.MIB
    with pytest.raises(ValueError, match="the minimum is 6M"):
        units.parse_size("6291455", minimum=6 * units.MIB)


def test_size_beyond_64_bits_is_refused():
    """What the kernel cannot hold is not cut silently."""
    assert units.parse_size(str(2**63 - 1)) == 2**63 - 1
    with pytest.raises(ValueError, match=r"maximum is 2\^63 - 1"):
        units.parse_size("8192P")


def test_word_for_unlimited_counts_only_where_allowed():
    """``none`` is None for an option that may be lifted and nonsense for another."""
    assert units.parse_size("none", unlimited=("none",)) is None
    assert units.parse_size("-1", unlimited=("-1",)) is None
    with pytest.raises(ValueError, match="not a size"):
        units.parse_size("none")


@given(st.integers(min_value=0, max_value=2**53))
def test_formatted_size_is_read_back_within_its_rounding(size_bytes):
    """What is shown can be given as an option again; it is off by half a tenth of its unit at most."""
    back = units.parse_size(units.format_size(size_bytes))
    assert abs(back - size_bytes) <= max(size_bytes, 1024) * 0.05 + 1


@given(st.integers(min_value=1, max_value=1023), st.sampled_from("KMGT"))
def test_round_size_survives_the_trip(number, unit):
    """A size in whole units is shown as it was given."""
    assert units.format_size(units.parse_size(f"{number}{unit}")) == f"{number}{unit}"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10s", 10.0),
        ("2m", 120.0),
        ("500ms", 0.5),
        ("1h30m", 5400.0),
        ("1m30s250ms", 90.25),
        ("1.5s", 1.5),
        ("90", 90.0),
        ("0.25", 0.25),
        ("0", 0.0),
    ],
)
def test_duration_is_read_in_seconds(text, seconds):
    """Units may be strung together; a plain number is seconds."""
    assert units.parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "s", "10x", "-1s", "1s1m", "1s2s", "1e9", "inf", "nan", "10 s", "1h30", "10S", "10s\n"]
)
def test_what_is_no_duration_is_refused_with_what_is_accepted(text):
    """The message shows durations that would do."""
    with pytest.raises(ValueError, match="not a duration; accepted: a duration such as 500ms, 10s"):
        units.parse_duration(text)


@given(st.floats(min_value=0.001, max_value=1e6))
def test_formatted_duration_is_read_back_within_its_rounding(seconds):
    """What is shown can be given as an option again."""
    assert units.parse_duration(units.format_duration(seconds)) == pytest.approx(seconds, rel=0.06)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.0123, "12.3ms"),
        (0.5, "500ms"),
        (1.0, "1s"),
        (1.25, "1.25s"),
        (59.999, "1m"),
        (90, "1m30s"),
        (7200, "2h"),
    ],
)
def test_duration_is_shown_in_units_that_fit(seconds, text):
    """Milliseconds below a second, two decimals below a minute, whole seconds above."""
    assert units.format_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("0-1", (0, 1)), ("0,2", (0, 2)), ("1-3,6", (1, 2, 3, 6)), ("6,1-3,2", (1, 2, 3, 6)), ("0", (0,))],
)
def test_cpuset_is_sorted_and_each_number_once(text, numbers):
    """The kernel's list syntax, whatever the order."""
    assert units.parse_cpuset(text) == numbers


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("3-1", "the range 3-1 runs backwards"),
        ("", "not a CPU set"),
        ("0,", "not a CPU set"),
        ("0-", "not a CPU set"),
        ("-1", "not a CPU set"),
        ("a", "not a CPU set"),
        ("0-1-2", "not a CPU set"),
        ("0 1", "not a CPU set"),
        ("0-999999999", "no CPU has a number above 8191"),
    ],
)
def test_what_is_no_cpuset_is_refused_with_what_is_accepted(text, problem):
    """The message says what is wrong and shows sets that would do."""
    with pytest.raises(ValueError, match=f"^{problem}; accepted: CPU numbers and ranges such as 0-1"):
        units.parse_cpuset(text)


@given(st.sets(st.integers(min_value=0, max_value=units.MAX_CPU), min_size=1, max_size=100))
def test_cpuset_survives_the_trip(numbers):
    """Formatting and parsing are inverse."""
    assert units.parse_cpuset(units.format_cpuset(numbers)) == tuple(sorted(numbers))


def test_cpuset_is_shown_as_the_kernel_writes_it():
    """Runs become ranges."""
    assert units.format_cpuset([5, 0, 1, 2]) == "0-2,5"


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("0-1", units.Cpus(cpuset=(0, 1))),
        ("0,2", units.Cpus(cpuset=(0, 2))),
        ("0-0", units.Cpus(cpuset=(0,))),
        ("2", units.Cpus(amount=2.0)),
        ("1.5", units.Cpus(amount=1.5)),
        (".5", units.Cpus(amount=0.5)),
    ],
)
def test_cpus_is_a_set_for_a_range_or_list_and_an_amount_for_a_number(text, cpus):
    """A plain number keeps Docker's meaning."""
    assert units.parse_cpus(text) == cpus


@pytest.mark.parametrize("text", ["0", "0.001", "", "two", "1e3", "inf", "3-1", "1.5-2", "-1"])
def test_cpus_that_make_no_sense_are_refused_with_what_is_accepted(text):
    """Zero is no amount; the message says how CPU 0 is written."""
    with pytest.raises(ValueError, match="accepted: CPU numbers"):
        units.parse_cpus(text)


def test_ulimit_without_hard_limit_uses_the_soft_one():
    """Docker's rule."""
    assert units.parse_ulimit("nofile=1024") == units.Ulimit(name="nofile", soft=1024, hard=1024)
    assert units.parse_ulimit("nofile=1024:2048") == units.Ulimit(name="nofile", soft=1024, hard=2048)
    assert units.parse_ulimit("core=0:-1") == units.Ulimit(name="core", soft=0, hard=-1)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("nofile", "not a limit"),
        ("nofile=", "not a limit"),
        ("nofile=x", "not a limit"),
        ("nofile=1:2:3", "not a limit"),
        ("nofile=-2", "not a limit"),
        ("files=3", "no limit is called files"),
        ("nofile=3:2", "the soft limit is above the hard limit"),
        ("nofile=-1:2", "the soft limit is above the hard limit"),
        ("nofile=9999999999999999999", "the maximum is"),
    ],
)
def test_what_is_no_ulimit_is_refused(text, problem):
    """The message says which part is wrong and what is accepted."""
    with pytest.raises(ValueError, match=f"^{problem}.*accepted: "):
        units.parse_ulimit(text)


def test_device_rate_is_split_at_the_last_colon():
    """Names below /dev/disk/by-path hold colons themselves."""
    assert units.parse_device_rate("/dev/sda:1M", in_bytes=True) == ("/dev/sda", units.MIB)
    assert units.parse_device_rate("/dev/disk/by-path/pci-0:1:5", in_bytes=False) == ("/dev/disk/by-path/pci-0:1", 5)


@pytest.mark.parametrize(
    ("text", "in_bytes"),
    [("/dev/sda", True), ("sda:1M", True), ("/dev/sda:", True), ("/dev/sda:x", True), ("/dev/sda:0", True),
     ("/dev/sda:1M", False), ("/dev/sda:0", False), ("/dev/:", False), (":5", False)],
)  # fmt: skip
def test_what_is_no_device_rate_is_refused(text, in_bytes):
    """A rate needs a device below /dev and a positive number."""
    with pytest.raises(ValueError, match="accepted: DEV:RATE"):
        units.parse_device_rate(text, in_bytes=in_bytes)


@given(st.text(max_size=20))
def test_no_text_makes_a_parser_fail_in_another_way(text):
    """Whatever is typed gives a value or a ValueError that says what is accepted."""
    parsers = (units.parse_size, units.parse_duration, units.parse_cpuset, units.parse_cpus, units.parse_ulimit)
    for parse in parsers:
        try:
            parse(text)
        except ValueError as error:
            assert "accepted: " in str(error)
