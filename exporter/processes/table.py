"""Who lives, under which comm and uid; the way from events to tallies.

Events say which process forked, exec'd or ended, not what it was called. A child has its parent's comm and uid
until it changes them; UID and COMM events tell of changes; after an exec the comm is open (see names.py) until
the process's exit record or /proc tells it.

Nothing here raises on an event that does not fit: netlink loses messages, and then any order is possible.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from exporter.kernel.cn_proc import (
    PROC_EVENT_COMM,
    PROC_EVENT_COREDUMP,
    PROC_EVENT_EXEC,
    PROC_EVENT_EXIT,
    PROC_EVENT_FORK,
    PROC_EVENT_GID,
    PROC_EVENT_NONE,
    PROC_EVENT_PTRACE,
    PROC_EVENT_SID,
    PROC_EVENT_UID,
    ProcEvent,
    decode_comm,
    iter_proc_events,
)
from exporter.kernel.procfs import ProcessInfo
from exporter.kernel.taskstats import AGROUP, Record, decode_comm_uid
from exporter.processes.name_hints import HintsByEvent
from exporter.processes.observer import Journal
from exporter.processes.open_names import READING_SETTLES_NS, OpenCell, OpenName, OpenNames, Reading
from exporter.processes.waiting_records import WaitingRecords
from exporter.tallies.labels import UNKNOWN
from exporter.tallies.tallies import CPU_NS, LIFETIME_NS, MAX_RSS_KIB, Cell, Program, Tallies, observe

# Of a wait status: the exit code and the signal. The core bit makes no other series; the rest is nobody's.
_STATUS_BITS = 0xFF7F
_KTHREADD = 2
_LEADERLESS_REMEMBERED = 1024
# What no loss that anybody noticed explains must not pile up: records without an EXIT (twice as many as a receive
# buffer of the default size can hold), and processes that were overtaken.
_MOST_RECORDS = 1 << 18
_MOST_ALIASES = 1 << 12
_KTHREADD_COMM = b"kthreadd"
_LEADER_COMES_WITHIN_NS = 1_000_000_000

# The third item of a process: how its cell is to be understood.
_SETTLED = 0  # its cell
_OPEN = -1  # an OpenCell: name not known yet
_STRANGER = -2  # another name than its cell's, nothing counted under it yet; uid as the cell's
_PARENT_OF_STRANGERS = -3  # its cell; children do not inherit its name (kthreadd)
_PARENT_OF_CANARIES = -4  # its cell; children are canaries (this program)
# > 0: it exec'd at that time (ns), which is not counted yet; uid as the cell's

Process = tuple[Cell, int, int]
"""(cell, start in ns of CLOCK_MONOTONIC or 0 if not known, one of the above)"""


class KnownProcess(NamedTuple):
    """What one table knows of a process, for another one to go on with."""

    tgid: int
    comm: str | None
    """As it is printed; None if it is not known, or not yet."""
    uid: int | None
    start_ns: int
    leaderless: bool
    """The leader has exited, other threads live on."""
    threads: frozenset[int]
    """Besides the leader; known only where threads are followed."""


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


class ProcessTable:
    """The processes that live.

    Args:
        tallies: Where events are counted.
        read_comm: Looks a live process's comm up in /proc; None if it is gone.
        now_ns: CLOCK_MONOTONIC, to say when read_comm had answered.
        records_end_processes: Exit records come and mark the last thread of a process (AGROUP). Without, the
            threads are followed, and the last EXIT of a process is its end.
        own_tgid: This program's, whose children can be canaries.
        keeps: Remember who lives. Without, for events that do not tell when a process is gone.
        failures_only: Nothing tells of a thread that exits well, but the records of leaders that do so before
            their process ends.

    Attributes:
        events: How many were handled.
        unknown_events: Events of a kind that this release does not know.
        unknown_lifetimes: Processes that ended and whose start nobody knew.
        lost_ends: Processes taken off because they were gone although nothing told of their end.
        canaries_ended: EXITs of canaries, which are in no other count.
        canaries_recorded: Those of them that had an exit record.
        journal: Told of all that is counted; None if nobody wants to know.
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
    ) -> None:
        self._tallies = tallies
        self._read_comm = read_comm
        self._now_ns = now_ns
        self._follow_threads = not records_end_processes
        self._keeps = keeps
        self._failures_only = failures_only
        self._special = {_KTHREADD: _PARENT_OF_STRANGERS}
        if own_tgid is not None:
            self._special[own_tgid] = _PARENT_OF_CANARIES
        # Canaries that are on their way (None), or came back: with an exit record or without.
        self._canaries: dict[int, bool | None] = {}
        self.events = EventCounts()
        self.unknown_events = 0
        self.unknown_lifetimes = 0
        self.lost_ends = 0
        self.canaries_ended = self.canaries_recorded = 0
        self.journal: Journal | None = None
        self._nobody = Program(UNKNOWN)

        self._processes: dict[int, Process] = {}
        # By a pid that is another process's already: those that had it before and whose EXIT has not come yet,
        # each under an alias, a number that no process can have. And the pids of the aliases.
        self._overtaken: dict[int, list[int]] = {}
        self._pids: dict[int, int] = {}
        self._last_alias = 0
        # Threads besides the leader, of processes that have any. Kept only while threads are followed.
        self._threads: dict[int, set[int]] = {}
        # Processes whose leader has exited while other threads live on, with the leader's record.
        self._leaderless: dict[int, Record | None] = {}
        # Processes whose last thread has sent its EXIT before their leader, on another CPU, has sent its own: what
        # is known of the end. It waits for the leader's record, which has the process's name.
        self._unnamed_ends: dict[int, tuple[int, int, Record]] = {}
        self._records = WaitingRecords()
        self._open_names = OpenNames(tallies, self._settle)
        self._readings: HintsByEvent = {}
        # Processes that want a look into /proc after this batch.
        self._unread: list[int] = []
        # Processes taken from /proc, and when: events that are older than that came before what was read.
        self._adopted: dict[int, int] = {}
        # Those of them that have ended already: their EXIT is on its way, was before us, or was lost.
        self._adopted_zombies: dict[int, tuple[Process, bool]] = {}

    # -- records and readings come first ------------------------------------------------------------------------

    def add_records(self, records: Sequence[Record]) -> None:
        """Take exit records in; each waits for the EXIT event of its thread."""
        self._records.add(records)

    # -- the hot path -------------------------------------------------------------------------------------------

    def apply(  # noqa: PLR0912, PLR0915 - one loop without calls for the events that make up a storm
        self, chunks: Sequence[bytes], complete_until_ns: int, readings: HintsByEvent | None = None
    ) -> None:
        """Handle one drain of the connector.

        Args:
            chunks: Datagrams end to end, in the order of their arrival.
            complete_until_ns: All that happened before is in this batch or an earlier one (CLOCK_MONOTONIC).
            readings: Comms that were read as soon as an event arrived elsewhere.
        """
        self._readings = readings if readings is not None else {}
        if self.journal is not None:
            self._apply_each(chunks, self.journal)
            self._end_batch(complete_until_ns)
            self.journal.flush()
            return
        cell_of_record = self._tallies.claim_cell_of_record
        known_cell = self._tallies.by_record.get
        count_end = self._tallies.count_end
        processes = self._processes
        get = processes.get
        pop = processes.pop
        pop_record = self._records.oldest.pop
        later_records = self._records.later
        leaderless = self._leaderless
        threads = self._threads
        follow = self._follow_threads
        afterlife = self._open_names.afterlife
        overtaken = self._overtaken
        unread = self._unread.append
        forks = execs = exits = thread_exits = 0
        for chunk in chunks:
            for event in iter_proc_events(chunk):
                what, timestamp_ns, pid, tgid, third, fourth, _, parent_tgid = event
                if what == PROC_EVENT_FORK:
                    # pid and tgid are the parent's; third and fourth the child's.
                    if third != fourth:
                        self._thread_fork(third, fourth)
                        continue
                    forks += 1
                    parent = get(tgid)
                    if parent is not None and parent[2] == _SETTLED and pid == tgid and third not in processes:
                        cell = parent[0]
                        cell.forks += 1
                        processes[third] = (cell, timestamp_ns, _SETTLED)
                    else:
                        self._fork(pid, tgid, third, timestamp_ns)
                elif what == PROC_EVENT_EXIT:
                    if pid != tgid:
                        thread_exits += 1
                        if not later_records and not self._follow_threads:
                            record = pop_record(pid, None)
                            if record is None or not record[2] & AGROUP:
                                continue
                        else:
                            record = self._records.take(pid, third)
                        self._thread_exit(pid, tgid, third, timestamp_ns, record)
                        continue
                    exits += 1
                    if overtaken and pid in overtaken:
                        self._overtaken_exit(pid, third, timestamp_ns, parent_tgid)
                        continue
                    record = pop_record(pid, None) if not later_records else self._records.take(pid, third)
                    process = pop(pid, None)
                    if process is not None:
                        cell, start_ns, state = process
                        # The two ways that nearly all processes go, written out; _leader_exit has the others.
                        if record is not None:
                            if record[2] & AGROUP and state >= 0 and start_ns and pid not in leaderless:
                                _, _, _, cpu_ns, comm_uid, max_rss_kib, _ = record
                                cell = known_cell(comm_uid) or cell_of_record(comm_uid)
                                if state:
                                    cell.execs += 1
                                status = third & _STATUS_BITS
                                ends = cell.exits
                                if status in ends:
                                    ends[status] += 1
                                else:
                                    count_end(cell, status)
                                lifetime_ns = timestamp_ns - start_ns if timestamp_ns > start_ns else 0
                                histogram = cell.lifetime_ns
                                histogram[bisect_left(LIFETIME_NS, lifetime_ns)] += 1
                                histogram[-1] += lifetime_ns
                                histogram = cell.cpu_ns
                                histogram[bisect_left(CPU_NS, cpu_ns)] += 1
                                histogram[-1] += cpu_ns
                                histogram = cell.max_rss_kib
                                histogram[bisect_left(MAX_RSS_KIB, max_rss_kib)] += 1
                                histogram[-1] += max_rss_kib
                                continue
                        elif (
                            follow
                            and state == _SETTLED
                            and start_ns
                            and pid not in threads
                            and pid not in afterlife
                        ):
                            status = third & _STATUS_BITS
                            ends = cell.exits
                            if status in ends:
                                ends[status] += 1
                            else:
                                count_end(cell, status)
                            lifetime_ns = timestamp_ns - start_ns if timestamp_ns > start_ns else 0
                            histogram = cell.lifetime_ns
                            histogram[bisect_left(LIFETIME_NS, lifetime_ns)] += 1
                            histogram[-1] += lifetime_ns
                            continue
                        processes[pid] = process
                    self._leader_exit(pid, third, timestamp_ns, record)
                elif what == PROC_EVENT_EXEC:
                    execs += 1
                    process = get(tgid)
                    if (
                        process is not None
                        and process[2] == _SETTLED
                        and tgid not in leaderless
                        and tgid not in threads
                    ):
                        processes[tgid] = (process[0], process[1], timestamp_ns or 1)
                        unread(tgid)
                    else:
                        self._exec(tgid, timestamp_ns)
                else:
                    self._rare(event)
        counts = self.events
        counts.fork += forks
        counts.exec += execs
        counts.exit += exits
        counts.thread_exit += thread_exits
        self._end_batch(complete_until_ns)

    def _apply_each(self, chunks: Sequence[bytes], journal: Journal) -> None:
        """Do the same event by event, for somebody who wants to be told of each."""
        counts = self.events
        for chunk in chunks:
            for event in iter_proc_events(chunk):
                journal.begin(event)
                what, timestamp_ns, pid, tgid, third, fourth, _, parent_tgid = event
                if what == PROC_EVENT_FORK:
                    if third != fourth:
                        self._thread_fork(third, fourth)
                        journal.tell("thread_fork", timestamp_ns, fourth, self._cell_to_tell(fourth), pid=third)
                    else:
                        counts.fork += 1
                        self._fork(pid, tgid, third, timestamp_ns)
                elif what == PROC_EVENT_EXIT:
                    if pid != tgid:
                        counts.thread_exit += 1
                        journal.thread_exit(timestamp_ns, pid, tgid, third, self._cell_to_tell(tgid))
                        self._thread_exit(pid, tgid, third, timestamp_ns, self._records.take(pid, third))
                    else:
                        counts.exit += 1
                        if pid in self._overtaken:
                            self._overtaken_exit(pid, third, timestamp_ns, parent_tgid)
                        else:
                            self._leader_exit(pid, third, timestamp_ns, self._records.take(pid, third))
                elif what == PROC_EVENT_EXEC:
                    counts.exec += 1
                    self._exec(tgid, timestamp_ns)
                else:
                    self._rare(event)

    # -- forks --------------------------------------------------------------------------------------------------

    def _thread_fork(self, child_pid: int, child_tgid: int) -> None:
        # The event's parent is the process's own parent, not the thread's creator: the child tells its process.
        self.events.thread_fork += 1
        if self._follow_threads and self._keeps:
            self._threads.setdefault(child_tgid, set()).add(child_pid)

    def _fork(self, parent_pid: int, parent_tgid: int, child_tgid: int, timestamp_ns: int) -> None:
        if child_tgid in self._canaries:
            self.events.fork -= 1
            return
        if child_tgid in self._processes:
            adopted_ns = self._adopted.get(child_tgid)
            if adopted_ns is not None and timestamp_ns <= adopted_ns + READING_SETTLES_NS:
                # The scan met it before its FORK was applied, or even sent: a child is in /proc a moment earlier.
                self._remove(child_tgid)
            else:
                self._overtake(child_tgid, timestamp_ns)
        parent = self._processes.get(parent_tgid)
        if parent is None:
            # Its own FORK was lost, and no scan has found it yet.
            cell = self._tallies.claim_cell(None, None)
            cell.forks += 1
            if self.journal is not None:
                self.journal.fork(timestamp_ns, child_tgid, parent_tgid, cell)
            if self._keeps:
                self._processes[child_tgid] = (cell, timestamp_ns, _SETTLED)
            return
        if parent[2] > 0 or parent[2] == _STRANGER:
            parent = self._open(parent_tgid, parent)
        cell, _, state = parent
        cell.forks += 1
        if self.journal is not None:
            self.journal.fork(timestamp_ns, child_tgid, parent_tgid, cell)
        if parent_pid != parent_tgid or state == _PARENT_OF_STRANGERS:
            # The child has the comm of the forking *thread*, and a kernel thread is renamed without an event.
            self._processes[child_tgid] = (self._tallies.claim_cell(None, cell.uid), timestamp_ns, _STRANGER)
            self._unread.append(child_tgid)
            return
        if isinstance(cell, OpenCell):
            cell.open_name.carriers.add(child_tgid)
        self._processes[child_tgid] = (cell, timestamp_ns, _OPEN if state == _OPEN else _SETTLED)

    def _overtake(self, tgid: int, timestamp_ns: int) -> None:
        """A pid is used again before the EXIT of whoever had it came: that can be late on another CPU, or lost.

        A pid is free once its process is reaped, which can be before it sends its EXIT.
        """
        process = self._processes[tgid]
        if process[2] > 0 or process[2] == _STRANGER:
            process = self._open(tgid, process)
        self._last_alias -= 1
        alias = self._last_alias
        self._processes[alias] = self._processes.pop(tgid)
        if isinstance(process[0], OpenCell):
            self._open_names.move(process[0].open_name, tgid, alias, timestamp_ns)
        if tgid in self._leaderless:
            self._leaderless[alias] = self._leaderless.pop(tgid)
        if tgid in self._threads:
            self._threads[alias] = self._threads.pop(tgid)
        if tgid in self._unnamed_ends:
            self._unnamed_ends[alias] = self._unnamed_ends.pop(tgid)
        self._overtaken.setdefault(tgid, []).append(alias)
        self._pids[alias] = tgid

    def _overtaken_exit(self, tgid: int, status: int, timestamp_ns: int, parent_tgid: int) -> None:
        """An EXIT of a pid that had another owner, whose EXIT has not come, before the one it has now."""
        told = self._leaderless
        owners = [o for o in (*self._overtaken[tgid], tgid) if o in self._processes and o not in told] or [tgid]
        places = self._records.places(tgid, status)
        processes = self._processes
        younger = [o for o in owners if o in processes and processes[o][1] <= timestamp_ns]
        if parent_tgid and younger:
            # Whoever is reaped when he tells has no parent.
            owner = younger[-1]
            at = owners.index(owner) if owners.index(owner) in places else places[0]
        elif len(younger) < 2 or tgid not in self._records.oldest:
            owner, at = owners[0], places[0]
            if len(younger) > 1:
                # Nothing says whose it is: neither has a name any more, nor a uid unless it is the same.
                uids = {processes[other][0].uid for other in younger}
                for other in younger:
                    self._unname(other, next(iter(uids)) if len(uids) == 1 else None)
        else:
            at = places[0]
            owner = owners[min(at, len(owners) - 1)]
        self._leader_exit(owner, status, timestamp_ns, self._records.take_at(tgid, at))

    def _unname(self, tgid: int, uid: int | None) -> None:
        """Nobody can tell any more what a process is called."""
        process = self._processes[tgid]
        if process[2] > 0:
            process = self._open(tgid, process)
        cell, start_ns, _ = process
        self._processes[tgid] = (self._tallies.claim_cell(None, uid), start_ns, _SETTLED)
        if isinstance(cell, OpenCell):
            self._read_later(self._open_names.drop(cell.open_name, tgid))

    def _forget_alias(self, alias: int) -> None:
        tgid = self._pids.pop(alias)
        self._overtaken[tgid].remove(alias)
        if not self._overtaken[tgid]:
            del self._overtaken[tgid]

    def _owner_of_thread(self, pid: int, tgid: int) -> int:
        """Tell which of the processes that had a pid a thread belongs to that exits."""
        owners: list[int] = [*self._overtaken.get(tgid, ()), tgid]
        if self._follow_threads:
            return next((owner for owner in owners if pid in self._threads.get(owner, ())), tgid)
        # Only a process that a thread ends has a leader whose record does not mark its end.
        owners = [owner for owner in owners if owner not in self._unnamed_ends] or [tgid]
        for owner in owners:
            if owner in self._leaderless:
                return owner
        for owner, record in zip(owners, self._records.of(tgid), strict=False):
            if not record[2] & AGROUP:
                return owner
        return owners[0]

    # -- execs and renames --------------------------------------------------------------------------------------

    def _exec(self, tgid: int, timestamp_ns: int) -> None:
        timestamp_ns = timestamp_ns or 1
        # An exec from another thread than the leader: that thread is the leader now, all others are gone.
        self._leaderless.pop(tgid, None)
        self._threads.pop(tgid, None)
        process = self._processes.get(tgid)
        if process is None:
            self._processes[tgid] = (self._tallies.claim_cell(None, None), 0, timestamp_ns)
            self._unread.append(tgid)
            return
        cell, start_ns, state = process
        if state > 0:
            cell, start_ns, state = self._open(tgid, process)
        if not isinstance(cell, OpenCell):
            self._processes[tgid] = (cell, start_ns, timestamp_ns)
            self._unread.append(tgid)
            return
        successor = self._open_name(tgid, (cell, start_ns, timestamp_ns))
        self._leave(cell.open_name, tgid, timestamp_ns, successor)
        self._unread.append(tgid)

    def _rename(self, tgid: int, comm: bytes, timestamp_ns: int) -> None:
        process = self._processes.get(tgid)
        if process is None:
            if self._keeps:
                self._processes[tgid] = (self._tallies.claim_cell(comm, None), 0, _SETTLED)
            return
        if process[2] > 0:
            process = self._open(tgid, process)
        cell, start_ns, state = process
        self._processes[tgid] = (self._tallies.claim_cell(comm, cell.uid), start_ns, _SETTLED)
        if isinstance(cell, OpenCell):
            self._leave(cell.open_name, tgid, timestamp_ns, comm)
        elif state in (_PARENT_OF_STRANGERS, _PARENT_OF_CANARIES):
            self._processes[tgid] = (self._tallies.claim_cell(comm, cell.uid), start_ns, state)

    # -- names that are not known yet ---------------------------------------------------------------------------

    def _open(self, tgid: int, process: Process) -> Process:
        """Give a process that exec'd, or a stranger, a name of its own to count under."""
        self._open_name(tgid, process)
        return self._processes[tgid]

    def _open_name(self, tgid: int, process: Process) -> OpenName:
        cell, start_ns, state = process
        name = self._open_names.new(tgid)
        self._processes[tgid] = (name.cell(cell.uid), start_ns, _OPEN)
        if state > 0:
            self._count_exec(name.cell(cell.uid), state, tgid)
        read = self._readings.pop((tgid, state if state > 0 else start_ns), None)
        if read is not None:
            name.reading = Reading(tgid, *read)
        return name

    def _count_exec(self, cell: Cell, timestamp_ns: int, tgid: int) -> None:
        cell.execs += 1
        if self.journal is not None:
            self.journal.tell("exec", timestamp_ns, self._pids.get(tgid, tgid), cell)

    def _leave(self, name: OpenName, tgid: int, timestamp_ns: int, successor: OpenName | bytes) -> None:
        self._read_later(self._open_names.leave(name, tgid, timestamp_ns, successor))

    def _read_later(self, tgid: int | None) -> None:
        if tgid is not None:
            self._unread.append(tgid)

    def _settle(self, tgid: int, name: OpenName, comm: bytes | None) -> None:
        process = self._processes.get(tgid)
        # After a loss the pid can be another process's by now.
        if process is not None and isinstance(process[0], OpenCell) and process[0].open_name is name:
            self._processes[tgid] = (self._tallies.claim_cell(comm, process[0].uid), process[1], _SETTLED)

    def _end_batch(self, complete_until_ns: int) -> None:
        self._open_names.end_batch(complete_until_ns, self._processes.__contains__)
        for tgid, (status, timestamp_ns, record) in list(self._unnamed_ends.items()):
            if timestamp_ns + _LEADER_COMES_WITHIN_NS < complete_until_ns:
                # Its EXIT was before our time, or lost.
                del self._unnamed_ends[tgid]
                self._end(tgid, status, timestamp_ns, self._silent_leader(tgid), record)
        # Of failures alone, nothing tells of processes that end well: their leaders' records would stay for ever.
        self._records.keep(_LEADERLESS_REMEMBERED if self._failures_only else _MOST_RECORDS)
        while len(self._pids) > _MOST_ALIASES:
            self._remove(next(iter(self._pids)))
            self.lost_ends += 1
        if self._adopted:
            self._adopted = {tgid: at for tgid, at in self._adopted.items() if at >= complete_until_ns}
        if self._adopted_zombies:
            self._drop_adopted_zombies()
        unread, self._unread = dict.fromkeys(self._unread), []
        for tgid in unread:
            process = self._processes.get(tgid)
            if process is None:
                continue
            if process[2] > 0 or process[2] == _STRANGER:
                process = self._open(tgid, process)
            cell = process[0]
            if isinstance(cell, OpenCell) and cell.open_name.reading is None:
                comm = self._read_comm(tgid)
                newborn = process[1] + READING_SETTLES_NS > self._now_ns()
                if comm is None or (comm == _KTHREADD_COMM and newborn):
                    # Its EXIT is on the way, it is hidden, or it is a kernel thread yet to be renamed: look again.
                    self._unread.append(tgid)
                else:
                    cell.open_name.reading = Reading(tgid, comm, self._now_ns())

    # -- ends ---------------------------------------------------------------------------------------------------

    def _leader_exit(self, tgid: int, status: int, timestamp_ns: int, record: Record | None) -> None:
        """The EXIT of a thread-group leader: its process's end, unless other threads live on."""
        if tgid in self._canaries and tgid not in self._processes:
            self.events.exit -= 1
            self.canaries_ended += 1
            self.canaries_recorded += record is not None
            self._canaries[tgid] = record is not None
            return
        unnamed = self._unnamed_ends.pop(tgid, None)
        if unnamed is not None:
            self._end(tgid, *unnamed[:2], record, unnamed[2])
            return
        if record is not None and not self._follow_threads:
            lives_on = not record[2] & AGROUP
        else:
            # Where records mark the end, having none means that it was lost: this EXIT is taken for the end.
            lives_on = bool(self._threads.get(tgid))
        if lives_on:
            if not self._keeps and len(self._leaderless) >= _LEADERLESS_REMEMBERED:
                # Of failures alone, the end of such a process need not come.
                del self._leaderless[next(iter(self._leaderless))]
            self._leaderless[tgid] = record
        else:
            self._end(tgid, status, timestamp_ns, record, record)

    def _thread_exit(self, pid: int, tgid: int, status: int, timestamp_ns: int, record: Record | None) -> None:
        """The EXIT of another thread: its process's end, if it is the last one."""
        if self._overtaken:
            tgid = self._owner_of_thread(pid, tgid)
        if self._follow_threads:
            threads = self._threads.get(tgid)
            if threads is None:
                return
            threads.discard(pid)
            if threads:
                return
            del self._threads[tgid]
            if tgid not in self._leaderless:
                return
        elif record is None or not record[2] & AGROUP:
            return
        # The process has its leader's name, which the leader's record tells; the last record tells what it used.
        leader = self._leaderless.get(tgid) or self._silent_leader(tgid)
        if leader is None and tgid not in self._leaderless and record is not None and not self._follow_threads:
            self._unnamed_ends[tgid] = (status, timestamp_ns, record)
        else:
            self._end(tgid, status, timestamp_ns, leader, record)

    def _silent_leader(self, tgid: int) -> Record | None:
        """Return the record of a leader that has exited well, if nothing else tells of that."""
        if not self._failures_only:
            return None
        # Others may have had the pid before, and ended well.
        return next((record for record in reversed(self._records.of(tgid)) if not record[1]), None)

    def _end(self, tgid: int, status: int, timestamp_ns: int, leader: Record | None, last: Record | None) -> None:
        """Count the end of a process and forget it.

        Args:
            tgid: The process.
            status: Wait status of its last thread.
            timestamp_ns: When it ended.
            leader: The record of its leader, if there is one.
            last: The record of its last thread, if there is one.
        """
        self._open_names.reuse(tgid)
        pid = self._pids.get(tgid, tgid)
        process = self._processes.get(tgid)
        if process is not None and leader is None and (process[2] > 0 or process[2] == _STRANGER):
            process = self._name_at_end(process, timestamp_ns, tgid)
        self._forget(tgid)
        if leader is not None:
            cell = self._tallies.claim_cell_of_record(leader[4])
            if process is not None and process[2] > 0:
                self._count_exec(cell, process[2], pid)
        elif process is not None:
            cell = process[0]
        else:
            # A thread's comm need not be its process's.
            cell = self._tallies.claim_cell(None, None if last is None else decode_comm_uid(last[4])[1])
        self._tallies.count_end(cell, status & _STATUS_BITS)
        lifetime_ns: int | None = None
        if process is not None and process[1]:
            lifetime_ns = max(0, timestamp_ns - process[1])
        elif last is not None:
            lifetime_ns = last[6] * 1000
        if lifetime_ns is None:
            self.unknown_lifetimes += 1
        else:
            observe(cell.lifetime_ns, LIFETIME_NS, lifetime_ns)
        if last is not None:
            observe(cell.cpu_ns, CPU_NS, last[3])
            observe(cell.max_rss_kib, MAX_RSS_KIB, last[5])
        if process is not None and isinstance(process[0], OpenCell):
            recorded = None if leader is None else decode_comm_uid(leader[4])[0]
            self._read_later(self._open_names.bury(process[0].open_name, tgid, timestamp_ns, recorded))
        if self.journal is not None:
            # After its exec, which may just have got its name.
            self.journal.end(timestamp_ns, pid, status, cell, lifetime_ns=lifetime_ns, last=last)

    def _forget(self, tgid: int) -> None:
        self._processes.pop(tgid, None)
        self._leaderless.pop(tgid, None)
        self._threads.pop(tgid, None)
        if tgid in self._pids:
            self._forget_alias(tgid)
        if self._failures_only:
            self._records.forget_successes(tgid)

    def _name_at_end(self, process: Process, timestamp_ns: int, tgid: int) -> Process:
        """Name a process that ends, having exec'd or being a stranger, and left no record."""
        cell, start_ns, state = process
        key = (tgid, state if state > 0 else start_ns)
        read = self._readings.get(key)
        if read is None or timestamp_ns <= read[1]:
            return self._open(tgid, process)
        # What OpenNames.bury would find too, without a name to open and bury for each process of a storm.
        del self._readings[key]
        cell = self._tallies.claim_cell(read[0], cell.uid)
        if state > 0:
            self._count_exec(cell, state, tgid)
        return (cell, start_ns, _SETTLED)

    # -- everything that is rare --------------------------------------------------------------------------------

    def _rare(self, event: ProcEvent) -> None:
        what, timestamp_ns, pid, tgid, third, *_ = event
        if what == PROC_EVENT_NONE:
            # An acknowledgement, ours or another listener's.
            return
        counts = self.events
        if what == PROC_EVENT_COMM:
            counts.comm += 1
            if pid == tgid:
                self._rename(tgid, decode_comm(event), timestamp_ns)
            if self.journal is not None:
                uid = self._cell_to_tell(tgid).uid
                self.journal.rename(timestamp_ns, pid, tgid, uid, decode_comm(event))
        elif what == PROC_EVENT_UID:
            counts.uid += 1
            self._change_uid(event)
        elif what == PROC_EVENT_GID:
            counts.gid += 1
            self._tell("gid", event)
        elif what == PROC_EVENT_SID:
            counts.sid += 1
            self._tell("sid", event)
        elif what == PROC_EVENT_PTRACE:
            counts.ptrace += 1
            if third != 0:
                self._cell_to_count(tgid).ptrace_attaches += 1
                self._tell("ptrace", event)
        elif what == PROC_EVENT_COREDUMP:
            counts.coredump += 1
            self._cell_to_count(tgid).coredumps += 1
            self._tell("coredump", event)
        else:
            self.unknown_events += 1

    def _tell(self, name: str, event: ProcEvent) -> None:
        if self.journal is not None:
            _, timestamp_ns, pid, tgid, *_ = event
            self.journal.tell(name, timestamp_ns, tgid, self._cell_to_tell(tgid), pid=pid)

    def _cell_to_tell(self, tgid: int) -> Cell:
        """Return the cell of a process, a nameless one of no tally's if it has none of its own yet.

        Nothing is opened: being told must not change what is counted.
        """
        process = self._processes.get(tgid)
        if process is None or process[2] > 0 or process[2] == _STRANGER:
            return Cell(self._nobody, None if process is None else process[0].uid)
        return process[0]

    def _cell_to_count(self, tgid: int) -> Cell:
        process = self._processes.get(tgid)
        if process is None:
            return self._tallies.claim_cell(None, None)
        if process[2] > 0 or process[2] == _STRANGER:
            process = self._open(tgid, process)
        return process[0]

    def _change_uid(self, event: ProcEvent) -> None:
        _, timestamp_ns, pid, tgid, ruid, *_ = event
        cell = self._cell_to_count(tgid)
        if isinstance(cell, OpenCell):
            changed: Cell = cell.open_name.cell(ruid)
        else:
            changed = self._tallies.claim_sibling(cell, ruid)
        changed.uid_changes += 1
        process = self._processes.get(tgid)
        if pid == tgid and process is not None:
            self._processes[tgid] = (changed, process[1], process[2])
        if self.journal is not None:
            self.journal.tell("uid", timestamp_ns, tgid, changed, pid=pid)

    # -- what /proc knows of processes that nobody told of ------------------------------------------------------

    def adopt(self, tgid: int, info: ProcessInfo, start_ns: int, read_ns: int) -> None:
        """Take over what /proc says of a process, if the events have not said it.

        No events are applied from the first process adopted until READING_SETTLES_NS after the last: whatever
        makes a reading doubtful is then in the next batch.

        Args:
            tgid: The process.
            info: What was read.
            start_ns: When it started, in CLOCK_MONOTONIC; 0 if that is not known.
            read_ns: When it had been read.
        """
        if tgid in self._canaries:
            return
        if self._follow_threads:
            self._threads.pop(tgid, None)
            if info.threads:
                self._threads[tgid] = set(info.threads)
        if info.zombie and info.threads:
            self._leaderless.setdefault(tgid, None)
        known = self._processes.get(tgid)
        cell = self._tallies.claim_cell(info.comm, info.uid)
        process = known
        if process is None or (process[2] == _SETTLED and process[0] is not cell):
            state = self._special.get(tgid, _SETTLED)
            process = (cell, known[1] if known is not None and known[1] else start_ns, state)
            self._processes[tgid] = process
            self._adopted[tgid] = read_ns
        if info.zombie and not info.threads:
            self._adopted_zombies[tgid] = (process, known is not None)

    def doubt(self, chunks: Iterable[bytes]) -> None:
        """What was read of a process need not be what it was before an event that changed it.

        An event tells of a change that is made already: for a while before it, both can have been read.

        Args:
            chunks: All events since the first process was adopted; none of them has been applied.
        """
        adopted = self._adopted
        if not adopted:
            return
        for chunk in chunks:
            for event in iter_proc_events(chunk):
                what, timestamp_ns, pid, tgid, ruid, *_ = event
                read_ns = adopted.get(tgid)
                process = self._processes.get(tgid)
                if read_ns is None or process is None or pid != tgid or isinstance(process[0], OpenCell):
                    continue
                if timestamp_ns > read_ns + READING_SETTLES_NS:
                    continue
                cell, start_ns, state = process
                older = timestamp_ns <= read_ns
                if what == PROC_EVENT_EXEC or (
                    what == PROC_EVENT_COMM
                    and (older or self._tallies.claim_cell(decode_comm(event), cell.uid) is cell)
                ):
                    self._processes[tgid] = (cell, start_ns, _STRANGER)
                    self._unread.append(tgid)
                elif what == PROC_EVENT_UID and (older or ruid == cell.uid):
                    self._processes[tgid] = (self._tallies.claim_sibling(cell, None), start_ns, state)

    def _drop_adopted_zombies(self) -> None:
        for tgid, (process, known) in self._adopted_zombies.items():
            # If its EXIT was in this batch, it is gone, or its pid another process's.
            if self._processes.get(tgid) is process:
                self._remove(tgid)
                self.lost_ends += known
        self._adopted_zombies.clear()

    def _remove(self, tgid: int) -> None:
        process = self._processes[tgid]
        if process[2] > 0:
            process = self._open(tgid, process)
        cell = self._processes[tgid][0]
        self._forget(tgid)
        if isinstance(cell, OpenCell):
            self._read_later(self._open_names.drop(cell.open_name, tgid))

    def waiting_records(self) -> list[Record]:
        """All exit records whose EXIT has not come, those of one pid in their order."""
        return list(self._records)

    def missing(self, alive: Iterable[int]) -> list[int]:
        """Return the tgids that something is known of and that are not among those that live."""
        known = self._processes.keys() | self._threads.keys() | self._leaderless.keys()
        return list(known - set(alive))

    def forget(self, tgids: Iterable[int], listed_ns: int) -> None:
        """After a loss, take off what is gone although nothing told of it.

        Args:
            tgids: From missing, with what /proc listed.
            listed_ns: When it did. Everything older than that has been applied since.
        """
        for tgid in tgids:
            for owner in (*self._overtaken.get(tgid, ()), tgid):
                process = self._processes.get(owner)
                if process is None:
                    # Never known: its FORK was lost.
                    self._threads.pop(owner, None)
                    self._leaderless.pop(owner, None)
                elif process[1] < listed_ns:
                    self._remove(owner)
                    self.lost_ends += 1

    def oldest_record(self, pid: int) -> Record | None:
        """Return the record of a pid that has waited longest."""
        return self._records.oldest.get(pid)

    def forget_oldest_record(self, pid: int) -> None:
        """Throw away the record of a pid that has waited longest."""
        self._records.take_at(pid, 0)

    def lose_track(self) -> None:
        """Messages were lost: what was read of names that are still open may be of another exec.

        And the leader of a process that fails need not be the last one whose record came.
        """
        self._open_names.resolve_all_unknown()
        if self._failures_only:
            self._records.clear()

    # -- handing over -------------------------------------------------------------------------------------------

    def known(self) -> Iterator[KnownProcess]:
        """Tell what is known of each process, names that are still open as unknown.

        Of processes that lost their pid to another before they ended, nothing is told.
        """
        for tgid, (cell, start_ns, state) in self._processes.items():
            if tgid in self._pids:
                continue
            named = state in {_SETTLED, _PARENT_OF_STRANGERS, _PARENT_OF_CANARIES} and cell.comm != UNKNOWN
            yield KnownProcess(
                tgid,
                cell.comm if named else None,
                cell.uid,
                start_ns,
                tgid in self._leaderless,
                frozenset(self._threads.get(tgid, ())),
            )

    def recall(self, known: KnownProcess) -> None:
        """Take over what another table knew."""
        comm = None if known.comm is None else known.comm.encode()
        state = self._special.get(known.tgid, _SETTLED)
        self._processes[known.tgid] = (self._tallies.claim_cell(comm, known.uid), known.start_ns, state)
        if known.threads:
            self._threads[known.tgid] = set(known.threads)
        if known.leaderless:
            self._leaderless[known.tgid] = None

    # -- canaries -----------------------------------------------------------------------------------------------

    def expect_canary(self, tgid: int) -> None:
        """Leave a child of this program out of everything, and notice when it ends.

        Call it before the drain that can find the child's first event, and forget_canary before it is reaped: its
        pid can be another process's then.
        """
        self._canaries[tgid] = None

    def canary_returned(self, tgid: int) -> bool | None:
        """Tell whether a canary has ended, with an exit record (True) or without; None if it has not."""
        return self._canaries.get(tgid)

    def forget_canary(self, tgid: int) -> None:
        """Nothing tells of a canary any more."""
        self._canaries.pop(tgid, None)
        self._records.take_at(tgid, 0)

    def canaries(self) -> list[int]:
        """Return those that were not forgotten."""
        return list(self._canaries)

    # -- what it tells ------------------------------------------------------------------------------------------

    @property
    def waits(self) -> bool:
        """Something becomes known by another batch, even an empty one."""
        return bool(self._open_names) or bool(self._unnamed_ends)

    def live(self) -> dict[str, int]:
        """Count live processes by comm."""
        live: dict[str, int] = {}
        for cell, _, state in self._processes.values():
            comm = UNKNOWN if state == _STRANGER else cell.program.comm
            live[comm] = live.get(comm, 0) + 1
        return live

    def cells_in_use(self) -> set[Cell]:
        """Return the cells in which a live process can count."""
        return {process[0] for process in self._processes.values()}

    def pending(self) -> dict[str, int]:
        """Count the events that will be counted under a comm as soon as it is known, by kind."""
        return self._open_names.pending()
