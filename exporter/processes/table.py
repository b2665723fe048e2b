"""From events and exit records to counts: the hot loop, and what it leaves to others.

    exit records --> WaitingRecords ---+  (and LastThreads)
                                       v
    events --> ProcessTable.apply --> Exits --> Ends --+--> cells of the tallies
                       |                               v
                       +--> ForksAndExecs, Changes --> Naming --> OpenNames <-- looks into /proc
                       +--> Reconciler (scans of /proc, losses)

process.py opens with the states of a process. Nothing here raises on an event that does not fit: netlink loses
messages, and then any order is possible.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence

from exporter.kernel.cn_proc import PROC_EVENT_EXEC, PROC_EVENT_EXIT, PROC_EVENT_FORK, iter_proc_events
from exporter.kernel.taskstats import AGROUP, LastRecord, Record
from exporter.kernel.wait_status import SIGKILL, SIGNAL_BITS, STATUS_BITS
from exporter.processes.bad_ends import MOST_NOTES, BadEnds
from exporter.processes.canaries import Canaries
from exporter.processes.changes import Changes, EventCounts
from exporter.processes.ends import LEADERLESS_REMEMBERED, Ends
from exporter.processes.exits import Exits
from exporter.processes.forks_and_execs import ForksAndExecs
from exporter.processes.grouping import Grouping
from exporter.processes.last_threads import LastThreads
from exporter.processes.name_hints import HintsByEvent
from exporter.processes.naming import Naming
from exporter.processes.observer import Observer
from exporter.processes.oom_kills import OomKills
from exporter.processes.places import Places
from exporter.processes.process import MERE_STRANGER, Children, Process
from exporter.processes.reconcile import Reconciler
from exporter.processes.roster import Roster
from exporter.processes.shared import Shared
from exporter.processes.sideband import Sideband
from exporter.processes.waiting_records import WaitingRecords
from exporter.tallies.cells import Cell, Group
from exporter.tallies.labels import UNKNOWN
from exporter.tallies.tallies import Tallies

_KTHREADD = 2
# More than a receive buffer of the default size holds, with those of the events that wait: EXITs of further ones
# were lost.
_MOST_RECORDS = 150_000


class ProcessTable:
    """The processes that live.

    Args:
        tallies: Where events are counted.
        read_comm: Reads a live process's comm in /proc; None if it is gone.
        now_ns: CLOCK_MONOTONIC, for when read_comm had answered.
        records_end_processes: Exit records come and mark the last thread of a process (AGROUP). Without, the
            threads are followed, and the last EXIT of a process is its end.
        own_tgid: This program's, whose children can be canaries.
        keeps: Remember all processes. False where forks or ends are not delivered: what would be remembered of a
            process would never be forgotten.
        failures_only: No event comes of a thread that exits well, but the records of leaders that do so before
            their process ends.
        sideband: Side-band records come, which name each exec and the forker of each process.
        since_ns: All events since then come (CLOCK_MONOTONIC).
        places: Which group a placement is; None where groups are not asked for.
        oom_source: What says which processes the OOM killer chose; see OomKills.

    Attributes:
        sideband: Side-band records that wait for their event.
        records: Exit records that wait for their EXIT.
        last_threads: Those of last threads that are not leaders.
        observer: Gets each event.
        oom_kills: Knows which processes the OOM killer chose.
        bad_ends: Gets each end with a wait status other than 0.
        canaries: Children of this program that are in no other count.
        reconciler: Compares with /proc.
        grouping: Knows in which group a process is.
        missed_forks: Side-band records of forks whose FORK event never came.
        has_fast_ways: Nearly all events are handled in the loop. Without, none is: both have to come to the same.
    """

    def __init__(
        self,
        tallies: Tallies,
        read_comm: Callable[[int], bytes | None],
        now_ns: Callable[[], int],
        *,
        records_end_processes: bool,
        own_tgid: int | None = None,
        keeps: bool = True,
        failures_only: bool = False,
        sideband: bool = False,
        since_ns: int = 0,
        places: Places | None = None,
        oom_source: str = "",
    ) -> None:
        follow = not records_end_processes
        special = {_KTHREADD: Children.STRANGERS}
        if own_tgid is not None:
            special[own_tgid] = Children.CANARIES
        self._tallies = tallies
        self._follow_threads = follow
        self.missed_forks = 0
        self.has_fast_ways = True
        self._most_records = LEADERLESS_REMEMBERED if failures_only else _MOST_RECORDS
        self._roster = roster = Roster()
        self.records = records = WaitingRecords()
        records.on_stale = roster.note_dropped_record
        self.last_threads = LastThreads()
        self.sideband = Sideband(is_active=sideband, since_ns=since_ns)
        self.oom_kills = OomKills(tallies, roster.by_tgid, oom_source)
        self.observer = observer = Observer(tallies.groups.unknown, self.oom_kills)
        self.bad_ends = BadEnds(roster.by_tgid, self.oom_kills)
        self.canaries = canaries = Canaries(records)
        self._naming = naming = Naming(
            roster, tallies, observer, read_comm, now_ns, ends_are_recorded=records_end_processes
        )
        self.grouping = grouping = Grouping(roster, tallies, naming, places, self.sideband.mounts)
        shared = Shared(
            roster=roster,
            naming=naming,
            grouping=grouping,
            tallies=tallies,
            observer=observer,
            bad_ends=self.bad_ends,
            canaries=canaries,
            records=records,
            last_threads=self.last_threads,
            sideband=self.sideband,
            follow_threads=follow,
            keeps=keeps,
            failures_only=failures_only,
        )
        self._ends = Ends(shared)
        self._exits = Exits(shared, self._ends)
        self._forks_and_execs = ForksAndExecs(shared, self._ends)
        self._changes = Changes(shared)
        self.reconciler = Reconciler(shared, self._ends, special)

    # -- the hot path -------------------------------------------------------------------------------------------

    def apply(  # noqa: PLR0912, PLR0915 - one loop without calls for the events that make up a storm
        self, chunks: Iterable[bytes], complete_until_ns: int, hints: HintsByEvent | None = None
    ) -> None:
        """Handle one drain of the connector.

        Args:
            chunks: Datagrams end to end, in the order of their arrival.
            complete_until_ns: All that happened before is in this batch or an earlier one (CLOCK_MONOTONIC).
            hints: Comms that were read as soon as an event arrived elsewhere; what is used is taken out.
        """
        forks_and_execs, exit_events, changes = self._forks_and_execs, self._exits, self._changes
        naming = self._naming
        naming.hints = {} if hints is None else hints
        processes = self._roster.by_tgid
        late_of = self._roster.late_of
        oldest_records, later_records = self.records.oldest, self.records.later
        aged_records, last_threads = self.records.aged, self.last_threads.by_tgid
        claim_cell_of_record = self._tallies.claim_cell_of_record
        claim_cell = self._tallies.claim_cell
        nameless: dict[tuple[int | None, Group], Cell] = {}
        count_end = self._tallies.count_end
        lifetime_bounds, cpu_bounds, rss_bounds = self._tallies.bounds
        graves = naming.names.graves
        follow = self._follow_threads
        observer = self.observer
        observed = observer.is_active
        # A fast way that looks into an empty dict finds nothing.
        usual: dict[int, Process] = processes if self.has_fast_ways else {}
        each_thread = follow or observed or not self.has_fast_ways or bool(self.records.recalled)
        get, pop = usual.get, usual.pop
        pop_record = oldest_records.pop
        # Where threads are followed no record says whether its thread is the last.
        marked_records: dict[int, Record] = {} if follow else oldest_records
        get_record, replaced = marked_records.get, exit_events.replaced
        unread = naming.unread.append
        grouped, look_where = self.grouping.is_active, self.grouping.execd.append
        new, stranger, inherit = object.__new__, MERE_STRANGER, Children.INHERIT
        sideband = self.sideband
        sided = sideband.is_active
        exec_records, later_exec_records = sideband.execs.first, sideband.execs.later
        pop_fork_record = sideband.forks.first.pop
        later_fork_records = sideband.forks.later
        claim_cell_of_exec = self._tallies.claim_cell_of_exec
        bad_ends = self.bad_ends
        notes = bad_ends.notes
        note_bad_end = notes.append if bad_ends.is_active else None
        note_all = bad_ends.takes_all
        forks = execs = exits = thread_forks = thread_exits = 0
        for chunk in chunks:
            for event in iter_proc_events(chunk):
                what, timestamp_ns, pid, tgid, third, fourth, _, parent_tgid = event
                if what == PROC_EVENT_FORK:
                    # pid and tgid are the parent's; third and fourth the child's.
                    if third != fourth:
                        thread_forks += 1
                        if each_thread:
                            forks_and_execs.thread_fork(event)
                        continue
                    parent = get(tgid)
                    fork_record = pop_fork_record(third, None) if sided else None
                    if (
                        parent is not None
                        and (
                            (odd := parent.odd) is None
                            or (
                                not sided
                                and odd.name is not None
                                and odd.group is None
                                and odd.children is inherit
                            )
                        )
                        and not parent.execd_ns
                        and pid == tgid
                        and third not in processes
                        and (
                            not sided
                            or (fork_record is not None and fork_record[3] == tgid and not later_fork_records)
                        )
                        and not (aged_records and third in aged_records)
                    ):
                        forks += 1
                        child = new(Process)
                        child.tgid = third
                        child.cell = cell = parent.cell
                        child.start_ns = timestamp_ns
                        child.execd_ns = 0
                        child.odd = None
                        child.before = None
                        cell.forks += 1
                        processes[third] = child
                        if observed:
                            observer.fork(timestamp_ns, third, tgid, cell)
                        if odd is not None:
                            # See ForksAndExecs.fork: its comm need not be its parent's.
                            key = cell.uid, cell.group
                            child.cell = nameless.get(key) or nameless.setdefault(key, claim_cell(None, *key))
                            child.odd = stranger
                            unread(third)
                    else:
                        forks += forks_and_execs.fork(event, fork_record)
                elif what == PROC_EVENT_EXIT:
                    if pid != tgid:
                        thread_exits += 1
                        if tgid in last_threads or each_thread:
                            exit_events.thread_exit(event)
                            continue
                        process = get(tgid)
                        if process is not None and process.odd is not None:
                            exit_events.pass_thread(process, event)
                        continue
                    if replaced and pid in replaced and exit_events.pass_replaced_leader(event):
                        exits += 1
                        continue
                    if late_of and pid in late_of:
                        exits += exit_events.late_exit(event)
                        continue
                    record = pop_record(pid, None) if not later_records else self.records.take(pid, third)
                    process = pop(pid, None)
                    if process is not None:
                        start_ns = process.start_ns
                        # The two ways that nearly all processes go, written out; Ends.end has all.
                        if record is not None:
                            _, recorded, flags, cpu_ns, comm_uid, max_rss_kib, _ = record
                            if (
                                ((odd := process.odd) is None or odd is stranger)
                                and flags & AGROUP
                                and recorded == third
                                and start_ns
                                and not (sided and pid in exec_records)
                                and not (graves and pid in graves)
                            ):
                                exits += 1
                                known_cell = process.cell.known_record
                                cell = known_cell(comm_uid) or claim_cell_of_record(comm_uid, process.cell.group)
                                if process.execd_ns:
                                    if third & SIGNAL_BITS:
                                        # See Ends: an exec that failed may have changed the comm.
                                        key = cell.uid, cell.group
                                        execd_cell = nameless.get(key) or nameless.setdefault(
                                            key, claim_cell(None, *key)
                                        )
                                    else:
                                        execd_cell = cell
                                    execd_cell.execs += 1
                                    if observed:
                                        observer.exec(process.execd_ns, pid, execd_cell)
                                status = third & STATUS_BITS
                                statuses = cell.exits
                                if status in statuses:
                                    statuses[status] += 1
                                else:
                                    count_end(cell, status)
                                lifetime_ns = timestamp_ns - start_ns if timestamp_ns > start_ns else 0
                                histogram = cell.lifetime_ns
                                histogram[bisect_left(lifetime_bounds, lifetime_ns)] += 1
                                histogram[-1] += lifetime_ns
                                histogram = cell.cpu_ns
                                histogram[bisect_left(cpu_bounds, cpu_ns)] += 1
                                histogram[-1] += cpu_ns
                                histogram = cell.max_rss_kib
                                histogram[bisect_left(rss_bounds, max_rss_kib)] += 1
                                histogram[-1] += max_rss_kib
                                if observed:
                                    exit_events.publish(event, cell, lifetime_ns, record)
                                if status and note_bad_end is not None and (note_all or status == SIGKILL):
                                    # As BadEnds.note.
                                    parent = processes.get(parent_tgid)
                                    if parent is not None and (parent.execd_ns or parent.odd is not None):
                                        parent = None if parent.needs_name else parent
                                    note_bad_end((
                                        cell, third, timestamp_ns, pid, parent_tgid,
                                        None if parent is None else parent.cell, lifetime_ns, cpu_ns, max_rss_kib,
                                        process.before, process.cell if process.execd_ns else None,
                                    ))  # fmt: skip
                                continue
                        elif (
                            follow
                            and process.odd is None
                            and not process.execd_ns
                            and start_ns
                            and not (sided and pid in exec_records)
                            and not (graves and pid in graves)
                        ):
                            exits += 1
                            cell = process.cell
                            status = third & STATUS_BITS
                            statuses = cell.exits
                            if status in statuses:
                                statuses[status] += 1
                            else:
                                count_end(cell, status)
                            lifetime_ns = timestamp_ns - start_ns if timestamp_ns > start_ns else 0
                            histogram = cell.lifetime_ns
                            histogram[bisect_left(lifetime_bounds, lifetime_ns)] += 1
                            histogram[-1] += lifetime_ns
                            if observed:
                                exit_events.publish(event, cell, lifetime_ns, None)
                            if status and note_bad_end is not None:
                                bad_ends.note(event, process, cell, None, lifetime_ns)
                            continue
                        processes[pid] = process
                    if record is not None and record[1] != third:
                        # Of another process that had the pid: its own was lost.
                        self.records.put_back(record)
                        record = None
                    exits += exit_events.leader_exit(processes.get(pid), event, record)
                elif what == PROC_EVENT_EXEC:
                    execs += 1
                    if (waiting := get_record(tgid)) is not None and not waiting[2] & AGROUP:
                        exit_events.drop_replaced_leader(event, waiting)
                    process = get(tgid)
                    if process is not None and process.odd is None and not process.execd_ns:
                        if sided and tgid in exec_records:
                            record_ns, _, comm = exec_records[tgid]
                            if tgid in later_exec_records or not process.start_ns < record_ns <= timestamp_ns:
                                forks_and_execs.exec(event)
                                continue
                            del exec_records[tgid]
                            cell = process.cell
                            if process.before is None:
                                process.before = cell
                            else:
                                process.note_exec()
                            uid, known_exec = cell.uid, cell.known_exec
                            cell = known_exec((comm, uid)) or claim_cell_of_exec(comm, uid, cell.group)
                            process.cell = cell
                            cell.execs += 1
                            if observed:
                                observer.exec(timestamp_ns, tgid, cell)
                            if grouped:
                                look_where(tgid)
                            continue
                        process.execd_ns = timestamp_ns or 1
                        unread(tgid)
                        if grouped:
                            look_where(tgid)
                    else:
                        forks_and_execs.exec(event)
                else:
                    changes.apply(event)
            if len(notes) >= MOST_NOTES:
                bad_ends.sift()
        counts = changes.counts
        counts.fork += forks
        counts.exec += execs
        counts.exit += exits
        counts.thread_fork += thread_forks
        counts.thread_exit += thread_exits
        self._end_batch(complete_until_ns)
        if note_bad_end is not None:
            bad_ends.end_batch(complete_until_ns)
        observer.flush()

    def hand_on_killed(self, applied_ns: int) -> None:
        """Hand on the ends by SIGKILL that are decided by now; all events until then have been applied."""
        self.bad_ends.end_batch(applied_ns)
        self.observer.flush()

    def _end_batch(self, complete_until_ns: int) -> None:
        self._naming.names.end_batch(complete_until_ns, self._roster.by_tgid)
        self._ends.end_batch(complete_until_ns)
        # Of failures alone, no event comes of processes that end well: their leaders' records would stay for ever.
        self.records.keep(self._most_records)
        self.records.age(complete_until_ns)
        self.last_threads.keep(self._most_records)
        self.last_threads.age(complete_until_ns)
        if self.sideband.is_active:
            self.missed_forks += self.sideband.end_batch(complete_until_ns)
        self.reconciler.end_batch(complete_until_ns)
        if self.grouping.is_active:
            self.grouping.end_batch(complete_until_ns)
        self._naming.look(complete_until_ns)

    # -- exit records ---------------------------------------------------------------------------------------------

    def add_records(self, records: Sequence[Record], last_threads: Sequence[LastRecord]) -> None:
        """Take exit records in; each waits for the EXIT event of its thread."""
        self.records.add(records)
        self.last_threads.add(last_threads)

    def recall_record(self, record: Record | LastRecord, *, leads: bool) -> None:
        """Take in an exit record that waited elsewhere.

        Args:
            record: Of either kind; the two differ in their length.
            leads: Its thread is known to lead its process, or to be its last. Captures of 0.1.0 do not say that.
        """
        if len(record) == 8:
            self.last_threads.add([record])
        elif leads or self._follow_threads:
            self.records.add([record])
        else:
            self.records.recall(record)

    # -- what is known ------------------------------------------------------------------------------------------

    @property
    def events(self) -> EventCounts:
        """How many events were handled, by kind."""
        return self._changes.counts

    @property
    def unknown_events(self) -> int:
        """Events of a kind that this release does not know."""
        return self._changes.unknown_events

    @property
    def uncounted_losses(self) -> int:
        """How many events are lost, or seem to be, although the kernel has not counted them.

        Each is a reason to compare with /proc.
        """
        records, last_threads = self.records, self.last_threads
        of_records = records.stale + records.overdue + last_threads.stale + last_threads.overdue
        return of_records + self.reconciler.overdue

    @property
    def missed_events(self) -> dict[str, int]:
        """How many events did not come although a record shows that they were due, by kind."""
        exits = self.records.missed + self.last_threads.missed
        return {"fork": self.missed_forks, "exec": self.sideband.missed_execs, "exit": exits}

    @property
    def unknown_lifetimes(self) -> int:
        """Processes that ended and whose start was not known."""
        return self._ends.unknown_lifetimes

    @property
    def lost_ends(self) -> int:
        """Processes taken off because they were gone although their EXIT had not come."""
        return self._ends.lost_ends

    @property
    def waits(self) -> bool:
        """Something becomes known by another batch, even an empty one."""
        return self._naming.waits or self._ends.waits or self.grouping.waits or self.oom_kills.waits

    def live(self) -> dict[str, int]:
        """Count live processes by comm."""
        live: dict[str, int] = {}
        for process in self._roster:
            odd = process.odd
            if odd is not None and odd.glimpsed:
                continue
            comm = UNKNOWN if odd is not None and odd.stranger else process.cell.program.comm
            live[comm] = live.get(comm, 0) + 1
        return live

    def live_in_groups(self) -> dict[tuple[str, tuple[str, ...]], int]:
        """Count live processes by comm and the values of the labels of their group."""
        live: dict[tuple[str, tuple[str, ...]], int] = {}
        unknown = self._tallies.groups.unknown.values
        for process in self._roster:
            odd = process.odd
            if odd is not None and odd.glimpsed:
                continue
            cell = process.cell
            comm = UNKNOWN if odd is not None and odd.stranger else cell.program.comm
            key = comm, unknown if cell.home.is_open else cell.home.values
            live[key] = live.get(key, 0) + 1
        return live

    def cells_in_use(self) -> set[Cell]:
        """Return the cells in which a live process can count."""
        return {process.cell for process in self._roster}

    def pending(self) -> dict[str, int]:
        """Count the events that will be counted as soon as their comm and group are known, by kind."""
        waiting = self._naming.names.pending()
        return {event: waiting[event] + count for event, count in self._tallies.pending().items()}
