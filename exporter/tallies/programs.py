"""What is counted per comm: its histograms, which the cells of all users share, and of all groups unless those
have histograms of their own.
"""

from typing import NamedTuple

from exporter.tallies.births import Births
from exporter.tallies.cells import Cell, Group, Program
from exporter.tallies.histograms import NO_HISTOGRAMS, Bounds, Histogram, add_histograms
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
    group: tuple[str, ...] = ()
    """The values of the labels of its group; none where histograms have none."""


class Programs:
    """The programs that have cells.

    Args:
        overflow: Has the programs that there always are.
        rooms: How many histograms there may be yet.
        base: The group of all, or `<other>`.
        bounds: Of the histograms' buckets.
        births: Notes when series are born; None if no client asks for it.
        in_groups: Each group has histograms of its own.
    """

    def __init__(
        self,
        overflow: Overflow,
        rooms: Rooms,
        base: Group,
        *,
        bounds: Bounds,
        births: Births | None,
        in_groups: bool = False,
    ) -> None:
        self._other = overflow.other.program
        self._in_groups = in_groups
        self._rooms = rooms
        self._base = base
        self._bounds = bounds
        self._births = births
        self._unknown = unknown = overflow.unknown.program
        self._programs = {(unknown.comm, base): unknown}

    def claim(self, comm: str, group: Group) -> Program:
        """Return the program of a cell that is made in a group."""
        home = group if self._in_groups else self._base
        # In a group that is not known yet each cell has one for itself: each is settled by itself, and one can
        # find no room where another does.
        program = Program(comm, home) if home.is_open else self._programs.get((comm, home))
        if program is None:
            program = self._programs[comm, home] = Program(comm, home)
        program.cells += 1
        return program

    def leave(self, program: Program, heir: Program | None = None) -> None:
        """Note that a program has a cell less; without any it is forgotten, and an heir has its histograms."""
        program.cells -= 1
        if program.cells:
            return
        if _is_apart(program):
            if heir is not None and program.histograms is not NO_HISTOGRAMS:
                add_histograms(heir.histograms, program.histograms)
            return
        home = program.group or self._base
        del self._programs[program.comm, home]
        if self._births is not None:
            self._births.forget_program(program)
        if self._has_own(program):
            self._rooms.give(PROGRAMS, home)
            if heir is not None:
                add_histograms(heir.histograms, program.histograms)

    def give_histograms(self, cell: Cell) -> None:
        """Give a cell those of its program; a program that has none gets its own, or those of `<other>`."""
        program = cell.program
        if program.histograms is NO_HISTOGRAMS:
            if cell.overflow is None or _is_apart(program):
                program.own_histograms(self._bounds)
            elif self._rooms.take(PROGRAMS, cell.home):
                program.own_histograms(self._bounds)
                if self._births is not None:
                    self._births.note_histograms(program)
            else:
                program.histograms = cell.overflow.program.histograms
        cell.lifetime_ns, cell.cpu_ns, cell.max_rss_kib = program.histograms

    def snapshot(self) -> list[ProgramCounts]:
        """Copy what is counted per comm, of those of which a process has ended."""
        own = [program for program in self._programs.values() if self._has_own(program)]
        return [
            ProgramCounts(
                p.comm,
                p.labels + (p.group.labels if p.group is not None and self._in_groups else ""),
                p.histograms.lifetime_ns.copy(),
                p.histograms.cpu_ns.copy(),
                p.histograms.max_rss_kib.copy(),
                None if self._births is None else self._births.of_program(p),
                p.group.values if p.group is not None and self._in_groups else (),
            )
            for p in (*own, self._other)
            if any(p.histograms.lifetime_ns) or any(p.histograms.cpu_ns)
        ]

    def _has_own(self, program: Program) -> bool:
        shared = NO_HISTOGRAMS, self._other.histograms, self._unknown.histograms
        return program is self._unknown or all(program.histograms is not each for each in shared)


def _is_apart(program: Program) -> bool:
    """Return whether the histograms of a program are of a group that is not known yet, and not shown."""
    return program.group is not None and program.group.is_open
