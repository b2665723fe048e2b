"""The pages of the exporter: metrics, a landing page, health, readiness and reload."""

import asyncio
import html
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

from aiohttp import web

from exporter.errors import ConfigError
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


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Ask = Callable[[Sequence[tuple[str, str]], str], Pieces]
"""Query, Accept header -> what renders the answer; raises ConfigError if the query is wrong."""


class OtherPage(NamedTuple):
    """A page that is rendered for each request, as the metrics are."""

    name: str
    ask: Ask


class _Rendered:
    """Answers requests for what is rendered, a limited number at once."""

    def __init__(self, bodies: Bodies, places: Places) -> None:
        self._bodies = bodies
        self._places = places

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer a scrape, or refuse it at the limit."""
        names = frozenset(request.query.getall("name[]", ()))
        return await self._answer(request, lambda accept: self._bodies.render(accept, names))

    def answerer(self, ask: Ask) -> Handler:
        """Return what answers requests for another page."""

        async def answer(request: web.Request) -> web.StreamResponse:
            try:
                page = ask(list(request.query.items()), request.headers.get("Accept", ""))
            except ConfigError as error:
                raise web.HTTPBadRequest(text=f"{error}\n") from error
            return await self._answer(request, lambda accept: self._bodies.render(accept, page=page), _NOT_KEPT)

        return answer

    async def _answer(
        self,
        request: web.Request,
        render: Callable[[str], Awaitable[Body]],
        headers: Mapping[str, str] = {},
    ) -> web.StreamResponse:
        transport = request.transport
        peer = request.get_extra_info("peer") or request.remote or ""
        response: web.StreamResponse = web.Response(status=503, text=_NO_PLACE.format(count=self._places.count))
        try:
            async with self._places.taken(peer, lambda: None if transport is None else transport.abort()) as place:
                body = await render(request.headers.get("Accept", ""))
                with self._bodies.read(body, place.cut):
                    zipped = accepts_gzip(request.headers.get("Accept-Encoding", ""))
                    response = _head(body, headers, zipped=zipped)
                    # Written here, and not by aiohttp after the return: until the client has read it, it takes
                    # memory, and a place.
                    await _write(request, response, body, place, zipped=zipped)
        except NoPlaceError:
            pass
        except ConnectionError:
            # The client has disconnected.
            pass
        return response


def _head(body: Body, headers: Mapping[str, str], *, zipped: bool) -> web.StreamResponse:
    all_headers = {"Content-Type": body.content_type, "Vary": "Accept, Accept-Encoding", **headers}
    if zipped:
        all_headers["Content-Encoding"] = "gzip"
    response = web.StreamResponse(headers=all_headers)
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
    *,
    reload: Callable[[], Awaitable[str | None]] | None = None,
    facts: Callable[[], Mapping[str, str]] = dict,
    form: Callable[[str], str] = str,
    most_bytes: int = 32 << 20,
    other_pages: Mapping[str, OtherPage] = {},
) -> web.Application:
    """Build the application.

    Args:
        telemetry_path: The path of the metrics.
        pieces: Renders a scrape.
        not_ready: Returns what the exporter still waits for, or None when its numbers can be trusted.
        max_requests: How many scrapes may be under way at once; 0 for any number.
        reload: Reads the rules again, and returns what is wrong with them; None if reload over HTTP is not
            allowed.
        facts: What the landing page says of the exporter.
        form: Accept header -> a shorter one for which `pieces` renders the same.
        most_bytes: How many bytes all bodies that clients read may have together, zipped.
        other_pages: Pages by their path, with the same limits as the metrics.
    """
    others = {path: page.name for path, page in other_pages.items()}
    pages = {telemetry_path: "metrics", **others, "/-/ready": "ready", "/-/healthy": "healthy"}
    rendered = _Rendered(Bodies(pieces, form, most_bytes), Places(max_requests))

    async def landing_page(_: web.Request) -> web.Response:
        return web.Response(text=_landing_page(pages, facts()), content_type="text/html")

    async def favicon(_: web.Request) -> web.Response:
        return web.Response(
            text=_FAVICON, content_type="image/svg+xml", headers={"Cache-Control": "max-age=86400"}
        )

    @web.middleware
    async def explain_not_found(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPNotFound:
            return web.Response(status=404, text=f"There is no such page. There are /, {', '.join(pages)}.\n")

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
        problem = await reload()
        if problem is not None:
            return web.Response(status=500, text=f"Not reloaded: {problem}\n")
        return web.Response(text="Reloaded\n")

    app = web.Application(middlewares=[explain_not_found])
    app.router.add_get("/", landing_page)
    app.router.add_get("/favicon.ico", favicon)
    app.router.add_get(telemetry_path, rendered.answer)
    for path, page in other_pages.items():
        app.router.add_get(path, rendered.answerer(page.ask))
    app.router.add_get("/-/healthy", healthy)
    app.router.add_get("/-/ready", ready)
    app.router.add_post("/-/reload", reload_rules)
    app.router.add_put("/-/reload", reload_rules)
    return app


# What is shown of single processes stays in no cache, and is what its type says.
_NOT_KEPT = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_NO_PLACE = "{count} scrapes are under way, which is the limit. Try again later.\n"


def _landing_page(pages: Mapping[str, str], facts: Mapping[str, str]) -> str:
    rows = "\n".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(fact)}</td></tr>" for name, fact in facts.items()
    )
    links = "\n".join(
        f'<li><a href="{html.escape(path)}">{html.escape(path)}</a>: {name}</li>' for path, name in pages.items()
    )
    return _LANDING_PAGE.format(rows=rows, links=links)


_LANDING_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>proc-connector-exporter</title>
<link rel="icon" href="/favicon.ico" type="image/svg+xml">
</head>
<body>
<h1>proc-connector-exporter</h1>
<p>Every fork, exec, exit and non-zero exit of this host.</p>
<table>
{rows}
</table>
<ul>
{links}
</ul>
<p>Metrics and flags are described in <code>docs/</code> and in <code>man proc-connector-exporter</code>.</p>
</body>
</html>
"""

_FAVICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">'
    '<path d="M2 3h5v4H2zM9 1h5v4H9zM9 10h5v4H9zM7 5l2-2M7 5l2 7" fill="#c33" stroke="#c33"/></svg>'
)
