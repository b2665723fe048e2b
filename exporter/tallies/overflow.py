"""Where that counts which has no series of its own: what is beyond the limit, and what the rules exclude."""

from collections.abc import Iterator
from weakref import WeakValueDictionary

from exporter.tallies.births import Births
from exporter.tallies.cells import Cell, FoldedCell, Group, Program
from exporter.tallies.histograms import Bounds
from exporter.tallies.labels import EXCLUDED, OTHER, OTHER_UID, UNKNOWN

MOST_OTHER_UIDS = 64
"""Of uids whose cells are folded, the first ones keep their label."""


class Overflow:
    """The cells that there always are, and those that count in them.

    Args:
        base: The group of all, or `<other>`.
        bounds: Of the histograms' buckets.
        births: Notes when series are born; None if no client asks for it.

    Attributes:
        unknown: Takes what has an unknown comm and no series.
        other: Takes all else that has no series.
        excluded: Takes what the rules exclude; it is not shown.
    """

    def __init__(self, base: Group, bounds: Bounds, births: Births | None) -> None:
        self._base = base
        self._births = births
        self.unknown = _unlimited_cell(UNKNOWN, bounds, base)
        self.other = _unlimited_cell(OTHER, bounds, base)
        self.excluded = _unlimited_cell(EXCLUDED, bounds, base)
        self._others: dict[int | None, Cell] = {OTHER_UID: self.other}
        self._folded: WeakValueDictionary[tuple[Cell, str | None, int | None, Group], FoldedCell] = (
            WeakValueDictionary()
        )
        self._claimed(self.unknown)
        self._claimed(self.other)

    def __iter__(self) -> Iterator[Cell]:
        """Iterate over the cells of the base that are shown."""
        yield from self._others.values()
        yield self.unknown

    def _claimed(self, cell: Cell) -> Cell:
        if self._births is not None:
            self._births.claim(cell)
        return cell

    def fold(self, comm: str, uid: int | None, group: Group) -> FoldedCell:
        """Return the cell of a comm and uid that have no series of their own."""
        return self._folded_cell(self._target(comm, uid, group), comm, uid, group)

    def exclude(self, comm: str | None, uid: int | None, group: Group) -> FoldedCell:
        """Return the cell of what the rules exclude; comm None if they exclude that."""
        return self._folded_cell(self.excluded, comm, uid, group)

    def behind(self, comm: str, group: Group) -> Cell:
        """Return the cell that takes the statuses for which a cell of this comm has no series."""
        return self._target(comm, OTHER_UID, group)

    def _target(self, comm: str, uid: int | None, group: Group) -> Cell:
        if group.is_open or group is self._base:
            return self.unknown if comm == UNKNOWN else self._other_of(uid)
        base = self.unknown if comm == UNKNOWN else self.other
        cell = group.others.get(base.program.comm)
        if cell is None:
            cell = Cell(base.program, OTHER_UID, group, base)
            group.others[base.program.comm] = self._claimed(cell)
        return cell

    def _other_of(self, uid: int | None) -> Cell:
        cell = self._others.get(uid)
        if cell is None:
            if len(self._others) > MOST_OTHER_UIDS:
                return self.other
            cell = self._others[uid] = self._claimed(Cell(self.other.program, uid, self._base, self.other))
        return cell

    def _folded_cell(self, target: Cell, comm: str | None, uid: int | None, group: Group) -> FoldedCell:
        cell = self._folded.get((target, comm, uid, group))
        if cell is None:
            cell = self._folded[target, comm, uid, group] = FoldedCell(target, comm, uid, group)
        return cell


def _unlimited_cell(comm: str, bounds: Bounds, group: Group) -> Cell:
    program = Program(comm, group)
    program.own_histograms(bounds)
    return Cell(program, OTHER_UID, group)
