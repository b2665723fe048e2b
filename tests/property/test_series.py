"""However many names there are: every event is counted once, and no family has more series than it may."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from host import Host, Mode
from hypothesis import given, settings
from hypothesis import strategies as st
from simulation import Step, World

from exporter.tallies import overflow
from exporter.tallies import tallies as tally
from exporter.tallies.expiry import Expiry
from exporter.tallies.labels import OTHER
from exporter.tallies.rules import Rule, Rules, Selection
from exporter.tallies.tallies import Tallies

LIMIT = 20
STEP = st.tuples(st.integers(0, len(World.STEPS) - 1), st.integers(0, 3), st.integers(0, 5))
RULES = [
    Rules(),
    Rules([Rule(re.compile(r"name-\d*([02468])"), ("even-", 1)), Rule(re.compile(r"same-1"), None)]),
    Rules(exclude=Selection(uids=(range(33, 34),))),
    Rules(include=Selection(comms=(re.compile(r"init|name-.*3|same-.*"),), uids=(range(1001),))),
]
RELOAD = st.integers(0, len(RULES) - 1)


@pytest.fixture(scope="module", autouse=True)
def _little_room() -> Iterator[None]:
    """A dozen names fill everything up."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overflow, "MOST_OTHER_UIDS", 2)
        patch.setattr(tally, "_RESERVED_CELLS", 5)
        # Those of the world.
        patch.setattr(tally, "_RESERVED_STATUSES", 2 * 7)
        patch.setattr(tally, "_SAMPLES", 4)
        yield


def counted(host: Host) -> dict[Any, int]:
    """Every series of the counters and the numbers of the histograms."""
    series: dict[Any, int] = {}
    for name in ("forks", "execs", "exits", "uid_changes"):
        series |= {(name, *key): value for key, value in getattr(host, name).items()}
    for program in host.tallies.snapshot_programs():
        for i, value in enumerate((*program.lifetime_ns, *program.cpu_ns, *program.max_rss_kib)):
            series[program.comm, i] = value
    return series


def check_sums(world: World) -> None:
    tallies, events, pending = world.tallies, world.table.events, world.table.pending()
    elsewhere = Counter(pending) + Counter(tallies.excluded()) + Counter(tallies.expired())
    assert sum(world.forks.values()) + elsewhere["fork"] == events.fork
    assert sum(world.execs.values()) + elsewhere["exec"] == events.exec
    assert sum(world.uid_changes.values()) + elsewhere["uid"] == events.uid


def check_room(world: World) -> None:
    counts = (world.forks, world.execs, world.exits, world.uid_changes, world.table.live())
    assert max(len(series) for series in counts) <= LIMIT
    assert len(world.lifetimes) <= LIMIT // 4


@pytest.mark.parametrize("mode", Mode, ids=lambda mode: mode.value)
@settings(max_examples=150)
@given(history=st.lists(STEP | RELOAD | st.none(), min_size=20, max_size=120))
def test_whatever_the_rules_and_however_many_the_names(mode: Mode, history: list[Step | int | None]) -> None:
    world = World(mode, tallies=Tallies(LIMIT))
    expiry = Expiry(world.tallies, world.table.cells_in_use, idle_seconds=2)
    now = 0
    before = counted(world)
    for step in [*history, None]:
        if isinstance(step, int):
            world.tallies.apply_rules(RULES[step])
        elif step is None:
            now += 1
            for _ in expiry.sweep(now):
                pass
            # What went had been as it was.
            after = counted(world)
            assert after.items() <= before.items()
            before = after
        else:
            for _ in world.run([step]):
                pass
        after = counted(world)
        assert before.keys() <= after.keys()
        assert all(value <= after[series] for series, value in before.items())
        before = after
        check_sums(world)
        check_room(world)
    world.finish()
    check_sums(world)
    check_room(world)
    ends = sum(world.exits.values()) + world.tallies.excluded()["exit"] + world.tallies.expired()["exit"]
    assert ends == world.truth.exits.total()
    described = sum(count for count, _ in world.lifetimes.values())
    hidden = world.tallies.excluded()["exit"] + world.tallies.expired()["exit"]
    assert ends - hidden <= described + world.table.unknown_lifetimes <= ends


@pytest.mark.parametrize("mode", Mode, ids=lambda mode: mode.value)
@settings(max_examples=60)
@given(history=st.lists(STEP, min_size=40, max_size=120))
def test_only_names_that_do_not_fit_are_counted_as_other(mode: Mode, history: list[Step]) -> None:
    """Beside a world with room for all."""
    crowded, roomy = World(mode, tallies=Tallies(LIMIT)), World(mode, tallies=Tallies(100 * LIMIT))
    for world in (crowded, roomy):
        for _ in world.run(history):
            pass
        world.finish()
    for name in ("forks", "execs", "exits"):
        less, more = Counter(getattr(crowded, name)), Counter(getattr(roomy, name))
        missing, folded = more - less, less - more
        assert missing.total() == folded.total()
        assert all(OTHER in key[:2] for key in folded)
