"""Opens the web sockets and serves on them; no client holds more than its share for longer than its time.

Event loops accept whatever comes and wait for ever. Here the number of connections has a limit, and each has a
deadline for its next step: the handshake, a whole request, the answer. At the limit whoever is nearest to its
deadline makes room for the next.
"""

import asyncio
import logging
import os
import resource
import socket
import ssl
from collections.abc import Iterable, Mapping
from typing import NamedTuple, cast

from aiohttp import web, web_protocol
from aiohttp.http_exceptions import HttpProcessingError

from exporter.config import ListenAddress
from exporter.errors import SetupError
from exporter.web.gate import Gate, Handler

# Scrapers keep their connections open: do not wait for them.
_SHUTDOWN_SECONDS = 0.5
_TLS_CLOSE_SECONDS = 5.0
# The first descriptor that systemd passes: sd_listen_fds(3).
_FIRST_PASSED = 3
_ACCEPT_AGAIN_SECONDS = 1.0
# What one line of a request, or one header, may take, and how many headers there may be. Times the number of
# connections it is what clients can make us keep.
_LINE_BYTES = 4096
_HEADERS = 32


_Protocol = web.RequestHandler
# How many requests aiohttp takes in ahead of the one that it answers; it has no setting for that. No scraper sends
# one before it has the answer, and 32 of them for each connection would be gigabytes.
web_protocol.MAX_MSG_QUEUE_SIZE = 1


class Limits(NamedTuple):
    """How many connections, and how long each may take for its next step."""

    connections: int = 256
    request_seconds: float = 10.0
    answer_seconds: float = 30.0
    idle_seconds: float = 120.0


_LIMITS = Limits()


def open_web_sockets(addresses: Iterable[ListenAddress]) -> list[socket.socket]:
    """Open the sockets to serve on, without a thread as an event loop would use to look up a name.

    Raises:
        SetupError: An address cannot be had.
    """
    return [opened for address in addresses for opened in _open(address)]


def _open(address: ListenAddress) -> list[socket.socket]:
    try:
        if address.host is None:
            if socket.has_dualstack_ipv6():
                return [socket.create_server(("", address.port), family=socket.AF_INET6, dualstack_ipv6=True)]
            return [socket.create_server(("", address.port))]
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return [
            socket.create_server(name, family=family) for family, name in {(row[0], row[4]): None for row in found}
        ]
    except (OSError, UnicodeError) as error:
        # create_server adds the address as Python writes it.
        reason = (
            f"{error.strerror}".partition(" (while ")[0] if isinstance(error, OSError) else "not a name of a host"
        )
        raise SetupError(f"cannot listen on {address}: {reason}; choose another --web.listen-address") from error


def take_passed_sockets(environment: Mapping[str, str] = os.environ) -> list[socket.socket]:
    """Take the sockets that systemd opened for this process.

    Raises:
        SetupError: There are none, or one cannot be served on.

    Source: sd_listen_fds(3).
    """
    count = environment.get("LISTEN_FDS", "")
    if environment.get("LISTEN_PID") != str(os.getpid()) or not count.isdecimal() or int(count) == 0:
        raise SetupError("--web.systemd-socket: no socket was passed; start it by a systemd socket unit")
    passed = []
    for number in range(_FIRST_PASSED, _FIRST_PASSED + int(count)):
        try:
            os.set_inheritable(number, False)
            sock = socket.socket(fileno=number)
            listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError as error:
            raise SetupError(f"--web.systemd-socket: descriptor {number}: {error.strerror}") from error
        if not listens or sock.type != socket.SOCK_STREAM:
            raise SetupError(f"--web.systemd-socket: descriptor {number} is not a listening stream socket")
        passed.append(sock)
    return passed


def socket_name(sock: socket.socket) -> str:
    """Return where a socket listens, as --web.listen-address writes it."""
    name = sock.getsockname()
    return str(ListenAddress(name[0], name[1])) if isinstance(name, tuple) else str(name)


class _Connection:
    """One client's, until its time is up."""

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
            # Python 3.11 cannot abort one that is closed, nor TLS that is closing, which has a timeout of its own.
            self.transport.abort()


class Server:
    """Serves an application. Made while an event loop runs.

    Args:
        app: What to serve; not yet frozen.
        gate: Who may ask; None for everybody, without TLS.
        limits: What one client, and all of them, may take.
    """

    def __init__(self, app: web.Application, gate: Gate | None, limits: Limits = _LIMITS) -> None:
        if gate is not None:
            app.middlewares.insert(0, gate.check)
            app.on_response_prepare.append(gate.add_headers)
        app.middlewares.insert(0, self._in_time)
        self._gate = gate
        # Half of what this process may open at most: its own sockets and files need some too.
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
            # Else the work for clients that come and go would pile up, which no limit of connections bounds.
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
        """Accept no more, give the answers that are under way a moment, and close everything."""
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
            # No more descriptors, or no memory; the socket goes on to be readable. Look away for a while.
            self._loop.remove_reader(listening)
            self._loop.call_later(_ACCEPT_AGAIN_SECONDS, self._listen, listening)
            return
        sock.setblocking(False)
        self._make_room()
        protocol = cast("web.Server", self._runner.server)()
        connection = self._connections[protocol] = _Connection(sock)
        connection.handshake = self._loop.create_task(self._connect(protocol, connection))
        self._give(protocol, self._limits.request_seconds)

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
            # A handshake that failed.
            self._forget(protocol)

    def _give(self, protocol: _Protocol, seconds: float) -> None:
        """Give a connection its time for the next step."""
        connection = self._connections.get(protocol)
        # One that had to make room is being cut already.
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
            self._forget(min(self._connections, key=self._due))

    def _due(self, protocol: _Protocol) -> float:
        timer = self._connections[protocol].timer
        return 0.0 if timer is None else timer.when()

    @web.middleware
    async def _in_time(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self._give(request.protocol, self._limits.answer_seconds)
        try:
            return await handler(request)
        finally:
            self._give(request.protocol, self._limits.idle_seconds)


def _http_logger() -> logging.Logger:
    """Return a logger for aiohttp, which would write a traceback for whatever a client sends."""
    logger = logging.getLogger("exporter.http")
    logger.filters = [_is_our_fault]
    return logger


def _is_our_fault(record: logging.LogRecord) -> bool:
    return record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError)
