"""Which events `watch` shows, and when it has shown enough."""

import asyncio
from typing import Protocol

from exporter.processes.observer import Happening, Loss, News
from exporter.stream.selection import Selection
from exporter.watch.summary import Summary


class Screen(Protocol):
    """Shows news: a Printer or a TopScreen."""

    def begin(self) -> None:
        """Prepare the terminal; called once, before the first event."""

    def show(self, news: list[News]) -> None:
        """Show some news."""

    def end(self) -> None:
        """Leave the terminal; called once, after the last event."""


class Watcher:
    """Selects and counts events, and stops after `count` of them.

    Args:
        selection: The filters.
        count: How many events to show; None for all.
        screen: Shows the events.
        stopped: Set after the last event.

    Attributes:
        has_enough: `count` events have been shown.
        until_ns: Events that happened later are left out; None: no such limit.
        summary: Counts what was shown.
    """

    def __init__(self, selection: Selection, count: int | None, screen: Screen, stopped: asyncio.Event) -> None:
        self._matches = selection.matches
        self._left = count
        self.has_enough = False
        self._screen = screen
        self._stopped = stopped
        self.summary = Summary()
        self.until_ns: int | None = None

    def take(self, news: list[News]) -> None:
        """Show those of the news that the filters let through. Losses are always shown."""
        wanted = [one for one in news if isinstance(one, Loss) or self._is_wanted(one)]
        if wanted:
            self.summary.add(wanted)
            self._screen.show(wanted)

    def _is_wanted(self, happening: Happening) -> bool:
        if self.has_enough or not self._matches(happening):
            return False
        if self.until_ns is not None and happening.time_ns > self.until_ns:
            return False
        if self._left is not None:
            self._left -= 1
            if not self._left:
                self.has_enough = True
                self._stopped.set()
        return True
