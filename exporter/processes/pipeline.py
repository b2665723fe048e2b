"""The one way from drained datagrams to tallies: the live loop, tests and benchmarks all call it.

The order of the calls is the kernel's: a thread's exit record is queued before its EXIT event. So first all that
waits in the connector is taken, then all that waits in taskstats, and only then are the events applied: each
EXIT finds its record.
"""

from collections.abc import Callable, Iterable

from exporter.errors import MalformedMessage
from exporter.kernel.bpf import EventFilter
from exporter.kernel.cn_proc import sound_datagrams
from exporter.kernel.netlink import Batch
from exporter.kernel.procfs import ProcessInfo
from exporter.kernel.taskstats import Record, RecordDecoder
from exporter.processes.name_hints import FORKS_AND_EXECS, EarlyReader
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
        early: Reads names from the second connector socket, where there is one.
    """

    def __init__(
        self,
        table: ProcessTable,
        decoder: RecordDecoder | None,
        complain: Callable[[str, MalformedMessage], None],
    ) -> None:
        self.table = table
        self.early: EarlyReader | None = None
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
        if readings is None and self.early is not None:
            self._apply_with_hints(self.early, chunks, complete_until_ns)
        else:
            self.table.apply(chunks, 0 if self._halfway else complete_until_ns, readings)
        return self._halfway

    def _apply_with_hints(self, early: EarlyReader, chunks: list[bytes], complete_until_ns: int) -> None:
        counts = self.table.events
        forks, execs = counts.fork, counts.exec
        self.table.apply(chunks, 0 if self._halfway else complete_until_ns, early.readings)
        if not self._halfway:
            early.forget(complete_until_ns)
        early.judge(counts.fork - forks, counts.exec - execs)

    # -- the door -----------------------------------------------------------------------------------------------

    def take_names(self, batch: Batch) -> None:
        """Look up the names that a batch of the second connector socket is about."""
        if self.early is not None:
            self.early.take(batch)

    @property
    def names_wanted(self) -> EventFilter:
        """The events that the second connector socket should be woken by."""
        return FORKS_AND_EXECS if self.early is None else self.early.wanted

    def adopt(self, tgid: int, info: ProcessInfo, start_ns: int, read_ns: int) -> None:
        """See ProcessTable."""
        self.table.adopt(tgid, info, start_ns, read_ns)

    def lose_track(self) -> None:
        """See ProcessTable."""
        self.table.lose_track()

    def missing(self, alive: Iterable[int]) -> list[int]:
        """See ProcessTable."""
        return self.table.missing(alive)

    def forget(self, tgids: Iterable[int], listed_ns: int) -> None:
        """See ProcessTable."""
        self.table.forget(tgids, listed_ns)

    def waiting_records(self) -> list[Record]:
        """See ProcessTable."""
        return self.table.waiting_records()

    def forget_oldest_record(self, pid: int) -> None:
        """See ProcessTable."""
        self.table.forget_oldest_record(pid)

    def expect_canary(self, tgid: int) -> None:
        """See ProcessTable."""
        self.table.expect_canary(tgid)

    def canary_returned(self, tgid: int) -> bool | None:
        """See ProcessTable."""
        return self.table.canary_returned(tgid)

    def forget_canary(self, tgid: int) -> None:
        """See ProcessTable."""
        self.table.forget_canary(tgid)

    @property
    def waits(self) -> bool:
        """See ProcessTable."""
        return self.table.waits

    @property
    def is_observed(self) -> bool:
        """A client waits for what happens."""
        return self.table.journal is not None

    def _drop(self, socket: str, error: MalformedMessage) -> None:
        self.malformed[socket] += 1
        self._complain(socket, error)
