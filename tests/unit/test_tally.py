"""Cells, programs and histograms."""

import struct
from bisect import bisect_left

import pytest

from exporter import tally
from exporter.comm import UNKNOWN
from exporter.tally import Tallies, count_events, new_histogram, observe

BOUNDS = (10, 20, 30)


@pytest.mark.parametrize(
    ("value", "bucket"), [(0, 0), (10, 0), (11, 1), (20, 1), (30, 2), (31, 3), (10**12, 3)], ids=str
)
def test_a_value_is_in_the_bucket_whose_bound_it_does_not_exceed(value: int, bucket: int) -> None:
    histogram = new_histogram(BOUNDS)
    observe(histogram, BOUNDS, value)
    assert histogram[:-1] == [int(i == bucket) for i in range(len(BOUNDS) + 1)]
    assert histogram[-1] == value


@pytest.mark.parametrize(
    ("seconds", "units", "per_unit"),
    [
        (tally.LIFETIME_SECONDS, tally.LIFETIME_NS, 1e9),
        (tally.CPU_SECONDS, tally.CPU_NS, 1e9),
        (tally.DRAIN_SECONDS, tally.DRAIN_NS, 1e9),
        (tally.MAX_RSS_BYTES, tally.MAX_RSS_KIB, 1 / 1024),
    ],
    ids=["lifetime", "cpu", "drain", "rss"],
)
def test_bounds_rise_and_are_the_same_in_both_units(
    seconds: tuple[float, ...], units: tuple[int, ...], per_unit: float
) -> None:
    assert list(seconds) == sorted(set(seconds))
    assert len(seconds) <= 15
    assert [bound * per_unit for bound in seconds] == pytest.approx(units)
    assert bisect_left(units, units[0]) == 0


def test_there_is_one_cell_for_a_comm_and_uid_and_one_program_for_a_comm() -> None:
    tallies = Tallies()
    cell = tallies.cell(b"sh", 0)
    assert tallies.cell(b"sh", 0) is cell
    other = tallies.cell(b"sh", 33)
    assert other is not cell
    assert other.program is cell.program
    assert tallies.sibling(cell, 33) is other
    assert tallies.cell(b"bash", 0).program is not cell.program


def test_who_is_unknown_shares_no_cell_with_who_calls_himself_so() -> None:
    tallies = Tallies()
    tallies.cell(None, None).forks += 1
    tallies.cell(b"<unknown>", None).forks += 10
    assert tallies.unattributed()["fork"] == 1


def test_bytes_that_look_alike_are_one_cell() -> None:
    tallies = Tallies()
    assert tallies.cell(b"\xff", 0) is tallies.cell(rb"\xff", 0)
    assert tallies.cell(b"kworker/0:1", 0) is tallies.cell(b"kworker/u8:3-ev", 0)


@pytest.mark.parametrize("junk", [b"", b"left over"], ids=["clean", "junk after the NUL"])
def test_a_record_names_the_cell_of_its_comm_and_uid(junk: bytes) -> None:
    tallies = Tallies()
    comm_uid = struct.pack("=32sB7xI", b"make\0" + junk, 0, 1000)
    cell = tallies.cell_of_record(comm_uid)
    assert cell is tallies.cell(b"make", 1000)
    assert tallies.cell_of_record(comm_uid) is cell


def test_hostile_names_in_records_do_not_fill_the_memory_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally, "_REMEMBERED", 10)
    tallies = Tallies()
    records = [struct.pack("=32sB7xI", b"same", i, 0) for i in range(100)]
    assert {id(tallies.cell_of_record(record)) for record in records} == {id(tallies.cell(b"same", 0))}
    assert len(tallies.by_record) <= 10


def test_absorbing_adds_everything() -> None:
    tallies = Tallies()
    mine, its = tallies.cell(b"a", 0), tallies.cell(b"b", 0)
    for cell, n in ((mine, 1), (its, 10)):
        cell.forks, cell.execs, cell.coredumps, cell.uid_changes, cell.ptrace_attaches = (
            n * i for i in range(1, 6)
        )
        cell.exits = {0: n, n: n}
        observe(cell.lifetime_ns, tally.LIFETIME_NS, n)
        observe(cell.cpu_ns, tally.CPU_NS, n)
        observe(cell.max_rss_kib, tally.MAX_RSS_KIB, n)
    mine.absorb(its)
    assert (mine.forks, mine.execs, mine.coredumps, mine.uid_changes, mine.ptrace_attaches) == (11, 22, 33, 44, 55)
    assert mine.exits == {0: 11, 1: 1, 10: 10}
    mine.program.absorb(its.program)
    assert [(h[0], h[-1]) for h in (mine.lifetime_ns, mine.cpu_ns, mine.max_rss_kib)] == [(2, 11)] * 3
    assert count_events([mine]) == {"fork": 11, "exec": 22, "coredump": 33, "uid": 44, "ptrace": 55, "exit": 22}


def test_a_snapshot_does_not_change_when_counting_goes_on() -> None:
    tallies = Tallies()
    cell = tallies.cell(b"sh", None)
    cell.forks, cell.exits = 1, {0: 1}
    observe(cell.lifetime_ns, tally.LIFETIME_NS, 5)
    cells, programs = tallies.cells(), tallies.programs()
    cell.forks += 1
    cell.exits[0] += 1
    observe(cell.lifetime_ns, tally.LIFETIME_NS, 5)
    tallies.cell(b"new", 0)
    assert (cells.keys, cells.labels) == ([("sh", None)], [f'comm="sh",uid="{UNKNOWN}"'])
    assert (cells.forks, cells.exits) == ([1], [{0: 1}])
    assert [(p.comm, p.lifetime_ns[-1]) for p in programs] == [("sh", 5)]


def test_labels_are_escaped_as_an_exposition_needs_it() -> None:
    assert Tallies().cell(b'a"b\\c\n', 0).labels == r'comm="a\"b\\c\\x0a",uid="0"'
