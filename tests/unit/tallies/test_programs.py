"""exporter/tallies/programs.py: histograms per comm."""

from exporter.tallies.cells import Cell, Group
from exporter.tallies.histograms import CLASSIC_BOUNDS, NO_HISTOGRAMS
from exporter.tallies.overflow import Overflow
from exporter.tallies.programs import Programs
from exporter.tallies.room import Rooms

BASE = Group()


class Made:
    """Programs that may have so many histograms."""

    def __init__(self, histograms: int) -> None:
        self.overflow = Overflow(BASE, CLASSIC_BOUNDS, None)
        self.rooms = Rooms(1000, (100, 100, histograms), shared=False)
        self.programs = Programs(self.overflow, self.rooms, BASE, bounds=CLASSIC_BOUNDS, births=None)

    def cell(self, comm: str, uid: int = 0) -> Cell:
        return Cell(self.programs.claim(comm, BASE), uid, BASE, self.overflow.other)

    def ended(self, comm: str, uid: int = 0) -> Cell:
        cell = self.cell(comm, uid)
        self.programs.give_histograms(cell)
        cell.lifetime_ns[0] += 1
        return cell

    def counts(self) -> dict[str, int]:
        return {counted.comm: counted.lifetime_ns[0] for counted in self.programs.snapshot()}


def test_the_cells_of_all_users_share_the_histograms_of_their_program() -> None:
    made = Made(1)
    assert made.ended("a", 0).program is made.ended("a", 1).program
    assert made.counts() == {"a": 2}


def test_beyond_the_limit_programs_have_the_histograms_of_other() -> None:
    made = Made(1)
    for comm in ("a", "b", "c"):
        made.ended(comm)
    assert made.counts() == {"a": 1, "<other>": 2}


def test_a_program_that_loses_its_last_cell_leaves_its_room_and_its_counts_to_an_heir() -> None:
    made = Made(2)
    old, heir = made.ended("old"), made.ended("heir")
    made.programs.leave(old.program, heir.program)
    assert made.counts() == {"heir": 2}
    made.ended("new")
    assert made.counts() == {"heir": 2, "new": 1}


def test_a_program_without_ends_has_no_histograms() -> None:
    made = Made(1)
    assert made.cell("a").program.histograms is NO_HISTOGRAMS
    assert made.counts() == {}
