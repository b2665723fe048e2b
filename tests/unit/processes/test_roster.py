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
        roster.lose_pid(one)
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
        roster.lose_pid(one)
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
