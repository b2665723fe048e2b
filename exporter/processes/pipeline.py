"""The one way from drained datagrams to tallies: the live loop, tests and benchmarks all call it.

The order of the calls is the kernel's: a thread's exit record is queued before its EXIT event. So first all that
waits in the connector is taken, then all that waits in taskstats, and only then are the events applied: each
EXIT finds its record.
"""

from collections.abc import Callable

from exporter.errors import MalformedMessage
from exporter.kernel.cn_proc import sound_datagrams
from exporter.kernel.netlink import Batch
from exporter.kernel.taskstats import RecordDecoder
from exporter.processes.table import ProcessTable, Readings


class Pipeline:
    """Decodes batches, keeps the process table and counts.

    Args:
        table: Gets the events and records.
        decoder: Decodes exit records; None where there are none.
        complain: Told of each datagram that was dropped, and of which socket.

    Attributes:
        malformed: How many were dropped, by socket.
        lost: How many the kernel dropped, by socket.
        records: How many exit records were taken.
        held_bytes: Of events that were taken and not applied yet.
    """

    def __init__(
        self,
        table: ProcessTable,
        decoder: RecordDecoder | None,
        complain: Callable[[str, MalformedMessage], None],
    ) -> None:
        self.table = table
        self._decoder = decoder
        self._complain = complain
        self.records = 0
        self.malformed = {"connector": 0} if decoder is None else {"connector": 0, "taskstats": 0}
        self.lost = dict.fromkeys(self.malformed, 0)
        self._chunks: list[bytes] = []
        self._halfway = False
        self.held_bytes = 0

    def take_events(self, batch: Batch) -> None:
        """Keep a batch of the connector's datagrams until apply."""
        data, errors = sound_datagrams(batch)
        if data:
            self._chunks.append(data)
            self.held_bytes += len(data)
        for error in errors:
            self._drop("connector", error)

    def take_records(self, batch: Batch) -> None:
        """Take a batch of taskstats' datagrams in, each until its EXIT comes."""
        if self._decoder is None:
            return
        records, errors = self._decoder.decode_batch(batch)
        self.records += len(records)
        self.table.add_records(records)
        for error in errors:
            self._drop("taskstats", error)

    def lose(self, socket: str, count: int, noticed_ns: int) -> None:
        """Count messages that the kernel dropped because a socket's receive buffer was full."""
        self.lost[socket] += count
        if self.table.journal is not None:
            self.table.journal.lose(noticed_ns, socket, count)

    def apply(
        self, complete_until_ns: int, readings: Readings | None = None, *, most_batches: int | None = None
    ) -> bool:
        """Count the events that were taken.

        Args:
            complete_until_ns: All that happened before has been taken (CLOCK_MONOTONIC).
            readings: Comms read elsewhere as soon as an event arrived.
            most_batches: Leave the rest of the events to the next call.

        Returns:
            Whether some are left.
        """
        if not self._halfway:
            self.table.doubt(self._chunks)
        chunks, self._chunks = self._chunks[:most_batches], self._chunks[len(self._chunks[:most_batches]) :]
        self.held_bytes -= sum(map(len, chunks))
        self._halfway = bool(self._chunks)
        self.table.apply(chunks, 0 if self._halfway else complete_until_ns, readings)
        return self._halfway

    def _drop(self, socket: str, error: MalformedMessage) -> None:
        self.malformed[socket] += 1
        self._complain(socket, error)
