"""In which group a process is, where that is asked for: what is believed of it, and when.

A child is born in its parent's cgroup, and has its parent's group with its cell. Then a runtime or systemd moves
it, without an event. But nearly all of them call setsid(2) before the move and exec(2) after it. So a process that
begins a session (SID) gets a group of its own that is open, which its later children share. What is counted in it
waits until a reading shows where the process is. It is read when it has exec'd, when it has ended, and if it does
neither, a while later: each time the move is over.

    SID        +------+  EXEC, EXIT, a second   +-----+  a reading, and all events before it   +---------+
    ---------->| open |------------------------>| due |--------------------------------------->| settled |
               +------+                         +-----+  it cannot be read: `<unknown>`        +---------+

A process that moves without SID is found by a later reading: after its EXEC if it lives then, or by a scan. If
that shows another group than its own, it gets an open group with this reading. When all events before the reading
have been applied it is settled there, or, if the pid was another process's by then, where it was before.

It is the mechanism of the open names (open_names.py): cells of their own, which are absorbed when it is known
where they belong. A name and a group can be open at the same time.
"""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from exporter.groups.cgroup_path import Placement
from exporter.processes.mounts import MountSpaces
from exporter.processes.naming import Naming
from exporter.processes.places import Places, PodContainer, PodName
from exporter.processes.process import GroupReading, OpenCell, OpenGroup, Process
from exporter.processes.roster import Roster
from exporter.tallies.cells import Group
from exporter.tallies.tallies import Tallies

# After a SID without an exec the move is over by then, or there is none. 14 ms were seen (runc).
_MOVES_WITHIN_NS = 1_000_000_000
# Any user can begin sessions, as many as he likes.
_MOST_OPEN = 1 << 10


class GroupQuestion(NamedTuple):
    """A process of which it is to be read now where it is."""

    number: int
    """Of its open group; 0 if it has none of its own."""
    tgid: int
    since_ns: int
    """When its session began; 0 if it has no open group of its own."""
    execd_ns: int
    """When it exec'd since; 0 if it has not."""


class Found(NamedTuple):
    """Where a process was found."""

    placement: Placement | None
    """None: that could not be read."""
    read_ns: int
    """When it was read, CLOCK_MONOTONIC."""
    opened_ns: int
    """When its pid was looked up: as read_ns, or earlier, if a descriptor of the process was opened then."""
    early: bool = False
    """It may have been moved since. If that is not where it began its session, it had been moved by then."""


class Grouping:
    """Opens groups for processes, and settles them.

    Args:
        roster: All processes.
        tallies: Have the cells.
        naming: Has the names that are open.
        places: Which group a placement is; None where groups are not asked for.
        mounts: In which mount namespace processes are.

    Attributes:
        execd: The tgids of processes that exec'd in this batch.
        unresolved: How many open groups were settled as `<unknown>`, by reason.
        missed: How many processes a drain found in another group than they counted in, or did not find any more.
    """

    def __init__(
        self, roster: Roster, tallies: Tallies, naming: Naming, places: Places | None, mounts: MountSpaces
    ) -> None:
        self._mounts = mounts
        self._roster = roster
        self._tallies = tallies
        self._naming = naming
        self.places = places
        self.execd: list[int] = []
        self._questions: list[GroupQuestion] = []
        self._open: dict[int, OpenGroup] = {}
        self._last_number = 0
        self._unresolved: Counter[str] = Counter()
        self.missed = 0

    @property
    def is_active(self) -> bool:
        """Groups are asked for."""
        return self.places is not None

    @property
    def waits(self) -> bool:
        """Something becomes known by another batch, even an empty one."""
        return bool(self._open)

    @property
    def nameless(self) -> list[PodContainer]:
        """The containers whose name is waited for."""
        return [] if self.places is None else list(self.places.nameless)

    def known_containers(self) -> list[tuple[PodContainer, PodName | None]]:
        """Return calls of name_container, for another table to go on with."""
        return [] if self.places is None else list(self.places.names.items())

    @property
    def unresolved(self) -> dict[str, int]:
        """Count the groups of processes that could not be known, by reason."""
        if self.places is None:
            return {}
        return {
            **{reason: self._unresolved[reason] for reason in ("gone", "too_many", "unreadable")},
            "unnamed": self.places.unnamed,
        }

    # -- what opens a group -------------------------------------------------------------------------------------

    def begin_session(self, tgid: int, timestamp_ns: int) -> None:
        """Open a group for a process that begins a session: it may be about to be moved."""
        process = self._roster.by_tgid.get(tgid)
        if self.places is None or process is None or process.is_glimpsed:
            return
        if process.needs_name:
            # Its exec was before, in the group that it had then.
            self._naming.open_name(process)
        if process.odd is not None and process.odd.group is not None:
            return
        if len(self._open) >= _MOST_OPEN:
            self._unresolved["too_many"] += 1
            self._move(process, self._tallies.groups.unknown)
        else:
            self._open_group(process, timestamp_ns)

    def _open_group(self, process: Process, since_ns: int) -> OpenGroup:
        self._last_number += 1
        group = OpenGroup(self._last_number, process, since_ns)
        self._open[group.number] = group
        self._tallies.groups.open[group] = None
        self._move(process, group)
        process.make_odd().group = group
        return group

    def _move(self, process: Process, group: Group) -> None:
        """Count in another group what a process does from now on."""
        cell = process.cell
        if isinstance(cell, OpenCell):
            process.cell = cell.open_name.cell(cell.uid, group)
        else:
            process.cell = self._tallies.claim_cell_in(cell, group)

    # -- what is read -------------------------------------------------------------------------------------------

    def questions(self) -> list[GroupQuestion]:
        """Return which processes are to be read now, once; each is to be answered by `place`."""
        questions, self._questions = self._questions, []
        return questions

    def place(self, number: int, tgid: int, found: Found) -> None:
        """Take note of where a process was found.

        Args:
            number: Of its open group; 0 if it has none of its own.
            tgid: Its pid.
            found: Where it was.
        """
        if self.places is None:
            return
        placement, read_ns, opened_ns, early = found
        if number:
            group = self._open.get(number)
        else:
            process = self._roster.by_tgid.get(tgid)
            if process is None or process.is_glimpsed or placement is None:
                return
            group = None if process.odd is None else process.odd.group
            if group is None:
                before = process.cell.group
                if self.places.group_of(placement) is before:
                    return
                self.missed += not before.is_open and before is not self._tallies.groups.unknown
                group = self._open_group(process, 0)
            elif group.since_ns and not group.is_old:
                # It may still be moved.
                return
        if group is None:
            return
        if early and placement is not None and not self._is_moved(group, placement):
            placement = None
        heir = group.heir
        read = heir if heir is not None and heir.tgid == tgid else group.process
        if placement is not None:
            group.reading = GroupReading(read, self.places.group_of(placement), read_ns, opened_ns)
        elif group.has_ended and heir is not None and read is not heir and not group.execd_ns:
            # It was moved before it forked, if at all: crun begins programs so.
            self._questions.append(GroupQuestion(number, heir.tgid, group.since_ns, 0))
        elif group.has_ended or group.is_old:
            self._give_up(group, self.places)

    def _give_up(self, group: OpenGroup, places: Places) -> None:
        """Settle a group whose process cannot be read where it is."""
        home = self._mounts.home_of(group, self._roster.by_tgid, places.has_container)
        if home is None:
            self._unresolved["gone" if group.has_ended else "unreadable"] += 1
            self.missed += group.has_ended
        group.reading = GroupReading(group.process, home or self._tallies.groups.unknown, 0, 0)

    def _is_moved(self, group: OpenGroup, placement: Placement) -> bool:
        """Return whether a placement is known to be another than that in which a process began its session."""
        before = group.before
        if self.places is None or before.is_open or before is self._tallies.groups.unknown:
            return False
        return self.places.group_of(placement) is not before

    def name_container(self, container: PodContainer, name: PodName | None) -> None:
        """Take note of what a container is called; None: that is not waited for any longer."""
        if self.places is not None and self.places.name(container, name):
            self._move_settled()

    # -- what settles it ----------------------------------------------------------------------------------------

    def end_batch(self, complete_until_ns: int) -> None:
        """Settle the groups of which it is known by now where they are.

        Args:
            complete_until_ns: All events before that have been applied.
        """
        if self.places is None:
            return
        # In a replay they are not asked for.
        self._questions.clear()
        open_before = len(self._open)
        for group in list(self._open.values()):
            self._decide(group, complete_until_ns)
        if len(self._open) != open_before:
            self._move_settled()
        by_tgid = self._roster.by_tgid
        # In a storm nearly all of them are gone.
        for tgid in by_tgid.keys() & set(self.execd):
            odd = by_tgid[tgid].odd
            if odd is None or odd.group is None:
                self._questions.append(GroupQuestion(0, tgid, 0, 0))
        self.execd.clear()
        self._mounts.end_batch(complete_until_ns, self._roster.by_tgid)

    def _decide(self, group: OpenGroup, complete_until_ns: int) -> None:
        reading = group.reading
        if reading is not None:
            if reading.read_ns < complete_until_ns:
                read = reading.process
                owner = self._roster.by_tgid.get(read.tgid)
                is_reused = owner is not None and owner is not read and owner.start_ns <= reading.opened_ns
                before = self._tallies.groups.unknown if group.since_ns else group.before
                self._settle(group, before if is_reused else reading.group)
            return
        if not group.is_old and group.since_ns + _MOVES_WITHIN_NS < complete_until_ns:
            group.is_old = group.is_due = True
        if group.is_due:
            group.is_due = False
            self._questions.append(GroupQuestion(group.number, group.process.tgid, group.since_ns, group.execd_ns))

    def _settle(self, group: OpenGroup, known: Group) -> None:
        while known.successor is not None:
            known = known.successor
        del self._open[group.number]
        self._tallies.settle(group, known)
        odd = group.process.odd
        if odd is not None and odd.group is group:
            odd.group = None
            group.process.tidy()

    def _move_settled(self) -> None:
        """Move the processes that still count in groups which are settled by now.

        What is counted under names that are open finds its group when the name is known.
        """
        for process in self._roster:
            group = process.cell.group
            if group.successor is None:
                continue
            while group.successor is not None:
                group = group.successor
            self._move(process, group)
            if group is self._tallies.groups.unknown:
                # It inherited a group that could not be known; where it is itself can be read.
                self.execd.append(process.tgid)

    def known_places(self) -> Iterator[tuple[int, int, Found]]:
        """Return calls of place, for another table to go on with; what is open there is unknown."""
        if self.places is not None:
            placements = self.places.placements()
            for process in self._roster.by_tgid.values():
                placement = placements.get(process.cell.group)
                if placement is not None:
                    yield 0, process.tgid, Found(placement, 0, 0)

    # -- groups that are gone -----------------------------------------------------------------------------------

    def groups_in_use(self) -> set[Group]:
        """Return the groups in which a live process is, or in which something may yet be counted."""
        used = {process.cell.group for process in self._roster}
        for group in self._open.values():
            used.add(group.before)
            if group.reading is not None:
                used.add(group.reading.group)
        return used
