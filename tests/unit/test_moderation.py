"""exporter/moderation.py: time, load and fill are passed in."""

from itertools import pairwise

import pytest

from exporter.moderation import LONGEST_PAUSE_SECONDS, Moderation

MILLISECOND = 1_000_000
LARGE = 64 << 20


def busy(buffer_bytes: int = LARGE, cpus: int = 2) -> tuple[Moderation, float]:
    """A moderation that has been woken up every 0.1 ms until it asked for a pause, and that pause."""
    moderation = Moderation(buffer_bytes, cpus)
    for step in range(1000):
        if pause := moderation.pause(1, 0.0, step * MILLISECOND // 10):
            return moderation, pause
    raise AssertionError("never asked for a pause")


@pytest.mark.parametrize("events_per_wake_up", [0, 1, 1000])
def test_a_quiet_host_is_heard_at_once_for_ever(events_per_wake_up: int) -> None:
    moderation = Moderation(LARGE, 2)
    pauses = {moderation.pause(events_per_wake_up, 0.0, n * 10 * MILLISECOND) for n in range(10_000)}
    assert pauses == {0.0}


def test_a_burst_that_ends_soon_is_heard_at_once() -> None:
    moderation = Moderation(LARGE, 2)
    assert [moderation.pause(3, 0.0, n * 1000) for n in range(30)] == [0.0] * 30


def test_bursts_in_different_intervals_do_not_add_up() -> None:
    moderation = Moderation(LARGE, 2)
    times = [second * 1000 * MILLISECOND + n * 1000 for second in range(10) for n in range(30)]
    assert {moderation.pause(3, 0.0, now) for now in times} == {0.0}


def test_more_wake_ups_than_an_interval_has_to_spend_are_answered_by_the_longest_pause() -> None:
    moderation = Moderation(LARGE, 2)
    pauses = [moderation.pause(1, 0.0, n * MILLISECOND) for n in range(31)]
    assert pauses == [0.0] * 30 + [LONGEST_PAUSE_SECONDS]


@pytest.mark.parametrize("fill", [0.0, 0.2])
def test_a_host_that_stays_busy_is_drained_by_timer_for_as_long_as_it_does(fill: float) -> None:
    moderation, pause = busy()
    assert {moderation.pause(20, fill, n * 100 * MILLISECOND) for n in range(1, 100)} == {pause}


@pytest.mark.parametrize("fill", [0.0, 0.9])
def test_a_drain_that_finds_little_ends_the_pauses_and_gives_a_full_budget(fill: float) -> None:
    moderation, _ = busy()
    assert moderation.pause(19, fill, 50 * MILLISECOND) == 0.0
    pauses = [moderation.pause(1, fill, 51 * MILLISECOND) for _ in range(31)]
    assert pauses[:30] == [0.0] * 30
    assert pauses[30] > 0


def test_a_filling_buffer_halves_the_pause_down_to_a_millisecond() -> None:
    moderation, pause = busy()
    pauses = [pause, *(moderation.pause(1000, 0.26, 0) for _ in range(10))]
    assert all(later == max(0.001, earlier / 2) for earlier, later in pairwise(pauses))
    assert pauses[-1] == 0.001


def test_an_emptier_buffer_lets_the_pause_grow_again_up_to_the_longest() -> None:
    moderation, longest = busy()
    for _ in range(10):
        moderation.pause(1000, 0.5, 0)
    assert [moderation.pause(1000, 0.09, 0) for _ in range(8)] == pytest.approx(
        [0.002, 0.004, 0.008, 0.016, 0.032, 0.064, longest, longest]
    )


def test_between_filling_and_empty_the_pause_stays() -> None:
    moderation, _ = busy()
    halved = moderation.pause(1000, 0.3, 0)
    assert {moderation.pause(1000, fill, 0) for fill in (0.25, 0.2, 0.1)} == {halved}


@pytest.mark.parametrize("cpus", [1, 2, 64])
@pytest.mark.parametrize("buffer_bytes", [212_992, 1 << 20, 8 << 20, LARGE])
def test_no_pause_is_longer_than_the_buffer_takes_to_fill(buffer_bytes: int, cpus: int) -> None:
    # 25,000 events of 832 bytes a second are the most that a CPU was seen to make; a millisecond is the shortest.
    moderation, pause = busy(buffer_bytes, cpus)
    seconds_to_fill = buffer_bytes / (25_000 * 832 * cpus)
    bound = max(0.001, min(LONGEST_PAUSE_SECONDS, seconds_to_fill / 2))
    assert pause == pytest.approx(bound)
    assert max(moderation.pause(1000, 0.0, 0) for _ in range(20)) == pause
