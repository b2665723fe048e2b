"""GET /events over a Unix socket: filters, forms, users, and clients that send garbage or nothing."""

import asyncio
import json
import os
import socket
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import builders
import pytest
from streaming import LIMITS, objects, streaming, until

from exporter.stream import endpoint


def is_cut(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


async def test_a_client_gets_what_it_asked_for(tmp_path: Path) -> None:
    async with streaming(tmp_path) as rig, rig.get("?events=nonzero_exit&comm=orac*&exit_code=3") as answer:
        assert (answer.status, answer.content_type) == (200, "application/x-ndjson")
        rig.die(b"other", 0x300)
        rig.die(b"oracle", 0)
        rig.die(b"oracle", 0x300)
        [event] = await objects(answer, 1)
    assert (event["event"], event["comm"], event["uid"], event["exit_code"]) == ("exit", "oracle", 1000, 3)


async def test_without_a_filter_a_client_gets_every_event_that_the_exporter_receives(tmp_path: Path) -> None:
    async with streaming(tmp_path) as rig, rig.get() as answer:
        rig.host.event(builders.sid, tgid=100)
        rig.die(b"make")
        assert [event["event"] for event in await objects(answer, 2)] == ["fork", "exit"]


async def test_a_client_that_accepts_server_sent_events_gets_them(tmp_path: Path) -> None:
    async with streaming(tmp_path) as rig, rig.get("?events=exit", Accept="text/event-stream") as answer:
        assert answer.content_type == "text/event-stream"
        rig.die(b"make")
        async with asyncio.timeout(30):
            text = await answer.content.readuntil(b"\n\n")
    assert text.startswith(b"data: {")
    assert json.loads(text.removeprefix(b"data: "))["comm"] == "make"


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("?event=exit", "there is no filter 'event'"),
        ("?events=birth", "events does not know birth"),
        ("?events=gid", "events: this exporter does not receive gid, see its --events"),
        ("?uid=root", "uid must be numbers"),
        ("?min_lifetime=soon", "min_lifetime must be a time"),
    ],
)
async def test_a_filter_that_makes_no_sense_is_refused_with_the_reason(
    tmp_path: Path, query: str, why: str
) -> None:
    async with streaming(tmp_path) as rig, rig.get(query) as answer:
        assert answer.status == 400
        assert why in await answer.text()


async def test_only_the_users_that_are_allowed_are_answered(tmp_path: Path) -> None:
    other = LIMITS._replace(uids=frozenset({os.geteuid() + 1}))
    async with streaming(tmp_path, other) as rig, rig.get() as answer:
        assert answer.status == 403
        assert f"uid {os.geteuid()} is not in --stream.allow-uid" in await answer.text()
    (tmp_path / "ours").mkdir()
    ours = LIMITS._replace(uids=frozenset({os.geteuid()}))
    async with streaming(tmp_path / "ours", ours) as rig, rig.get() as answer:
        assert answer.status == 200


async def test_connections_without_a_request_take_no_place_of_a_client_and_are_cut(tmp_path: Path) -> None:
    async with streaming(tmp_path) as rig, AsyncExitStack() as stack:
        answer = await stack.enter_async_context(rig.get("?events=exit"))
        silent = [socket.socket(socket.AF_UNIX) for _ in range(200)]
        for sock in silent:
            stack.enter_context(sock)
            sock.setblocking(False)
            sock.connect(str(rig.path))
            await asyncio.sleep(0)
        await until(lambda: sum(map(is_cut, silent)) >= 200 - 64 - LIMITS.clients)
        rig.die(b"make")
        assert [event["comm"] for event in await objects(answer, 1)] == ["make"]
        assert (await stack.enter_async_context(rig.get())).status == 200


async def test_a_client_that_does_not_send_a_whole_request_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "_LIMITS", endpoint._LIMITS._replace(request_seconds=0.2))
    async with streaming(tmp_path) as rig, rig.get("?events=exit") as answer:
        with socket.socket(socket.AF_UNIX) as half:
            half.connect(str(rig.path))
            half.setblocking(False)
            half.send(b"GET /events?events=exit HTTP/1.1\r\n")
            await until(lambda: is_cut(half))
        # A client that is subscribed has no deadline.
        rig.die(b"make")
        assert [event["comm"] for event in await objects(answer, 1)] == ["make"]


async def test_garbage_is_not_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with streaming(tmp_path) as rig:
        reader, writer = await asyncio.open_unix_connection(str(rig.path))
        writer.write(b"\x16\x03\x01 what\r\n\r\n")
        async with asyncio.timeout(30):
            assert b" 400 " in await reader.readline()
        writer.close()
    assert caplog.records == []


async def test_the_client_of_the_docs_does_what_they_say(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "stream.md").read_text(encoding="utf-8")
    _, _, rest = page.partition("```python\n")
    program = rest.partition("```")[0].replace(
        "/run/proc-connector-exporter/events.sock", str(tmp_path / "events.sock")
    )
    async with streaming(tmp_path) as rig:
        client = await asyncio.create_subprocess_exec(
            sys.executable, "-u", "-c", program, stdout=asyncio.subprocess.PIPE
        )
        await until(lambda: rig.hub.clients == 1)
        rig.die(b"oracle_1", 9)
        rig.die(b"oracle_2", 0)
        rig.host.pipeline.lose("connector", 12, rig.host.now_ns)
        rig.die(b"oracle_3", 0x300)
        assert client.stdout is not None
        async with asyncio.timeout(30):
            lines = [(await client.stdout.readline()).decode() for _ in range(3)]
        client.kill()
        await client.wait()
    assert lines == [
        "clean up after oracle_1[400]: SIGKILL\n",
        "missed 12: look at every process once\n",
        "clean up after oracle_3[400]: 3\n",
    ]


async def test_a_filter_by_a_label_that_this_exporter_does_not_give_is_refused(tmp_path: Path) -> None:
    async with streaming(tmp_path) as rig:
        async with rig.get("?pod=cart-1") as answer:
            assert answer.status == 400
            assert "there is no filter 'pod'" in await answer.text()
        rig.hub.labels = ("pod",)
        async with rig.get("?pod=cart-1") as answer:
            assert answer.status == 200
