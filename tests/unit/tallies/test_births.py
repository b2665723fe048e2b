"""exporter/tallies/births.py: when series were born."""

from exporter.tallies.births import Births, CellTimes
from exporter.tallies.labels import OTHER
from exporter.tallies.tallies import LEAST_LIMIT, CellCounts, Tallies


class Host:
    """Tallies whose clock can be set."""

    def __init__(self, limit: int = LEAST_LIMIT) -> None:
        self.now = 100.0
        self.births = Births(lambda: self.now)
        self.tallies = Tallies(limit, births=self.births)

    def look(self) -> tuple[CellCounts, CellTimes]:
        counts = self.tallies.snapshot_cells()
        assert counts.born is not None
        return counts, counts.born

    def forks(self, comm: str) -> float:
        counts, born = self.look()
        return born.counters["forks"][counts.keys.index((comm, 0))]

    def exits(self, comm: str) -> dict[int, float]:
        counts, born = self.look()
        return born.exits[counts.keys.index((comm, 0))]


def test_a_counter_is_born_with_its_cell() -> None:
    host = Host()
    host.now = 200
    host.tallies.claim_cell(b"sh", 0).forks += 1
    host.now = 300
    assert host.forks("sh") == 200


def test_a_counter_that_begins_later_was_0_when_it_was_last_looked_at() -> None:
    host = Host()
    cell = host.tallies.claim_cell(b"sh", 0)
    cell.execs += 1
    host.now = 200
    assert host.forks("sh") == 0
    cell.forks += 1
    host.now = 300
    assert host.forks("sh") == 200
    host.now = 400
    assert host.forks("sh") == 200


def test_a_status_is_born_with_its_first_end() -> None:
    host = Host()
    cell = host.tallies.claim_cell(b"sh", 0)
    host.now = 200
    host.tallies.count_end(cell, 0)
    host.now = 300
    host.tallies.count_end(cell, 9)
    host.tallies.count_end(cell, 0)
    assert host.exits("sh") == {0: 200, 9: 300}


def test_what_is_folded_is_born_under_its_new_name() -> None:
    host = Host()
    for number in range(LEAST_LIMIT):
        host.now += 1
        host.tallies.count_end(host.tallies.claim_cell(b"c%d" % number, 0), 0x100)
    _, born = host.look()
    counts, _ = host.look()
    others = [i for i, (comm, _) in enumerate(counts.keys) if comm == OTHER]
    assert any(born.exits[i] for i in others)
    for exits, times in zip(counts.exits, born.exits, strict=True):
        assert exits.keys() == times.keys()


def test_a_series_that_was_dropped_is_born_anew() -> None:
    host = Host()
    cell = host.tallies.claim_cell(b"sh", 0)
    cell.forks += 1
    host.tallies.count_end(cell, 0)
    assert host.forks("sh") == 100
    host.tallies.drop([cell])
    host.now = 500
    host.look()
    again = host.tallies.claim_cell(b"sh", 0)
    again.forks += 1
    host.tallies.count_end(again, 0)
    assert host.forks("sh") == 500
    assert host.exits("sh") == {0: 500}


def test_the_histograms_of_a_program_are_born_with_its_first_end() -> None:
    host = Host()
    cell = host.tallies.claim_cell(b"sh", 0)
    host.now = 200
    host.tallies.count_end(cell, 0)
    cell.lifetime_ns[0] += 1
    host.now = 300
    (program,) = host.tallies.snapshot_programs()
    assert program.born_seconds == 200


def test_without_births_nothing_is_noted() -> None:
    tallies = Tallies()
    tallies.count_end(tallies.claim_cell(b"sh", 0), 0)
    assert tallies.snapshot_cells().born is None
