"""Draining all that waits, and long work in slices."""

import asyncio
import time
from typing import cast

import builders
import pytest
from live_rig import EVENTS_PER_STEP, SECOND_NS, Rig

from exporter.feeds import Feed, count_for
from exporter.live import drain


async def test_a_flood_without_end_does_not_hold_up_a_drain(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was there when it was called is counted, and names settle, although the socket is never empty."""
    monkeypatch.setattr(drain, "_MOST_BYTES_HELD", 1 << 20)
    now_ns = time.monotonic_ns() - SECOND_NS
    rig.connector.datagrams.append(builders.fork(parent_tgid=1, child_tgid=400, timestamp_ns=now_ns))
    rig.connector.flood = builders.comm(tgid=1, comm=b"flood", timestamp_ns=now_ns)
    for tgid in range(1000, 3000):
        rig.lives_and_dies(tgid, b"make")
    await rig.listener.drain_all()
    assert rig.exits() == {"make": 2000}
    assert rig.table.live() == {"flood": 1, "init": 1}
    await rig.listener.resubscribe()
    assert rig.drain.step()
    assert rig.table.lost_ends == 1
    # While /proc was compared nothing was applied, and no more was kept than there is room for. The first step
    # after that reads on, and counts as much as it has time for.
    assert max(rig.held) <= (1 << 20) + 2 * EVENTS_PER_STEP * builders.CONNECTOR_STRIDE


async def test_records_wait_in_their_socket_while_no_more_events_are_held(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The second step exceeds it: a slow machine takes few of them while a reading settles.
    most_bytes = EVENTS_PER_STEP * builders.CONNECTOR_STRIDE * 3 // 2
    monkeypatch.setattr(drain, "_MOST_BYTES_HELD", most_bytes)
    now_ns = time.monotonic_ns()
    rig.connector.flood = builders.comm(tgid=1, comm=b"flood", timestamp_ns=now_ns)
    rig.taskstats.flood = builders.taskstats_datagram(pid=400)
    await rig.listener.resubscribe()
    assert max(rig.held) > most_bytes
    assert 0 < max(rig.held_when_records_came) <= most_bytes


async def test_tasks_that_drain_at_the_same_time_all_get_what_was_there_before(rig: Rig) -> None:
    seen: list[tuple[int, dict[str, int]]] = []

    async def one(number: int) -> None:
        for tgid in range(1000 * number, 1000 * number + 10):
            rig.lives_and_dies(tgid, b"of-%d" % number)
        await rig.listener.drain_all()
        seen.append((number, rig.exits()))

    for tgid in range(20000, 30000):
        rig.lives_and_dies(tgid, b"make")
    await asyncio.gather(*(one(number) for number in range(1, 6)))
    assert [exits[f"of-{number}"] for number, exits in seen] == [10] * 5
    assert rig.exits()["make"] == 10000


@pytest.mark.parametrize("offset", [0, 1])
async def test_a_drain_ends_although_another_takes_every_second_step_of_a_pass(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, offset: int
) -> None:
    """As a flood makes it, if a pass takes two steps: the timer of the listener takes one in each turn."""
    batches = EVENTS_PER_STEP // 256 // 2
    monkeypatch.setattr(drain.Drain, "_pace", lambda *_, **__: None)
    await rig.listener.drain_all()
    monkeypatch.setattr(rig.drain, "_batches_per_count", batches)
    rig.connector.flood = builders.comm(tgid=1, comm=b"flood", timestamp_ns=time.monotonic_ns())
    rig.lives_and_dies(1000, b"make")
    draining = asyncio.ensure_future(rig.listener.drain_all())
    for _ in range(offset):
        await asyncio.sleep(0)
    for _ in range(1000):
        rig.drain.step()
        await asyncio.sleep(0)
        if draining.done():
            break
    draining.cancel()
    assert draining.done()
    assert not draining.cancelled()
    assert rig.exits() == {"make": 1}


class SlowFeed:
    """Counts in so many turns of the event loop."""

    def __init__(self, turns: int) -> None:
        self.left = turns

    async def drain_all(self) -> None:
        while self.left:
            self.left -= 1
            await asyncio.sleep(0.001)


async def test_a_scrape_waits_no_longer_for_what_is_to_be_counted_than_it_may() -> None:
    slow, fast = SlowFeed(1 << 40), SlowFeed(3)
    assert not await count_for(cast("Feed", slow), 0.05)
    assert slow.left
    assert await count_for(cast("Feed", fast), 60.0)
    assert not fast.left
