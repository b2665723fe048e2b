"""An independent check of what the events tell: the kernel's own totals.

Every thread that is created counts in /proc/stat, every thread that is there in /proc/loadavg; what was created
and is not there any more has ended. An event that was lost without a trace shows as the difference to the EXITs
that were told of. The two files are not of one moment, so a difference of a handful means nothing.

Source: proc(5); kernel/fork.c (total_forks, nr_threads).
"""

from exporter.kernel.procfs import TaskTotals


class ExitCheck:
    """Counts ends twice, from the first look on.

    Attributes:
        ended: How many ended since the first look, by who says so; None before, and if the kernel does not say.
    """

    def __init__(self) -> None:
        self._first: tuple[TaskTotals, int, int] | None = None
        self._kernel = 0
        self.ended: dict[str, int] | None = None

    def look(self, totals: TaskTotals | None, seen: int, canaries: int = 0) -> None:
        """Compare.

        Args:
            totals: The kernel's, read before the last drain.
            seen: EXIT events so far, of threads and processes.
            canaries: Canaries that ended so far, which are not among them.
        """
        if totals is None:
            self.ended = None
            return
        if self._first is None:
            self._first = totals, seen, canaries
        first, seen_first, canaries_first = self._first
        ended = (totals.created - first.created) - (totals.present - first.present) - (canaries - canaries_first)
        self._kernel = max(self._kernel, ended)
        self.ended = {"events": seen - seen_first, "kernel": self._kernel}
