"""Puts together what counts: a pipeline, and what feeds it. That is the sockets of this host or a capture."""

import asyncio
import logging
import os
import platform
import time
from collections.abc import Callable
from functools import partial
from typing import BinaryIO, NamedTuple, Protocol

from exporter import __version__
from exporter.capture.format import Header, iter_frames, say_groups
from exporter.capture.recorder import Recorder, Tape
from exporter.capture.replay import Answers, Player, Replay
from exporter.errors import MalformedMessage
from exporter.kernel.cgroup_tree import iter_cgroups, own_cgroup2, sees_all_cgroups
from exporter.kernel.pidfd import knows_cgroup_ids
from exporter.kernel.procfs import Procfs
from exporter.kernel.recvmmsg import Meminfo
from exporter.kernel.taskstats import AGROUP_SINCE_VERSION, RecordDecoder
from exporter.live.listener import Listener
from exporter.live.oom_sources import NO_OOM_SOURCE, OomKillReader, OomSource
from exporter.live.open_sources import Sources
from exporter.live.order import PlacingSources
from exporter.live.placements import Placements
from exporter.live.placing import NO_NAMES, Names
from exporter.plan import Plan, make_plan
from exporter.processes.name_hints import NameHints
from exporter.processes.pipeline import Pipeline
from exporter.processes.places import Places
from exporter.processes.table import ProcessTable
from exporter.tallies.histograms import Histogram
from exporter.tallies.tallies import Tallies

_LOG = logging.getLogger(__name__)

OnMalformed = Callable[[str, MalformedMessage], None]
"""Called for each malformed message that was dropped, with the socket's name."""


def log_malformed(socket: str, error: MalformedMessage) -> None:
    """Log that a malformed message was dropped."""
    _LOG.warning("malformed message dropped", extra={"socket": socket, "error": error})


class Feed(Protocol):
    """What passes events to a pipeline: a Listener or a Replay.

    Attributes:
        crashed: Gets the exception of a bug; the program must end then.
        drain_ns: How long the steps of drains took.
    """

    crashed: asyncio.Future[None]
    drain_ns: Histogram

    @property
    def resyncs(self) -> int:
        """How many comparisons with /proc followed a loss or a silence."""

    @property
    def resubscriptions(self) -> int:
        """How often the subscription had to be renewed."""

    async def start(self) -> None:
        """Find the processes that live, and begin."""

    def stop(self) -> None:
        """End."""

    async def drain_all(self) -> None:
        """Count every event that was there when this was called."""

    def emit_soon(self) -> None:
        """End a long pause: a client waits for its events from now on."""

    def now_ns(self) -> int:
        """Return CLOCK_MONOTONIC of the host where the events happen."""

    def look_at_buffers(self) -> float:
        """Count losses; return how full the fuller receive buffer is, from 0 to 1."""

    def buffers(self) -> dict[str, Meminfo]:
        """Return the receive buffers, by socket."""

    def malformed(self) -> dict[str, int]:
        """Return how many messages were dropped as malformed, by socket."""


async def count_for(feed: Feed, seconds: float) -> bool:
    """Count what was there when this was called, for so long at most.

    Returns:
        Whether all of it is counted. How much may be left is seen by how full the receive buffers are.
    """
    try:
        async with asyncio.timeout(seconds):
            await feed.drain_all()
    except TimeoutError:
        return False
    return True


class Core(NamedTuple):
    """What counts: a pipeline, the tallies that it counts in, and the feed that passes it events.

    Attributes:
        plan: Which events there are.
        mode: Where comm and uid come from, as of --attribution.
        filter: What leaves out unwanted events, as of --filter.
        exec_names: Where the comm of an exec comes from, as of --exec-names.
        kernel: Release of the kernel that sent the events.
        places: What says where processes run; empty where that is not asked for.
    """

    plan: Plan
    mode: str
    filter: str
    exec_names: str
    kernel: str
    tallies: Tallies
    pipeline: Pipeline
    feed: Feed
    places: str = ""

    @property
    def table(self) -> ProcessTable:
        """The processes that live, and what the table counts itself. It is only read; see Pipeline."""
        return self.pipeline.table

    @property
    def has_records(self) -> bool:
        """There are exit records, which have what an ended process had used."""
        return self.mode == "taskstats"


def header_of(sources: Sources, *, names: Names = NO_NAMES, oom: str = "") -> Header:
    """Return what a capture of these sources begins with.

    Args:
        sources: The sockets.
        names: Where names of groups come from.
        oom: What says which processes the OOM killer chose.
    """
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
        sideband=sources.rings is not None,
        groups="" if sources.sessions is None else say_groups(*(source is not None for source in names)),
        oom=oom,
    )


def _records_end_processes(header: Header) -> bool:
    return header.taskstats_version >= AGROUP_SINCE_VERSION


class _Proc(NamedTuple):
    """What a pipeline asks while it counts: /proc and a clock, or what a capture has of their answers."""

    read_comm: Callable[[int], bytes | None]
    read_ns: Callable[[], int]


def _make_pipeline(
    header: Header,
    plan: Plan,
    tallies: Tallies,
    proc: _Proc,
    *,
    on_malformed: OnMalformed,
    places: Places | None,
) -> Pipeline:
    """Make a pipeline by a capture's header, so that a replay counts as the recorded exporter did."""
    exact = bool(header.family_id)
    table = ProcessTable(
        tallies,
        *proc,
        records_end_processes=_records_end_processes(header),
        own_tgid=header.own_tgid,
        keeps=plan.keeps_table,
        failures_only=plan.failures_only and exact,
        sideband=header.sideband,
        since_ns=header.monotonic_ns,
        places=places,
        oom_source=header.oom,
    )
    decoder = RecordDecoder(header.family_id) if exact else None
    return Pipeline(table, decoder, on_malformed, None if exact or header.sideband else NameHints(*proc))


class LiveGroups(NamedTuple):
    """What groups of processes are made of, and what it takes to know them."""

    by: frozenset[str]
    """pod, unit or both."""
    own_pod_uid: str = ""
    """The uid of the exporter's own pod, if it is in one."""
    names: Names = NO_NAMES


def _placements(procfs: Procfs, groups: LiveGroups) -> Placements:
    root = own_cgroup2()
    return Placements(
        procfs,
        time.monotonic_ns,
        has_ids=knows_cgroup_ids(),
        own_pod_uid=groups.own_pod_uid,
        sees_all=sees_all_cgroups(),
        iter_cgroups=tuple if root is None else partial(iter_cgroups, root),
    )


def make_live_core(
    sources: Sources,
    procfs: Procfs,
    tallies: Tallies,
    *,
    tape: Tape | None = None,
    on_malformed: OnMalformed = log_malformed,
    groups: LiveGroups | None = None,
    oom: OomSource = NO_OOM_SOURCE,
) -> Core:
    """Make a core that counts the events of this host. Call it while an event loop runs.

    Args:
        sources: The sockets.
        procfs: The host's /proc.
        tallies: Where the events are counted.
        tape: Gets a capture; None for no capture.
        on_malformed: Called for each message that was dropped.
        groups: What groups of processes are made of; None where they are not asked for.
        oom: What says which processes the OOM killer chose.
    """
    header = header_of(sources, oom=oom.name)
    recorder = None if tape is None else Recorder(tape, procfs.read_comm, time.monotonic_ns)
    if recorder is None:
        proc = _Proc(procfs.read_comm, time.monotonic_ns)
    else:
        proc = _Proc(recorder.read_comm, recorder.read_ns)
    places = None
    if groups is not None:
        names_pods, names_containers = (source is not None for source in groups.names)
        places = Places(tallies, groups.by, names_pods=names_pods, names_containers=names_containers)
    pipeline = _make_pipeline(header, sources.plan, tallies, proc, on_malformed=on_malformed, places=places)
    if recorder is not None:
        recorder.record(pipeline)
    placements = None if groups is None else _placements(procfs, groups)
    found = None if groups is None or placements is None else PlacingSources(placements, groups.names)
    reader = OomKillReader(oom, pipeline, procfs, time.monotonic_ns) if oom.name else None
    listener = Listener(sources, pipeline, procfs, found, reader)
    return Core(
        sources.plan,
        sources.mode,
        sources.filter,
        sources.exec_names,
        header.kernel,
        tallies,
        pipeline,
        listener,
        "" if placements is None else _places_from(sources, placements),
    )


def _places_from(sources: Sources, placements: Placements) -> str:
    """Return what says where a process ran that is gone, the best first, and where one is that lives."""
    if placements.has_ids:
        return "ids of cgroups (PIDFD_GET_INFO), /proc"
    if sources.rings is not None and sources.rings.has_mounts:
        return "/proc, mount namespaces (side-band records)"
    return "/proc"


def make_replay_core(
    header: Header,
    file: BinaryIO,
    tallies: Tallies,
    *,
    speed: float,
    on_malformed: OnMalformed = log_malformed,
    group_by: frozenset[str] = frozenset(),
) -> Core:
    """Make a core that counts the events of a capture. Call it while an event loop runs.

    Args:
        header: The capture's.
        file: At its first frame.
        tallies: Where the events are counted.
        speed: How many times as fast as the events happened; 0 for as fast as possible.
        on_malformed: Called for each message that was dropped.
        group_by: What groups of processes are made of; empty where they are not asked for.
    """
    plan = make_plan(
        header.events,
        exact=bool(header.family_id),
        records_end_processes=_records_end_processes(header),
        grouped=bool(header.groups),
    )
    answers = Answers()
    places = None
    if group_by:
        places = Places(tallies, group_by, names_pods=header.names_pods, names_containers=header.names_containers)
    proc = _Proc(answers.read_comm, answers.read_ns)
    pipeline = _make_pipeline(header, plan, tallies, proc, on_malformed=on_malformed, places=places)
    player = Player(pipeline, answers, tallies.limit)
    replay = Replay(player, iter_frames(file.read), began_ns=header.monotonic_ns, speed=speed)
    exec_names = "sideband" if header.sideband else "events"
    said = "the capture" if places is not None else ""
    return Core(plan, header.mode, header.filter, exec_names, header.kernel, tallies, pipeline, replay, said)
