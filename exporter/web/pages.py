"""The pages of the exporter: metrics, a landing page, health, readiness and reload."""

import asyncio
import html
from collections.abc import Callable

from aiohttp import web

from exporter import __version__
from exporter.web.bodies import Bodies, Body, Pieces
from exporter.web.places import NoPlaceError, Place, Places

# A client that reads as fast as it is sent to gets so many pieces in one turn of the event loop.
_PIECES_PER_TURN = 4


def accepts_gzip(accept_encoding: str) -> bool:
    """Return whether an Accept-Encoding header allows gzip (RFC 9110: q=0 forbids it)."""
    for item in accept_encoding.split(","):
        name, _, parameters = item.partition(";")
        if name.strip().lower() == "gzip":
            return parameters.replace(" ", "").lower() not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}
    return False


class _Metrics:
    """Answers scrapes, a limited number at once."""

    def __init__(self, bodies: Bodies, places: Places) -> None:
        self._bodies = bodies
        self._places = places

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer a scrape, or refuse it at the limit."""
        transport = request.transport
        peer = request.get_extra_info("peer") or request.remote or ""
        response: web.StreamResponse = web.Response(status=503, text=_NO_PLACE.format(count=self._places.count))
        try:
            async with self._places.taken(peer, lambda: None if transport is None else transport.abort()) as place:
                body = await self._bodies.render(request.headers.get("Accept", ""))
                with self._bodies.read(body, place.cut):
                    zipped = accepts_gzip(request.headers.get("Accept-Encoding", ""))
                    response = _head(body, zipped=zipped)
                    # Written here, and not by aiohttp after the return: until the client has read it, it takes
                    # memory, and a place.
                    await _write(request, response, body, place, zipped=zipped)
        except NoPlaceError:
            pass
        except ConnectionError:
            # The client has disconnected.
            pass
        return response


def _head(body: Body, *, zipped: bool) -> web.StreamResponse:
    headers = {"Content-Type": body.content_type, "Vary": "Accept, Accept-Encoding"}
    if zipped:
        headers["Content-Encoding"] = "gzip"
    response = web.StreamResponse(headers=headers)
    response.content_length = body.zipped_bytes if zipped else body.plain_bytes
    return response


async def _write(
    request: web.Request, response: web.StreamResponse, body: Body, place: Place, *, zipped: bool
) -> None:
    place.begin_to_send()
    await response.prepare(request)
    if request.method != "HEAD":
        for number, piece in enumerate(body.pieces(zipped=zipped), 1):
            await response.write(piece)
            place.send(len(piece))
            if number % _PIECES_PER_TURN == 0:
                await asyncio.sleep(0)
    await response.write_eof()


def make_app(
    telemetry_path: str,
    pieces: Pieces,
    not_ready: Callable[[], str | None],
    max_requests: int = 0,
    reload: Callable[[], str | None] | None = None,
    *,
    form: Callable[[str], str] = str,
    most_bytes: int = 32 << 20,
) -> web.Application:
    """Build the application.

    Args:
        telemetry_path: The path of the metrics.
        pieces: Renders a scrape.
        not_ready: Returns what the exporter still waits for, or None when its numbers can be trusted.
        max_requests: How many scrapes may be under way at once; 0 for any number.
        reload: Reads the rules again, and returns what is wrong with them; None if reload over HTTP is not
            allowed.
        form: Accept header -> a shorter one for which `pieces` renders the same.
        most_bytes: How many bytes all bodies that clients read may have together, zipped.
    """
    metrics = _Metrics(Bodies(pieces, form, most_bytes), Places(max_requests))

    async def landing_page(_: web.Request) -> web.Response:
        return web.Response(text=_LANDING_PAGE.format(path=html.escape(telemetry_path)), content_type="text/html")

    async def healthy(_: web.Request) -> web.Response:
        return web.Response(text="Healthy\n")

    async def ready(_: web.Request) -> web.Response:
        reason = not_ready()
        if reason is not None:
            return web.Response(status=503, text=f"Not ready: {reason}\n")
        return web.Response(text="Ready\n")

    async def reload_rules(_: web.Request) -> web.Response:
        if reload is None:
            return web.Response(status=403, text="Not allowed: see --web.enable-lifecycle\n")
        problem = reload()
        if problem is not None:
            return web.Response(status=500, text=f"Not reloaded: {problem}\n")
        return web.Response(text="Reloaded\n")

    app = web.Application()
    app.router.add_get("/", landing_page)
    app.router.add_get(telemetry_path, metrics.answer)
    app.router.add_get("/-/healthy", healthy)
    app.router.add_get("/-/ready", ready)
    app.router.add_post("/-/reload", reload_rules)
    app.router.add_put("/-/reload", reload_rules)
    return app


_NO_PLACE = "{count} scrapes are under way, which is the limit. Try again later.\n"

_LANDING_PAGE = f"""<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>proc-connector-exporter</title></head>
<body>
<h1>proc-connector-exporter</h1>
<p>Every fork, exec, exit and non-zero exit of this host. Version {__version__}.</p>
<ul>
<li><a href="{{path}}">Metrics</a></li>
<li><a href="/-/ready">Ready</a></li>
<li><a href="/-/healthy">Healthy</a></li>
</ul>
</body>
</html>
"""
