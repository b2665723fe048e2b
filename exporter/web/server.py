"""Serves an application on listening sockets, with limits that clients cannot exceed.

An event loop by itself accepts any number of connections and waits for them for ever. Here the number of
connections has a limit, and each connection has a deadline for its next step (see deadline.py). At the limit the
peer that has the most connections loses the one that has waited longest for its next step.
"""

import asyncio
import logging
import socket
import time
from http import HTTPStatus
from typing import cast

from aiohttp import web, web_protocol, web_response
from aiohttp.http_exceptions import HttpProcessingError

from exporter.web.connection import Connection, Owner
from exporter.web.deadline import Limits, Phase
from exporter.web.gate import Gate, Handler
from exporter.web.handshakes import Handshakes
from exporter.web.peers import greediest

# Prometheus keeps its connections open: a stop does not wait until they are closed.
_SHUTDOWN_SECONDS = 0.5
_SHUTDOWN_LOOK_SECONDS = 0.02
_ACCEPT_AGAIN_SECONDS = 1.0
# So many connections are accepted in a turn of the event loop, which takes 10 ms and more amid a storm of events.
# At the limit it is one: each cuts another, which should have had the time to send its request.
_ACCEPTS_PER_TURN = 32
# The most bytes of one line of a request and of one header, and the most headers of a request.
_LINE_BYTES = 4096
_HEADERS = 32
# Handshakes take so much CPU time in a turn of the event loop at most: then the exporter counts.
_SHAKE_NS = 5_000_000
# What the kernel keeps of a connection, which is this program's memory too; it doubles both.
_SEND_BUFFER_BYTES = 64 << 10
_RECEIVE_BUFFER_BYTES = 16 << 10
_BODY_BYTES = 4096

# How many requests of a connection aiohttp reads ahead of the one that it answers; it has no setting for that.
# Prometheus sends no request before it has the answer, and 32 of them for each connection would be gigabytes.
web_protocol.MAX_MSG_QUEUE_SIZE = 1
# The header Server of every answer. It has no setting either, and would be the versions of aiohttp and Python.
vars(web_response)["SERVER_SOFTWARE"] = "proc-connector-exporter"

_LIMITS = Limits()


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
        self._limits = limits
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
            read_bufsize=_BODY_BYTES,
            lingering_time=0,
            # Otherwise work for clients that disconnect would pile up: the limit of connections does not bound it.
            handler_cancellation=True,
        )
        self._sockets: list[socket.socket] = []
        self._connections: set[Connection] = set()
        self._handshakes: Handshakes[Connection] = Handshakes()
        self._shakes_soon = False

    async def start(self, sockets: list[socket.socket]) -> None:
        """Serve on listening sockets."""
        await self._runner.setup()
        self._sockets = sockets
        for sock in sockets:
            sock.setblocking(False)
            if sock.family != socket.AF_UNIX:
                # A connection gets them from the socket that it comes to.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
            self._listen(sock)

    async def stop(self) -> None:
        """Accept no more connections, wait a moment for answers that are under way, and close all connections."""
        while self._sockets:
            sock = self._sockets.pop()
            self._loop.remove_reader(sock)
            sock.close()
        await self._wait_for_answers()
        await self._runner.cleanup()
        for connection in list(self._connections):
            connection.abort()
        if self._gate is not None:
            self._gate.close()

    async def _wait_for_answers(self) -> None:
        """Wait a moment for answers that are under way, and cut those that take longer.

        aiohttp would wait, too. An answer that ends in the moment in which it gives up is an error in its log.
        """
        ends_at = self._loop.time() + _SHUTDOWN_SECONDS
        while answering := [one for one in self._connections if one.phase is Phase.ANSWER]:
            if self._loop.time() >= ends_at:
                for connection in answering:
                    connection.abort()
                return
            await asyncio.sleep(_SHUTDOWN_LOOK_SECONDS)

    def _listen(self, sock: socket.socket) -> None:
        if sock.fileno() >= 0:
            self._loop.add_reader(sock, self._accept, sock)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_ACCEPTS_PER_TURN):
            try:
                sock, _ = listening.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError:
                # No descriptor or no memory is left. The socket stays readable, so stop listening for a second.
                self._loop.remove_reader(listening)
                self._loop.call_later(_ACCEPT_AGAIN_SECONDS, self._listen, listening)
                return
            self._serve(sock)
            if len(self._connections) >= self._limits.connections:
                return

    def _serve(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        tls = None if self._gate is None else self._gate.tls()
        owner = Owner(self._limits, self._make_protocol, self._shake_soon, self._connections.discard)
        try:
            connection = Connection(sock, tls, owner)
        except OSError:
            # The client has disconnected, and has no name any more.
            sock.close()
            return
        if not self._make_room(connection.peer):
            sock.close()
            return
        self._connections.add(connection)
        connection.start()

    def _make_protocol(self) -> asyncio.Protocol:
        return cast("web.Server", self._runner.server)()

    def _make_room(self, newcomer: str) -> bool:
        """Cut a connection if there are as many as may be; returns whether there is room for one more."""
        if len(self._connections) < self._limits.connections:
            return True
        held = [one for one in self._connections if one.waits_since < float("inf")]
        candidates = greediest(held, lambda one: one.peer, newcomer)
        if not candidates:
            return False
        min(candidates, key=lambda one: one.waits_since).abort()
        return True

    # -- handshakes -----------------------------------------------------------------------------------------------

    def _shake_soon(self, connection: Connection) -> None:
        self._handshakes.add(connection)
        self._go_on_shaking()

    def _go_on_shaking(self) -> None:
        if self._handshakes and not self._shakes_soon:
            self._shakes_soon = True
            self._loop.call_soon(self._shake_hands)

    def _shake_hands(self) -> None:
        """Go on with the handshakes that can go on, for a part of a turn of the event loop."""
        self._shakes_soon = False
        ends_ns = time.thread_time_ns() + _SHAKE_NS
        while self._handshakes and time.thread_time_ns() <= ends_ns:
            self._handshakes.take().shake_hands()
        self._go_on_shaking()

    # -- requests -------------------------------------------------------------------------------------------------

    @web.middleware
    async def _in_time(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        connection: Connection | None = request.get_extra_info("connection")
        if connection is None:
            return await handler(request)
        connection.begin_answer()
        try:
            response = await handler(request)
            if response.status < HTTPStatus.BAD_REQUEST:
                self._handshakes.note_answered(connection.peer)
            return response
        finally:
            connection.end_answer()


def _http_logger() -> logging.Logger:
    """Return a logger for aiohttp that drops the tracebacks of malformed requests, which any client can cause."""
    logger = logging.getLogger("exporter.http")
    logger.filters = [_is_own_fault]
    return logger


def _is_own_fault(record: logging.LogRecord) -> bool:
    return record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError)
