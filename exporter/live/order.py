"""Which sources a drain reads, and in which order; drain.py says why the order matters."""

from collections.abc import Callable
from typing import NamedTuple

from exporter.live.oom_sources import OomKillReader
from exporter.live.open_sources import Sources
from exporter.live.placements import Placements
from exporter.live.placing import NO_NAMES, Names, Placing
from exporter.live.ring_source import RingSource
from exporter.live.sessions import Sessions
from exporter.live.sources import EarlySource, HintSource, SocketSource, Source
from exporter.processes.pipeline import Pipeline

# One step of a drain reads so many batches of each source, about ten milliseconds' worth.
_EVENT_BATCHES_PER_STEP = 16
_RECORD_BATCHES_PER_STEP = 16
_NAME_BATCHES_PER_STEP = 4


class PlacingSources(NamedTuple):
    """What says where processes are."""

    placements: Placements
    names: Names = NO_NAMES
    drain_soon: Callable[[], object] = bool
    """Has the main socket drained at once."""


class DrainOrder(NamedTuple):
    """All that is read, in the order of a drain."""

    hints: tuple[EarlySource, ...]
    """Read first, at every step and whenever something comes."""
    events: Source
    """Its messages say what happens. They are counted when those of the followers have been read."""
    followers: tuple[Source, ...]
    """The kernel queues their messages before the event that needs them."""
    placing: Placing | None = None
    """Answers after each count where processes are; None where groups are not asked for."""
    oom: OomKillReader | None = None
    """Reads after each count which processes the OOM killer chose; None if that is not to be known."""

    @property
    def counted(self) -> tuple[Source, ...]:
        """The sources whose fill and losses are looked at."""
        return (self.events, *self.followers)


def drain_order(
    opened: Sources,
    pipeline: Pipeline,
    now_ns: Callable[[], int],
    places: PlacingSources | None = None,
    oom: OomKillReader | None = None,
) -> DrainOrder:
    """Return the sources of what is open.

    Args:
        opened: The sockets and rings.
        pipeline: Gets what is read.
        now_ns: CLOCK_MONOTONIC.
        places: What says where processes are; None where groups are not asked for.
        oom: Reads which processes the OOM killer chose.
    """
    hints: list[EarlySource] = []
    if opened.names is not None:
        hints.append(HintSource(opened.names, pipeline, batches_per_step=_NAME_BATCHES_PER_STEP))
    placing = None
    if places is not None:
        sessions = None
        if opened.sessions is not None:
            sessions = Sessions(
                opened.sessions,
                places.placements,
                now_ns,
                rereads=not places.placements.has_ids,
                drain_soon=places.drain_soon,
            )
            hints.append(sessions)
        placing = Placing(pipeline, places.placements, sessions, now_ns, places.names)
    events = SocketSource(
        "connector", opened.connector, pipeline.take_events, batches_per_step=_EVENT_BATCHES_PER_STEP
    )
    followers: list[Source] = []
    if opened.taskstats is not None:
        followers.append(
            SocketSource(
                "taskstats", opened.taskstats, pipeline.take_records, batches_per_step=_RECORD_BATCHES_PER_STEP
            )
        )
    if opened.rings is not None:
        followers.append(RingSource(opened.rings, pipeline, now_ns))
    return DrainOrder(tuple(hints), events, tuple(followers), placing, oom)
