"""The flags that limit memory and series."""

from dataclasses import dataclass

from exporter.flag_parsers import CountBetween, IntervalBetween, SizeBetween
from exporter.flags import flag
from exporter.tallies.tallies import DEFAULT_LIMIT, LEAST_LIMIT

_AN_HOUR_SECONDS = 3600
_A_YEAR_SECONDS = 365 * 86400


@dataclass(frozen=True, slots=True)
class Limits:
    """How much there may be of what strangers can make."""

    series: int = flag(
        "--limit.series",
        "N",
        str(DEFAULT_LIMIT),
        'Most series (of a histogram: samples) that a metric may have; what is beyond is comm="<other>".',
        CountBetween(LEAST_LIMIT, 1_000_000),
    )
    client_bytes: int = flag(
        "--limit.client-bytes",
        "SIZE",
        "64MiB",
        "What all clients together may make the exporter hold: half for answers that are read, half for /events.",
        SizeBetween(1 << 20, 1 << 40),
    )
    idle_seconds: float = flag(
        "--limit.idle",
        "DURATION",
        "0",
        "Time after which the series of a program that no longer runs are dropped; 0 keeps them.",
        IntervalBetween(_AN_HOUR_SECONDS, _A_YEAR_SECONDS),
    )
    gone_seconds: float = flag(
        "--limit.gone",
        "DURATION",
        "15m",
        "Time after which the series of a container are dropped in which no process lives any more; 0 keeps them.",
        IntervalBetween(60, _A_YEAR_SECONDS),
        needs="--group.by",
    )
