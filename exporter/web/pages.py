"""The pages of the exporter: metrics, a landing page, health, readiness and reload."""

import asyncio
import html
import zlib
from collections.abc import Awaitable, Callable, Iterator

from aiohttp import web

from exporter import __version__

Pieces = Callable[[str], Awaitable[tuple[str, Iterator[bytes]]]]
"""Accept header -> (Content-Type, body in pieces)"""

# Half the time of zlib's default level, for 10 % more bytes.
_GZIP_LEVEL = 3


def accepts_gzip(accept_encoding: str) -> bool:
    """Return whether an Accept-Encoding header allows gzip (RFC 9110: q=0 forbids it)."""
    for item in accept_encoding.split(","):
        name, _, parameters = item.partition(";")
        if name.strip().lower() == "gzip":
            return parameters.replace(" ", "").lower() not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}
    return False


class _Metrics:
    """Answers scrapes, a limited number at once."""

    def __init__(self, pieces: Pieces, max_requests: int) -> None:
        self._pieces = pieces
        self._max_requests = max_requests
        self._under_way = 0

    async def answer(self, request: web.Request) -> web.Response:
        """Answer a scrape, or refuse it at the limit."""
        if self._max_requests and self._under_way >= self._max_requests:
            return web.Response(
                status=503,
                text=f"{self._max_requests} scrapes are under way, which is the limit. Try again later.\n",
            )
        self._under_way += 1
        try:
            response = await self._scrape(request)
            # Written here, and not by aiohttp after the return: until the client has read it, it takes memory.
            await response.prepare(request)
            await response.write_eof()
        except ConnectionError:
            # The client has disconnected.
            pass
        finally:
            self._under_way -= 1
        return response

    async def _scrape(self, request: web.Request) -> web.Response:
        content_type, parts = await self._pieces(request.headers.get("Accept", ""))
        zipped = accepts_gzip(request.headers.get("Accept-Encoding", ""))
        compressor = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS) if zipped else None
        body = bytearray()
        for part in parts:
            body += part if compressor is None else compressor.compress(part)
            # Let the exporter count events between the pieces of a large exposition.
            await asyncio.sleep(0)
        headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
        if compressor is not None:
            body += compressor.flush()
            headers["Content-Encoding"] = "gzip"
        return web.Response(body=bytes(body), headers=headers)


def make_app(
    telemetry_path: str,
    pieces: Pieces,
    not_ready: Callable[[], str | None],
    max_requests: int = 0,
    reload: Callable[[], str | None] | None = None,
) -> web.Application:
    """Build the application.

    Args:
        telemetry_path: The path of the metrics.
        pieces: Renders a scrape.
        not_ready: Returns what the exporter still waits for, or None when its numbers can be trusted.
        max_requests: How many scrapes may be under way at once; 0 for any number.
        reload: Reads the rules again, and returns what is wrong with them; None if reload over HTTP is not
            allowed.
    """

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
    app.router.add_get(telemetry_path, _Metrics(pieces, max_requests).answer)
    app.router.add_get("/-/healthy", healthy)
    app.router.add_get("/-/ready", ready)
    app.router.add_post("/-/reload", reload_rules)
    app.router.add_put("/-/reload", reload_rules)
    return app


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
