"""exporter/kubernetes/share_of_time.py: what an API sends takes a share of the time."""

import asyncio
import time

import pytest

from exporter.kubernetes.share_of_time import ShareOfTime


@pytest.mark.parametrize("at_once", [1, 7, 60], ids=["one by one", "some at once", "all at once"])
async def test_work_is_followed_by_rests_several_times_as_long(
    monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    rests: list[float] = []

    async def sleep(seconds: float) -> None:
        rests.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    share = ShareOfTime(4.0)
    began = time.monotonic()
    for first in range(0, 60, at_once):
        async for _ in share.each(range(first, min(60, first + at_once))):
            ends = time.monotonic() + 0.001
            while time.monotonic() < ends:
                pass
    worked = time.monotonic() - began
    # Less than a slice can be left.
    assert 3 * worked < sum(rests) <= 4 * worked
    assert len(rests) > 5


async def test_little_work_has_no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    async def sleep(_: float) -> None:
        raise AssertionError

    monkeypatch.setattr(asyncio, "sleep", sleep)
    # A clock that stands still.
    monkeypatch.setattr(time, "monotonic_ns", lambda: 0)
    assert [item async for item in ShareOfTime().each("abc")] == ["a", "b", "c"]
