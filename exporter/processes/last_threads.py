"""Exit records of last threads that do not lead their process: each is the end of a process whose leader is gone.

They wait by process, not by thread: a thread that is not the last one leaves no record that is kept, so a pid
alone does not say whose record it is when the pid is used again within one drain.
"""

from collections.abc import Iterator, Sequence
from itertools import islice

from exporter.kernel.cn_proc import ProcEvent
from exporter.kernel.taskstats import LastRecord, Record
from exporter.processes.process import Process
from exporter.processes.waiting_records import (
    COUNTED_AGAIN_AFTER_NS,
    MOST_AGED,
    OVERDUE_AFTER_NS,
    RELEASED_WITHIN_NS,
)

# Records of one tgid: each but the last is of a process whose EXIT was lost.
_MOST_OF_ONE = 8
# Looks at which the time has advanced, until all events before the record have been applied.
_SETTLED_LOOKS = 3
# A record is older than its EXIT. The process's time begins a moment before its FORK is sent.
_FORK_SENT_WITHIN_NS = 1_000_000_000
# So much later than an EXIT no record was written that has been read when the EXIT is applied, in a flood too.
_READ_AHEAD_NS = 10_000_000_000


class _Waiting:
    """A record and its age.

    Attributes:
        is_early: It came before the first events.
        looks: How often it was looked at.
        due_since_ns: Since when its EXIT has been due (CLOCK_MONOTONIC); 0: it is not.
        overdue_from_ns: When it is overdue, for the first time or again.
    """

    __slots__ = ("due_since_ns", "is_early", "looks", "overdue_from_ns", "record")

    def __init__(self, record: LastRecord, *, is_early: bool) -> None:
        self.record = record
        self.looks = 0
        self.due_since_ns = 0
        self.overdue_from_ns = 0
        self.is_early = is_early

    def is_stale(self, now_ns: int) -> bool:
        """Return whether the process was released so long ago that the EXIT must have come."""
        return bool(self.due_since_ns) and now_ns - self.due_since_ns > RELEASED_WITHIN_NS

    def is_before(self, start_ns: int) -> bool:
        """Return whether it is known to be of an earlier process than the one that began then."""
        return 0 < self.due_since_ns < start_ns

    def is_of(self, event: ProcEvent, start_ns: int) -> bool:
        """Return whether a record can be that of an EXIT.

        Args:
            event: The EXIT.
            start_ns: When its process began; 0 if that is not known.
        """
        _, timestamp_ns, pid, _, status, *_ = event
        if (self.record[0], self.record[1]) != (pid, status):
            return False
        return not start_ns or start_ns + 1000 * self.record[6] <= timestamp_ns + _FORK_SENT_WITHIN_NS


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
        self._count = 0
        self._now_ns = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[LastRecord]:
        for waiting in self.by_tgid.values():
            for each in waiting:
                yield each.record

    def add(self, records: Sequence[LastRecord]) -> None:
        """Take records in."""
        for record in records:
            tgid = record[-1]
            self._drop_stale(tgid, self._now_ns)
            waiting = self.by_tgid.setdefault(tgid, [])
            waiting.append(_Waiting(record, is_early=not self._now_ns))
            self._count += 1
            if len(waiting) > _MOST_OF_ONE:
                self._miss(tgid, waiting[0])

    def place(self, tgid: int, pid: int, status: int) -> int | None:
        """Return where among the records of a tgid that of an EXIT stands; None if it has none."""
        waiting = self.by_tgid.get(tgid, ())
        return next((at for at, each in enumerate(waiting) if each.record[:2] == (pid, status)), None)

    def take_of_stranger(self, event: ProcEvent) -> Record | None:
        """Take the record of a thread whose process is not known, because it is older than the subscription, say.

        It may as well have been stopped before its EXIT until its process had ended. Then a record that fits is of
        the next process with the tgid, which began after the EXIT.
        """
        _, timestamp_ns, _, tgid, *_ = event
        for each in self.by_tgid.get(tgid, ())[:1]:
            began_before = 1000 * each.record[6] > max(0, self._now_ns - timestamp_ns) + _READ_AHEAD_NS
            if began_before and each.is_of(event, 0):
                self._remove(tgid, each)
                return each.record[:-1]
        return None

    def take(self, event: ProcEvent, owner: Process | None, *, is_only_owner: bool) -> Record | None:
        """Take the record of a thread whose EXIT came; None if it is not the last one, or its record was lost.

        Args:
            event: The EXIT.
            owner: Its process; None if no processes are kept.
            is_only_owner: No other process that had the tgid can send EXITs yet.
        """
        tgid, start_ns = event[3], 0 if owner is None else owner.start_ns
        if start_ns:
            self._drop_stale(tgid, start_ns)
        waiting = [each for each in self.by_tgid.get(tgid, ()) if not each.is_before(start_ns)]
        # The end of a process has one record, and those of a tgid are in their order: a later one is not its own.
        for each in waiting[: 1 if is_only_owner else None]:
            if each.is_of(event, start_ns):
                self._remove(tgid, each)
                return each.record[:-1]
        return None

    def _drop_stale(self, tgid: int, now_ns: int) -> None:
        for waiting in list(self.by_tgid.get(tgid, ())):
            if waiting.is_stale(now_ns):
                self._miss(tgid, waiting)
                self.stale += 1

    def holds(self, record: LastRecord) -> bool:
        """Return whether a record waits."""
        return any(each.record is record for each in self.by_tgid.get(record[-1], ()))

    def drop(self, tgid: int, pid: int) -> None:
        """Drop the oldest record of a thread, as its EXIT was lost."""
        for each in self.by_tgid.get(tgid, ()):
            if each.record[0] == pid:
                self._miss(tgid, each)
                return

    def _miss(self, tgid: int, waiting: _Waiting) -> None:
        self._remove(tgid, waiting)
        self.missed += not waiting.is_early

    def _remove(self, tgid: int, waiting: _Waiting) -> None:
        left = self.by_tgid[tgid]
        left.remove(waiting)
        self._count -= 1
        if not left:
            del self.by_tgid[tgid]

    def age(self, complete_until_ns: int) -> None:
        """Note which records are left when all events up to a time have been applied; see WaitingRecords.age."""
        if complete_until_ns <= self._now_ns:
            return
        self._now_ns = complete_until_ns
        if self._count > MOST_AGED:
            return
        for waiting in self.by_tgid.values():
            for each in waiting:
                each.looks += 1
                if each.looks < _SETTLED_LOOKS:
                    continue
                if not each.due_since_ns:
                    each.due_since_ns = complete_until_ns
                    each.overdue_from_ns = complete_until_ns + OVERDUE_AFTER_NS
                elif complete_until_ns > each.overdue_from_ns:
                    self.overdue += 1
                    each.overdue_from_ns = complete_until_ns + COUNTED_AGAIN_AFTER_NS + OVERDUE_AFTER_NS

    def keep(self, most: int) -> None:
        """Throw away the records of the tgids that have waited longest, beyond so many records."""
        while (excess := self._count - most) > 0:
            # All at once: see WaitingRecords.keep. Each tgid has one or more.
            for tgid in list(islice(self.by_tgid, max(1, excess // _MOST_OF_ONE))):
                self._count -= len(self.by_tgid.pop(tgid))
