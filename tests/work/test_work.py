"""How much is done for an event of a storm: counted, not timed, so that a noisy machine says the same.

`storm.bin.gz` is what a real host delivered while 1,500 processes were spawned 64 at a time: see record_storm.py.
"""

import gc
import gzip
import struct
import sys
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from types import FrameType
from typing import NamedTuple

import builders
import pytest
from work.record_storm import ENTRY, STORM

from exporter.kernel.cn_proc import decode_proc_event
from exporter.kernel.netlink import Batch
from exporter.kernel.procfs import ProcessInfo
from exporter.kernel.taskstats import RecordDecoder
from exporter.processes.pipeline import Pipeline
from exporter.processes.table import ProcessTable
from exporter.tallies.tallies import Tallies

PROCESSES = 1500


class Drain(NamedTuple):
    """What one drain found."""

    events: list[Batch]
    records: list[Batch]
    began_ns: int


def batches(datagrams: list[bytes], stride: int, slots: int) -> list[Batch]:
    return [Batch.of(datagrams[i : i + slots], stride) for i in range(0, len(datagrams), slots)]


def recorded_drains() -> Iterator[Drain]:
    data = gzip.decompress(STORM.read_bytes())
    waiting: dict[str, list[bytes]] = {"C": [], "T": []}
    at = 0
    while at < len(data):
        kind, length = ENTRY.unpack_from(data, at)
        at += ENTRY.size
        body = data[at : at + length]
        at += length
        if chr(kind) == "D":
            events = batches(waiting["C"], builders.CONNECTOR_STRIDE, 256)
            yield Drain(events, batches(waiting["T"], builders.TASKSTATS_STRIDE, 64), *struct.unpack("<Q", body))
            waiting = {"C": [], "T": []}
        else:
            waiting[chr(kind)].append(body)


class Replay:
    """A pipeline that gets the storm."""

    def __init__(self) -> None:
        self.drains = list(recorded_drains())
        self.looks = 0
        self.now_ns = 0
        self.tallies = Tallies()
        self.table = ProcessTable(self.tallies, self._read_comm, lambda: self.now_ns, records_end_processes=True)
        family_id = struct.unpack_from("=H", self.drains[0].records[0].datagram(0), 4)[0]
        self.pipeline = Pipeline(self.table, RecordDecoder(family_id), self._complain)
        # The process that spawned the others is older than the recording.
        spawner = decode_proc_event(self.drains[0].events[0].datagram(0))[3]
        self.pipeline.adopt(spawner, ProcessInfo(b"spawner", 0, 0, zombie=False, threads=frozenset()), 1, 0)
        self.pipeline.apply(1)

    def _read_comm(self, tgid: int) -> bytes | None:
        self.looks += 1
        return None

    def _complain(self, socket: str, error: Exception) -> None:
        raise AssertionError(f"{socket}: {error}")

    def run(self) -> None:
        for drain in self.drains:
            self.now_ns = drain.began_ns
            for batch in drain.events:
                self.pipeline.take_events(batch)
            for batch in drain.records:
                self.pipeline.take_records(batch)
            self.pipeline.apply(drain.began_ns)

    @property
    def events(self) -> int:
        return sum(len(batch.lengths) for drain in self.drains for batch in drain.events)


@pytest.fixture
def replay() -> Replay:
    return Replay()


def test_the_recorded_storm_is_counted_to_the_last_process(replay: Replay) -> None:
    replay.run()
    cells = replay.tallies.snapshot_cells()
    of_storm = {comm: i for i, (comm, _) in enumerate(cells.keys)}["exq"]
    assert cells.counters["execs"][of_storm] == PROCESSES
    assert cells.exits[of_storm] == {0x300: PROCESSES}
    assert replay.events >= 3 * PROCESSES


def test_only_who_lives_on_after_a_drain_is_looked_up(replay: Replay) -> None:
    replay.run()
    # 64 at a time are alive between two drains, and whoever else ran on that host.
    assert replay.looks <= 100 * len(replay.drains)


def test_an_event_of_a_storm_costs_hardly_any_call(replay: Replay) -> None:
    calls: Counter[str] = Counter()

    def count(_: FrameType, event: str, __: object) -> None:
        calls[event] += 1

    sys.setprofile(count)
    try:
        replay.run()
    finally:
        sys.setprofile(None)
    # Functions of ours: per batch, and for the few processes that live on after a drain. Called for each event
    # they would be at least 1.
    assert calls["call"] < 0.15 * replay.events
    # Of the interpreter's own: dict.get and dict.pop, three bisect, list.append.
    assert calls["c_call"] < 4.5 * replay.events


def test_nothing_is_left_of_an_event_that_was_counted(replay: Replay) -> None:
    replay.run()
    drains, replay.drains = replay.drains, replay.drains * 5
    gc.collect()
    tracemalloc.start()
    try:
        replay.run()
        gc.collect()
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept / (5 * PROCESSES) < 20
    # One drain's records at a time: some hundred bytes for each process that ended in it.
    most = max(sum(len(batch.lengths) for batch in drain.records) for drain in drains)
    assert peak < most * 2500
