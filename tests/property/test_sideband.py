"""Side-band records of any bytes, in any order, with any of them lost: no wrong name, no crash, nothing kept."""

import struct
from dataclasses import asdict
from typing import Any

import builders
import pytest
from host import Host, Mode
from hypothesis import given, settings
from hypothesis import strategies as st
from property.test_any_input import _EVENT, damaged
from property.test_histories import HISTORY, MEANWHILE, balanced, never_wrong
from replayed import MemoryTape, Replayed, exposition, status
from simulation import Step, World

from exporter.processes.observer import News

_FORK = 7
_PID = st.integers(2, 8)
# Around the times at which a host's first events happen.
_TIME_NS = st.integers(-50, 50).map(lambda ms: 1_000_000_000_000 + ms * 1_000_000) | st.integers(0, (1 << 64) - 1)
_RECORD = st.one_of(
    st.builds(
        lambda t, p, c: builders.perf_comm(time_ns=t, tgid=p, comm=b"c%d" % c), _TIME_NS, _PID, st.integers(0, 3)
    ),
    st.builds(
        lambda t, p, f, i: builders.perf_fork(time_ns=t, tgid=p, forker_tgid=f, forker_pid=i),
        _TIME_NS,
        _PID,
        _PID,
        _PID,
    ),
    st.builds(lambda t, p: builders.perf_exit(time_ns=t, tgid=p), _TIME_NS, _PID),
    st.builds(lambda n: builders.perf_lost(lost=n), st.integers(0, (1 << 64) - 1)),
    st.builds(builders.perf_record, st.integers(0, 30), st.binary(max_size=60)),
)
_SOUND = b"".join(
    [
        builders.perf_comm(time_ns=1_000_000_000_001, tgid=4, comm=b"make"),
        builders.perf_fork(time_ns=1_000_000_000_002, tgid=5, forker_tgid=4),
        builders.perf_comm(time_ns=1_000_000_000_003, tgid=5, comm=b"a longer comm"),
    ]
)
_RING = st.binary(max_size=200) | damaged(_SOUND) | st.lists(_RECORD, max_size=6).map(b"".join)


@pytest.mark.parametrize("mode", Mode, ids=lambda mode: mode.value)
@settings(max_examples=200)
@given(steps=st.lists(_EVENT | _RING | st.booleans(), max_size=40))
def test_any_bytes_of_rings_amid_any_events_are_counted_or_malformed(mode: Mode, steps: list[Any]) -> None:
    host = Host(mode, sideband=True)
    rings = 0
    for step in [*steps, True]:
        if isinstance(step, bytes):
            host.pipeline.take_sideband(step)
            rings += 1
        elif isinstance(step, bool):
            host.drain(complete=step)
        else:
            host.event(step[0], **step[1])
    pending, events = host.table.pending(), host.table.events
    assert sum(host.forks.values()) + pending["fork"] == events.fork
    assert sum(host.execs.values()) + pending["exec"] == events.exec
    assert sum(host.exits.values()) + pending["exit"] <= events.exit + events.thread_exit
    assert host.pipeline.malformed["sideband"] == len(host.complaints) <= rings
    assert min(host.live.values(), default=1) > 0
    assert sum(asdict(events).values()) == sum(type(step) is tuple for step in steps)
    host.pipeline.lose_track()
    sideband = host.table.sideband
    assert not sideband.execs.first
    assert not sideband.execs.later
    assert not sideband.forks.first
    assert not sideband.forks.later


class LossyWorld(World):
    """A world whose rings are too small: some records are not written.

    Of forks it is those of some pids. A record that is there could be taken for one that is not, of the same pid
    in the same second, and here pids are used again within microseconds.
    """

    def __init__(self, mode: Mode, meanwhile: list[Step], *, losses: list[bool]) -> None:
        self._losses = losses
        self._written = 0
        super().__init__(mode, meanwhile, sideband=True)

    def _is_lost(self, number: int) -> bool:
        return bool(self._losses) and self._losses[number % len(self._losses)]

    def is_recorded(self, child: int) -> bool:
        # Without its record a sibling is counted for the parent that it got.
        return not self._is_lost(child)

    def ring(self, record: bytes, *, cpu: int = 0) -> None:
        kind, _, _, tgid = struct.unpack_from("=IHHI", record)
        self._written += 1
        number = tgid if kind == _FORK else self._written
        if self._is_lost(number):
            return
        super().ring(record, cpu=cpu)


@pytest.mark.parametrize("mode", Mode, ids=lambda mode: mode.value)
@settings(max_examples=200)
@given(history=HISTORY, meanwhile=MEANWHILE, losses=st.lists(st.booleans(), max_size=7))
def test_lost_records_make_names_unknown_and_never_wrong(
    mode: Mode, history: list[Step], meanwhile: list[Step], losses: list[bool]
) -> None:
    world = LossyWorld(mode, meanwhile, losses=losses)
    for _ in world.run(history):
        balanced(world)
    world.finish()
    balanced(world)
    never_wrong(world.forks, world.truth.forks)
    never_wrong(world.execs, world.truth.execs)
    never_wrong(world.exits, world.truth.exits, world.truth.other_exits)
    assert world.table.missed_forks == 0


@pytest.mark.parametrize("mode", Mode, ids=lambda mode: mode.value)
@settings(max_examples=150)
@given(history=HISTORY, meanwhile=MEANWHILE, losses=st.lists(st.booleans(), max_size=3))
def test_the_fast_ways_of_the_loop_count_what_the_slow_ones_count(
    mode: Mode, history: list[Step], meanwhile: list[Step], losses: list[bool]
) -> None:
    """And an observer gets the same from both."""
    worlds = [LossyWorld(mode, meanwhile, losses=losses) for _ in range(4)]
    fast, slow, fast_observed, slow_observed = worlds
    slow.table.has_fast_ways = slow_observed.table.has_fast_ways = False
    news: list[list[News]] = [[], []]
    for world, its_news in zip((fast_observed, slow_observed), news, strict=True):
        world.pipeline.observe(its_news.extend)
    for world in worlds:
        for _ in world.run(history):
            pass
        world.finish()
    for world in (slow, fast_observed, slow_observed):
        assert sorted(exposition(world.tallies, world.table).splitlines()) == sorted(
            exposition(fast.tallies, fast.table).splitlines()
        )
        assert status(world.tallies, world.pipeline) == status(fast.tallies, fast.pipeline)
    assert news[0] == news[1]


@pytest.mark.parametrize("mode", Mode, ids=lambda mode: mode.value)
@settings(max_examples=100)
@given(history=HISTORY, meanwhile=MEANWHILE)
def test_any_history_counts_and_records_the_same_when_it_is_replayed(
    mode: Mode, history: list[Step], meanwhile: list[Step]
) -> None:
    tape, again = MemoryTape(), MemoryTape()
    world = World(mode, meanwhile, tape=tape, sideband=True)
    for _ in world.run(history):
        pass
    world.drain()
    replayed = Replayed(mode, tape.files[0], again, sideband=True)
    assert [frame.entries for frame in again.files[0]] == [frame.entries for frame in tape.files[0]]
    assert exposition(replayed.tallies, replayed.table) == exposition(world.tallies, world.table)
    assert status(replayed.tallies, replayed.pipeline) == status(world.tallies, world.pipeline)
