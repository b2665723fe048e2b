"""Whatever processes do, and however it is cut into drains: counted once, and under no name but the true one."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from host import Host, Mode
from hypothesis import given, settings
from hypothesis import strategies as st
from simulation import Step, World

from exporter.tallies.labels import UNKNOWN


def steps_of(kinds: int, *, sizes: tuple[int, int]) -> st.SearchStrategy[list[Step]]:
    least, most = sizes
    step = st.tuples(st.integers(0, kinds - 1), st.integers(0, 3), st.integers(0, 5))
    return st.lists(step, min_size=least, max_size=most)


# Short histories meet little: they are long by default, and hypothesis shortens them when one fails.
HISTORY = steps_of(len(World.STEPS), sizes=(0, 20)) | steps_of(len(World.STEPS), sizes=(40, 90))
MEANWHILE = steps_of(len(World.KERNEL_STEPS), sizes=(0, 20))


def text(truth: Mapping[Any, int]) -> Counter[tuple[str, ...]]:
    """What the model knows in bytes and numbers, as it is counted."""
    return Counter({(key[0].decode(), str(key[1]), *key[2:]): count for key, count in truth.items()})


def without_comm(counts: Mapping[Any, int]) -> Counter[tuple[str, ...]]:
    sums: Counter[tuple[str, ...]] = Counter()
    for key, count in counts.items():
        sums[key[1:]] += count
    return sums


def never_wrong(
    counted: Mapping[Any, int], truth: Mapping[Any, int], others: Mapping[Any, int] | None = None
) -> None:
    """Every count is under its true name, one of the others, or under none; none is missing."""
    expected = text(truth)
    assert without_comm(counted) == without_comm(expected)
    expected += text(others or {})
    wrong = {
        key: (count, expected[key])
        for key, count in counted.items()
        if key[0] != UNKNOWN and count > expected[key]
    }
    assert not wrong


def balanced(host: Host) -> None:
    """What was counted and what waits for a name are all the events that came."""
    pending = host.table.pending()
    events = host.table.events
    assert sum(host.forks.values()) + pending["fork"] == events.fork
    assert sum(host.execs.values()) + pending["exec"] == events.exec
    assert min(host.live.values(), default=0) >= 0


def check_known(world: World) -> None:
    """A name is known if the process that exec'd it has ended under it."""
    ended = Counter(name.comm.decode() for name in world.truth.names if name.ended_under)
    known = Counter[str]()
    for (comm, _), count in world.execs.items():
        known[comm] += count
    assert ended <= known


def check_live(world: World) -> None:
    """The table holds the processes that live, and none has a wrong name."""
    live = Counter(p.leader.comm.decode() for p in world.processes.values() if not p.ended)
    assert sum(world.live.values()) == live.total()
    if not world.sideband and any(p.cloned for p in world.processes.values()):
        # Their parent's name is shown until they end.
        return
    assert {comm for comm in world.live if comm != UNKNOWN and world.live[comm] > live[comm]} == set()


@pytest.mark.parametrize("mode", Mode, ids=lambda mode: mode.value)
@settings(max_examples=400)
@given(history=HISTORY, meanwhile=MEANWHILE)
def test_everything_is_counted_once_and_under_no_name_but_the_true_one(
    mode: Mode, history: list[Step], meanwhile: list[Step]
) -> None:
    world = World(mode, meanwhile)
    for _ in world.run(history):
        balanced(world)
    world.finish()
    balanced(world)
    assert world.pending == {}
    never_wrong(world.forks, world.truth.forks)
    never_wrong(world.execs, world.truth.execs)
    if mode.has_records:
        assert world.exits == text(world.truth.exits)
        check_known(world)
    else:
        never_wrong(world.exits, world.truth.exits, world.truth.other_exits)
    check_live(world)
    assert world.table.unknown_lifetimes == 0


@pytest.mark.parametrize("mode", Mode, ids=lambda mode: mode.value)
@settings(max_examples=400)
@given(history=HISTORY, meanwhile=MEANWHILE)
def test_with_side_band_records_every_exec_has_its_name(
    mode: Mode, history: list[Step], meanwhile: list[Step]
) -> None:
    world = World(mode, meanwhile, sideband=True)
    for _ in world.run(history):
        balanced(world)
    world.finish()
    balanced(world)
    assert world.execs == text(world.truth.execs)
    never_wrong(world.forks, world.truth.forks)
    never_wrong(world.exits, world.truth.exits, world.truth.other_exits)
    if mode.has_records and not world.truth.other_exits:
        assert world.exits == text(world.truth.exits)
    check_live(world)
    assert world.table.missed_forks == 0
