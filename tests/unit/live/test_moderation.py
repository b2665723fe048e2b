"""exporter/live/moderation.py: time, load and fill are passed in."""

import itertools
from itertools import pairwise

import pytest

from exporter.live.moderation import (
    ALL_IS_SENT,
    LONGEST_PAUSE_SECONDS,
    PAUSE_SECONDS,
    SOME_IS_READ,
    EventsPerDrain,
    Moderation,
    events_per_drain,
)

MILLISECOND = 1_000_000
LARGE = (64 << 20) // 960


def busy(
    buffer_bytes: int = LARGE, cpus: int = 2, events: EventsPerDrain = SOME_IS_READ
) -> tuple[Moderation, float]:
    """A moderation that has been woken up every 0.1 ms until it asked for a pause, and that pause."""
    moderation = Moderation(buffer_bytes, cpus, events)
    for step in range(1000):
        if pause := moderation.pause(1, 0.0, step * MILLISECOND // 10):
            return moderation, pause
    raise AssertionError("never asked for a pause")


@pytest.mark.parametrize("events_per_wake_up", [0, 1, 1000])
def test_a_quiet_host_is_heard_at_once_for_ever(events_per_wake_up: int) -> None:
    moderation = Moderation(LARGE, 2, SOME_IS_READ)
    pauses = {moderation.pause(events_per_wake_up, 0.0, n * 250 * MILLISECOND) for n in range(10_000)}
    assert pauses == {0.0}


def test_a_burst_that_ends_soon_is_heard_at_once() -> None:
    moderation = Moderation(LARGE, 2, SOME_IS_READ)
    assert [moderation.pause(3, 0.0, n * 1000) for n in range(30)] == [0.0] * 30


def test_a_rest_fills_the_budget_again() -> None:
    moderation = Moderation(LARGE, 2, SOME_IS_READ)
    times = [rest * 10_000 * MILLISECOND + n * 1000 for rest in range(10) for n in range(30)]
    assert {moderation.pause(3, 0.0, now) for now in times} == {0.0}


def test_a_long_rest_fills_it_no_further() -> None:
    moderation = Moderation(LARGE, 2, SOME_IS_READ)
    moderation.pause(1, 0.0, 0)
    pauses = [moderation.pause(1, 0.0, 10**18 + n) for n in range(31)]
    assert pauses == [0.0] * 30 + [PAUSE_SECONDS]


def test_a_steady_trickle_is_drained_by_timer_in_the_end() -> None:
    moderation = Moderation(LARGE, 2, SOME_IS_READ)
    at_once = sum(moderation.pause(1, 0.0, n * 100 * MILLISECOND) == 0.0 for n in range(100))
    assert at_once < 60


@pytest.mark.parametrize("events", [201, 2000, 2001, 100_000])
@pytest.mark.parametrize("fill", [0.0, 0.2])
def test_a_host_that_stays_busy_is_drained_by_timer_for_as_long_as_it_does(events: int, fill: float) -> None:
    moderation, _ = busy()
    assert {moderation.pause(events, fill, n * 100 * MILLISECOND) for n in range(1, 100)} == {PAUSE_SECONDS}


def test_the_fewer_events_a_pause_finds_the_longer_is_the_next() -> None:
    moderation, _ = busy()
    assert [moderation.pause(20, 0.0, 0) for _ in range(4)] == pytest.approx([0.2, 0.4, 0.5, 0.5])
    assert moderation.pause(1000, 0.0, 0) == LONGEST_PAUSE_SECONDS
    assert moderation.pause(2001, 0.0, 0) == PAUSE_SECONDS


def test_where_all_is_sent_a_drain_is_to_find_more() -> None:
    moderation, _ = busy(events=ALL_IS_SENT)
    assert [moderation.pause(1999, 0.0, 0) for _ in range(4)] == pytest.approx([0.2, 0.4, 0.5, 0.5])
    assert moderation.pause(4000, 0.0, 0) == LONGEST_PAUSE_SECONDS
    assert moderation.pause(4001, 0.0, 0) == PAUSE_SECONDS
    assert {moderation.pause(2000, 0.0, 0) for _ in range(4)} == {PAUSE_SECONDS}


@pytest.mark.parametrize(
    ("has_rings", "has_records", "oom_by_number"), list(itertools.product([False, True], repeat=3))
)
def test_a_drain_is_to_find_more_only_where_nothing_depends_on_when_it_is(
    has_rings: bool, has_records: bool, oom_by_number: bool
) -> None:
    events = events_per_drain(has_rings=has_rings, has_records=has_records, oom_by_number=oom_by_number)
    assert (events == ALL_IS_SENT) == ((has_rings, has_records, oom_by_number) == (1, 1, 0))
    assert events in {ALL_IS_SENT, SOME_IS_READ}


MINUTE = 60_000 * MILLISECOND


def test_for_an_hour_after_the_group_of_a_process_was_missed_a_drain_is_to_find_few() -> None:
    moderation, _ = busy(events=ALL_IS_SENT)
    moderation.look_at_missed(0, 0)
    assert [moderation.pause(1999, 0.0, 0) for _ in range(3)] == pytest.approx([0.2, 0.4, 0.5])
    moderation.look_at_missed(1, MINUTE)
    assert {moderation.pause(1999, 0.0, MINUTE) for _ in range(3)} == {PAUSE_SECONDS}
    moderation.look_at_missed(2, 59 * MINUTE)
    ends_ns = 119 * MINUTE
    for now_ns, longest in (
        (61 * MINUTE, PAUSE_SECONDS),
        (ends_ns, PAUSE_SECONDS),
        (ends_ns + 1, LONGEST_PAUSE_SECONDS),
    ):
        moderation.look_at_missed(2, now_ns)
        assert max(moderation.pause(1999, 0.0, now_ns) for _ in range(3)) == longest, now_ns


def test_a_missed_group_makes_no_pause_longer() -> None:
    moderation, _ = busy(events=ALL_IS_SENT)
    moderation.pause(1999, 0.9, 0)
    moderation.look_at_missed(1, 0)
    assert moderation.pause(1999, 0.2, 0) == PAUSE_SECONDS / 2


def test_a_buffer_that_could_fill_bounds_that_too() -> None:
    moderation, _ = busy(8738, 2, ALL_IS_SENT)
    assert max(moderation.pause(1999, 0.0, 0) for _ in range(9)) == pytest.approx(8738 / 100_000)
    assert moderation.pause(1999, 0.26, 0) < 8738 / 100_000


@pytest.mark.parametrize("fill", [0.0, 0.9])
def test_a_pause_that_finds_nothing_is_the_last(fill: float) -> None:
    moderation, _ = busy()
    assert moderation.pause(0, fill, 0) == 0.0


def test_a_filling_buffer_halves_the_pause_down_to_a_millisecond() -> None:
    moderation, pause = busy()
    pauses = [pause, *(moderation.pause(1000, 0.26, 0) for _ in range(10))]
    assert all(later == max(0.001, earlier / 2) for earlier, later in pairwise(pauses))
    assert pauses[-1] == 0.001


def test_an_emptier_buffer_lets_the_pause_grow_again() -> None:
    moderation, pause = busy()
    for _ in range(10):
        moderation.pause(1000, 0.5, 0)
    assert [moderation.pause(1000, 0.09, 0) for _ in range(8)] == pytest.approx(
        [0.002, 0.004, 0.008, 0.016, 0.032, 0.064, pause, pause]
    )


def test_between_filling_and_empty_the_pause_stays() -> None:
    moderation, _ = busy()
    halved = moderation.pause(1000, 0.3, 0)
    assert {moderation.pause(1000, fill, 0) for fill in (0.25, 0.2, 0.1)} == {halved}


@pytest.mark.parametrize("cpus", [1, 2, 64])
@pytest.mark.parametrize("buffer_events", [221, 1092, 8738, LARGE])
def test_no_pause_is_longer_than_the_buffer_takes_to_fill(buffer_events: int, cpus: int) -> None:
    # 25,000 events a second are the most that a CPU was seen to make; a millisecond is the shortest.
    moderation, pause = busy(buffer_events, cpus)
    seconds_to_fill = buffer_events / (25_000 * cpus)
    bound = max(0.001, seconds_to_fill / 2)
    assert pause == pytest.approx(min(PAUSE_SECONDS, bound))
    longest = max(moderation.pause(20, 0.0, 0) for _ in range(20))
    assert longest == pytest.approx(min(LONGEST_PAUSE_SECONDS, bound))
