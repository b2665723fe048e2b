"""Comms that are not known yet.

After an exec the kernel does not say the new comm. What happens under it is counted in cells of its own, shared
by the process and by the children that inherit the comm, until any of them tells: by the exit record of one, or
by a reading of /proc.

A late look into /proc can meet the name after the *next* exec. So what was read is kept as a `Reading` with its
time, and believed only when no other change of that process can explain it; see `OpenNames.leave`.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from exporter.tallies.cells import Cell, Program, count_events
from exporter.tallies.labels import UNKNOWN
from exporter.tallies.tallies import Tallies

# An exec changes the comm, maps the program and only then sends its event. A reading can fall in between and show
# a name whose event is still to come, so it is believed when none came for this long.
READING_SETTLES_NS = 100_000_000

# A process that execs again and again before any of its names is known: the oldest is then given up.
_MAX_RIVALS = 8


class Reading(NamedTuple):
    """What /proc showed as a process's comm."""

    tgid: int
    comm: bytes
    read_ns: int
    """When it had been read, CLOCK_MONOTONIC."""


CellOf = Callable[[int | None], Cell]
"""uid -> the cell of a name that has become known"""


class OpenName:
    """A comm that is not known yet, and what was counted under it.

    Attributes:
        cells: By uid.
        carriers: Live processes that have this comm.
        reading: What /proc showed for one of the carriers.
        rivals: Names that are (comm), unless this name turns out to be that comm.
        depth: Length of the chain of rivals that waits for this name.
    """

    __slots__ = ("_cell_of", "_waiting", "carriers", "cells", "depth", "reading", "rivals")

    def __init__(self) -> None:
        self.cells: dict[int | None, OpenCell] = {}
        self.carriers: set[int] = set()
        self.reading: Reading | None = None
        self.rivals: list[tuple[OpenName, bytes]] = []
        self.depth = 0
        self._cell_of: CellOf | None = None
        self._waiting: list[Callable[[CellOf], None]] = []

    def cell(self, uid: int | None) -> "OpenCell":
        """Return this name's cell for a uid."""
        cell = self.cells.get(uid)
        if cell is None:
            cell = self.cells[uid] = OpenCell(self, uid)
        return cell

    def when_known(self, tell: Callable[[CellOf], None]) -> None:
        """Tell somebody what the cells of this name are, as soon as that is certain."""
        if self._cell_of is None:
            self._waiting.append(tell)
        else:
            tell(self._cell_of)

    def close(self, cell_of: CellOf) -> None:
        """Say what the cells of this name are, by uid; once."""
        self._cell_of = cell_of
        for tell in self._waiting:
            tell(cell_of)
        self._waiting.clear()


class OpenCell(Cell):
    """A cell whose comm is not known yet."""

    __slots__ = ("open_name",)

    def __init__(self, open_name: OpenName, uid: int | None) -> None:
        super().__init__(Program(UNKNOWN), uid)
        self.open_name = open_name


class OpenNames:
    """All names that are not known yet.

    Args:
        tallies: Where a name's counts go once it is known.
        settle: Told of each carrier of a name that has become known: (tgid, name, comm or None).
    """

    def __init__(self, tallies: Tallies, settle: Callable[[int, OpenName, bytes | None], None]) -> None:
        self._tallies = tallies
        self._settle = settle
        # In the order in which they were opened: what is counted then is the same each time, order and all.
        self._names: dict[OpenName, None] = {}
        # Names whose last carrier was read as a zombie, by its tgid: whether it was, and not whoever got its pid
        # next, is known when all events up to the reading are.
        self.afterlife: dict[int, OpenName] = {}

    def __len__(self) -> int:
        return len(self._names)

    def new(self, tgid: int) -> OpenName:
        """Open a name for a process."""
        name = OpenName()
        name.carriers.add(tgid)
        self._names[name] = None
        return name

    def leave(self, name: OpenName, tgid: int, timestamp_ns: int, successor: OpenName | bytes) -> int | None:
        """A process gives up a name that is still open.

        The event is sent after the comm has changed. So a reading that is older than the event shows the old
        name or the new one; if it is not the new one, it is the old one. A reading that is younger than the
        event says nothing about the old name.

        Args:
            name: What it was called.
            tgid: The process.
            timestamp_ns: Of the event that tells.
            successor: What it is called now: known (a COMM event) or open too (an EXEC).

        Returns:
            Another process that carries the name and should be read now, if there is one.
        """
        name.carriers.discard(tgid)
        reading = name.reading
        if reading is not None and reading.tgid != tgid:
            return None
        name.reading = None
        if name.carriers:
            return next(iter(name.carriers))
        if reading is None or timestamp_ns <= reading.read_ns:
            self.resolve(name, None)
        elif isinstance(successor, bytes):
            self.resolve(name, reading.comm if reading.comm != successor else None)
        elif name.depth >= _MAX_RIVALS:
            self.resolve(name, None)
        else:
            successor.rivals.append((name, reading.comm))
            successor.depth = name.depth + 1
        return None

    def bury(self, name: OpenName, tgid: int, timestamp_ns: int, recorded: bytes | None) -> int | None:
        """A process ends under a name that is still open.

        Args:
            name: What it was called.
            tgid: The process.
            timestamp_ns: Of its EXIT.
            recorded: The comm in its exit record, if there is one.

        Returns:
            Another process that carries the name and should be read now, if there is one.
        """
        name.carriers.discard(tgid)
        self.reuse(tgid)
        if recorded is not None:
            self.resolve(name, recorded)
            return None
        reading = name.reading
        if reading is None and name.carriers:
            return next(iter(name.carriers))
        if reading is None:
            self.resolve(name, None)
        elif reading.tgid != tgid:
            pass
        elif timestamp_ns > reading.read_ns:
            self.resolve(name, reading.comm)
        else:
            self.afterlife[tgid] = name
        return None

    def move(self, name: OpenName, tgid: int, alias: int, timestamp_ns: int) -> None:
        """A process that carries the name has lost its pid to another, and is known by an alias from now on.

        Args:
            name: What it is called.
            tgid: The pid it had.
            alias: Stands for it.
            timestamp_ns: When the other one was forked.
        """
        name.carriers.discard(tgid)
        name.carriers.add(alias)
        if name.reading is not None and name.reading.tgid == tgid:
            # What was read since can be the other one's.
            name.reading = name.reading._replace(tgid=alias) if name.reading.read_ns < timestamp_ns else None

    def reuse(self, tgid: int) -> None:
        """A pid was another process's in the meantime: what was read there says nothing."""
        name = self.afterlife.pop(tgid, None)
        if name is not None:
            self.resolve(name, None)

    def drop(self, name: OpenName, tgid: int) -> int | None:
        """A process that carried the name is gone, and nothing told when.

        Returns:
            Another process that carries the name and should be read now, if there is one.
        """
        name.carriers.discard(tgid)
        if not name.carriers:
            self.resolve(name, None)
            return None
        if name.reading is not None and name.reading.tgid != tgid:
            return None
        name.reading = None
        return next(iter(name.carriers))

    def resolve(self, name: OpenName, comm: bytes | None) -> None:
        """Say what a name is (None: nobody will ever know), and count there what was counted under it."""
        todo: list[tuple[OpenName, bytes | None]] = [(name, comm)]
        while todo:
            name, comm = todo.pop()
            if name not in self._names:
                continue
            del self._names[name]
            for uid, counted in name.cells.items():
                self._tallies.absorb(self._tallies.claim_cell(comm, uid), counted)
            for tgid in name.carriers:
                self._settle(tgid, name, comm)
            name.close(partial(self._tallies.claim_cell, comm))
            todo += [(rival, read if comm is not None and read != comm else None) for rival, read in name.rivals]

    def resolve_all_unknown(self) -> None:
        """Give all of them up: messages were lost, so a reading can be of an exec that nobody told of."""
        self.afterlife.clear()
        for name in list(self._names):
            self.resolve(name, None)

    def end_batch(self, complete_until_ns: int, lives: Callable[[int], bool]) -> None:
        """Believe the readings that have stood for long enough.

        Args:
            complete_until_ns: All events before that have been applied.
            lives: Whether a process with this tgid is known.
        """
        for tgid, name in list(self.afterlife.items()):
            if lives(tgid) or name.reading is None:
                self.reuse(tgid)
            elif name.reading.read_ns < complete_until_ns:
                del self.afterlife[tgid]
                self.resolve(name, name.reading.comm)
        settled_ns = complete_until_ns - READING_SETTLES_NS
        for name in [name for name in self._names if name.carriers]:
            if name.reading is not None and name.reading.read_ns < settled_ns:
                self.resolve(name, name.reading.comm)

    def pending(self) -> dict[str, int]:
        """Count the events that wait for a name, by kind."""
        return count_events(cell for name in self._names for cell in name.cells.values())
