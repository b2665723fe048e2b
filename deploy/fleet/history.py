"""What the rules would have recorded of a fleet before it was scraped: the dashboard Fleet shows six hours.

Each node is busier or quieter than others, and busier by day than by night. Nothing is random.
"""

import math
from collections.abc import Callable, Iterator

from dashboards.generate import recordings
from deploy.fleet.remote_write import Series

STEP_SECONDS = 60
# A server takes no sample that is an hour older than another one.
_PIECE_SECONDS = 1800

_Value = Callable[[float, int], float]
"""The value of a series by how busy the node is and by the time."""

_RECORDED: dict[str, _Value] = {
    # As many as in the capture.
    recordings.FORKS: lambda busy, _: 36 * busy,
    recordings.EXECS: lambda busy, _: 32 * busy,
    recordings.ENDED: lambda busy, _: 36 * busy,
    recordings.FAILED: lambda busy, _: 1.4 * busy,
    recordings.EVENTS: lambda busy, _: 106 * busy,
    recordings.CPU: lambda busy, _: busy / 100,
    recordings.MEMORY: lambda busy, _: 2**25 + 2**20 * busy,
    recordings.SAMPLES: lambda *_: 600,
    recordings.MISSED: lambda *_: 0,
    recordings.UNATTRIBUTED: lambda busy, _: busy / 1000,
    recordings.SEEN: lambda _, seconds: seconds,
    f"{recordings.SIGNALS} SIGKILL": lambda busy, _: round(15 * busy),
    f"{recordings.SIGNALS} SIGSEGV": lambda busy, _: round(15 * busy),
    "up": lambda *_: 1,
    "proc_connector_canary_age_seconds": lambda _, seconds: seconds // STEP_SECONDS % 15,
}


def pace(node: int) -> float:
    """Return how busy a node is, from a tenth to twice as much as what was recorded."""
    return (100 + node * 7919 % 1901) / 1000


def history(targets: list[dict[str, str]], begin_seconds: int, end_seconds: int) -> Iterator[list[Series]]:
    """Return what was recorded between two times.

    Args:
        targets: The labels of each node's target.
        begin_seconds: The time of the first samples.
        end_seconds: The last ones are before it.

    Yields:
        Series of all nodes, half an hour after the other.
    """
    for begin in range(begin_seconds, end_seconds, _PIECE_SECONDS):
        times = range(begin, min(begin + _PIECE_SECONDS, end_seconds), STEP_SECONDS)
        yield [
            Series(
                _labels(name, target),
                [
                    (seconds * 1000, value(pace(node) * _light(node, seconds, end_seconds), seconds))
                    for seconds in times
                ],
            )
            for node, target in enumerate(targets)
            for name, value in _RECORDED.items()
        ]


def _light(node: int, seconds: int, end_seconds: int) -> float:
    """Return how busy a node was, as a part of what it is at the end: each has a day of its own."""

    def of_day(at: int) -> float:
        return 1 + math.sin(2 * math.pi * at / 86400 + node) / 2

    return of_day(seconds) / of_day(end_seconds)


def _labels(name: str, target: dict[str, str]) -> dict[str, str]:
    record, _, signal = name.partition(" ")
    kept = {label: value for label, value in target.items() if label != "pod" or ":" not in record}
    return {"__name__": record, **kept, **({"signal": signal} if signal else {})}
