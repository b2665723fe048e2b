"""Comms that are read from /proc the moment an event tells of them.

Where exit records are not to be had, /proc is the only source of names, and a short-lived process is there only
for a moment. So a second connector socket, which hears of forks and execs only, is read at every wake-up, and
all that is done then is to read the comm. The main socket is drained at leisure and finds the name here by
(tgid, timestamp_ns): the kernel gives both sockets the same event with the same timestamp.

Who is awake because of the FORK wins the race for the EXEC. But a host that forks without exec pays for each such
wake-up and gets nothing, so forks are asked for only while a good part of them goes on to exec.
"""

from collections.abc import Callable

from exporter.kernel.bpf import EventFilter
from exporter.kernel.cn_proc import PROC_EVENT_EXEC, PROC_EVENT_FORK, iter_proc_events, sound_datagrams
from exporter.kernel.netlink import Batch
from exporter.processes.table import Readings

FORKS_AND_EXECS = EventFilter(frozenset({PROC_EVENT_FORK, PROC_EVENT_EXEC}), frozenset())
EXECS = EventFilter(frozenset({PROC_EVENT_EXEC}), frozenset())

# With fewer forks between two drains their wake-ups do not matter.
_MANY_FORKS = 16
# So many are not born at the same time: their execs would have come. No need to wait for a drain to know.
_MANY_FORKS_AT_ONCE = 256
_FORKS_PER_EXEC = 8


class EarlyReader:
    """Reads names as events arrive.

    Args:
        read_comm: A live process's comm in /proc; None if it is gone.
        now_ns: CLOCK_MONOTONIC, in ns.

    Attributes:
        readings: What was read; the table takes out what it uses.
    """

    def __init__(self, read_comm: Callable[[int], bytes | None], now_ns: Callable[[], int]) -> None:
        self._read_comm = read_comm
        self._now_ns = now_ns
        self.readings: Readings = {}
        self._forks_lead_to_execs = True
        # Heard here since the last drain of the main socket.
        self._forks = self._execs = 0

    @property
    def wanted(self) -> EventFilter:
        """The events to be woken by."""
        return FORKS_AND_EXECS if self._forks_lead_to_execs else EXECS

    def judge(self, forks: int, execs: int) -> None:
        """Decide whether it is worth it to be woken by forks, after a drain of the main socket.

        Args:
            forks: Processes forked since the last call.
            execs: Execs since the last call.
        """
        self._forks = self._execs = 0
        if forks >= _MANY_FORKS:
            self._forks_lead_to_execs = execs * _FORKS_PER_EXEC >= forks

    def take(self, batch: Batch) -> None:
        """Read the comm of each process that exec'd, or was forked by a thread with a name of its own."""
        # Whatever is malformed here is so on the main socket too, and counted there.
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
            self.readings[tgid, timestamp_ns] = (comm, self._now_ns())

    def forget(self, before_ns: int) -> None:
        """Drop what was read before a drain of the main socket that has found no use for it."""
        for key in [key for key, (_, read_ns) in self.readings.items() if read_ns < before_ns]:
            del self.readings[key]
