"""How processes are found: by their tgid, or, after they lost it to another process, in the order of that.

A pid is free once its process is reaped, which can be before the process sends its EXIT: that can be late on
another CPU, or lost. Until then the process is *late*: its tgid finds another one, and `owners` has it still.
"""

from collections.abc import Iterator

from exporter.processes.process import Process


class Roster:
    """All processes that have not ended.

    Attributes:
        by_tgid: Those that have their pid. The hot loop reads and writes it; `add` and `remove` do for all others.
        late_of: Late processes by the pid that they had, the oldest first.
    """

    def __init__(self) -> None:
        self.by_tgid: dict[int, Process] = {}
        self.late_of: dict[int, list[Process]] = {}
        self._late: dict[int, Process] = {}
        self._late_since_ns: dict[int, int] = {}
        self._last_number = 0

    def __iter__(self) -> Iterator[Process]:
        # A late process stands before the one that has its pid.
        for tgid, process in self.by_tgid.items():
            yield from self.late_of.get(tgid, ())
            yield process
        yield from (process for process in self._late.values() if process.tgid not in self.by_tgid)

    def add(self, process: Process) -> Process:
        """Take a process in, and return it."""
        self.by_tgid[process.tgid] = process
        return process

    def holds(self, process: Process) -> bool:
        """Whether a process is here: it has not ended."""
        if process.is_late:
            return process in self.late_of.get(process.tgid, ())
        return self.by_tgid.get(process.tgid) is process

    def remove(self, process: Process) -> None:
        """Take a process off, if it is here."""
        if not self.holds(process):
            return
        if not process.is_late:
            del self.by_tgid[process.tgid]
            return
        number = process.make_odd().late_number
        del self._late[number], self._late_since_ns[number]
        owners = self.late_of[process.tgid]
        owners.remove(process)
        if not owners:
            del self.late_of[process.tgid]

    def lose_pid(self, process: Process, timestamp_ns: int) -> None:
        """Another process has the pid of this one since then."""
        del self.by_tgid[process.tgid]
        self._last_number += 1
        process.make_odd().late_number = self._last_number
        self._late[self._last_number] = process
        self._late_since_ns[self._last_number] = timestamp_ns
        self.late_of.setdefault(process.tgid, []).append(process)

    def late_since_ns(self, process: Process) -> int:
        """Return when a late process lost its pid to another."""
        return self._late_since_ns[process.make_odd().late_number]

    def owners(self, tgid: int) -> list[Process]:
        """Return the processes that had a pid and have not ended, the oldest first, and the one that has it."""
        owner = self.by_tgid.get(tgid)
        late = self.late_of.get(tgid, [])
        return [*late] if owner is None else [*late, owner]

    def note_dropped_record(self, tgid: int) -> None:
        """Note that the oldest record of a pid was dropped: it was that of the oldest process that had the pid."""
        for process in self.owners(tgid):
            if not process.leader_exited and not process.is_unrecorded:
                process.make_odd().unrecorded = True
                return

    def late_numbers(self) -> list[int]:
        """Return the numbers of all late processes, in the order in which they lost their pids."""
        return list(self._late)

    def late_before(self, before_ns: int) -> list[Process]:
        """Return the processes that lost their pids before a time, and have not ended."""
        if not self._late_since_ns:
            return []
        return [self._late[number] for number, since_ns in self._late_since_ns.items() if since_ns < before_ns]

    def late(self, number: int) -> Process | None:
        """Return a late process by its number."""
        return self._late.get(number)
