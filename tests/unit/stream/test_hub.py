"""The stream to several clients: slow clients, limits, and the journal that is kept only for clients."""

import asyncio
import contextlib
import json
import socket
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from streaming import LIMITS, objects, streaming, until

from exporter.stream import hub


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
