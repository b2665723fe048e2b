"""The flags of processes that fail."""

from dataclasses import dataclass

from exporter.flag_parsers import CountBetween
from exporter.flags import flag, switch

FAILURES_PATH = "/failures"


@dataclass(frozen=True, slots=True)
class Failures:
    """Which failures to keep and to log."""

    keep: int = flag(
        "--failures.keep",
        "N",
        "1000",
        "How many of the last processes that ended with a wait status other than 0 the page /failures has, at "
        "most 20 with the same comm and status; 0 for no such page.",
        CountBetween(0, 100_000),
    )
    log: bool = switch(
        "--failures.log",
        "Log each process that ends with a wait status other than 0: at most 10 lines a minute with the same "
        "comm and status, and 600 in all.",
    )
