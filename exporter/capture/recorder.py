"""Writes a capture of a pipeline: a log of its calls and of what /proc answered it.

Of a call its arguments are noted, never its result.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, Protocol

from exporter.capture.format import Frame, encode_entry
from exporter.capture.kinds import (
    APPLY,
    EXPECT_CANARY,
    KINDS,
    NAME_CONTAINER,
    PLACE,
    READ_COMM,
    RECALL,
    RECALL_RECORD,
    TAKE_OOM_LINES,
    TAKE_OOM_TOTAL,
    CommRead,
    Kind,
    encode_comm_read,
    encode_pids,
)
from exporter.processes.pipeline import Pipeline

# A frame ends with a drain, or, as in a scan of /proc, when it has grown longer than this without one.
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

    A pipeline is recorded in two steps: it is made with `read_comm` and `read_ns` in place of /proc and the clock,
    and then passed to `record`.

    Args:
        tape: Gets the frames.
        read_comm: Reads a live process's comm in /proc; None if the process is gone.
        now_ns: CLOCK_MONOTONIC.
    """

    def __init__(self, tape: Tape, read_comm: Callable[[int], bytes | None], now_ns: Callable[[], int]) -> None:
        self._tape = tape
        self._read_comm = read_comm
        self._now_ns = now_ns
        self._read_ns = 0
        self._entries = bytearray()

    def read_comm(self, tgid: int) -> bytes | None:
        """Read a comm, and note the answer and its time."""
        comm = self._read_comm(tgid)
        self._read_ns = self._now_ns()
        self._note(READ_COMM, encode_comm_read(CommRead(tgid, comm, self._read_ns)))
        return comm

    def read_ns(self) -> int:
        """Return when the last comm had been read. That is in the capture; the clock's time now is not."""
        return self._read_ns

    def record(self, pipeline: Pipeline) -> None:
        """Note every call of a pipeline from now on: its methods of KINDS are replaced by ones that note."""
        for kind in KINDS:
            setattr(pipeline, kind.name, self._noting(kind, pipeline))

    def _noting(self, kind: Kind, pipeline: Pipeline) -> Callable[..., Any]:
        method: Callable[..., Any] = getattr(pipeline, kind.name)

        @wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            if not kind.reads_proc:
                self._note(kind.letter, kind.encode(*args, **kwargs))
            result = method(*args, **kwargs)
            if kind.reads_proc:
                self._note(kind.letter, kind.encode(*args, **kwargs))
            if kind is APPLY and not result:
                self._end_drain(pipeline)
            return result

        return call

    def _note(self, letter: str, body: bytes) -> None:
        self._entries += encode_entry(letter, body)
        if len(self._entries) > _LONG_BYTES:
            self._end_frame()

    def _end_frame(self) -> None:
        self._tape.write(Frame(self._now_ns(), bytes(self._entries)))
        self._entries.clear()

    def _end_drain(self, pipeline: Pipeline) -> None:
        """End the frame: all that was taken has been applied. A new file then begins with what is known."""
        self._end_frame()
        if not self._tape.full:
            return
        self._tape.begin_next()
        for known in pipeline.known():
            self._note(RECALL.letter, RECALL.encode(known))
        for args in pipeline.known_places():
            self._note(PLACE.letter, PLACE.encode(*args))
        for named in pipeline.known_containers():
            self._note(NAME_CONTAINER.letter, NAME_CONTAINER.encode(*named))
        for pid, read_ns in pipeline.table.oom_kills.waiting_lines():
            self._note(TAKE_OOM_LINES.letter, TAKE_OOM_LINES.encode([pid], read_ns))
        total = pipeline.table.oom_kills.total
        if total is not None:
            self._note(TAKE_OOM_TOTAL.letter, TAKE_OOM_TOTAL.encode(total, self._now_ns()))
        canaries = pipeline.canaries()
        for record in pipeline.waiting_records():
            # A canary's record is in no count, but among the records of the file that ends here.
            if record[0] not in canaries:
                self._note(RECALL_RECORD.letter, RECALL_RECORD.encode(record))
        self._note(EXPECT_CANARY.letter, encode_pids(canaries))
        self._end_frame()
