"""What happens, one process at a time, with names: for those who want to be told, not only to count.

The table tells a Journal of each thing when it counts it, with the cell that it counts it in. While the comm of
that cell is not known the thing waits, so that it is told once, under the name that it is counted under.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from exporter.kernel.cn_proc import PROC_EVENT_EXIT, ProcEvent
from exporter.kernel.taskstats import Record
from exporter.processes.open_names import OpenCell
from exporter.tallies.cells import Cell
from exporter.tallies.labels import EXCLUDED, UNKNOWN, plain, printable

_CORE = 0x80
_CORES_REMEMBERED = 1024


class Happening(NamedTuple):
    """One thing that happened. None: there is no such thing here, or nobody knows it."""

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


class Loss(NamedTuple):
    """Messages that the kernel dropped before they could be told."""

    time_ns: int
    """When it was noticed, CLOCK_MONOTONIC."""
    socket: str
    messages: int


News = Happening | Loss


class Journal:
    """Collects what happens, and hands it on after each batch.

    Args:
        publish: Gets what became known, in that order.

    Attributes:
        event: What is being applied; None while nothing is.
    """

    def __init__(self, publish: Callable[[list[News]], None]) -> None:
        self._publish = publish
        self._news: list[News] = []
        self._cores: set[int] = set()
        self.event: ProcEvent | None = None

    def begin(self, event: ProcEvent) -> None:
        """What is told from now on follows from this event."""
        self.event = event
        if event[0] == PROC_EVENT_EXIT and event[4] & _CORE:
            # The core bit of a process can be on another thread's EXIT than its last one.
            if len(self._cores) >= _CORES_REMEMBERED:
                self._cores.clear()
            self._cores.add(event[3])

    def tell(self, event: str, time_ns: int, tgid: int, cell: Cell, *, pid: int | None = None) -> None:
        """Something happened to a process that counts in a cell."""
        ppid = self.event[5] if event == "coredump" and self.event is not None else None
        self._take(Happening(time_ns, event, tgid if pid is None else pid, tgid, ppid or None, cell.uid), cell)

    def fork(self, time_ns: int, child_tgid: int, parent_tgid: int, cell: Cell) -> None:
        """A process was forked by one that counts in a cell."""
        self._take(Happening(time_ns, "fork", child_tgid, child_tgid, parent_tgid, cell.uid), cell)

    def rename(self, time_ns: int, pid: int, tgid: int, uid: int | None, comm: bytes) -> None:
        """A thread has a new name."""
        self._news.append(Happening(time_ns, "comm", pid, tgid, None, uid, printable(plain(comm))))

    def thread_exit(self, time_ns: int, pid: int, tgid: int, status: int, cell: Cell) -> None:
        """A thread that is not its process's first exited."""
        happening = Happening(time_ns, "thread_exit", pid, tgid, None, cell.uid)
        self._take(happening._replace(status=status & ~_CORE, core=bool(status & _CORE)), cell)

    def end(
        self, time_ns: int, tgid: int, status: int, cell: Cell, *, lifetime_ns: int | None, last: Record | None
    ) -> None:
        """A process ended.

        Args:
            time_ns: When.
            tgid: The process.
            status: Its wait status; the core bit may be missing.
            cell: Where it counts.
            lifetime_ns: How long it lived, if that is known.
            last: The record of its last thread, if there is one.
        """
        event = self.event
        parent = event[7] if event is not None and event[0] == PROC_EVENT_EXIT and event[3] == tgid else 0
        self._take(
            Happening(
                time_ns,
                "exit",
                tgid,
                tgid,
                parent or None,
                cell.uid,
                None,
                status & ~_CORE,
                bool(status & _CORE) or tgid in self._cores,
                lifetime_ns,
                None if last is None else last[3],
                None if last is None else last[5],
            ),
            cell,
        )
        self._cores.discard(tgid)

    def lose(self, time_ns: int, socket: str, count: int) -> None:
        """Messages were dropped by the kernel."""
        self._news.append(Loss(time_ns, socket, count))

    def _take(self, happening: Happening, cell: Cell) -> None:
        if isinstance(cell, OpenCell):
            cell.open_name.when_known(partial(self._name, happening))
        elif cell.program.comm != EXCLUDED:
            self._news.append(happening._replace(comm=None if cell.comm == UNKNOWN else cell.comm))

    def _name(self, happening: Happening, cell_of: Callable[[int | None], Cell]) -> None:
        self._take(happening, cell_of(happening.uid))

    def flush(self) -> None:
        """Hand on what became known."""
        self.event = None
        if self._news:
            news, self._news = self._news, []
            self._publish(news)
