"""What counts, and who feeds it: the sockets of this host, or a capture of another."""

import asyncio
import os
import platform
import time
from collections.abc import Callable
from typing import BinaryIO, NamedTuple, Protocol

from exporter import __version__
from exporter.capture.format import Header, iter_frames
from exporter.capture.recorder import Recorder, Tape
from exporter.capture.replay import Answers, Player, Replay
from exporter.errors import MalformedMessage
from exporter.events import Plan, make_plan
from exporter.kernel.procfs import Procfs
from exporter.kernel.recvmmsg import Meminfo
from exporter.kernel.taskstats import AGROUP_SINCE_VERSION, RecordDecoder
from exporter.live.listener import Listener
from exporter.live.open_sources import Sources
from exporter.processes.name_hints import NameHints
from exporter.processes.pipeline import Pipeline
from exporter.processes.table import ProcessTable
from exporter.tallies.tallies import Histogram, Tallies

Complain = Callable[[str, MalformedMessage], None]


class Feed(Protocol):
    """What a Listener and a Replay have in common."""

    crashed: asyncio.Future[None]
    drain_ns: Histogram

    @property
    def resyncs(self) -> int:
        """How many comparisons with /proc followed a loss or a silence."""

    @property
    def resubscriptions(self) -> int:
        """How often the subscription had to be renewed."""

    async def start(self) -> None:
        """Begin."""

    def stop(self) -> None:
        """End."""

    async def drain_all(self) -> None:
        """Count everything that was there when this was called."""

    def emit_soon(self) -> None:
        """A client waits for its events from now on."""

    def now_ns(self) -> int:
        """CLOCK_MONOTONIC where things happen."""

    def look_at_buffers(self) -> float:
        """Ask what was lost, and how full the fuller buffer is, from 0 to 1."""

    def buffers(self) -> dict[str, Meminfo]:
        """The receive buffers, by socket."""

    def malformed(self) -> dict[str, int]:
        """How many messages were dropped as malformed, by socket."""


class Counting(NamedTuple):
    """The parts of a running program, but for those that show what it counts.

    Attributes:
        plan: What there is to be known.
        mode: Where comm and uid come from, as --attribution calls it.
        filter: Who leaves out unwanted events, as --filter calls it.
        kernel: Release of the kernel that told of them.
    """

    plan: Plan
    mode: str
    filter: str
    kernel: str
    tallies: Tallies
    pipeline: Pipeline
    feed: Feed

    @property
    def table(self) -> ProcessTable:
        """Who lives."""
        return self.pipeline.table

    @property
    def has_records(self) -> bool:
        """Exit records tell what ended processes had used."""
        return self.mode == "taskstats"


def header_of(sources: Sources) -> Header:
    """Return what a capture of these sources begins with."""
    taskstats = sources.taskstats
    return Header(
        exporter=__version__,
        kernel=platform.release(),
        mode=sources.mode,
        filter=sources.filter,
        events=sources.plan.wanted,
        family_id=0 if taskstats is None else taskstats.family_id,
        taskstats_version=0 if taskstats is None else taskstats.version,
        own_tgid=os.getpid(),
        wall_ns=time.time_ns(),
        monotonic_ns=time.monotonic_ns(),
        continued=False,
    )


def _records_end_processes(header: Header) -> bool:
    return header.taskstats_version >= AGROUP_SINCE_VERSION


class _Proc(NamedTuple):
    """What a pipeline asks while it counts: /proc and a clock, or what a capture has of them."""

    read_comm: Callable[[int], bytes | None]
    read_ns: Callable[[], int]


def _make_pipeline(header: Header, plan: Plan, tallies: Tallies, proc: _Proc, complain: Complain) -> Pipeline:
    """Make a pipeline that counts in a replay as it did when the capture was taken."""
    exact = bool(header.family_id)
    table = ProcessTable(
        tallies,
        *proc,
        records_end_processes=_records_end_processes(header),
        own_tgid=header.own_tgid,
        keeps=plan.keeps_table,
        failures_only=plan.failures_only and exact,
    )
    decoder = RecordDecoder(header.family_id) if exact else None
    return Pipeline(table, decoder, complain, None if exact else NameHints(*proc))


def count_live(
    sources: Sources, procfs: Procfs, tallies: Tallies, complain: Complain, tape: Tape | None = None
) -> Counting:
    """Count what the sockets of this host tell. Called while an event loop runs.

    Args:
        sources: The sockets.
        procfs: The host's.
        tallies: Where it is counted.
        complain: Told of malformed messages.
        tape: Gets a capture of it.
    """
    header = header_of(sources)
    if tape is None:
        pipeline = _make_pipeline(
            header, sources.plan, tallies, _Proc(procfs.read_comm, time.monotonic_ns), complain
        )
    else:
        recorder = Recorder(tape, procfs.read_comm, time.monotonic_ns)
        pipeline = _make_pipeline(
            header, sources.plan, tallies, _Proc(recorder.read_comm, recorder.read_ns), complain
        )
        recorder.record(pipeline)
    listener = Listener(sources, pipeline, procfs)
    return Counting(sources.plan, sources.mode, sources.filter, header.kernel, tallies, pipeline, listener)


def count_replay(header: Header, file: BinaryIO, tallies: Tallies, complain: Complain, speed: float) -> Counting:
    """Count what a capture tells. Called while an event loop runs.

    Args:
        header: The capture's.
        file: At its first frame.
        tallies: Where it is counted.
        complain: Told of malformed messages.
        speed: How many times as fast as it happened; 0 for as fast as can be.
    """
    plan = make_plan(
        header.events, exact=bool(header.family_id), records_end_processes=_records_end_processes(header)
    )
    answers = Answers()
    pipeline = _make_pipeline(header, plan, tallies, _Proc(answers.read_comm, answers.read_ns), complain)
    replay = Replay(Player(pipeline, answers), iter_frames(file.read), began_ns=header.monotonic_ns, speed=speed)
    return Counting(plan, header.mode, header.filter, header.kernel, tallies, pipeline, replay)
