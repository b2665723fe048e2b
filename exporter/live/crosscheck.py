"""An independent check of the events: the kernel's own totals.

/proc/stat counts every thread that was created, /proc/loadavg every thread that exists. A thread that was created
and does not exist any more has ended. An EXIT that was lost without being counted as lost shows as a difference
between these ends and the EXITs that were received. The two files are not read at one moment, so a difference of a
handful means nothing.

Source: proc(5); kernel/fork.c (total_forks, nr_threads).
"""

from exporter.kernel.procfs import TaskTotals


class ExitCheck:
    """Counts the ends of threads in two ways, from the first look on.

    Attributes:
        ended: How many threads ended since the first look, by events and by the kernel's totals; None before the
            first look, and where the totals cannot be read.
    """

    def __init__(self) -> None:
        self._first: tuple[TaskTotals, int, int] | None = None
        self._kernel = 0
        self.ended: dict[str, int] | None = None

    def look(self, totals: TaskTotals | None, seen: int, canaries: int = 0) -> None:
        """Compare both counts.

        Args:
            totals: The kernel's totals, read before the last drain; None where they cannot be read.
            seen: EXIT events so far, of threads and processes.
            canaries: Canaries that ended so far, which are not among `seen`.
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
