"""The live loop: drains the sockets into the pipeline, on one event loop, without threads.

Order matters. The connector is subscribed before /proc is scanned, so that no process falls in between, and it is
drained before taskstats, so that every EXIT finds its record. After a loss the table is compared with /proc.
"""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable
from itertools import islice
from typing import TypeVar

from exporter.errors import MalformedMessage
from exporter.kernel.procfs import ProcessInfo, Procfs
from exporter.kernel.recvmmsg import Meminfo, Receiver
from exporter.live.moderation import Moderation
from exporter.live.sources import Sources
from exporter.processes.open_names import READING_SETTLES_NS
from exporter.processes.pipeline import Pipeline
from exporter.tallies.tallies import DRAIN_NS, new_histogram, observe

_T = TypeVar("_T")

_LOG = logging.getLogger(__name__)

# One step of a drain takes so many batches of each socket, or counts so many, about ten milliseconds' worth; then
# the event loop gets its turn.
_EVENT_BATCHES_PER_STEP = 16
_RECORD_BATCHES_PER_STEP = 64
# No kernel charges a receive buffer with less for a message: how many can be waiting follows from its fill.
_LEAST_BYTES_PER_MESSAGE = 512
# While events are held back, no more than this, and no more records either: a flood then overflows the receive
# buffers, where loss is counted.
_MOST_BYTES_HELD = 32 << 20
# A comparison with /proc gives the event loop its turn, and is followed by a drain, each time it took this long.
_SLICE_NS = 5_000_000
_RESYNC_PAUSE_SECONDS = 1.0
# Each is short; on a busy machine it takes some to bring the kernel's count of listeners up from far below.
_MORE_TRIES = 9
_NEWS_WITHIN_SECONDS = 0.03
_NS_PER_SECOND = 1_000_000_000
# A little longer than a reading takes to settle, for it settles by a drain that begins later.
_SETTLE_SECONDS = 1.1 * READING_SETTLES_NS / _NS_PER_SECOND


class Listener:
    """Reads the sockets. Made while an event loop runs.

    Args:
        sources: What to listen to.
        pipeline: Counts.
        procfs: The host's.

    Attributes:
        crashed: Gets the exception of a bug: a loop that went on without its drains would tell old numbers.
    """

    def __init__(
        self,
        sources: Sources,
        pipeline: Pipeline,
        procfs: Procfs,
    ) -> None:
        self._keeps_table = sources.plan.keeps_table
        self._connector = sources.connector
        self._taskstats = sources.taskstats
        self._names = sources.names
        self._pipeline = pipeline
        # An acknowledgement can be waited for amid events, if it was only the canary that was late.
        self._connector.keep = pipeline.take_events
        self._procfs = procfs
        self._sockets: dict[str, Receiver] = {"connector": sources.connector}
        if sources.taskstats is not None:
            self._sockets["taskstats"] = sources.taskstats
        self._buffers = {name: socket.meminfo() for name, socket in self._sockets.items()}
        self._drops_seen = 0
        self._moderation = Moderation(
            min(buffer.limit_bytes for buffer in self._buffers.values()), os.cpu_count() or 1
        )
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._reading = False
        # Events are taken, but not applied: what they mean is known after a scan.
        self._holds = True
        # A drain is under way: what it has read of the connector is not counted yet.
        self._halfway = False
        self._more_events = False
        self._complete_until_ns = 0
        self._events = 0
        # Read so far; and what they will be when all that waits in the sockets at a moment has been read.
        self._events_read = self._records_read = 0
        self._records_goal = 0
        self._complete_goal = (0, 0)
        self._resync: asyncio.Task[None] | None = None
        # A loss and a silence can both ask for a comparison.
        self._comparing = asyncio.Lock()
        self.drain_ns = new_histogram(DRAIN_NS)
        self.resyncs = 0
        self.resubscriptions = 0
        self.crashed: asyncio.Future[None] = self._loop.create_future()

    # -- start and stop -----------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Find the processes that are older than the subscription, then listen.

        Exit records that are older than it go: the EXIT that each waits for was before it.
        """
        await self._compare()
        if self._names is not None:
            self._loop.add_reader(self._names.fileno(), self._guard, self._read_names)
        self._wake_up()

    def stop(self) -> None:
        """Stop listening."""
        if self._resync is not None:
            self._resync.cancel()
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._connector.fileno())
        if self._names is not None:
            self._loop.remove_reader(self._names.fileno())

    def _guard(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:  # noqa: BLE001 - handed to whoever runs the program, who ends it
            self._crash(error)

    def _crash(self, error: BaseException) -> None:
        if not self.crashed.done():
            self.crashed.set_exception(error)

    # -- draining -----------------------------------------------------------------------------------------------

    def _read_names(self) -> None:
        if self._names is not None:
            for batch in self._names.iter_batches():
                self._pipeline.take_names(batch)
            self._names.narrow(self._pipeline.wanted_by_names)

    def drain(self) -> bool:
        """Take one step of reading and counting what has arrived.

        First events are read, then records until there are none left, so that each EXIT finds its own, and only
        then the events are counted.

        Returns:
            Whether it has to go on, or more may be waiting.
        """
        began_ns = time.monotonic_ns()
        self._read_names()
        if not self._halfway:
            self._halfway = True
            self._read_events(began_ns)
            self._records_goal = self._records_read + self._most_waiting("taskstats")
        goes_on = self._read_records() or (not self._holds and self._count())
        self._halfway = goes_on
        observe(self.drain_ns, DRAIN_NS, time.monotonic_ns() - began_ns)
        return goes_on or self._more_events

    def _read_events(self, now_ns: int) -> None:
        self._events = batches = 0
        if self._holds_enough():
            self._more_events = False
            return
        for batch in islice(self._connector.iter_batches(), _EVENT_BATCHES_PER_STEP):
            batches += 1
            self._events += len(batch.lengths)
            self._pipeline.take_events(batch)
        self._events_read += self._events
        self._more_events = batches == _EVENT_BATCHES_PER_STEP
        goal, then_ns = self._complete_goal
        if not self._more_events:
            self._complete_until_ns = now_ns
        elif self._events_read >= goal:
            # A flood: the socket is never empty, but what waited in it then has been read.
            self._complete_until_ns = then_ns
            then_ns = time.monotonic_ns()
            self._complete_goal = (self._events_read + self._most_waiting("connector"), then_ns)

    def _read_records(self) -> bool:
        if self._taskstats is None or self._holds_enough():
            return False
        batches = 0
        for batch in islice(self._taskstats.iter_batches(), _RECORD_BATCHES_PER_STEP):
            batches += 1
            self._records_read += len(batch.lengths)
            self._pipeline.take_records(batch)
        return batches == _RECORD_BATCHES_PER_STEP and self._records_read < self._records_goal

    def _holds_enough(self) -> bool:
        return self._holds and self._pipeline.held_bytes > _MOST_BYTES_HELD

    def _most_waiting(self, name: str) -> int:
        """The most messages that a socket can hold now."""
        socket = self._sockets.get(name)
        return 0 if socket is None else socket.meminfo().used_bytes // _LEAST_BYTES_PER_MESSAGE

    def _count(self) -> bool:
        left = self._pipeline.apply(self._complete_until_ns, most_batches=_EVENT_BATCHES_PER_STEP)
        if self._names is not None:
            self._names.narrow(self._pipeline.wanted_by_names)
        return left

    async def drain_all(self) -> None:
        """Drain until nothing is left that was there when this was called, whatever has arrived since."""
        # What somebody else has begun may have looked before.
        while self._halfway and self.drain():  # noqa: ASYNC110 - lets others run, waits for nobody
            await asyncio.sleep(0)
        goal = self._events_read + self._most_waiting("connector")
        while self.drain() and (self._halfway or self._events_read < goal):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0)

    def _wake_up(self) -> None:
        """Drain, and decide how to wait for the next time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        fill = self.look_at_buffers()
        if self.drain():
            self._wait_by_timer(0.0)
            return
        pause = self._moderation.pause(self._events, fill, time.monotonic_ns())
        if self._pipeline.is_observed:
            # Somebody waits for the news.
            pause = min(pause, _NEWS_WITHIN_SECONDS)
        if pause:
            self._wait_by_timer(pause)
            return
        if not self._reading:
            self._loop.add_reader(self._connector.fileno(), self._guard, self._wake_up)
            self._reading = True
        if self._pipeline.waits:
            # On a quiet host no event would come to settle what was read.
            self._timer = self._loop.call_later(_SETTLE_SECONDS, self._guard, self._wake_up)

    def _wait_by_timer(self, seconds: float) -> None:
        if self._reading:
            # A socket in epoll costs whoever forks a callback for each event, even when nobody waits for it.
            self._loop.remove_reader(self._connector.fileno())
            self._reading = False
        self._timer = self._loop.call_later(seconds, self._guard, self._wake_up)

    def tell_soon(self) -> None:
        """Somebody waits for the news from now on: end a pause that is longer than they may wait."""
        if self._timer is not None and not self._reading:
            self._timer.cancel()
            self._wait_by_timer(min(_NEWS_WITHIN_SECONDS, max(0.0, self._timer.when() - self._loop.time())))

    # -- silence and loss ---------------------------------------------------------------------------------------

    async def resubscribe(self) -> bool:
        """Subscribe again after the kernel fell silent, and find out what happened meanwhile.

        Returns:
            Whether the kernel acknowledged it.
        """
        self.resubscriptions += 1
        await self.drain_all()
        try:
            acknowledged = self._connector.resubscribe()
            for _ in range(_MORE_TRIES):
                if acknowledged:
                    break
                await asyncio.sleep(0)
                acknowledged = self._connector.resubscribe()
        except OSError as error:
            # After privileges were given up, a kernel before 6.6 refuses.
            _LOG.error("cannot subscribe again", extra={"error": error})
            return False
        if acknowledged:
            await self._compare()
            self.resyncs += 1
        return acknowledged

    def count_losses(self) -> None:
        """Ask how full the sockets are and what they lost."""
        self._buffers = {name: socket.meminfo() for name, socket in self._sockets.items()}
        for name, buffer in self._buffers.items():
            # The kernel's count has 32 bits, ours goes on.
            lost = (buffer.drops - self._pipeline.lost[name]) & 0xFFFFFFFF
            if lost:
                self._pipeline.lose(name, lost, time.monotonic_ns())

    def look_at_buffers(self) -> float:
        """Count losses; a new one begins a comparison with /proc.

        Returns:
            How full the fuller socket is, from 0 to 1.
        """
        self.count_losses()
        drops = sum(self._pipeline.lost.values())
        if drops > self._drops_seen and (self._resync is None or self._resync.done()):
            _LOG.warning("messages lost, comparing with /proc", extra={"lost": drops - self._drops_seen})
            self._drops_seen = drops
            self._resync = asyncio.ensure_future(self._compare_later())
            self._resync.add_done_callback(self._compared)
        return max(buffer.used_bytes / buffer.limit_bytes for buffer in self._buffers.values())

    def _compared(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._crash(error)

    async def _compare_later(self) -> None:
        # Give an overload time to pass: while it lasts, every comparison would be out of date when it is done.
        await asyncio.sleep(_RESYNC_PAUSE_SECONDS)
        await self._compare()
        self.resyncs += 1

    async def _compare(self) -> None:
        """Bring the table in line with /proc: what lives in, what is gone out."""
        async with self._comparing:
            await self.drain_all()
            self._pipeline.lose_track()
            waiting = self._pipeline.waiting_records()
            listed_ns = time.monotonic_ns()
            alive = await self._scan()
            newest = {record[0]: record for record in waiting}
            # An EXIT that is still to come is that of a thread which is there, and exiting: the last with its pid.
            lost = [
                record
                async for record in self._in_slices(waiting)
                if newest[record[0]] is not record or not self._procfs.is_exiting(record[0])
            ]
            await self.drain_all()
            self._pipeline.forget_records(lost)
            async for tgid in self._in_slices(self._pipeline.missing(alive)):
                self._pipeline.forget([tgid], listed_ns)

    async def _in_slices(self, items: Iterable[_T]) -> AsyncIterator[_T]:
        """Hand items out one by one; drain, and let others have their turn, from time to time."""
        slice_ends_ns = time.monotonic_ns() + _SLICE_NS
        for item in items:
            yield item
            if time.monotonic_ns() > slice_ends_ns:
                await asyncio.sleep(0)
                self.drain()
                slice_ends_ns = time.monotonic_ns() + _SLICE_NS

    # -- /proc --------------------------------------------------------------------------------------------------

    async def _scan(self) -> list[int]:
        """Adopt what lives; return the tgids that were listed first of all.

        Events wait meanwhile, and until what was read has settled: they tell what of it is doubtful.
        """
        self._holds = True
        listed = self._procfs.iter_processes() if self._keeps_table else ()
        tgids = [tgid async for tgid in self._in_slices(listed)]
        async for tgid in self._in_slices(tgids):
            info = self._read_process(tgid)
            if info is not None:
                self._pipeline.adopt(tgid, info, self._start_ns(info), time.monotonic_ns())
        settled_ns = time.monotonic_ns() + READING_SETTLES_NS
        while time.monotonic_ns() <= settled_ns:
            await asyncio.sleep(_SLICE_NS / _NS_PER_SECOND)
            self.drain()
        self._holds = False
        await self.drain_all()
        return tgids

    def _read_process(self, tgid: int) -> ProcessInfo | None:
        try:
            # Exit records tell how long a process existed, to the microsecond.
            return self._procfs.read_process(tgid, with_start=self._taskstats is None)
        except MalformedMessage as error:
            _LOG.warning("cannot read a process", extra={"tgid": tgid, "error": str(error)})
            return None

    @staticmethod
    def _start_ns(info: ProcessInfo) -> int:
        if info.starttime is None:
            return 0
        # starttime counts time in suspend, events' timestamps do not.
        suspended_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
        return max(1, info.starttime * (_NS_PER_SECOND // os.sysconf("SC_CLK_TCK")) - suspended_ns)

    # -- what it tells ------------------------------------------------------------------------------------------

    def now_ns(self) -> int:
        """Return CLOCK_MONOTONIC."""
        return time.monotonic_ns()

    def buffers(self) -> dict[str, Meminfo]:
        """Return how full each socket was at the last look, and what it has lost."""
        return self._buffers

    def malformed(self) -> dict[str, int]:
        """Return how many messages were dropped as malformed, or of a kind nobody knows, by socket."""
        counts = {
            name: self._pipeline.malformed[name] + socket.malformed for name, socket in self._sockets.items()
        }
        counts["connector"] += self._pipeline.table.unknown_events
        return counts
