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
    """And an observer gets the same from both."""
    worlds = [World(mode, meanwhile) for _ in range(4)]
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
