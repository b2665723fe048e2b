"""Whose EXIT it is, where a pid has had several owners whose EXITs have not all come.

A process that is reaped can be stopped before it sends its EXIT. Then its pid can be forked again, and the EXIT of
the next owner can overtake its own. Three facts tell them apart: a process that was reaped has no parent in its
EXIT; the wait status is in the EXIT and in the exit record; an EXIT is younger than its process.
"""

from collections.abc import Iterator
from typing import NamedTuple

from exporter.kernel.cn_proc import ProcEvent
from exporter.kernel.taskstats import AGROUP, Record
from exporter.processes.last_threads import LastThreads
from exporter.processes.process import Process
from exporter.processes.roster import Roster
from exporter.processes.waiting_records import WaitingRecords


class Owner(NamedTuple):
    """To which process an EXIT belongs."""

    process: Process | None
    """None: to one of which nothing is known."""
    place: int | None
    """Where its record is among those of its pid; None: it was lost."""
    doubtful: list[Process]
    """Processes that cannot be told apart: the EXIT may be of any of them."""


def owner_of_exit(roster: Roster, records: WaitingRecords, event: ProcEvent) -> Owner:
    """Return to which of the processes that had a pid the EXIT of a leader belongs."""
    _, timestamp_ns, _, tgid, status, _, _, parent_tgid = event
    current = roster.by_tgid.get(tgid)
    owners = [process for process in roster.owners(tgid) if not process.leader_exited]
    started = [process for process in owners if process.start_ns <= timestamp_ns]
    recorded = [process for process in owners if not process.is_unrecorded]
    places = records.places(tgid, status)
    if parent_tgid and (started or current is not None):
        # It is not reaped, so it still has the pid. It can have exited before: see exits.py. If there are too few
        # records, one of any owner can be missing.
        owner = current if current is not None and current.start_ns <= timestamp_ns else None
        had_pid = [p for p in started if not p.is_late or roster.late_since_ns(p) > timestamp_ns]
        owner = owner or (had_pid[-1] if had_pid else None)
        at = recorded.index(owner) if owner in recorded else len(recorded)
        return Owner(owner, at if at in places else None, [])
    first = places[0] if places else None
    if len(started) < 2 or first is None or not recorded:
        return Owner(owners[0] if owners else None, first, started if len(started) > 1 else [])
    return Owner(recorded[min(first, len(recorded) - 1)], first, [])


def owner_of_thread(
    roster: Roster, records: WaitingRecords, event: ProcEvent, last_threads: LastThreads | None
) -> Process | None:
    """Return to which of the processes that had a pid a thread belongs that exits.

    Args:
        roster: All processes.
        records: Exit records of leaders that wait for their EXIT.
        event: The EXIT of the thread.
        last_threads: Those of last threads; None: it is known which threads a process has.
    """
    _, _, pid, tgid, status, *_ = event
    current = roster.by_tgid.get(tgid)
    if tgid not in roster.late_of:
        return current
    owners: list[Process | None] = [*roster.late_of[tgid], current]
    if last_threads is None:
        return next((o for o in owners if o and o.odd and o.odd.threads and pid in o.odd.threads), current)
    # Only a process that a thread ends has a leader whose record does not mark its end. Where that was lost,
    # it is not known.
    owners = [o for o in owners if not (o and o.odd and o.odd.unnamed_end)] or [current]
    sure = [o for o in owners if not (o and o.odd and o.odd.unsure_end)]
    ended_by_thread = list(_ended_by_thread(sure, records.of(tgid)))
    # Each has a record of its last thread, in their order.
    place = last_threads.place(tgid, pid, status)
    if ended_by_thread:
        return ended_by_thread[0 if place is None else min(place, len(ended_by_thread) - 1)]
    return next((o for o in owners if o not in sure), owners[0])


def _ended_by_thread(owners: list[Process | None], records: list[Record]) -> Iterator[Process | None]:
    """Iterate over the owners of a pid, in their order, that end by another thread than their leader.

    Args:
        owners: In the order in which they had the pid.
        records: Of leaders with the pid whose EXIT has not come.
    """
    waiting = iter(records)
    for owner in owners:
        is_gone = owner is not None and owner.leader_exited
        if is_gone or ((record := next(waiting, None)) is not None and not record[2] & AGROUP):
            yield owner
