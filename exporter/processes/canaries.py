"""Children of this program with a known end, which prove that the kernel sends events (live/canary.py).

They are in no count but those here: their FORK, their EXIT and their exit record are left out of all others.
"""

from collections.abc import Iterator

from exporter.kernel.taskstats import Record
from exporter.processes.waiting_records import WaitingRecords


class Canaries:
    """The canaries that are expected, and those that came back.

    Args:
        records: Where their exit records wait.

    Attributes:
        ended: EXITs of canaries.
        recorded: Those of them that had an exit record.
    """

    def __init__(self, records: WaitingRecords) -> None:
        self._records = records
        # None while one is on its way; then whether its exit record came too.
        self._returned: dict[int, bool | None] = {}
        self.ended = 0
        self.recorded = 0

    def __contains__(self, tgid: int) -> bool:
        return tgid in self._returned

    def __iter__(self) -> Iterator[int]:
        return iter(self._returned)

    def expect(self, tgid: int) -> None:
        """Leave a child of this program out of everything, and notice when it ends.

        Call it before the drain that can find the child's first event, and `forget` before the child is reaped:
        then its pid can be another process's.
        """
        self._returned[tgid] = None

    def returned(self, tgid: int) -> bool | None:
        """Return whether a canary has ended with an exit record (True) or without; None if it has not ended."""
        return self._returned.get(tgid)

    def end(self, tgid: int, record: Record | None) -> None:
        """Count the EXIT of a canary."""
        self.ended += 1
        self.recorded += record is not None
        self._returned[tgid] = record is not None

    def forget(self, tgid: int) -> None:
        """Do not expect events of a canary any more."""
        self._returned.pop(tgid, None)
        self._records.take_at(tgid, 0)
