"""exporter/tallies/native.py: native buckets beside the classic ones."""

import random
from bisect import bisect_left
from itertools import accumulate

import pytest

from exporter.tallies.histograms import CLASSIC_BOUNDS, new_histogram, observe
from exporter.tallies.native import BOTH_BOUNDS, FOLDINGS, SCALES

each_kind = pytest.mark.parametrize("kind", range(3), ids=["lifetime", "cpu", "rss"])


def some_values(kind: int) -> list[int]:
    chance = random.Random(7)  # noqa: S311 - the same values every time
    bounds = BOTH_BOUNDS[kind]
    near = [bound + step for bound in bounds for step in (-1, 0, 1)]
    return near + [round(10 ** chance.uniform(0, 17)) for _ in range(2000)]


@each_kind
def test_classic_buckets_are_what_they_would_be_without_native_ones(kind: int) -> None:
    both, classic = new_histogram(BOTH_BOUNDS[kind]), new_histogram(CLASSIC_BOUNDS[kind])
    for value in some_values(kind):
        observe(both, BOTH_BOUNDS[kind], value)
        observe(classic, CLASSIC_BOUNDS[kind], value)
    assert FOLDINGS[kind].cumulative(both) == tuple(accumulate(classic[:-1]))


@each_kind
def test_a_value_is_in_the_native_bucket_around_it(kind: int) -> None:
    scale, folding = SCALES[kind], FOLDINGS[kind]
    for value in some_values(kind):
        histogram = new_histogram(BOTH_BOUNDS[kind])
        observe(histogram, BOTH_BOUNDS[kind], value)
        zero_count, indexes, counts = folding.native(histogram)
        in_unit = value / scale.per_unit
        if zero_count:
            assert in_unit <= scale.zero_threshold
            assert not indexes
            assert not counts
            continue
        (index,) = indexes
        assert counts == [1]
        assert in_unit > 2 ** ((index - 1) / 4) * (1 - 1e-12)
        assert in_unit <= 2 ** (index / 4) * (1 + 1e-12) or index == scale.last * 4 + 1


def test_the_buckets_of_both_kinds_are_found_in_a_few_more_steps() -> None:
    """Counting with native histograms has longer lists to look into, and nothing else to do."""
    assert max(map(len, BOTH_BOUNDS)) < 1 << 8
    assert all(bisect_left(both, both[-1]) == len(both) - 1 for both in BOTH_BOUNDS)
