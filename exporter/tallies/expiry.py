"""Which series have counted nothing for so long that they can go.

A cell that a process, an open name or a remembered record refers to can still be counted in, and what was
counted there after it went would be lost. Open names and records refer to none; the processes are asked for.
"""

from collections.abc import Callable, Iterator

from exporter.tallies.cells import Cell, Group, count_all
from exporter.tallies.tallies import Tallies

# A few milliseconds.
_CELLS_IN_A_SLICE = 1000


class Expiry:
    """Drops idle cells.

    Args:
        tallies: Has them.
        cells_in_use: Those that a process refers to, now.
        idle_seconds: For how long nothing must have been counted.
    """

    def __init__(self, tallies: Tallies, cells_in_use: Callable[[], set[Cell]], idle_seconds: float) -> None:
        self._tallies = tallies
        self._cells_in_use = cells_in_use
        self._idle_seconds = idle_seconds
        # What a cell had counted, and since when it has not changed.
        self._seen: dict[Cell, tuple[int, float]] = {}

    def sweep(self, now_seconds: float) -> Iterator[None]:
        """Look at all cells once; others can have their turn at each yield."""
        seen: dict[Cell, tuple[int, float]] = {}
        idle: list[Cell] = []
        for cells in _slices(self._tallies.own_cells()):
            for cell in cells:
                counted = count_all(cell)
                before, since = self._seen.get(cell, (-1, now_seconds))
                seen[cell] = (counted, since if before == counted else now_seconds)
                if now_seconds - seen[cell][1] >= self._idle_seconds:
                    idle.append(cell)
            yield
        self._seen = seen
        for cells in _slices(idle):
            in_use = self._cells_in_use()
            gone = [cell for cell in cells if cell not in in_use and count_all(cell) == seen[cell][0]]
            self._tallies.drop(gone)
            for cell in gone:
                del seen[cell]
            yield


class GoneGroups:
    """Drops groups in which no process lives any more, with all their series.

    Args:
        tallies: Have the groups.
        groups_in_use: Those in which something can yet be counted, now.
        does_not_return: Whether a group never has a process again, once it has none for a while.
        forget: Gets each group that is dropped.
        gone_seconds: For how long no process must have lived in it.
    """

    def __init__(
        self,
        tallies: Tallies,
        groups_in_use: Callable[[], set[Group]],
        does_not_return: Callable[[Group], bool],
        forget: Callable[[Group], None],
        gone_seconds: float,
    ) -> None:
        self._tallies = tallies
        self._groups_in_use = groups_in_use
        self._does_not_return = does_not_return
        self._forget = forget
        self._gone_seconds = gone_seconds
        # Since when they have had no process.
        self._empty: dict[Group, float] = {}

    def sweep(self, now_seconds: float) -> None:
        """Look at all groups once."""
        groups = self._tallies.groups
        used = self._groups_in_use() | {groups.base, groups.unknown}
        self._empty = {
            group: self._empty.get(group, now_seconds)
            for group in groups
            if group not in used and self._does_not_return(group)
        }
        gone = [group for group, since in self._empty.items() if now_seconds - since >= self._gone_seconds]
        for group in gone:
            del self._empty[group]
            self._forget(group)
            self._tallies.drop_group(group)


def _slices(cells: list[Cell]) -> Iterator[list[Cell]]:
    return (cells[i : i + _CELLS_IN_A_SLICE] for i in range(0, len(cells), _CELLS_IN_A_SLICE))
