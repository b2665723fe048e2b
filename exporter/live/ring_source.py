"""The rings of side-band records as a source of the drain."""

import logging
from collections.abc import Callable

from exporter.kernel.perf_rings import PerfRings
from exporter.kernel.recvmmsg import Meminfo
from exporter.live.sources import Taken
from exporter.processes.pipeline import Pipeline

_LOG = logging.getLogger(__name__)

# Of side-band records for an event: a fork, an exec and an exit have one each, of 40 bytes at most.
_RING_BYTES_PER_EVENT = 40
_COVER_EVERY_NS = 5_000_000_000


class RingSource:
    """The rings of side-band records.

    Args:
        rings: Open; closed by their owner.
        pipeline: Gets what is read. It finds in the records how many were lost.
        now_ns: CLOCK_MONOTONIC.

    Attributes:
        fill: How full the fullest ring was at the last look.
    """

    name = "sideband"
    batches_per_step = 1
    malformed = 0
    # What is lost are names, which are then looked for as if there were no rings.
    loss_unsettles = False

    def __init__(self, rings: PerfRings, pipeline: Pipeline, now_ns: Callable[[], int]) -> None:
        self._rings = rings
        self._pipeline = pipeline
        self._now_ns = now_ns
        self._covered_ns = now_ns()
        self._uncovered: frozenset[int] = frozenset()
        self.fill = self._meminfo()

    @property
    def lost(self) -> int:
        """How many records the kernel had dropped, as far as they have been read."""
        return self._pipeline.lost[self.name]

    @property
    def holds_events(self) -> int:
        """How many events' records the rings can hold, if all CPUs make them."""
        return self.fill.limit_bytes // _RING_BYTES_PER_EVENT * len(self._rings.cpus)

    def read(self) -> Taken:
        """Hand over to the pipeline all that waits."""
        copies = self._rings.read()
        for copy in copies:
            self._pipeline.take_sideband(copy)
        return Taken(len(copies), False)

    def look(self) -> None:
        """Look how full the rings are, and now and then whether CPUs have come."""
        self.fill = self._meminfo()
        if self._now_ns() - self._covered_ns > _COVER_EVERY_NS:
            self._covered_ns = self._now_ns()
            uncovered = self._rings.cover()
            if uncovered - self._uncovered:
                _LOG.warning(
                    "no side-band records from CPUs that came online, names of execs there may be unknown",
                    extra={"cpus": ",".join(map(str, sorted(uncovered)))},
                )
            self._uncovered = uncovered

    def most_waiting(self) -> int:
        """Return 0: a read leaves nothing that was there."""
        return 0

    def _meminfo(self) -> Meminfo:
        state = self._rings.state()
        return Meminfo(state.used_bytes, state.limit_bytes, 0)
