"""Exit records whose EXIT event has not come yet: it can take seconds, as the memory is freed in between.

Here are those of leaders, and before taskstats version 12 those of all threads. last_threads.py has the others.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from operator import itemgetter

from exporter.kernel.taskstats import AGROUP, Record

# So many owners of a pid are looked through for the one that sends its EXIT before those that had the pid earlier.
_MOST_OVERTAKEN = 1 << 8
# Each record that waits is looked at in each batch; in an overload many do, whose EXITs have not been read yet.
MOST_AGED = 1 << 12
# From the release of a thread, after which its pid can be used again, to its EXIT.
RELEASED_WITHIN_NS = 1_000_000_000
# To free the memory of a large process takes seconds.
OVERDUE_AFTER_NS = 10_000_000_000
COUNTED_AGAIN_AFTER_NS = 600_000_000_000

_pid_of = itemgetter(0)


def _ignore(_: int) -> None:
    pass


class WaitingRecords:
    """Records by pid; those of one pid, which had several owners, in the order of their arrival.

    Attributes:
        oldest: The first record of each pid.
        later: The further ones, of pids that have any.
        aged: The first records whose process's FORK has been applied, and since when (CLOCK_MONOTONIC): a record
            can be read a batch before its FORK, as records are read after events.
        recalled: Those of `recall` by their pid, whether they wait still or not.
        stale: How many were dropped because the EXIT that each waited for cannot come any more.
        overdue: How many last records of a process have waited so long that their EXIT must be lost.
        missed: How many were dropped, by whatever rule, because their EXIT did not come. Those that were there
            before the first events are not among them: their EXIT was before the subscription. Nor are those of
            leaders that a thread's exec has replaced.
        on_stale: Called with the pid of each that is dropped as stale.
    """

    def __init__(self) -> None:
        self.oldest: dict[int, Record] = {}
        self.later: dict[int, list[Record]] = {}
        self._later_records = 0
        self.aged: dict[int, tuple[Record, int]] = {}
        self.recalled: dict[int, Record] = {}
        # The first records that were left at the last look, and those that were left at the one before too.
        self._seen_once: dict[int, Record] = {}
        self._seen_twice: dict[int, Record] = {}
        self.stale = 0
        self.on_stale: Callable[[int], None] = _ignore
        self.overdue = 0
        self.missed = 0
        self._early: dict[int, Record] = {}
        self._now_ns = 0

    def __len__(self) -> int:
        return len(self.oldest) + self._later_records

    def __iter__(self) -> Iterator[Record]:
        yield from self.oldest.values()
        yield from chain.from_iterable(self.later.values())

    def add(self, records: Sequence[Record]) -> None:
        """Take records in."""
        oldest = self.oldest
        if not self._now_ns:
            self._early.update((record[0], record) for record in records)
        if oldest.keys().isdisjoint(map(_pid_of, records)):
            before = len(oldest)
            oldest.update(zip(map(_pid_of, records), records, strict=True))
            if len(oldest) == before + len(records):
                return
            for record in records:
                oldest.pop(record[0], None)
        for record in records:
            self._drop_if_stale(record[0])
            if oldest.setdefault(record[0], record) is not record:
                self.later.setdefault(record[0], []).append(record)
                self._later_records += 1

    def _drop_if_stale(self, pid: int) -> None:
        """Drop the record of a pid that has another one now.

        The pid was used again, so the thread before was released. It sends its EXIT a moment after that: if it has
        not, its EXIT is lost, and the next thread must not take its record.
        """
        if self.is_stale(pid, self._now_ns):
            self.drop_stale(pid)

    def drop_stale(self, pid: int) -> None:
        """Drop the record of a pid that has waited longest: its EXIT cannot come any more."""
        self.drop_oldest(pid)
        self.aged.pop(pid, None)
        self.stale += 1
        self.on_stale(pid)

    def drop_oldest(self, pid: int) -> None:
        """Drop the record of a pid that has waited longest, as its EXIT was lost."""
        record = self.take_at(pid, 0)
        self.missed += record is not None and self._early.get(pid) is not record

    def age(self, complete_until_ns: int) -> None:
        """Note which records are left when all events up to a time have been applied.

        In a flood events are applied seconds after a record was read that was sent after them. The time is that of
        an earlier look at the queue. So it has to advance twice until it is later than the record.
        """
        if complete_until_ns <= self._now_ns:
            return
        self._now_ns = complete_until_ns
        if self._early:
            self._early = {pid: record for pid, record in self._early.items() if self.oldest.get(pid) is record}
        if not self.oldest or len(self.oldest) > MOST_AGED:
            # None is left, or it is an overload: so many wait that their EXITs have not been read yet.
            self.aged, self._seen_once, self._seen_twice = {}, {}, {}
            return
        aged = {
            pid: (record, self._since(record, self.aged[pid][1], complete_until_ns))
            for pid, record in self._left_of({pid: record for pid, (record, _) in self.aged.items()})
        }
        aged |= {pid: (record, complete_until_ns) for pid, record in self._left_of(self._seen_twice)}
        self._seen_twice = dict(self._left_of(self._seen_once))
        # In a storm many are left, and nearly all of them are gone the next time.
        self._seen_once = self.oldest.copy()
        for pid in chain(aged, self._seen_twice):
            del self._seen_once[pid]
        self.aged = aged

    def _left_of(self, seen: dict[int, Record]) -> list[tuple[int, Record]]:
        """Return those of the records that still wait."""
        oldest = self.oldest
        return [(pid, oldest[pid]) for pid in seen.keys() & oldest.keys() if oldest[pid] is seen[pid]]

    def _since(self, record: Record, since_ns: int, complete_until_ns: int) -> int:
        """Count a last record of a process that waits too long: a comparison finds out whether it still exits."""
        if complete_until_ns - since_ns > OVERDUE_AFTER_NS and record[2] & AGROUP:
            self.overdue += 1
            return complete_until_ns + COUNTED_AGAIN_AFTER_NS
        return since_ns

    def is_stale(self, pid: int, timestamp_ns: int) -> bool:
        """Return whether the record of a pid is that of a thread before the one that was forked then."""
        aged = self.aged.get(pid)
        if aged is None or self.oldest.get(pid) is not aged[0]:
            return False
        return timestamp_ns - aged[1] > RELEASED_WITHIN_NS

    def of(self, pid: int) -> list[Record]:
        """Return a pid's records in their order."""
        return [self.oldest[pid], *self.later.get(pid, ())] if pid in self.oldest else []

    def places(self, pid: int, status: int) -> list[int]:
        """Return where among a pid's records that of an EXIT can stand, the likeliest first.

        Threads that have a pid one after the other send their EXITs in that order too, unless one is stopped, on
        another CPU, just before it does. The wait status is in both: a record that has another one is not the
        thread's, whose own was lost.
        """
        if pid not in self.oldest:
            return []
        records = chain((self.oldest[pid],), islice(self.later.get(pid, ()), _MOST_OVERTAKEN))
        return [at for at, record in enumerate(records) if record[1] == status]

    def take(self, pid: int, status: int) -> Record | None:
        """Take the record of the thread whose EXIT came; None if it is not here."""
        oldest = self.oldest.get(pid)
        if oldest is None or oldest[1] == status:
            return self.take_at(pid, 0)
        places = self.places(pid, status)
        return self.take_at(pid, places[0]) if places else None

    def take_of_thread(self, pid: int, status: int) -> Record | None:
        """As take, of a thread that is not a leader before version 12: its record has no wait status."""
        places = self.places(pid, status) or self.places(pid, 0)
        return self.take_at(pid, places[0]) if places else None

    def recall(self, record: Record) -> None:
        """Take in a record of a thread of which it is not known whether it is a leader: from an old capture."""
        self.add([record])
        self.recalled[record[0]] = record

    def take_recalled(self, pid: int) -> Record | None:
        """Take the record of a thread whose EXIT came, if it is one that was recalled."""
        record = self.recalled.pop(pid, None)
        return self.take_at(pid, 0) if record is not None and self.oldest.get(pid) is record else None

    def put_back(self, record: Record) -> None:
        """Let the oldest record of a pid, which was taken out, wait on."""
        self.oldest[record[0]] = record

    def take_at(self, pid: int, at: int | None) -> Record | None:
        """Take the record at a place of `places`; None if there is none."""
        if at is None:
            return None
        later = self.later.get(pid)
        if not later:
            return self.oldest.pop(pid, None)
        self._later_records -= 1
        if at:
            record = later[at - 1]
            del later[at - 1]
        else:
            record = self.oldest.pop(pid)
            self.oldest[pid] = later.pop(0)
        if not later:
            del self.later[pid]
        return record

    def forget_successes(self, pid: int) -> None:
        """Throw away a pid's oldest records as long as they are of threads that ended well."""
        while pid in self.oldest and not self.oldest[pid][1]:
            self.take_at(pid, 0)

    def keep(self, most: int) -> None:
        """Throw away the oldest records of the pids that have waited longest, beyond so many records."""
        while (excess := len(self) - most) > 0:
            # All at once: in front of a dict from which much was taken stand the gaps, and each look passes them.
            for pid in list(islice(self.oldest, excess)):
                self.take_at(pid, 0)

    def clear(self) -> None:
        """Throw all away."""
        self.oldest.clear()
        self.later.clear()
        self.aged.clear()
        self._later_records = 0
