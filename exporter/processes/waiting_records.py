"""Exit records whose EXIT event has not come yet: it can take seconds, as the memory is freed in between."""

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain

from exporter.kernel.taskstats import Record

_MOST_OF_ONE_PID = 1 << 8


class WaitingRecords:
    """Records by pid; those of one pid, which had several owners, in the order of their arrival.

    Attributes:
        oldest: The first record of each pid.
        later: The further ones, of pids that have any.
    """

    def __init__(self) -> None:
        self.oldest: dict[int, Record] = {}
        self.later: dict[int, deque[Record]] = {}
        self._later_records = 0

    def __len__(self) -> int:
        return len(self.oldest) + self._later_records

    def __iter__(self) -> Iterator[Record]:
        yield from self.oldest.values()
        yield from chain.from_iterable(self.later.values())

    def add(self, records: Sequence[Record]) -> None:
        """Take records in."""
        oldest = self.oldest
        arrived = {record[0]: record for record in records}
        if len(arrived) == len(records) and oldest.keys().isdisjoint(arrived):
            oldest.update(arrived)
            return
        for record in records:
            if oldest.setdefault(record[0], record) is not record:
                later = self.later.setdefault(record[0], deque(maxlen=_MOST_OF_ONE_PID))
                self._later_records += len(later) < _MOST_OF_ONE_PID
                later.append(record)

    def of(self, pid: int) -> list[Record]:
        """Return a pid's records in their order."""
        return [self.oldest[pid], *self.later.get(pid, ())] if pid in self.oldest else []

    def places(self, pid: int, status: int) -> list[int]:
        """Return where among a pid's records that of an EXIT can stand, the likeliest first.

        Threads that have a pid one after the other send their EXITs in that order too, unless one is stopped, on
        another CPU, just before it does. The wait status is in both.
        """
        return [at for at, record in enumerate(self.of(pid)) if record[1] == status] or [0]

    def take(self, pid: int, status: int) -> Record | None:
        """Take the record of the thread whose EXIT came."""
        return self.take_at(pid, self.places(pid, status)[0])

    def take_at(self, pid: int, at: int) -> Record | None:
        """Take the record at a place of `places`; the only one if there is but one, None if there is none."""
        later = self.later.get(pid)
        if not later:
            return self.oldest.pop(pid, None)
        self._later_records -= 1
        if at:
            record = later[at - 1]
            del later[at - 1]
        else:
            record = self.oldest.pop(pid)
            self.oldest[pid] = later.popleft()
        if not later:
            del self.later[pid]
        return record

    def forget_successes(self, pid: int) -> None:
        """Throw away a pid's oldest records as long as they are of threads that ended well."""
        while pid in self.oldest and not self.oldest[pid][1]:
            self.take_at(pid, 0)

    def keep(self, most: int) -> None:
        """Throw away the oldest records of the pids that have waited longest, beyond so many records."""
        while len(self) > most:
            self.take_at(next(iter(self.oldest)), 0)

    def clear(self) -> None:
        """Throw all away."""
        self.oldest.clear()
        self.later.clear()
        self._later_records = 0
