"""Forks, and execs: whose comm and uid a process begins with.

The hot loop (table.py) has the usual ones written out; these are all others.
"""

from exporter.kernel.cn_proc import ProcEvent
from exporter.kernel.perf_event import Fork
from exporter.processes.ends import Ends
from exporter.processes.open_names import READING_SETTLES_NS
from exporter.processes.process import MERE_STRANGER, Children, Process
from exporter.processes.shared import Shared
from exporter.tallies.cells import Cell


class ForksAndExecs:
    """Applies forks and execs.

    Args:
        shared: The table's parts.
        ends: Takes off a process whose place another one takes.
    """

    def __init__(self, shared: Shared, ends: Ends) -> None:
        self._roster = shared.roster
        self._naming = shared.naming
        self._grouping = shared.grouping
        self._ends = ends
        self._tallies = shared.tallies
        self._observer = shared.observer
        self._canaries = shared.canaries
        self._records = shared.records
        self._sideband = shared.sideband
        self._follow_threads = shared.follow_threads
        self._keeps = shared.keeps

    # -- forks --------------------------------------------------------------------------------------------------

    def thread_fork(self, event: ProcEvent) -> None:
        """Take the FORK of a thread.

        The event's parent is the process's own parent, not the thread's creator: the child's tgid is the process.
        """
        child_pid, child_tgid = event[4], event[5]
        if self._follow_threads and self._keeps:
            process = self._roster.by_tgid.get(child_tgid) or self._ends.glimpse(child_tgid)
            odd = process.make_odd()
            if odd.threads is None:
                odd.threads = set()
            odd.threads.add(child_pid)
        if self._observer.is_active:
            self._observer.thread_fork(event, self._naming.cell_to_show(child_tgid))

    def fork(self, event: ProcEvent, record: Fork | None = None) -> bool:
        """Take the FORK of a process.

        Args:
            event: The FORK. Its parent is the parent that the child got, which need not be the process that forked
                (CLONE_PARENT).
            record: The side-band record of it, which has the thread that forked.

        Returns:
            False if the child is a canary, which is in no count.
        """
        _, timestamp_ns, parent_pid, parent_tgid, _, child_tgid, *_ = event
        record = self._sideband.fork_of(child_tgid, record, timestamp_ns)
        previous = self._roster.by_tgid.get(child_tgid)
        if previous is not None:
            self._make_room(previous, timestamp_ns)
        if self._records.is_stale(child_tgid, timestamp_ns):
            # It waits for the EXIT of a process that had this pid. That was lost, or it would be here.
            self._records.drop_stale(child_tgid)
        if child_tgid in self._canaries:
            return False
        if record is not None:
            _, _, parent_tgid, parent_pid = record
        parent = self._roster.by_tgid.get(parent_tgid)
        if parent is None or parent.is_glimpsed:
            # Its own FORK was lost, and no scan has found it yet.
            cell = self._tallies.claim_cell(None, None)
            self._count_fork(timestamp_ns, child_tgid, parent_tgid, cell)
            if self._keeps:
                self._roster.add(Process(child_tgid, cell, timestamp_ns))
            return True
        if parent.needs_name:
            self._naming.open_name(parent)
        cell = parent.cell
        self._count_fork(timestamp_ns, child_tgid, parent_tgid, cell)
        child = self._roster.add(Process(child_tgid, cell, timestamp_ns))
        name = parent.open_name
        if parent.odd is not None and parent.odd.group is not None:
            parent.odd.group.fork(child)
        uid = cell.uid
        if parent_pid != parent_tgid and parent.odd is not None and parent.odd.thread_uids:
            # A thread that is not among them may have been made by one that is.
            uid = parent.odd.thread_uids.get(parent_pid)
        if (
            parent_pid != parent_tgid
            or (name is not None and record is None)
            or (parent.odd is not None and parent.odd.children is Children.STRANGERS)
        ):
            # The child has the comm of the forking *thread*, and a kernel thread is renamed without an event. And
            # without a side-band record the parent need not be the process that forked (CLONE_PARENT): the child
            # would give its comm to a name that is not its own.
            child.cell = self._tallies.claim_cell(None, uid, cell.group)
            child.odd = MERE_STRANGER
            self._naming.look_later(child)
        elif name is not None:
            child.make_odd().name = name
            name.carriers[child] = None
        return True

    def _count_fork(self, timestamp_ns: int, child_tgid: int, parent_tgid: int, cell: Cell) -> None:
        cell.forks += 1
        self._observer.fork(timestamp_ns, child_tgid, parent_tgid, cell)

    def _make_room(self, previous: Process, timestamp_ns: int) -> None:
        """A process is forked with the pid of one that has not ended."""
        adopted_ns = 0 if previous.odd is None else previous.odd.adopted_ns
        if previous.is_glimpsed or (adopted_ns and timestamp_ns <= adopted_ns + READING_SETTLES_NS):
            # The scan met it before its FORK was applied, or even sent: a child is in /proc a moment earlier.
            self._ends.drop(previous)
            return
        if previous.odd is not None and previous.odd.unsure_end is not None:
            # Its pid is free, so no other thread lives on.
            self._ends.drop(previous)
            return
        if previous.needs_name:
            self._naming.open_name(previous)
        self._naming.names.lose_pid(previous, timestamp_ns)
        self._roster.lose_pid(previous, timestamp_ns)

    # -- execs --------------------------------------------------------------------------------------------------

    def exec(self, event: ProcEvent) -> None:
        """Take an EXEC."""
        tgid, timestamp_ns = event[3], event[1] or 1
        process = self._roster.by_tgid.get(tgid)
        if process is None:
            process = self._roster.add(Process(tgid, self._tallies.claim_cell(None, None), 0))
        if process.execd_ns:
            self._naming.open_name(process)
        comm = self._sideband.take_exec(tgid, process.start_ns, timestamp_ns)
        if comm is not None:
            process.note_exec()
        name = None
        if process.odd is MERE_STRANGER:
            process.odd = None
        odd = process.odd
        if odd is not None:
            # If another thread than the leader exec'd, it is the leader now. All others are gone.
            odd.threads = odd.named_threads = odd.thread_uids = None
            odd.leader_exited = odd.stranger = odd.glimpsed = False
            odd.leader_record = odd.fatal = odd.unsure_end = None
            name = odd.name
            if odd.group is not None:
                odd.group.exec(timestamp_ns)
        if self._grouping.is_active:
            self._grouping.execd.append(tgid)
        if comm is not None:
            self._naming.rename(process, comm, timestamp_ns)
            process.execd_ns = timestamp_ns
            self._naming.count_exec(process, process.cell)
            return
        process.execd_ns = timestamp_ns
        if name is not None:
            successor = self._naming.open_name(process)
            self._naming.look_later(self._naming.names.leave(name, process, timestamp_ns, successor))
        process.tidy()
        self._naming.look_later(process)
