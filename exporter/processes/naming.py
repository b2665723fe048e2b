"""When a comm is opened, looked up and given.

A process that exec'd, or a stranger, keeps its old cell until something has to be counted under the new comm. Then
a name is opened for it (`Naming.open_name`), unless the comm is known by then: from its exit record, or from a
hint that was read when the event arrived. At the end of each batch the processes whose comm is still open are read
in /proc.
"""

from collections.abc import Callable

from exporter.processes.name_hints import HintsByEvent
from exporter.processes.observer import Observer
from exporter.processes.open_names import READING_SETTLES_NS, OpenNames
from exporter.processes.process import MERE_STRANGER, OpenName, Process, Reading
from exporter.processes.roster import Roster
from exporter.tallies.cells import Cell, Program
from exporter.tallies.labels import UNKNOWN
from exporter.tallies.tallies import Tallies

_KTHREADD_COMM = b"kthreadd"
# So many looks into /proc take some milliseconds, in which nothing is counted.
_MOST_LOOKS = 1024
# Of those that were just forked and most likely end soon, where the exit record of each then has its comm.
_MOST_LOOKS_AT_NEWBORN = 8


class Naming:
    """Opens names for processes, and looks for what they are.

    Args:
        roster: All processes.
        tallies: Have the cells.
        observer: Gets each exec when it is counted.
        read_comm: Reads a live process's comm in /proc; None if it is gone.
        now_ns: CLOCK_MONOTONIC, for when read_comm had answered.
        ends_are_recorded: Each process that ends leaves a record with its comm.

    Attributes:
        names: Those that are open.
        hints: Comms that were read as soon as an event arrived elsewhere; used ones are taken out.
        unread: The tgids of processes that are to be read in /proc after this batch.
    """

    def __init__(
        self,
        roster: Roster,
        tallies: Tallies,
        observer: Observer,
        read_comm: Callable[[int], bytes | None],
        now_ns: Callable[[], int],
        *,
        ends_are_recorded: bool,
    ) -> None:
        self._roster = roster
        self._ends_are_recorded = ends_are_recorded
        self._tallies = tallies
        self._observer = observer
        self._read_comm = read_comm
        self._now_ns = now_ns
        self._nameless = Program(UNKNOWN)
        self.names = OpenNames(tallies)
        self.hints: HintsByEvent = {}
        self.unread: list[int] = []
        self._has_put_off = False

    def open_name(self, process: Process) -> OpenName:
        """Give a process that exec'd, or a stranger, a name of its own to count under."""
        hint = self.hints.pop((process.tgid, process.execd_ns or process.start_ns), None)
        if process.execd_ns:
            process.note_exec()
        name = self._carry_new_name(process)
        if process.execd_ns:
            self.count_exec(process, process.cell)
        if hint is not None:
            name.reading = Reading(process, *hint)
        return name

    def part_names(self, process: Process, timestamp_ns: int) -> None:
        """Give a process that dumps core a name apart from that of its last exec, if that is not known yet.

        An exec that fails after the point of no return has changed the comm, and ends its process by a signal that
        dumps core. What it is called now can be another name than that of its last EXEC.
        """
        if process.needs_name:
            self.open_name(process)
        name = process.open_name
        if name is not None:
            successor = self._carry_new_name(process)
            self.look_later(self.names.leave(name, process, timestamp_ns, successor))
            self.look_later(process)

    def _carry_new_name(self, process: Process) -> OpenName:
        name = self.names.new(process)
        process.cell = name.cell(process.cell.uid, process.cell.group)
        odd = process.make_odd()
        odd.name = name
        odd.stranger = False
        return name

    def count_exec(self, process: Process, cell: Cell) -> None:
        """Count the exec of a process whose comm has a cell now."""
        cell.execs += 1
        self._observer.exec(process.execd_ns, process.tgid, cell)
        process.execd_ns = 0

    def name_at_end(self, process: Process, timestamp_ns: int, *, killed: bool) -> None:
        """Name a process that ends, having exec'd or being a stranger, and left no record.

        A hint that is older than the end is the name: that is what `OpenNames.bury` would find too, without a name
        to open and bury for each process of a storm.
        """
        key = (process.tgid, process.execd_ns or process.start_ns)
        hint = self.hints.get(key)
        if hint is None or timestamp_ns <= hint.read_ns:
            self.open_name(process)
            return
        del self.hints[key]
        if process.execd_ns:
            process.note_exec()
        uid, group = process.cell.uid, process.cell.group
        process.settle(self._tallies.claim_cell(hint.comm, uid, group))
        if process.execd_ns:
            is_certain = not killed or timestamp_ns > hint.read_ns + READING_SETTLES_NS
            self.count_exec(process, process.cell if is_certain else self._tallies.claim_cell(None, uid, group))

    def close_name(self, process: Process, timestamp_ns: int, *, killed: bool) -> None:
        """Name a process that may have ended and left no record: what is read from now on is not believed."""
        if process.needs_name:
            self.name_at_end(process, timestamp_ns, killed=killed)
        name = process.open_name
        if name is not None:
            self.look_later(self.names.bury(name, process, timestamp_ns, None, killed=killed))
            name.when_known(lambda cell_of: process.settle(cell_of(process.cell.uid, process.cell.group)))

    def cell_at_end(self, process: Process, timestamp_ns: int, *, killed: bool) -> Cell:
        """Return the cell of a process that ends and left no record.

        Of one that was killed what was read last is its comm, even if that need not be the name that is open.
        """
        name = process.open_name
        reading = None if name is None else name.reading
        if killed and reading is not None and reading.process is process and reading.read_ns < timestamp_ns:
            return self._tallies.claim_cell(reading.comm, process.cell.uid, process.cell.group)
        return process.cell

    def rename(self, process: Process, comm: bytes, timestamp_ns: int) -> None:
        """Give a process the comm that a COMM event has."""
        if process.execd_ns:
            self.open_name(process)
        name = process.open_name
        process.settle(self._tallies.claim_cell(comm, process.cell.uid, process.cell.group))
        if name is not None:
            self.look_later(self.names.leave(name, process, timestamp_ns, comm))

    def unname(self, process: Process, uid: int | None) -> None:
        """Call a process unknown: nothing can say any more what it is called."""
        if process.execd_ns:
            self.open_name(process)
        name = process.open_name
        process.settle(self._tallies.claim_cell(None, uid, process.cell.group))
        if name is not None:
            self.look_later(self.names.drop(name, process))

    def look_later(self, process: Process | None) -> None:
        """Read a process in /proc at the end of this batch."""
        if process is not None:
            self.unread.append(process.tgid)

    @property
    def waits(self) -> bool:
        """Whether a name is open, or there was no time yet to open one."""
        return bool(self.names) or self._has_put_off

    def is_gone(self, tgid: int) -> bool:
        """Look into /proc whether a process has been reaped."""
        return self._read_comm(tgid) is None

    def cell_to_count(self, tgid: int) -> Cell:
        """Return the cell in which an event of a process counts that is not its end."""
        process = self._roster.by_tgid.get(tgid)
        if process is None or process.is_glimpsed:
            return self._tallies.claim_cell(None, None)
        if process.needs_name:
            self.open_name(process)
        return process.cell

    def cell_to_show(self, tgid: int) -> Cell:
        """Return the cell of a process, a nameless one of no tally's if it has none of its own yet.

        Nothing is opened: to observe must not change what is counted.
        """
        process = self._roster.by_tgid.get(tgid)
        if process is None or process.is_glimpsed or process.needs_name:
            if process is None:
                return Cell(self._nameless, None, self._tallies.groups.unknown)
            return Cell(self._nameless, process.cell.uid, process.cell.group)
        return process.cell

    def look(self, complete_until_ns: int) -> None:
        """Read the processes in /proc whose comm is still open; of very many, the rest after the next batch.

        Args:
            complete_until_ns: All events before that have been applied. A capture has that, and no clock.
        """
        unread = dict.fromkeys(self.unread)
        self.unread.clear()
        self._has_put_off = False
        looks = _MOST_LOOKS
        looks_at_newborn = _MOST_LOOKS_AT_NEWBORN if self._ends_are_recorded else _MOST_LOOKS
        by_tgid = self._roster.by_tgid
        # In a storm nearly all of them are gone.
        for tgid in filter(by_tgid.__contains__, unread):
            process = by_tgid[tgid]
            if process.odd is MERE_STRANGER and process.start_ns + READING_SETTLES_NS > complete_until_ns:
                if not looks_at_newborn:
                    self._has_put_off = True
                    self.unread.append(tgid)
                    continue
                looks_at_newborn -= 1
            if process.needs_name:
                self.open_name(process)
            name = process.open_name
            if name is None or name.reading is not None:
                continue
            if not looks:
                self.unread.append(tgid)
                continue
            looks -= 1
            comm = self._read_comm(tgid)
            is_new = process.start_ns + READING_SETTLES_NS > self._now_ns()
            if comm is None or (comm == _KTHREADD_COMM and is_new):
                # Its EXIT is on the way, it is hidden, or it is a kernel thread yet to be renamed: look again.
                self.unread.append(tgid)
            else:
                name.reading = Reading(process, comm, self._now_ns())
