"""Writes failures to the log, for `kubectl logs` and pipelines of logs: a line each, with a limit.

The limit is of a kind, so that a program that fails again and again does not keep the one failure of another out
of the log, and of all together. What is left out is counted, and the next line has the number.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence

from exporter.failures.rows import fields_of
from exporter.processes.bad_ends import Failure
from exporter.stream.wall_clock import WallClock
from exporter.tallies.labels import GroupName

LOGGER = __name__

# Lines in a minute.
_LINES_OF_A_KIND = 10
_LINES = 600
_MINUTE_SECONDS = 60.0

_LOG = logging.getLogger(LOGGER)


class FailureLog:
    """Logs failures.

    Args:
        ended: How many failures there were, those that are being handed on among them.
        clock: Returns the clock of the host where they happen.
        now_seconds: A clock for the limit.

    Attributes:
        logged: How many were logged.
    """

    def __init__(
        self,
        ended: Callable[[], int],
        clock: Callable[[], WallClock],
        now_seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ended = ended
        self._clock = clock
        self._now_seconds = now_seconds
        self._minute_began = now_seconds()
        self._lines: Counter[tuple[GroupName, str, int]] = Counter()
        # Of those that were left out, how many a line has said.
        self._reported = 0
        self.logged = 0

    @property
    def left_out(self) -> int:
        """How many were not logged."""
        return self._ended() - self.logged

    def take(self, failures: Sequence[Failure]) -> None:
        """Log failures, as far as the limit allows."""
        clock = self._clock()
        left_out = self.left_out - len(failures)
        for failure in failures:
            if not self._may_log((failure.group, failure.comm, failure.status)):
                left_out += 1
                continue
            fields = fields_of(failure, clock)
            fields["ended"] = fields.pop("time")
            fields["execs"] = " > ".join(failure.execs) or None
            # What is in no pod has no word about pods.
            fields |= {name: fields[name] or None for name, _ in failure.group}
            if left_out > self._reported:
                fields["left_out"] = left_out - self._reported
                self._reported = left_out
            _LOG.info("process failed", extra={name: value for name, value in fields.items() if value is not None})
            self.logged += 1

    def report(self) -> None:
        """Log how many were left out since the last line that had such a number, if any were."""
        left_out = self.left_out
        if left_out > self._reported:
            _LOG.info("failed processes were left out of the log", extra={"left_out": left_out - self._reported})
            self._reported = left_out

    def _may_log(self, kind: tuple[GroupName, str, int]) -> bool:
        now = self._now_seconds()
        if now - self._minute_began >= _MINUTE_SECONDS:
            self._minute_began = now
            self._lines.clear()
        if self._lines[kind] >= _LINES_OF_A_KIND or self._lines.total() >= _LINES:
            return False
        self._lines[kind] += 1
        return True
