"""Clients that a web server would rather not have, as many at once as the attacker likes."""

import asyncio
import contextlib
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable

PATIENCE_SECONDS = 60.0
_WHILE_SECONDS = 3.0
SCRAPE = b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n%sConnection: close\r\n\r\n"


class Attackers:
    """All clients of one attack on a port of the loopback.

    Attributes:
        statuses: How often each HTTP status was answered; 0 stands for no answer at all.
    """

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self.port = port
        self.tls = tls
        self.statuses: Counter[int] = Counter()
        self._held: list[asyncio.StreamWriter] = []

    async def _connect(self, tls: ssl.SSLContext | None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=tls, server_hostname="localhost" if tls else None
        )

    async def send(self, request: bytes) -> None:
        """Send these bytes over a connection of their own, and note the status of the answer."""
        status = 0
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, ValueError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                reader, writer = await self._connect(self.tls)
                try:
                    writer.write(request)
                    status = int((await reader.readuntil(b"\r\n")).split()[1])
                    await reader.read()
                finally:
                    writer.close()
        self.statuses[status] += 1

    async def scrape(self, headers: bytes = b"") -> None:
        await self.send(SCRAPE % headers)

    async def hold(self, sent: bytes = b"", *, raw: bool = True) -> None:
        """Open a connection, send the beginning of something, and never go on."""
        with contextlib.suppress(OSError):
            _, writer = await self._connect(None if raw else self.tls)
            writer.write(sent)
            self._held.append(writer)

    async def run_ahead(self, requests: bytes) -> None:
        """Send request after request for a while, and read no answer."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError, TimeoutError), socket.socket() as sock:
            # The kernel must not read the answers for us.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setblocking(False)
            async with asyncio.timeout(_WHILE_SECONDS):
                await loop.sock_connect(sock, ("127.0.0.1", self.port))
                await loop.sock_sendall(sock, requests)

    async def drip(self) -> None:
        """Send one header after the other for a while."""
        with contextlib.suppress(OSError, TimeoutError):
            _, writer = await self._connect(self.tls)
            self._held.append(writer)
            writer.write(b"GET /metrics HTTP/1.1\r\n")
            async with asyncio.timeout(_WHILE_SECONDS):
                while True:
                    writer.write(b"X: y\r\n")
                    await writer.drain()
                    await asyncio.sleep(0.1)

    def let_go(self) -> None:
        for writer in self._held:
            writer.close()
        self._held.clear()


async def all_at_once(*attacks: tuple[int, Callable[[], Awaitable[None]]]) -> None:
    """Run so many of each attack at the same time."""
    async with asyncio.TaskGroup() as group:
        for times, attack in attacks:
            for _ in range(times):
                group.create_task(_run(attack))


async def _run(attack: Callable[[], Awaitable[None]]) -> None:
    await attack()
