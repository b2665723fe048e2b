"""The wake-ups: when to drain, on one event loop, without threads.

On a quiet host the connector's socket wakes the loop for each event; on a busy one a timer does, and the socket is
taken out of the loop (see moderation.py). What a drain does is in drain.py, what follows a loss in compare.py.
"""

import asyncio
import os
import time
from collections.abc import Callable

from exporter.kernel.procfs import Procfs
from exporter.kernel.recvmmsg import Meminfo
from exporter.live.compare import Comparison
from exporter.live.drain import Drain
from exporter.live.losses import Losses
from exporter.live.moderation import Moderation, events_per_drain
from exporter.live.oom_sources import OomKillReader
from exporter.live.open_sources import Sources
from exporter.live.order import PlacingSources, drain_order
from exporter.live.renewal import Renewal
from exporter.live.silence import Silence
from exporter.live.turns import drain_all, pause_between_steps
from exporter.processes.oom_kills import BY_NUMBER
from exporter.processes.open_names import READING_SETTLES_NS
from exporter.processes.pipeline import Pipeline

_NEWS_WITHIN_SECONDS = 0.03
_RINGS_SECONDS = 0.5
_AROUND_SECONDS = 60.0
# A little longer than a reading takes to settle, for it settles by a drain that begins later.
_SETTLE_SECONDS = 1.1 * READING_SETTLES_NS / 1_000_000_000


class Listener:
    """Listens to the kernel. Made while an event loop runs.

    Args:
        opened: The sockets.
        pipeline: Counts.
        procfs: The host's.
        places: What says where processes are; None where groups are not asked for.
        oom: Reads which processes the OOM killer chose; None if that is not to be known.

    Attributes:
        crashed: Gets the exception of a bug: a loop that went on without its drains would show old numbers.
        drain_ns: How long the steps of drains took.
    """

    def __init__(
        self,
        opened: Sources,
        pipeline: Pipeline,
        procfs: Procfs,
        places: PlacingSources | None = None,
        oom: OomKillReader | None = None,
    ) -> None:
        self._connector = opened.connector
        # An acknowledgement can be waited for amid events, if it was only the canary that was late.
        opened.connector.keep = pipeline.take_events
        self._pipeline = pipeline
        if places is not None:
            places = places._replace(drain_soon=self._drain_soon)
        self._order = drain_order(opened, pipeline, time.monotonic_ns, places, oom)
        self._placing = self._order.placing
        self._drain = Drain(self._order, pipeline, time.monotonic_ns, time.thread_time_ns)
        self._losses = Losses(self._order.counted, pipeline, time.monotonic_ns)
        self._comparison = Comparison(
            self._drain,
            pipeline,
            procfs,
            keeps_table=opened.plan.keeps_table,
            with_start=opened.taskstats is None,
            count_losses=self._count_unsettling,
            crash=self._crash,
            find_place=None if self._placing is None else self._placing.find,
        )
        self._renewal = Renewal(opened.connector, self._drain, self._comparison)
        self._silence = Silence(self._renewal, time.monotonic_ns, self._crash)
        self._has_rings = opened.rings is not None
        events = events_per_drain(
            has_rings=self._has_rings,
            has_records=opened.taskstats is not None,
            oom_by_number=pipeline.table.oom_kills.source in BY_NUMBER,
        )
        self._moderation = Moderation(self._losses.holds_events(), os.cpu_count() or 1, events)
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._soon: asyncio.Handle | None = None
        self._around: asyncio.Task[None] | None = None
        # The connector's socket is in the event loop.
        self._is_woken = False
        # Something asked for a drain during the last step.
        self._is_asked = False
        # When the last step of a drain began, something waited.
        self._found_some = False
        self.drain_ns = self._drain.drain_ns
        self.crashed: asyncio.Future[None] = self._loop.create_future()

    # -- start and stop -----------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Find the processes that are older than the subscription, then listen.

        Exit records that are older than it go: the EXIT that each waits for was before it.
        """
        await self._comparison.compare(is_first=True)
        for source in self._order.hints:
            self._loop.add_reader(source.fileno(), self._guard, self._drain.read_hints)
        self._wake_up()
        if self._placing is not None:
            self._around = asyncio.ensure_future(self._look_around())
            self._around.add_done_callback(self._looked_around)

    async def _look_around(self) -> None:
        while True:
            await asyncio.sleep(_AROUND_SECONDS)
            await self._comparison.look_around()

    def _looked_around(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._crash(error)

    def stop(self) -> None:
        """Stop listening."""
        self._comparison.stop()
        self._silence.stop()
        if self._around is not None:
            self._around.cancel()
        if self._placing is not None:
            self._placing.close()
        for handle in (self._timer, self._soon):
            if handle is not None:
                handle.cancel()
        self._loop.remove_reader(self._connector.fileno())
        for source in self._order.hints:
            self._loop.remove_reader(source.fileno())

    def _guard(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:  # noqa: BLE001 - handed to the program's main task, which ends it
            self._crash(error)

    def _crash(self, error: BaseException) -> None:
        if not self.crashed.done():
            self.crashed.set_exception(error)

    # -- wake-ups -----------------------------------------------------------------------------------------------

    def _wake_up(self) -> None:
        """Drain one step, and decide how to wait for the next."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        fill = self.look_at_buffers()
        self._found_some = bool(fill)
        self._is_asked = False
        if self._drain.step():
            self._wait_by_timer(pause_between_steps(self._drain))
            return
        if self._has_rings:
            self._silence.look(self._pipeline.table.missed_forks, self._losses.unsettling())
        now_ns = time.monotonic_ns()
        self._moderation.look_at_missed(self._pipeline.table.grouping.missed, now_ns)
        pause = self._moderation.pause(self._drain.events_found, fill, now_ns)
        if self._pipeline.is_observed:
            pause = min(pause, _NEWS_WITHIN_SECONDS)
        if pause:
            # What was read amid the step may ask for a drain when the events had been read.
            self._wait_by_timer(0.0 if self._is_asked else pause)
            return
        if not self._is_woken:
            self._loop.add_reader(self._connector.fileno(), self._guard, self._wake_up)
            self._is_woken = True
        if self._pipeline.waits:
            # On a quiet host no event would come to settle what was read.
            self._timer = self._loop.call_later(_SETTLE_SECONDS, self._guard, self._wake_up)
        elif self._has_rings:
            self._look_at_rings_later()

    def _look_at_rings_later(self) -> None:
        # On a host that was silenced no event would come to have the rings read, which prove the silence.
        self._timer = self._loop.call_later(_RINGS_SECONDS, self._guard, self._look_at_rings)

    def _look_at_rings(self) -> None:
        """Drain, if anything waits or has come since the last drain began."""
        if self.look_at_buffers() or self._found_some:
            self._wake_up()
        else:
            self._look_at_rings_later()

    def _wait_by_timer(self, seconds: float) -> None:
        if self._is_woken:
            # A socket in epoll costs each process that forks a callback per event, even when no program waits.
            self._loop.remove_reader(self._connector.fileno())
            self._is_woken = False
        self._timer = self._loop.call_later(seconds, self._guard, self._wake_up)

    def _drain_soon(self) -> None:
        """Drain in the next turn of the loop, unless an event has it drained at once."""
        self._is_asked = True
        if self._timer is not None and self._soon is None:
            self._soon = self._loop.call_soon(self._guard, self._drain_now)

    def _drain_now(self) -> None:
        self._soon = None
        self._wake_up()

    def emit_soon(self) -> None:
        """End a pause that is longer than a client that has just come may wait for its events."""
        if self._timer is not None and not self._is_woken:
            self._timer.cancel()
            self._wait_by_timer(min(_NEWS_WITHIN_SECONDS, max(0.0, self._timer.when() - self._loop.time())))

    # -- on demand ----------------------------------------------------------------------------------------------

    async def drain_all(self) -> None:
        """Drain until nothing is left that was there when this was called, whatever has arrived since."""
        await drain_all(self._drain)

    async def count_all(self) -> None:
        """Drain until all that was there when this was called is counted, and none of it kept by a comparison."""
        await self._comparison.count_all()

    async def resubscribe(self) -> bool:
        """Subscribe again after the kernel fell silent, and find out what happened meanwhile.

        Returns:
            Whether the kernel acknowledged it.
        """
        return await self._renewal.renew()

    def count_losses(self) -> None:
        """Ask how full the sources are, and count what they lost."""
        self._losses.count()

    def _count_unsettling(self) -> int:
        self._losses.count()
        return self._losses.unsettling() + self._pipeline.table.uncounted_losses

    def look_at_buffers(self) -> float:
        """Count losses; a new one begins a comparison with /proc.

        Returns:
            How full the fullest source is, from 0 to 1.
        """
        self._comparison.follow_losses(self._count_unsettling())
        return self._losses.fullest()

    # -- what it reports ----------------------------------------------------------------------------------------

    @property
    def resyncs(self) -> int:
        """How many comparisons with /proc followed a loss or a silence."""
        return self._comparison.repeated

    @property
    def resubscriptions(self) -> int:
        """How often the subscription had to be renewed."""
        return self._renewal.tries

    def now_ns(self) -> int:
        """Return CLOCK_MONOTONIC."""
        return time.monotonic_ns()

    def buffers(self) -> dict[str, Meminfo]:
        """Return how full each source was at the last look, and what it has lost, by name."""
        return self._losses.buffers()

    def malformed(self) -> dict[str, int]:
        """Return how many messages were dropped as malformed, or of an unknown kind, by source."""
        counts = {
            source.name: self._pipeline.malformed[source.name] + source.malformed for source in self._order.counted
        }
        counts[self._order.events.name] += self._pipeline.table.unknown_events
        return counts
