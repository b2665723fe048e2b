"""exporter/tallies/room.py: how much of the room one group can take from the others."""

import pytest

from exporter.tallies.cells import Group
from exporter.tallies.room import CELLS, ENDS, PROGRAMS, Room, Rooms

LIMIT = 1000
KINDS = (CELLS, ENDS, PROGRAMS)


def take_all(rooms: Rooms, kind: int, group: Group) -> int:
    """Take room for a group as long as there is some; returns how much it was."""
    return next(n for n in range(10 * LIMIT) if not rooms.take(kind, group))


@pytest.mark.parametrize("kind", KINDS)
def test_without_groups_all_room_can_be_taken(kind: int) -> None:
    rooms = Rooms(LIMIT, (900, 300, 50), shared=False)
    group = Group()
    assert not rooms.is_short
    assert take_all(rooms, kind, group) == (900, 300, 50)[kind]
    assert (rooms.free[kind], rooms.is_short) == (0, True)


@pytest.mark.parametrize("kind", [CELLS, ENDS])
def test_each_group_gets_what_is_its_own_whatever_others_have_taken(kind: int) -> None:
    rooms = Rooms(LIMIT, (900, 300, 50), shared=True)
    groups = [Group((str(n),)) for n in range(rooms.most_groups)]
    taken = [take_all(rooms, kind, group) for group in groups]
    assert sum(taken) <= (900, 300, 50)[kind]
    # The first one takes half of what is free, and what is its own.
    assert taken[0] < (900, 300, 50)[kind] / 2
    assert taken == sorted(taken, reverse=True)
    assert min(taken) == taken[-1] >= (8, 5)[kind]


def test_a_storm_in_one_group_leaves_half_of_the_histograms_to_the_others() -> None:
    rooms = Rooms(LIMIT, (900, 300, 50), shared=True)
    assert take_all(rooms, PROGRAMS, Group(("storm",))) == 25
    assert rooms.free[PROGRAMS] == 25


@pytest.mark.parametrize("kind", [CELLS, ENDS])
def test_what_is_given_back_can_be_taken_again(kind: int) -> None:
    rooms = Rooms(LIMIT, (900, 300, 50), shared=True)
    storm, other = Group(("storm",)), Group(("other",))
    before = rooms.free
    taken = take_all(rooms, kind, storm)
    rooms.give(kind, storm, 3)
    rooms.give(kind, storm, taken - 3)
    assert rooms.free == before
    assert take_all(rooms, kind, other) == taken


def test_a_group_without_room_of_its_own_takes_from_what_is_free() -> None:
    rooms = Rooms(LIMIT, (900, 300, 50), shared=True)
    base = Group(("<other>",))
    rooms.own_nothing(base)
    free = rooms.free[CELLS]
    assert rooms.take(CELLS, base)
    assert rooms.free[CELLS] == free - 1


def test_one_that_was_refused_makes_a_room_short_though_some_is_left() -> None:
    room = Room(10, shared=True)
    assert [room.take(taken) for taken in (5, 9, 9)] == [True, False, False]
    assert (room.free, room.is_short) == (9, True)
