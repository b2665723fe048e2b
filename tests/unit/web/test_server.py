"""exporter/web/server.py: sockets, and what clients may take, over real connections with short deadlines."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Collection, Iterator
from pathlib import Path

import pytest
from aiohttp import web
from serving import PATIENCE_SECONDS, Authority, Client, Served, serving

from exporter.web.deadline import Limits, Phase
from exporter.web.gate import Gate
from exporter.web.pages import make_app
from exporter.web.server import Server

NEVER = 3600.0
SOON = 0.2


def limits(connections: int = 100, request: float = NEVER, answer: float = NEVER, idle: float = NEVER) -> Limits:
    return Limits(connections, request, answer, idle)


# -- time ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\n", b"GET / HTTP/1.1\r\nA: " + b"a" * 1000],
    ids=["nothing", "half a line", "half the headers", "half a header"],
)
async def test_a_client_that_does_not_send_a_whole_request_is_cut(sent: bytes) -> None:
    async with serving(limits=limits(request=SOON)) as served:
        client = await served.connect()
        client.writer.write(sent)
        assert await client.is_cut()


async def test_a_client_that_sends_a_request_byte_by_byte_gets_no_more_time() -> None:
    async with serving(limits=limits(request=SOON)) as served:
        client = await served.connect()

        async def trickle() -> None:
            client.writer.write(b"GET / HTTP/1.1\r\n")
            while not client.writer.is_closing():
                client.writer.write(b"A: a\r\n")
                await asyncio.sleep(SOON / 10)

        trickling = asyncio.ensure_future(trickle())
        assert await client.is_cut()
        trickling.cancel()


async def test_a_client_that_does_not_finish_the_handshake_is_cut(tmp_path: Path) -> None:
    Authority(tmp_path).issue("server", "localhost")
    file = tmp_path / "web.yml"
    file.write_text("tls_server_config: {cert_file: server.crt, key_file: server.key}")
    async with serving(Gate(file), limits(request=SOON)) as served:
        for sent in (b"", b"\x16\x03\x01"):
            client = await served.connect()
            client.writer.write(sent)
            assert await client.is_cut()


async def test_an_idle_connection_is_cut_when_its_time_is_up() -> None:
    async with serving(limits=limits(idle=SOON)) as served:
        client = await served.connect()
        assert (await client.ask()).status == 200
        assert await client.is_cut()


async def test_a_connection_is_kept_for_the_next_request() -> None:
    async with serving(limits=limits()) as served:
        client = await served.connect()
        assert [(await client.ask()).status for _ in range(5)] == [200] * 5


def _one_big_page(size: int = 30_000_000) -> web.Application:
    async def pieces(_: str, __: Collection[str]) -> tuple[str, Iterator[bytes]]:
        return "text/plain", iter([b"x" * size])

    return make_app("/metrics", pieces, lambda: None, max_requests=1)


@contextlib.asynccontextmanager
async def glutton(served: Served, headers: bytes = b"") -> AsyncIterator[socket.socket]:
    """Ask for a big page and read its first bytes only."""
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        # The kernel must not read it all for the client.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await loop.sock_connect(sock, ("127.0.0.1", served.port))
        await loop.sock_sendall(sock, b"GET /metrics HTTP/1.1\r\nHost: x\r\n%s\r\n" % headers)
        assert await loop.sock_recv(sock, 10) == b"HTTP/1.1 2"
        yield sock


async def wait_for_a_place(client: Client) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        status = 0
        while status != 200:
            status = (await client.ask("/metrics", method="HEAD")).status


async def test_an_answer_takes_a_place_until_it_is_read() -> None:
    async with serving(limits=limits(), make_app=_one_big_page) as served, glutton(served) as sock:
        client = await served.connect()
        assert [(await client.ask("/metrics", method="HEAD")).status for _ in range(20)] == [503] * 20
        sock.close()
        await wait_for_a_place(client)


async def test_a_client_that_does_not_read_the_answer_is_cut_and_frees_its_place() -> None:
    # To render it takes a small part of its time, on a busy machine too.
    page = lambda: _one_big_page(3_000_000)  # noqa: E731 - a name for it would be longer
    async with serving(limits=limits(answer=SOON), make_app=page) as served, glutton(served):
        await wait_for_a_place(await served.connect())


async def test_a_client_that_reads_the_end_of_an_answer_after_the_server_has_closed_is_forgotten(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving(limits=limits(connections=1), make_app=lambda: _one_big_page(200_000)) as served:
        # So that the kernel does not take the end over.
        served.server._sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        async with glutton(served, b"Connection: close\r\n") as sock:
            loop = asyncio.get_running_loop()
            [connection] = served.server._connections
            read = 0
            while not connection.is_closing():
                read += len(await loop.sock_recv(sock, 1000))
            assert read < 200_000
            while await loop.sock_recv(sock, 1000):
                pass
        for _ in range(3):
            assert (await served.ask("/-/healthy")).status == 200
    assert caplog.records == []


# -- numbers ------------------------------------------------------------------------------------------------------


async def test_at_the_limit_the_connection_that_has_waited_longest_makes_room() -> None:
    async with serving(limits=limits(connections=3)) as served:
        clients = [await served.connect() for _ in range(3)]
        # The first shows that it is there; now the second has waited longest.
        assert (await clients[0].ask()).status == 200
        assert (await served.ask()).status == 200
        assert await clients[1].is_cut()
        assert (await clients[0].ask()).status == 200


async def test_connections_that_ended_take_no_place() -> None:
    async with serving(limits=limits(connections=2)) as served:
        stays = await served.connect()
        for _ in range(10):
            client = await served.connect()
            assert (await client.ask()).status == 200
            client.close()
            with contextlib.suppress(OSError):
                await client.writer.wait_closed()
        assert (await stays.ask()).status == 200


async def test_a_flood_of_handshakes_does_not_keep_others_out(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.issue("server", "localhost")
    file = tmp_path / "web.yml"
    file.write_text("tls_server_config: {cert_file: server.crt, key_file: server.key}")
    async with serving(Gate(file), limits(connections=5)) as served:
        half_open = [await served.connect() for _ in range(50)]
        assert (await served.ask(tls=authority.client())).status == 200
        assert await half_open[0].is_cut()


async def test_scrapes_beyond_the_limit_are_answered_with_503() -> None:
    proceed = asyncio.Event()

    async def pieces(_: str, __: Collection[str]) -> tuple[str, Iterator[bytes]]:
        await proceed.wait()
        return "text/plain", iter([b"x"])

    app = lambda: make_app("/metrics", pieces, lambda: None, max_requests=2)  # noqa: E731
    async with serving(make_app=app) as served, asyncio.timeout(PATIENCE_SECONDS):
        asking = [asyncio.ensure_future(served.ask("/metrics")) for _ in range(3)]
        [refused], waiting = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
        reply = await refused
        assert (reply.status, b"2 scrapes" in reply.body) == (503, True)
        # A client that watches it is still answered.
        assert (await served.ask("/-/healthy")).status == 200
        proceed.set()
        assert [(await task).status for task in waiting] == [200, 200]
        assert (await served.ask("/metrics")).status == 200


# -- garbage ------------------------------------------------------------------------------------------------------

GARBAGE = {
    "a long path": b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "a long header": b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 1_000_000 + b"\r\n\r\n",
    "many headers": b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: a\r\n" * 100_000 + b"\r\n",
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "zeros": bytes(10_000),
    "TLS": bytes.fromhex("160301020001000001fc0303") + bytes(500),
    "a bad length": b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "two lengths": b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "two framings": b"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/9": b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
    "a NUL in a header": b"GET / HTTP/1.1\r\nHost: x\r\nA: \0\r\n\r\n",
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
async def test_garbage_is_refused_and_not_logged(garbage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        async with serving(limits=limits(request=2.0)) as served:
            client = await served.connect()
            client.writer.write(garbage)
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                assert (await client.reply()).status == 400
            assert await client.is_cut()
            assert (await served.ask()).status == 200
    assert caplog.records == []


async def test_a_thousand_requests_at_once_on_one_connection_are_answered_in_turn() -> None:
    async with serving() as served:
        client = await served.connect()
        client.writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)
        assert [(await client.reply()).body for _ in range(1000)] == [b"hello"] * 1000


async def test_a_body_that_no_page_reads_is_not_waited_for() -> None:
    async with serving(limits=limits()) as served:
        client = await served.connect()
        client.writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n")
        assert (await client.reply()).status == 200
        assert await client.is_cut()


async def test_no_answer_names_the_libraries() -> None:
    async with serving() as served:
        assert (await served.ask()).headers["Server"] == "proc-connector-exporter"
        assert (await served.ask("/nothing")).headers["Server"] == "proc-connector-exporter"
        client = await served.connect()
        client.writer.write(b"nonsense\r\n\r\n")
        assert (await client.reply()).headers["Server"] == "proc-connector-exporter"


async def test_a_request_that_is_too_long_altogether_is_refused() -> None:
    async with serving(limits=limits()) as served:
        client = await served.connect()
        client.writer.write(b"GET / HTTP/1.1\r\n" + b"".join(b"A%d: %s\r\n" % (n, b"a" * 2000) for n in range(20)))
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            assert (await client.reply()).status == 431
        assert await client.is_cut()


async def test_a_bug_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(_: web.Request) -> web.Response:
        raise ZeroDivisionError

    def app() -> web.Application:
        app = web.Application()
        app.router.add_get("/", broken)
        return app

    async with serving(make_app=app) as served:
        assert (await served.ask()).status == 500
    [record] = caplog.records
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ZeroDivisionError)


async def test_no_descriptors_left_is_no_reason_to_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = 0

    def accept(self: socket.socket) -> tuple[socket.socket, object]:
        nonlocal refused
        if refused < 2:
            refused += 1
            raise OSError(24, "Too many open files")
        return original(self)

    original = socket.socket.accept
    monkeypatch.setattr("exporter.web.server._ACCEPT_AGAIN_SECONDS", SOON)
    monkeypatch.setattr(socket.socket, "accept", accept)
    async with serving() as served:
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert (await served.ask()).status == 200
        assert refused == 2
        assert loop.time() - began >= 2 * SOON


@pytest.mark.parametrize(("most", "turns"), [(100, 10), (20, 60)], ids=["below the limit", "at the limit"])
async def test_connections_that_come_together_are_accepted_together_until_they_replace_others(
    most: int, turns: int
) -> None:
    async with serving(limits=limits(connections=most)) as served:
        accepted = served.server._connections
        with contextlib.ExitStack() as stack:
            clients = [
                stack.enter_context(socket.create_connection(("127.0.0.1", served.port))) for _ in range(60)
            ]
            seen: set[object] = set()
            needed = 0
            while len(seen) < len(clients):
                await asyncio.sleep(0)
                needed += 1
                seen |= accepted
            assert needed <= turns
            # At the limit one is accepted in a turn.
            assert needed >= len(clients) - most


async def test_stopping_ends_every_connection() -> None:
    async with serving(limits=limits()) as served:
        clients = [await served.connect() for _ in range(3)]
        assert (await clients[0].ask()).status == 200
        clients[1].writer.write(b"GET / HT")
        await served.server.stop()
        assert [await client.is_cut() for client in clients] == [True] * 3
        with pytest.raises(ConnectionRefusedError):
            await served.connect()


async def test_a_stop_waits_a_moment_for_an_answer_and_cuts_one_that_takes_longer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """aiohttp would wait too, and log an error for an answer that ends in the moment in which it gives up."""
    began, goes_on = asyncio.Event(), asyncio.Event()
    servers: list[Server] = []
    left_to_aiohttp: list[Phase] = []

    async def answer(_: web.Request) -> web.Response:
        await goes_on.wait()
        return web.Response(text="soon")

    async def answer_never(_: web.Request) -> web.Response:
        began.set()
        await asyncio.sleep(NEVER)
        raise AssertionError

    async def note_what_is_left(_: web.Application) -> None:
        left_to_aiohttp.extend(one.phase for one in servers[0]._connections if not one.is_closing())

    def app() -> web.Application:
        app = web.Application()
        app.on_shutdown.append(note_what_is_left)
        app.router.add_get("/soon", answer)
        app.router.add_get("/never", answer_never)
        return app

    async with serving(limits=limits(), make_app=app) as served:
        servers.append(served.server)
        soon, never = await served.connect(), await served.connect()
        answered = asyncio.ensure_future(soon.ask("/soon"))
        never.writer.write(b"GET /never HTTP/1.1\r\nHost: x\r\n\r\n")
        await began.wait()
        while sum(one.phase is Phase.ANSWER for one in served.server._connections) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        stopping = asyncio.ensure_future(served.server.stop())
        await asyncio.sleep(0)
        goes_on.set()
        assert (await answered).body == b"soon"
        assert await never.is_cut()
        await stopping
        # There is what answered soon, which waits for the next request.
        assert left_to_aiohttp == [Phase.IDLE]
    assert caplog.records == []
