"""CLOCK_MONOTONIC as the time of day."""

import time

import pytest

from exporter.stream.wall_clock import WallClock

SECOND_NS = 1_000_000_000
CLOCK = WallClock(1_700_000_000_123_456_789, 1_000)


@pytest.mark.parametrize(
    ("time_ns", "utc"),
    [
        (1_000, "2023-11-14T22:13:20.123456Z"),
        (0, "2023-11-14T22:13:20.123455Z"),
        (1_000 + SECOND_NS, "2023-11-14T22:13:21.123456Z"),
        (-SECOND_NS, "2023-11-14T22:13:19.123455Z"),
    ],
)
def test_utc_is_rfc_3339_to_the_microsecond(time_ns: int, utc: str) -> None:
    assert CLOCK.utc(time_ns) == utc


def test_a_time_of_an_earlier_second_is_not_given_the_second_before_it() -> None:
    clock = WallClock(0, 0)
    assert [clock.utc(second * SECOND_NS)[11:19] for second in (5, 4, 5)] == ["00:00:05", "00:00:04", "00:00:05"]


def test_a_time_of_day_has_its_moment() -> None:
    assert CLOCK.monotonic_ns(1_700_000_000_123_456_789 + SECOND_NS) == 1_000 + SECOND_NS
    assert CLOCK.seconds(1_000 + SECOND_NS // 2) == pytest.approx(1_700_000_000.6234567, abs=1e-6)


def test_local_time_is_to_the_millisecond() -> None:
    assert CLOCK.local(1_000) == time.strftime("%H:%M:%S.123", time.localtime(1_700_000_000))
