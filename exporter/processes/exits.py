"""Which EXIT is the end of a process, and which wait status it ended with.

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
from exporter.kernel.wait_status import CORE_BIT, SIGNAL_BITS
from exporter.processes.ends import Ends
from exporter.processes.owners import owner_of_exit, owner_of_thread
from exporter.processes.process import Odd, Process, UnnamedEnd
from exporter.processes.shared import Shared
from exporter.tallies.cells import Cell

# From the EXIT of the thread that ends a process to that of a kernel worker that is killed with it.
_WORKER_DIES_WITHIN_NS = 1_000_000_000


class Exits:
    """Takes EXITs, and decides which of them are ends.

    Args:
        shared: The table's parts.
        ends: Counts the ends.

    Attributes:
        replaced: When each process exec'd whose leader's record was dropped, by pid, until its next EXIT.
    """

    def __init__(self, shared: Shared, ends: Ends) -> None:
        self.replaced: dict[int, int] = {}
        self._roster = shared.roster
        self._naming = shared.naming
        self._tallies = shared.tallies
        self._records = shared.records
        self._last_threads = shared.last_threads
        self._observer = shared.observer
        self._canaries = shared.canaries
        self._follow_threads = shared.follow_threads
        self._keeps = shared.keeps
        self._failures_only = shared.failures_only
        self._ends = ends

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
            self._ends.end(process, _deciding_exit(unnamed.event, unnamed.record, odd), record, unnamed.record)
            return True
        if self._follow_threads:
            lives_on = odd is not None and bool(odd.threads) and not odd.leader_exited
        elif record is not None:
            lives_on = not record[2] & AGROUP
        else:
            # Its record was lost, which would say whether other threads live on: see waiting_ends.py.
            lives_on = self._keeps
        # As long as a thread lives on no other process has the pid.
        if lives_on and (process is not None or tgid not in self._roster.by_tgid):
            process = process or self._ends.glimpse(tgid)
            odd = process.make_odd()
            odd.leader_exited = True
            odd.leader_record = record
            odd.fatal = event if status else None
            if record is None and not self._follow_threads:
                odd.unsure_end = event
                self._naming.close_name(process, event[1], killed=bool(status & SIGNAL_BITS))
            if odd.unsure_end is not None or (self._failures_only and status):
                self._ends.waiting.look_after(process, event[1])
        else:
            self._ends.end(process, event, record, record)
        return True

    def drop_replaced_leader(self, event: ProcEvent, record: Record) -> None:
        """Drop at an EXEC the record of a leader that the exec has replaced and whose EXIT has another pid.

        A thread that execs kills its leader and takes the pid over, perhaps before the leader has sent its EXIT:
        that then has the thread's old pid, and the leader's record waits for nothing. The next end of a process
        with the pid would take it.

        A record is that leader's if it was written before the EXEC, under the comm that the process had been shown
        with. The moment alone does not decide: of a process that a scan found the start is known to a tick. While
        the comm is not known, the record stays.

        Args:
            event: The EXEC.
            record: The oldest that waits with the pid; its thread is not the last of its process.

        Source: do_exit() calls exit_notify(), for which de_thread() in fs/exec.c waits, before
        proc_exit_connector().
        """
        tgid, timestamp_ns = event[3], event[1]
        process = self._roster.by_tgid.get(tgid)
        if process is None or not process.start_ns or tgid in self._roster.late_of:
            return
        comm, uid = decode_comm_uid(record[4])
        cell, shown = process.cell, self._tallies.shown_comm(comm, uid)
        is_its_own = shown is not None and shown == cell.comm and cell.uid in {None, uid}
        if is_its_own and process.start_ns + 1000 * (record[6] + 1) < timestamp_ns:
            self._records.take_at(tgid, 0)
            self.replaced[tgid] = timestamp_ns

    def pass_replaced_leader(self, event: ProcEvent) -> bool:
        """Take the next EXIT with a pid of `replaced`; returns whether it is that leader's after all, and no end.

        The kernel notes the moment of an EXIT, then its pid, and then sends it: after the EXEC, perhaps.
        """
        return event[1] < self.replaced.pop(event[3])

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

    def thread_exit(self, event: ProcEvent) -> None:
        """Take the EXIT of a thread that is not the leader: its process's end, if it is the last one."""
        pid, tgid = event[2], event[3]
        last_threads = None if self._follow_threads else self._last_threads
        process = owner_of_thread(self._roster, self._records, event, last_threads)
        record = self._record_of_thread(event, process)
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
        elif record is None:
            return
        event = _deciding_exit(event, record, odd)
        # The process has its leader's name, which the leader's record shows; the last record has what it used.
        leader = (None if odd is None else odd.leader_record) or self._ends.silent_leader(tgid)
        if leader is None and not leader_exited and record is not None and not self._follow_threads:
            process = process or self._ends.glimpse(tgid)
            process.make_odd().unnamed_end = UnnamedEnd(event, record)
            self._ends.waiting.wait_for_leader(process)
        else:
            self._ends.end(process, event, leader, record)

    def publish(self, event: ProcEvent, cell: Cell, lifetime_ns: int, record: Record | None) -> None:
        """Hand the end of a usual process on to the observer; the loop has counted it."""
        self._observer.end(
            event,
            cell,
            parent_tgid=event[7],
            core=bool(event[4] & CORE_BIT),
            lifetime_ns=lifetime_ns,
            last=record,
        )

    def _record_of_thread(self, event: ProcEvent, process: Process | None) -> Record | None:
        """Take the record of a thread that is not the leader, if there is one."""
        _, _, pid, tgid, status, *_ = event
        if self._follow_threads:
            return self._records.take_of_thread(pid, status)
        if self._records.recalled and (record := self._records.take_recalled(pid)) is not None:
            return record if record[2] & AGROUP else None
        is_only_owner = tgid not in self._roster.late_of
        if process is None and self._keeps:
            return self._last_threads.take_of_stranger(event)
        if process is not None and is_only_owner and self._has_other_end(process):
            return None
        return self._last_threads.take(event, process, is_only_owner=is_only_owner)

    def _has_other_end(self, process: Process) -> bool:
        """Return whether the last thread of a process is known to be another than that whose EXIT has come."""
        if process.odd is not None and process.odd.unnamed_end is not None:
            return True
        leader = self._records.oldest.get(process.tgid)
        return not process.leader_exited and leader is not None and bool(leader[2] & AGROUP)

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
