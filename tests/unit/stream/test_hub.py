"""The stream over a Unix socket, without a kernel: filters, forms, slow clients, limits, strangers."""

import asyncio
import contextlib
import json
import os
import socket
import stat
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import builders
import pytest
from host import Host, Mode

from exporter.errors import SetupError
from exporter.stream import hub as stream
from exporter.stream.hub import Hub, Limits, Subscriber, open_stream_socket, serve_stream
from exporter.stream.lines import WallClock

LIMITS = Limits(clients=4, buffer_bytes=1 << 20, uids=None)
AVAILABLE = frozenset({"fork", "exec", "exit", "uid"})


class Rig:
    """A host whose events are streamed."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path = path
        self.host = Host(Mode.EXACT)
        self.host.lives(100, b"sh", 1000)
        self.firsts = 0
        self.hub = Hub(self.host.pipeline, AVAILABLE, lambda: WallClock(0, 0), limits, self._count_first)
        self._session = aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path)))

    def _count_first(self) -> None:
        self.firsts += 1

    def get(self, query: str = "", **headers: str) -> Any:
        return self._session.get(f"http://local/events{query}", headers=headers)

    def die(self, comm: bytes, status: int = 0, times: int = 1) -> None:
        """Processes are born and die."""
        for child in range(400, 400 + times):
            self.host.fork(100, child)
            self.host.end(child, comm, 1000, status)
        self.host.drain()

    async def close(self) -> None:
        await self._session.close()


@asynccontextmanager
async def streaming(tmp_path: Path, limits: Limits = LIMITS) -> AsyncIterator[Rig]:
    path = tmp_path / "events.sock"
    async with AsyncExitStack() as stack:
        rig = Rig(path, limits)
        stack.push_async_callback(rig.close)
        await stack.enter_async_context(serve_stream(rig.hub, open_stream_socket(path, 0o600, None)))
        yield rig


async def objects(answer: aiohttp.ClientResponse, count: int) -> list[dict[str, Any]]:
    async with asyncio.timeout(30):
        return [json.loads(await answer.content.readline()) for _ in range(count)]


def is_cut(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 - what it waits for makes no event
            await asyncio.sleep(0.01)


async def test_a_client_gets_what_it_asked_for(tmp_path: Path) -> None:
    async with streaming(tmp_path) as rig, rig.get("?events=nonzero_exit&comm=orac*&exit_code=3") as answer:
        assert (answer.status, answer.content_type) == (200, "application/x-ndjson")
        rig.die(b"other", 0x300)
        rig.die(b"oracle", 0)
        rig.die(b"oracle", 0x300)
        [told] = await objects(answer, 1)
    assert (told["event"], told["comm"], told["uid"], told["exit_code"]) == ("exit", "oracle", 1000, 3)


async def test_everything_that_the_exporter_is_told_comes_without_a_filter(tmp_path: Path) -> None:
    async with streaming(tmp_path) as rig, rig.get() as answer:
        rig.host.event(builders.sid, tgid=100)
        rig.die(b"make")
        assert [told["event"] for told in await objects(answer, 2)] == ["fork", "exit"]


async def test_who_accepts_server_sent_events_gets_them(tmp_path: Path) -> None:
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
        ("?events=gid", "events: this exporter is not told of gid, see its --events"),
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


async def test_nothing_is_told_while_nobody_listens(tmp_path: Path) -> None:
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


async def test_only_the_users_that_are_allowed_are_answered(tmp_path: Path) -> None:
    other = LIMITS._replace(uids=frozenset({os.geteuid() + 1}))
    async with streaming(tmp_path, other) as rig, rig.get() as answer:
        assert answer.status == 403
        assert f"uid {os.geteuid()} is not in --stream.allow-uid" in await answer.text()
    (tmp_path / "ours").mkdir()
    ours = LIMITS._replace(uids=frozenset({os.geteuid()}))
    async with streaming(tmp_path / "ours", ours) as rig, rig.get() as answer:
        assert answer.status == 200


async def test_the_end_of_the_exporter_ends_the_stream(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        rig = await stack.enter_async_context(streaming(tmp_path))
        answer = await stack.enter_async_context(rig.get())
        ended = asyncio.ensure_future(answer.content.read())
        rig.hub.close()
        async with asyncio.timeout(30):
            assert await ended == b""


async def test_a_client_that_does_not_read_loses_its_own_events_and_is_told_how_many(tmp_path: Path) -> None:
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
                assert [told["event"] for told in await objects(quick, deaths)] == ["exit"] * deaths
            assert rig.hub.dropped > 0
            dropped = rig.hub.dropped
            # It reads again, and is told once there is something to tell.
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
    told = [json.loads(line) for line in body.splitlines()]
    lost = [one for one in told if one["event"] == "lost"]
    assert sum(one["messages"] for one in lost) == dropped
    assert {one["socket"] for one in lost} == {"stream"}
    assert len(told) - len(lost) == deaths * rounds + 1 - dropped


async def test_who_catches_up_is_told_what_it_lost_though_nothing_follows(tmp_path: Path) -> None:
    async with streaming(tmp_path, LIMITS._replace(buffer_bytes=10_000)) as rig, rig.get("?events=exit") as answer:
        rig.die(b"make")
        [first] = await objects(answer, 1)
        # Nobody else has a turn meanwhile.
        rig.die(b"make")
        rig.die(b"make", times=500)
        told = await objects(answer, 2)
    assert (first["event"], told[0]["event"]) == ("exit", "exit")
    assert (told[1]["event"], told[1]["socket"], told[1]["messages"]) == ("lost", "stream", 500)


async def test_what_happens_at_once_reaches_whoever_has_read_everything(tmp_path: Path) -> None:
    async with streaming(tmp_path, LIMITS._replace(buffer_bytes=10_000)) as rig, rig.get("?events=exit") as answer:
        rig.die(b"make", times=500)
        assert [told["event"] for told in await objects(answer, 500)] == ["exit"] * 500
        assert rig.hub.dropped == 0


async def test_who_asks_for_nothing_takes_no_places_and_is_not_waited_for(tmp_path: Path) -> None:
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
        assert [told["comm"] for told in await objects(answer, 1)] == ["make"]
        assert (await stack.enter_async_context(rig.get())).status == 200


async def test_who_does_not_send_a_whole_request_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_CONNECTIONS", stream._CONNECTIONS._replace(request_seconds=0.2))
    async with streaming(tmp_path) as rig, rig.get("?events=exit") as answer:
        with socket.socket(socket.AF_UNIX) as half:
            half.connect(str(rig.path))
            half.setblocking(False)
            half.send(b"GET /events?events=exit HTTP/1.1\r\n")
            await until(lambda: is_cut(half))
        # Who listens may do so for ever.
        rig.die(b"make")
        assert [told["comm"] for told in await objects(answer, 1)] == ["make"]


async def test_garbage_is_not_worth_a_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with streaming(tmp_path) as rig:
        reader, writer = await asyncio.open_unix_connection(str(rig.path))
        writer.write(b"\x16\x03\x01 what\r\n\r\n")
        async with asyncio.timeout(30):
            assert b" 400 " in await reader.readline()
        writer.close()
    assert caplog.records == []


async def test_readmes_client_does_what_readme_says(tmp_path: Path) -> None:
    readme = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
    _, _, rest = readme.partition("```python\n")
    program = rest.partition("```")[0].replace("/run/proc-connector.sock", str(tmp_path / "events.sock"))
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


# -- the socket ----------------------------------------------------------------------------------------------


def test_the_socket_has_the_mode_and_the_group(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    gid = os.getegid()
    with open_stream_socket(path, 0o620, gid):
        status = path.stat()
        assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o620, gid)


def test_a_dead_socket_is_replaced_and_a_living_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    open_stream_socket(path, 0o600, None).close()
    with (
        open_stream_socket(path, 0o600, None),
        pytest.raises(SetupError, match=r"cannot listen on .*/socket: Address already in use"),
    ):
        open_stream_socket(path, 0o600, None)


def test_one_that_listens_and_does_not_answer_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as hung, ExitStack() as waiting:
        hung.bind(str(path))
        hung.listen(0)
        status = 0
        while status == 0:
            client = waiting.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            status = client.connect_ex(str(path))
        with pytest.raises(SetupError, match="Address already in use"):
            open_stream_socket(path, 0o600, None)


def test_a_path_that_is_too_long_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r": AF_UNIX path too long; choose another --stream.socket"):
        open_stream_socket(tmp_path / ("x" * 108), 0o600, None)


def test_a_file_in_its_place_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    with pytest.raises(SetupError, match=r"choose another --stream.socket"):
        open_stream_socket(path, 0o600, None)
    assert path.read_text() == "precious"


async def test_a_subscriber_takes_what_fits() -> None:
    subscriber = Subscriber(selection=None, form="", buffer_bytes=10)  # type: ignore[arg-type]  # not looked at

    def offer(text: bytes, events: int) -> int:
        return subscriber.offer(text, events, lambda lost: b"lost %d" % lost)

    assert offer(b"12345", 1) == 0
    assert offer(b"123456", 2) == 2
    assert offer(b"1234567", 3) == 3
    assert await subscriber.next() == b"12345"
    assert offer(b"x", 1) == 0
    subscriber.close()
    assert [await subscriber.next() for _ in range(3)] == [b"lost 5", b"x", None]
