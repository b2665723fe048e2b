"""Histograms as an exposition has them: cumulative, and in base units."""

from collections.abc import Iterable
from itertools import accumulate

from prometheus_client.utils import floatToGoString

from exporter.tallies.histograms import Histogram

_NS_PER_SECOND = 1e9
_BYTES_PER_KIB = 1024


def seconds_of_ns(ns: int) -> float:
    """Return nanoseconds in seconds."""
    return ns / _NS_PER_SECOND


def bytes_of_kib(kib: int) -> float:
    """Return KiB in bytes."""
    return float(kib * _BYTES_PER_KIB)


def bound_labels(bounds: Iterable[float]) -> list[str]:
    """Return the values of the label `le`, with that of the bucket without a bound."""
    return [_bound_label(bound) for bound in (*bounds, float("inf"))]


def _bound_label(bound: float) -> str:
    text: str = floatToGoString(bound)  # type: ignore[no-untyped-call]  # the library's own way to write `le`
    return text


def cumulative(histogram: Histogram) -> list[int]:
    """Return for each bucket how many values do not exceed its bound; the last is their number."""
    return list(accumulate(histogram[:-1]))
