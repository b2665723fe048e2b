"""All numbers of programs: which cell a comm and uid get, how many of them there may be, and copies for a scrape.

Comms and uids come from strangers, so there is a limit to each family's series. What comes beyond it counts in the
cells of `<other>`; see cells.py.
"""

from collections.abc import Iterable
from operator import attrgetter
from typing import NamedTuple
from weakref import WeakValueDictionary

from exporter.kernel.taskstats import decode_comm_uid
from exporter.tallies.births import Births, CellTimes
from exporter.tallies.cells import Cell, FoldedCell, Program, count_events
from exporter.tallies.counters import EVENT_NAMES, FIELDS, add_counters
from exporter.tallies.histograms import (
    CLASSIC_BOUNDS,
    CPU_NS,
    LIFETIME_NS,
    MAX_RSS_KIB,
    NO_HISTOGRAMS,
    Bounds,
    Histogram,
    new_histograms,
)
from exporter.tallies.labels import EXCLUDED, OTHER, OTHER_UID, UNKNOWN, Key
from exporter.tallies.rules import Rules

# Where a record's 44 bytes lead is remembered for this many of them, then learned anew: hostile names must not
# fill the memory.
_REMEMBERED = 1 << 14

DEFAULT_LIMIT = 10_000
LEAST_LIMIT = 1000
"""Leaves room for what is always there, and then some: see Tallies."""

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


def _unlimited_cell(comm: str, bounds: Bounds) -> Cell:
    program = Program(comm)
    program.histograms = new_histograms(bounds)
    return Cell(program, OTHER_UID)


class CellCounts(NamedTuple):
    """All cells at the time of a snapshot, a column for each thing: with a hundred thousand series it takes
    tenths of the time of an object for each."""

    keys: list[Key]
    labels: list[str]
    """The same as it is written in an exposition."""
    counters: dict[str, list[int]]
    """By the name of the field of Counters."""
    exits: list[dict[int, int]]
    born: CellTimes | None = None
    """None if it is not noted."""


class ProgramCounts(NamedTuple):
    """One program's histograms at the time of a snapshot."""

    comm: str
    labels: str
    lifetime_ns: Histogram
    cpu_ns: Histogram
    max_rss_kib: Histogram
    born_seconds: float | None = None
    """When it had the first end; None if it is not noted."""


class Tallies:
    """All cells.

    Args:
        limit: How many series a family may have, at least LEAST_LIMIT; for a histogram, how many samples.
        rules: What is shown under which name.
        births: Notes when series are born; None if no client asks for it.
        bounds: Of the histograms' buckets.

    Attributes:
        by_record: Cells by the 44 bytes of an exit record, as far as they are remembered; claim_cell_of_record
            finds the others.
        by_exec: Cells by the comm of an exec and a uid, as far as they are remembered; claim_cell_of_exec finds
            the others.
    """

    def __init__(
        self,
        limit: int = DEFAULT_LIMIT,
        rules: Rules | None = None,
        *,
        births: Births | None = None,
        bounds: Bounds = CLASSIC_BOUNDS,
    ) -> None:
        self.limit = limit
        self.bounds = bounds
        self.births = births
        self._rules = rules or Rules()
        self._cells_left = limit - _RESERVED_CELLS
        self._statuses_left = limit - _RESERVED_STATUSES
        self._programs_left = limit // _SAMPLES - _RESERVED_PROGRAMS
        self._unknown = _unlimited_cell(UNKNOWN, bounds)
        self._other = _unlimited_cell(OTHER, bounds)
        self._excluded = _unlimited_cell(EXCLUDED, bounds)
        self._programs: dict[str, Program] = {UNKNOWN: self._unknown.program}
        self._cells: dict[Key, Cell] = {(UNKNOWN, None): Cell(self._unknown.program, None, self._unknown)}
        self._others: dict[int | None, Cell] = {OTHER_UID: self._other}
        self._folded: WeakValueDictionary[tuple[Cell, str | None, int | None], FoldedCell] = WeakValueDictionary()
        if births is not None:
            for cell in (self._unknown, self._other, *self._cells.values()):
                births.claim(cell)
        self._expired = dict.fromkeys(EVENT_NAMES, 0)
        self.by_record: dict[bytes, Cell] = {}
        self.by_exec: dict[tuple[bytes, int | None], Cell] = {}

    @property
    def full(self) -> bool:
        """Some family has no series left for what is new."""
        return not (self._cells_left and self._statuses_left and self._programs_left)

    @property
    def rules(self) -> Rules:
        """The rules in force."""
        return self._rules

    def apply_rules(self, rules: Rules) -> None:
        """Go by other rules from now on. A process that has a cell keeps it."""
        self._rules = rules
        self.by_record.clear()
        self.by_exec.clear()

    # -- which cell ---------------------------------------------------------------------------------------------

    def claim_cell(self, comm: bytes | None, uid: int | None) -> Cell:
        """Return the cell of a comm (None: it is not known) and a uid."""
        return self._cell(UNKNOWN if comm is None else self._rules.name(comm), uid)

    def shown_comm(self, comm: bytes, uid: int | None) -> str | None:
        """Return how a comm is shown, None if the rules exclude it or the uid; takes no series."""
        return self._rules.name(comm) if self._rules.counts(uid) else None

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

    def claim_cell_of_exec(self, comm: bytes, uid: int | None) -> Cell:
        """Return the cell of a comm and a uid, and remember it for the next exec of that program."""
        cell = self.by_exec.get((comm, uid))
        if cell is None:
            if len(self.by_exec) >= _REMEMBERED:
                self.by_exec.clear()
            cell = self.by_exec[comm, uid] = self.claim_cell(comm, uid)
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
        if self.births is not None:
            self.births.claim(cell)
        return cell

    def _other_cell(self, uid: int | None) -> Cell:
        cell = self._others.get(uid)
        if cell is None:
            if len(self._others) > _OTHER_UIDS:
                return self._other
            cell = self._others[uid] = Cell(self._other.program, uid, self._other)
            if self.births is not None:
                self.births.claim(cell)
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
                cell = cell.overflow
                exits = cell.exits
        if self.births is not None and status not in exits:
            self.births.note_status(cell, status)
        exits[status] = exits.get(status, 0) + count

    def _give_histograms(self, cell: Cell) -> None:
        program = cell.program
        if program.histograms is NO_HISTOGRAMS:
            if cell.overflow is None:
                program.histograms = new_histograms(self.bounds)
            elif self._programs_left:
                self._programs_left -= 1
                program.histograms = new_histograms(self.bounds)
                if self.births is not None:
                    self.births.note_histograms(program)
            else:
                program.histograms = cell.overflow.program.histograms
        cell.lifetime_ns, cell.cpu_ns, cell.max_rss_kib = program.histograms

    def absorb(self, cell: Cell, other: Cell) -> None:
        """Count in a cell what was counted in one that has a program of its own and is not needed any more."""
        add_counters(cell, other)
        for status, count in other.exits.items():
            self.count_end(cell, status, count)
        if other.program.histograms is not NO_HISTOGRAMS:
            for mine, its in zip(cell.program.histograms, other.program.histograms, strict=True):
                for i, value in enumerate(its):
                    mine[i] += value

    # -- series that are not needed any more --------------------------------------------------------------------

    def own_cells(self) -> list[Cell]:
        """Return the cells that can be dropped: `<unknown>` and `<other>` cannot."""
        return [cell for cell in self._cells.values() if cell.program.comm != UNKNOWN]

    def drop(self, cells: Iterable[Cell]) -> None:
        """Forget cells that no process refers to. Their series begin anew when they come back."""
        self.by_record.clear()
        self.by_exec.clear()
        for cell in cells:
            program = cell.program
            del self._cells[program.comm, cell.uid]
            if self.births is not None:
                self.births.forget(cell)
            self._cells_left += 1
            self._statuses_left += len(cell.exits)
            for event, count in count_events([cell]).items():
                self._expired[event] += count
            program.cells -= 1
            if not program.cells:
                del self._programs[program.comm]
                if self.births is not None:
                    self.births.forget_program(program)
                self._programs_left += self._has_histograms(program)

    def _has_histograms(self, program: Program) -> bool:
        """Return whether a program has histograms of its own."""
        return program.histograms is not NO_HISTOGRAMS and program.histograms is not self._other.program.histograms

    # -- copies -------------------------------------------------------------------------------------------------

    def snapshot_cells(self) -> CellCounts:
        """Copy what is counted per comm and uid."""
        cells = [*self._cells.values(), *self._others.values(), self._unknown]
        counters = {name: list(map(attrgetter(name), cells)) for name in FIELDS}
        return CellCounts(
            [(cell.program.comm, cell.uid) for cell in cells],
            [cell.labels for cell in cells],
            counters,
            [cell.exits.copy() for cell in cells],
            None if self.births is None else self.births.of_cells(cells, counters),
        )

    def snapshot_programs(self) -> list[ProgramCounts]:
        """Copy what is counted per comm, of those of which a process has ended."""
        own = [program for program in self._programs.values() if self._has_histograms(program)]
        return [
            ProgramCounts(
                p.comm,
                p.labels,
                p.histograms.lifetime_ns.copy(),
                p.histograms.cpu_ns.copy(),
                p.histograms.max_rss_kib.copy(),
                None if self.births is None else self.births.of_program(p),
            )
            for p in (*own, self._other.program)
            if any(p.histograms.lifetime_ns) or any(p.histograms.cpu_ns)
        ]

    def unattributed(self) -> dict[str, int]:
        """Count the events whose comm is not known, by kind."""
        return count_events(
            [self._unknown, *(cell for cell in self._cells.values() if cell.program.comm == UNKNOWN)]
        )

    def excluded(self) -> dict[str, int]:
        """Count the events that the rules leave out, by kind."""
        return count_events([self._excluded])

    def expired(self) -> dict[str, int]:
        """Count the events of series that were dropped, by kind."""
        return self._expired.copy()
