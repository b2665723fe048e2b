"""Reads the rules again, drops idle series, and warns of metrics that are at their limit of series."""

import asyncio
import logging
import time
from collections.abc import Callable

from exporter.errors import ConfigError
from exporter.exposition.budget import Budget
from exporter.tallies.expiry import Expiry
from exporter.tallies.rules import Rules
from exporter.tallies.tallies import Tallies

_LOG = logging.getLogger(__name__)

_LOOK_SECONDS = 15.0
_WARNING_SECONDS = 3600.0


class Upkeep:
    """Keeps rules and series up to date.

    Args:
        tallies: The tallies that the rules apply to.
        read_rules: Reads the file of rules; raises ConfigError. None if there is no file.
        expiry: Drops idle series; None to keep them.
        budget: Counts the series.

    Attributes:
        reload_successful: Whether the file could be read the last time; None if there is no file.
        reload_timestamp_seconds: When the rules in force were read.
    """

    def __init__(
        self,
        tallies: Tallies,
        read_rules: Callable[[], Rules] | None,
        expiry: Expiry | None,
        budget: Callable[[], Budget],
    ) -> None:
        self._tallies = tallies
        self._read_rules = read_rules
        self._expiry = expiry
        self._budget = budget
        self._warned_at = -_WARNING_SECONDS
        self._folded: dict[str, int] = {}
        self._due: asyncio.Handle | None = None
        self.reload_successful = None if read_rules is None else True
        self.reload_timestamp_seconds = None if read_rules is None else time.time()

    def reload(self) -> str | None:
        """Read the rules again; if that fails, the old rules stay in force.

        Returns:
            What is wrong, or None.
        """
        problem = self._reload()
        if problem is None:
            _LOG.info("rules reloaded")
        else:
            _LOG.error("rules not reloaded, the old ones stay in force", extra={"error": problem})
        return problem

    def reload_soon(self) -> None:
        """Read the rules in the next turn of the event loop: once, however often this is called until then."""
        if self._due is None:
            self._due = asyncio.get_running_loop().call_soon(self._reload_now)

    def _reload_now(self) -> None:
        self._due = None
        if self._read_rules is None:
            _LOG.info("nothing to reload: there is no --config.file")
        else:
            self.reload()

    def _reload(self) -> str | None:
        if self._read_rules is None:
            return "there is no --config.file"
        try:
            rules = self._read_rules()
        except ConfigError as error:
            self.reload_successful = False
            return str(error)
        self._tallies.apply_rules(rules)
        self.reload_successful = True
        self.reload_timestamp_seconds = time.time()
        return None

    async def run(self) -> None:
        """Drop idle series and warn of full metrics, every 15 seconds, for ever."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            self.warn(time.monotonic())
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
