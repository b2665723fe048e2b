"""The cells that events add to, one for each comm, uid and group.

A `Cell` is handed out once per program and user and then kept by each process that counts under that name, so that
counting is `cell.forks += 1`: no label, no tuple, no hash. What is per comm alone, the histograms, stands in the
`Program` that the cells of all its users share; with --group.histograms each group has programs of its own.

A comm and uid beyond the limit of series gets a `FoldedCell`: it knows its comm, uid and group, and counts in the
cell of `<other>`.

A `Group` is where processes run: a container, a unit. A process has the group of its cell, and a child the cell of
its parent: so a group is inherited without a look at it. Where groups are not asked for there is one.
"""

from collections.abc import Iterable
from operator import attrgetter
from typing import Any

from exporter.tallies.counters import BY_EVENT, EVENT_NAMES, FIELDS, Counters, values_of
from exporter.tallies.histograms import NO_HISTOGRAMS, Bounds, new_histograms
from exporter.tallies.labels import (
    EXCLUDED,
    GroupName,
    Key,
    write_cell_labels,
    write_group_labels,
    write_program_labels,
)

_COUNTED = tuple((event, attrgetter(row.field)) for event, row in BY_EVENT.items())


class Program:
    """What is counted per comm, and per group where histograms have groups.

    Attributes:
        comm: The label value.
        group: Of its histograms; None where they have none.
        labels: The same as it is written in an exposition, for its own histograms; empty without.
        histograms: Its own, or those of `<other>`.
        cells: How many there are.
    """

    __slots__ = ("cells", "comm", "group", "histograms", "labels")

    def __init__(self, comm: str, group: "Group | None" = None) -> None:
        self.comm = comm
        self.group = group
        # Most of many programs are beyond the limit of histograms.
        self.labels = ""
        self.histograms = NO_HISTOGRAMS
        self.cells = 0

    def own_histograms(self, bounds: Bounds) -> None:
        """Give it histograms of its own."""
        self.labels = write_program_labels(self.comm)
        self.histograms = new_histograms(bounds)


class Group:
    """Where processes run, as far as their series say it.

    Attributes:
        values: Of the labels that say it; none where groups are not asked for.
        named: The same with the names of the labels.
        labels: The same as they are written in an exposition, behind those of a cell.
        cells: Its cells.
        by_record: They by the 44 bytes of an exit record, as far as they are remembered.
        by_exec: They by the comm of an exec and a uid, as far as they are remembered.
        known_record: `by_record.get`. Each cell has it too: to go through the group costs the hot loop more.
        known_exec: `by_exec.get`; as known_record.
        others: What has no series of its own, by comm: `<unknown>` and `<other>`.
        taken: How much room it has taken, of each kind; see room.py.
        successor: Where its processes count from now on; None if that is here.
    """

    __slots__ = (
        "by_exec",
        "by_record",
        "cells",
        "known_exec",
        "known_record",
        "labels",
        "named",
        "others",
        "successor",
        "taken",
        "values",
    )
    is_open = False
    """It is not known yet which group it is: nothing of it is shown."""

    def __init__(self, values: tuple[str, ...] = (), names: tuple[str, ...] = ()) -> None:
        self.values = values
        self.named: GroupName = tuple(zip(names, values, strict=True)) if names else ()
        self.labels = write_group_labels(names, values) if names else ""
        self.cells: dict[Key, Cell] = {}
        self.by_record: dict[bytes, Cell] = {}
        self.by_exec: dict[tuple[bytes, int | None], Cell] = {}
        self.known_record = self.by_record.get
        self.known_exec = self.by_exec.get
        self.others: dict[str, Cell] = {}
        self.taken = [0, 0, 0]
        self.successor: Group | None = None

    @property
    def last(self) -> "Group":
        """This group, or if it became known since, the one that it is."""
        group = self
        while group.successor is not None:
            group = group.successor
        return group

    @property
    def is_excluded(self) -> bool:
        """The rules leave out what runs here."""
        return EXCLUDED in self.values


class Cell(Counters):
    """What is counted per comm, uid and group.

    Attributes:
        comm: What the process is called, None where that does not matter.
        uid: The real uid, None where it is not known.
        group: That of the processes which have this cell.
        home: The group whose series it counts in.
        labels: Comm, uid and group as they are written in an exposition.
        exits: How many processes ended, by wait status without the core bit; see Tallies.count_end.
        overflow: Takes the statuses for which no series is left; None if there is no limit.
        known_record: The group's.
        known_exec: The group's.
    """

    __slots__ = (
        "comm",
        "cpu_ns",
        "exits",
        "group",
        "home",
        "known_exec",
        "known_record",
        "labels",
        "lifetime_ns",
        "max_rss_kib",
        "overflow",
        "program",
        "uid",
    )

    def __init__(self, program: Program, uid: int | None, group: Group, overflow: "Cell | None" = None) -> None:
        super().__init__()
        self.program = program
        self.comm: str | None = program.comm
        self.uid = uid
        self.group = self.home = group
        self.known_record = group.known_record
        self.known_exec = group.known_exec
        self.labels = write_cell_labels(program.comm, uid) + group.labels
        self.overflow = overflow
        self.exits: dict[int, int] = {}
        self.lifetime_ns, self.cpu_ns, self.max_rss_kib = program.histograms


class FoldedCell(Cell):
    """A comm and uid without series: what counts here counts in the target's cell.

    It lives for as long as a process that has it, or a record that is remembered.
    """

    __slots__ = ("__weakref__", "target")

    def __init__(self, target: Cell, comm: str | None, uid: int | None, group: Group) -> None:
        self.target = target
        self.group = group
        self.home = target.home
        self.known_record = group.known_record
        self.known_exec = group.known_exec
        self.program = target.program
        self.comm = comm
        self.uid = uid
        self.overflow = target.overflow
        self.exits = target.exits
        self.lifetime_ns, self.cpu_ns, self.max_rss_kib = target.lifetime_ns, target.cpu_ns, target.max_rss_kib


def _of_target(name: str) -> Any:
    def read(self: FoldedCell) -> int:
        return getattr(self.target, name)  # type: ignore[no-any-return]

    def write(self: FoldedCell, value: int) -> None:
        setattr(self.target, name, value)

    return property(read, write)


for _name in FIELDS:
    setattr(FoldedCell, _name, _of_target(_name))


def count_events(cells: Iterable[Cell]) -> dict[str, int]:
    """Add up what some cells counted, by the value of the label `event`."""
    cells = list(cells)
    totals = dict.fromkeys(EVENT_NAMES, 0)
    for event, value_of in _COUNTED:
        totals[event] += sum(map(value_of, cells))
    totals["exit"] = sum([sum(cell.exits.values()) for cell in cells])
    return totals


def count_all(cell: Cell) -> int:
    """Add up all that a cell counted."""
    return sum(values_of(cell)) + sum(cell.exits.values())
