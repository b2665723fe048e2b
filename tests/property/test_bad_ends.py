"""Every process that is counted with a wait status other than 0 is handed on, once, as it is counted."""

from collections import Counter

import pytest
from host import Mode
from hypothesis import given, settings
from property.test_histories import HISTORY, MEANWHILE
from replayed import MemoryTape, Replayed
from simulation import Step, World

from exporter.processes.bad_ends import MOST_OF_A_KIND, Failure
from exporter.tallies.labels import uid_label


def run(
    mode: Mode,
    history: list[Step],
    meanwhile: list[Step],
    *,
    fast: bool = True,
    tape: MemoryTape | None = None,
) -> tuple[World, list[Failure]]:
    failures: list[Failure] = []
    world = World(mode, meanwhile, tape=tape)
    world.pipeline.take_failures(failures.extend, at_once=True)
    world.table.has_fast_ways = fast
    for _ in world.run(history):
        pass
    world.finish()
    world.pipeline.hand_on_failures(world.now_ns)
    return world, failures


@pytest.mark.parametrize("mode", Mode, ids=lambda mode: mode.value)
@settings(max_examples=200)
@given(history=HISTORY, meanwhile=MEANWHILE)
def test_what_is_handed_on_is_what_is_counted(mode: Mode, history: list[Step], meanwhile: list[Step]) -> None:
    world, failures = run(mode, history, meanwhile)
    counted = Counter({labels: count for labels, count in world.exits.items() if labels[2]})
    handed_on = Counter((f.comm, uid_label(f.uid), f.status) for f in failures)
    # Of more in one batch only the newest are handed on.
    assert handed_on <= counted
    assert all(handed_on[labels] >= min(count, MOST_OF_A_KIND) for labels, count in counted.items())
    assert world.table.bad_ends.noted == counted.total()


@pytest.mark.parametrize("mode", Mode, ids=lambda mode: mode.value)
@settings(max_examples=200)
@given(history=HISTORY, meanwhile=MEANWHILE)
def test_the_fast_ways_of_the_loop_note_what_the_slow_ones_note(
    mode: Mode, history: list[Step], meanwhile: list[Step]
) -> None:
    _, fast = run(mode, history, meanwhile)
    _, slow = run(mode, history, meanwhile, fast=False)
    assert fast == slow


@pytest.mark.parametrize("mode", Mode, ids=lambda mode: mode.value)
@settings(max_examples=100)
@given(history=HISTORY, meanwhile=MEANWHILE)
def test_a_replay_hands_on_the_same_failures(mode: Mode, history: list[Step], meanwhile: list[Step]) -> None:
    tape = MemoryTape()
    world, failures = run(mode, history, meanwhile, tape=tape)
    again: list[Failure] = []
    replayed = Replayed(mode, tape.files[0], take=again.extend)
    replayed.pipeline.hand_on_failures(world.now_ns)
    assert again == failures
