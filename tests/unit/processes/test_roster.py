"""exporter/processes/roster.py: processes, and the pids that they have or had."""

import pytest

from exporter.processes.process import Process
from exporter.processes.roster import Roster
from exporter.tallies.tallies import Tallies


@pytest.fixture
def roster() -> Roster:
    return Roster()


def process(tgid: int) -> Process:
    return Process(tgid, Tallies().claim_cell(b"sh", 0), 1)


def test_a_process_is_found_by_its_tgid_until_it_is_removed(roster: Roster) -> None:
    first = roster.add(process(400))
    assert roster.by_tgid == {400: first}
    assert roster.holds(first)
    roster.remove(first)
    assert list(roster) == []
    assert not roster.holds(first)


def test_a_process_that_lost_its_pid_is_an_owner_before_the_one_that_has_it(roster: Roster) -> None:
    first, second, third = process(400), process(400), process(400)
    for one in first, second:
        roster.add(one)
        roster.lose_pid(one, 5)
    roster.add(third)
    assert roster.owners(400) == [first, second, third]
    assert list(roster) == [first, second, third]
    assert roster.holds(first)
    roster.remove(first)
    assert roster.owners(400) == [second, third]
    roster.remove(second)
    assert roster.late_of == {}
    assert roster.late_numbers() == []


def test_late_processes_have_numbers_that_are_not_given_twice(roster: Roster) -> None:
    numbers = []
    for tgid in 400, 401:
        one = roster.add(process(tgid))
        roster.lose_pid(one, 5)
        (number,) = roster.late_numbers()
        assert roster.late(number) is one
        numbers.append(number)
        roster.remove(one)
        assert roster.late(number) is None
    assert numbers == [1, 2]


def test_removing_a_process_leaves_the_next_owner_of_its_pid(roster: Roster) -> None:
    first, second = roster.add(process(400)), process(400)
    roster.remove(first)
    roster.add(second)
    roster.remove(first)
    assert roster.owners(400) == [second]


def test_processes_are_late_since_another_one_got_their_pid(roster: Roster) -> None:
    first, second = (roster.add(process(tgid)) for tgid in (400, 401))
    roster.lose_pid(first, 5)
    roster.lose_pid(second, 7)
    assert roster.late_before(5) == []
    assert roster.late_before(6) == [first]
    roster.remove(first)
    assert roster.late_before(8) == [second]


def test_a_dropped_record_was_that_of_the_oldest_owner_that_had_one(roster: Roster) -> None:
    first, second = process(400), process(400)
    roster.add(first)
    roster.lose_pid(first, 5)
    roster.add(second)
    roster.note_dropped_record(400)
    assert (first.is_unrecorded, second.is_unrecorded) == (True, False)
    roster.note_dropped_record(400)
    assert second.is_unrecorded
    roster.note_dropped_record(400)
