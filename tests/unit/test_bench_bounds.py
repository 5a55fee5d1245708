"""Bounds of the benchmark: what they compare, and how they are shown."""

import json

import pytest

from benchmarks.measure import Bound, Group, Measurement
from benchmarks.table import host, judge, render, to_dict


def group(*bounds, unit="s"):
    """Return a group of two measurements: medians 2 and 10, p95 8 and 10."""
    ours = Measurement(name="ours", unit=unit, samples=(1, 2, 8))
    theirs = Measurement(name="theirs", unit=unit, samples=(10, 10, 10))
    return Group(title="a group", measurements=(ours, theirs), base="theirs", bounds=bounds, notes=("a note",))


@pytest.mark.parametrize(
    ("bound", "value", "met"),
    [
        (Bound(name="ours", peer="theirs", at_most=0.2), 0.2, True),
        (Bound(name="ours", peer="theirs", at_most=0.19), 0.2, False),
        (Bound(name="ours", peer="theirs", quantile="p95", at_most=0.5), 0.8, False),
        (Bound(name="theirs", peer="ours", at_least=5), 5, True),
        (Bound(name="theirs", peer="ours", at_least=6), 5, False),
        (Bound(name="ours", at_most=2), 2, True),
    ],
)
def test_bound_compares_quantiles_of_one_group(bound, value, met):
    """Median over median, p95 over p95, or the figure itself; a value on the bound is within it."""
    (verdict,) = judge([group(bound)])

    assert (verdict.value, verdict.met) == (value, met)


def test_bound_without_its_peer_is_left_out():
    """What could not be measured is neither met nor not met."""
    assert judge([group(Bound(name="ours", peer="absent", at_most=1), Bound(name="absent", at_most=1))]) == []


@pytest.mark.parametrize(
    ("bound", "unit", "line"),
    [
        (Bound(name="ours", peer="theirs", at_most=0.1), "s", "p50 of ours / theirs      0.2  <= 0.1       NOT MET"),
        (Bound(name="theirs", peer="ours", at_least=3), "runs/s", "p50 of theirs / ours        5  >= 3         met"),
        (Bound(name="ours", at_most=5), "s", "p50 of ours  2000.00  <= 5000 ms   met"),
        (Bound(name="ours", at_most=2e6), "bytes", "p50 of ours     0.00  <= 2 MB      met"),
    ],
)
def test_table_says_whether_a_bound_is_met(bound, unit, line):
    """One line: what is compared, what it came to, the bound in the unit of the figure, met or not."""
    groups = [group(bound, unit=unit)]
    text = render(host(), groups, judge(groups), ["podman: left out, not installed"])

    assert line in text.splitlines()
    assert "  a note" in text.splitlines()
    assert text.endswith("podman: left out, not installed")


def test_json_of_the_figures_has_no_infinity():
    """A bound that has one side only leaves the other as null, which every JSON parser reads."""
    groups = [group(Bound(name="ours", peer="theirs", at_most=1), Bound(name="theirs", peer="ours", at_least=3))]
    written = json.dumps(to_dict(host(), groups, judge(groups), []), allow_nan=False)

    bounds = json.loads(written)["bounds"]
    assert [(bound["at_most"], bound["at_least"], bound["met"]) for bound in bounds] == [
        (1, None, True),
        (None, 3, True),
    ]
