"""How a process ended: which EXIT decides it, under which name it counts, and where.

The EXIT of a leader is its process's end, unless other threads live on; then the EXIT of the last thread is. Which
thread is the last one is in its exit record (AGROUP, taskstats version 12 and later), or follows from the threads
that were forked and have exited, where records do not say it or there are none. A leader that exits twice has
ended: another thread has taken its pid in an exec, and that exec died.

The wait status of a process is the kernel's: that of the thread that ended the group, else that of the last
thread. A kernel worker (io_uring, vhost) is a thread too. It is killed with the group and exits with 0, often as
the last one. So a last thread that was killed, and exits with 0, decides nothing: the status is that of the
leader, or of a later thread, that exited a moment before.

Whatever decides it calls `Ends.end`, where an end is named and counted. The hot loop (table.py) has the two ways
that nearly all processes go written out; a test holds them equal to what is here.
"""

from exporter.kernel.cn_proc import ProcEvent
from exporter.kernel.taskstats import AGROUP, AXSIG, Record, decode_comm_uid
from exporter.kernel.wait_status import CORE_BIT, SIGNAL_BITS, STATUS_BITS
from exporter.processes.open_names import READING_SETTLES_NS
from exporter.processes.owners import owner_of_exit, owner_of_thread
from exporter.processes.process import Odd, Process, UnnamedEnd
from exporter.processes.shared import Shared
from exporter.tallies.cells import Cell
from exporter.tallies.histograms import observe

# Of failures alone, most that is remembered of processes that go on without their leader.
LEADERLESS_REMEMBERED = 1024
_LEADER_COMES_WITHIN_NS = 1_000_000_000
# From the EXIT of the thread that ends a process to that of a kernel worker that is killed with it.
_WORKER_DIES_WITHIN_NS = 1_000_000_000
# Where that one's EXIT is not delivered: when to look whether the process is gone; how long that is urgent.
_LOOK_AFTER_NS = 500_000_000
_SOON_NS = 5_000_000_000
# To count that many ends takes milliseconds.
_MOST_ENDS_AT_ONCE = 1024


class Ends:
    """Decides, names and counts the ends of processes.

    Args:
        shared: The table's parts.

    Attributes:
        unknown_lifetimes: Processes that ended and whose start was not known.
        lost_ends: Processes taken off because they were gone although their EXIT had not come.
    """

    def __init__(self, shared: Shared) -> None:
        self._roster = shared.roster
        self._naming = shared.naming
        self._records = shared.records
        self._tallies = shared.tallies
        self._observer = shared.observer
        self._bad_ends = shared.bad_ends
        self._canaries = shared.canaries
        self._sideband = shared.sideband
        self._follow_threads = shared.follow_threads
        self._keeps = shared.keeps
        self._failures_only = shared.failures_only
        self._unnamed: dict[Process, None] = {}
        # Processes whose leader failed, or left no record, and when to look whether they are gone.
        self._unended: dict[Process, int] = {}
        self.unknown_lifetimes = 0
        self.lost_ends = 0

    # -- whose EXIT it is, and whether it is an end -------------------------------------------------------------

    def leader_exit(self, process: Process | None, event: ProcEvent, record: Record | None) -> bool:
        """Take the EXIT of a thread-group leader: its process's end, unless other threads live on.

        Args:
            process: Of which it is the leader; None if nothing is known of it.
            event: The EXIT.
            record: The leader's exit record, if it left one.

        Returns:
            False if it was a canary, which is in no count.
        """
        tgid, status = event[3], event[4]
        if process is None and tgid in self._canaries:
            self._canaries.end(tgid, record)
            return False
        self._note_core(process, status)
        odd = None if process is None else process.odd
        if odd is not None and odd.unnamed_end is not None:
            unnamed = odd.unnamed_end
            if status:
                odd.fatal = event
            # The last thread was a kernel worker, perhaps, whose EXIT has overtaken this one.
            self.end(process, _deciding_exit(unnamed.event, unnamed.record, odd), record, unnamed.record)
            return True
        if self._follow_threads:
            lives_on = odd is not None and bool(odd.threads) and not odd.leader_exited
        elif record is not None:
            lives_on = not record[2] & AGROUP
        else:
            # Its record was lost, which would say whether other threads live on: see _look_for_failures.
            lives_on = self._keeps
        # As long as a thread lives on no other process has the pid.
        if lives_on and (process is not None or tgid not in self._roster.by_tgid):
            process = process or self.glimpse(tgid)
            odd = process.make_odd()
            odd.leader_exited = True
            odd.leader_record = record
            odd.fatal = event if status else None
            if record is None and not self._follow_threads:
                odd.unsure_end = event
                self._naming.close_name(process, event[1], killed=bool(status & SIGNAL_BITS))
            if odd.unsure_end is not None or (self._failures_only and status):
                self._unended[process] = event[1] + _LOOK_AFTER_NS
        else:
            self.end(process, event, record, record)
        return True

    def late_exit(self, event: ProcEvent) -> bool:
        """Take the EXIT of a leader whose pid had another owner, which has not sent its own yet.

        Returns:
            As leader_exit.
        """
        if event[7] and event[3] in self._canaries:
            # It is not reaped, so the pid is its own.
            self._canaries.end(event[3], self._records.take_at(event[3], len(self._records.of(event[3])) - 1))
            return False
        owner, place, doubtful = owner_of_exit(self._roster, self._records, event)
        # None of these has a name any more, nor a uid unless it is the same.
        uids = {process.cell.uid for process in doubtful}
        for process in doubtful:
            self._naming.unname(process, next(iter(uids)) if len(uids) == 1 else None)
        return self.leader_exit(owner, event, self._records.take_at(event[3], place))

    def thread_exit(self, event: ProcEvent, record: Record | None) -> None:
        """Take the EXIT of a thread that is not the leader: its process's end, if it is the last one."""
        pid, tgid = event[2], event[3]
        process = owner_of_thread(self._roster, self._records, event, self._follow_threads)
        if self._observer.is_active:
            self._observer.thread_exit(event, self._naming.cell_to_show(tgid))
            self._note_core(process, event[4])
        odd = None if process is None else process.odd
        leader_exited = odd is not None and odd.leader_exited
        if process is not None:
            self.pass_thread(process, event)
        if self._follow_threads:
            if process is None or odd is None or odd.threads is None:
                return
            odd.threads.discard(pid)
            if odd.threads:
                if odd.named_threads:
                    odd.named_threads.discard(pid)
                return
            odd.threads = None
            if not leader_exited:
                if odd.glimpsed:
                    self._roster.remove(process)
                process.tidy()
                return
        elif record is None or not record[2] & AGROUP:
            return
        event = _deciding_exit(event, record, odd)
        # The process has its leader's name, which the leader's record shows; the last record has what it used.
        leader = (None if odd is None else odd.leader_record) or self._silent_leader(tgid)
        if leader is None and not leader_exited and record is not None and not self._follow_threads:
            process = process or self.glimpse(tgid)
            process.make_odd().unnamed_end = UnnamedEnd(event, record)
            self._unnamed[process] = None
        else:
            self.end(process, event, leader, record)

    @staticmethod
    def _note_core(process: Process | None, status: int) -> None:
        """Remember that a thread dumped core: the bit need not be in the last EXIT."""
        if status & CORE_BIT and process is not None:
            process.make_odd().core = True

    def pass_thread(self, process: Process, event: ProcEvent) -> None:
        """Take the EXIT of a thread that is not the last of a process with something unusual about it."""
        odd = process.odd
        if odd is None:
            return
        if odd.leader_exited and event[4]:
            odd.fatal = event
        if event[4] & CORE_BIT:
            process.make_odd().core = True
        if odd.thread_uids and odd.thread_uids.forget(event[2]) and not odd.thread_uids:
            odd.thread_uids = None
            process.tidy()

    def _silent_leader(self, tgid: int) -> Record | None:
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
            self._unended.pop(oldest, None)
            if oldest.odd is not None and oldest.odd.unnamed_end is not None:
                self._end_unnamed(oldest, oldest.odd.unnamed_end)
            else:
                self._roster.remove(oldest)
        process = self._roster.add(Process(tgid, self._tallies.claim_cell(None, None), 0))
        process.make_odd().glimpsed = True
        return process

    # -- the end ------------------------------------------------------------------------------------------------

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
        cell = self._cell_at_end(process, timestamp_ns, leader, last, killed=killed)
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

    def _cell_at_end(
        self,
        process: Process | None,
        timestamp_ns: int,
        leader: Record | None,
        last: Record | None,
        *,
        killed: bool,
    ) -> Cell:
        """Return the cell in which an end counts, and count the exec that has waited for that name.

        An exec that fails after the point of no return has changed the comm, and kills its process. So the comm of
        a process that was killed need not be that of its last EXEC.
        """
        # Records of a pid that was used again can be the next process's.
        if process is None or process.is_late:
            unfinished = False
        else:
            names = self._sideband.end(process.tgid, process.start_ns, timestamp_ns)
            died_ns = timestamp_ns if process.odd is None else process.odd.dumped_ns or timestamp_ns
            unfinished = killed and bool(names) and died_ns - names[-1].time_ns < READING_SETTLES_NS
            lost = names[:-1] if unfinished else names
            if lost:
                self._sideband.missed_execs += len(lost)
                self._naming.rename(process, lost[-1].comm, timestamp_ns)
                if leader is not last:
                    # Of the leader before that exec, which another thread called.
                    leader = None
        if leader is not None and not unfinished:
            group = None if process is None else process.cell.group
            cell = self._tallies.claim_cell_of_record(leader[4], group)
            if process is not None and process.execd_ns:
                process.note_exec()
                unsure = self._tallies.claim_cell(None, cell.uid, cell.group) if killed else cell
                self._naming.count_exec(process, unsure)
            return cell
        if process is None:
            # A thread's comm need not be its process's.
            return self._tallies.claim_cell(None, None if last is None else decode_comm_uid(last[4])[1])
        if process.needs_name:
            self._naming.name_at_end(process, timestamp_ns, killed=killed)
        return self._naming.cell_at_end(process, timestamp_ns, killed=killed)

    def _forget(self, process: Process) -> None:
        self._roster.remove(process)
        self._unnamed.pop(process, None)
        self._unended.pop(process, None)
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
        self.end(process, unnamed.event, self._silent_leader(process.tgid), unnamed.record)

    def end_batch(self, complete_until_ns: int) -> None:
        """Count the ends whose leader will not name them any more.

        Args:
            complete_until_ns: All events before that have been applied.
        """
        for process in list(self._unnamed):
            unnamed = None if process.odd is None else process.odd.unnamed_end
            if unnamed is not None and unnamed.event[1] + _LEADER_COMES_WITHIN_NS < complete_until_ns:
                self._end_unnamed(process, unnamed)
        if self._unended:
            self._look_for_failures(complete_until_ns)

    def _look_for_failures(self, complete_until_ns: int) -> None:
        """Count processes that are gone, and whose last EXIT does not come or was not known to be that.

        A kernel worker exits with 0, so where only failures are delivered its EXIT does not come. And where the
        record of a leader was lost, its EXIT can have been the last one.
        """
        ended = 0
        for process, look_ns in list(self._unended.items()):
            event = _unended_event(process)
            if event is None:
                # It has exec'd.
                del self._unended[process]
            elif look_ns <= complete_until_ns and ended < _MOST_ENDS_AT_ONCE:
                leader = process.make_odd().leader_record
                if process.is_late or self._naming.is_gone(process.tgid):
                    ended += 1
                    self.end(process, event, leader, leader)
                else:
                    # Its parent has not reaped it, or other threads live on: look less and less often.
                    self._unended[process] = look_ns + (look_ns - event[1])

    @property
    def waits(self) -> bool:
        """Some end becomes known by a later batch, even an empty one."""
        return bool(self._unnamed) or any(
            (event := _unended_event(process)) is not None and look_ns - event[1] < _SOON_NS
            for process, look_ns in self._unended.items()
        )


def _unended_event(process: Process) -> ProcEvent | None:
    """Return the EXIT that ended a process, if it has ended without another one."""
    return None if process.odd is None else process.odd.unsure_end or process.odd.fatal


def _deciding_exit(last: ProcEvent, record: Record | None, odd: Odd | None) -> ProcEvent:
    """Return the EXIT of a process's last thread, with the wait status of the thread that decides it."""
    fatal = None if odd is None else odd.fatal
    if last[4] or fatal is None or last[1] - fatal[1] > _WORKER_DIES_WITHIN_NS:
        return last
    if (odd is not None and odd.named_threads and last[2] in odd.named_threads) or (
        record is not None and not record[2] & AXSIG
    ):
        # It is no kernel worker, or it exited by itself.
        return last
    what, timestamp_ns, pid, tgid, _, signal, parent_pid, parent_tgid = last
    return (what, timestamp_ns, pid, tgid, fatal[4], signal, parent_pid, parent_tgid)
