"""Reads the rules again, when a signal or a client asks for that.

A file that is being written, or was cut, often parses and has fewer rules: what they left out would be counted,
and shown. So a part of the file ends only where the file says so (`exclude: {}`), and any rule ends only if the
file is the same a second later.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from exporter.errors import ConfigError
from exporter.tallies.rules import RulesFile
from exporter.tallies.tallies import Tallies

_LOG = logging.getLogger(__name__)

# A long file takes a tenth of a second or more, in which nothing is counted: so it is read once in this time.
_PAUSE_SECONDS = 1.0
_MOST_READINGS = 5
# The log names so many of the rules that have ended.
_NAMED = 10


class Reloading:
    """Reads the file of rules, once for all who ask meanwhile. Made while an event loop runs.

    Args:
        tallies: The tallies that the rules apply to; they have those of the file.
        read: Reads the file; raises ConfigError.
        pause_seconds: How long a file has to stay the same before a rule ends, and the time between two readings.

    Attributes:
        successful: Whether the file could be read the last time.
        timestamp_seconds: When the rules in force were read.
    """

    def __init__(
        self, tallies: Tallies, read: Callable[[], RulesFile], pause_seconds: float = _PAUSE_SECONDS
    ) -> None:
        self._tallies = tallies
        self._read = read
        self._pause_seconds = pause_seconds
        self._loop = asyncio.get_running_loop()
        self._lock = asyncio.Lock()
        self._read_at = -float("inf")
        # The reload that has not begun to read.
        self._next: asyncio.Task[str | None] | None = None
        self.successful = True
        self.timestamp_seconds = time.time()
        if not tallies.rules.entries():
            _LOG.warning("the file of rules has none, every program is counted under its own name")

    def soon(self) -> None:
        """Read the rules soon; the log says what came of it."""
        self._ask()

    async def reload(self) -> str | None:
        """Read the rules; if that fails, the old rules stay in force.

        Returns:
            What is wrong, or None.
        """
        # A client that disconnects ends its own wait, not the reload.
        return await asyncio.shield(self._ask())

    def _ask(self) -> "asyncio.Task[str | None]":
        if self._next is None:
            self._next = self._loop.create_task(self._reload())
        return self._next

    async def _reload(self) -> str | None:
        async with self._lock:
            await asyncio.sleep(max(0.0, self._read_at + self._pause_seconds - self._loop.time()))
            # What is written from now on has to be read by another.
            self._next = None
            try:
                file = await self._settled()
            except ConfigError as error:
                self.successful = False
                _LOG.error("rules not reloaded, the old ones stay in force", extra={"error": str(error)})
                return str(error)
            ended = file.ended(self._tallies.rules)
            self._tallies.apply_rules(file.rules)
            self.successful = True
            self.timestamp_seconds = time.time()
            named = ", ".join(ended[:_NAMED]) + (f" and {len(ended) - _NAMED} more" if len(ended) > _NAMED else "")
            _LOG.info("rules reloaded", extra={"ended": named} if ended else {})
            return None

    async def _settled(self) -> RulesFile:
        """Read the file until it has all rules in force, or is the same twice.

        Raises:
            ConfigError: It is wrong, lacks a part, or changes all the time.
        """
        before: RulesFile | None = None
        for _ in range(_MOST_READINGS):
            if before is not None:
                await asyncio.sleep(self._pause_seconds)
            self._read_at = self._loop.time()
            file = self._read()
            if not file.ended(self._tallies.rules) or (before is not None and before.data == file.data):
                return file
            if gone := file.ended_without_a_word(self._tallies.rules):
                how = ", ".join(f"`{part}: {'{}' if part in {'include', 'exclude'} else '[]'}`" for part in gone)
                raise ConfigError(f"--config.file: {', '.join(gone)} is gone; to do without, write {how}")
            before = file
        raise ConfigError("--config.file: it changes while it is read")
