"""Puts the parts together: what takes failures from the pipeline, keeps them, answers and logs."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from exporter.exposition.exemplars import Exemplars
from exporter.failures.answers import Answers
from exporter.failures.latest import Latest
from exporter.failures.log import FailureLog
from exporter.failures.store import FailureStore
from exporter.processes.bad_ends import Failure
from exporter.processes.pipeline import Pipeline
from exporter.settings.failures import FAILURES_PATH
from exporter.stream.wall_clock import WallClock
from exporter.web.rendered import OtherPage

_REPORT_SECONDS = 60.0


class Keeper:
    """Takes the failures of a pipeline.

    Args:
        pipeline: Where they come from.
        now_ns: CLOCK_MONOTONIC of the host where they happen.
        clock: Returns the clock of that host.
        most: How many to keep; 0 for none.
        log: Log each of them.
        exemplars: Keep the last one of each series.
        labels: The labels of groups.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        now_ns: Callable[[], int],
        clock: Callable[[], WallClock],
        *,
        most: int,
        log: bool,
        exemplars: bool = False,
        labels: Sequence[str] = (),
    ) -> None:
        self._pipeline = pipeline
        self._now_ns = now_ns
        self._clock = clock
        self._labels = labels
        self.store = FailureStore(most) if most else None
        self._log = FailureLog(self._ended, clock) if log else None
        self._latest = Latest(clock) if exemplars else None
        if most or log or exemplars:
            pipeline.take_failures(self._take, at_once=log)

    def _ended(self) -> int:
        bad_ends = self._pipeline.table.bad_ends
        return bad_ends.noted - bad_ends.waiting

    def _take(self, failures: list[Failure]) -> None:
        if self.store is not None:
            self.store.take(failures)
        if self._log is not None:
            self._log.take(failures)
        if self._latest is not None:
            self._latest.take(failures)

    def exemplars(self) -> Exemplars:
        """Return a copy of the last failure of each series; none unless they are kept."""
        return {} if self._latest is None else self._latest.exemplars()

    def refresh(self) -> None:
        """Take what is known by now."""
        self._pipeline.hand_on_failures(self._now_ns())

    def left_out(self) -> dict[str, int]:
        """Count those that are not on the page, and those that were not logged, if there is such a place."""
        counts = {}
        if self.store is not None:
            counts["page"] = self._ended() - len(self.store)
        if self._log is not None:
            counts["log"] = self._log.left_out
        return counts

    def pages(self, drain: Callable[[], Awaitable[None]]) -> dict[str, OtherPage]:
        """Return the page of the failures by its path, if they are kept.

        Args:
            drain: Counts all that has happened.
        """
        store = self.store
        if store is None:
            return {}

        async def refresh() -> None:
            await drain()
            self.refresh()

        answers = Answers(
            store, refresh, self._now_ns, self._clock, lambda: self._ended() - len(store), labels=self._labels
        )
        return {FAILURES_PATH: OtherPage("the last processes that failed, one by one", answers.ask)}

    async def run(self) -> None:
        """Log once a minute, for ever, how many were left out of the log."""
        while True:
            await asyncio.sleep(_REPORT_SECONDS)
            if self._log is not None:
                self._log.report()
