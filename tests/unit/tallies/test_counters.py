"""exporter/tallies/counters.py and cells.py: a row is all that a counter needs."""

import pytest

from exporter.events import EVENTS
from exporter.tallies.cells import Cell, FoldedCell, Group, Program, count_events
from exporter.tallies.counters import COUNTERS, EVENT_NAMES, CounterRow, Counters, add_counters, values_of
from exporter.tallies.tallies import Tallies

each_row = pytest.mark.parametrize("row", COUNTERS, ids=lambda row: row.field)


def new_cell() -> Cell:
    return Cell(Program("sh"), 0, Group())


def count(cell: Cell, row: CounterRow, number: int) -> None:
    setattr(cell, row.field, getattr(cell, row.field) + number)


@each_row
def test_a_cell_begins_at_zero_and_counts_in_a_slot(row: CounterRow) -> None:
    cell = new_cell()
    assert getattr(cell, row.field) == 0
    count(cell, row, 1)
    assert getattr(cell, row.field) == 1
    assert not hasattr(cell, "__dict__")
    assert type(Counters.__dict__[row.field]).__name__ == "member_descriptor"


@each_row
def test_a_folded_cell_counts_in_its_target(row: CounterRow) -> None:
    target = new_cell()
    folded = FoldedCell(target, "late", 7, target.group)
    count(folded, row, 2)
    assert getattr(target, row.field) == getattr(folded, row.field) == 2
    assert sum(values_of(target)) == 2


@each_row
def test_what_a_cell_counts_is_in_the_sums_under_its_event(row: CounterRow) -> None:
    cell = new_cell()
    count(cell, row, 3)
    # An OOM kill is counted beside an end, which has its own count.
    events = {row.event: 3} if row.event else {}
    assert {event: n for event, n in count_events([cell]).items() if n} == events


@each_row
def test_a_snapshot_has_a_column_for_it(row: CounterRow) -> None:
    tallies = Tallies()
    count(tallies.claim_cell(b"sh", 0), row, 4)
    cells = tallies.snapshot_cells()
    assert [n for n in cells.counters[row.field] if n] == [4]
    assert {len(column) for column in cells.counters.values()} == {len(cells.keys)}


def test_two_cells_are_not_equal_because_their_numbers_are() -> None:
    assert new_cell() != new_cell()
    assert len({new_cell(), new_cell()}) == 2


def test_all_numbers_are_added_to_those_of_another_cell() -> None:
    to, other = new_cell(), new_cell()
    for n, row in enumerate(COUNTERS):
        count(to, row, 1)
        count(other, row, 10 * n)
    add_counters(to, other)
    assert values_of(to) == tuple(1 + 10 * n for n in range(len(COUNTERS)))


def test_events_are_in_the_order_of_events_and_each_is_one_that_a_user_can_ask_for() -> None:
    assert set(EVENT_NAMES) == {"exit", *(row.event for row in COUNTERS if row.event)}
    assert sorted(EVENT_NAMES, key=EVENTS.index) == list(EVENT_NAMES)


def test_the_events_of_today_are_in_the_order_in_which_users_see_them() -> None:
    today = ["fork", "exec", "exit", "uid", "ptrace", "coredump"]
    assert [name for name in EVENT_NAMES if name in today] == today
