"""Silence that side-band records prove: the kernel writes that a process was forked, and sends no FORK.

The kernel sends the FORK before it writes the record. So when all events have been read up to the time of a
record, and its FORK was not among them, the kernel sends us none, or has lost one without counting that (a failed
allocation). The canary would notice a silence too, but only after its interval. Records without a FORK that follow
a counted loss prove nothing: that loss is followed by a comparison with /proc.
"""

import asyncio
import logging
import os
from collections.abc import Callable

from exporter.live.renewal import Renewal

_LOG = logging.getLogger(__name__)

# A silence that cannot be mended must not keep the exporter busy with trying.
_AGAIN_AFTER_NS = 5_000_000_000
_LOSS_EXPLAINS_FOR_NS = 2_000_000_000
# A process whose FORK was due just before the subscription began, and its record just after, has a record and no
# FORK: at most one on each CPU.
_UNDER_WAY = os.cpu_count() or 1
_BEGINS_FOR_NS = 2_000_000_000


class Silence:
    """Renews the subscription when FORK events are missing.

    Args:
        renewal: Subscribes again, and compares with /proc.
        now_ns: CLOCK_MONOTONIC.
        crash: Gets the exception of a bug.
    """

    def __init__(
        self, renewal: Renewal, now_ns: Callable[[], int], crash: Callable[[BaseException], None]
    ) -> None:
        self._renewal = renewal
        self._now_ns = now_ns
        self._crash = crash
        self._missed = 0
        self._first_look_ns: int | None = None
        self._lost = 0
        self._lost_ns: int | None = None
        self._renewed_ns: int | None = None
        self._task: asyncio.Task[bool] | None = None

    def look(self, missed: int, lost: int) -> None:
        """Renew the subscription if forks were missed that no counted loss explains.

        Args:
            missed: How many fork records have had no FORK so far.
            lost: How many messages were lost so far, as the kernel counts them.
        """
        news, self._missed = missed - self._missed, missed
        if self._first_look_ns is None:
            self._first_look_ns = self._now_ns()
        if missed <= _UNDER_WAY and self._now_ns() - self._first_look_ns < _BEGINS_FOR_NS:
            return
        if lost > self._lost:
            self._lost, self._lost_ns = lost, self._now_ns()
        # What was lost is missed when all that was queued then has been read.
        explained = self._lost_ns is not None and self._now_ns() - self._lost_ns < _LOSS_EXPLAINS_FOR_NS
        if not news or explained or (self._task is not None and not self._task.done()):
            return
        if self._renewed_ns is not None and self._now_ns() - self._renewed_ns < _AGAIN_AFTER_NS:
            return
        self._renewed_ns = self._now_ns()
        _LOG.error("processes were forked without an event, renewing the subscription", extra={"forks": news})
        self._task = asyncio.ensure_future(self._renewal.renew())
        self._task.add_done_callback(self._renewed)

    def stop(self) -> None:
        """Stop a renewal that is under way."""
        if self._task is not None:
            self._task.cancel()

    def _renewed(self, task: asyncio.Task[bool]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._crash(error)
