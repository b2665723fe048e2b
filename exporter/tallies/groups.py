"""All groups that have series: which labels each has, and how many there may be.

Where groups are not asked for there is one, the base, without labels. Where they are, the base is `<other>`: it
takes what has no room elsewhere.
"""

from collections.abc import Iterator
from itertools import chain
from typing import TypeVar

from exporter.tallies.cells import Cell, FoldedCell, Group
from exporter.tallies.labels import EXCLUDED, OTHER, UNKNOWN, printable
from exporter.tallies.room import CELLS

# Where a record's 44 bytes lead is remembered for this many of them, then learned anew: hostile names must not
# fill the memory.
_REMEMBERED = 1 << 14
# So many of them may have no series of their own: each has a cell only because it is remembered, and comes once in
# a storm of names.
_FOLDED_REMEMBERED = 1 << 11
# Cells that a group can have beside its own: <unknown> and <other>.
_OTHERS = 2

_T = TypeVar("_T")


class Groups:
    """The groups that have series.

    Args:
        names: Of the labels of groups; none where groups are not asked for.
        most: How many there may be.

    Attributes:
        names: Of the labels.
        base: The group of all, or `<other>`.
        excluded: The group of all processes that the rules leave out for where they run; it has no series.
        unknown: The group of a process of which it cannot be known; the base where groups are not asked for.
        open: Groups that are not known yet: their counts are settled in one that is.
    """

    def __init__(self, names: tuple[str, ...], most: int) -> None:
        self.names = names
        self._left = most
        self.base = self._make((OTHER,) * len(names))
        self.excluded = self._make((EXCLUDED,) * len(names))
        self._by_values = {self.base.values: self.base}
        self.open: dict[Group, None] = {}
        self._records = self._execs = self._folded = 0
        self.unknown = self.claim((UNKNOWN,) * len(names))

    def __iter__(self) -> Iterator[Group]:
        return iter(self._by_values.values())

    def _all(self) -> Iterator[Group]:
        return chain(self, self.open, (self.excluded,))

    def _make(self, values: tuple[str, ...]) -> Group:
        return Group(values, self.names)

    def claim(self, values: tuple[str, ...]) -> Group:
        """Return the group that has these values of the labels; the base if there is no room for another."""
        values = tuple(printable(value) if value and value != UNKNOWN else value for value in values)
        group = self._by_values.get(values)
        if group is not None:
            return group
        if not self._left:
            return self.base
        self._left -= 1
        group = self._by_values[values] = self._make(values)
        group.taken[CELLS] = _OTHERS
        return group

    def drop(self, group: Group) -> None:
        """Forget a group that has no cells any more."""
        del self._by_values[group.values]
        self._left += 1

    # -- what is remembered of records and execs ----------------------------------------------------------------

    def remember_record(self, group: Group, comm_uid: bytes, cell: Cell) -> None:
        """Remember the cell that the 44 bytes of an exit record name in a group."""
        self._records += 1
        if self._records > _REMEMBERED:
            self._records = 1
            for each in self._all():
                each.by_record.clear()
        self._make_room(cell)
        group.by_record[comm_uid] = cell

    def remember_exec(self, group: Group, key: tuple[bytes, int | None], cell: Cell) -> None:
        """Remember the cell of an exec in a group."""
        self._execs += 1
        if self._execs > _REMEMBERED:
            self._execs = 1
            for each in self._all():
                each.by_exec.clear()
        self._make_room(cell)
        group.by_exec[key] = cell

    def _make_room(self, cell: Cell) -> None:
        """Forget the names without series if this is one more of them than there may be."""
        if not isinstance(cell, FoldedCell):
            return
        self._folded += 1
        if self._folded > _FOLDED_REMEMBERED:
            self._folded = 1
            for group in self._all():
                _forget_folded(group.by_record)
                _forget_folded(group.by_exec)

    def forget_names(self) -> None:
        """Forget which records and execs lead to which cells."""
        self._records = self._execs = self._folded = 0
        for group in self._all():
            group.by_record.clear()
            group.by_exec.clear()


def _forget_folded(known: dict[_T, Cell]) -> None:
    # In place: the cells of a group have its lookup.
    for key in [key for key, cell in known.items() if isinstance(cell, FoldedCell)]:
        del known[key]
