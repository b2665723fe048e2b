"""Serves an application on listening sockets, with limits that clients cannot exceed.

An event loop by itself accepts any number of connections and waits for them for ever. Here the number of
connections has a limit, and each connection has a deadline for its next step: the handshake, a whole request, the
answer. At the limit the connection that is nearest to its deadline is cut to make room for a new one.
"""

import asyncio
import logging
import resource
import socket
import ssl
from typing import NamedTuple, cast

from aiohttp import web, web_protocol
from aiohttp.http_exceptions import HttpProcessingError

from exporter.web.gate import Gate, Handler

# Prometheus keeps its connections open: a stop does not wait until they are closed.
_SHUTDOWN_SECONDS = 0.5
_TLS_CLOSE_SECONDS = 5.0
_ACCEPT_AGAIN_SECONDS = 1.0
# The most bytes of one line of a request and of one header, and the most headers of a request. Their product,
# times the number of connections, is the memory that clients can take.
_LINE_BYTES = 4096
_HEADERS = 32


_Protocol = web.RequestHandler
# How many requests of a connection aiohttp reads ahead of the one that it answers; it has no setting for that.
# Prometheus sends no request before it has the answer, and 32 of them for each connection would be gigabytes.
web_protocol.MAX_MSG_QUEUE_SIZE = 1


class Limits(NamedTuple):
    """How many connections there may be, and how long each may take for its next step."""

    connections: int = 256
    request_seconds: float = 10.0
    answer_seconds: float = 30.0
    idle_seconds: float = 120.0


_LIMITS = Limits()


class _Connection:
    """The connection of one client, with the timer of its deadline."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.tls: ssl.SSLContext | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.handshake: asyncio.Task[None] | None = None
        self.transport: asyncio.Transport | None = None

    @property
    def is_closed(self) -> bool:
        return self.sock.fileno() < 0

    def cut(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
        if self.transport is None:
            if self.handshake is not None:
                self.handshake.cancel()
        elif not (self.is_closed or (self.tls and self.transport.is_closing())):
            # Python 3.11 cannot abort a connection that is closed. It cannot abort TLS that is closing either,
            # which has a timeout of its own.
            self.transport.abort()


class Server:
    """Serves an application. Made while an event loop runs.

    Args:
        app: The application to serve; not yet frozen.
        gate: Provides TLS and checks requests; None to answer all requests, without TLS.
        limits: Limits of one client and of all clients.
    """

    def __init__(self, app: web.Application, gate: Gate | None, limits: Limits = _LIMITS) -> None:
        if gate is not None:
            app.middlewares.insert(0, gate.check)
            app.on_response_prepare.append(gate.add_headers)
        app.middlewares.insert(0, self._in_time)
        self._gate = gate
        # At most half of the descriptors that this process may open: its own sockets and files need some too.
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._limits = limits._replace(connections=min(limits.connections, files // 2))
        self._loop = asyncio.get_running_loop()
        self._runner = web.AppRunner(
            app,
            handle_signals=False,
            access_log=None,
            logger=_http_logger(),
            shutdown_timeout=_SHUTDOWN_SECONDS,
            max_line_size=_LINE_BYTES,
            max_field_size=_LINE_BYTES,
            max_headers=_HEADERS,
            lingering_time=0,
            # Otherwise work for clients that disconnect would pile up: the limit of connections does not bound it.
            handler_cancellation=True,
        )
        self._sockets: list[socket.socket] = []
        self._connections: dict[_Protocol, _Connection] = {}

    async def start(self, sockets: list[socket.socket]) -> None:
        """Serve on listening sockets."""
        await self._runner.setup()
        self._sockets = sockets
        for sock in sockets:
            sock.setblocking(False)
            self._listen(sock)

    async def stop(self) -> None:
        """Accept no more connections, wait a moment for answers that are under way, and close all connections."""
        while self._sockets:
            sock = self._sockets.pop()
            self._loop.remove_reader(sock)
            sock.close()
        await self._runner.cleanup()
        for connection in self._connections.values():
            connection.cut()
        if self._gate is not None:
            self._gate.close()

    def _listen(self, sock: socket.socket) -> None:
        if sock.fileno() >= 0:
            self._loop.add_reader(sock, self._accept, sock)

    def _accept(self, listening: socket.socket) -> None:
        try:
            sock, _ = listening.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError:
            # No descriptor or no memory is left. The socket stays readable, so stop listening for a second.
            self._loop.remove_reader(listening)
            self._loop.call_later(_ACCEPT_AGAIN_SECONDS, self._listen, listening)
            return
        sock.setblocking(False)
        self._make_room()
        protocol = cast("web.Server", self._runner.server)()
        connection = self._connections[protocol] = _Connection(sock)
        connection.handshake = self._loop.create_task(self._connect(protocol, connection))
        self._set_deadline(protocol, self._limits.request_seconds)

    async def _connect(self, protocol: _Protocol, connection: _Connection) -> None:
        tls = connection.tls = None if self._gate is None else self._gate.tls()
        try:
            connection.transport, _ = await self._loop.connect_accepted_socket(
                lambda: protocol,
                connection.sock,
                ssl=tls,
                ssl_shutdown_timeout=_TLS_CLOSE_SECONDS if tls else None,
            )
        except OSError:
            # The TLS handshake failed.
            self._forget(protocol)

    def _set_deadline(self, protocol: _Protocol, seconds: float) -> None:
        """Give a connection this long for its next step."""
        connection = self._connections.get(protocol)
        # A connection that had to make room for another is no longer in the table.
        if connection is not None:
            if connection.timer is not None:
                connection.timer.cancel()
            connection.timer = self._loop.call_later(seconds, self._forget, protocol)

    def _forget(self, protocol: _Protocol) -> None:
        connection = self._connections.pop(protocol, None)
        if connection is not None:
            connection.cut()

    def _make_room(self) -> None:
        if len(self._connections) < self._limits.connections:
            return
        for protocol in [protocol for protocol, connection in self._connections.items() if connection.is_closed]:
            self._forget(protocol)
        if len(self._connections) >= self._limits.connections:
            self._forget(min(self._connections, key=self._deadline))

    def _deadline(self, protocol: _Protocol) -> float:
        timer = self._connections[protocol].timer
        return 0.0 if timer is None else timer.when()

    @web.middleware
    async def _in_time(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self._set_deadline(request.protocol, self._limits.answer_seconds)
        try:
            return await handler(request)
        finally:
            self._set_deadline(request.protocol, self._limits.idle_seconds)


def _http_logger() -> logging.Logger:
    """Return a logger for aiohttp that drops the tracebacks of malformed requests, which any client can cause."""
    logger = logging.getLogger("exporter.http")
    logger.filters = [_is_own_fault]
    return logger


def _is_own_fault(record: logging.LogRecord) -> bool:
    return record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError)
