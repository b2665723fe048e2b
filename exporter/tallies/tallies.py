"""All numbers of programs: which cell a comm, uid and group get, what is counted there, and copies for a scrape.

Comms and uids come from strangers, so there is a limit to each family's series. What comes beyond it counts in the
cells of `<other>`; see overflow.py. Where series have groups, room.py says how much room each group has.
"""

from collections.abc import Iterable, Iterator
from itertools import accumulate, chain, islice, repeat
from operator import attrgetter
from typing import NamedTuple, TypeVar

from exporter.kernel.taskstats import decode_comm_uid
from exporter.tallies.births import Births, CellTimes
from exporter.tallies.cells import Cell, Group, count_events
from exporter.tallies.counters import EVENT_NAMES, FIELDS, add_counters
from exporter.tallies.groups import Groups
from exporter.tallies.histograms import (
    CLASSIC_BOUNDS,
    CPU_NS,
    LIFETIME_NS,
    MAX_RSS_KIB,
    NO_HISTOGRAMS,
    Bounds,
    add_histograms,
)
from exporter.tallies.labels import UNKNOWN, Key
from exporter.tallies.overflow import MOST_OTHER_UIDS, Overflow
from exporter.tallies.programs import ProgramCounts, Programs
from exporter.tallies.room import CELLS, ENDS, Rooms
from exporter.tallies.rules import Rules

DEFAULT_LIMIT = 10_000
LEAST_LIMIT = 1000
"""Leaves room for what is always there, and then some: see Tallies."""

# Ways to end: 256 exit codes, 64 signals.
_STATUSES = 256 + 64
# (<unknown>, <unknown>), (<unknown>, <other>), (<other>, <other>) and those of the first other uids are always to
# be had.
_RESERVED_CELLS = MOST_OTHER_UIDS + 3
# Those that have <other> for uid take every status.
_RESERVED_STATUSES = 2 * _STATUSES
# <unknown> and <other>.
_RESERVED_PROGRAMS = 2
# A histogram's samples: its buckets, the one without a bound, count and sum.
_SAMPLES = max(len(LIFETIME_NS), len(CPU_NS), len(MAX_RSS_KIB)) + 3

_T = TypeVar("_T")


class CellCounts(NamedTuple):
    """All cells at the time of a snapshot, a column for each thing: with a hundred thousand series it takes
    tenths of the time, and of the memory, of an object for each."""

    keys: list[Key]
    groups: list[tuple[str, ...]]
    """The values of the labels of their groups."""
    labels: list[str]
    """All labels as they are written in an exposition."""
    counters: dict[str, list[int]]
    """By the name of the field of Counters."""
    ways: list[int]
    """In how many ways, by wait status, processes of a cell ended."""
    statuses: list[int]
    """The wait statuses of all cells, those of each cell together, in the order of the cells."""
    ends: list[int]
    """How many processes ended with each of these."""
    born: CellTimes | None = None
    """None if it is not noted."""

    @property
    def exits(self) -> list[dict[int, int]]:
        """How many processes ended, by wait status: a dict for each cell."""
        ends = zip(self.statuses, self.ends, strict=True)
        return [dict(islice(ends, ways)) for ways in self.ways]

    def for_ends(self, column: Iterable[_T]) -> Iterator[_T]:
        """Return the values of a column of the cells so that they stand beside `statuses` and `ends`."""
        return chain.from_iterable(map(repeat, column, self.ways))

    def ends_of(self, places: Iterable[int]) -> Iterator[tuple[int, int]]:
        """Return wait status and number of the ends of the cells at these places."""
        starts = list(accumulate(self.ways, initial=0))
        for place in places:
            of_cell = slice(starts[place], starts[place + 1])
            yield from zip(self.statuses[of_cell], self.ends[of_cell], strict=True)


class Tallies:
    """All cells.

    Args:
        limit: How many series a family may have, at least LEAST_LIMIT; for a histogram, how many samples.
        rules: What is shown under which name.
        births: Notes when series are born; None if no client asks for it.
        bounds: Of the histograms' buckets.
        group_labels: What says in which group a process is; none if that is not asked for.
        group_histograms: Histograms have these labels, too.

    Attributes:
        groups: Those that have series.
        rooms: How many series there may be yet.
    """

    def __init__(
        self,
        limit: int = DEFAULT_LIMIT,
        rules: Rules | None = None,
        *,
        births: Births | None = None,
        bounds: Bounds = CLASSIC_BOUNDS,
        group_labels: tuple[str, ...] = (),
        group_histograms: bool = False,
    ) -> None:
        self.limit = limit
        self.bounds = bounds
        self.births = births
        self._rules = rules or Rules()
        free = limit - _RESERVED_CELLS, limit - _RESERVED_STATUSES, limit // _SAMPLES - _RESERVED_PROGRAMS
        self.rooms = Rooms(limit, free, shared=bool(group_labels), histograms=group_histograms)
        self.groups = Groups(group_labels, self.rooms.most_groups)
        base = self.groups.base
        self.rooms.own_nothing(base)
        self._overflow = Overflow(base, bounds, births)
        self._programs = Programs(
            self._overflow, self.rooms, base, bounds=bounds, births=births, in_groups=group_histograms
        )
        unknown = self._overflow.unknown
        cell = base.cells[UNKNOWN, None] = Cell(self._programs.claim(UNKNOWN, base), None, base, unknown)
        if births is not None:
            births.claim(cell)
        self._expired = dict.fromkeys(EVENT_NAMES, 0)

    @property
    def full(self) -> bool:
        """Some family has no series left for what is new."""
        return self.rooms.is_short

    @property
    def rules(self) -> Rules:
        """The rules in force."""
        return self._rules

    def apply_rules(self, rules: Rules) -> None:
        """Go by other rules from now on. A process that has a cell keeps it."""
        self._rules = rules
        self.groups.forget_names()

    # -- which cell ---------------------------------------------------------------------------------------------

    def claim_cell(self, comm: bytes | None, uid: int | None, group: Group | None = None) -> Cell:
        """Return the cell of a comm, a uid and a group. None: it is not known."""
        return self._cell(UNKNOWN if comm is None else self._rules.name(comm), uid, group or self.groups.unknown)

    def shown_comm(self, comm: bytes, uid: int | None) -> str | None:
        """Return how a comm is shown, None if the rules exclude it or the uid; takes no series."""
        return self._rules.name(comm) if self._rules.counts(uid) else None

    def claim_group(self, values: tuple[str, ...]) -> Group:
        """Return the group that the rules make of these values of its labels."""
        shown = self._rules.group(self.groups.names, values)
        return self.groups.excluded if shown is None else self.groups.claim(shown)

    def claim_sibling(self, cell: Cell, uid: int | None) -> Cell:
        """Return the cell of the same program and group under another uid."""
        return self._cell(cell.comm, uid, cell.group)

    def claim_cell_in(self, cell: Cell, group: Group) -> Cell:
        """Return the cell of the same program and uid in another group."""
        return self._cell(cell.comm, cell.uid, group)

    def claim_cell_of_record(self, comm_uid: bytes, group: Group | None = None) -> Cell:
        """Return the cell that the 44 bytes of an exit record name, of a process in this group."""
        group = group or self.groups.unknown
        cell = group.by_record.get(comm_uid)
        if cell is None:
            cell = self.claim_cell(*decode_comm_uid(comm_uid), group)
            self.groups.remember_record(group, comm_uid, cell)
        return cell

    def claim_cell_of_exec(self, comm: bytes, uid: int | None, group: Group) -> Cell:
        """Return the cell of a comm, a uid and a group, and remember it for the next exec of that program."""
        cell = group.by_exec.get((comm, uid))
        if cell is None:
            cell = self.claim_cell(comm, uid, group)
            self.groups.remember_exec(group, (comm, uid), cell)
        return cell

    def _cell(self, comm: str | None, uid: int | None, group: Group) -> Cell:
        while group.successor is not None:
            group = group.successor
        if comm is None or group is self.groups.excluded or not self._rules.counts(uid):
            return self._overflow.exclude(comm, uid, group)
        cell = group.cells.get((comm, uid))
        if cell is not None:
            return cell
        if self.rooms.take(CELLS, group):
            return self._new_cell(comm, uid, group)
        return self._overflow.fold(comm, uid, group)

    def _new_cell(self, comm: str, uid: int | None, group: Group) -> Cell:
        cell = Cell(self._programs.claim(comm, group), uid, group, self._overflow.behind(comm, group))
        group.cells[comm, uid] = cell
        if self.births is not None and not group.is_open:
            self.births.claim(cell)
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
            self._programs.give_histograms(cell)
        while status not in cell.exits and cell.overflow is not None and not self.rooms.take(ENDS, cell.home):
            cell = cell.overflow
        exits = cell.exits
        if self.births is not None and status not in exits:
            self.births.note_status(cell, status)
        exits[status] = exits.get(status, 0) + count

    def absorb(self, cell: Cell, other: Cell) -> None:
        """Count in a cell what was counted in one that has a program of its own and is not needed any more."""
        add_counters(cell, other)
        for status, count in other.exits.items():
            self.count_end(cell, status, count)
        if other.program.histograms is not NO_HISTOGRAMS:
            add_histograms(cell.program.histograms, other.program.histograms)

    # -- groups that become known -------------------------------------------------------------------------------

    def settle(self, group: Group, known: Group) -> None:
        """Count in a group what was counted in one that was open; a process that has a cell of it keeps that."""
        group.successor = known
        del self.groups.open[group]
        group.by_record.clear()
        group.by_exec.clear()
        for (comm, uid), counted in group.cells.items():
            cell = self._cell(comm, uid, known)
            add_counters(cell, counted)
            for status, count in counted.exits.items():
                self.count_end(cell, status, count)
            self.rooms.give(CELLS, group)
            self._programs.leave(counted.program, cell.program)
        group.cells.clear()

    # -- series that are not needed any more --------------------------------------------------------------------

    def own_cells(self) -> list[Cell]:
        """Return the cells that can be dropped: `<unknown>` and `<other>` cannot."""
        return [cell for group in self.groups for cell in group.cells.values() if cell.program.comm != UNKNOWN]

    def drop(self, cells: Iterable[Cell]) -> None:
        """Forget cells that no process refers to. Their series begin anew when they come back."""
        self.groups.forget_names()
        for cell in cells:
            group = cell.home
            del group.cells[cell.program.comm, cell.uid]
            self.rooms.give(CELLS, group)
            self._drop(cell)
            self._programs.leave(cell.program)

    def _drop(self, cell: Cell) -> None:
        if self.births is not None:
            self.births.forget(cell)
        self.rooms.give(ENDS, cell.home, len(cell.exits))
        for event, count in count_events([cell]).items():
            self._expired[event] += count

    def drop_group(self, group: Group) -> None:
        """Forget a group in which no process is any more, with all its series."""
        self.drop(list(group.cells.values()))
        for cell in group.others.values():
            self._drop(cell)
        self.groups.drop(group)

    # -- copies -------------------------------------------------------------------------------------------------

    def snapshot_cells(self) -> CellCounts:
        """Copy what is counted per comm and uid."""
        base = self.groups.base
        cells, keys = [*base.cells.values()], [*base.cells]
        beside = [*self._overflow]
        for group in self.groups:
            if group is not base:
                cells += group.cells.values()
                keys += group.cells
                beside += group.others.values()
        cells += beside
        keys += [(cell.program.comm, cell.uid) for cell in beside]
        counters = {name: list(map(attrgetter(name), cells)) for name in FIELDS}
        exits = [cell.exits for cell in cells]
        return CellCounts(
            keys,
            [cell.group.values for cell in cells],
            [cell.labels for cell in cells],
            counters,
            list(map(len, exits)),
            list(chain.from_iterable(exits)),
            list(chain.from_iterable(map(dict.values, exits))),
            None if self.births is None else self.births.of_cells(cells, counters),
        )

    def snapshot_programs(self) -> list[ProgramCounts]:
        """Copy what is counted per comm, of those of which a process has ended."""
        return self._programs.snapshot()

    def unattributed(self) -> dict[str, int]:
        """Count the events whose comm is not known, by kind."""
        of_groups = [cell for group in self.groups for cell in (*group.cells.values(), *group.others.values())]
        unknown = [cell for cell in of_groups if cell.program.comm == UNKNOWN]
        return count_events([self._overflow.unknown, *unknown])

    def pending(self) -> dict[str, int]:
        """Count the events that wait for their group, by kind."""
        return count_events([cell for group in self.groups.open for cell in group.cells.values()])

    def excluded(self) -> dict[str, int]:
        """Count the events that the rules leave out, by kind."""
        return count_events([self._overflow.excluded])

    def expired(self) -> dict[str, int]:
        """Count the events of series that were dropped, by kind."""
        return self._expired.copy()
