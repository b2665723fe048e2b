"""Answers requests for what is rendered: a limited number at once, each written as fast as its client reads."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

from aiohttp import web

from exporter.errors import ConfigError
from exporter.web.bodies import Bodies, Body, Pieces
from exporter.web.places import NoPlaceError, Place, Places

# What is shown of single processes stays in no cache, and is what its type says.
_NOT_KEPT = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_NO_PLACE = "{count} scrapes are under way, which is the limit. Try again later.\n"
# A client that reads as fast as it is sent to gets so many pieces in one turn of the event loop.
_PIECES_PER_TURN = 8


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

    description: str
    """What it is, for the landing page."""
    ask: Ask


class Rendered:
    """Answers requests for what is rendered.

    Args:
        bodies: Renders.
        places: How many requests may be under way.
    """

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
