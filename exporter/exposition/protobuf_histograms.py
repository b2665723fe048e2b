"""How a histogram becomes protobuf: classic buckets, and native ones beside them.

Source: https://github.com/prometheus/client_model/blob/master/io/prometheus/client/metrics.proto
"""

from functools import lru_cache
from itertools import chain, pairwise
from operator import sub

from exporter.exposition.buckets import cumulative
from exporter.exposition.metrics import HistogramRow
from exporter.exposition.wire import SHORT, VARINT, double, message, real, tag, timestamp, varint, zigzag
from exporter.tallies.histograms import Histogram
from exporter.tallies.native import SCHEMA, Folding, NativeBuckets

_NUMBERS_KEPT = 1 << 16
_SPANS_KEPT = 1 << 13


@lru_cache(_NUMBERS_KEPT)
def _bucket_head(count: int) -> bytes:
    """Encode what a classic bucket begins with: its count. Many buckets have the same."""
    number = varint(count)
    return b"\x1a" + SHORT[10 + len(number)] + b"\x08" + number


@lru_cache(_NUMBERS_KEPT)
def _delta(number: int) -> bytes:
    return zigzag(number)


@lru_cache(_SPANS_KEPT)
def _spans(indexes: tuple[int, ...]) -> bytes:
    """Encode which native buckets a histogram has: spans of buckets that follow one another.

    Which ones are not empty seldom changes from scrape to scrape.
    """
    written = bytearray()
    after = 0
    begins = [at for at, index in enumerate(indexes) if not at or index != indexes[at - 1] + 1]
    for begin, end in pairwise([*begins, len(indexes)]):
        first = indexes[begin]
        written += message(12, b"\x08" + zigzag(first - after) + b"\x10" + varint(end - begin))
        after = first + end - begin
    return bytes(written)


def _native(buckets: NativeBuckets) -> bytes:
    """Encode the native buckets: which there are, and the differences of their counts."""
    counts = buckets.counts
    deltas = b"".join(map(_delta, map(sub, counts, chain((0,), counts))))
    packed = message(13, deltas) if deltas else b""
    return b"8" + varint(buckets.zero_count) + _spans(buckets.indexes) + packed


def _native_head(folding: Folding) -> bytes:
    """Encode what all native histograms of a family have in common."""
    return tag(5, VARINT) + zigzag(SCHEMA) + real(6, folding.scale.zero_threshold)


class HistogramEncoder:
    """Encodes the histograms of a family.

    Args:
        row: The family.
        folding: Makes classic and native buckets; None if there are only classic ones.
    """

    def __init__(self, row: HistogramRow, folding: Folding | None) -> None:
        self._in_base_unit = row.in_base_unit
        self._folding = folding
        self._cumulative = cumulative if folding is None else folding.cumulative
        self._tails = [real(2, bound) for bound in (*row.bounds, float("inf"))]
        self._native_head = b"" if folding is None else _native_head(folding)

    def encode(self, histogram: Histogram, born_seconds: float | None) -> bytes:
        """Encode one histogram as a field of its Metric."""
        counts = self._cumulative(histogram)
        content = b"".join(
            (
                b"\x08",
                varint(counts[-1]),
                b"\x11",
                double(self._in_base_unit(histogram[-1])),
                *chain.from_iterable(zip(map(_bucket_head, counts), self._tails, strict=True)),
                timestamp(15, born_seconds),
                self._native_head,
                b"" if self._folding is None else _native(self._folding.native(histogram)),
            )
        )
        return message(7, content)
