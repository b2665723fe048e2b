"""What changes of a process that lives on: its comm, its uids, its session, its tracer; and that it dumps core."""

from dataclasses import dataclass

from exporter.kernel.cn_proc import (
    PROC_EVENT_COMM,
    PROC_EVENT_COREDUMP,
    PROC_EVENT_GID,
    PROC_EVENT_NONE,
    PROC_EVENT_PTRACE,
    PROC_EVENT_SID,
    PROC_EVENT_UID,
    ProcEvent,
    decode_comm,
)
from exporter.processes.process import Process
from exporter.processes.shared import Shared
from exporter.processes.thread_uids import ThreadUids
from exporter.tallies.cells import Cell


@dataclass(slots=True)
class EventCounts:
    """How many events of each kind were handled, by the value of the label `event`."""

    fork: int = 0
    exec: int = 0
    exit: int = 0
    thread_fork: int = 0
    thread_exit: int = 0
    uid: int = 0
    gid: int = 0
    sid: int = 0
    ptrace: int = 0
    comm: int = 0
    coredump: int = 0


class Changes:
    """Applies events that are neither forks, execs nor exits.

    Args:
        shared: The table's parts.

    Attributes:
        counts: How many events were handled. The hot loop adds its own.
        unknown_events: Events of a kind that this release does not know.
    """

    def __init__(self, shared: Shared) -> None:
        self._roster = shared.roster
        self._naming = shared.naming
        self._grouping = shared.grouping
        self._tallies = shared.tallies
        self._observer = shared.observer
        self._sideband = shared.sideband
        self._follow_threads = shared.follow_threads
        self._keeps = shared.keeps
        self.counts = EventCounts()
        self.unknown_events = 0

    def apply(self, event: ProcEvent) -> None:
        """Take an event that is neither a fork, an exec nor an exit."""
        what, _, pid, tgid, third, *_ = event
        counts, naming, observer = self.counts, self._naming, self._observer
        if what == PROC_EVENT_COMM:
            counts.comm += 1
            comm = decode_comm(event)
            if pid == tgid:
                self._rename(tgid, comm, event[1])
            elif self._follow_threads:
                self._name_thread(pid, tgid)
            if observer.is_active:
                cell = naming.cell_to_show(tgid)
                shown = self._tallies.shown_comm(comm, cell.uid)
                if shown is not None:
                    observer.rename(event, cell, shown)
        elif what == PROC_EVENT_UID:
            counts.uid += 1
            observer.event("uid", event, self._change_uid(pid, tgid, third))
        elif what == PROC_EVENT_GID:
            counts.gid += 1
            observer.event("gid", event, naming.cell_to_show(tgid))
        elif what == PROC_EVENT_SID:
            counts.sid += 1
            self._grouping.begin_session(tgid, event[1])
            observer.event("sid", event, naming.cell_to_show(tgid))
        elif what == PROC_EVENT_PTRACE:
            counts.ptrace += 1
            self._trace(event)
        elif what == PROC_EVENT_COREDUMP:
            counts.coredump += 1
            self._dump_core(event)
        elif what != PROC_EVENT_NONE:
            # NONE is an acknowledgement, ours or another listener's.
            self.unknown_events += 1

    def _name_thread(self, pid: int, tgid: int) -> None:
        process = self._roster.by_tgid.get(tgid)
        odd = None if process is None else process.odd
        if odd is not None and odd.threads and pid in odd.threads:
            if odd.named_threads is None:
                odd.named_threads = set()
            odd.named_threads.add(pid)

    def _rename(self, tgid: int, comm: bytes, timestamp_ns: int) -> None:
        process = self._roster.by_tgid.get(tgid)
        if process is not None and not process.is_glimpsed:
            if tgid in self._sideband.execs.first:
                # One that execs cannot rename itself before its EXEC is sent: that was lost.
                self._sideband.missed_execs += len(self._sideband.end(tgid, process.start_ns, timestamp_ns))
            self._naming.rename(process, comm, timestamp_ns)
        elif self._keeps:
            cell = self._tallies.claim_cell(comm, None, None if process is None else process.cell.group)
            if process is None:
                self._roster.add(Process(tgid, cell, 0))
            else:
                process.make_odd().glimpsed = False
                process.settle(cell)

    def _trace(self, event: ProcEvent) -> None:
        """Count a process that begins to be traced: once, although its tracer attaches to each of its threads."""
        _, _, _, tgid, _, tracer_tgid, *_ = event
        process = self._roster.by_tgid.get(tgid)
        odd = None if process is None else process.odd
        is_traced = odd is not None and odd.tracer_tgid == tracer_tgid
        if process is not None:
            # A tracer of 0 is the end of tracing.
            process.make_odd().tracer_tgid = tracer_tgid
            process.tidy()
        if tracer_tgid and not is_traced:
            cell = self._naming.cell_to_count(tgid)
            cell.ptrace_attaches += 1
            self._observer.event("ptrace", event, cell)

    def _dump_core(self, event: ProcEvent) -> None:
        """Count a process that dumps core: once, although several of its threads may crash at the same time."""
        tgid = event[3]
        process = self._roster.by_tgid.get(tgid)
        if process is not None:
            odd = process.make_odd()
            if odd.dumped_ns:
                return
            odd.dumped_ns = event[1] or 1
            self._naming.part_names(process, event[1])
        cell = self._naming.cell_to_count(tgid)
        cell.coredumps += 1
        self._observer.event("coredump", event, cell, ppid=event[5])

    def _change_uid(self, pid: int, tgid: int, ruid: int) -> Cell:
        """Take a change of uid of a thread, and return the cell of the new uid.

        The C library changes the uid of all threads of a process, one after the other, in any order: that is one
        change. A thread that changes its own alone leaves the process's, which is the leader's.
        """
        cell = self._naming.cell_to_count(tgid)
        process = self._roster.by_tgid.get(tgid)
        if process is not None and process.is_glimpsed:
            process = None
        name = None if process is None else process.open_name
        changed = self._tallies.claim_sibling(cell, ruid) if name is None else name.cell(ruid, cell.group)
        uids = None if process is None or process.odd is None else process.odd.thread_uids
        if not (uids and uids.has(ruid)) and (pid == tgid or process is None or ruid != process.cell.uid):
            changed.uid_changes += 1
        if process is not None:
            uids = uids or ThreadUids()
            if pid == tgid:
                process.cell = changed
                uids.forget_all_with(process.cell.uid)
            elif ruid != process.cell.uid:
                uids.set(pid, ruid)
            else:
                uids.forget(pid)
            process.make_odd().thread_uids = uids or None
            process.tidy()
        return changed
