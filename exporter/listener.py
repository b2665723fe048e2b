"""The live loop: drains the sockets into the pipeline, on one event loop, without threads.

Order matters. The connector is subscribed before /proc is scanned, so that no process falls in between, and it is
drained before taskstats, so that every EXIT finds its record. After a loss the table is compared with /proc.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator
from itertools import islice

from exporter.errors import MalformedMessage
from exporter.kernel.procfs import ProcessInfo, Procfs
from exporter.kernel.receiver import Meminfo, Receiver
from exporter.moderation import Moderation
from exporter.names import READING_SETTLES_NS
from exporter.pipeline import Pipeline
from exporter.readings import EarlyReader
from exporter.sources import Sources
from exporter.tally import DRAIN_NS, new_histogram, observe

_LOG = logging.getLogger(__name__)

# One step of a drain takes so many batches of the connector; then the event loop gets its turn.
_BATCHES_PER_STEP = 16
# A scan of /proc gives the event loop its turn, and is followed by a drain, each time it has taken this long.
_SCAN_SLICE_NS = 10_000_000
_RESYNC_PAUSE_SECONDS = 1.0
_NS_PER_SECOND = 1_000_000_000
# A little longer than a reading takes to settle, for it settles by a drain that begins later.
_SETTLE_SECONDS = 1.1 * READING_SETTLES_NS / _NS_PER_SECOND


class Listener:
    """Reads the sockets. Made while an event loop runs.

    Args:
        sources: What to listen to.
        early: Reads names for sources.names, if there is one.
        pipeline: Counts.
        procfs: The host's.

    Attributes:
        crashed: Gets the exception of a bug: a loop that went on without its drains would tell old numbers.
    """

    def __init__(
        self,
        sources: Sources,
        early: EarlyReader | None,
        pipeline: Pipeline,
        procfs: Procfs,
    ) -> None:
        self._keeps_table = sources.plan.keeps_table
        self._connector = sources.connector
        self._taskstats = sources.taskstats
        self._early = None if sources.names is None or early is None else (sources.names, early)
        self._pipeline = pipeline
        self._table = pipeline.table
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
        self._events = 0
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
        if self._early is not None:
            self._loop.add_reader(self._early[0].fileno(), self._guard, self._read_early)
        self._wake_up()

    def stop(self) -> None:
        """Stop listening."""
        if self._resync is not None:
            self._resync.cancel()
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._connector.fileno())
        if self._early is not None:
            self._loop.remove_reader(self._early[0].fileno())

    def _guard(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:  # noqa: BLE001 - handed to whoever runs the program, who ends it
            self._crash(error)

    def _crash(self, error: BaseException) -> None:
        if not self.crashed.done():
            self.crashed.set_exception(error)

    # -- draining -----------------------------------------------------------------------------------------------

    def _read_early(self) -> None:
        if self._early is not None:
            names, reader = self._early
            for batch in names.iter_batches():
                reader.take(batch)

    def drain(self) -> bool:
        """Read and count what has arrived, up to a bound.

        Returns:
            Whether the bound was met, so that more may be waiting.
        """
        began_ns = time.monotonic_ns()
        self._read_early()
        pipeline = self._pipeline
        events = batches = 0
        for batch in islice(self._connector.iter_batches(), _BATCHES_PER_STEP):
            batches += 1
            events += len(batch.lengths)
            pipeline.take_events(batch)
        if self._taskstats is not None:
            for batch in self._taskstats.iter_batches():
                pipeline.take_records(batch)
        # At the bound some of what happened before may still be waiting.
        complete_until_ns = began_ns if batches < _BATCHES_PER_STEP else 0
        if self._holds:
            pass
        elif self._early is None:
            pipeline.apply(complete_until_ns)
        else:
            names, reader = self._early
            counts = self._table.events
            forks, execs = counts.fork, counts.exec
            pipeline.apply(complete_until_ns, reader.readings)
            reader.forget(complete_until_ns)
            names.narrow(reader.wanted_events(counts.fork - forks, counts.exec - execs))
        observe(self.drain_ns, DRAIN_NS, time.monotonic_ns() - began_ns)
        self._events = events
        return batches == _BATCHES_PER_STEP

    async def drain_all(self) -> None:
        """Drain until nothing is left that was there when this was called."""
        while self.drain():  # noqa: ASYNC110 - lets others run, waits for nobody
            await asyncio.sleep(0)

    def _wake_up(self) -> None:
        """Drain, and decide how to wait for the next time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        fill = self._look_at_buffers()
        if self.drain():
            self._wait_by_timer(0.0)
            return
        pause = self._moderation.pause(self._events, fill, time.monotonic_ns())
        if pause:
            self._wait_by_timer(pause)
            return
        if not self._reading:
            self._loop.add_reader(self._connector.fileno(), self._guard, self._wake_up)
            self._reading = True
        if self._table.waits:
            # On a quiet host no event would come to settle what was read.
            self._timer = self._loop.call_later(_SETTLE_SECONDS, self._guard, self._wake_up)

    def _wait_by_timer(self, seconds: float) -> None:
        if self._reading:
            # A socket in epoll costs whoever forks a callback for each event, even when nobody waits for it.
            self._loop.remove_reader(self._connector.fileno())
            self._reading = False
        self._timer = self._loop.call_later(seconds, self._guard, self._wake_up)

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
        except OSError as error:
            # After privileges were given up, a kernel before 6.6 refuses.
            _LOG.error("cannot subscribe again", extra={"error": error})
            return False
        if acknowledged:
            await self._compare()
            self.resyncs += 1
        return acknowledged

    def _look_at_buffers(self) -> float:
        """Ask how full the sockets are and what they lost; a new loss begins a comparison with /proc."""
        self._buffers = {name: socket.meminfo() for name, socket in self._sockets.items()}
        drops = sum(buffer.drops for buffer in self._buffers.values())
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
            self._table.lose_track()
            waiting = self._table.waiting_pids()
            listed_ns = time.monotonic_ns()
            alive = await self._scan()
            await self.drain_all()
            self._table.forget(alive, listed_ns, [pid for pid in waiting if not self._procfs.exists(pid)])

    # -- /proc --------------------------------------------------------------------------------------------------

    async def _scan(self) -> list[int]:
        """Adopt what lives; return the tgids that were listed first of all.

        Events wait meanwhile, and until what was read has settled: they tell what of it is doubtful.
        """
        self._holds = True
        tgids = self._procfs.list_processes() if self._keeps_table else []
        slice_ends_ns = time.monotonic_ns() + _SCAN_SLICE_NS
        for tgid, info in self._iter_processes(tgids):
            read_ns = time.monotonic_ns()
            self._table.adopt(tgid, info, self._start_ns(info), read_ns)
            if read_ns > slice_ends_ns:
                await self.drain_all()
                slice_ends_ns = time.monotonic_ns() + _SCAN_SLICE_NS
        settled_ns = time.monotonic_ns() + READING_SETTLES_NS
        while time.monotonic_ns() <= settled_ns:
            await asyncio.sleep(_SCAN_SLICE_NS / _NS_PER_SECOND)
            await self.drain_all()
        self._holds = False
        await self.drain_all()
        return tgids

    def _iter_processes(self, tgids: list[int]) -> Iterator[tuple[int, ProcessInfo]]:
        for tgid in tgids:
            try:
                # Exit records tell how long a process existed, to the microsecond.
                info = self._procfs.read_process(tgid, with_start=self._taskstats is None)
            except MalformedMessage as error:
                _LOG.warning("cannot read a process", extra={"tgid": tgid, "error": str(error)})
                continue
            if info is not None:
                yield tgid, info

    @staticmethod
    def _start_ns(info: ProcessInfo) -> int:
        if info.starttime is None:
            return 0
        # starttime counts time in suspend, events' timestamps do not.
        suspended_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
        return max(1, info.starttime * (_NS_PER_SECOND // os.sysconf("SC_CLK_TCK")) - suspended_ns)

    # -- what it tells ------------------------------------------------------------------------------------------

    def buffers(self) -> dict[str, Meminfo]:
        """Return how full each socket was at the last look, and what it has lost."""
        return self._buffers

    def malformed(self) -> dict[str, int]:
        """Return how many messages were dropped as malformed, or of a kind nobody knows, by socket."""
        counts = {
            name: self._pipeline.malformed[name] + socket.malformed for name, socket in self._sockets.items()
        }
        counts["connector"] += self._table.unknown_events
        return counts
