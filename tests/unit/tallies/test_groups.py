"""exporter/tallies/groups.py, and what Tallies does where series have groups."""

import struct
from collections import Counter

import pytest
from expositions import OpenGroup

from exporter.tallies.births import Births
from exporter.tallies.cells import Cell, Group
from exporter.tallies.histograms import LIFETIME_NS, observe
from exporter.tallies.labels import OTHER, OTHER_UID, UNKNOWN
from exporter.tallies.tallies import LEAST_LIMIT, Tallies

Counts = dict[tuple[str, int | None, str], int]


@pytest.fixture
def tallies() -> Tallies:
    return Tallies(LEAST_LIMIT, group_labels=("unit",))


def unit(tallies: Tallies, name: str) -> Group:
    return tallies.groups.claim((name,))


def open_group(tallies: Tallies) -> Group:
    group = OpenGroup()
    tallies.groups.open[group] = None
    return group


def counts(tallies: Tallies, counter: str = "forks") -> Counts:
    cells = tallies.snapshot_cells()
    column = cells.counters[counter]
    rows = zip(cells.keys, cells.groups, column, strict=True)
    return {(comm, uid, group): n for (comm, uid), (group,), n in rows if n}


def ends(tallies: Tallies) -> Counter[str]:
    """How many processes ended, by group."""
    cells = tallies.snapshot_cells()
    found: Counter[str] = Counter()
    for (group,), exits in zip(cells.groups, cells.exits, strict=True):
        found[group] += sum(exits.values())
    return +found


def end(tallies: Tallies, cell: Cell, status: int = 0) -> None:
    """As the hot loop counts an end."""
    if status in cell.exits:
        cell.exits[status] += 1
    else:
        tallies.count_end(cell, status)
    observe(cell.lifetime_ns, LIFETIME_NS, 1)


def test_without_groups_there_is_one_and_it_has_no_labels() -> None:
    tallies = Tallies()
    assert tallies.groups.unknown is tallies.groups.base
    assert tallies.claim_cell(b"sh", 0).labels == 'comm="sh",uid="0"'
    assert list(tallies.groups) == [tallies.groups.base]


def test_the_same_program_counts_apart_in_each_group(tallies: Tallies) -> None:
    for n, name in enumerate(("a.service", "b.service", "")):
        tallies.claim_cell(b"sh", 0, unit(tallies, name)).forks += n + 1
    tallies.claim_cell(b"sh", 0).forks += 9
    assert counts(tallies) == {
        ("sh", 0, "a.service"): 1,
        ("sh", 0, "b.service"): 2,
        ("sh", 0, ""): 3,
        ("sh", 0, UNKNOWN): 9,
    }
    cell = tallies.claim_cell(b"sh", 0, unit(tallies, "a.service"))
    assert cell.labels == 'comm="sh",uid="0",unit="a.service"'
    assert tallies.claim_sibling(cell, 7).group is cell.group
    assert tallies.claim_cell_in(cell, unit(tallies, "b.service")).forks == 2


def test_records_and_execs_are_remembered_for_each_group(tallies: Tallies) -> None:
    record = struct.pack("=32sB7xI", b"make", 0, 1000)
    groups = [unit(tallies, "a.service"), unit(tallies, "b.service")]
    cells = [tallies.claim_cell_of_record(record, group) for group in groups]
    assert [cell.group for cell in cells] == groups
    assert [group.known_record(record) for group in groups] == cells
    execd = [tallies.claim_cell_of_exec(b"make", 1000, group) for group in groups]
    assert execd == cells
    assert [cell.known_exec((b"make", 1000)) for cell in cells] == cells


def test_a_name_cannot_make_a_label_that_stands_for_something_else(tallies: Tallies) -> None:
    values = [unit(tallies, name).values[0] for name in ("a\n.service", OTHER, 'b".service')]
    assert values == [r"a\x0a.service", r"\x3cother>", 'b".service']


def test_more_groups_than_there_may_be_count_in_the_group_other(tallies: Tallies) -> None:
    for n in range(LEAST_LIMIT):
        tallies.claim_cell(b"sh", 0, unit(tallies, f"{n}.service")).forks += 1
    by_group = {group: n for (_, _, group), n in counts(tallies).items()}
    # <unknown> is one of them.
    assert len(by_group) == LEAST_LIMIT // 20
    assert by_group[OTHER] == LEAST_LIMIT - len(by_group) + 1


def test_a_storm_of_names_in_one_group_leaves_the_others_their_series(tallies: Tallies) -> None:
    storm = unit(tallies, "storm.service")
    for n in range(20 * LEAST_LIMIT):
        cell = tallies.claim_cell(b"c%d" % n, n % 300, storm)
        cell.forks += 1
        end(tallies, cell, (n % 256) << 8)
    for n in range(LEAST_LIMIT // 20 - 2):
        group = unit(tallies, f"{n}.service")
        for comm in (b"one", b"two", b"three"):
            cell = tallies.claim_cell(comm, 0, group)
            cell.forks += 1
            end(tallies, cell, 0x100)
    found = counts(tallies)
    assert sum(n for (_, _, group), n in found.items() if group == "storm.service") == 20 * LEAST_LIMIT
    assert found[OTHER, OTHER_UID, "storm.service"] > 10 * LEAST_LIMIT
    for n in range(LEAST_LIMIT // 20 - 2):
        assert [found[comm, 0, f"{n}.service"] for comm in ("one", "two", "three")] == [1, 1, 1]
        assert ends(tallies)[f"{n}.service"] == 3
    assert tallies.full
    assert len(found) <= LEAST_LIMIT


def test_whatever_comes_no_family_has_more_series_than_its_limit(tallies: Tallies) -> None:
    for n in range(30 * LEAST_LIMIT):
        group = unit(tallies, f"{n % 100}.service")
        cell = tallies.claim_cell(b"c%d" % (n // 3), n % 200, group)
        cell.forks += 1
        end(tallies, cell, (n * 7 % 256) << 8)
    cells = tallies.snapshot_cells()
    assert sum(map(bool, cells.counters["forks"])) <= LEAST_LIMIT
    assert sum(map(len, cells.exits)) <= LEAST_LIMIT
    assert sum(cells.counters["forks"]) == sum(ends(tallies).values()) == 30 * LEAST_LIMIT
    programs = tallies.snapshot_programs()
    assert sum(sum(p.lifetime_ns[:-1]) for p in programs) == 30 * LEAST_LIMIT
    assert len(programs) * 18 <= LEAST_LIMIT


# -- groups that are not known yet ---------------------------------------------------------------------------


def test_an_open_group_is_not_shown_and_its_counts_wait(tallies: Tallies) -> None:
    cell = tallies.claim_cell(b"sh", 0, open_group(tallies))
    cell.forks += 2
    end(tallies, cell, 9)
    assert (counts(tallies), ends(tallies)) == ({}, {})
    assert (tallies.pending()["fork"], tallies.pending()["exit"]) == (2, 1)


def test_a_group_that_becomes_known_takes_all_counts_with_it(tallies: Tallies) -> None:
    group, known = open_group(tallies), unit(tallies, "a.service")
    tallies.claim_cell(b"sh", 0, known).forks += 1
    for comm, uid in ((b"sh", 0), (b"sh", 7), (b"new", 0)):
        cell = tallies.claim_cell(comm, uid, group)
        cell.forks += 2
        end(tallies, cell, 9)
    tallies.settle(group, known)
    assert counts(tallies) == {
        ("sh", 0, "a.service"): 3,
        ("sh", 7, "a.service"): 2,
        ("new", 0, "a.service"): 2,
    }
    assert ends(tallies) == {"a.service": 3}
    assert {p.comm: sum(p.lifetime_ns[:-1]) for p in tallies.snapshot_programs()} == {"sh": 2, "new": 1}
    assert not any(tallies.pending().values())
    # What still asks for the open one is given the known one.
    assert tallies.claim_cell(b"sh", 0, group) is tallies.claim_cell(b"sh", 0, known)


def test_a_storm_in_an_open_group_is_bounded_and_is_lost_to_no_sum(tallies: Tallies) -> None:
    group, known = open_group(tallies), unit(tallies, "a.service")
    for n in range(5 * LEAST_LIMIT):
        cell = tallies.claim_cell(b"c%d" % n, 0, group)
        cell.forks += 1
        end(tallies, cell)
    assert len(group.cells) <= LEAST_LIMIT
    tallies.settle(group, known)
    assert sum(counts(tallies).values()) == sum(ends(tallies).values()) == 5 * LEAST_LIMIT
    assert sum(sum(p.lifetime_ns[:-1]) for p in tallies.snapshot_programs()) == 5 * LEAST_LIMIT
    # The room that it had taken is free again.
    for n in range(LEAST_LIMIT // 4):
        tallies.claim_cell(b"d%d" % n, 0, open_group(tallies)).forks += 1
    assert tallies.pending()["fork"] == LEAST_LIMIT // 4


def test_a_program_that_finds_no_room_in_the_known_group_leaves_its_histograms_to_other(tallies: Tallies) -> None:
    group, known = open_group(tallies), unit(tallies, "a.service")
    for _ in range(3):
        end(tallies, tallies.claim_cell(b"late", 0, group))
    assert {p.comm for p in tallies.snapshot_programs()} == {"late"}
    for n in range(LEAST_LIMIT):
        tallies.claim_cell(b"c%d" % n, 0, known).forks += 1
    free = tallies.rooms.free[2]
    tallies.settle(group, known)
    assert {p.comm: sum(p.lifetime_ns[:-1]) for p in tallies.snapshot_programs()} == {OTHER: 3}
    assert tallies.rooms.free[2] == free + 1
    assert ends(tallies) == {"a.service": 3}


# -- groups that are gone ------------------------------------------------------------------------------------


def test_a_group_that_is_dropped_makes_room_and_stays_in_the_sums() -> None:
    tallies = Tallies(LEAST_LIMIT, births=Births(lambda: 5.0), group_labels=("unit",))
    free = tallies.rooms.free
    for n in range(3):
        for turn in range(2 * LEAST_LIMIT):
            group = unit(tallies, f"{n}-{turn % 5}.service")
            cell = tallies.claim_cell(b"c%d" % turn, 0, group)
            cell.forks += 1
            end(tallies, cell, (turn % 256) << 8)
        for turn in range(5):
            tallies.drop_group(unit(tallies, f"{n}-{turn}.service"))
        expired = tallies.expired()
        shown = sum(counts(tallies).values()), sum(ends(tallies).values())
        assert (expired["fork"] + shown[0], expired["exit"] + shown[1]) == (2000 * (n + 1), 2000 * (n + 1))
    # What ended in ways for which no room was left stays in the group <other>.
    assert set(ends(tallies)) == {OTHER}
    assert tallies.rooms.free[0] == free[0]
    assert tallies.rooms.free[2] == free[2]
    assert len(list(tallies.groups)) == 2


# -- histograms of groups ------------------------------------------------------------------------------------


@pytest.fixture
def grouped() -> Tallies:
    return Tallies(LEAST_LIMIT, group_labels=("unit",), group_histograms=True)


def lifetimes(tallies: Tallies) -> dict[tuple[str, tuple[str, ...]], int]:
    programs = [(p.comm, p.group, sum(p.lifetime_ns[:-1])) for p in tallies.snapshot_programs()]
    found = {(comm, group): n for comm, group, n in programs}
    assert len(found) == len(programs)
    return found


def test_without_the_flag_histograms_have_no_label_of_groups(tallies: Tallies) -> None:
    for name in ("a.service", "b.service"):
        end(tallies, tallies.claim_cell(b"sh", 0, unit(tallies, name)))
    assert [(p.comm, p.labels, p.group) for p in tallies.snapshot_programs()] == [("sh", 'comm="sh"', ())]


def test_with_the_flag_a_program_has_histograms_in_each_group(grouped: Tallies) -> None:
    for n, name in enumerate(("a.service", "b.service")):
        for uid in range(n + 1):
            end(grouped, grouped.claim_cell(b"sh", uid, unit(grouped, name)))
    end(grouped, grouped.claim_cell(None, None))
    assert lifetimes(grouped) == {
        ("sh", ("a.service",)): 1,
        ("sh", ("b.service",)): 2,
        (UNKNOWN, (UNKNOWN,)): 1,
    }
    assert {p.labels for p in grouped.snapshot_programs()} == {
        'comm="sh",unit="a.service"',
        'comm="sh",unit="b.service"',
        'comm="<unknown>",unit="<unknown>"',
    }


def test_the_histograms_of_an_open_group_are_shown_when_it_is_known(grouped: Tallies) -> None:
    group, known = open_group(grouped), unit(grouped, "a.service")
    end(grouped, grouped.claim_cell(b"sh", 0, known))
    for comm, uid in ((b"sh", 0), (b"sh", 7), (b"new", 0)):
        end(grouped, grouped.claim_cell(comm, uid, group))
    assert lifetimes(grouped) == {("sh", ("a.service",)): 1}
    grouped.settle(group, known)
    assert lifetimes(grouped) == {("sh", ("a.service",)): 3, ("new", ("a.service",)): 1}


def test_a_storm_of_histograms_in_one_group_leaves_room_to_others_and_is_lost_to_no_sum(grouped: Tallies) -> None:
    storm = unit(grouped, "storm.service")
    for n in range(LEAST_LIMIT // 10):
        end(grouped, grouped.claim_cell(b"c%d" % n, 0, storm))
    for n in range(10):
        end(grouped, grouped.claim_cell(b"sh", 0, unit(grouped, f"{n}.service")))
    found = lifetimes(grouped)
    assert [found["sh", (f"{n}.service",)] for n in range(10)] == [1] * 10
    assert found[OTHER, (OTHER,)] > 0
    assert sum(found.values()) == LEAST_LIMIT // 10 + 10
    assert len(found) * 18 <= LEAST_LIMIT


def test_a_group_that_is_dropped_gives_the_room_of_its_histograms_back(grouped: Tallies) -> None:
    free = grouped.rooms.free
    group = unit(grouped, "a.service")
    for comm in (b"sh", b"make"):
        end(grouped, grouped.claim_cell(comm, 0, group))
    grouped.drop_group(group)
    assert lifetimes(grouped) == {}
    assert grouped.rooms.free == free


def test_histograms_without_room_are_not_shown_twice(grouped: Tallies) -> None:
    for n in range(LEAST_LIMIT // 10):
        end(grouped, grouped.claim_cell(b"c%d" % n, 0, unit(grouped, f"{n % 40}.service")))
    for n in range(40):
        end(grouped, grouped.claim_cell(None, 0, unit(grouped, f"{n}.service")))
    assert sum(lifetimes(grouped).values()) == LEAST_LIMIT // 10 + 40
