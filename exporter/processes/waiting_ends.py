"""Ends that no event completes: when they are counted all the same.

An end can wait for its leader's EXIT, which names it, and which comes a moment later or was lost. And where the
record of a leader was lost its EXIT can have been the last one. A kernel worker exits with 0: where only failures
are delivered its EXIT does not come, although it is the last one. Then the process is looked for in /proc.
"""

from collections.abc import Callable, Iterator

from exporter.kernel.cn_proc import ProcEvent
from exporter.processes.process import Process, UnnamedEnd

_LEADER_COMES_WITHIN_NS = 1_000_000_000
# When to look whether a process is gone; how long that is urgent.
_LOOK_AFTER_NS = 500_000_000
_SOON_NS = 5_000_000_000
# To count that many ends takes milliseconds.
_MOST_ENDS_AT_ONCE = 1024


class WaitingEnds:
    """Processes that may have ended.

    Args:
        is_gone: Looks into /proc whether a process has been reaped.

    Attributes:
        unnamed: Those whose leader's EXIT has not come.
        unended: Those whose leader failed, or left no record, and when to look whether they are gone.
    """

    def __init__(self, is_gone: Callable[[int], bool]) -> None:
        self._is_gone = is_gone
        self.unnamed: dict[Process, None] = {}
        self.unended: dict[Process, int] = {}

    def wait_for_leader(self, process: Process) -> None:
        """Let the end of a process, whose last thread has sent its EXIT, wait for that of its leader."""
        self.unnamed[process] = None

    def look_after(self, process: Process, timestamp_ns: int) -> None:
        """Look for a process whose leader has sent its EXIT at a time, until it is gone."""
        self.unended[process] = timestamp_ns + _LOOK_AFTER_NS

    def forget(self, process: Process) -> None:
        """Stop to wait for a process."""
        self.unnamed.pop(process, None)
        self.unended.pop(process, None)

    def without_leader(self, complete_until_ns: int) -> Iterator[tuple[Process, UnnamedEnd]]:
        """Iterate over the processes whose leader will not name their end any more.

        Args:
            complete_until_ns: All events before that have been applied.
        """
        for process in list(self.unnamed):
            unnamed = None if process.odd is None else process.odd.unnamed_end
            if unnamed is not None and unnamed.event[1] + _LEADER_COMES_WITHIN_NS < complete_until_ns:
                yield process, unnamed

    def gone(self, complete_until_ns: int) -> Iterator[tuple[Process, ProcEvent]]:
        """Iterate over the processes that are gone, and whose last EXIT does not come or was not known to be that.

        Args:
            complete_until_ns: All events before that have been applied.
        """
        ended = 0
        for process, look_ns in list(self.unended.items()):
            event = _unended_event(process)
            if event is None:
                # It has exec'd.
                del self.unended[process]
            elif look_ns <= complete_until_ns and ended < _MOST_ENDS_AT_ONCE:
                if process.is_late or self._is_gone(process.tgid):
                    ended += 1
                    yield process, event
                else:
                    # Its parent has not reaped it, or other threads live on: look less and less often.
                    self.unended[process] = look_ns + (look_ns - event[1])

    @property
    def waits(self) -> bool:
        """Some of them become known soon, without an event."""
        if self.unnamed or not self.unended:
            return bool(self.unnamed)
        return any(
            (event := _unended_event(process)) is not None and look_ns - event[1] < _SOON_NS
            for process, look_ns in self.unended.items()
        )


def _unended_event(process: Process) -> ProcEvent | None:
    """Return the EXIT that ended a process, if it has ended without another one."""
    return None if process.odd is None else process.odd.unsure_end or process.odd.fatal
