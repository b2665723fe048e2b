"""What the kernel dropped because a queue was full, and how full the queues are.

Source: netlink(7), SO_MEMINFO: its count of drops is exact, and does not have what a filter left out.
"""

from collections.abc import Callable, Sequence

from exporter.kernel.recvmmsg import Meminfo
from exporter.live.sources import Source
from exporter.processes.pipeline import Pipeline


class Losses:
    """Looks at the sources, and counts in the pipeline what was lost.

    Args:
        sources: Those whose losses are counted.
        pipeline: Gets each loss.
        now_ns: CLOCK_MONOTONIC.
    """

    def __init__(self, sources: Sequence[Source], pipeline: Pipeline, now_ns: Callable[[], int]) -> None:
        self._sources = sources
        self._pipeline = pipeline
        self._now_ns = now_ns
        self._unsettling = [source.name for source in sources if source.loss_unsettles]

    def count(self) -> None:
        """Ask how full the sources are, and count what they lost since the last look."""
        for source in self._sources:
            source.look()
        for source in self._sources:
            lost = source.lost - self._pipeline.lost[source.name]
            if lost:
                self._pipeline.lose(source.name, lost, self._now_ns())

    def unsettling(self) -> int:
        """Return how many messages are counted as lost of which one can have made the table wrong."""
        lost = 0
        for name in self._unsettling:
            lost += self._pipeline.lost[name]
        return lost

    def buffers(self) -> dict[str, Meminfo]:
        """Return how full each source was at the last look, by name."""
        return {source.name: source.fill for source in self._sources}

    def fullest(self) -> float:
        """Return how full the fullest source was at the last look, from 0 to 1."""
        fullest = 0.0
        for source in self._sources:
            fill = source.fill
            fullest = max(fullest, fill.used_bytes / fill.limit_bytes)
        return fullest

    def holds_events(self) -> int:
        """Return how many events can be queued without a loss."""
        return min(source.holds_events for source in self._sources)
