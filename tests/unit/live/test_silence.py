"""Forks without an event prove that the kernel does not send them."""

import asyncio
import logging
import os
from typing import cast

import pytest

from exporter.live.renewal import Renewal
from exporter.live.silence import Silence

SECOND_NS = 1_000_000_000


class FakeRenewal:
    """Counts how often it was asked; takes as long as it is told to."""

    def __init__(self) -> None:
        self.tries = 0
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.error: Exception | None = None

    async def renew(self) -> bool:
        self.tries += 1
        await self.may_end.wait()
        if self.error is not None:
            raise self.error
        return True


class Bench:
    """A Silence, and all around it."""

    def __init__(self) -> None:
        self.now_ns = SECOND_NS
        self.renewal = FakeRenewal()
        self.crashes: list[BaseException] = []
        self.silence = Silence(cast("Renewal", self.renewal), lambda: self.now_ns, self.crashes.append)

    async def look(self, missed: int, lost: int = 0, *, after_seconds: float = 0.0) -> int:
        """Look, let the loop turn, and return how often the subscription was renewed so far."""
        self.now_ns += round(after_seconds * SECOND_NS)
        self.silence.look(missed, lost)
        for _ in range(3):
            await asyncio.sleep(0)
        return self.renewal.tries


@pytest.fixture
async def bench() -> Bench:
    bench = Bench()
    await bench.look(0)
    bench.now_ns += 2 * SECOND_NS
    return bench


async def test_forks_that_were_under_way_as_the_subscription_began_prove_nothing() -> None:
    bench = Bench()
    one_on_each_cpu = os.cpu_count() or 1
    assert await bench.look(1) == 0
    assert await bench.look(one_on_each_cpu, after_seconds=1) == 0
    assert await bench.look(one_on_each_cpu, after_seconds=10) == 0
    assert await bench.look(one_on_each_cpu + 1) == 1


async def test_more_missed_forks_than_can_be_under_way_are_a_silence_from_the_start() -> None:
    assert await Bench().look((os.cpu_count() or 1) + 1) == 1


async def test_no_missed_fork_is_no_silence(bench: Bench) -> None:
    assert await bench.look(0) == 0
    assert await bench.look(0, lost=7, after_seconds=100) == 0


async def test_a_missed_fork_renews_the_subscription_and_is_logged(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        assert await bench.look(3) == 1
    [record] = caplog.records
    assert record.__dict__["forks"] == 3
    assert "without an event" in record.message


async def test_the_same_missed_forks_renew_it_once(bench: Bench) -> None:
    assert await bench.look(3) == 1
    assert await bench.look(3, after_seconds=100) == 1
    assert await bench.look(4, after_seconds=100) == 2


async def test_forks_that_a_counted_loss_explains_prove_nothing(bench: Bench) -> None:
    assert await bench.look(3, lost=10) == 0
    assert await bench.look(3, lost=10, after_seconds=10) == 0
    assert await bench.look(4, lost=10, after_seconds=10) == 1


async def test_a_silence_that_cannot_be_mended_is_tried_every_five_seconds(bench: Bench) -> None:
    tries = [await bench.look(missed, after_seconds=1) for missed in range(1, 13)]
    assert tries == [1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3]


async def test_no_renewal_begins_while_one_is_under_way(bench: Bench) -> None:
    bench.renewal.may_end.clear()
    assert await bench.look(1) == 1
    assert await bench.look(2, after_seconds=60) == 1
    bench.renewal.may_end.set()
    await asyncio.sleep(0)
    assert await bench.look(3, after_seconds=60) == 2


async def test_a_bug_in_a_renewal_ends_the_program(bench: Bench) -> None:
    bench.renewal.error = RuntimeError("a bug")
    await bench.look(1)
    assert bench.crashes == [bench.renewal.error]


async def test_a_renewal_is_cancelled_at_the_end(bench: Bench) -> None:
    bench.renewal.may_end.clear()
    await bench.look(1)
    bench.silence.stop()
    await asyncio.sleep(0)
    assert bench.crashes == []
    task = bench.silence._task  # noqa: SLF001 - it has no other trace
    assert task is not None
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_there_is_nothing_to_stop_in_the_beginning(bench: Bench) -> None:
    bench.silence.stop()
    assert bench.renewal.tries == 0
