"""Processes that ended badly, one by one, with names: the newest of each kind.

It costs only bad ends, and of a storm of them little more than a note each. The table notes them as they stand.
Notes are sifted: of those with the same comm, uid, group and wait status the newest are kept. A note becomes a
`Failure` when a client asks, or when there are too many notes; it waits until the comm and the group that it
counts in are known.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from exporter.kernel.cn_proc import ProcEvent
from exporter.kernel.taskstats import Record
from exporter.kernel.wait_status import CORE_BIT, SIGKILL, STATUS_BITS
from exporter.processes.oom_kills import OomKills
from exporter.processes.process import Before, Process, chain_of, known_cell
from exporter.tallies.cells import Cell
from exporter.tallies.labels import EXCLUDED, UNKNOWN, GroupName

MOST_OF_A_KIND = 20
"""So many failures with one comm and wait status in one group are worth a look; a storm of them must not push
others out."""

# Notes are sifted when there are so many. A note takes some 300 bytes. A storm of up to half as many, of all kinds
# together, costs no more than its notes: none of them has to become a failure to make room.
MOST_NOTES = 1024
# So long a failure waits for comms that are not its own: one that /proc hides stays open while a process has it.
_OTHERS_NAMED_WITHIN_NS = 1_000_000_000


class Failure(NamedTuple):
    """A process that ended with a wait status other than 0. None: that is not known."""

    time_ns: int
    """When its last thread had exited, CLOCK_MONOTONIC."""
    pid: int
    ppid: int | None
    """Its parent; None too if the parent had reaped it before it sent its EXIT."""
    parent_comm: str | None
    """What its parent was called then, as it is printed in labels."""
    uid: int | None
    comm: str
    """As it is printed in labels."""
    status: int
    """Wait status, without the core bit."""
    core: bool
    """Core was dumped."""
    lifetime_ns: int | None
    cpu_ns: int | None
    max_rss_kib: int | None
    execs: tuple[str, ...] = ()
    """What it was called before its last execs, the newest last; `<unknown>` for what is not known."""
    oom: bool | None = None
    """The kernel's OOM killer had chosen it."""
    group: GroupName = ()
    """Where it ran, as far as that is asked for."""


Take = Callable[[list[Failure]], None]


class _Note(NamedTuple):
    """A bad end as the table saw it. On the hot path notes are plain tuples with these positions.

    It refers neither to the event nor to the process: in a storm their memory is used again at once.
    """

    cell: Cell
    """Where it counts."""
    status: int
    """Wait status, with the core bit."""
    time_ns: int
    tgid: int
    parent_tgid: int
    parent: Cell | None
    """Where its parent counted then, if that was known."""
    lifetime_ns: int | None
    cpu_ns: int | None
    max_rss_kib: int | None
    before: Before
    """As Process.before."""
    unnamed: Cell | None
    """What it was before an exec that was not counted yet."""


PlainNote = tuple[Cell, int, int, int, int, Cell | None, int | None, int | None, int | None, Before, Cell | None]


class BadEnds:
    """Notes bad ends while a client takes them.

    Args:
        by_tgid: The processes that live, among which parents are found.
        oom_kills: Gets those that died of SIGKILL, if it is active.

    Attributes:
        is_active: A client takes them, or it is asked which of them are OOM kills.
        takes_all: A client takes them. If not, only those by SIGKILL can be of interest.
        notes: Of the last ones. The hot loop adds its own.
    """

    def __init__(self, by_tgid: Mapping[int, Process], oom_kills: OomKills) -> None:
        self._find = by_tgid.get
        self._oom_kills = oom_kills
        # How many of the notes were gone through for that.
        self._looked_at = 0
        self._take: Take | None = None
        self._at_once = False
        self.notes: list[PlainNote] = []
        # Those of them that `noted` has.
        self._counted = 0
        self._noted = 0
        self.is_active = oom_kills.is_active
        self.takes_all = False

    def hand_to(self, take: Take | None, *, at_once: bool = False) -> None:
        """Note what ends badly from now on; None to stop.

        Args:
            take: Gets what became known, in the order of the ends as far as it became known together. Of many of
                one kind it gets the newest.
            at_once: After each batch, not only when `hand_on` is called or there are too many.
        """
        self._take = take
        self._at_once = at_once
        self.takes_all = take is not None
        self.is_active = self.takes_all or self._oom_kills.is_active
        self.notes.clear()
        self._counted = self._noted = self._looked_at = 0

    @property
    def waiting(self) -> int:
        """How many of them were not handed on yet, and still can be."""
        return len(self.notes)

    @property
    def noted(self) -> int:
        """How many there were since a client takes them, those that the rules exclude left out."""
        return self._noted + len(self.notes) - self._counted

    def note(
        self, event: ProcEvent, process: Process | None, cell: Cell, last: Record | None, lifetime_ns: int | None
    ) -> None:
        """Note the end of a process, if it can be of interest.

        Args:
            event: The EXIT of its last thread, with the wait status of the process.
            process: The process; None if nothing was known of it.
            cell: Where its end counts.
            last: The record of its last thread, if there is one.
            lifetime_ns: How long it lived, if that is known.
        """
        _, time_ns, _, tgid, status, _, _, parent_tgid = event
        if not self.takes_all and status & STATUS_BITS != SIGKILL:
            return
        parent = self._find(parent_tgid)
        if parent is not None and parent.needs_name:
            parent = None
        self.notes.append(
            (
                cell,
                status,
                time_ns,
                tgid,
                parent_tgid,
                None if parent is None else parent.cell,
                lifetime_ns,
                None if last is None else last[3],
                None if last is None else last[5],
                None if process is None else process.before,
                process.cell if process is not None and process.execd_ns else None,
            )
        )

    def sift(self) -> None:
        """Throw away the oldest of a kind, if there are many."""
        self._find_killed()
        if len(self.notes) < MOST_NOTES:
            return
        self._sift()
        if len(self.notes) > MOST_NOTES // 2:
            self.hand_on(0)
        if len(self.notes) > MOST_NOTES // 2:
            # There are too many that wait: without the comms of others.
            self.hand_on(max(note[2] for note in self.notes) + _OTHERS_NAMED_WITHIN_NS)
            # Of those that are left their own comm is not known.
            self._keep(self.notes[-MOST_NOTES // 2 :])

    def _find_killed(self) -> None:
        """Hand on the new notes of SIGKILL; without a client no note is needed any longer."""
        if self._oom_kills.is_active:
            for note in [note for note in self.notes[self._looked_at :] if note[1] & STATUS_BITS == SIGKILL]:
                self._oom_kills.suspect(note[0], note[3], note[2], note[6])
        if self._take is None:
            self.notes.clear()
        self._looked_at = len(self.notes)

    def _sift(self) -> None:
        kept, excluded = _newest_of_each_kind(self.notes)
        self._keep(kept)
        self._noted -= excluded

    def _keep(self, notes: list[PlainNote]) -> None:
        self._noted = self.noted
        # In place: the hot loop has it.
        self.notes[:] = notes
        self._counted = self._looked_at = len(notes)

    def end_batch(self, complete_until_ns: int) -> None:
        """Hand on what is known, if that was asked for.

        Args:
            complete_until_ns: All events before that have been applied.
        """
        if self._looked_at != len(self.notes):
            self._find_killed()
        if self._at_once and self.notes:
            self.hand_on(complete_until_ns)

    def hand_on(self, now_ns: int) -> None:
        """Hand on what is known; of a kind of which there are many, the newest.

        Args:
            now_ns: Of CLOCK_MONOTONIC, a moment until which all events have been applied; 0 if that is not known.
        """
        self._find_killed()
        self._sift()
        failures: list[Failure] = []
        waiting: list[PlainNote] = []
        for plain in self.notes:
            note = _Note(*plain)
            cell = known_cell(note.cell)
            others = [known_cell(other) for other in _others(note)]
            is_recent = note.time_ns > now_ns - _OTHERS_NAMED_WITHIN_NS
            is_suspect = self._oom_kills.is_suspect(note.tgid, note.time_ns)
            if cell is None or cell.group.last.is_open or is_suspect or (is_recent and None in others):
                waiting.append(plain)
            elif cell.program.comm == EXCLUDED or cell.group.last.is_excluded:
                self._noted -= 1
            else:
                is_killed = note.status & STATUS_BITS == SIGKILL
                oom = self._oom_kills.was_chosen(note.tgid, note.time_ns) if is_killed else False
                failures.append(_failure(note, cell, others, oom=oom))
        self._keep(waiting)
        if failures and self._take is not None:
            self._take(failures)


def _newest_of_each_kind(notes: list[PlainNote]) -> tuple[list[PlainNote], int]:
    """Return the newest notes of each comm, uid and status, and how many there were of what the rules exclude."""
    numbers: dict[tuple[Cell, int], int] = {}
    kept: list[PlainNote] = []
    excluded = 0
    kind_cell: Cell | None = None
    kind_status, number, is_excluded = 0, 0, False
    for note in reversed(notes):
        cell, status = note[0], note[1]
        # Most of a storm are of one kind.
        if cell is not kind_cell or status != kind_status:
            if kind_cell is not None:
                numbers[kind_cell, kind_status] = number
            kind_cell, kind_status = cell, status
            number = numbers.get((cell, status), 0)
            is_excluded = cell.program.comm == EXCLUDED
        number += 1
        if is_excluded:
            excluded += 1
        elif number <= MOST_OF_A_KIND:
            kept.append(note)
    kept.reverse()
    return kept, excluded


def _others(note: _Note) -> tuple[Cell, ...]:
    """Return the cells of its other comms: that of its parent, and those that it had before its execs."""
    parent = () if note.parent is None else (note.parent,)
    return (*parent, *chain_of(note.before, note.unnamed))


def _failure(note: _Note, cell: Cell, others: list[Cell | None], *, oom: bool | None) -> Failure:
    comms = [_shown(other) for other in others]
    parent_comm = None if note.parent is None else comms.pop(0)
    return Failure(
        note.time_ns,
        note.tgid,
        note.parent_tgid or None,
        None if parent_comm == UNKNOWN else parent_comm,
        cell.uid,
        cell.comm or UNKNOWN,
        note.status & STATUS_BITS,
        bool(note.status & CORE_BIT),
        note.lifetime_ns,
        note.cpu_ns,
        note.max_rss_kib,
        tuple(comms),
        oom,
        cell.group.last.named,
    )


def _shown(cell: Cell | None) -> str:
    if cell is None or cell.comm is None or cell.program.comm == EXCLUDED:
        return UNKNOWN
    return cell.comm
