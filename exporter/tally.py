"""The numbers: cells that events add to, one for each comm and uid.

A `Cell` is handed out once per program and user and then kept by whoever counts under that name, so that
counting is `cell.forks += 1`: no label, no tuple, no hash. What is per comm alone, the histograms, stands in
the `Program` that the cells of all its users share.

A histogram is a list: a count for each bucket, one for what is beyond the last bound, and the sum of all
values, in the integer unit that the kernel uses (ns, KiB).
"""

from bisect import bisect_left
from collections.abc import Iterable
from typing import NamedTuple

from exporter.comm import UNKNOWN, escape_label_value, printable
from exporter.kernel.taskstats import decode_comm_uid

# Upper bounds of the buckets, in seconds: a shell builtin's helper to a day's batch job.
LIFETIME_SECONDS = (
    0.001,
    0.005,
    0.01,
    0.05,
    0.1,
    0.5,
    1.0,
    5.0,
    15.0,
    60.0,
    300.0,
    900.0,
    3600.0,
    14400.0,
    86400.0,
)
CPU_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0, 60.0, 600.0, 3600.0)
MAX_RSS_BYTES = tuple(
    float(mib << 20) for mib in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384, 65536)
)
DRAIN_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)

LIFETIME_NS = tuple(round(bound * 1e9) for bound in LIFETIME_SECONDS)
CPU_NS = tuple(round(bound * 1e9) for bound in CPU_SECONDS)
DRAIN_NS = tuple(round(bound * 1e9) for bound in DRAIN_SECONDS)
MAX_RSS_KIB = tuple(int(bound) >> 10 for bound in MAX_RSS_BYTES)

Histogram = list[int]

# Where a record's 44 bytes lead is remembered for this many of them, then learned anew: hostile names must not
# fill the memory.
_REMEMBERED = 1 << 16


def new_histogram(bounds: tuple[int, ...]) -> Histogram:
    """Return an empty histogram."""
    return [0] * (len(bounds) + 2)


def observe(histogram: Histogram, bounds: tuple[int, ...], value: int) -> None:
    """Count one value."""
    histogram[bisect_left(bounds, value)] += 1
    histogram[-1] += value


class Program:
    """What is counted per comm.

    Attributes:
        comm: The label value.
        labels: The same as it is written in an exposition.
    """

    __slots__ = ("comm", "cpu_ns", "labels", "lifetime_ns", "max_rss_kib")

    def __init__(self, comm: str) -> None:
        self.comm = comm
        self.labels = f'comm="{escape_label_value(comm)}"'
        self.lifetime_ns = new_histogram(LIFETIME_NS)
        self.cpu_ns = new_histogram(CPU_NS)
        self.max_rss_kib = new_histogram(MAX_RSS_KIB)

    def absorb(self, other: "Program") -> None:
        """Add another's numbers."""
        for mine, its in (
            (self.lifetime_ns, other.lifetime_ns),
            (self.cpu_ns, other.cpu_ns),
            (self.max_rss_kib, other.max_rss_kib),
        ):
            for i, value in enumerate(its):
                mine[i] += value


class Cell:
    """What is counted per comm and uid.

    Attributes:
        uid: The real uid, None where it is not known.
        labels: Both as they are written in an exposition.
        exits: How many processes ended, by wait status without the core bit.
    """

    __slots__ = (
        "coredumps",
        "cpu_ns",
        "execs",
        "exits",
        "forks",
        "labels",
        "lifetime_ns",
        "max_rss_kib",
        "program",
        "ptrace_attaches",
        "uid",
        "uid_changes",
    )

    def __init__(self, program: Program, uid: int | None) -> None:
        self.program = program
        self.uid = uid
        self.labels = f'{program.labels},uid="{UNKNOWN if uid is None else uid}"'
        self.forks = 0
        self.execs = 0
        self.coredumps = 0
        self.uid_changes = 0
        self.ptrace_attaches = 0
        self.exits: dict[int, int] = {}
        self.lifetime_ns = program.lifetime_ns
        self.cpu_ns = program.cpu_ns
        self.max_rss_kib = program.max_rss_kib

    def absorb(self, other: "Cell") -> None:
        """Add another's numbers, its program's apart."""
        self.forks += other.forks
        self.execs += other.execs
        self.coredumps += other.coredumps
        self.uid_changes += other.uid_changes
        self.ptrace_attaches += other.ptrace_attaches
        for status, count in other.exits.items():
            self.exits[status] = self.exits.get(status, 0) + count


class CellCounts(NamedTuple):
    """All cells at the time of a snapshot, a column for each thing: with a hundred thousand series it takes
    tenths of the time of an object for each."""

    keys: list[tuple[str, int | None]]
    """(comm, uid)"""
    labels: list[str]
    """The same as it is written in an exposition."""
    forks: list[int]
    execs: list[int]
    coredumps: list[int]
    uid_changes: list[int]
    ptrace_attaches: list[int]
    exits: list[dict[int, int]]


class ProgramCounts(NamedTuple):
    """One program's histograms at the time of a snapshot."""

    comm: str
    labels: str
    lifetime_ns: Histogram
    cpu_ns: Histogram
    max_rss_kib: Histogram


class Tallies:
    """All cells.

    Attributes:
        by_record: Cells by the 44 bytes of an exit record, as far as they are remembered. Whoever does not find
            one there asks cell_of_record.
    """

    def __init__(self) -> None:
        self._programs: dict[str, Program] = {}
        self._cells: dict[tuple[str, int | None], Cell] = {}
        self.by_record: dict[bytes, Cell] = {}

    def cell(self, comm: bytes | None, uid: int | None) -> Cell:
        """Return the cell of a comm (None: nobody knows it) and a uid."""
        return self._cell(UNKNOWN if comm is None else printable(comm), uid)

    def sibling(self, cell: Cell, uid: int | None) -> Cell:
        """Return the cell of the same program under another uid."""
        return self._cell(cell.program.comm, uid)

    def cell_of_record(self, comm_uid: bytes) -> Cell:
        """Return the cell that the 44 bytes of an exit record name."""
        cell = self.by_record.get(comm_uid)
        if cell is None:
            if len(self.by_record) >= _REMEMBERED:
                self.by_record.clear()
            cell = self.by_record[comm_uid] = self.cell(*decode_comm_uid(comm_uid))
        return cell

    def _cell(self, comm: str, uid: int | None) -> Cell:
        cell = self._cells.get((comm, uid))
        if cell is None:
            program = self._programs.get(comm)
            if program is None:
                program = self._programs[comm] = Program(comm)
            cell = self._cells[comm, uid] = Cell(program, uid)
        return cell

    def cells(self) -> CellCounts:
        """Copy what is counted per comm and uid."""
        cells = self._cells.values()
        return CellCounts(
            list(self._cells),
            [cell.labels for cell in cells],
            [cell.forks for cell in cells],
            [cell.execs for cell in cells],
            [cell.coredumps for cell in cells],
            [cell.uid_changes for cell in cells],
            [cell.ptrace_attaches for cell in cells],
            [cell.exits.copy() for cell in cells],
        )

    def programs(self) -> list[ProgramCounts]:
        """Copy what is counted per comm, of those of which a process has ended."""
        return [
            ProgramCounts(p.comm, p.labels, p.lifetime_ns.copy(), p.cpu_ns.copy(), p.max_rss_kib.copy())
            for p in self._programs.values()
            if any(p.lifetime_ns) or any(p.cpu_ns)
        ]

    def unattributed(self) -> dict[str, int]:
        """Count the events that nobody could give a comm, by kind."""
        return count_events([cell for cell in self._cells.values() if cell.program.comm == UNKNOWN])


def count_events(cells: Iterable[Cell]) -> dict[str, int]:
    """Add up what some cells counted, by the value of the label `event`."""
    totals = dict.fromkeys(("fork", "exec", "exit", "uid", "ptrace", "coredump"), 0)
    for cell in cells:
        totals["fork"] += cell.forks
        totals["exec"] += cell.execs
        totals["exit"] += sum(cell.exits.values())
        totals["uid"] += cell.uid_changes
        totals["ptrace"] += cell.ptrace_attaches
        totals["coredump"] += cell.coredumps
    return totals
