"""The live loop against sockets and a /proc that are not the kernel's."""

import asyncio
import os
from collections.abc import Iterator

import builders
import pytest
from live_rig import EVENTS_PER_STEP, RECORDS_PER_STEP, Rig

from exporter.kernel.netlink import Batch
from exporter.kernel.recvmmsg import Meminfo
from exporter.live.moderation import ALL_IS_SENT, LONGEST_PAUSE_SECONDS, PAUSE_SECONDS, Moderation


async def test_however_much_waits_a_step_takes_on_no_more_than_its_share(rig: Rig) -> None:
    for tgid in range(1000, 11000):
        rig.lives_and_dies(tgid, b"make")
    steps = 1
    while rig.drain.step():
        steps += 1
    assert rig.exits() == {"make": 10000}
    assert rig.table.live() == {"init": 1}
    assert sum(rig.applied) == 30000
    assert max(rig.applied) <= EVENTS_PER_STEP
    assert steps > 30000 // EVENTS_PER_STEP


async def test_events_are_not_counted_before_all_records_are_there(rig: Rig) -> None:
    """The last of the records is that of the first EXIT: of a process that took long to free its memory."""
    rig.lives_and_dies(1000, b"late")
    [late] = rig.taskstats.datagrams
    others = range(2000, 2000 + 2 * RECORDS_PER_STEP)
    rig.taskstats.datagrams = [builders.taskstats_datagram(pid=pid, comm=b"huge", ac_flag=0) for pid in others]
    rig.taskstats.datagrams.append(late)
    assert rig.drain.step()
    assert rig.exits() == {}
    while rig.drain.step():
        pass
    assert rig.exits() == {"late": 1}


async def test_a_client_that_begins_to_wait_does_not_wait_for_the_end_of_a_long_pause(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    monkeypatch.setattr(rig.connector, "fileno", lambda: reader)
    rig.lives_and_dies(1000, b"make")
    rig.listener._wait_by_timer(3600)  # noqa: SLF001 - no moderation chooses a pause as long as that
    rig.listener.emit_soon()
    async with asyncio.timeout(30):
        while not rig.exits():  # noqa: ASYNC110 - what it waits for makes no event
            await asyncio.sleep(0.01)
    rig.listener.stop()
    os.close(reader)
    os.close(writer)


@pytest.fixture
def pauses(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The pauses that the listener makes, where the kernel sends all that is to be known; none is waited for."""
    reader, writer = os.pipe()
    monkeypatch.setattr(rig.connector, "fileno", lambda: reader)
    monkeypatch.setattr(rig.listener, "_moderation", Moderation(1_000_000, 1, ALL_IS_SENT))
    pauses: list[float] = []
    monkeypatch.setattr(rig.listener, "_wait_by_timer", pauses.append)
    yield pauses
    rig.listener.stop()
    os.close(reader)
    os.close(writer)


async def test_a_drain_that_is_asked_for_amid_a_drain_follows_it(
    rig: Rig, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    wake_up, drain_soon = rig.listener._wake_up, rig.listener._drain_soon  # noqa: SLF001 - as loop and session call
    for tgid in range(1000, 1100):
        rig.lives_and_dies(tgid, b"make")
        wake_up()
    read = rig.connector.iter_batches

    def read_and_ask() -> Iterator[Batch]:
        yield from read()
        # Of what comes now it is too late for this drain.
        drain_soon()

    monkeypatch.setattr(rig.connector, "iter_batches", read_and_ask)
    rig.lives_and_dies(1100, b"make")
    wake_up()
    monkeypatch.setattr(rig.connector, "iter_batches", read)
    rig.lives_and_dies(1101, b"make")
    wake_up()
    assert pauses[-2] == 0
    assert pauses[-1] >= PAUSE_SECONDS


async def test_a_process_whose_group_was_missed_shortens_the_pauses(rig: Rig, pauses: list[float]) -> None:
    def drain(times: int) -> list[float]:
        pauses.clear()
        for _ in range(times):
            for tgid in range(1000, 1100):
                rig.lives_and_dies(tgid, b"make")
            rig.listener._wake_up()  # noqa: SLF001 - as the event loop calls it
        return pauses

    assert drain(100)[-1] == LONGEST_PAUSE_SECONDS
    rig.table.grouping.missed += 1
    assert set(drain(3)) == {PAUSE_SECONDS}


async def test_at_rest_it_looks_whether_anything_waits_and_drains_only_then(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With rings, which wake it up for nothing: what is in them proves that the host was silenced."""
    reader, writer = os.pipe()
    monkeypatch.setattr(rig.connector, "fileno", lambda: reader)
    monkeypatch.setattr("exporter.live.listener._RINGS_SECONDS", 0.001)
    monkeypatch.setattr(rig.listener, "_has_rings", True)
    looks = 0
    meminfo = rig.connector.meminfo

    def look() -> Meminfo:
        nonlocal looks
        looks += 1
        return meminfo()

    async def look_times(times: int) -> None:
        goal = looks + times
        async with asyncio.timeout(30):
            while looks < goal:  # noqa: ASYNC110 - what it waits for makes no event
                await asyncio.sleep(0.001)

    monkeypatch.setattr(rig.connector, "meminfo", look)
    rig.listener._wake_up()  # noqa: SLF001 - as the event loop calls it
    await look_times(10)
    rig.applied.clear()
    await look_times(20)
    assert rig.applied == []
    rig.lives_and_dies(1000, b"make")
    await look_times(10)
    # One drain with the events, and one more: what was read with them may show only then what it proves.
    assert rig.exits() == {"make": 1}
    assert rig.applied == [3, 0]
    rig.listener.stop()
    os.close(reader)
    os.close(writer)
