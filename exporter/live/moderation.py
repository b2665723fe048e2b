"""When to drain the sockets: at once while the host is quiet, in batches while it is busy.

A wake-up for one event costs more than counting a hundred events, and costs the forking process too. So there is a
budget of wake-ups, filled slowly: the first events after a rest are handled at once, so that /proc is read while
the processes live. When the budget is used up, the socket is taken out of the event loop and drained by a timer
(interrupt moderation): the fewer events there are, the later. The pause is bounded by how fast the receive buffer
could fill: by the highest rate of events that the CPUs could make, and by how full it was found.

A drain has a cost of its own, a tenth of a millisecond and more: the CPU's caches are cold. An event among 2,000
costs a fifth less than one among 500. But what a process is called, or where it is, may have to be read in /proc,
after the drain that finds the event and before the next exec or the end. Then a drain is to find fewer.

Where a process is needs no drain if it begins a session (sessions.py), but for the few that are gone before that
is known. One that was moved without a session is found at the drain after its exec, if it lives then. From the
first process on of which that was missed a drain is to find fewer, for as long as others follow.
"""

from typing import NamedTuple

_WAKE_UPS = 30
_WAKE_UPS_PER_SECOND = 4

_SHORTEST_PAUSE_SECONDS = 0.001
PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 0.5


class EventsPerDrain(NamedTuple):
    """How many events a drain is to find."""

    few: int
    """After a drain that found fewer the pause may be longer."""
    many: int
    """After a drain that found more it is PAUSE_SECONDS at most."""


SOME_IS_READ = EventsPerDrain(200, 2000)
"""Where something about processes is read in /proc after a drain."""
ALL_IS_SENT = EventsPerDrain(2000, 4000)
"""Where the kernel sends all that is to be known. One step of a drain counts 4,096."""


def events_per_drain(*, has_rings: bool, has_records: bool, oom_by_number: bool) -> EventsPerDrain:
    """Return how many events a drain is to find.

    Args:
        has_rings: Side-band records come, which name each exec.
        has_records: Exit records come, which name each end, that of a child of a thread too, which no other record
            names.
        oom_by_number: Which ends are OOM kills is decided among all that ended between two drains.
    """
    return ALL_IS_SENT if has_rings and has_records and not oom_by_number else SOME_IS_READ


# A CPU that does nothing but fork and exit makes about 25,000 events in a second; twice that leaves room for the
# exporter to be late.
_EVENTS_PER_CPU_SECOND = 50_000
_NS_PER_SECOND = 1_000_000_000
# After a process whose group was missed others are expected for so long.
_MISSED_AGAIN_WITHIN_NS = 3600 * _NS_PER_SECOND


class Moderation:
    """Decides after each drain how to wait for the next.

    Args:
        buffer_events: How many events the kernel can queue.
        cpus: How many CPUs can make events at the same time.
        events: How many events a drain is to find.
    """

    def __init__(self, buffer_events: int, cpus: int, events: EventsPerDrain) -> None:
        self._events = events
        seconds_to_fill = buffer_events / (_EVENTS_PER_CPU_SECOND * cpus)
        self._bound = max(_SHORTEST_PAUSE_SECONDS, seconds_to_fill)
        self._pause = 0.0
        self._wake_ups = float(_WAKE_UPS)
        self._filled_ns: int | None = None
        self._missed = 0
        self._missed_until_ns: int | None = None

    def look_at_missed(self, missed: int, now_ns: int) -> None:
        """Keep pauses short for an hour if a sooner drain might have found where another process was.

        Args:
            missed: How many such processes there were so far.
            now_ns: Any monotonic clock.
        """
        if missed != self._missed:
            self._missed = missed
            self._missed_until_ns = now_ns + _MISSED_AGAIN_WITHIN_NS
            self._pause = min(self._pause, PAUSE_SECONDS)
        elif self._missed_until_ns is not None and now_ns > self._missed_until_ns:
            self._missed_until_ns = None

    def pause(self, events: int, fill: float, now_ns: int) -> float:
        """Return how long to sleep before the next drain, in seconds; 0 to wait for the next event instead.

        Args:
            events: How many events the last drain found.
            fill: How full the fullest receive buffer was before that drain, from 0 to 1.
            now_ns: Any monotonic clock.
        """
        rested_ns = 0 if self._filled_ns is None else now_ns - self._filled_ns
        self._filled_ns = now_ns
        self._wake_ups = min(_WAKE_UPS, self._wake_ups + rested_ns * _WAKE_UPS_PER_SECOND / _NS_PER_SECOND)
        if not self._pause:
            self._wake_ups -= 1
            if self._wake_ups < 0:
                self._pause = PAUSE_SECONDS
        elif events == 0:
            self._pause = 0.0
        elif fill > 0.25:
            self._pause = max(_SHORTEST_PAUSE_SECONDS, self._pause / 2)
        elif fill < 0.1:
            self._pause = min(self._longest(events), self._pause * 2)
        self._pause = min(self._bound, self._pause)
        return self._pause

    def _longest(self, events: int) -> float:
        few, many = self._events if self._missed_until_ns is None else SOME_IS_READ
        if events < few:
            return LONGEST_PAUSE_SECONDS
        return PAUSE_SECONDS if events > many else max(PAUSE_SECONDS, self._pause)
