"""The last failure of each series, as exemplars."""

from collections.abc import Callable, Iterable

from exporter.exposition.exemplars import Exemplar, ExemplarKey, Exemplars
from exporter.processes.bad_ends import Failure
from exporter.stream.wall_clock import WallClock

_MOST_SERIES = 1000


class Latest:
    """Keeps the last failure of each comm, uid, group and status, of many series those that failed last.

    Args:
        clock: Returns the clock of the host where they happen.
    """

    def __init__(self, clock: Callable[[], WallClock]) -> None:
        self._clock = clock
        # The one that failed last stands last. The time of day is noted with it: the clock can be set meanwhile.
        self._latest: dict[ExemplarKey, tuple[int, Exemplar]] = {}

    def take(self, failures: Iterable[Failure]) -> None:
        """Keep failures that are newer than what is known of their series."""
        clock = self._clock()
        for failure in failures:
            group = tuple(value for _, value in failure.group)
            key = failure.comm, failure.uid, group, failure.status
            if key in self._latest:
                if self._latest[key][0] >= failure.time_ns:
                    continue
                del self._latest[key]
            elif len(self._latest) >= _MOST_SERIES:
                del self._latest[next(iter(self._latest))]
            exemplar = Exemplar(failure.pid, failure.ppid, clock.seconds(failure.time_ns))
            self._latest[key] = failure.time_ns, exemplar

    def exemplars(self) -> Exemplars:
        """Return a copy."""
        return {key: exemplar for key, (_, exemplar) in self._latest.items()}
