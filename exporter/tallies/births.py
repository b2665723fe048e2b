"""When series were born: what a client needs to tell the first event of a series from its past.

A birth is noted where a series is claimed: a cell, a status of a cell, a program. Which of a cell's counters have
begun to count is noted when they are copied for a scrape, so that an event costs nothing more.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import compress, repeat
from typing import NamedTuple

from exporter.tallies.cells import Cell, FoldedCell, Program
from exporter.tallies.counters import FIELDS


class CellTimes(NamedTuple):
    """When the series of all cells were born, in seconds of the wall clock, in the order of the cells."""

    counters: dict[str, list[float]]
    """By the name of the field of Counters."""
    exits: list[dict[int, float]]
    """By wait status."""


class Births:
    """Notes when series are claimed.

    Args:
        now_seconds: The wall clock.

    Attributes:
        began_seconds: When it was made: the birth of what is always there.
    """

    def __init__(self, now_seconds: Callable[[], float]) -> None:
        self._now_seconds = now_seconds
        self.began_seconds = now_seconds()
        self._looked_seconds = self.began_seconds
        self._cells: dict[Cell, float] = {}
        self._exits: dict[Cell, dict[int, float]] = {}
        self._programs: dict[Program, float] = {}
        self._counters: dict[str, dict[Cell, float]] = {name: {} for name in FIELDS}

    def claim(self, cell: Cell) -> None:
        """Note that a cell was made. Only the series of such cells are noted."""
        self._cells[cell] = self._now_seconds()
        self._exits[cell] = {}

    def note_status(self, cell: Cell, status: int) -> None:
        """Note that a cell has its first end with this status."""
        noted = self._exits.get(cell.target if isinstance(cell, FoldedCell) else cell)
        if noted is not None:
            noted[status] = self._now_seconds()

    def note_histograms(self, program: Program) -> None:
        """Note that a program has histograms of its own from now on."""
        self._programs[program] = self._now_seconds()

    def forget(self, cell: Cell) -> None:
        """Forget a cell that was dropped: its series begin anew when they come back."""
        del self._cells[cell], self._exits[cell]
        for noted in self._counters.values():
            noted.pop(cell, None)

    def forget_program(self, program: Program) -> None:
        """Forget a program that was dropped."""
        self._programs.pop(program, None)

    def of_program(self, program: Program) -> float:
        """Return when the histograms of a program were born."""
        return self._programs.get(program, self.began_seconds)

    def of_cells(self, cells: Sequence[Cell], counters: Mapping[str, Sequence[int]]) -> CellTimes:
        """Return when the series of these cells were born.

        A counter that has begun to count since it was last looked at was 0 then. That is what the time of a birth
        says: from when on the counter is complete.
        """
        for name, values in counters.items():
            noted = self._counters[name]
            for cell in [cell for cell in compress(cells, values) if cell not in noted]:
                noted[cell] = max(self._cells[cell], self._looked_seconds)
        self._looked_seconds = self._now_seconds()
        return CellTimes(
            {name: list(map(noted.get, cells, repeat(0.0))) for name, noted in self._counters.items()},
            [self._exits[cell].copy() for cell in cells],
        )
