"""Names that are not known yet, one rule at a time."""

import pytest

from exporter.processes.open_names import READING_SETTLES_NS, OpenNames
from exporter.processes.process import OpenName, Process, Reading
from exporter.tallies.labels import UNKNOWN
from exporter.tallies.tallies import Tallies

LATER = READING_SETTLES_NS + 1_000


class Names:
    """OpenNames, with processes that carry names, and what was counted."""

    def __init__(self) -> None:
        self.tallies = Tallies()
        self.open = OpenNames(self.tallies)
        self.processes: dict[int, Process] = {}

    def __getitem__(self, tgid: int) -> Process:
        """A process, the same each time."""
        if tgid not in self.processes:
            self.processes[tgid] = Process(tgid, self.tallies.claim_cell(b"before", 0), 0)
        return self.processes[tgid]

    def carry(self, name: OpenName, *tgids: int) -> None:
        """These processes have the name too."""
        for tgid in tgids:
            self[tgid].make_odd().name = name
            self[tgid].cell = name.cell(0, self.tallies.groups.base)
            name.carriers[self[tgid]] = None

    def exec(self, tgid: int, *, reading: bytes | None = None, read_ns: int = 100) -> OpenName:
        """A name with one exec of uid 0."""
        name = self.open.new(self[tgid])
        self.carry(name, tgid)
        name.cell(0, self.tallies.groups.base).execs += 1
        if reading is not None:
            name.reading = Reading(self[tgid], reading, read_ns)
        return name

    @property
    def settled(self) -> dict[int, str | None]:
        """The comm of each process that has one."""
        return {tgid: process.cell.comm for tgid, process in self.processes.items() if process.odd is None}

    @property
    def execs(self) -> dict[str, int]:
        cells = self.tallies.snapshot_cells()
        return {key[0]: count for key, count in zip(cells.keys, cells.counters["execs"], strict=True) if count}


@pytest.fixture
def names() -> Names:
    return Names()


def test_a_name_takes_its_counts_of_all_uids_with_it(names: Names) -> None:
    name = names.exec(1)
    name.cell(33, names.tallies.groups.base).forks += 2
    names.tallies.count_end(name.cell(33, names.tallies.groups.base), 0x100)
    name.cell(33, names.tallies.groups.base).lifetime_ns[3] += 1
    assert names.open.pending()["fork"] == 2
    names.open.resolve(name, b"make")
    cells = names.tallies.snapshot_cells()
    assert {key: n for key, n in zip(cells.keys, cells.counters["forks"], strict=True) if n} == {("make", 33): 2}
    assert {key: n for key, n in zip(cells.keys, cells.exits, strict=True) if n} == {("make", 33): {0x100: 1}}
    assert [(p.comm, p.lifetime_ns[3]) for p in names.tallies.snapshot_programs()] == [("make", 1)]
    assert names.settled == {1: "make"}
    assert len(names.open) == 0


def test_a_name_is_resolved_once(names: Names) -> None:
    name = names.exec(1)
    names.open.resolve(name, b"first")
    names.open.resolve(name, b"second")
    assert names.execs == {"first": 1}


@pytest.mark.parametrize(("age_ns", "believed"), [(READING_SETTLES_NS, False), (READING_SETTLES_NS + 1, True)])
def test_a_reading_is_believed_when_it_is_older_than_the_window(names: Names, age_ns: int, believed: bool) -> None:
    names.exec(1, reading=b"make", read_ns=1000)
    names.open.end_batch(1000 + age_ns, names.processes)
    assert names.execs == ({"make": 1} if believed else {})


@pytest.mark.parametrize(
    ("read_ns", "left_ns", "successor", "expected"),
    [
        (100, 101, b"new", {"old": 1}),
        (100, 100, b"new", {UNKNOWN: 1}),
        (100, 99, b"new", {UNKNOWN: 1}),
        (100, 101, b"old", {UNKNOWN: 1}),
    ],
    ids=["read before", "read in the same moment", "read after", "read what is new"],
)
def test_a_process_leaves_its_name_for_a_known_one(
    names: Names, read_ns: int, left_ns: int, successor: bytes, expected: dict[str, int]
) -> None:
    name = names.exec(1, reading=b"old", read_ns=read_ns)
    assert names.open.leave(name, names[1], left_ns, successor) is None
    assert names.execs == expected


@pytest.mark.parametrize(
    ("comm", "expected"),
    [(b"new", {"old": 1, "new": 1}), (b"old", {UNKNOWN: 1, "old": 1}), (None, {UNKNOWN: 2})],
    ids=["another name", "the same name", "never known"],
)
def test_a_name_that_was_left_for_an_open_one_waits_for_that(
    names: Names, comm: bytes | None, expected: dict[str, int]
) -> None:
    first = names.exec(1, reading=b"old")
    second = names.exec(1)
    names.open.leave(first, names[1], 200, second)
    assert names.execs == {}
    names.open.resolve(second, comm)
    assert names.execs == expected
    assert len(names.open) == 0


def test_a_chain_of_rivals_has_an_end(names: Names) -> None:
    name = names.exec(1, reading=b"0")
    for i in range(1, 30):
        successor = names.exec(1, reading=b"%d" % i)
        names.open.leave(name, names[1], 200, successor)
        name = successor
        assert len(names.open) < 12
    names.open.resolve(name, b"29")
    assert len(names.open) == 0
    assert sum(names.execs.values()) == 30


def test_leaving_asks_for_another_carrier_when_its_own_reading_goes_with_it(names: Names) -> None:
    name = names.exec(1, reading=b"make")
    names.carry(name, 2)
    assert names.open.leave(name, names[1], 200, b"other") is names[2]
    assert name.reading is None


def test_leaving_does_not_touch_the_reading_of_another(names: Names) -> None:
    name = names.exec(1, reading=b"make")
    names.carry(name, 2)
    assert names.open.leave(name, names[2], 200, b"other") is None
    names.open.end_batch(LATER, names.processes)
    assert names.execs == {"make": 1}
    assert names.settled == {1: "make"}


def test_a_record_names_every_process_that_shares_the_name(names: Names) -> None:
    name = names.exec(1)
    names.carry(name, 2, 3)
    names.open.bury(name, names[2], 200, b"make")
    assert names.settled == {1: "make", 3: "make"}


@pytest.mark.parametrize(
    ("read_ns", "alive_again", "expected"),
    [(100, False, "make"), (100, True, "make"), (300, False, "make"), (300, True, UNKNOWN)],
    ids=["read alive", "read alive, pid again in use", "read as zombie", "read as another"],
)
def test_a_process_that_ends_without_a_record_is_called_what_was_read(
    names: Names, read_ns: int, alive_again: bool, expected: str
) -> None:
    name = names.exec(1, reading=b"make", read_ns=read_ns)
    names.open.bury(name, names[1], 200, None)
    names.open.end_batch(400, [1] if alive_again else [])
    assert names.execs == {expected: 1}


def test_a_process_that_ends_without_record_and_reading_is_unknown(names: Names) -> None:
    names.open.bury(names.exec(1), names[1], 200, None)
    assert names.execs == {UNKNOWN: 1}


def test_of_two_zombies_that_were_read_under_one_pid_the_earlier_is_unknown(names: Names) -> None:
    first = names.exec(1, reading=b"first", read_ns=300)
    second = names.exec(1, reading=b"second", read_ns=300)
    names.open.bury(first, names[1], 200, None)
    names.open.bury(second, names[1], 250, None)
    names.open.end_batch(400, ())
    assert names.execs == {UNKNOWN: 1, "second": 1}


def test_a_name_is_given_up_when_its_last_carrier_is_dropped(names: Names) -> None:
    name = names.exec(1)
    names.carry(name, 2)
    names.open.drop(name, names[1])
    assert names.execs == {}
    names.open.drop(name, names[2])
    assert names.execs == {UNKNOWN: 1}


def test_all_names_can_be_given_up(names: Names) -> None:
    first = names.exec(1, reading=b"old")
    names.open.leave(first, names[1], 200, names.exec(1))
    names.exec(2, reading=b"other")
    names.open.resolve_all_unknown()
    assert names.execs == {UNKNOWN: 3}
    assert len(names.open) == 0
