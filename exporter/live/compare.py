"""The comparison with /proc: brings the process table in line with what lives.

At the start it finds the processes that are older than the subscription. After a loss or a silence it also finds
what has ended without an event. The connector is subscribed before /proc is listed, so no process falls in
between. Events that come during the scan are held: they show which readings are doubtful.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from exporter.errors import MalformedMessage, ShortageError
from exporter.kernel.procfs import ProcessInfo, Procfs
from exporter.kernel.taskstats import LastRecord, Record
from exporter.live.drain import Drain
from exporter.live.turns import drain_all, drain_for, in_slices
from exporter.processes.open_names import READING_SETTLES_NS
from exporter.processes.pipeline import Pipeline

_LOG = logging.getLogger(__name__)

_PAUSE_AFTER_LOSS_SECONDS = 1.0
_NS_PER_SECOND = 1_000_000_000
_SHORTAGE_NS = 100_000_000

_T = TypeVar("_T")


class Comparison:
    """Compares the process table with /proc, at most one at a time.

    Args:
        drain: Reads events meanwhile.
        pipeline: Gets what is found.
        procfs: The host's.
        keeps_table: It is known which processes live; otherwise there is nothing to find in /proc.
        with_start: Read when a process started; exit records have it more exactly.
        count_losses: Looks for losses, and returns how many messages were lost so far.
        crash: Called with the exception of a comparison that follows a loss.
        find_place: Reads where a process is, and notes it; None where groups are not asked for.

    Attributes:
        repeated: How many were made after a loss or a silence.
    """

    def __init__(
        self,
        drain: Drain,
        pipeline: Pipeline,
        procfs: Procfs,
        *,
        keeps_table: bool,
        with_start: bool,
        count_losses: Callable[[], int],
        crash: Callable[[BaseException], None],
        find_place: Callable[[int], None] | None = None,
    ) -> None:
        self._drain = drain
        self._pipeline = pipeline
        self._procfs = procfs
        self._keeps_table = keeps_table
        self._with_start = with_start
        self._count_losses = count_losses
        self._crash = crash
        self._find_place = find_place
        # A loss and a silence can both ask for a comparison.
        self._lock = asyncio.Lock()
        self._losses_followed = 0
        self._following: asyncio.Task[None] | None = None
        self.repeated = 0

    def stop(self) -> None:
        """Stop the comparison that follows a loss, if there is one."""
        if self._following is not None:
            self._following.cancel()

    def follow_losses(self, lost: int) -> None:
        """Begin a comparison if messages were lost since the last one began, and none is under way.

        Args:
            lost: How many messages were lost so far.
        """
        if lost > self._losses_followed and (self._following is None or self._following.done()):
            _LOG.warning("messages lost, comparing with /proc", extra={"lost": lost - self._losses_followed})
            self._losses_followed = lost
            self._following = asyncio.ensure_future(self._follow_loss())
            self._following.add_done_callback(self._followed)

    def _followed(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._crash(error)

    async def _follow_loss(self) -> None:
        # Give an overload time to pass: while it lasts, every comparison would be out of date when it is done.
        await asyncio.sleep(_PAUSE_AFTER_LOSS_SECONDS)
        await self.repeat()

    async def repeat(self) -> None:
        """Compare after a loss or a silence."""
        await self.compare()
        self.repeated += 1

    async def count_all(self) -> None:
        """Drain until all that was there when this was called is counted; waits for a comparison that keeps it."""
        async with self._lock:
            await drain_all(self._drain)

    async def compare(self, *, is_first: bool = False) -> None:
        """Bring the table in line with /proc: adopt what lives, forget what is gone.

        Args:
            is_first: It is the one at the start.
        """
        async with self._lock:
            if is_first:
                # Nothing is known yet that a loss could have made wrong. What is read from now on belongs to
                # events that are held until the scan is over.
                self._pipeline.lose_track()
            await drain_all(self._drain)
            # Asked before the scan, which takes a while: a process that is stopped between its release, when it
            # vanishes from /proc, and its EXIT has that time to send it.
            lost = await self._lost_exits(self._pipeline.waiting_records())
            await drain_all(self._drain)
            if not is_first:
                # What was lost until now is found by this comparison: a second one would follow it in vain.
                self._losses_followed = max(self._losses_followed, self._count_losses())
                self._pipeline.lose_track()
            listed_ns = time.monotonic_ns()
            alive = await self._scan()
            self._pipeline.forget_records(lost)
            async for tgid in in_slices(self._drain, self._pipeline.missing(alive)):
                self._pipeline.forget([tgid], listed_ns)

    async def _scan(self) -> list[int]:
        """Adopt what lives; returns the tgids that were listed first of all.

        Events are held meanwhile, and until what was read has settled: they show what of it is doubtful.
        """
        self._drain.hold()
        try:
            tgids = await self._list() if self._keeps_table else []
            async for tgid in in_slices(self._drain, tgids):
                info = await self._ask(partial(self._read_process, tgid))
                if info is not None:
                    self._pipeline.adopt(tgid, info, start_ns(info), time.monotonic_ns())
                    if self._find_place is not None:
                        await self._ask(partial(self._find_place, tgid))
            await drain_for(self._drain, READING_SETTLES_NS)
        finally:
            self._drain.release()
        await drain_all(self._drain)
        return tgids

    async def _list(self) -> list[int]:
        while True:
            try:
                return [tgid async for tgid in in_slices(self._drain, self._procfs.iter_processes())]
            except ShortageError as error:
                await self._wait(error)

    async def _ask(self, question: Callable[[], _T]) -> _T:
        """Ask /proc, until descriptors and memory are free for that: a process is gone only if /proc says so."""
        while True:
            try:
                return question()
            except ShortageError as error:
                await self._wait(error)

    async def _wait(self, error: ShortageError) -> None:
        _LOG.warning("cannot read /proc now, trying again", extra={"error": str(error)})
        await drain_for(self._drain, _SHORTAGE_NS)

    def _read_process(self, tgid: int) -> ProcessInfo | None:
        try:
            return self._procfs.read_process(tgid, with_start=self._with_start)
        except MalformedMessage as error:
            _LOG.warning("cannot read a process", extra={"tgid": tgid, "error": str(error)})
            return None

    async def look_around(self) -> None:
        """Read of all processes where they are: those that were moved without a sign are found so."""
        if self._find_place is None:
            return
        async with self._lock:
            async for tgid in in_slices(self._drain, await self._list()):
                await self._ask(partial(self._find_place, tgid))

    async def _lost_exits(self, waiting: list[Record | LastRecord]) -> list[Record | LastRecord]:
        """Return the records, of those that wait, whose EXIT is lost unless it is on its way already."""
        # Of a leader and of a last thread that had one pid it is not known which was the later.
        newest = {(record[0], len(record)): record for record in waiting}
        # An EXIT that is still to come is that of a thread which is there, and exiting: the last with its pid.
        return [
            record
            async for record in in_slices(self._drain, waiting)
            if newest[record[0], len(record)] is not record
            or not await self._ask(partial(self._procfs.is_exiting, record[0]))
        ]


def start_ns(info: ProcessInfo) -> int:
    """Return when a process started, by the clock of events' timestamps; 0 if that was not read."""
    if info.starttime is None:
        return 0
    # starttime counts time in suspend, events' timestamps do not.
    suspended_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
    return max(1, info.starttime * (_NS_PER_SECOND // os.sysconf("SC_CLK_TCK")) - suspended_ns)
