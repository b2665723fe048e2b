"""The one door of the pure core: everything that it is given goes through a method of `Pipeline`.

So a capture is the log of these calls, and a replay repeats them: the live loop, the player, tests and benchmarks
all stand outside of the same door.

The order of a drain is the kernel's: a thread's exit record is queued before its EXIT event. First all that waits
in the connector is taken, then all that waits in taskstats, and only then the events are applied: each EXIT finds
its record.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

from exporter.errors import MalformedMessage
from exporter.kernel.bpf import EventFilter
from exporter.kernel.cn_proc import sound_datagrams
from exporter.kernel.netlink import Batch
from exporter.kernel.perf_event import decode_records
from exporter.kernel.procfs import ProcessInfo
from exporter.kernel.taskstats import LastRecord, Record, RecordDecoder
from exporter.processes.bad_ends import Take
from exporter.processes.grouping import Found, GroupQuestion
from exporter.processes.name_hints import NameHints
from exporter.processes.observer import Publish
from exporter.processes.places import PodContainer, PodName
from exporter.processes.process import KnownProcess
from exporter.processes.table import ProcessTable

NO_EVENTS = EventFilter(frozenset(), frozenset())


def _each(chunks: Iterable[bytes], between: Callable[[], object] | None) -> Iterator[bytes]:
    for chunk in chunks:
        if between is not None:
            between()
        yield chunk


class Pipeline:
    """Decodes datagrams, keeps the process table up to date and counts.

    Args:
        table: Gets the events and records.
        decoder: Decodes exit records; None where there are none.
        on_malformed: Called for each malformed datagram, with the socket's name and the reason it was dropped.
        hints: Reads comms for the second connector socket; None where there is no such socket.

    Attributes:
        table: What is counted per process; outside of this class it is only read.
        malformed: How many datagrams were dropped as malformed, by socket.
        lost: How many messages the kernel dropped, by socket.
        records: How many exit records were taken.
        held_bytes: Length of the events that were taken and not applied yet.
        between: Called by apply before each batch that it counts; None for nothing.
    """

    def __init__(
        self,
        table: ProcessTable,
        decoder: RecordDecoder | None,
        on_malformed: Callable[[str, MalformedMessage], None],
        hints: NameHints | None = None,
    ) -> None:
        self.table = table
        self._decoder = decoder
        self._on_malformed = on_malformed
        self._hints = hints
        self.records = 0
        sources = ["connector", *["taskstats"] * (decoder is not None), *["sideband"] * table.sideband.is_active]
        self.malformed = dict.fromkeys(sources, 0)
        self.lost = dict.fromkeys(sources, 0)
        self._chunks: list[bytes] = []
        self._halfway = False
        self.held_bytes = 0
        self.between: Callable[[], object] | None = None

    # -- one drain ----------------------------------------------------------------------------------------------

    def take_events(self, batch: Batch) -> None:
        """Keep a batch of the connector's datagrams until apply."""
        data, errors = sound_datagrams(batch)
        if data:
            self._chunks.append(data)
            self.held_bytes += len(data)
        for error in errors:
            self._drop("connector", error)

    def take_records(self, batch: Batch) -> None:
        """Take a batch of taskstats' datagrams. Each record waits until the EXIT of its thread comes."""
        if self._decoder is not None:
            records, last_threads, errors = self._decoder.decode_batch(batch)
            self.records += len(batch.lengths) - len(errors)
            self.table.add_records(records, last_threads)
            for error in errors:
                self._drop("taskstats", error)

    def take_sideband(self, data: bytes) -> None:
        """Take what one ring of side-band records had; each record waits for its event."""
        try:
            records = decode_records(data)
        except MalformedMessage as error:
            self._drop("sideband", error)
        else:
            self.lost["sideband"] += records.lost + self.table.sideband.add(records)

    def lacks_fork_record(self, sent_after_ns: int) -> bool:
        """Return whether one of the last FORKs that wait for apply has no record; see Sideband.lacks_fork."""
        return self.table.sideband.lacks_fork(self._chunks, sent_after_ns)

    def take_names(self, batch: Batch) -> None:
        """Read the comms of the processes in a batch of the second connector socket, at once."""
        if self._hints is not None:
            self._hints.take(batch)

    @property
    def wanted_by_names(self) -> EventFilter:
        """The events that take_names has a use for now."""
        return NO_EVENTS if self._hints is None else self._hints.wanted

    def apply(self, complete_until_ns: int, most_batches: int | None = None) -> bool:
        """Count the events that were taken; returns whether some are left.

        Args:
            complete_until_ns: All that happened before has been taken (CLOCK_MONOTONIC); 0 if that is not known.
            most_batches: Leave the rest of the events to the next call.
        """
        table, hints = self.table, self._hints
        if not self._halfway:
            table.reconciler.doubt(self._chunks)
        chunks, self._chunks = self._chunks[:most_batches], self._chunks[len(self._chunks[:most_batches]) :]
        self.held_bytes -= sum(map(len, chunks))
        self._halfway = bool(self._chunks)
        forks, execs = table.events.fork, table.events.exec
        by_event = None if hints is None else hints.by_event
        table.apply(_each(chunks, self.between), 0 if self._halfway else complete_until_ns, by_event)
        if hints is not None:
            if not self._halfway:
                hints.forget(complete_until_ns)
            hints.judge(table.events.fork - forks, table.events.exec - execs)
        return self._halfway

    def lose(self, socket: str, count: int, noticed_ns: int) -> None:
        """Count messages that the kernel dropped because a socket's receive buffer was full."""
        self.lost[socket] += count
        self.table.oom_kills.lose_ends()
        self.table.observer.lose(noticed_ns, socket, count)

    def _drop(self, socket: str, error: MalformedMessage) -> None:
        self.malformed[socket] += 1
        self._on_malformed(socket, error)

    # -- comparing with /proc -----------------------------------------------------------------------------------

    def adopt(self, tgid: int, info: ProcessInfo, start_ns: int, read_ns: int) -> None:
        """Take over what /proc says of a process; see Reconciler.adopt."""
        self.table.reconciler.adopt(tgid, info, start_ns, read_ns)

    def lose_track(self) -> None:
        """Messages were lost: give up the names that are still open, and hand on at once what waited for them."""
        self.table.reconciler.lose_track()
        self.table.observer.flush(all_of_them=True)

    def missing(self, alive: Iterable[int]) -> list[int]:
        """Return the tgids that are known and not among those that live."""
        return self.table.reconciler.missing(alive)

    def forget(self, tgids: Sequence[int], listed_ns: int) -> None:
        """Take processes off that are gone although no event said so; see Reconciler.forget."""
        self.table.reconciler.forget(tgids, listed_ns)

    def waiting_records(self) -> list[Record | LastRecord]:
        """Return all exit records whose EXIT has not come, those of one pid and kind in their order."""
        return [*self.table.records, *self.table.last_threads]

    def forget_records(self, records: Iterable[Record | LastRecord]) -> None:
        """Drop some of waiting_records, in their order: their EXIT was lost, if it has not come meanwhile."""
        for record in records:
            if len(record) == 8 and self.table.last_threads.holds(record):
                self.forget_last_thread(record[-1], record[0])
            elif self.table.records.oldest.get(record[0]) is record:
                self.forget_oldest_record(record[0])

    def forget_oldest_record(self, pid: int) -> None:
        """Drop the record of a leader that has waited longest; before taskstats version 12 of any thread."""
        self.table.records.drop_oldest(pid)

    def forget_last_thread(self, tgid: int, pid: int) -> None:
        """Drop the record of a last thread that has waited longest."""
        self.table.last_threads.drop(tgid, pid)

    @property
    def waits(self) -> bool:
        """Another apply, even of no events, can make something known."""
        return self.table.waits

    # -- groups -------------------------------------------------------------------------------------------------

    def group_questions(self) -> list[GroupQuestion]:
        """Return which processes are to be read now, once; each is to be answered by `place`."""
        return self.table.grouping.questions()

    def place(self, number: int, tgid: int, found: Found) -> None:
        """Take note of where a process was found; see Grouping.place."""
        self.table.grouping.place(number, tgid, found)

    def known_places(self) -> Iterator[tuple[int, int, Found]]:
        """Return calls of place that make known to another pipeline where processes are."""
        return self.table.grouping.known_places()

    def known_containers(self) -> list[tuple[PodContainer, PodName | None]]:
        """Return calls of name_container that make known to another pipeline what it has been given."""
        return self.table.grouping.known_containers()

    def nameless(self) -> list[PodContainer]:
        """Return the containers of pods whose name is waited for."""
        return self.table.grouping.nameless

    def name_container(self, container: PodContainer, name: PodName | None) -> None:
        """Take note of what a container of a pod is called; see Grouping.name_container."""
        self.table.grouping.name_container(container, name)

    # -- OOM kills ----------------------------------------------------------------------------------------------

    def take_oom_lines(self, pids: Sequence[int], read_ns: int, is_whole: bool = True) -> None:
        """Take what was new in the kernel log; see OomKills.take_lines."""
        self.table.oom_kills.take_lines(pids, read_ns, is_whole=is_whole)
        self.table.hand_on_killed(read_ns)

    def take_oom_total(self, total: int, read_ns: int) -> None:
        """Take the kernel's count of OOM kills; see OomKills.take_total."""
        self.table.oom_kills.take_total(total, read_ns)
        self.table.hand_on_killed(read_ns)

    def oom_victims_ended(self, ended_ns: int) -> None:
        """All that the OOM killer chose have ended; see OomKills.all_ended."""
        self.table.oom_kills.all_ended(ended_ns)
        self.table.hand_on_killed(ended_ns)

    # -- canaries -----------------------------------------------------------------------------------------------

    def expect_canary(self, tgid: int) -> None:
        """Leave a child of this program out of all counts and notice its end; see Canaries.expect."""
        self.table.canaries.expect(tgid)

    def canary_returned(self, tgid: int) -> bool | None:
        """Return whether a canary ended with an exit record (True) or without; None if it has not ended."""
        return self.table.canaries.returned(tgid)

    def forget_canary(self, tgid: int) -> None:
        """A canary's pid can be another process's from now on."""
        self.table.canaries.forget(tgid)

    def canaries(self) -> list[int]:
        """Return the canaries that were not forgotten."""
        return list(self.table.canaries)

    # -- handing over to another pipeline -----------------------------------------------------------------------

    def known(self) -> Iterator[KnownProcess]:
        """Iterate over what is known of each process; see Reconciler.known."""
        return self.table.reconciler.known()

    def recall(self, known: KnownProcess) -> None:
        """Take over what another pipeline knew of a process."""
        self.table.reconciler.recall(known)

    def recall_record(self, record: Record | LastRecord, leads: bool = True) -> None:
        """Take over an exit record that is counted elsewhere; `leads`: see ProcessTable.recall_record."""
        self.table.recall_record(record, leads=leads)

    # -- observing ----------------------------------------------------------------------------------------------

    def observe(self, publish: Publish | None) -> None:
        """Call this after each apply with what became known, under the names it is counted under; None ends it."""
        self.table.observer.publish_to(publish)

    @property
    def is_observed(self) -> bool:
        """What is counted is handed on to an observer."""
        return self.table.observer.is_active

    def take_failures(self, take: Take | None, *, at_once: bool = False) -> None:
        """Hand on each process that ends badly from now on, or the newest of many; see BadEnds.hand_to."""
        self.table.bad_ends.hand_to(take, at_once=at_once)

    def hand_on_failures(self, now_ns: int) -> None:
        """Hand on those that are known by now; see BadEnds.hand_on."""
        self.table.bad_ends.hand_on(now_ns)
