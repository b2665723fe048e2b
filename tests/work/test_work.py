"""How much is done for an event of a storm: counted, not timed, so that a noisy machine says the same.

`storm.capture` is what a real host delivered while 1,500 processes were spawned 64 at a time: see record_storm.py.
"""

import gc
import struct
import sys
import tracemalloc
from collections import Counter
from types import FrameType
from typing import Any

import builders
import pytest
from work.record_storm import STORM

from exporter.capture.file import open_capture
from exporter.capture.format import iter_entries, iter_frames
from exporter.capture.kinds import KINDS
from exporter.groups.cgroup_path import Placement
from exporter.kernel.cn_proc import PROC_EVENT_EXIT
from exporter.kernel.netlink import Batch
from exporter.kernel.taskstats import RecordDecoder
from exporter.processes.grouping import Found
from exporter.processes.observer import Happening, News
from exporter.processes.pipeline import Pipeline
from exporter.processes.places import Places
from exporter.processes.table import ProcessTable
from exporter.tallies.labels import group_label_names
from exporter.tallies.tallies import Tallies

PROCESSES = 1500
CONTAINER = Placement("", 64 * "c", "", "")
Calls = list[tuple[str, tuple[Any, ...]]]
"""(method of Pipeline, arguments)"""


class Replay:
    """A pipeline that gets the storm.

    The capture is decoded before, so that only what the pipeline does is counted. It has no answers of /proc: a
    process that is looked up is gone.

    Args:
        group_by: What groups are made of. All is in one container then.

    Attributes:
        drains: The calls of each drain.
    """

    def __init__(self, group_by: frozenset[str] = frozenset()) -> None:
        kinds = {kind.letter: kind for kind in KINDS}
        with open_capture(STORM) as (header, file):
            self.drains: list[Calls] = [
                [
                    (kinds[letter].name, args)
                    for letter, body in iter_entries(frame.entries)
                    for args in kinds[letter].decode(body)
                ]
                for frame in iter_frames(file.read)
            ]
        self.looks = 0
        self.tallies = Tallies(group_labels=group_label_names(group_by))
        places = Places(self.tallies, group_by, names_pods=False) if group_by else None
        table = ProcessTable(self.tallies, self._read_comm, lambda: 0, records_end_processes=True, places=places)
        self.pipeline = Pipeline(table, RecordDecoder(header.family_id), self._complain)
        # The process that spawned the others is older than the recording.
        self._play(self.drains.pop(0))
        if group_by:
            for tgid in [known.tgid for known in self.pipeline.known()]:
                self.pipeline.place(0, tgid, Found(CONTAINER, 0, 0))
            self.pipeline.apply(1)

    def _read_comm(self, tgid: int) -> bytes | None:
        self.looks += 1
        return None

    def _complain(self, socket: str, error: Exception) -> None:
        raise AssertionError(f"{socket}: {error}")

    def _play(self, calls: Calls) -> None:
        for method, args in calls:
            getattr(self.pipeline, method)(*args)
        if self.tallies.groups.names:
            for number, tgid, *_ in self.pipeline.group_questions():
                self.pipeline.place(number, tgid, Found(None, 0, 0))

    def run(self) -> None:
        for calls in self.drains:
            self._play(calls)

    def count(self, method: str) -> list[int]:
        """Count the datagrams that each drain passes to a method."""
        return [sum(len(args[0].lengths) for name, args in calls if name == method) for calls in self.drains]

    def end_well(self) -> None:
        """Make all processes of the storm exit with 0, in the datagrams."""
        for calls in self.drains:
            for at, (method, args) in enumerate(calls):
                if method == "take_events":
                    calls[at] = method, (_ending_well(args[0]),)
                elif method == "take_records":
                    calls[at] = method, (_recorded_well(args[0]),)

    @property
    def events(self) -> int:
        return sum(self.count("take_events"))


def _ending_well(batch: Batch) -> Batch:
    data = bytearray(batch.data)
    for at in range(0, len(batch.lengths) * batch.stride, batch.stride):
        (what,) = struct.unpack_from("=I", data, at + 36)
        if what == PROC_EVENT_EXIT:
            # The exit code, behind CPU, timestamp, pid and tgid.
            struct.pack_into("=I", data, at + 60, 0)
    return batch._replace(data=memoryview(data))


def _recorded_well(batch: Batch) -> Batch:
    # struct taskstats begins with its version and ac_exitcode.
    failed, well = (struct.pack("=HxxI", 16, status) for status in (0x300, 0))
    return batch._replace(data=memoryview(bytes(batch.data).replace(failed, well)))


def count_calls(replay: Replay) -> Counter[str]:
    """Replay the storm; return how many functions of ours ("call") and of the interpreter ("c_call") it called."""
    calls: Counter[str] = Counter()

    def count(_: FrameType, event: str, __: object) -> None:
        calls[event] += 1

    sys.setprofile(count)
    try:
        replay.run()
    finally:
        sys.setprofile(None)
    return calls


@pytest.fixture
def replay() -> Replay:
    return Replay()


def test_in_a_container_a_process_costs_the_note_of_its_exec_and_a_look_whether_it_lives() -> None:
    off, on = Replay(), Replay(frozenset({"pod", "unit"}))
    calls_off, calls_on = count_calls(off), count_calls(on)
    cells = on.tallies.snapshot_cells()
    ended = {
        group[2]: sum(exits.values())
        for (comm, _), group, exits in zip(cells.keys, cells.groups, cells.exits, strict=True)
        if comm == "exq"
    }
    assert ended == {12 * "c": PROCESSES}
    # Some for each drain, and for each process that lives on after one.
    spare = 30 * len(on.drains) + 100 * len(on.drains)
    assert calls_on["call"] < calls_off["call"] + spare
    assert calls_on["c_call"] < calls_off["c_call"] + 2 * PROCESSES + spare


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
    calls = count_calls(replay)
    # Functions of ours: per batch, and for the few processes that live on after a drain. Called for each event
    # they would be at least 1.
    assert calls["call"] < 0.15 * replay.events
    # Of the interpreter's own: dict.get and dict.pop, three bisect, list.append.
    assert calls["c_call"] < 4.5 * replay.events


def test_a_failure_costs_one_call_more_and_one_look_for_its_parent(replay: Replay) -> None:
    """The storm's processes all exit with 3."""
    without = count_calls(replay)
    replay = Replay()
    replay.pipeline.take_failures(lambda failures: None)
    with_failures = count_calls(replay)
    assert with_failures["call"] - without["call"] < 1.1 * PROCESSES
    assert with_failures["c_call"] - without["c_call"] < 2.2 * PROCESSES


def test_a_process_that_ends_well_costs_nothing_for_failures(replay: Replay) -> None:
    replay.end_well()
    without = count_calls(replay)
    replay = Replay()
    replay.end_well()
    replay.pipeline.take_failures(lambda failures: None)
    more = count_calls(replay) - without
    assert {0: PROCESSES} in replay.tallies.snapshot_cells().exits
    # A few for each batch, none for each process.
    assert more["call"] + more["c_call"] < PROCESSES / 20


def test_an_event_that_a_client_observes_goes_the_fast_ways(replay: Replay) -> None:
    """What it costs more is an object for the observer; the slow ways would be 24 calls of ours for each event."""
    seen: list[News] = []
    replay.pipeline.observe(seen.extend)
    calls = count_calls(replay)
    assert sum(isinstance(news, Happening) and news.comm == "exq" for news in seen) >= 2 * PROCESSES
    assert calls["call"] < 9 * replay.events
    assert calls["c_call"] < 8 * replay.events


def test_a_drain_that_finds_nothing_costs_few_calls(replay: Replay) -> None:
    """On a quiet host it is most of what is done."""
    replay.run()
    replay.drains = [[("apply", (1 << 62,))]]
    replay.run()
    replay.drains = [[("apply", (1 << 63,))]] * 100
    calls = count_calls(replay)
    assert calls["call"] < 100 * 22
    assert calls["c_call"] < 100 * 12


def test_a_thread_that_ends_costs_one_look_for_its_process(replay: Replay) -> None:
    """Its exit record stays in the kernel."""
    replay.run()
    batches, of_each = 10, 256
    ends = [builders.exit_(timestamp_ns=n, tgid=400, pid=401 + n) for n in range(of_each)]
    found = []
    for events in ([], ends):
        replay.drains = [[*[("take_events", (builders.batch(events),))] * batches, ("apply", (1,))]]
        found.append(count_calls(replay))
    more = found[1] - found[0]
    threads = replay.pipeline.table.events.thread_exit
    assert threads >= batches * of_each
    assert more["call"] < threads / 20
    assert more["c_call"] < 1.2 * threads


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
    replay.drains = drains
    most = max(replay.count("take_records"))
    assert peak < most * 2500
