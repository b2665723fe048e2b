"""The drain: reads the sources and lets the pipeline count, in short steps and in the right order.

Theory of operation. An EXIT event says that a thread ended, an exit record says what it was. They come through two
queues of the kernel, and the kernel queues the record first. So a *pass* reads events, then the records that wait
by then, and only then counts the events: each EXIT finds its record.

A pass is made of steps. A step takes about ten milliseconds at most, because the event loop stands still
meanwhile. (A process that begins a session can be gone before a step ends: the drain looks for such processes
between the parts of a step, too.) On a quiet host one step is a whole pass. Under load it takes several, and the
state says where the next one goes on:

          read events                    all records are read            all events are counted
    IDLE ---------------> READING_RECORDS -----------------------> COUNTING ------------------------> IDLE
                              ^                                      |
                              '--------------------------------------'
                                      many records have come

A step goes through as many states as it has work for. It leaves a state to the next step if it has read or counted
as many batches as one step may. What an event costs differs tenfold: names that are all new cost the most. So how
many batches a step may count follows from what the last ones cost. Records are all read when their queue has been
found empty, or when as many have been read as could be waiting after their first step: a flood of records does
not hold up the count. A side-band record of a fork is written just after its FORK is sent: the last FORKs may have
to wait a moment for theirs. While events are counted, records are read on, so that their queue does not overflow.

What events mean is known only after a scan of /proc. While one runs, they are read and kept:

             read events                       all records are read
    HOLDING ---------------> READING_WHILE_HELD -----------------------> HOLDING

    hold()      IDLE -> HOLDING
    release()   HOLDING -> IDLE     READING_WHILE_HELD -> READING_RECORDS

When too much is kept, neither events nor records are read. They stay in the kernel's queues, which overflow in the
end, and that loss is counted.

Completeness. The pipeline can settle what it has read in /proc only when no event that is older than the reading
is still to come. So each count says up to which moment all events have been read. If a pass empties the queue of
events, that is the moment at which the pass began. Under a flood the queue is never empty. Then it is the moment
of an earlier look at the queue, once as many events have been read as could be waiting at that look.

Source: do_exit() in kernel/exit.c calls taskstats_exit() before proc_exit_connector().
"""

from collections.abc import Callable
from enum import Enum, auto

from exporter.live.order import DrainOrder
from exporter.live.sources import Source, Taken
from exporter.processes.pipeline import Pipeline
from exporter.tallies.histograms import DRAIN_NS, new_histogram, observe

# While events are held back, no more than this, and no more records either: a flood then overflows the receive
# buffers, where loss is counted.
_MOST_BYTES_HELD = 8 << 20
# CPU time of one count. As many batches as a step reads take about as much, if names are few.
_COUNT_NS = 10_000_000
# Less than that, about 430 events, does not take as long whatever they are: not worth two looks at the clock.
_SHORT_COUNT_BYTES = 32 << 10
# Each count has a part that does not depend on its batches, such as looks into /proc: fewer only repeat that.
_LEAST_BATCHES = 4
# From a FORK to its side-band record it is microseconds, and half a millisecond if 2,000 programs listen. A thread
# that loses its CPU in between, on a machine that is itself a guest, say, is waited for no longer than this.
_FORK_RECORD_WITHIN_NS = 5_000_000
# After a wait in vain: records are lost, and a wait for each would hold up the count.
_NO_WAIT_FOR_NS = 1_000_000_000


class State(Enum):
    """Where a drain stands between two steps; the module's docstring draws how one follows from another."""

    IDLE = auto()
    """All that was read is counted."""
    READING_RECORDS = auto()
    """Events have been read, and not yet all records that were there by then."""
    COUNTING = auto()
    """The records have been read; some of the events are still to be counted."""
    HOLDING = auto()
    """As IDLE, during a scan of /proc: all that was read is kept."""
    READING_WHILE_HELD = auto()
    """As READING_RECORDS, during a scan of /proc."""


_RELEASED = {State.HOLDING: State.IDLE, State.READING_WHILE_HELD: State.READING_RECORDS}


class _Progress:
    """How far a source has been read.

    Attributes:
        read: How many messages so far.
        goal: How many it will be when all that waited at the last aim() has been read.
        has_goal: Of a follower: the goal is of this pass.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self.read = 0
        self.goal = 0
        self.has_goal = False

    @property
    def batches_per_step(self) -> int:
        """How many batches one step reads at most."""
        return self._source.batches_per_step

    def take(self) -> Taken:
        """Read one step."""
        taken = self._source.read()
        self.read += taken.messages
        return taken

    def with_waiting(self) -> int:
        """Return how many messages will have been read when all that waits now has been."""
        return self.read + self._source.most_waiting()

    def aim(self, *, emptied: bool = False) -> None:
        """Set the goal; where the last read emptied the queue it is reached."""
        self.goal = self.read if emptied else self.with_waiting()
        self.has_goal = True


class _Completeness:
    """Up to when all events have been read.

    Attributes:
        until_ns: That moment (CLOCK_MONOTONIC); 0 before the first.
    """

    def __init__(self, events: _Progress, now_ns: Callable[[], int]) -> None:
        self._events = events
        self._now_ns = now_ns
        self._looked_ns = 0
        self.until_ns = 0

    def advance(self, began_ns: int, *, emptied: bool) -> None:
        """Take note of a read.

        Args:
            began_ns: When its step began.
            emptied: It left nothing in the queue.
        """
        if emptied:
            self.until_ns = began_ns
        elif self._events.read >= self._events.goal:
            # A flood: the queue is never empty, but what waited in it at the last look has been read.
            self.until_ns = max(self.until_ns, self._looked_ns)
            self._looked_ns = self._now_ns()
            self._events.aim()


class _LateForkRecords:
    """Decides whether to wait for the side-band records of the last FORKs.

    Args:
        pipeline: Has the FORKs and the records.

    Attributes:
        waits: The drain waits for one.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._waits_again_ns = 0
        self.waits = False

    def are_due(self, now_ns: int) -> bool:
        """Return whether a FORK of just now (CLOCK_MONOTONIC) has no record yet."""
        if now_ns < self._waits_again_ns:
            return False
        waited = self.waits
        self.waits = self._pipeline.lacks_fork_record(now_ns - _FORK_RECORD_WITHIN_NS)
        if waited and not self.waits and self._pipeline.lacks_fork_record(now_ns - 2 * _FORK_RECORD_WITHIN_NS):
            self._waits_again_ns = now_ns + _NO_WAIT_FOR_NS
        return self.waits


class Drain:
    """Reads and counts, step by step. Has no timer and waits for nothing.

    Args:
        order: The sources.
        pipeline: Counts.
        now_ns: CLOCK_MONOTONIC.
        spent_ns: CPU time of this thread.

    Attributes:
        state: Where it stands. In the beginning it holds: nothing is known of the processes yet.
        events_found: How many events the last pass has read.
        drain_ns: How long steps took.
    """

    def __init__(
        self,
        order: DrainOrder,
        pipeline: Pipeline,
        now_ns: Callable[[], int],
        spent_ns: Callable[[], int],
    ) -> None:
        self._hints = order.hints
        self._events = _Progress(order.events)
        self._placing = order.placing
        pipeline.between = None if order.placing is None else order.placing.follow_sessions
        self._oom = order.oom
        self._followers = [_Progress(source) for source in order.followers]
        # It counts at most as many batches as it reads in a step.
        self._batches_per_count = order.events.batches_per_step
        self._pipeline = pipeline
        self._now_ns = now_ns
        self._spent_ns = spent_ns
        self._completeness = _Completeness(self._events, now_ns)
        self._late_fork_records = _LateForkRecords(pipeline)
        self._more_events = False
        self.state = State.HOLDING
        self.events_found = 0
        self.drain_ns = new_histogram(DRAIN_NS)

    @property
    def awaits_record(self) -> bool:
        """Nothing is left to do until a thread that forks has written its record: it may need this CPU for it."""
        return self._late_fork_records.waits

    @property
    def is_halfway(self) -> bool:
        """A pass is under way: what it has read of the events is not counted yet, or kept."""
        return self.state is not State.IDLE and self.state is not State.HOLDING

    def step(self) -> bool:
        """Take one step of a pass, or begin one.

        Returns:
            Whether it has to go on, or more may be waiting.
        """
        began_ns = self._now_ns()
        self.read_hints()
        if not self.is_halfway:
            self._begin_pass(began_ns)
            self._follow_sessions()
        if self._read_followers(began_ns):
            self.state = State.READING_WHILE_HELD if self._is_held else State.READING_RECORDS
        elif self._is_held:
            self.state = State.HOLDING
        else:
            self.state = State.COUNTING if self._count() else State.IDLE
        observe(self.drain_ns, DRAIN_NS, self._now_ns() - began_ns)
        return self.is_halfway or self._more_events

    def read_hints(self) -> None:
        """Read what helps to find names, while the processes live."""
        for source in self._hints:
            source.read()

    def _follow_sessions(self) -> None:
        if self._placing is not None:
            self._placing.follow_sessions()

    def hold(self) -> None:
        """Keep from now on what is read: a scan of /proc begins.

        Raises:
            RuntimeError: A pass is under way.
        """
        if self.is_halfway:
            raise RuntimeError("a drain that is halfway cannot hold its events back")
        self.state = State.HOLDING

    def release(self) -> None:
        """Count from now on what is read and what was kept: the scan is over."""
        self.state = _RELEASED.get(self.state, self.state)

    def goal(self) -> int:
        """Return what has_reached() takes: all that waits now."""
        return self._events.with_waiting()

    def has_reached(self, goal: int) -> bool:
        """Return whether all that waited when goal() was called is counted, or kept."""
        return not self.is_halfway and self._events.read >= goal

    @property
    def _is_held(self) -> bool:
        return self.state is State.HOLDING or self.state is State.READING_WHILE_HELD

    def _holds_enough(self) -> bool:
        return self._is_held and self._pipeline.held_bytes > _MOST_BYTES_HELD

    def _begin_pass(self, began_ns: int) -> None:
        """Read events. The first read of a follower finds out how many records can belong to them."""
        self.events_found = 0
        self._more_events = False
        if not self._holds_enough():
            self.events_found, self._more_events = self._events.take()
            self._completeness.advance(began_ns, emptied=not self._more_events)
        for follower in self._followers:
            follower.has_goal = False

    def _read_followers(self, now_ns: int) -> bool:
        """Read records; returns whether some that the events need can be left, or are about to be written."""
        if self._holds_enough():
            return False
        are_left = False
        for follower in self._followers:
            is_full = follower.take().is_full
            if not follower.has_goal:
                # What waited when the events had been read was just read, or waits still.
                follower.aim(emptied=not is_full)
            are_left |= is_full and follower.read < follower.goal
        return are_left or (not self._is_held and self._late_fork_records.are_due(now_ns))

    def _count(self) -> bool:
        """Count events; returns whether some are left."""
        is_short = self._pipeline.held_bytes < _SHORT_COUNT_BYTES
        began_ns = 0 if is_short else self._spent_ns()
        are_left = self._pipeline.apply(self._completeness.until_ns, most_batches=self._batches_per_count)
        if not is_short:
            self._pace(self._spent_ns() - began_ns, is_full=are_left)
        if self._placing is not None:
            self._placing.follow_sessions()
            self._placing.answer()
        if self._oom is not None:
            self._oom.answer(self._completeness.until_ns)
        for source in self._hints:
            # How many of the forks went on to exec is known better now.
            source.narrow()
        return are_left

    def _pace(self, spent_ns: int, *, is_full: bool) -> None:
        """Let the next count take as long as it may, if its batches cost what those of the last one did.

        Args:
            spent_ns: What that took.
            is_full: It counted as many batches as it might; otherwise they could have been more.
        """
        if is_full or spent_ns > _COUNT_NS:
            batches = self._batches_per_count * _COUNT_NS // max(1, spent_ns)
            self._batches_per_count = min(self._events.batches_per_step, max(_LEAST_BATCHES, batches))
