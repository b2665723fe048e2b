"""Writes down, as a capture, all that the pure part of the program gets from outside.

A `RecordingPipeline` does the same as a `Pipeline`. What is recorded of a call is its arguments, never its result.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from exporter.capture import format as capture
from exporter.capture.format import Adopted, CommRead, Frame, encode_entry
from exporter.errors import MalformedMessage
from exporter.kernel.netlink import Batch
from exporter.kernel.procfs import ProcessInfo
from exporter.kernel.taskstats import RecordDecoder
from exporter.processes.name_hints import NameHints
from exporter.processes.pipeline import Pipeline
from exporter.processes.table import ProcessTable

# A frame that grows longer than this without a drain being counted, as in a scan of /proc, is written.
_LONG_BYTES = 1 << 20


class Tape(Protocol):
    """Where frames go."""

    @property
    def full(self) -> bool:
        """The file is long enough."""

    def write(self, frame: Frame) -> None:
        """Append a frame."""

    def begin_next(self) -> None:
        """Go on in a new file, which can be read without the one before."""


class Recorder:
    """Collects entries and writes them as frames.

    Args:
        tape: Gets the frames.
        read_comm: A live process's comm in /proc; None if it is gone.
        now_ns: CLOCK_MONOTONIC.
    """

    def __init__(self, tape: Tape, read_comm: Callable[[int], bytes | None], now_ns: Callable[[], int]) -> None:
        self._tape = tape
        self._read_comm = read_comm
        self._now_ns = now_ns
        self._read_ns = 0
        self._entries = bytearray()

    def read_comm(self, tgid: int) -> bytes | None:
        """Read a comm, and remember when."""
        comm = self._read_comm(tgid)
        self._read_ns = self._now_ns()
        self.note(capture.READ_COMM, capture.encode_comm_read(CommRead(tgid, comm, self._read_ns)))
        return comm

    def read_ns(self) -> int:
        """When the last comm had been read."""
        return self._read_ns

    def note(self, kind: int, body: bytes = b"") -> None:
        """Add an entry to the frame."""
        self._entries += encode_entry(kind, body)
        if len(self._entries) > _LONG_BYTES:
            self._end_frame()

    def _end_frame(self) -> None:
        self._tape.write(Frame(self._now_ns(), bytes(self._entries)))
        self._entries.clear()

    def end_drain(self, pipeline: Pipeline) -> None:
        """End the frame: all that was taken has been counted.

        Args:
            pipeline: For a file that begins here.
        """
        self._end_frame()
        if not self._tape.full:
            return
        self._tape.begin_next()
        for known in pipeline.known():
            self.note(capture.KNOWN, capture.encode_known(known))
        canaries = pipeline.canaries()
        for record in pipeline.waiting_records():
            # A canary's is in no count; the file that ends here has it among its records.
            if record[0] not in canaries:
                self.note(capture.WAITING, capture.encode_record(record))
        self.note(capture.CANARY_EXPECTED, capture.encode_pids(canaries))
        self._end_frame()


class RecordingPipeline(Pipeline):
    """A pipeline whose caller is recorded."""

    def __init__(
        self,
        recorder: Recorder,
        table: ProcessTable,
        decoder: RecordDecoder | None,
        complain: Callable[[str, MalformedMessage], None],
        hints: NameHints | None = None,
    ) -> None:
        super().__init__(table, decoder, complain, hints)
        self._recorder = recorder

    def take_events(self, batch: Batch) -> None:
        """Record and take."""
        self._recorder.note(capture.TOOK_EVENTS, capture.encode_batch(batch))
        super().take_events(batch)

    def take_records(self, batch: Batch) -> None:
        """Record and take."""
        self._recorder.note(capture.TOOK_RECORDS, capture.encode_batch(batch))
        super().take_records(batch)

    def lose(self, socket: str, count: int, noticed_ns: int) -> None:
        """Record and count."""
        self._recorder.note(capture.LOST, capture.encode_lost(socket, count, noticed_ns))
        super().lose(socket, count, noticed_ns)

    def adopt(self, tgid: int, info: ProcessInfo, start_ns: int, read_ns: int) -> None:
        """Record and adopt."""
        adopted = Adopted(tgid, info, start_ns, read_ns)
        self._recorder.note(capture.ADOPTED, capture.encode_adopted(adopted))
        super().adopt(*adopted)

    def lose_track(self) -> None:
        """Record and lose track."""
        self._recorder.note(capture.LOST_TRACK)
        super().lose_track()

    def forget(self, tgids: Sequence[int], listed_ns: int) -> None:
        """Record and forget."""
        self._recorder.note(capture.FORGOT, capture.encode_forgotten(tgids, listed_ns))
        super().forget(tgids, listed_ns)

    def forget_oldest_record(self, pid: int) -> None:
        """Record and forget."""
        self._recorder.note(capture.FORGOT_RECORDS, capture.encode_pids([pid]))
        super().forget_oldest_record(pid)

    def expect_canary(self, tgid: int) -> None:
        """Record and expect."""
        self._recorder.note(capture.CANARY_EXPECTED, capture.encode_pids([tgid]))
        super().expect_canary(tgid)

    def forget_canary(self, tgid: int) -> None:
        """Record and forget."""
        self._recorder.note(capture.CANARY_FORGOTTEN, capture.encode_pids([tgid]))
        super().forget_canary(tgid)

    def take_names(self, batch: Batch) -> None:
        """Take, and record; what was read meanwhile stands before."""
        super().take_names(batch)
        self._recorder.note(capture.TOOK_NAMES, capture.encode_batch(batch))

    def apply(self, complete_until_ns: int, most_batches: int | None = None) -> bool:
        """Count, and record; what was read meanwhile stands before."""
        left = super().apply(complete_until_ns, most_batches)
        self._recorder.note(capture.APPLIED, capture.encode_applied(complete_until_ns, most_batches))
        if not left:
            self._recorder.end_drain(self)
        return left
