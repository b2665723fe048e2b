"""`GET /events` on a Unix socket: one JSON object for each event, as a stream that ends with the exporter."""

import contextlib
import math
import socket
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import web

from exporter.errors import ConfigError
from exporter.stream.hub import NDJSON, SSE, Hub, TooManyClients
from exporter.stream.selection import Selection, parse_selection, unavailable
from exporter.stream.unix_socket import remove_socket
from exporter.web.deadline import Limits
from exporter.web.server import Server

# Connections beside those of subscribed clients.
OTHER_CONNECTIONS = 64
# An answer lasts as long as its client stays.
_LIMITS = Limits(answer_seconds=math.inf, idle_seconds=10.0)
_PIECE_BYTES = 64 << 10


@contextlib.asynccontextmanager
async def serve_stream(hub: Hub, sock: socket.socket, connections: int | None = None) -> AsyncIterator[None]:
    """Serve on a listening Unix socket while the block runs, and remove the socket at the end.

    Args:
        hub: Hands the events on.
        sock: The socket.
        connections: How many there may be, those of subscribed clients among them; None for enough.
    """

    async def events(request: web.Request) -> web.StreamResponse:
        return await _stream_events(hub, request)

    async def close(_: web.Application) -> None:
        hub.close()

    app = web.Application()
    app.router.add_get("/events", events, allow_head=False)
    app.on_shutdown.append(close)
    most = hub.limits.clients + OTHER_CONNECTIONS if connections is None else connections
    # The server cancels the handler of a client that disconnects, so that its place is free before the next event.
    server = Server(app, None, _LIMITS._replace(connections=most))
    path = Path(sock.getsockname())
    try:
        await server.start([sock])
        yield
    finally:
        await server.stop()
        remove_socket(path)


async def _stream_events(hub: Hub, request: web.Request) -> web.StreamResponse:
    peer = request.get_extra_info("peer", "")
    if hub.limits.uids is not None and int(peer) not in hub.limits.uids:
        raise web.HTTPForbidden(text=f"uid {peer} is not in --stream.allow-uid\n")
    selection = _parse_query(request, hub)
    form = SSE if SSE in request.headers.get("Accept", "") else NDJSON
    with contextlib.ExitStack() as stack:
        try:
            subscriber = stack.enter_context(hub.subscribed(selection, form, peer))
        except TooManyClients as error:
            raise web.HTTPServiceUnavailable(text=f"{error}\n") from error
        response = web.StreamResponse(headers={"Content-Type": form, "Cache-Control": "no-store"})
        await response.prepare(request)
        with contextlib.suppress(ConnectionResetError):
            while (text := await subscriber.next()) is not None:
                for at in range(0, len(text), _PIECE_BYTES):
                    await response.write(memoryview(text)[at : at + _PIECE_BYTES])
    return response


def _parse_query(request: web.Request, hub: Hub) -> Selection:
    available = hub.available
    try:
        selection = parse_selection(
            {name: request.query.getall(name) for name in request.query}, labels=hub.labels
        )
        if missing := unavailable(selection, available):
            raise ConfigError(f"events: this exporter does not receive {', '.join(missing)}, see its --events")
    except ConfigError as error:
        raise web.HTTPBadRequest(text=f"{error}\n") from error
    return selection.with_default(available)
