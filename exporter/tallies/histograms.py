"""Histograms, and the bounds of their buckets.

A histogram is a list: a count for each bucket, one for what is beyond the last bound, and the sum of all values,
in the integer unit that the kernel uses (ns, KiB). Counting is then two additions, without an object.
"""

from bisect import bisect_left
from typing import NamedTuple

# Upper bounds of the buckets, in seconds: a shell builtin's helper to a day's batch job.
LIFETIME_SECONDS = (
    0.001,
    0.005,
    0.01,
    0.05,
    0.1,
    0.5,
    1.0,
    5.0,
    15.0,
    60.0,
    300.0,
    900.0,
    3600.0,
    14400.0,
    86400.0,
)
CPU_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0, 60.0, 600.0, 3600.0)
MAX_RSS_BYTES = tuple(
    float(mib << 20) for mib in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384, 65536)
)
DRAIN_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)

LIFETIME_NS = tuple(round(bound * 1e9) for bound in LIFETIME_SECONDS)
CPU_NS = tuple(round(bound * 1e9) for bound in CPU_SECONDS)
DRAIN_NS = tuple(round(bound * 1e9) for bound in DRAIN_SECONDS)
MAX_RSS_KIB = tuple(int(bound) >> 10 for bound in MAX_RSS_BYTES)

Histogram = list[int]


def new_histogram(bounds: tuple[int, ...]) -> Histogram:
    """Return an empty histogram."""
    return [0] * (len(bounds) + 2)


def observe(histogram: Histogram, bounds: tuple[int, ...], value: int) -> None:
    """Count one value."""
    histogram[bisect_left(bounds, value)] += 1
    histogram[-1] += value


class Bounds(NamedTuple):
    """The bounds of the histograms' buckets, in the kernel's units."""

    lifetime_ns: tuple[int, ...]
    cpu_ns: tuple[int, ...]
    max_rss_kib: tuple[int, ...]


CLASSIC_BOUNDS = Bounds(LIFETIME_NS, CPU_NS, MAX_RSS_KIB)


class Histograms(NamedTuple):
    """What ended processes had used."""

    lifetime_ns: Histogram
    cpu_ns: Histogram
    max_rss_kib: Histogram


def new_histograms(bounds: Bounds = CLASSIC_BOUNDS) -> Histograms:
    """Return empty histograms."""
    return Histograms(*map(new_histogram, bounds))


def add_histograms(to: Histograms, other: Histograms) -> None:
    """Add what one program's have to those of another."""
    for mine, its in zip(to, other, strict=True):
        for i, value in enumerate(its):
            mine[i] += value


NO_HISTOGRAMS = Histograms([], [], [])
"""Stands where no process has ended yet."""
