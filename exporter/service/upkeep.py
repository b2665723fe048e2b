"""Drops idle series, and warns of metrics that are at their limit of series."""

import asyncio
import logging
import time
from collections.abc import Callable

from exporter.exposition.budget import Budget
from exporter.tallies.expiry import Expiry, GoneGroups
from exporter.tallies.tallies import Tallies

_LOG = logging.getLogger(__name__)

_LOOK_SECONDS = 15.0
_WARNING_SECONDS = 3600.0


class Upkeep:
    """Keeps series within their limits.

    Args:
        tallies: The tallies that have the series.
        expiry: Drops idle series; None to keep them.
        budget: Counts the series.
        gone: Drops groups that are gone; None to keep them.
    """

    def __init__(
        self,
        tallies: Tallies,
        expiry: Expiry | None,
        budget: Callable[[], Budget],
        gone: GoneGroups | None = None,
    ) -> None:
        self._tallies = tallies
        self._expiry = expiry
        self._budget = budget
        self._gone = gone
        self._warned_at = -_WARNING_SECONDS
        self._folded: dict[str, int] = {}

    async def run(self) -> None:
        """Drop idle series and warn of full metrics, every 15 seconds, for ever."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            self.warn(time.monotonic())
            if self._gone is not None:
                self._gone.sweep(time.monotonic())
            if self._expiry is not None:
                for _ in self._expiry.sweep(time.monotonic()):
                    await asyncio.sleep(0)

    def warn(self, now_seconds: float) -> None:
        """Log which metrics have counted under `<other>` since the last such line, at most once an hour."""
        if now_seconds - self._warned_at < _WARNING_SECONDS or not self._tallies.full:
            return
        folded = self._budget().folded
        grown = [name for name, count in folded.items() if count > self._folded.get(name, 0)]
        if grown:
            self._warned_at = now_seconds
            self._folded = folded
            _LOG.warning(
                "series at their limit, new ones are counted as <other>",
                extra={
                    "metrics": ",".join(grown),
                    "limit": self._tallies.limit,
                    "remedy": "fold names by --config.file, drop idle series by --limit.idle, "
                    "or raise --limit.series",
                },
            )
