"""The stream to several clients: slow clients, limits, and the journal that is kept only for clients."""

import asyncio
import contextlib
import json
import socket
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest
from streaming import LIMITS, objects, streaming, until

from exporter.stream import hub, news_log
from exporter.stream.hub import NDJSON, TooManyClients
from exporter.stream.selection import Selection


async def test_without_a_client_there_is_no_journal(tmp_path: Path) -> None:
    async with streaming(tmp_path) as rig:
        assert not rig.host.pipeline.is_observed
        async with rig.get() as answer:
            assert answer.status == 200
            assert rig.host.pipeline.is_observed
            async with rig.get() as another:
                assert another.status == 200
            assert rig.firsts == 1
        await until(lambda: not rig.host.pipeline.is_observed)
        assert rig.hub.clients == 0
        async with rig.get():
            assert rig.firsts == 2


async def test_more_clients_than_allowed_are_refused(tmp_path: Path) -> None:
    async with streaming(tmp_path, LIMITS._replace(clients=1)) as rig, rig.get() as first:
        assert first.status == 200
        async with rig.get() as second:
            assert second.status == 503
            assert "--stream.max-clients" in await second.text()


async def test_the_end_of_the_exporter_ends_the_stream(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        rig = await stack.enter_async_context(streaming(tmp_path))
        answer = await stack.enter_async_context(rig.get())
        ended = asyncio.ensure_future(answer.content.read())
        rig.hub.close()
        async with asyncio.timeout(30):
            assert await ended == b""


async def test_a_client_that_does_not_read_loses_its_own_events_and_gets_their_number(tmp_path: Path) -> None:
    deaths, rounds = 500, 30
    async with streaming(tmp_path, LIMITS._replace(buffer_bytes=400_000)) as rig:
        slow = socket.socket(socket.AF_UNIX)
        slow.connect(str(rig.path))
        slow.setblocking(False)
        slow.send(b"GET /events?events=exit HTTP/1.0\r\n\r\n")
        async with rig.get("?events=exit") as quick:
            await until(lambda: rig.hub.clients == 2)
            for _ in range(rounds):
                rig.die(b"make", times=deaths)
                assert [event["event"] for event in await objects(quick, deaths)] == ["exit"] * deaths
            assert rig.hub.dropped > 0
            dropped = rig.hub.dropped
            # The slow client reads again, and gets the number of lost events with the next event.
            read = bytearray()

            def has_read(what: bytes) -> bool:
                with contextlib.suppress(BlockingIOError):
                    while chunk := slow.recv(1 << 16):
                        read.extend(chunk)
                return what in read

            await until(lambda: has_read(b"nothing") or not any(s.waiting_bytes for s in rig.hub._subscribers))
            rig.die(b"last")
            await until(lambda: has_read(b'"comm": "last"'))
            await until(lambda: has_read(b"}\n") and read.endswith(b"}\n"))
        slow.close()
    _, _, body = bytes(read).partition(b"\r\n\r\n")
    received = [json.loads(line) for line in body.splitlines()]
    lost = [one for one in received if one["event"] == "lost"]
    assert sum(one["messages"] for one in lost) == dropped
    assert {one["socket"] for one in lost} == {"stream"}
    assert len(received) - len(lost) == deaths * rounds + 1 - dropped


async def test_a_client_that_catches_up_gets_the_number_of_lost_events_though_no_event_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "_TURN_NS", 30_000_000_000)
    async with streaming(tmp_path, LIMITS._replace(buffer_bytes=10_000)) as rig, rig.get("?events=exit") as answer:
        rig.die(b"make")
        [first] = await objects(answer, 1)
        # The server has no turn of the event loop in between.
        rig.die(b"make")
        rig.die(b"make", times=500)
        [second, loss] = await objects(answer, 2)
    assert (first["event"], second["event"]) == ("exit", "exit")
    assert (loss["event"], loss["socket"], loss["messages"]) == ("lost", "stream", 500)


async def test_a_client_that_has_read_everything_gets_any_number_of_events_at_once(tmp_path: Path) -> None:
    async with streaming(tmp_path, LIMITS._replace(buffer_bytes=10_000)) as rig, rig.get("?events=exit") as answer:
        rig.die(b"make", times=500)
        assert [event["event"] for event in await objects(answer, 500)] == ["exit"] * 500
        assert rig.hub.dropped == 0


# -- what clients take together -----------------------------------------------------------------------------------


async def test_what_is_not_looked_at_in_time_is_lost_for_clients_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(news_log, "MOST_NEWS", 10)
    fill = 1.0
    async with streaming(tmp_path) as rig, rig.get("?events=exit") as answer:
        rig.hub._fill = lambda: fill
        # The kernel's queues are full: only counting goes on.
        for _ in range(4):
            rig.die(b"make", times=3)
        fill = 0.0
        # The oldest of the rounds of three forks and three exits are lost, whatever the filter lets through.
        [loss, *events] = await objects(answer, 4)
    assert (loss["event"], loss["socket"], loss["messages"]) == ("lost", "stream", rig.hub.dropped)
    assert rig.hub.dropped == 18
    assert [event["event"] for event in events] == ["exit"] * 3


async def test_the_longest_queue_gives_way_when_all_together_are_too_long(tmp_path: Path) -> None:
    limits = LIMITS._replace(buffer_bytes=1 << 20, total_bytes=200_000)
    async with streaming(tmp_path, limits) as rig:
        with (
            rig.hub.subscribed(Selection(events=frozenset({"exit"})), NDJSON, "slow") as slow,
            rig.hub.subscribed(Selection(events=frozenset({"exit"}), uids=frozenset({1000})), NDJSON) as quick,
        ):
            for _ in range(20):
                rig.die(b"make", times=100)
                text = await quick.next()
                assert text is not None
                assert text.count(b'"exit"') == 100
            assert rig.hub.dropped > 0
            assert slow.waiting_bytes + quick.waiting_bytes <= 200_000
            # The last events may be still in the log for one of them.
            rig.hub._look(2**63)
            got = 0
            slow.close()
            while (text := await slow.next()) is not None:
                for line in text.splitlines():
                    one = json.loads(line)
                    got += one["messages"] if one["event"] == "lost" else 1
            assert got == 2000


async def test_a_user_with_many_streams_gives_one_to_another_user(tmp_path: Path) -> None:
    async with streaming(tmp_path, LIMITS._replace(clients=3)) as rig:
        subscribe = partial(rig.hub.subscribed, Selection(), NDJSON)
        with subscribe("0") as first, subscribe("0"), subscribe("0") as last:
            with pytest.raises(TooManyClients), subscribe("0"):
                pass
            with subscribe("1"):
                assert await last.next() is None
                assert rig.hub.clients == 3
                with pytest.raises(TooManyClients), subscribe("1"):
                    pass
            assert first.waiting_bytes == 0
        assert rig.hub.clients == 0
        assert not rig.host.pipeline.is_observed
