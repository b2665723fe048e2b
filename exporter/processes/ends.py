"""The end of a process: named, counted, forgotten. exits.py says which EXIT that is."""

from exporter.kernel.cn_proc import ProcEvent
from exporter.kernel.taskstats import Record, decode_comm_uid
from exporter.kernel.wait_status import CORE_BIT, SIGNAL_BITS, STATUS_BITS
from exporter.processes.end_names import EndNames
from exporter.processes.process import Process, UnnamedEnd
from exporter.processes.shared import Shared
from exporter.processes.waiting_ends import WaitingEnds
from exporter.tallies.histograms import observe

# Of failures alone, most that is remembered of processes that go on without their leader.
LEADERLESS_REMEMBERED = 1024


class Ends:
    """Names and counts the ends of processes.

    Args:
        shared: The table's parts.

    Attributes:
        waiting: Processes that may have ended.
        unknown_lifetimes: Processes that ended and whose start was not known.
        lost_ends: Processes taken off because they were gone although their EXIT had not come.
    """

    def __init__(self, shared: Shared) -> None:
        self._roster = shared.roster
        self._naming = shared.naming
        self._names = EndNames(shared)
        self._records = shared.records
        self._tallies = shared.tallies
        self._observer = shared.observer
        self._bad_ends = shared.bad_ends
        self._keeps = shared.keeps
        self._failures_only = shared.failures_only
        self.waiting = WaitingEnds(shared.naming.is_gone)
        self.unknown_lifetimes = 0
        self.lost_ends = 0

    def silent_leader(self, tgid: int) -> Record | None:
        """Return the record of a leader that has exited well, if no event comes of that."""
        if not self._failures_only:
            return None
        # Others may have had the pid before, and ended well.
        return next((record for record in reversed(self._records.of(tgid)) if not record[1]), None)

    def glimpse(self, tgid: int) -> Process:
        """Begin to remember what is seen of the threads of a process of which nothing else is known."""
        by_tgid = self._roster.by_tgid
        if not self._keeps and len(by_tgid) >= LEADERLESS_REMEMBERED:
            # The end of such a process need not come.
            oldest = next(iter(by_tgid.values()))
            self.waiting.forget(oldest)
            if oldest.odd is not None and oldest.odd.unnamed_end is not None:
                self._end_unnamed(oldest, oldest.odd.unnamed_end)
            else:
                self._roster.remove(oldest)
        process = self._roster.add(Process(tgid, self._tallies.claim_cell(None, None), 0))
        process.make_odd().glimpsed = True
        return process

    def end(self, process: Process | None, event: ProcEvent, leader: Record | None, last: Record | None) -> None:
        """Name and count the end of a process, and forget it.

        Args:
            process: The process; None if nothing is known of it.
            event: The EXIT of its last thread.
            leader: The record of its leader, if there is one.
            last: The record of its last thread, if there is one.
        """
        _, timestamp_ns, _, tgid, status, _, _, parent_tgid = event
        names = self._naming.names
        if process is not None:
            self._forget(process)
            if process.is_glimpsed:
                process = None
        elif self._failures_only:
            self._records.forget_successes(tgid)
        if process is None or not process.is_late:
            names.reuse(tgid)
        # By then no other thread is left of one that dies in an exec: the leader is the last one.
        killed = bool(status & SIGNAL_BITS) and leader is last
        # A process that dumped core has had a name apart since then, and its comm changes no more.
        odd = None if process is None else process.odd
        has_last_name = not killed or (odd is not None and odd.dumped_ns != 0)
        cell = self._names.cell_of(process, timestamp_ns, leader, last, killed=killed)
        self._tallies.count_end(cell, status & STATUS_BITS)
        lifetime_ns: int | None = None
        if process is not None and process.start_ns:
            lifetime_ns = max(0, timestamp_ns - process.start_ns)
        elif last is not None:
            lifetime_ns = last[6] * 1000
        if lifetime_ns is None:
            self.unknown_lifetimes += 1
        else:
            observe(cell.lifetime_ns, self._tallies.bounds.lifetime_ns, lifetime_ns)
        if last is not None:
            observe(cell.cpu_ns, self._tallies.bounds.cpu_ns, last[3])
            observe(cell.max_rss_kib, self._tallies.bounds.max_rss_kib, last[5])
        if process is not None and (name := process.open_name) is not None:
            recorded = decode_comm_uid(leader[4])[0] if leader is not None and has_last_name else None
            self._naming.look_later(names.bury(name, process, timestamp_ns, recorded, killed=not has_last_name))
        # After its exec, which may just have got its name.
        core = bool(status & CORE_BIT) or (process is not None and process.odd is not None and process.odd.core)
        if status & STATUS_BITS and self._bad_ends.is_active:
            whole = (*event[:4], status | CORE_BIT, *event[5:]) if core else event
            self._bad_ends.note(whole, process, cell, last, lifetime_ns)
        self._observer.end(event, cell, parent_tgid=parent_tgid, core=core, lifetime_ns=lifetime_ns, last=last)

    def _forget(self, process: Process) -> None:
        self._roster.remove(process)
        self.waiting.forget(process)
        if process.odd is not None and process.odd.group is not None:
            process.odd.group.end()
        if self._failures_only:
            self._records.forget_successes(process.tgid)

    def drop(self, process: Process) -> bool:
        """Take a process off that is gone, although its EXIT has not come.

        Returns:
            Whether its end is in no count.
        """
        if process.odd is not None and process.odd.unnamed_end is not None:
            self._end_unnamed(process, process.odd.unnamed_end)
            return False
        if process.odd is not None and process.odd.unsure_end is not None:
            self.end(process, process.odd.unsure_end, None, None)
            return False
        if process.execd_ns:
            self._naming.open_name(process)
        self._forget(process)
        name = process.open_name
        if name is not None:
            self._naming.look_later(self._naming.names.drop(name, process))
        return not process.is_glimpsed

    def drop_lost(self, process: Process) -> None:
        """Drop a process, and count its end as lost."""
        self.lost_ends += self.drop(process)

    def _end_unnamed(self, process: Process, unnamed: UnnamedEnd) -> None:
        """Count an end whose leader will not name it any more: its EXIT was before our time, or lost."""
        self.end(process, unnamed.event, self.silent_leader(process.tgid), unnamed.record)

    def end_batch(self, complete_until_ns: int) -> None:
        """Count the ends whose leader will not name them any more, and those whose last EXIT does not come.

        Args:
            complete_until_ns: All events before that have been applied.
        """
        if self.waiting.unnamed:
            for process, unnamed in self.waiting.without_leader(complete_until_ns):
                self._end_unnamed(process, unnamed)
        if self.waiting.unended:
            for process, event in self.waiting.gone(complete_until_ns):
                leader = process.make_odd().leader_record
                self.end(process, event, leader, leader)

    @property
    def waits(self) -> bool:
        """Some end becomes known by a later batch, even an empty one."""
        return self.waiting.waits
