"""A host whose events are streamed to clients of a Unix socket."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from host import Host, Mode

from exporter.stream.endpoint import serve_stream
from exporter.stream.hub import Hub, Limits
from exporter.stream.unix_socket import open_stream_socket
from exporter.stream.wall_clock import WallClock

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
    """Read this many objects."""
    async with asyncio.timeout(30):
        return [json.loads(await answer.content.readline()) for _ in range(count)]


async def until(holds: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 - what it waits for makes no event
            await asyncio.sleep(0.01)
