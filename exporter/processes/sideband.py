"""Side-band records whose events have not been applied yet: the comm of each exec, the forker of each process.

The kernel writes the record of an exec before it sends the EXEC, and the record of a fork just after it has sent
the FORK. The records of one process can come in any order, as each CPU has a ring: they are told apart by their
time.

The rule: the comm of the EXEC of a process at time t is that of its latest exec record between its FORK and t.
A record of an exec that died after the point of no return has no EXEC. It waits until the process ends, or until
it is too old, and names nothing.
"""

from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import Generic, NamedTuple, TypeVar

from exporter.kernel.cn_proc import DATAGRAM_BYTES, PROC_EVENT_FORK, iter_proc_events
from exporter.kernel.perf_event import ExecName, Fork, SidebandRecords
from exporter.processes.mounts import MountSpaces

_R = TypeVar("_R", bound=tuple[int, int, *tuple[object, ...]])

# From an exec's record to its EXEC 296 ms were seen, on a host with a load of 20.
_EXEC_WITHIN_NS = 10_000_000_000
# From a FORK to its record it is microseconds, unless the process is stopped amid them. What comes later is the
# record of the next process with that pid, and its own was lost.
_FORK_WITHIN_NS = 1_000_000_000
# Of forks, and of execs. A receive buffer of the default size holds the events of no more.
_MOST_WAITING = 1 << 16
# Where a FORK is looked for that has no record yet. Enough for what other CPUs send meanwhile, and little work for
# each step of a drain.
_LAST_EVENTS = 128


class ExecRecord(NamedTuple):
    """An exec of one process."""

    time_ns: int
    comm: bytes


class Waiting(Generic[_R]):
    """Records by tgid, which is their second item; the first one is their time.

    A process can exec as fast as it can, and have thousands of records after a pause: each is looked at once.

    Attributes:
        first: One record of each process: where the hot loop looks.
        later: Further ones, of processes that have any.
    """

    def __init__(self) -> None:
        self.first: dict[int, _R] = {}
        self.later: dict[int, list[_R]] = {}
        # The processes whose records are not in the order of time: the rings of the CPUs are read one by one.
        self._unsorted: set[int] = set()

    def add(self, records: list[_R]) -> None:
        """Take records."""
        arrived = {record[1]: record for record in records}
        if len(arrived) == len(records) and self.first.keys().isdisjoint(arrived):
            self.first.update(arrived)
        else:
            self.put_back(records)

    def take_all(self, tgid: int) -> list[_R]:
        """Take all records of a process, the oldest first."""
        if tgid not in self.first:
            return []
        self._unsorted.discard(tgid)
        return sorted((self.first.pop(tgid), *self.later.pop(tgid, ())))

    def take_until(self, tgid: int, until_ns: int) -> list[_R]:
        """Take the records of a process up to a time, the oldest first."""
        taken: list[_R] = []
        while (record := self.take_oldest(tgid, until_ns)) is not None:
            taken.append(record)
        return taken

    def take_oldest(self, tgid: int, until_ns: int) -> _R | None:
        """Take the oldest record of a process, if it is not younger than a time."""
        if tgid in self._unsorted:
            self.put_back(self.take_all(tgid))
        oldest = self.first.get(tgid)
        if oldest is None or oldest[0] > until_ns:
            return None
        del self.first[tgid]
        later = self.later.get(tgid)
        if later:
            self.first[tgid] = later.pop(0)
            if not later:
                del self.later[tgid]
        return oldest

    def put_back(self, records: Iterable[_R]) -> None:
        """Let records wait on."""
        for record in records:
            first = self.first.setdefault(record[1], record)
            if first is not record:
                later = self.later.setdefault(record[1], [])
                if record < (later[-1] if later else first):
                    self._unsorted.add(record[1])
                later.append(record)

    def drop(self, before_ns: int) -> int:
        """Forget the records that are older than a time; returns how many those were."""
        dropped = 0
        for tgid in [tgid for tgid, record in self.first.items() if record[0] < before_ns]:
            waiting = self.take_all(tgid)
            kept = [record for record in waiting if record[0] >= before_ns]
            dropped += len(waiting) - len(kept)
            self.put_back(kept)
        return dropped

    def __len__(self) -> int:
        return len(self.first) + sum(map(len, self.later.values()))

    def keep(self, most: int) -> int:
        """Forget all if they are more than so many; returns how many those were."""
        count = len(self)
        if count <= most:
            return 0
        self.clear()
        return count

    def clear(self) -> None:
        """Forget all."""
        self.first.clear()
        self.later.clear()
        self._unsorted.clear()


class Sideband:
    """Side-band records that wait for their event.

    Args:
        is_active: There are side-band records at all.
        since_ns: All events since then come (CLOCK_MONOTONIC). Records come since a moment earlier.

    Attributes:
        execs: Those of execs.
        forks: Those of forks, by the new process.
        records: How many were taken.
        missed_execs: How many records of execs had no EXEC, although the process lived on.
        mounts: In which mount namespace processes are, where that is asked for.
    """

    def __init__(self, *, is_active: bool, since_ns: int = 0) -> None:
        self.is_active = is_active
        self._since_ns = since_ns
        # When the FORKs were sent that were applied without their record, which can still come: by the new tgid.
        self._unrecorded: dict[int, int] = {}
        self.execs: Waiting[ExecName] = Waiting()
        self.forks: Waiting[Fork] = Waiting()
        self.records = 0
        self.missed_execs = 0
        self.mounts = MountSpaces()

    def add(self, records: SidebandRecords) -> int:
        """Take records; each waits for its event.

        Returns:
            How many that waited were dropped, as there were too many: the kernel has lost the events of most.
        """
        self.records += len(records.execs) + len(records.forks)
        self.execs.add(records.execs)
        self.forks.add(records.forks)
        if records.mounts:
            self.mounts.add(records.mounts)
        if records.lost:
            self.mounts.clear()
        return self.execs.keep(_MOST_WAITING) + self.forks.keep(_MOST_WAITING)

    def take_exec(self, tgid: int, after_ns: int, until_ns: int) -> bytes | None:
        """Return the comm of an EXEC, and forget the records up to it.

        Args:
            tgid: The process.
            after_ns: When it was forked; 0 if that is not known.
            until_ns: Of the EXEC.
        """
        own = self._take_execs(tgid, after_ns, until_ns)
        # An exec after which its process lived on had an EXEC.
        self.missed_execs += max(0, len(own) - 1)
        return own[-1].comm if own else None

    def _take_execs(self, tgid: int, after_ns: int, until_ns: int) -> list[ExecRecord]:
        found = self.execs.take_until(tgid, until_ns)
        return [ExecRecord(time_ns, comm) for time_ns, _, comm in found if time_ns > after_ns]

    def fork_of(self, tgid: int, first: Fork | None, timestamp_ns: int) -> Fork | None:
        """Return the record of a FORK, and forget those of earlier ones with that pid.

        The thread that forks can lose its CPU between the two, and the kernel first sends the FORK to all other
        listeners: then the record comes a drain later.

        Args:
            tgid: The new process.
            first: What stood in `forks.first`, and has been taken out.
            timestamp_ns: Of the FORK: its record is the next one after it.
        """
        if first is not None:
            self.forks.put_back((first,))
        self.forks.take_until(tgid, timestamp_ns - 1)
        record = self.forks.take_oldest(tgid, timestamp_ns + _FORK_WITHIN_NS - 1)
        self._unrecorded.pop(tgid, None)
        if record is None and self.is_active and len(self._unrecorded) < _MOST_WAITING:
            self._unrecorded[tgid] = timestamp_ns
        return record

    def lacks_fork(self, chunks: Sequence[bytes], sent_after_ns: int) -> bool:
        """Return whether one of the last FORKs has no record yet.

        The kernel writes it when it has sent the FORK to all listeners, so the first of them can have read half.

        Args:
            chunks: Events that are not applied yet, end to end, in their order.
            sent_after_ns: Older FORKs are not looked at (CLOCK_MONOTONIC).
        """
        if not self.is_active:
            return False
        recorded, left = self.forks.first, _LAST_EVENTS
        for chunk in reversed(chunks):
            for event in reversed(tuple(iter_proc_events(chunk[-left * DATAGRAM_BYTES :]))):
                what, timestamp_ns, _, _, child_pid, child_tgid, _, _ = event
                if timestamp_ns < sent_after_ns:
                    return False
                if what == PROC_EVENT_FORK and child_pid == child_tgid and child_tgid not in recorded:
                    return True
                left -= 1
                if not left:
                    return False
        return False

    def end(self, tgid: int, start_ns: int, timestamp_ns: int) -> list[ExecRecord]:
        """Return the exec records of a process that ended or was renamed, and forget them: no EXEC came of these.

        Either the EXEC was lost, or the last one is of an exec that died after the point of no return.
        """
        return self._take_execs(tgid, start_ns, timestamp_ns)

    def end_batch(self, complete_until_ns: int) -> int:
        """Forget records whose event does not come any more.

        Args:
            complete_until_ns: All events before that have been applied; 0 if that is not known.

        Returns:
            How many were of forks: their FORK came before their record, so it was lost, or the kernel sends none.
        """
        if self._unrecorded:
            self._drop_late_forks(complete_until_ns)
        if not complete_until_ns or not (self.execs.first or self.forks.first):
            return 0
        self.execs.drop(complete_until_ns - _EXEC_WITHIN_NS)
        self.forks.drop(min(self._since_ns, complete_until_ns))
        return self.forks.drop(complete_until_ns)

    def _drop_late_forks(self, complete_until_ns: int) -> None:
        """Forget the records that came after their FORK had been applied."""
        unrecorded = self._unrecorded
        for tgid in unrecorded.keys() & self.forks.first.keys():
            if self.forks.take_until(tgid, unrecorded[tgid] + _FORK_WITHIN_NS - 1):
                del unrecorded[tgid]
        # In the order of time. Not one by one: the first of a dict whose first entries were deleted is looked for
        # from its beginning each time.
        too_old_ns = complete_until_ns - _FORK_WITHIN_NS
        for tgid in list(takewhile(lambda tgid: unrecorded[tgid] <= too_old_ns, unrecorded)):
            del unrecorded[tgid]

    def clear(self) -> None:
        """Forget all: messages were lost, and their events may be among those."""
        self.execs.clear()
        self.forks.clear()
