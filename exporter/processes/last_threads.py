"""Exit records of last threads that do not lead their process: each is the end of a process whose leader is gone.

They wait by process, not by thread: a thread that is not the last one leaves no record that is kept, so a pid
alone does not say whose record it is when the pid is used again within one drain.
"""

from collections.abc import Iterator, Sequence

from exporter.kernel.taskstats import LastRecord, Record
from exporter.processes.waiting_records import (
    COUNTED_AGAIN_AFTER_NS,
    MOST_AGED,
    OVERDUE_AFTER_NS,
    RELEASED_WITHIN_NS,
)

# Records of one tgid: each but the last is of a process whose EXIT was lost.
_MOST_OF_ONE = 1 << 8
# Looks at which the time has advanced, until all events before the record have been applied.
_SETTLED_LOOKS = 3


class _Waiting:
    """A record and its age.

    Attributes:
        is_early: It came before the first events.
        looks: How often it was looked at.
        due_since_ns: Since when its EXIT has been due (CLOCK_MONOTONIC); 0: it is not.
    """

    __slots__ = ("due_since_ns", "is_early", "looks", "record")

    def __init__(self, record: LastRecord, *, is_early: bool) -> None:
        self.record = record
        self.looks = 0
        self.due_since_ns = 0
        self.is_early = is_early


class LastThreads:
    """Records by tgid; those of one tgid, which was used again, in the order of their arrival.

    Attributes:
        by_tgid: The records that wait.
        stale: How many were dropped because the EXIT that each waited for cannot come any more.
        overdue: How many have waited so long that their EXIT must be lost.
        missed: How many were dropped because their EXIT did not come; without those from before the first events.
    """

    def __init__(self) -> None:
        self.by_tgid: dict[int, list[_Waiting]] = {}
        self.stale = 0
        self.overdue = 0
        self.missed = 0
        self._now_ns = 0

    def __iter__(self) -> Iterator[LastRecord]:
        for waiting in self.by_tgid.values():
            for each in waiting:
                yield each.record

    def add(self, records: Sequence[LastRecord]) -> None:
        """Take records in."""
        for record in records:
            waiting = self.by_tgid.setdefault(record[-1], [])
            waiting.append(_Waiting(record, is_early=not self._now_ns))
            if len(waiting) > _MOST_OF_ONE:
                self._miss(waiting.pop(0))

    def take(self, tgid: int, pid: int, status: int, start_ns: int) -> Record | None:
        """Take the record of a thread whose EXIT came; None if it is not the last one, or its record was lost.

        Args:
            tgid: Its process's.
            pid: The thread's.
            status: The wait status in the EXIT, which is in the record too.
            start_ns: When the process began; 0 if that is not known.
        """
        for waiting in list(self.by_tgid.get(tgid, ())):
            if waiting.due_since_ns and start_ns - waiting.due_since_ns > RELEASED_WITHIN_NS:
                # Of a process that had the tgid before: it was released, and a moment later its EXIT was due.
                self._remove(tgid, waiting)
                self._miss(waiting)
                self.stale += 1
            elif waiting.record[0] == pid and waiting.record[1] == status:
                self._remove(tgid, waiting)
                return waiting.record[:-1]
        return None

    def holds(self, record: LastRecord) -> bool:
        """Return whether a record waits."""
        return any(each.record is record for each in self.by_tgid.get(record[-1], ()))

    def drop_of(self, pid: int) -> None:
        """Drop the oldest record of a thread, as its EXIT was lost."""
        for tgid, waiting in self.by_tgid.items():
            for each in waiting:
                if each.record[0] == pid:
                    self._remove(tgid, each)
                    self._miss(each)
                    return

    def _remove(self, tgid: int, waiting: _Waiting) -> None:
        left = self.by_tgid[tgid]
        left.remove(waiting)
        if not left:
            del self.by_tgid[tgid]

    def _miss(self, waiting: _Waiting) -> None:
        self.missed += not waiting.is_early

    def age(self, complete_until_ns: int) -> None:
        """Note which records are left when all events up to a time have been applied; see WaitingRecords.age."""
        if complete_until_ns <= self._now_ns:
            return
        self._now_ns = complete_until_ns
        if len(self.by_tgid) > MOST_AGED:
            return
        for waiting in self.by_tgid.values():
            for each in waiting:
                each.looks += 1
                if each.looks < _SETTLED_LOOKS:
                    continue
                if not each.due_since_ns:
                    each.due_since_ns = complete_until_ns
                elif complete_until_ns - each.due_since_ns > OVERDUE_AFTER_NS:
                    self.overdue += 1
                    each.due_since_ns = complete_until_ns + COUNTED_AGAIN_AFTER_NS

    def keep(self, most: int) -> None:
        """Throw away the records of the tgids that have waited longest, beyond so many tgids."""
        while len(self.by_tgid) > most:
            del self.by_tgid[next(iter(self.by_tgid))]

    def clear(self) -> None:
        """Throw all away."""
        self.by_tgid.clear()
