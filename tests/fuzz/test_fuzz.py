"""A million generated and mutated datagrams through the whole pipeline: counted or malformed, nothing else.

FUZZ_DATAGRAMS says how many of each socket; `make fuzz` takes more, and lets atheris look for others.
"""

import os
from collections.abc import Callable
from dataclasses import asdict
from itertools import islice

import builders
import pytest
from fuzz import mutations
from host import Host, Mode

DATAGRAMS = int(os.environ.get("FUZZ_DATAGRAMS", "180000"))  # of each socket: in three modes more than a million
BATCH = 256


@pytest.mark.slow
@pytest.mark.parametrize("mode", Mode, ids=lambda mode: mode.value)
def test_a_million_damaged_datagrams_are_counted_or_malformed_and_leave_nothing_behind(mode: Mode) -> None:
    host = Host(mode)
    seen = 0
    host.pipeline._on_malformed = lambda *_: None  # noqa: SLF001 - the host would keep a million complaints
    events = mutations.stream(1, mutations.events, DATAGRAMS)
    records = mutations.stream(2, mutations.records, DATAGRAMS)
    acks = 0
    while batch := list(islice(events, BATCH)):
        seen += len(batch)
        acks += sum(len(data) == 76 and data[36:40] == bytes(4) for data in batch)
        host.pipeline.take_events(builders.batch(batch, stride=120))
        host.pipeline.take_records(builders.batch(islice(records, BATCH), builders.TASKSTATS_STRIDE))
        host.rest(chance_of_time(seen))
        host.pipeline.apply(host.now_ns)
    handled = sum(asdict(host.table.events).values()) + host.table.unknown_events
    malformed = host.pipeline.malformed["connector"]
    assert seen - acks <= handled + malformed <= seen
    assert seen // 4 < malformed < seen * 3 // 4
    assert sum(host.forks.values()) + host.table.pending()["fork"] == host.table.events.fork
    assert sum(host.execs.values()) + host.table.pending()["exec"] == host.table.events.exec
    # Any 32 bits can be a pid, but what is remembered of pids is bounded, and all of it goes.
    host.pipeline.lose_track()
    host.pipeline.forget_records(host.pipeline.waiting_records())
    host.pipeline.forget(host.pipeline.missing([]), 1 << 64)
    assert host.live == {}
    assert host.pending == {}


@pytest.mark.slow
@pytest.mark.parametrize("mode", Mode, ids=lambda mode: mode.value)
def test_damaged_rings_are_counted_or_malformed_and_leave_nothing_behind(mode: Mode) -> None:
    host = Host(mode, sideband=True)
    host.pipeline._on_malformed = lambda *_: None  # noqa: SLF001 - as above
    events = mutations.stream(3, mutations.events, DATAGRAMS // 2)
    records = mutations.stream(4, mutations.sideband, DATAGRAMS // 2)
    rings = 0
    while batch := list(islice(events, BATCH)):
        host.pipeline.take_events(builders.batch(batch, stride=120))
        # As long as damage does not end it, a ring goes on.
        while ring := b"".join(islice(records, 1 + rings % 40)):
            host.pipeline.take_sideband(ring)
            rings += 1
            if not rings % 16:
                break
        host.rest(chance_of_time(rings))
        host.pipeline.apply(host.now_ns)
    assert rings // 10 < host.pipeline.malformed["sideband"] < rings
    assert host.pipeline.lost["sideband"] > 0
    assert host.table.sideband.records > 0
    assert sum(host.forks.values()) + host.table.pending()["fork"] == host.table.events.fork
    assert sum(host.execs.values()) + host.table.pending()["exec"] == host.table.events.exec
    host.pipeline.lose_track()
    host.pipeline.forget(host.pipeline.missing([]), 1 << 64)
    assert host.live == {}
    assert not host.table.sideband.execs.later
    assert not host.table.sideband.forks.later


def chance_of_time(seen: int) -> float:
    return 120.0 if seen % 1024 == 0 else 1.0


@pytest.mark.parametrize(
    "sound", [mutations.events, mutations.records, mutations.sideband], ids=["events", "records", "sideband"]
)
def test_the_fuzzer_damages_some_and_leaves_some_alone(sound: Callable[..., bytes]) -> None:
    first, again = (list(mutations.stream(7, sound, 1000)) for _ in range(2))
    assert first == again
    assert len(set(first)) > 300
