"""Whatever happens is observed as it is counted: each thing once, under the name that it counts under."""

from collections import Counter

import pytest
from host import Mode
from hypothesis import given, settings
from property.test_histories import HISTORY, MEANWHILE
from replayed import exposition, status
from simulation import Step, World

from exporter.processes.observer import Happening, News
from exporter.tallies.labels import UNKNOWN


def labels(happening: Happening) -> tuple[str, str]:
    comm, uid = happening.comm, happening.uid
    return UNKNOWN if comm is None else comm, UNKNOWN if uid is None else str(uid)


@pytest.mark.parametrize("mode", Mode, ids=lambda mode: mode.value)
@settings(max_examples=200)
@given(history=HISTORY, meanwhile=MEANWHILE)
def test_what_is_observed_is_what_is_counted(mode: Mode, history: list[Step], meanwhile: list[Step]) -> None:
    told: list[News] = []
    world = World(mode, meanwhile)
    world.pipeline.observe(told.extend)
    for _ in world.run(history):
        pass
    world.finish()
    happenings = [news for news in told if isinstance(news, Happening)]
    assert len(happenings) == len(told)
    for event, counts in (("fork", world.forks), ("exec", world.execs), ("uid", world.uid_changes)):
        assert Counter(labels(h) for h in happenings if h.event == event) == counts, event
    exits = [h for h in happenings if h.event == "exit"]
    assert Counter((*labels(h), h.status) for h in exits) == world.exits
    lifetimes = [h.lifetime_ns for h in exits if h.lifetime_ns is not None]
    assert sum(lifetimes) == sum(total for _, total in world.lifetimes.values())
    assert {h.event for h in happenings} <= {
        "fork", "exec", "exit", "uid", "comm", "thread_fork", "thread_exit", "coredump"
    }  # fmt: skip


@pytest.mark.parametrize("mode", Mode, ids=lambda mode: mode.value)
@settings(max_examples=200)
@given(history=HISTORY, meanwhile=MEANWHILE)
def test_the_fast_ways_of_the_loop_count_what_the_slow_ones_count(
    mode: Mode, history: list[Step], meanwhile: list[Step]
) -> None:
    """While a client observes, no event takes a fast way (ProcessTable.apply)."""
    worlds = [World(mode, meanwhile) for _ in range(2)]
    worlds[1].pipeline.observe(lambda news: None)
    for world in worlds:
        for _ in world.run(history):
            pass
        world.finish()
    fast, slow = worlds
    assert sorted(exposition(slow.tallies, slow.table).splitlines()) == sorted(
        exposition(fast.tallies, fast.table).splitlines()
    )
    assert status(slow.tallies, slow.pipeline) == status(fast.tallies, fast.pipeline)
