"""A host of processes without a kernel: what it does by hand goes through the pipeline as datagrams.

Every step takes a millisecond of a clock that only it moves. `/proc` is the dict `comms`. The three modes are
the ways in which an exporter learns of ends; see `Mode`.
"""

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

import builders

from exporter.capture.recorder import Recorder, Tape
from exporter.errors import MalformedMessage
from exporter.groups.cgroup_path import Placement
from exporter.kernel.procfs import ProcessInfo
from exporter.kernel.taskstats import RecordDecoder
from exporter.processes.grouping import Found
from exporter.processes.name_hints import NameHints
from exporter.processes.open_names import READING_SETTLES_NS
from exporter.processes.pipeline import Pipeline
from exporter.processes.places import Places
from exporter.processes.table import ProcessTable
from exporter.tallies.labels import group_label_names, uid_label
from exporter.tallies.tallies import Tallies

MS = 1_000_000
OWN_TGID = 99
START_NS = 1_000_000 * MS
SIGABRT_CORE = 0x86

Ends = dict[tuple[str, str, int], int]
Counts = dict[tuple[str, str], int]


class Mode(Enum):
    """Which exit records come, and what shows that a process has ended."""

    EXACT = "exact"
    """Records mark the last thread (taskstats version 12 and later)."""
    OLD_RECORDS = "old records"
    """Records do not mark it: threads are followed, records give the names."""
    PROCFS = "procfs"
    """No records: threads are followed, /proc gives the names."""

    @property
    def has_records(self) -> bool:
        return self is not Mode.PROCFS


def make_pipeline(
    mode: Mode,
    tallies: Tallies,
    read_comm: Callable[[int], bytes | None],
    now_ns: Callable[[], int],
    on_malformed: Callable[[str, MalformedMessage], None],
    *,
    failures_only: bool = False,
    sideband: bool = False,
    places: Places | None = None,
    oom_source: str = "",
) -> Pipeline:
    """Make the pipeline of an exporter that learns of ends in one of the modes."""
    table = ProcessTable(
        tallies,
        read_comm,
        now_ns,
        records_end_processes=mode is Mode.EXACT,
        own_tgid=OWN_TGID,
        keeps=not failures_only,
        failures_only=failures_only,
        sideband=sideband,
        places=places,
        oom_source=oom_source,
    )
    decoder = RecordDecoder(builders.FAMILY_ID) if mode.has_records else None
    return Pipeline(table, decoder, on_malformed, None if sideband else NameHints(read_comm, now_ns))


class Thread(NamedTuple):
    """What a record says of a thread that exits."""

    pid: int
    comm: bytes
    uid: int = 0


class Host:
    """Processes, the datagrams that they cause, and an exporter's pipeline that takes them in drains.

    Args:
        mode: How ends become known.
        version: Of taskstats; of what the mode allows by default.
        failures_only: Only what the kernel lets through for failures happens here.
        tape: Gets a capture of it.
        tallies: Where it is counted, if not in new ones.
        sideband: The kernel writes side-band records too.
        group_by: What groups are made of.
        names_pods: Names of pods come.
        names_containers: Names of other containers come.
        oom_source: What says which processes the OOM killer chose.

    Attributes:
        comms: /proc/PID/comm of the processes that have one.
        placements: Where /proc/PID/cgroup says that they are.
        looks: The processes that were looked up in /proc, in order.
        step_ms: How long a step takes.
        meanwhile: Called between the moment that /proc is read and the moment that the clock is.
    """

    def __init__(
        self,
        mode: Mode = Mode.EXACT,
        *,
        version: int | None = None,
        failures_only: bool = False,
        tape: Tape | None = None,
        tallies: Tallies | None = None,
        sideband: bool = False,
        group_by: frozenset[str] = frozenset(),
        names_pods: bool = False,
        names_containers: bool = False,
        oom_source: str = "",
    ) -> None:
        self.mode = mode
        self.sideband = sideband
        self.version = version or (16 if mode is Mode.EXACT else 11)
        self.now_ns = START_NS
        self.step_ms = 1.0
        self.comms: dict[int, bytes] = {}
        self.looks: list[int] = []
        self.complaints: list[tuple[str, MalformedMessage]] = []
        self.meanwhile: Callable[[], None] = lambda: None
        self.tallies = tallies or Tallies(group_labels=group_label_names(group_by))
        self.placements: dict[int, Placement] = {}
        recorder = None if tape is None else Recorder(tape, self._read_comm, lambda: self.now_ns)
        self.pipeline = make_pipeline(
            mode,
            self.tallies,
            self._read_comm if recorder is None else recorder.read_comm,
            (lambda: self.now_ns) if recorder is None else recorder.read_ns,
            self._complain,
            failures_only=failures_only,
            sideband=sideband,
            places=Places(self.tallies, group_by, names_pods=names_pods, names_containers=names_containers)
            if group_by
            else None,
            oom_source=oom_source,
        )
        if recorder is not None:
            recorder.record(self.pipeline)
        self.table = self.pipeline.table
        self._events: list[bytes] = []
        self._records: list[bytes] = []
        self._names_socket: list[bytes] = []
        # Of two CPUs.
        self._rings: tuple[list[bytes], list[bytes]] = ([], [])

    def _complain(self, socket: str, error: MalformedMessage) -> None:
        self.complaints.append((socket, error))

    def _read_comm(self, tgid: int) -> bytes | None:
        self.looks.append(tgid)
        comm = self.comms.get(tgid)
        self.meanwhile()
        return comm

    # -- time ---------------------------------------------------------------------------------------------------

    def rest(self, ms: float | None = None) -> None:
        """Nothing happens for a while, by default for one step."""
        self.now_ns += round((self.step_ms if ms is None else ms) * MS)

    def drain(self, *, complete: bool = True) -> None:
        """The exporter reads its sockets; incomplete when it met its bound before they were empty."""
        self.rest()
        began_ns = self.now_ns
        self.pipeline.take_events(builders.batch(self._events))
        self.pipeline.take_records(builders.batch(self._records, builders.TASKSTATS_STRIDE))
        self._events.clear()
        self._records.clear()
        self.read_rings()
        self.rest()
        self.pipeline.apply(began_ns if complete else 0)

    def settle(self) -> None:
        """Drain, and once more when what was read by then has stood for long enough."""
        self.drain()
        self.rest(READING_SETTLES_NS / MS)
        self.drain()

    def read_rings(self) -> None:
        """The exporter reads the side-band records, of one CPU after the other."""
        for ring in self._rings:
            if ring:
                self.pipeline.take_sideband(b"".join(ring))
                ring.clear()

    def ring(self, record: bytes, *, cpu: int = 0) -> None:
        """The kernel writes a side-band record, where there are any."""
        if self.sideband:
            self._rings[cpu].append(record)

    def read_early(self) -> None:
        """The second socket wakes its reader."""
        self.rest()
        self.pipeline.take_names(builders.batch(self._names_socket))
        self._names_socket.clear()

    # -- what processes do --------------------------------------------------------------------------------------

    def event(self, datagram: Callable[..., bytes], /, **fields: object) -> None:
        """Any event, now, unless the fields have a timestamp_ns."""
        self.rest()
        encoded = datagram(**{"timestamp_ns": self.now_ns, **fields})
        self._events.append(encoded)
        if datagram in (builders.fork, builders.exec_):
            self._names_socket.append(encoded)

    def fork(
        self,
        parent: int,
        child: int,
        *,
        by_thread: int | None = None,
        forker: int | None = None,
        recorded: bool = True,
        cpu: int = 0,
    ) -> None:
        """A process forks a process; another forker gives it this parent (CLONE_PARENT)."""
        self.event(builders.fork, parent_tgid=parent, parent_pid=by_thread, child_tgid=child)
        if recorded:
            forker_tgid = parent if forker is None else forker
            record = builders.perf_fork(
                time_ns=self.now_ns + 1, tgid=child, forker_tgid=forker_tgid, forker_pid=by_thread
            )
            self.ring(record, cpu=cpu)

    def thread(self, tgid: int, pid: int) -> None:
        """A process starts a thread; the kernel names the process's own parent."""
        self.event(builders.fork, parent_tgid=1, child_tgid=tgid, child_pid=pid)

    def exec(self, tgid: int, comm: bytes | None = None, *, recorded: bool = True, cpu: int = 0) -> None:
        """A process executes a program; with a comm, /proc and a side-band record show it from now on."""
        if comm is not None:
            self.begin_exec(tgid, comm, recorded=recorded, cpu=cpu)
        self.event(builders.exec_, tgid=tgid)

    def begin_exec(self, tgid: int, comm: bytes, *, recorded: bool = True, cpu: int = 0) -> None:
        """A process is past the point of no return of an exec."""
        self.comms[tgid] = comm
        if recorded:
            # After what it did last, and before its EXEC, which is a step later.
            time_ns = self.now_ns + round(self.step_ms * MS / 2)
            self.ring(builders.perf_comm(time_ns=time_ns, tgid=tgid, comm=comm), cpu=cpu)

    def rename(self, tgid: int, comm: bytes, *, thread: int | None = None) -> None:
        """A thread, by default the leader, renames itself."""
        if thread is None:
            self.comms[tgid] = comm
        self.event(builders.comm, tgid=tgid, pid=thread, comm=comm)

    def set_uid(self, tgid: int, ruid: int, *, thread: int | None = None) -> None:
        """A thread, by default the leader, changes its uid."""
        self.event(builders.uid, tgid=tgid, pid=thread, ruid=ruid)

    def record(
        self,
        thread: Thread,
        *,
        status: int = 0,
        last: bool = True,
        cpu_ms: int = 1,
        rss_kib: int = 2048,
        ms: float = 5,
        flags: int = 0,
        tgid: int | None = None,
    ) -> None:
        """The exit record of a thread, by default the leader of its process, where there are any."""
        if self.mode.has_records:
            ends_another = last and tgid is not None and tgid != thread.pid
            sums = builders.TgidStats(tgid or 0, cpu_ms * MS) if ends_another else None
            self._records.append(
                builders.taskstats_datagram(
                    pid=thread.pid,
                    comm=thread.comm,
                    uid=thread.uid,
                    exit_code=status,
                    ac_flag=flags | (builders.AGROUP if last and self.version >= 12 else 0),
                    cpu_ns=cpu_ms * MS,
                    max_rss_kib=rss_kib,
                    elapsed_us=round(ms * 1000),
                    version=self.version,
                    ac_tgid=tgid,
                    tgid_stats=sums,
                )
            )

    def exit(
        self, tgid: int, status: int = 0, *, thread: int | None = None, parent: int = 0, **header: int
    ) -> None:
        """The EXIT event of a thread, by default the leader, without a record. A reaped one has no parent."""
        self.event(builders.exit_, tgid=tgid, pid=thread, exit_code=status, parent_tgid=parent, **header)
        if thread is None:
            self.comms.pop(tgid, None)

    def end(
        self,
        tgid: int,
        comm: bytes,
        uid: int = 0,
        status: int = 0,
        *,
        last: bool = True,
        thread: int | None = None,
    ) -> None:
        """The record of a thread, by default the leader, and its EXIT. `last`: the process ends with it."""
        self.record(Thread(tgid if thread is None else thread, comm, uid), status=status, last=last, tgid=tgid)
        self.exit(tgid, status, thread=thread)

    # -- the OOM killer -----------------------------------------------------------------------------------------

    def read_log(self, *pids: int, is_whole: bool = True) -> None:
        """The exporter reads the kernel log, where these were chosen since it did so the last time."""
        self.rest()
        self.pipeline.take_oom_lines(list(pids), self.now_ns, is_whole)

    def read_total(self, total: int) -> None:
        """The exporter reads how many were chosen since the host booted."""
        self.rest()
        self.pipeline.take_oom_total(total, self.now_ns)

    # -- groups -------------------------------------------------------------------------------------------------

    def begin_session(self, tgid: int) -> None:
        """A process calls setsid(2)."""
        self.event(builders.sid, tgid=tgid)

    def answer(self, *, opened_ns: int | None = None, early: bool = False) -> list[int]:
        """The exporter reads where processes are, of which it is to know that; returns their tgids."""
        asked = self.pipeline.group_questions()
        for question in asked:
            placement = self.placements.get(question.tgid)
            self.rest()
            found = Found(placement, self.now_ns, opened_ns or self.now_ns, early)
            self.pipeline.place(question.number, question.tgid, found)
        return [question.tgid for question in asked]

    def find(self, tgid: int, placement: Placement) -> None:
        """A scan finds a process in its place."""
        self.rest()
        self.placements[tgid] = placement
        self.pipeline.place(0, tgid, Found(placement, self.now_ns, self.now_ns))

    def lives_in(self, tgid: int, comm: bytes, placement: Placement) -> None:
        """A process that was scanned long ago."""
        self.adopt(tgid, comm)
        self.find(tgid, placement)
        self.drain()

    @property
    def by_group(self) -> dict[tuple[str, ...], dict[str, int]]:
        """What was counted in each group: forks, execs and exits that there were."""
        cells = self.tallies.snapshot_cells()
        found: dict[tuple[str, ...], dict[str, int]] = {}
        columns = (cells.counters["forks"], cells.counters["execs"], [sum(e.values()) for e in cells.exits])
        for values, *numbers in zip(cells.groups, *columns, strict=True):
            for name, number in zip(("forks", "execs", "exits"), numbers, strict=True):
                if number:
                    counts = found.setdefault(values, {})
                    counts[name] = counts.get(name, 0) + number
        return found

    # -- what is older than the exporter ------------------------------------------------------------------------

    def adopt(
        self,
        tgid: int,
        comm: bytes,
        uid: int = 0,
        *,
        start_ns: int | None = None,
        zombie: bool = False,
        threads: tuple[int, ...] = (),
    ) -> None:
        """The exporter reads a process in a scan of /proc, now."""
        self.rest()
        self.comms[tgid] = comm
        info = ProcessInfo(comm, uid, 0, zombie, frozenset(threads))
        self.pipeline.adopt(tgid, info, self.now_ns - MS if start_ns is None else start_ns, self.now_ns)

    def lives(self, tgid: int, comm: bytes, uid: int = 0, *, threads: tuple[int, ...] = ()) -> None:
        """A process that was scanned long ago."""
        self.adopt(tgid, comm, uid, threads=threads)
        self.drain()

    # -- what was counted ---------------------------------------------------------------------------------------

    def _by_cell(self, counter: str) -> Counts:
        cells = self.tallies.snapshot_cells()
        column = cells.counters[counter]
        return {_labels(key): value for key, value in zip(cells.keys, column, strict=True) if value}

    @property
    def forks(self) -> Counts:
        return self._by_cell("forks")

    @property
    def execs(self) -> Counts:
        return self._by_cell("execs")

    @property
    def exits(self) -> Ends:
        cells = self.tallies.snapshot_cells()
        return {
            (*_labels(key), status): count
            for key, exits in zip(cells.keys, cells.exits, strict=True)
            for status, count in exits.items()
        }

    @property
    def coredumps(self) -> Counts:
        return self._by_cell("coredumps")

    @property
    def oom_kills(self) -> Counts:
        return self._by_cell("oom_kills")

    @property
    def uid_changes(self) -> Counts:
        return self._by_cell("uid_changes")

    @property
    def ptrace_attaches(self) -> Counts:
        return self._by_cell("ptrace_attaches")

    @property
    def live(self) -> dict[str, int]:
        return self.table.live()

    @property
    def pending(self) -> dict[str, int]:
        """What waits for a comm, without the kinds of which nothing does."""
        return {kind: count for kind, count in self.table.pending().items() if count}

    @property
    def lifetimes(self) -> dict[str, tuple[int, int]]:
        """(how many, their sum in ns) by comm."""
        return {
            p.comm: (sum(p.lifetime_ns[:-1]), p.lifetime_ns[-1])
            for p in self.tallies.snapshot_programs()
            if any(p.lifetime_ns)
        }


def _labels(key: tuple[str, int | None]) -> tuple[str, str]:
    comm, uid = key
    return comm, uid_label(uid)
