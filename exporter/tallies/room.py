"""How many series are left, and which group may take them.

Where series have groups, each group has a few to itself. Of the others it may take one as long as more are left
than it has taken: a storm of names in one group leaves half of the room to the others, and what is theirs.
"""

from exporter.tallies.cells import Group

CELLS, ENDS, PROGRAMS = range(3)
"""What room is for: comms and uids, wait statuses of these, histograms of comms. The places of Group.taken."""

# Where series have groups: for so many series there may be a group, which has so many to itself.
_SERIES_PER_GROUP = 20
_LEAST = (8, 5, 0)


class Room:
    """Series of one kind.

    Args:
        free: How many there are beside those that groups have to themselves.
        least: How many each group has to itself.
        shared: Groups share what is free; otherwise there is but one.

    Attributes:
        free: How many are left.
        is_short: One was refused.
    """

    def __init__(self, free: int, least: int = 0, *, shared: bool = False) -> None:
        self.free = free
        self.least = least
        self._shared = shared
        self.is_short = False

    def take(self, taken: int) -> bool:
        """Take one, if a group that has taken so many may have another."""
        if taken < self.least:
            return True
        if self.free <= (taken - self.least if self._shared else 0):
            self.is_short = True
            return False
        self.free -= 1
        return True

    def give(self, taken: int, count: int = 1) -> None:
        """Take back some of those that a group has taken, which were so many."""
        self.free += max(0, taken - self.least) - max(0, taken - count - self.least)


class Rooms:
    """Series of all kinds.

    Args:
        limit: Of a family.
        free: How many of each kind can be had, in the order of the kinds.
        shared: There are groups.
        histograms: They have histograms of their own.

    Attributes:
        most_groups: How many groups can have room of their own.
    """

    def __init__(self, limit: int, free: tuple[int, int, int], *, shared: bool, histograms: bool = False) -> None:
        self._histograms = histograms
        self.most_groups = limit // _SERIES_PER_GROUP if shared else 0
        least = _LEAST if shared else (0, 0, 0)
        self._rooms = tuple(
            Room(most - each * self.most_groups, each, shared=shared)
            for most, each in zip(free, least, strict=True)
        )
        # What is counted in groups that are not known yet has no series, but is as much in memory.
        self._open = Room(limit, shared=True)

    @property
    def free(self) -> tuple[int, ...]:
        """How many of each kind are left."""
        return tuple(room.free for room in self._rooms)

    @property
    def is_short(self) -> bool:
        """There is none left for what is new, at least of some kind and in some group."""
        return any(not room.free or room.is_short for room in self._rooms)

    def own_nothing(self, group: Group) -> None:
        """Give a group no room to itself."""
        group.taken = [room.least for room in self._rooms]

    def take(self, kind: int, group: Group) -> bool:
        """Take room for a series of a group, if there is some."""
        if group.is_open and kind == ENDS:
            return True
        room = self._open if group.is_open and kind == CELLS else self._rooms[kind]
        if not room.take(group.taken[kind]):
            return False
        group.taken[kind] += 1
        return True

    def give(self, kind: int, group: Group, count: int = 1) -> None:
        """Take back room that a group has taken; of histograms that they share it is not known whose that was."""
        if kind == PROGRAMS and not self._histograms:
            self._rooms[kind].free += count
            return
        room = self._open if group.is_open else self._rooms[kind]
        room.give(group.taken[kind], count)
        group.taken[kind] -= count
