"""Which of the processes that died of SIGKILL the kernel's OOM killer had chosen.

An end by SIGKILL is a *suspect* until it is known. There are two ways to know it:

*By pid*, from the kernel log. The kernel logs the pid before the process can end, so when an end is counted, its
line can be read. A line waits for its process, which can take long to end; a process that was forked later and has
the same pid is another one. Suspects without a line are no OOM kills.

*By number*, from the kernel's count of kills alone. As long as it does not grow, no suspect is an OOM kill. Once
it has grown, and no process of the host is about to die any more, the suspects are looked at together: those that
the kernel chose are among them. If there are no more than it chose at least, all of them are. If there are more,
as many as it chose at least are counted in what all of them have in common: their cell if it is the same, or else
`<unknown>` in their group, or else in no known group; and the rest of its number under `<unknown>`. That is what a
container leaves behind whose first process was chosen: all others of it die of SIGKILL too.

The counters of the cgroups (memory.events.local, memory.oom_control) would tell apart only what several groups
lost at the same moment. They are not read: where a process was is known by its group, and that is not its cgroup;
a runtime removes a container's cgroup, with its counter, as soon as the container has ended; and in a pod they
cannot be seen without a mount of the host's.

A cgroup with memory.oom.group dies as a whole: the kernel kills the process that it has chosen, and then each one
of the cgroup. If the first one still has its memory by then, it is logged and counted twice. So two lines can be
of one process, and a count of four can be of two to four processes.

In both ways each process that the kernel has chosen is counted here: what none can be named for is `<unknown>`.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from exporter.processes.process import Process, known_cell
from exporter.tallies.cells import Cell
from exporter.tallies.tallies import Tallies

BY_PID = frozenset({"kmsg", "syslog"})
BY_NUMBER = frozenset({"vmstat"})

_NS_PER_SECOND = 1_000_000_000
# So long a line waits for a process of which nothing is known.
_LINE_WAITS_NS = 60 * _NS_PER_SECOND
# So long the ends of all that the kernel chose are waited for. A process that has much memory takes seconds.
_ENDS_WAIT_NS = 60 * _NS_PER_SECOND
# The kernel counts a kill a moment before it logs it.
_LOGGED_WITHIN_NS = _NS_PER_SECOND
# Two lines of a pid that were read within so long of each other are of one process.
_REPEATED_WITHIN_NS = _NS_PER_SECOND
_MOST_LINES = 4096
_MOST_SUSPECTS = 4096
# One reading can decide all suspects, and then each is asked for.
_MOST_VERDICTS = 2 * _MOST_SUSPECTS

_End = tuple[int, int]
"""tgid and time of an end."""


class _Suspect(NamedTuple):
    """A process that died of SIGKILL."""

    cell: Cell
    """Where its end counts."""
    start_ns: int
    """0 if it is not known."""


class OomKills:
    """Counts those that the OOM killer had chosen.

    Args:
        tallies: Where they are counted.
        by_tgid: The processes that live.
        source: Where kills are known from: one of BY_PID or BY_NUMBER; empty if they are not.

    Attributes:
        source: The same.
        is_active: They are known.
        owed: How many of those that the kernel has counted were not counted here. By pid only of those that should
            have been logged by now.
    """

    def __init__(self, tallies: Tallies, by_tgid: Mapping[int, Process], source: str = "") -> None:
        self._tallies = tallies
        self._find = by_tgid.get
        self.source = source
        self.is_active = bool(source)
        self._by_pid = source in BY_PID
        self._suspects: dict[_End, _Suspect] = {}
        # When the lines of a pid had been read.
        self._lines: dict[int, list[int]] = {}
        self._line_count = 0
        # Of the last ends those that were chosen (True), and those of which it is not known (None).
        self._verdicts: dict[_End, bool | None] = {}
        # The kernel's number, less what is accounted for here: by a line, an end, or under <unknown>.
        self._base: int | None = None
        self._accounted = 0
        self._total = self._total_ns = 0
        self._owed_since_ns: int | None = None
        # Until then it can be a lost line that a suspect lacks.
        self._unsure_until_ns = 0
        self._lost_ends = False
        self.owed = 0

    # -- suspects -----------------------------------------------------------------------------------------------

    def suspect(self, cell: Cell, tgid: int, time_ns: int, lifetime_ns: int | None) -> None:
        """Take note of an end by SIGKILL."""
        start_ns = 0 if lifetime_ns is None else time_ns - lifetime_ns
        self._suspects[tgid, time_ns] = _Suspect(cell, start_ns)
        if len(self._suspects) > _MOST_SUSPECTS:
            self._decide(next(iter(self._suspects)), verdict=None)
            self._lost_ends = True

    @property
    def asks(self) -> bool:
        """There are suspects: what the kernel says of them is to be read."""
        return bool(self._suspects)

    @property
    def has_lines(self) -> bool:
        """Lines wait for the ends of their processes."""
        return bool(self._lines)

    @property
    def waits(self) -> bool:
        """Suspects wait for others to end."""
        return not self._by_pid and bool(self._suspects)

    def is_suspect(self, tgid: int, time_ns: int) -> bool:
        """Return whether it is not decided yet what an end was."""
        return bool(self._suspects) and (tgid, time_ns) in self._suspects

    def was_chosen(self, tgid: int, time_ns: int) -> bool | None:
        """Return whether the OOM killer had chosen a process that ended; None if that is not known."""
        if not self.is_active:
            return None
        return self._verdicts.get((tgid, time_ns), False)

    def _decide(self, end: _End, verdict: bool | None) -> None:
        suspect = self._suspects.pop(end)
        if verdict is not False:
            self._verdicts[end] = verdict
            if len(self._verdicts) > _MOST_VERDICTS:
                del self._verdicts[next(iter(self._verdicts))]
        if verdict:
            self._cell_now(suspect.cell).oom_kills += 1

    def _cell_now(self, cell: Cell) -> Cell:
        """Return where it counts what was counted in a cell before its name or group was known."""
        cell = known_cell(cell) or cell
        return cell if cell.group.successor is None else self._tallies.claim_cell_in(cell, cell.group)

    def _count_unknown(self, number: int) -> None:
        self._tallies.claim_cell(None, None).oom_kills += number

    # -- by pid -------------------------------------------------------------------------------------------------

    def take_lines(self, pids: Sequence[int], read_ns: int, *, is_whole: bool) -> None:
        """Take what was new in the kernel log, and decide what the suspects were.

        Args:
            pids: Which processes were chosen.
            read_ns: All ends that are suspects, and these lines, are older than that (CLOCK_MONOTONIC).
            is_whole: No line was lost.
        """
        if not self._by_pid:
            return
        if not is_whole:
            self._unsure_until_ns = read_ns + _LINE_WAITS_NS
        for pid in pids:
            self._lines.setdefault(pid, []).append(read_ns)
        self._line_count += len(pids)
        self._accounted += len(pids)
        if not self._lines and read_ns >= self._unsure_until_ns:
            # As nearly always.
            self._suspects.clear()
        for end in list(self._suspects):
            verdict = self._take_line(end, self._suspects[end].start_ns)
            self._decide(end, verdict or (None if read_ns < self._unsure_until_ns else False))
        if self._lines:
            self._drop_lines(read_ns)

    def _take_line(self, end: _End, start_ns: int) -> bool:
        """Return whether there is a line of a process, which is then used up with the one that repeats it."""
        tgid, _ = end
        lines = self._lines.pop(tgid, [])
        if not lines:
            return False
        self._line_count -= len(lines)
        own = [read_ns for read_ns in lines if read_ns >= start_ns]
        # The process before had the pid: its end was lost, or by itself.
        self._count_unknown(_count_processes(lines[: len(lines) - len(own)]))
        # One for each that had the pid after it and has ended, too.
        others = len(own) > 1 and sum(other != end and other[0] == tgid for other in self._suspects)
        if others:
            self._lines[tgid] = own[1:][-others:]
            self._line_count += len(self._lines[tgid])
        return bool(own)

    def _drop_lines(self, now_ns: int) -> None:
        """Give up lines whose process is not there and has not ended, as far as is known."""
        for pid, lines in list(self._lines.items()):
            process = self._find(pid)
            if lines[0] < now_ns - _LINE_WAITS_NS and (process is None or process.start_ns > lines[0]):
                self._give_up(pid)
        # One list of all: to look for the first of a dict each time costs as much as there were before it.
        for pid in list(self._lines) if self._line_count > _MOST_LINES else ():
            self._give_up(pid)
            if self._line_count <= _MOST_LINES:
                return

    def _give_up(self, pid: int) -> None:
        lines = self._lines.pop(pid)
        self._line_count -= len(lines)
        self._count_unknown(_count_processes(lines))

    def waiting_lines(self) -> list[tuple[int, int]]:
        """Return the pids of the lines that wait for an end, and when each line was read."""
        return [(pid, read_ns) for pid, lines in self._lines.items() for read_ns in lines]

    # -- by number ----------------------------------------------------------------------------------------------

    @property
    def total(self) -> int | None:
        """How many the kernel has chosen so far of which it is known here; None before the first take_total."""
        return None if self._base is None else self._base + self._accounted

    def take_total(self, total: int, read_ns: int) -> None:
        """Take the kernel's own count of kills; the first one says what was before.

        Args:
            total: Since the host has booted.
            read_ns: All ends that are suspects are older than that (CLOCK_MONOTONIC).
        """
        if self._base is None:
            self._base, self._total, self._total_ns = total - self._accounted, total, read_ns
        if self._by_pid:
            self._check_log(total, read_ns)
            return
        self._total = total
        self.owed = total - self._base - self._accounted
        if self.owed <= 0:
            self._owed_since_ns = None
            self._lost_ends = False
            for end in list(self._suspects):
                self._decide(end, verdict=False)
        elif self._owed_since_ns is None:
            self._owed_since_ns = read_ns
        elif read_ns - self._owed_since_ns > _ENDS_WAIT_NS:
            self._settle(list(self._suspects), unknown=self.owed)

    def _check_log(self, total: int, read_ns: int) -> None:
        """Count under `<unknown>` what should have been in the log by now."""
        if read_ns - self._total_ns < _LOGGED_WITHIN_NS:
            return
        self.owed = max(0, self._total - (self._base or 0) - self._accounted)
        if self.owed:
            self._unsure_until_ns = read_ns + _LINE_WAITS_NS
            self._accounted += self.owed
            self._count_unknown(self.owed)
        self._total, self._total_ns = total, read_ns

    def all_ended(self, ended_ns: int) -> None:
        """Decide what the suspects were: all whom the kernel chose have ended.

        Args:
            ended_ns: They had by then (CLOCK_MONOTONIC), when the kernel's count was as it is. All events until
                then have been applied.
        """
        if self._by_pid or self.owed <= 0:
            return
        ends = [end for end in self._suspects if end[1] <= ended_ns]
        if self._lost_ends:
            self._settle(ends, unknown=self.owed)
            return
        # Each of them is counted twice at most.
        least = (self.owed + 1) // 2
        if len(ends) == least:
            self._settle(ends, unknown=0, are_all=True)
            return
        certain = least if len(ends) > least else 0
        if certain:
            self._common_cell([self._suspects[end].cell for end in ends]).oom_kills += certain
        self._settle(ends, unknown=max(least, min(len(ends), self.owed)) - certain)

    def _common_cell(self, cells: Sequence[Cell]) -> Cell:
        """Return where it counts what is known to have happened in one of some cells, but not in which."""
        now = dict.fromkeys(map(self._cell_now, cells))
        if len(now) == 1:
            return next(iter(now))
        groups = {cell.group.last for cell in now}
        return self._tallies.claim_cell(None, None, groups.pop() if len(groups) == 1 else None)

    def _settle(self, ends: Sequence[_End], *, unknown: int, are_all: bool = False) -> None:
        """Decide all at once: all of them were chosen, or it is not known which of them and others were."""
        for end in ends:
            self._decide(end, True if are_all else None)
        if unknown:
            self._count_unknown(unknown)
        self._accounted += self.owed
        self.owed = 0
        self._owed_since_ns = None
        self._lost_ends = False

    def lose_ends(self) -> None:
        """Take note that messages were lost: an end by SIGKILL can be among them."""
        self._lost_ends = True


def _count_processes(lines: Sequence[int]) -> int:
    """Return of how many processes, of which nothing else is known, these lines of one pid are."""
    return sum(
        not number or read_ns - lines[number - 1] > _REPEATED_WITHIN_NS for number, read_ns in enumerate(lines)
    )
