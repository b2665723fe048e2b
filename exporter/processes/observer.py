"""What happens, one process at a time, with names: for those who want each event, not only counts.

The table reports each thing to the Observer when it counts it, with the cell that it counts it in. While the comm
or the group of that cell is not known the thing waits, so that it is published once, under the comm and in the
group that it is counted in. An end by SIGKILL waits until it is known whether the OOM killer was it.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from exporter.kernel.cn_proc import ProcEvent
from exporter.kernel.taskstats import Record
from exporter.kernel.wait_status import CORE_BIT, SIGKILL
from exporter.processes.oom_kills import OomKills
from exporter.processes.process import CellOf, OpenCell
from exporter.tallies.cells import Cell, Group
from exporter.tallies.labels import EXCLUDED, UNKNOWN, GroupName

# So many wait for their group. What happens beyond that is published without one.
_MOST_HELD = 20_000


class Happening(NamedTuple):
    """One thing that happened. None: there is no such thing here, or it is not known."""

    time_ns: int
    """CLOCK_MONOTONIC."""
    event: str
    """As --events calls it; a non-zero exit is an exit."""
    pid: int
    """The thread; of a fork the child."""
    tgid: int
    """Its process."""
    ppid: int | None = None
    """Of a fork the process that forked; of an end the parent that had not reaped it yet."""
    uid: int | None = None
    comm: str | None = None
    """As it is printed in labels."""
    status: int | None = None
    """Wait status, without the core bit."""
    core: bool | None = None
    """Core was dumped."""
    lifetime_ns: int | None = None
    cpu_ns: int | None = None
    max_rss_kib: int | None = None
    group: GroupName = ()
    """Where its process ran, as far as that is asked for."""
    oom: bool | None = None
    """Of an end: the kernel's OOM killer had chosen the process."""


class Loss(NamedTuple):
    """Messages that the kernel dropped before they could be read."""

    time_ns: int
    """When it was noticed, CLOCK_MONOTONIC."""
    socket: str
    messages: int


News = Happening | Loss
Publish = Callable[[list[News]], None]


class Observer:
    """Collects what happens while it has a publisher, and hands it on after each batch.

    Args:
        unknown: The group of what is not known in time.
        oom_kills: Knows which ends by SIGKILL are OOM kills.

    Attributes:
        is_active: It has a publisher. Each event then comes here.
    """

    def __init__(self, unknown: Group, oom_kills: OomKills) -> None:
        self._unknown = unknown
        self._oom_kills = oom_kills
        self._publish: Publish | None = None
        self._news: list[News] = []
        # By the open group that it waits for.
        self._held: dict[Group, list[Happening]] = {}
        self._held_count = 0
        # Ends by SIGKILL, all else of which is known.
        self._killed: list[Happening] = []
        self.is_active = False

    def publish_to(self, publish: Publish | None) -> None:
        """Publish what happens from now on; None to stop.

        Args:
            publish: Gets what became known, in that order.
        """
        self._publish = publish
        self.is_active = publish is not None
        self._news.clear()
        self._held.clear()
        self._held_count = 0
        self._killed.clear()

    def event(self, name: str, event: ProcEvent, cell: Cell, ppid: int | None = None) -> None:
        """Note an event that has no more to it than its process, which counts in this cell."""
        if self.is_active:
            _, timestamp_ns, pid, tgid, *_ = event
            self._take(Happening(timestamp_ns, name, pid, tgid, ppid or None, cell.uid, _shown(cell)), cell)

    def exec(self, time_ns: int, tgid: int, cell: Cell) -> None:
        """Note an exec of a process that counts in this cell."""
        if self.is_active:
            self._take(Happening(time_ns, "exec", tgid, tgid, None, cell.uid, _shown(cell)), cell)

    def fork(self, time_ns: int, child_tgid: int, parent_tgid: int, cell: Cell) -> None:
        """Note the fork of a process by one that counts in this cell."""
        if self.is_active:
            happening = Happening(time_ns, "fork", child_tgid, child_tgid, parent_tgid, cell.uid, _shown(cell))
            self._take(happening, cell)

    def thread_fork(self, event: ProcEvent, cell: Cell) -> None:
        """Note a new thread of a process, which counts in this cell."""
        _, timestamp_ns, _, _, pid, tgid, *_ = event
        self._take(Happening(timestamp_ns, "thread_fork", pid, tgid, None, cell.uid, _shown(cell)), cell)

    def rename(self, event: ProcEvent, cell: Cell, comm: str) -> None:
        """Note that a thread of a process, which counts in this cell, has a new comm, as it is printed."""
        _, timestamp_ns, pid, tgid, *_ = event
        self._place(Happening(timestamp_ns, "comm", pid, tgid, None, cell.uid, comm), cell.group)

    def thread_exit(self, event: ProcEvent, cell: Cell) -> None:
        """Note the exit of a thread that is not the leader of its process, which counts in this cell."""
        _, timestamp_ns, pid, tgid, status, *_ = event
        core = bool(status & CORE_BIT)
        uid, comm = cell.uid, _shown(cell)
        self._take(
            Happening(timestamp_ns, "thread_exit", pid, tgid, None, uid, comm, status & ~CORE_BIT, core), cell
        )

    def end(
        self,
        event: ProcEvent,
        cell: Cell,
        *,
        parent_tgid: int,
        core: bool,
        lifetime_ns: int | None,
        last: Record | None,
    ) -> None:
        """Note the end of a process.

        Args:
            event: The EXIT of its last thread.
            cell: Where it counts.
            parent_tgid: Its parent, which had not reaped it yet; 0 if it was reaped, or if that is not known.
            core: A thread of it dumped core.
            lifetime_ns: How long it lived, if that is known.
            last: The record of its last thread, if there is one.
        """
        if not self.is_active:
            return
        _, timestamp_ns, _, tgid, status, *_ = event
        status &= ~CORE_BIT
        self._take(
            Happening(
                timestamp_ns,
                "exit",
                tgid,
                tgid,
                parent_tgid or None,
                cell.uid,
                _shown(cell),
                status,
                core,
                lifetime_ns,
                None if last is None else last[3],
                None if last is None else last[5],
                oom=None if status == SIGKILL else False,
            ),
            cell,
        )

    def lose(self, time_ns: int, socket: str, count: int) -> None:
        """Note that the kernel dropped messages."""
        if self.is_active:
            self._news.append(Loss(time_ns, socket, count))

    def _take(self, happening: Happening, cell: Cell) -> None:
        """Take what has the comm of its cell, unless that is open."""
        if isinstance(cell, OpenCell):
            cell.open_name.when_known(partial(self._name, happening, cell.group))
        elif cell.program.comm != EXCLUDED:
            self._place(happening, cell.group)

    def _place(self, happening: Happening, group: Group) -> None:
        group = group.last
        if group.is_open:
            if self._held_count < _MOST_HELD:
                self._held.setdefault(group, []).append(happening)
                self._held_count += 1
                return
            group = self._unknown
        if group.is_excluded:
            return
        if group.named:
            happening = happening._replace(group=group.named)
        is_killed = happening.status == SIGKILL and happening.event == "exit"
        (self._killed if is_killed else self._news).append(happening)

    def _take_killed(self, *, all_of_them: bool) -> None:
        killed, self._killed = self._killed, []
        for happening in killed:
            end = happening.tgid, happening.time_ns
            if not self._oom_kills.is_suspect(*end):
                self._news.append(happening._replace(oom=self._oom_kills.was_chosen(*end)))
            elif all_of_them:
                self._news.append(happening)
            else:
                self._killed.append(happening)

    def _take_held(self, *, all_of_them: bool) -> None:
        known = [group for group in self._held if all_of_them or group.successor is not None]
        for group in known:
            happenings = self._held.pop(group)
            self._held_count -= len(happenings)
            home = group.last
            for happening in happenings:
                self._place(happening, self._unknown if all_of_them and home.is_open else home)

    def _name(self, happening: Happening, group: Group, cell_of: CellOf) -> None:
        cell = cell_of(happening.uid, group)
        self._take(happening._replace(comm=_shown(cell)), cell)

    def flush(self, *, all_of_them: bool = False) -> None:
        """Publish what became known, or also what waits for its group, or for whether it is an OOM kill."""
        if self._held:
            self._take_held(all_of_them=all_of_them)
        if self._killed:
            self._take_killed(all_of_them=all_of_them)
        if self._news and self._publish is not None:
            news, self._news = self._news, []
            self._publish(news)


def _shown(cell: Cell) -> str | None:
    """Return the comm of a cell; None if it is not known, or not yet."""
    comm = cell.comm
    return None if comm == UNKNOWN else comm
