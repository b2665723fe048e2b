"""Comms that are read from /proc the moment an event arrives.

Where there are no exit records, /proc is the only source of names, and a short-lived process is in it only for a
moment. So a second connector socket, which receives forks and execs only, is read at every wake-up, and all that
is done then is to read the comm. The main socket is drained at leisure. Its events find the comm here by
(tgid, timestamp_ns): the kernel gives both sockets the same event with the same timestamp.

A reader that is awake because of the FORK wins the race for the EXEC. But on a host that forks without exec each
such wake-up is paid for in vain, so forks are asked for only while a good part of them goes on to exec.
"""

from collections.abc import Callable
from typing import NamedTuple

from exporter.kernel.bpf import EventFilter
from exporter.kernel.cn_proc import PROC_EVENT_EXEC, PROC_EVENT_FORK, iter_proc_events, sound_datagrams
from exporter.kernel.netlink import Batch

FORKS_AND_EXECS = EventFilter(frozenset({PROC_EVENT_FORK, PROC_EVENT_EXEC}), frozenset())
EXECS = EventFilter(frozenset({PROC_EVENT_EXEC}), frozenset())

# With fewer forks between two drains their wake-ups do not matter.
_MANY_FORKS = 16
# The execs of so many forks would have come if they were to come: no need to wait for a drain.
_MANY_FORKS_AT_ONCE = 256
_FORKS_PER_EXEC = 8


class NameHint(NamedTuple):
    """The comm of a process in /proc right after one of its events arrived."""

    comm: bytes
    read_ns: int
    """When it had been read, CLOCK_MONOTONIC."""


HintsByEvent = dict[tuple[int, int], NameHint]
"""By (tgid, timestamp_ns) of the EXEC, or of the FORK that made the process."""


class NameHints:
    """Reads comms as events arrive, and keeps them until the main socket's events ask for them.

    Args:
        read_comm: Reads a live process's comm in /proc; None if the process is gone.
        now_ns: CLOCK_MONOTONIC, in ns.

    Attributes:
        by_event: What was read. The table removes what it uses.
    """

    def __init__(self, read_comm: Callable[[int], bytes | None], now_ns: Callable[[], int]) -> None:
        self._read_comm = read_comm
        self._now_ns = now_ns
        self.by_event: HintsByEvent = {}
        self._forks_lead_to_execs = True
        # Of the second socket, since the last drain of the main one.
        self._forks = self._execs = 0

    @property
    def wanted(self) -> EventFilter:
        """The events that the second socket should be woken by."""
        return FORKS_AND_EXECS if self._forks_lead_to_execs else EXECS

    def judge(self, forks: int, execs: int) -> None:
        """Decide after a drain of the main socket whether forks are worth a wake-up.

        Args:
            forks: Processes forked since the last call.
            execs: Execs since the last call.
        """
        self._forks = self._execs = 0
        if forks >= _MANY_FORKS:
            self._forks_lead_to_execs = execs * _FORKS_PER_EXEC >= forks

    def take(self, batch: Batch) -> None:
        """Read the comm of each process that exec'd, or was forked by a thread with a name of its own."""
        # A malformed datagram is malformed on the main socket too, and counted there.
        data, _ = sound_datagrams(batch)
        for what, timestamp_ns, pid, tgid, child_pid, child_tgid, *_ in iter_proc_events(data):
            if what == PROC_EVENT_EXEC:
                self._execs += 1
                self._read(tgid, timestamp_ns)
            elif what == PROC_EVENT_FORK and child_pid == child_tgid:
                self._forks += 1
                if pid != tgid:
                    self._read(child_tgid, timestamp_ns)
        if self._forks >= _MANY_FORKS_AT_ONCE:
            self.judge(self._forks, self._execs)

    def _read(self, tgid: int, timestamp_ns: int) -> None:
        comm = self._read_comm(tgid)
        if comm is not None:
            self.by_event[tgid, timestamp_ns] = NameHint(comm, self._now_ns())

    def forget(self, before_ns: int) -> None:
        """Drop what was read before a drain of the main socket that had no use for it."""
        for key in [key for key, (_, read_ns) in self.by_event.items() if read_ns < before_ns]:
            del self.by_event[key]
