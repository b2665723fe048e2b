"""What is counted per comm: its histograms, which the cells of all users and groups share."""

from typing import NamedTuple

from exporter.tallies.births import Births
from exporter.tallies.cells import Cell, Group, Program
from exporter.tallies.histograms import NO_HISTOGRAMS, Bounds, Histogram, add_histograms, new_histograms
from exporter.tallies.overflow import Overflow
from exporter.tallies.room import PROGRAMS, Rooms


class ProgramCounts(NamedTuple):
    """One program's histograms at the time of a snapshot."""

    comm: str
    labels: str
    lifetime_ns: Histogram
    cpu_ns: Histogram
    max_rss_kib: Histogram
    born_seconds: float | None = None
    """When it had the first end; None if it is not noted."""


class Programs:
    """The programs that have cells.

    Args:
        overflow: Has the programs that there always are.
        rooms: How many histograms there may be yet.
        base: The group of all, or `<other>`.
        bounds: Of the histograms' buckets.
        births: Notes when series are born; None if no client asks for it.
    """

    def __init__(
        self, overflow: Overflow, rooms: Rooms, base: Group, *, bounds: Bounds, births: Births | None
    ) -> None:
        self._other = overflow.other.program
        self._rooms = rooms
        self._base = base
        self._bounds = bounds
        self._births = births
        unknown = overflow.unknown.program
        self._by_comm = {unknown.comm: unknown}

    def claim(self, comm: str) -> Program:
        """Return the program of a cell that is made."""
        program = self._by_comm.get(comm)
        if program is None:
            program = self._by_comm[comm] = Program(comm)
        program.cells += 1
        return program

    def leave(self, program: Program, heir: Program | None = None) -> None:
        """Note that a program has a cell less; without any it is forgotten, and an heir has its histograms."""
        program.cells -= 1
        if program.cells:
            return
        del self._by_comm[program.comm]
        if self._births is not None:
            self._births.forget_program(program)
        if self._has_own(program):
            self._rooms.give(PROGRAMS, self._base)
            if heir is not None:
                add_histograms(heir.histograms, program.histograms)

    def give_histograms(self, cell: Cell) -> None:
        """Give a cell those of its program; a program that has none gets its own, or those of `<other>`."""
        program = cell.program
        if program.histograms is NO_HISTOGRAMS:
            if cell.overflow is None:
                program.histograms = new_histograms(self._bounds)
            elif self._rooms.take(PROGRAMS, cell.home):
                program.histograms = new_histograms(self._bounds)
                if self._births is not None:
                    self._births.note_histograms(program)
            else:
                program.histograms = cell.overflow.program.histograms
        cell.lifetime_ns, cell.cpu_ns, cell.max_rss_kib = program.histograms

    def snapshot(self) -> list[ProgramCounts]:
        """Copy what is counted per comm, of those of which a process has ended."""
        own = [program for program in self._by_comm.values() if self._has_own(program)]
        return [
            ProgramCounts(
                p.comm,
                p.labels,
                p.histograms.lifetime_ns.copy(),
                p.histograms.cpu_ns.copy(),
                p.histograms.max_rss_kib.copy(),
                None if self._births is None else self._births.of_program(p),
            )
            for p in (*own, self._other)
            if any(p.histograms.lifetime_ns) or any(p.histograms.cpu_ns)
        ]

    def _has_own(self, program: Program) -> bool:
        return program.histograms is not NO_HISTOGRAMS and program.histograms is not self._other.histograms
