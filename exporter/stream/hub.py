"""The stream for local clients: `GET /events` on a Unix socket, one JSON object for each thing that happens.

Clients with the same filters share what is written for them. Each has a queue of its own: one that does not read
loses its own events only, is told how many when it reads again, and is never waited for.
"""

import asyncio
import contextlib
import errno
import math
import os
import socket
import stat
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from aiohttp import web

from exporter.errors import ConfigError, SetupError
from exporter.processes.observer import Loss, News
from exporter.processes.pipeline import Pipeline
from exporter.stream.lines import WallClock, json_line
from exporter.stream.selection import Selection, parse_selection, unavailable
from exporter.web.server import Limits as ConnectionLimits
from exporter.web.server import Server

# pid, uid, gid: struct ucred
_UCRED = struct.Struct("=iII")
_BACKLOG = 128
# Beside those that listen; an answer lasts as long as its client wants.
_CONNECTIONS = ConnectionLimits(connections=64, answer_seconds=math.inf, idle_seconds=10.0)
_NDJSON, _SSE = "application/x-ndjson", "text/event-stream"


class Limits(NamedTuple):
    """What clients may take."""

    clients: int
    buffer_bytes: int
    """What waits for one client; what does not fit is lost for it."""
    uids: frozenset[int] | None
    """Who may ask; None for everybody whom the socket's mode lets in."""


class Subscriber:
    """One client's queue.

    Args:
        selection: What it wants.
        form: The content type.
        buffer_bytes: How much may wait.

    Attributes:
        waiting_bytes: How much does.
    """

    def __init__(self, selection: Selection, form: str, buffer_bytes: int) -> None:
        self.selection = selection
        self.form = form
        self._buffer_bytes = buffer_bytes
        self._waiting: deque[bytes] = deque()
        self.waiting_bytes = 0
        self._lost = 0
        self._notice = b""
        self._wakes = asyncio.Event()
        self._closed = False

    def offer(self, text: bytes, events: int, loss: Callable[[int], bytes]) -> int:
        """Queue some events.

        Args:
            text: As they are written.
            events: How many.
            loss: Writes how many were lost.

        Returns:
            How many events there was no room for.
        """
        # Whoever has read everything is not slow, however much happens at once.
        if self._waiting and self.waiting_bytes + len(text) > self._buffer_bytes:
            self._lost += events
            self._notice = loss(self._lost)
            self._wakes.set()
            return events
        self._tell_of_loss()
        self._append(text)
        return 0

    def _tell_of_loss(self) -> None:
        if self._lost:
            self._lost = 0
            self._append(self._notice)

    def _append(self, text: bytes) -> None:
        self._waiting.append(text)
        self.waiting_bytes += len(text)
        self._wakes.set()

    def close(self) -> None:
        """Say that nothing more will come."""
        self._closed = True
        self._wakes.set()

    async def next(self) -> bytes | None:
        """Wait for something to write; None at the end."""
        while not (self._waiting or self._lost or self._closed):
            self._wakes.clear()
            await self._wakes.wait()
        if not self._waiting:
            # Nothing may come after it for a long time.
            self._tell_of_loss()
        if not self._waiting:
            return None
        text = self._waiting.popleft()
        self.waiting_bytes -= len(text)
        return text


class Hub:
    """Hands news to all subscribers.

    Args:
        pipeline: Where news come from; it is observed only while a client listens.
        available: The events that there are.
        clock: Returns the clock of the host where things happen.
        limits: Of clients.
        emit_soon: Called when the first one comes.

    Attributes:
        limits: As given.
        dropped: Events that were lost for a client that did not read them.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        available: frozenset[str],
        clock: Callable[[], WallClock],
        limits: Limits,
        emit_soon: Callable[[], None],
    ) -> None:
        self._pipeline = pipeline
        self._available = available
        self._clock = clock
        self.limits = limits
        self._emit_soon = emit_soon
        self._subscribers: list[Subscriber] = []
        self.dropped = 0

    @property
    def clients(self) -> int:
        """How many listen."""
        return len(self._subscribers)

    def publish(self, news: list[News]) -> None:
        """Hand news on."""
        clock = self._clock()
        lines: dict[int, str] = {}
        written: dict[tuple[Selection, str], tuple[bytes, int]] = {}
        for subscriber in self._subscribers:
            key = subscriber.selection, subscriber.form
            if key not in written:
                matches = subscriber.selection.matches
                wanted = [i for i, one in enumerate(news) if isinstance(one, Loss) or matches(one)]
                for i in wanted:
                    if i not in lines:
                        lines[i] = json_line(news[i], clock)
                written[key] = _frame([lines[i] for i in wanted], subscriber.form), len(wanted)
            text, events = written[key]
            if events:
                self.dropped += subscriber.offer(text, events, self._loss_writer(subscriber, clock, news))

    @staticmethod
    def _loss_writer(subscriber: Subscriber, clock: WallClock, news: list[News]) -> Callable[[int], bytes]:
        def write(events: int) -> bytes:
            return _frame([json_line(Loss(news[0].time_ns, "stream", events), clock)], subscriber.form)

        return write

    @contextlib.contextmanager
    def subscribed(self, selection: Selection, form: str) -> Iterator[Subscriber]:
        """Listen.

        Raises:
            web.HTTPServiceUnavailable: Enough others do.
        """
        if self.clients >= self.limits.clients:
            raise web.HTTPServiceUnavailable(
                text=f"there are {self.clients} clients already: --stream.max-clients\n"
            )
        subscriber = Subscriber(selection, form, self.limits.buffer_bytes)
        self._subscribers.append(subscriber)
        if not self._pipeline.is_observed:
            self._pipeline.observe(self.publish)
            self._emit_soon()
        try:
            yield subscriber
        finally:
            self._subscribers.remove(subscriber)
            if not self._subscribers:
                self._pipeline.observe(None)

    def close(self) -> None:
        """End all streams."""
        for subscriber in self._subscribers:
            subscriber.close()

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Answer GET /events."""
        self._check_peer(request)
        try:
            selection = parse_selection({name: request.query.getall(name) for name in request.query})
            if missing := unavailable(selection, self._available):
                raise ConfigError(f"events: this exporter is not told of {', '.join(missing)}, see its --events")
        except ConfigError as error:
            raise web.HTTPBadRequest(text=f"{error}\n") from error
        selection = selection.with_default(self._available)
        form = _SSE if _SSE in request.headers.get("Accept", "") else _NDJSON
        with self.subscribed(selection, form) as subscriber:
            response = web.StreamResponse(headers={"Content-Type": form, "Cache-Control": "no-store"})
            await response.prepare(request)
            with contextlib.suppress(ConnectionResetError):
                while (text := await subscriber.next()) is not None:
                    await response.write(text)
        return response

    def _check_peer(self, request: web.Request) -> None:
        if self.limits.uids is None:
            return
        sock = request.get_extra_info("socket")
        _, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        if uid not in self.limits.uids:
            raise web.HTTPForbidden(text=f"uid {uid} is not in --stream.allow-uid\n")


def _frame(lines: list[str], form: str) -> bytes:
    if form == _SSE:
        return "".join(f"data: {line}\n\n" for line in lines).encode()
    return "".join(f"{line}\n" for line in lines).encode()


def open_stream_socket(path: Path, mode: int, gid: int | None) -> socket.socket:
    """Open the Unix socket; a dead one that is in its place is removed.

    Raises:
        SetupError: It cannot be had.
    """
    sock = socket.socket(socket.AF_UNIX)
    try:
        _remove_dead(path)
        # Nobody gets in before mode and group are what they should be.
        umask = os.umask(0o177)
        try:
            sock.bind(str(path))
        finally:
            os.umask(umask)
        if gid is not None:
            os.chown(path, -1, gid)
        path.chmod(mode)
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        # That a path is too long comes without an errno.
        reason = error.strerror or error
        raise SetupError(f"cannot listen on {path}: {reason}; choose another --stream.socket") from error
    return sock


def _remove_dead(path: Path) -> None:
    if not path.exists() or not stat.S_ISSOCK(path.lstat().st_mode):
        return
    with socket.socket(socket.AF_UNIX) as probe:
        # Whoever listens may have been stopped: do not wait for it.
        probe.setblocking(False)
        if probe.connect_ex(str(path)) == errno.ECONNREFUSED:
            path.unlink()


@contextlib.asynccontextmanager
async def serve_stream(hub: Hub, sock: socket.socket) -> AsyncIterator[None]:
    """Serve on a socket while the block runs, and remove it."""

    async def close(_: web.Application) -> None:
        hub.close()

    app = web.Application()
    app.router.add_get("/events", hub.events, allow_head=False)
    app.on_shutdown.append(close)
    connections = _CONNECTIONS._replace(connections=hub.limits.clients + _CONNECTIONS.connections)
    # A client that goes away is not kept until something happens.
    server = Server(app, None, connections)
    path = Path(sock.getsockname())
    try:
        await server.start([sock])
        yield
    finally:
        await server.stop()
        _remove(path)


def _remove(path: Path) -> None:
    # After --user it can be another user's; the next start removes it.
    with contextlib.suppress(OSError):
        path.unlink()
