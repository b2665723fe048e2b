"""The numbers: cells that events add to, one for each comm and uid.

A `Cell` is handed out once per program and user and then kept by whoever counts under that name, so that
counting is `cell.forks += 1`: no label, no tuple, no hash. What is per comm alone, the histograms, stands in
the `Program` that the cells of all its users share.

A histogram is a list: a count for each bucket, one for what is beyond the last bound, and the sum of all
values, in the integer unit that the kernel uses (ns, KiB).

Comms and uids come from strangers, so there is a limit to each family's series. Whoever comes beyond it gets a
`FoldedCell`: it knows its comm and uid, and counts in the cell of `<other>`.
"""

from bisect import bisect_left
from collections.abc import Iterable
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from exporter.kernel.taskstats import decode_comm_uid
from exporter.tallies.labels import EXCLUDED, OTHER, UNKNOWN, escape_label_value
from exporter.tallies.rules import Rules

# Upper bounds of the buckets, in seconds: a shell builtin's helper to a day's batch job.
LIFETIME_SECONDS = (
    0.001,
    0.005,
    0.01,
    0.05,
    0.1,
    0.5,
    1.0,
    5.0,
    15.0,
    60.0,
    300.0,
    900.0,
    3600.0,
    14400.0,
    86400.0,
)
CPU_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0, 60.0, 600.0, 3600.0)
MAX_RSS_BYTES = tuple(
    float(mib << 20) for mib in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384, 65536)
)
DRAIN_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)

LIFETIME_NS = tuple(round(bound * 1e9) for bound in LIFETIME_SECONDS)
CPU_NS = tuple(round(bound * 1e9) for bound in CPU_SECONDS)
DRAIN_NS = tuple(round(bound * 1e9) for bound in DRAIN_SECONDS)
MAX_RSS_KIB = tuple(int(bound) >> 10 for bound in MAX_RSS_BYTES)

Histogram = list[int]

# Where a record's 44 bytes lead is remembered for this many of them, then learned anew: hostile names must not
# fill the memory.
_REMEMBERED = 1 << 14

DEFAULT_LIMIT = 10_000
LEAST_LIMIT = 1000
"""Leaves room for what is always there, and then some: see Tallies."""
OTHER_UID = -1
"""Stands for the uids that have no series of their own."""

# Of uids whose cells are folded, the first ones keep their label.
_OTHER_UIDS = 64
# Ways to end: 256 exit codes, 64 signals.
_STATUSES = 256 + 64
# (<unknown>, <unknown>), (<unknown>, <other>), (<other>, <other>) and those of _OTHER_UIDS are always to be had.
_RESERVED_CELLS = _OTHER_UIDS + 3
# Those that have <other> for uid take every status.
_RESERVED_STATUSES = 2 * _STATUSES
# <unknown> and <other>.
_RESERVED_PROGRAMS = 2
# A histogram's samples: its buckets, the one without a bound, count and sum.
_SAMPLES = max(len(LIFETIME_NS), len(CPU_NS), len(MAX_RSS_KIB)) + 3


def new_histogram(bounds: tuple[int, ...]) -> Histogram:
    """Return an empty histogram."""
    return [0] * (len(bounds) + 2)


def observe(histogram: Histogram, bounds: tuple[int, ...], value: int) -> None:
    """Count one value."""
    histogram[bisect_left(bounds, value)] += 1
    histogram[-1] += value


class Histograms(NamedTuple):
    """What ended processes had used."""

    lifetime_ns: Histogram
    cpu_ns: Histogram
    max_rss_kib: Histogram


def _new_histograms() -> Histograms:
    return Histograms(new_histogram(LIFETIME_NS), new_histogram(CPU_NS), new_histogram(MAX_RSS_KIB))


# Stands where no process has ended yet.
_NO_HISTOGRAMS = Histograms([], [], [])


class Program:
    """What is counted per comm.

    Attributes:
        comm: The label value.
        labels: The same as it is written in an exposition.
        histograms: Its own, or those of `<other>`.
        cells: How many there are.
    """

    __slots__ = ("cells", "comm", "histograms", "labels")

    def __init__(self, comm: str) -> None:
        self.comm = comm
        self.labels = f'comm="{escape_label_value(comm)}"'
        self.histograms = _NO_HISTOGRAMS
        self.cells = 0


class Cell:
    """What is counted per comm and uid.

    Attributes:
        comm: What the process is called, None where that does not matter.
        uid: The real uid, None where it is not known.
        labels: Both as they are written in an exposition.
        exits: How many processes ended, by wait status without the core bit; see Tallies.count_end.
        overflow: Takes the statuses for which no series is left; None if there is no limit.
    """

    __slots__ = (
        "comm",
        "coredumps",
        "cpu_ns",
        "execs",
        "exits",
        "forks",
        "labels",
        "lifetime_ns",
        "max_rss_kib",
        "overflow",
        "program",
        "ptrace_attaches",
        "uid",
        "uid_changes",
    )

    def __init__(self, program: Program, uid: int | None, overflow: "Cell | None" = None) -> None:
        self.program = program
        self.comm: str | None = program.comm
        self.uid = uid
        self.labels = f'{program.labels},uid="{uid_label(uid)}"'
        self.overflow = overflow
        self.forks = 0
        self.execs = 0
        self.coredumps = 0
        self.uid_changes = 0
        self.ptrace_attaches = 0
        self.exits: dict[int, int] = {}
        self.lifetime_ns, self.cpu_ns, self.max_rss_kib = program.histograms


def uid_label(uid: int | None) -> str:
    """Return what the label `uid` says."""
    if uid is None:
        return UNKNOWN
    return OTHER if uid == OTHER_UID else str(uid)


def _of_target(name: str) -> Any:
    def read(self: "FoldedCell") -> int:
        return getattr(self.target, name)  # type: ignore[no-any-return]

    def write(self: "FoldedCell", value: int) -> None:
        setattr(self.target, name, value)

    return property(read, write)


class FoldedCell(Cell):
    """A comm and uid without series: who counts here counts in the target's cell.

    It lives for as long as a process that has it, or a record that is remembered.
    """

    __slots__ = ("__weakref__", "target")

    def __init__(self, target: Cell, comm: str | None, uid: int | None) -> None:
        self.target = target
        self.program = target.program
        self.comm = comm
        self.uid = uid
        self.overflow = target.overflow
        self.exits = target.exits
        self.lifetime_ns, self.cpu_ns, self.max_rss_kib = target.lifetime_ns, target.cpu_ns, target.max_rss_kib

    forks = _of_target("forks")
    execs = _of_target("execs")
    coredumps = _of_target("coredumps")
    uid_changes = _of_target("uid_changes")
    ptrace_attaches = _of_target("ptrace_attaches")


def _unlimited_cell(comm: str) -> Cell:
    program = Program(comm)
    program.histograms = _new_histograms()
    return Cell(program, OTHER_UID)


class CellCounts(NamedTuple):
    """All cells at the time of a snapshot, a column for each thing: with a hundred thousand series it takes
    tenths of the time of an object for each."""

    keys: list[tuple[str, int | None]]
    """(comm, uid)"""
    labels: list[str]
    """The same as it is written in an exposition."""
    forks: list[int]
    execs: list[int]
    coredumps: list[int]
    uid_changes: list[int]
    ptrace_attaches: list[int]
    exits: list[dict[int, int]]


class ProgramCounts(NamedTuple):
    """One program's histograms at the time of a snapshot."""

    comm: str
    labels: str
    lifetime_ns: Histogram
    cpu_ns: Histogram
    max_rss_kib: Histogram


class Tallies:
    """All cells.

    Args:
        limit: How many series a family may have, at least LEAST_LIMIT; for a histogram, how many samples.
        rules: What is shown under which name.

    Attributes:
        by_record: Cells by the 44 bytes of an exit record, as far as they are remembered. Whoever does not find
            one there asks claim_cell_of_record.
    """

    def __init__(self, limit: int = DEFAULT_LIMIT, rules: Rules | None = None) -> None:
        self.limit = limit
        self._rules = rules or Rules()
        self._cells_left = limit - _RESERVED_CELLS
        self._statuses_left = limit - _RESERVED_STATUSES
        self._programs_left = limit // _SAMPLES - _RESERVED_PROGRAMS
        self._unknown = _unlimited_cell(UNKNOWN)
        self._other = _unlimited_cell(OTHER)
        self._excluded = _unlimited_cell(EXCLUDED)
        self._programs: dict[str, Program] = {UNKNOWN: self._unknown.program}
        self._cells: dict[tuple[str, int | None], Cell] = {
            (UNKNOWN, None): Cell(self._unknown.program, None, self._unknown)
        }
        self._others: dict[int | None, Cell] = {OTHER_UID: self._other}
        self._folded: WeakValueDictionary[tuple[Cell, str | None, int | None], FoldedCell] = WeakValueDictionary()
        self._expired = dict.fromkeys(_EVENTS, 0)
        self.by_record: dict[bytes, Cell] = {}

    @property
    def full(self) -> bool:
        """Some family has no series left for what is new."""
        return not (self._cells_left and self._statuses_left and self._programs_left)

    def apply_rules(self, rules: Rules) -> None:
        """Go by other rules from now on. Whoever has a cell keeps it."""
        self._rules = rules
        self.by_record.clear()

    # -- which cell ---------------------------------------------------------------------------------------------

    def claim_cell(self, comm: bytes | None, uid: int | None) -> Cell:
        """Return the cell of a comm (None: nobody knows it) and a uid."""
        return self._cell(UNKNOWN if comm is None else self._rules.name(comm), uid)

    def claim_sibling(self, cell: Cell, uid: int | None) -> Cell:
        """Return the cell of the same program under another uid."""
        return self._cell(cell.comm, uid)

    def claim_cell_of_record(self, comm_uid: bytes) -> Cell:
        """Return the cell that the 44 bytes of an exit record name."""
        cell = self.by_record.get(comm_uid)
        if cell is None:
            if len(self.by_record) >= _REMEMBERED:
                self.by_record.clear()
            cell = self.by_record[comm_uid] = self.claim_cell(*decode_comm_uid(comm_uid))
        return cell

    def _cell(self, comm: str | None, uid: int | None) -> Cell:
        if comm is None or not self._rules.counts(uid):
            return self._folded_cell(self._excluded, comm, uid)
        cell = self._cells.get((comm, uid))
        if cell is not None:
            return cell
        if self._cells_left:
            return self._new_cell(comm, uid)
        return self._folded_cell(self._unknown if comm == UNKNOWN else self._other_cell(uid), comm, uid)

    def _new_cell(self, comm: str, uid: int | None) -> Cell:
        self._cells_left -= 1
        program = self._programs.get(comm)
        if program is None:
            program = self._programs[comm] = Program(comm)
        program.cells += 1
        overflow = self._unknown if comm == UNKNOWN else self._other
        cell = self._cells[comm, uid] = Cell(program, uid, overflow)
        return cell

    def _other_cell(self, uid: int | None) -> Cell:
        cell = self._others.get(uid)
        if cell is None:
            if len(self._others) > _OTHER_UIDS:
                return self._other
            cell = self._others[uid] = Cell(self._other.program, uid, self._other)
        return cell

    def _folded_cell(self, target: Cell, comm: str | None, uid: int | None) -> FoldedCell:
        cell = self._folded.get((target, comm, uid))
        if cell is None:
            cell = self._folded[target, comm, uid] = FoldedCell(target, comm, uid)
        return cell

    # -- counting -----------------------------------------------------------------------------------------------

    def count_end(self, cell: Cell, status: int, count: int = 1) -> None:
        """Count the end of a process.

        Args:
            cell: Has its histograms from now on. If it has had this status before, `exits[status] += 1` does.
            status: The wait status, without the core bit.
            count: How many ended so.
        """
        if not cell.lifetime_ns:
            self._give_histograms(cell)
        exits = cell.exits
        if status not in exits and cell.overflow is not None:
            if self._statuses_left:
                self._statuses_left -= 1
            else:
                exits = cell.overflow.exits
        exits[status] = exits.get(status, 0) + count

    def _give_histograms(self, cell: Cell) -> None:
        program = cell.program
        if program.histograms is _NO_HISTOGRAMS:
            if cell.overflow is None:
                program.histograms = _new_histograms()
            elif self._programs_left:
                self._programs_left -= 1
                program.histograms = _new_histograms()
            else:
                program.histograms = cell.overflow.program.histograms
        cell.lifetime_ns, cell.cpu_ns, cell.max_rss_kib = program.histograms

    def absorb(self, cell: Cell, other: Cell) -> None:
        """Count in a cell what was counted in one that has a program of its own and is not needed any more."""
        cell.forks += other.forks
        cell.execs += other.execs
        cell.coredumps += other.coredumps
        cell.uid_changes += other.uid_changes
        cell.ptrace_attaches += other.ptrace_attaches
        for status, count in other.exits.items():
            self.count_end(cell, status, count)
        for mine, its in zip(cell.program.histograms, other.program.histograms, strict=True):
            for i, value in enumerate(its):
                mine[i] += value

    # -- series that are not needed any more --------------------------------------------------------------------

    def own_cells(self) -> list[Cell]:
        """Return the cells that can be dropped: `<unknown>` and `<other>` cannot."""
        return [cell for cell in self._cells.values() if cell.program.comm != UNKNOWN]

    def drop(self, cells: Iterable[Cell]) -> None:
        """Forget cells that nobody holds. Their series begin anew when they come back."""
        self.by_record.clear()
        for cell in cells:
            program = cell.program
            del self._cells[program.comm, cell.uid]
            self._cells_left += 1
            self._statuses_left += len(cell.exits)
            for event, count in count_events([cell]).items():
                self._expired[event] += count
            program.cells -= 1
            if not program.cells:
                del self._programs[program.comm]
                self._programs_left += self._has_histograms(program)

    def _has_histograms(self, program: Program) -> bool:
        """Tell whether a program has histograms of its own."""
        return (
            program.histograms is not _NO_HISTOGRAMS and program.histograms is not self._other.program.histograms
        )

    # -- what it tells ------------------------------------------------------------------------------------------

    def snapshot_cells(self) -> CellCounts:
        """Copy what is counted per comm and uid."""
        cells = [*self._cells.values(), *self._others.values(), self._unknown]
        return CellCounts(
            [(cell.program.comm, cell.uid) for cell in cells],
            [cell.labels for cell in cells],
            [cell.forks for cell in cells],
            [cell.execs for cell in cells],
            [cell.coredumps for cell in cells],
            [cell.uid_changes for cell in cells],
            [cell.ptrace_attaches for cell in cells],
            [cell.exits.copy() for cell in cells],
        )

    def snapshot_programs(self) -> list[ProgramCounts]:
        """Copy what is counted per comm, of those of which a process has ended."""
        own = [program for program in self._programs.values() if self._has_histograms(program)]
        return [
            ProgramCounts(p.comm, p.labels, *(histogram.copy() for histogram in p.histograms))
            for p in (*own, self._other.program)
            if any(p.histograms.lifetime_ns) or any(p.histograms.cpu_ns)
        ]

    def unattributed(self) -> dict[str, int]:
        """Count the events that nobody could give a comm, by kind."""
        return count_events(
            [self._unknown, *(cell for cell in self._cells.values() if cell.program.comm == UNKNOWN)]
        )

    def excluded(self) -> dict[str, int]:
        """Count the events that the rules leave out, by kind."""
        return count_events([self._excluded])

    def expired(self) -> dict[str, int]:
        """Count the events of series that were dropped, by kind."""
        return self._expired.copy()


_EVENTS = ("fork", "exec", "exit", "uid", "ptrace", "coredump")


def count_events(cells: Iterable[Cell]) -> dict[str, int]:
    """Add up what some cells counted, by the value of the label `event`."""
    totals = dict.fromkeys(_EVENTS, 0)
    for cell in cells:
        totals["fork"] += cell.forks
        totals["exec"] += cell.execs
        totals["exit"] += sum(cell.exits.values())
        totals["uid"] += cell.uid_changes
        totals["ptrace"] += cell.ptrace_attaches
        totals["coredump"] += cell.coredumps
    return totals
