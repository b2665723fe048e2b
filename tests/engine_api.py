"""The API socket of Docker or Podman: a list of containers and their events, and all the ways in which they fail.

It keeps the containers and their history itself. It knows nothing of the exporter.
"""

import asyncio
import contextlib
import json
import os
import time
from collections import deque
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

_ids = count(1)


def make_container_id() -> str:
    """Return an id whose first 12 digits are its own, too."""
    return f"{next(_ids):012x}{0:052x}"


class Asked(NamedTuple):
    """What a client asked."""

    path: str
    query: dict[str, str]
    headers: dict[str, str]


class FakeEngine:
    """The server. Its attributes are set by tests at any time.

    Attributes:
        answers_late: The events' answer begins with the first of them, as Podman's does.
        piece_bytes: Answers are sent in pieces of so many bytes.
        pause_seconds: And with such a pause.
        next_answers: Given instead of what the next requests ask for; after them it hangs up.
        list_delay: The list is sent when this is set.
        asked: All requests that were read.
        containers: Those that run, as the list describes them.
    """

    def __init__(self) -> None:
        self.answers_late = False
        self.piece_bytes = 1 << 16
        self.pause_seconds = 0.0
        self.next_answers: deque[bytes] = deque()
        self.list_delay: asyncio.Event | None = None
        self.asked: list[Asked] = []
        self.containers: dict[str, dict[str, Any]] = {}
        self._history: list[tuple[float, bytes]] = []
        self._streams: dict[asyncio.StreamWriter, asyncio.Queue[bytes]] = {}
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    # -- what happens to containers -----------------------------------------------------------------------------

    def start(self, container_id: str, name: str, **more: Any) -> None:
        """Create a container and start it."""
        self.happen("create", container_id, name)
        self.containers[container_id] = {"Id": container_id, "Names": [f"/{name}"], "State": "running", **more}
        self.happen("start", container_id, name)

    def end(self, container_id: str, action: str = "die") -> None:
        [name] = self.containers.pop(container_id)["Names"]
        self.happen(action, container_id, name[1:])

    def rename(self, container_id: str, name: str) -> None:
        self.containers[container_id]["Names"] = [f"/{name}"]
        self.happen("rename", container_id, name)

    def happen(self, action: str, container_id: str, name: str, kind: str = "container") -> None:
        """Send an event, with labels of the container's beside its name."""
        attributes = {"image": "scratch", "oldName": "/before", "name": name}
        event = {
            "Type": kind,
            "Action": action,
            "Actor": {"ID": container_id, "Attributes": attributes},
            "time": int(time.time()),
        }
        line = json.dumps(event).encode() + b"\n"
        self._history.append((time.time(), line))
        self.send(line)

    # -- what happens to connections ----------------------------------------------------------------------------

    @property
    def streaming(self) -> int:
        """How many clients get events."""
        return len(self._streams)

    def send(self, data: bytes) -> None:
        """Send bytes to each client that gets events."""
        for queue in self._streams.values():
            queue.put_nowait(data)

    def send_raw(self, data: bytes) -> None:
        """Send each client that gets events bytes that are no chunk."""
        for writer in self._streams:
            writer.write(data)

    def tear(self) -> None:
        """Cut all connections, amid what they send."""
        for writer in list(self._writers):
            writer.transport.abort()

    def lists(self) -> int:
        return sum(asked.path == "/containers/json" for asked in self.asked)

    # -- HTTP ---------------------------------------------------------------------------------------------------

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request; each connection is for one, as the client says."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            await self._answer(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            self._tasks.discard(task)
            writer.close()

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks))

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        _, target, _ = head[0].split(" ")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
        asked = Asked(urlsplit(target).path, dict(parse_qsl(urlsplit(target).query)), headers)
        self.asked.append(asked)
        if self.next_answers:
            writer.write(self.next_answers.popleft())
            await writer.drain()
        elif asked.path == "/containers/json":
            if self.list_delay is not None:
                await self.list_delay.wait()
            await self._begin(writer)
            await self._send(writer, json.dumps(list(self.containers.values())).encode())
            writer.write(b"0\r\n\r\n")
            await writer.drain()
        elif asked.path == "/events":
            await self._stream(reader, writer, asked.query)
        else:
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    async def _stream(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, query: dict[str, str]
    ) -> None:
        queue = self._streams[writer] = asyncio.Queue[bytes]()
        for at, line in self._history:
            if at >= int(query["since"]):
                queue.put_nowait(line)

        async def send_all() -> None:
            first = await queue.get() if self.answers_late else b""
            await self._begin(writer)
            await self._send(writer, first)
            while True:
                await self._send(writer, await queue.get())

        tasks = [asyncio.ensure_future(send_all()), asyncio.ensure_future(reader.read())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            del self._streams[writer]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _begin(self, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        await writer.drain()

    async def _send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        for at in range(0, len(data), self.piece_bytes):
            piece = data[at : at + self.piece_bytes]
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
            await asyncio.sleep(self.pause_seconds)


@contextlib.asynccontextmanager
async def serving_engine(path: Path, engine: FakeEngine | None = None) -> AsyncIterator[FakeEngine]:
    """Serve an engine's API on a socket that only root may open, and take the socket away again."""
    engine = engine or FakeEngine()
    server = await asyncio.start_unix_server(engine.handle, path)
    os.chmod(path, 0o600)  # noqa: PTH101 - it does not block
    try:
        yield engine
    finally:
        server.close()
        await engine.stop()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # noqa: PTH108 - nor does this
