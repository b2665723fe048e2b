"""What is known of one process that lives.

A process is an object; a pid is only how it is found. The kernel gives a pid to the next process as soon as the
one before is reaped, which can be before the EXIT of that one has come. The object keeps all that belongs to its
process, so nothing has to be moved when the pid changes hands.

Theory of operation: events say which process forked, exec'd or ended, not what it is called. A child has its
parent's comm and uid until it changes them. UID and COMM events carry changes. After an exec the comm is open
until the process's exit record or /proc shows it. A process counts in a `Cell`, which stands for one comm and uid.
So a process is little more than a reference to a cell, and a child shares its parent's.

    FORK         +---------+   EXEC                  +--------+  end of the batch, FORK,    +------+
    ------------>| settled |------------------------>| exec'd |--------------------------->| open |<--+ EXEC
                 +---------+                         +--------+  EXEC, UID, PTRACE, ...     +------+---+
                   ^  ^   |                              |                                     |  |
      COMM,        |  |   | EXIT                         | EXIT: the exit record,              |  | EXIT
      reading of   |  |   v                              v or a hint, has the name             |  v
      /proc        |  |  (ended)                      (ended)                                  | (ended)
                   |  +------------------------------------------------------------------------+
              +----------+                                   the name is known: a reading of /proc is believed,
    --------->| stranger |                                   a COMM event, the record of a child that has the name
     forked   +----------+
     by a thread, or read by a scan amid a change

    settled    its cell has its comm and uid; forks, exits and the like are counted there
    exec'd     `execd_ns`: an exec is not counted yet. Its cell is still the one before: only the uid is right
    open       `odd.name`: a name that it may share with children; its cell is an OpenCell until that is known
    stranger   `odd.stranger`: its comm is another one than its cell's; nothing is counted under it yet

What is settled or exec'd, and has nothing unusual, has `odd is None`: that is the one question that the hot loop
asks. Everything else hangs on an `Odd`: an open name, threads besides the leader, a leader that has exited, an end
that waits for its name, a scan of /proc that has just met the process, the loss of its pid.
"""

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

from exporter.kernel.cn_proc import ProcEvent
from exporter.kernel.taskstats import Record
from exporter.processes.thread_uids import ThreadUids
from exporter.tallies.cells import Cell, Group, Program
from exporter.tallies.labels import UNKNOWN

# Of a chain of execs; a process can exec itself for ever.
_MOST_BEFORE = 3

Before = Cell | tuple[Cell, ...] | None
"""The cells that a process had before its execs: none, the only one (no tuple, as most have one), or several."""

CellOf = Callable[[int | None, Group], Cell]
"""(uid, group) -> the cell of a name that has become known"""


class Reading(NamedTuple):
    """What /proc showed as a process's comm."""

    process: "Process"
    comm: bytes
    read_ns: int
    """When it had been read, CLOCK_MONOTONIC."""


class OpenName:
    """A comm that is not known yet, and what was counted under it. open_names.py has the rules of belief.

    Attributes:
        cells: By uid and group.
        carriers: The processes that have this comm and have not ended. In the order in which they got it: a set of
            objects would have another order in each run, and a replay would not come out the same.
        reading: What /proc showed for one of the carriers.
        rivals: Names that are (comm), unless this name turns out to be that comm.
        depth: Length of the chain of rivals that waits for this name.
    """

    __slots__ = ("_cell_of", "_waiting", "carriers", "cells", "depth", "reading", "rivals")

    def __init__(self) -> None:
        self.cells: dict[tuple[int | None, Group], OpenCell] = {}
        self.carriers: dict[Process, None] = {}
        self.reading: Reading | None = None
        self.rivals: list[tuple[OpenName, bytes]] = []
        self.depth = 0
        self._cell_of: CellOf | None = None
        self._waiting: list[Callable[[CellOf], None]] = []

    def cell(self, uid: int | None, group: Group) -> "OpenCell":
        """Return this name's cell for a uid and a group."""
        cell = self.cells.get((uid, group))
        if cell is None:
            cell = self.cells[uid, group] = OpenCell(self, uid, group)
        return cell

    @property
    def cell_of(self) -> CellOf | None:
        """(uid, group) -> the cell of this name, None while it is open."""
        return self._cell_of

    def when_known(self, take: Callable[[CellOf], None]) -> None:
        """Call `take` with the cells of this name as soon as they are certain."""
        if self._cell_of is None:
            self._waiting.append(take)
        else:
            take(self._cell_of)

    def close(self, cell_of: CellOf) -> None:
        """Give every carrier its cell, and all that waits for the name; once."""
        for process in self.carriers:
            process.settle(cell_of(process.cell.uid, process.cell.group))
        self._cell_of = cell_of
        for take in self._waiting:
            take(cell_of)
        self._waiting.clear()


class OpenCell(Cell):
    """A cell whose comm is not known yet."""

    __slots__ = ("open_name",)

    def __init__(self, open_name: OpenName, uid: int | None, group: Group) -> None:
        super().__init__(Program(UNKNOWN), uid, group)
        self.open_name = open_name


def known_cell(cell: Cell) -> Cell | None:
    """Return the cell in which what was counted in a cell is counted in the end; None while its comm is open."""
    while isinstance(cell, OpenCell):
        if cell.open_name.cell_of is None:
            return None
        cell = cell.open_name.cell_of(cell.uid, cell.group)
    return cell


class OpenGroup(Group):
    """The group of one process that is not known yet, and of the children that have inherited it since.

    grouping.py says when it becomes known.

    Attributes:
        number: Of this group, counted from 1.
        process: The process.
        before: The group that it had until then.
        since_ns: When its session began; 0 if it was read elsewhere than where it counts.
        execd_ns: When it exec'd since then; 0 if it has not.
        has_ended: It has ended.
        is_due: It is to be read now where it is.
        is_old: That was so for the last time.
        heir: The first process that it forked, if it had not exec'd by then, and so could not have been moved.
        reading: Where it was found.
    """

    __slots__ = (
        "before",
        "execd_ns",
        "has_ended",
        "heir",
        "is_due",
        "is_old",
        "number",
        "process",
        "reading",
        "since_ns",
    )
    is_open = True

    def __init__(self, number: int, process: "Process", since_ns: int) -> None:
        super().__init__()
        self.number = number
        self.process = process
        self.before = process.cell.group
        self.since_ns = since_ns
        self.execd_ns = 0
        self.has_ended = self.is_due = self.is_old = False
        self.heir: Process | None = None
        self.reading: GroupReading | None = None

    def exec(self, timestamp_ns: int) -> None:
        """Note that the process exec'd: if it is moved, that was before."""
        self.execd_ns = timestamp_ns
        self.is_due = True

    def fork(self, child: "Process") -> None:
        """Note that the process forked another."""
        if self.heir is None and not self.execd_ns:
            self.heir = child

    def end(self) -> None:
        """Note that the process ended."""
        self.has_ended = self.is_due = True


class GroupReading(NamedTuple):
    """Where a process was found."""

    process: "Process"
    group: Group
    read_ns: int
    """When that was read, CLOCK_MONOTONIC."""
    opened_ns: int
    """When its pid was looked up: as read_ns, or earlier, if a descriptor of the process was opened then."""


class Children(Enum):
    """What the children of a process are called when they are forked."""

    INHERIT = "inherit"
    """As their parent."""
    STRANGERS = "strangers"
    """Not known: kthreadd names kernel threads without an event."""
    CANARIES = "canaries"
    """They may be canaries: this program. So its forks do not take the fast way, which does not look for them."""


class UnnamedEnd(NamedTuple):
    """An end that waits for the leader's record, which has the process's name.

    The last thread has sent its EXIT before the leader, on another CPU, has sent its own.
    """

    event: ProcEvent
    """The EXIT of the last thread."""
    record: Record
    """Its exit record."""


class Odd:
    """What is unusual about a process.

    Attributes:
        name: Its comm, while that is open; its cell is then one of the name's.
        group: Its group, while that is open and its own.
        stranger: Its comm is not its cell's, and nothing is counted under it yet; the uid is the cell's.
        children: What its children are called.
        threads: Its threads besides the leader. Kept only where threads are followed.
        named_threads: Those of its threads that gave themselves a name: a kernel worker does not.
        thread_uids: The real uids of those of its threads that took another one than the leader's.
        tracer_tgid: The process that traces it, 0 for none.
        dumped_ns: When it began to dump core, and was counted for that; 0 if it has not.
        leader_exited: Its leader has exited, other threads live on.
        leader_record: The exit record of that leader, if there is one.
        unsure_end: The EXIT of the leader that has exited, if its record was lost: it may be the process's end.
        fatal: The EXIT of the leader that has exited, or of a later thread, if its wait status was not 0.
        unnamed_end: Its end, if only the name is missing.
        adopted_ns: When a scan of /proc read it (CLOCK_MONOTONIC), while events can cast doubt on that; else 0.
        late_number: Another process has its pid already; its own EXIT has not come. 0: that is not so.
        unrecorded: Its leader's exit record was dropped, as its EXIT cannot come any more.
        core: A thread of it dumped core. Known of a leader, of the last thread, and of any while a client observes
            or after a COREDUMP.
        glimpsed: Only its threads or its leader's EXIT were seen. It is in no count of processes.
    """

    __slots__ = (
        "adopted_ns",
        "children",
        "core",
        "dumped_ns",
        "fatal",
        "glimpsed",
        "group",
        "late_number",
        "leader_exited",
        "leader_record",
        "name",
        "named_threads",
        "stranger",
        "thread_uids",
        "threads",
        "tracer_tgid",
        "unnamed_end",
        "unrecorded",
        "unsure_end",
    )

    def __init__(self) -> None:
        self.name: OpenName | None = None
        self.group: OpenGroup | None = None
        self.stranger = False
        self.children = Children.INHERIT
        self.threads: set[int] | None = None
        self.named_threads: set[int] | None = None
        self.thread_uids: ThreadUids | None = None
        self.tracer_tgid = 0
        self.dumped_ns = 0
        self.leader_exited = False
        self.leader_record: Record | None = None
        self.unsure_end: ProcEvent | None = None
        self.fatal: ProcEvent | None = None
        self.unnamed_end: UnnamedEnd | None = None
        self.adopted_ns = 0
        self.late_number = 0
        self.unrecorded = False
        self.core = False
        self.glimpsed = False

    def is_usual(self) -> bool:
        """Whether nothing here is unusual any more."""
        return (
            self.name is None
            and self.group is None
            and not self.stranger
            and self.children is Children.INHERIT
            and not self.threads
            and not self.leader_exited
            and self.unnamed_end is None
            and not self.adopted_ns
            and not self.late_number
            and not self.unrecorded
            and not self.core
            and not self.thread_uids
            and not self.tracer_tgid
            and not self.dumped_ns
            and not self.glimpsed
        )


class _MereStranger(Odd):
    """What is unusual about a stranger of which nothing else is. All of them share one, as storms make many."""

    __slots__ = ()

    def __init__(self) -> None:
        usual = Odd()
        for name in Odd.__slots__:
            object.__setattr__(self, name, getattr(usual, name))
        object.__setattr__(self, "stranger", True)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{name} of all mere strangers: make_odd() gives a process an Odd of its own")


MERE_STRANGER = _MereStranger()


class Process:
    """A thread group.

    The hot loop makes processes by `object.__new__` and six stores, which costs half of a call of `__init__`.

    Attributes:
        tgid: The pid that it has, or had when it was forked.
        cell: Where it counts: its comm and uid. After an exec, and for a stranger, only its uid.
        start_ns: When it was forked, CLOCK_MONOTONIC; 0 if that is not known.
        execd_ns: When it exec'd, if that exec is not counted yet, because its comm is not known; else 0.
        odd: What is unusual about it; None for nearly all.
        before: What it was before its execs; see chain_of.
    """

    __slots__ = ("before", "cell", "execd_ns", "odd", "start_ns", "tgid")

    def __init__(self, tgid: int, cell: Cell, start_ns: int) -> None:
        self.tgid = tgid
        self.cell = cell
        self.start_ns = start_ns
        self.execd_ns = 0
        self.odd: Odd | None = None
        self.before: Before = None

    def note_exec(self) -> None:
        """Note that an exec has ended the comm that its cell has. The hot loop does it for the first exec."""
        if self.is_stranger:
            return
        if self.before is None:
            self.before = self.cell
        elif isinstance(self.before, tuple):
            self.before = (*self.before[1 - _MOST_BEFORE :], self.cell)
        else:
            self.before = (self.before, self.cell)

    def make_odd(self) -> Odd:
        """Return what is unusual about it, to add to that."""
        odd = self.odd
        if odd is None or odd is MERE_STRANGER:
            self.odd, is_stranger = Odd(), odd is not None
            odd = self.odd
            odd.stranger = is_stranger
        return odd

    def tidy(self) -> None:
        """Be usual again if nothing is unusual any more."""
        if self.odd is not None and self.odd.is_usual():
            self.odd = None

    def settle(self, cell: Cell) -> None:
        """Count in this cell from now on: the comm is known."""
        self.cell = cell
        odd = self.odd
        if odd is MERE_STRANGER:
            self.odd = None
        elif odd is not None:
            odd.name = None
            odd.stranger = False
            self.tidy()

    @property
    def open_name(self) -> OpenName | None:
        """Its comm, while that is open."""
        return None if self.odd is None else self.odd.name

    @property
    def is_stranger(self) -> bool:
        """Its comm is not its cell's, and nothing is counted under it yet."""
        return self.odd is not None and self.odd.stranger

    @property
    def needs_name(self) -> bool:
        """Nothing can be counted in its cell: its comm is another one."""
        return bool(self.execd_ns) or self.is_stranger

    @property
    def is_glimpsed(self) -> bool:
        """Only its threads or its leader's EXIT were seen."""
        return self.odd is not None and self.odd.glimpsed

    @property
    def is_unrecorded(self) -> bool:
        """Its leader's exit record was dropped."""
        return self.odd is not None and self.odd.unrecorded

    @property
    def leader_exited(self) -> bool:
        """Its leader has exited, other threads live on."""
        return self.odd is not None and self.odd.leader_exited

    @property
    def is_late(self) -> bool:
        """Another process has its pid already."""
        return self.odd is not None and self.odd.late_number != 0


def chain_of(before: Before, unnamed: Cell | None) -> tuple[Cell, ...]:
    """Return the cells that a process had before its execs, the newest last, of many execs those of the last few.

    Args:
        before: Of the process.
        unnamed: The cell that it had before an exec that is not counted yet.
    """
    if before is None:
        before = ()
    elif not isinstance(before, tuple):
        before = (before,)
    return before if unnamed is None else (*before, unnamed)


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
