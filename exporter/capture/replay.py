"""Plays a capture: a pipeline gets the calls that it got when the capture was taken, and counts the same."""

import asyncio
import logging
import struct
import sys
import time
from collections import deque
from collections.abc import Iterator

from exporter.capture.format import Frame, iter_entries
from exporter.capture.kinds import KINDS, LOSE, READ_COMM, TAKE_SIDEBAND, CommRead, decode_comm_read
from exporter.errors import CaptureError
from exporter.kernel.recvmmsg import Meminfo
from exporter.processes.pipeline import Pipeline
from exporter.tallies.histograms import DRAIN_NS, new_histogram
from exporter.tallies.tallies import DEFAULT_LIMIT

_LOG = logging.getLogger(__name__)

# Frames are played for so long without a pause; then the event loop gets its turn.
_SLICE_NS = 10_000_000
_NS_PER_SECOND = 1_000_000_000

# What a replay may keep, so that bytes that were made up cannot fill the memory: about 64 MiB at the default limit
# of series. Python's blocks of memory are counted, of which a process has five.
_MOST_BLOCKS = 400_000
_BLOCKS_PER_SERIES = 20
# A recorder holds 32 MiB of events back at most, and what one step reads.
_MOST_HELD_BYTES = 36 << 20
# One call asks /proc for the comm of each process that it counts, at most.
_MOST_ANSWERS = 1 << 15

_KINDS = {kind.letter: kind for kind in KINDS}


class Answers:
    """Stands for /proc: answers what it answered when the capture was taken.

    Attributes:
        count: How many answers were kept since the last call.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, deque[CommRead]] = {}
        self._read_ns = 0
        self.count = 0

    def read_comm(self, tgid: int) -> bytes | None:
        """Return what was read; None, as of a process that is gone, if the capture has no answer."""
        waiting = self._waiting.get(tgid)
        if not waiting:
            return None
        read = waiting.popleft()
        self._read_ns = read.read_ns
        return read.comm

    def read_ns(self) -> int:
        """Return when the last answer had been read, CLOCK_MONOTONIC."""
        return self._read_ns

    def add(self, read: CommRead) -> None:
        """Keep an answer for the next call."""
        self._waiting.setdefault(read.tgid, deque()).append(read)
        self.count += 1

    def clear(self) -> None:
        """Drop the answers that the call did not ask for."""
        self._waiting.clear()
        self.count = 0


class Player:
    """Hands the entries of a capture to a pipeline.

    Args:
        pipeline: Gets the calls. It asks `answers` for comms.
        answers: Gets what /proc had answered.
        series_limit: How many series a metric may have.
    """

    def __init__(self, pipeline: Pipeline, answers: Answers, series_limit: int = DEFAULT_LIMIT) -> None:
        self._pipeline = pipeline
        self._answers = answers
        self._most_blocks = sys.getallocatedblocks() + _MOST_BLOCKS + _BLOCKS_PER_SERIES * series_limit

    def play(self, frame: Frame) -> Iterator[None]:
        """Repeat the calls of a frame; yields after each, so that others can have their turn.

        Raises:
            CaptureError: The frame holds an entry that no exporter writes. Those before it were played.
        """
        for letter, body in iter_entries(frame.entries):
            try:
                yield from self._play(letter, body)
            except struct.error as error:
                raise CaptureError(f"the capture has an entry {letter!r} of a wrong length") from error

    def _play(self, letter: str, body: bytes) -> Iterator[None]:
        if letter == READ_COMM:
            self._answers.add(decode_comm_read(body))
            self._check_size()
            yield
            return
        kind = _KINDS.get(letter)
        if kind is None:
            raise CaptureError(f"the capture has an entry {letter!r}, which this exporter does not know")
        call = getattr(self._pipeline, kind.name)
        for args in kind.decode(body):
            if kind is LOSE and args[0] not in self._pipeline.lost:
                raise CaptureError(f"the capture lost messages of {args[0]}, of which it has none")
            if kind is TAKE_SIDEBAND and "sideband" not in self._pipeline.lost:
                raise CaptureError("the capture has side-band records, and its header says that it has none")
            call(*args)
            self._check_size()
            yield
        if kind.reads_proc:
            self._answers.clear()

    def _check_size(self) -> None:
        """Refuse a capture that makes more of itself than a host can be.

        Raises:
            CaptureError: It has more processes, records or events at a time than memory should be given to.
        """
        if (
            self._pipeline.held_bytes > _MOST_HELD_BYTES
            or self._answers.count > _MOST_ANSWERS
            or sys.getallocatedblocks() > self._most_blocks
        ):
            raise CaptureError("the capture has more at a time than this exporter keeps: it is damaged or made up")

    def malformed(self) -> dict[str, int]:
        """Return how many messages were malformed, or of a kind that this release does not know, by socket."""
        counts = self._pipeline.malformed.copy()
        counts["connector"] += self._pipeline.table.unknown_events
        return counts


class Replay:
    """Plays frames at their time; the feed of a pipeline in place of a Listener.

    Made while an event loop runs.

    Args:
        player: Plays each frame.
        frames: The capture's, in their order.
        began_ns: When the capture began, by the clock of its frames.
        speed: How many times as fast as the events happened; 0 for as fast as possible.

    Attributes:
        crashed: Gets the exception of a bug.
        ended: Done when nothing is left to play: True if the capture was sound to its end.
    """

    def __init__(self, player: Player, frames: Iterator[Frame], *, began_ns: int, speed: float) -> None:
        self._player = player
        self._frames = frames
        self._began_ns = self._now_ns = began_ns
        self._speed = speed
        self._played = 0
        self._task: asyncio.Task[None] | None = None
        loop = asyncio.get_running_loop()
        self.crashed: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[bool] = loop.create_future()
        self.drain_ns = new_histogram(DRAIN_NS)
        self.resyncs = 0
        self.resubscriptions = 0

    async def start(self) -> None:
        """Begin to play."""
        self._task = asyncio.ensure_future(self._play())

    def stop(self) -> None:
        """Stop playing."""
        if self._task is not None:
            self._task.cancel()

    async def drain_all(self) -> None:
        """Let the frames that are due be played."""
        await asyncio.sleep(0)

    def emit_soon(self) -> None:
        """Do nothing: frames are played as soon as they are due."""

    def now_ns(self) -> int:
        """Return the time of the last frame that was played."""
        return self._now_ns

    def look_at_buffers(self) -> float:
        """Return 0: there are no sockets. Losses are entries of the capture."""
        return 0.0

    def buffers(self) -> dict[str, Meminfo]:
        """Return nothing: there are no sockets."""
        return {}

    def malformed(self) -> dict[str, int]:
        """Return how many messages were malformed, or of a kind that this release does not know, by socket."""
        return self._player.malformed()

    async def _play(self) -> None:
        try:
            await self._play_all()
        except CaptureError as error:
            _LOG.error("the capture ends early", extra={"error": error, "whole_frames": self._played})
            self.ended.set_result(False)
        except Exception as error:  # noqa: BLE001 - the program ends with it
            self.crashed.set_exception(error)
        else:
            _LOG.info("the capture has ended", extra={"frames": self._played})
            self.ended.set_result(True)

    async def _play_all(self) -> None:
        start_ns = slice_began_ns = time.monotonic_ns()
        for frame in self._frames:
            now_ns = time.monotonic_ns()
            due_ns = start_ns + round((frame.time_ns - self._began_ns) / self._speed) if self._speed else now_ns
            if due_ns > now_ns:
                await asyncio.sleep((due_ns - now_ns) / _NS_PER_SECOND)
                slice_began_ns = time.monotonic_ns()
            elif now_ns - slice_began_ns > _SLICE_NS:
                await asyncio.sleep(0)
                slice_began_ns = time.monotonic_ns()
            for _ in self._player.play(frame):
                if time.monotonic_ns() - slice_began_ns > _SLICE_NS:
                    await asyncio.sleep(0)
                    slice_began_ns = time.monotonic_ns()
            self._now_ns = frame.time_ns
            self._played += 1
