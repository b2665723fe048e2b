"""exporter/tallies/histograms.py: buckets and their bounds."""

from bisect import bisect_left

import pytest

from exporter.tallies import histograms
from exporter.tallies.histograms import new_histogram, observe

BOUNDS = (10, 20, 30)


@pytest.mark.parametrize(
    ("value", "bucket"), [(0, 0), (10, 0), (11, 1), (20, 1), (30, 2), (31, 3), (10**12, 3)], ids=str
)
def test_a_value_is_in_the_bucket_whose_bound_it_does_not_exceed(value: int, bucket: int) -> None:
    histogram = new_histogram(BOUNDS)
    observe(histogram, BOUNDS, value)
    assert histogram[:-1] == [int(i == bucket) for i in range(len(BOUNDS) + 1)]
    assert histogram[-1] == value


@pytest.mark.parametrize(
    ("seconds", "units", "per_unit"),
    [
        (histograms.LIFETIME_SECONDS, histograms.LIFETIME_NS, 1e9),
        (histograms.CPU_SECONDS, histograms.CPU_NS, 1e9),
        (histograms.DRAIN_SECONDS, histograms.DRAIN_NS, 1e9),
        (histograms.MAX_RSS_BYTES, histograms.MAX_RSS_KIB, 1 / 1024),
    ],
    ids=["lifetime", "cpu", "drain", "rss"],
)
def test_bounds_rise_and_are_the_same_in_both_units(
    seconds: tuple[float, ...], units: tuple[int, ...], per_unit: float
) -> None:
    assert list(seconds) == sorted(set(seconds))
    assert len(seconds) <= 15
    assert [bound * per_unit for bound in seconds] == pytest.approx(units)
    assert bisect_left(units, units[0]) == 0
