"""Native histograms: buckets whose bounds grow by a constant factor, beside the classic ones.

A program's histogram has the bounds of both kinds at once, so that counting is the same; here its buckets are put
together to those of one kind.

Source: https://prometheus.io/docs/specs/native_histograms/
"""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate, compress
from operator import itemgetter
from typing import NamedTuple

from exporter.tallies.histograms import CLASSIC_BOUNDS, Bounds, Histogram

SCHEMA = 2
"""Each bound is 2 ** (1 / 2 ** SCHEMA) times the one before: a quantile is off by 9 % at most."""
_PER_OCTAVE = 1 << SCHEMA


class Scale(NamedTuple):
    """Where the buckets of a histogram lie.

    Attributes:
        first: The lowest power of 2 of the base unit that is told from 0.
        last: The highest one; more is counted in one bucket beyond.
        per_unit: What a base unit is in the kernel's unit.
    """

    first: int
    last: int
    per_unit: float

    @property
    def indexes(self) -> range:
        """The indexes of the bounds."""
        return range(self.first * _PER_OCTAVE, self.last * _PER_OCTAVE + 1)

    @property
    def zero_threshold(self) -> float:
        """What does not exceed it is counted as 0."""
        return float(2**self.first)


# 61 us to 12 days; 256 KiB to 1 TiB.
_SECONDS = Scale(-14, 20, 1e9)
SCALES = (_SECONDS, _SECONDS, Scale(18, 40, 1 / 1024))
"""In the order of Bounds."""


def _native_bounds(scale: Scale) -> list[int]:
    return [int(2 ** (index / _PER_OCTAVE) * scale.per_unit) for index in scale.indexes]


BOTH_BOUNDS = Bounds(
    *(
        tuple(sorted({*classic, *_native_bounds(scale)}))
        for classic, scale in zip(CLASSIC_BOUNDS, SCALES, strict=True)
    )
)
"""The classic bounds and the native ones."""


class NativeBuckets(NamedTuple):
    """The buckets of one native histogram that are not empty."""

    zero_count: int
    indexes: tuple[int, ...]
    """In rising order."""
    counts: list[int]
    """Of each of them."""


class Folding:
    """Puts the buckets of a histogram with both kinds of bounds together.

    Args:
        both: Its bounds.
        classic: The classic ones among them.
        scale: Where the native ones lie.
    """

    def __init__(self, both: Sequence[int], classic: Sequence[int], scale: Scale) -> None:
        self.scale = scale
        self._classic = itemgetter(*(both.index(bound) for bound in classic), len(both))
        native = _native_bounds(scale)
        self._zero = [scale.indexes[0]]
        # The bucket that has its values, for each bucket; the last one has what is beyond all bounds.
        self._index = [scale.indexes[0] + bisect_left(native, bound) for bound in both]
        self._index.append(scale.indexes[-1] + 1)

    def cumulative(self, histogram: Histogram) -> tuple[int, ...]:
        """Return for each classic bucket how many values do not exceed its bound; the last is their number."""
        counts: tuple[int, ...] = self._classic(list(accumulate(histogram[:-1])))
        return counts

    def native(self, histogram: Histogram) -> NativeBuckets:
        """Return its native buckets."""
        indexes: list[int] = []
        found: list[int] = []
        before = None
        counts = histogram[:-1]
        # Most are 0, and passed over by the interpreter itself.
        for index, count in zip(compress(self._index, counts), filter(None, counts), strict=True):
            if index == before:
                found[-1] += count
            else:
                indexes.append(index)
                found.append(count)
                before = index
        zero_count = found.pop(0) if indexes[:1] == self._zero else 0
        return NativeBuckets(zero_count, tuple(indexes[len(indexes) - len(found) :]), found)


FOLDINGS = tuple(
    Folding(both, classic, scale) for both, classic, scale in zip(BOTH_BOUNDS, CLASSIC_BOUNDS, SCALES, strict=True)
)
"""In the order of Bounds."""
