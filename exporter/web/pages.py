"""The pages of the exporter: metrics, a landing page, health, readiness and reload."""

import html
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web
from aiohttp.typedefs import Middleware

from exporter.web.bodies import Bodies, Pieces
from exporter.web.places import Places
from exporter.web.rendered import Handler, OtherPage, Rendered


def make_app(
    telemetry_path: str,
    pieces: Pieces,
    not_ready: Callable[[], str | None],
    max_requests: int = 0,
    *,
    reload: Callable[[], Awaitable[str | None]] | None = None,
    subject: str = "",
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
        subject: The sentence of the landing page that says what is counted.
        facts: What the landing page says of the exporter.
        form: Accept header -> a shorter one for which `pieces` renders the same.
        most_bytes: How many bytes all bodies that clients read may have together, zipped.
        other_pages: Pages by their path, with the same limits as the metrics.
    """
    others = {path: page.description for path, page in other_pages.items()}
    pages = {
        telemetry_path: "what Prometheus scrapes",
        **others,
        "/-/ready": "whether the numbers can be trusted now, or what the exporter waits for",
        "/-/healthy": "whether the exporter answers",
    }
    rendered = Rendered(Bodies(pieces, form, most_bytes), Places(max_requests))
    landing = _Landing(pages, subject, facts)
    app = web.Application(middlewares=[landing.explainer()])
    app.router.add_get("/", landing.page)
    app.router.add_get("/favicon.ico", landing.icon)
    app.router.add_get(telemetry_path, rendered.answer)
    for path, page in other_pages.items():
        app.router.add_get(path, rendered.answerer(page.ask))
    _Management(not_ready, reload).add_to(app.router)
    return app


class _Landing:
    """The landing page, and what else is said to a person at a browser.

    Args:
        pages: What each page is, by its path.
        subject: The sentence that says what is counted.
        facts: What the landing page says of the exporter.
    """

    def __init__(self, pages: Mapping[str, str], subject: str, facts: Callable[[], Mapping[str, str]]) -> None:
        self._pages = pages
        self._subject = subject
        self._facts = facts

    async def page(self, _: web.Request) -> web.Response:
        """Show what there is."""
        text = _landing_page(self._pages, self._subject, self._facts())
        return web.Response(text=text, content_type="text/html")

    @staticmethod
    async def icon(_: web.Request) -> web.Response:
        """Show the icon."""
        return web.Response(
            text=_FAVICON, content_type="image/svg+xml", headers={"Cache-Control": "max-age=86400"}
        )

    def explainer(self) -> Middleware:
        """Return the middleware that says what there is, if a path is no page or takes no such request."""

        @web.middleware
        async def explain(request: web.Request, handler: Handler) -> web.StreamResponse:
            try:
                return await handler(request)
            except web.HTTPNotFound:
                text = f"There is no such page. There are /, {', '.join(self._pages)}.\n"
                return web.Response(status=404, text=text)
            except web.HTTPMethodNotAllowed as refusal:
                allowed = sorted(refusal.allowed_methods)
                text = f"{request.path} takes {' and '.join(allowed)}, not {request.method}.\n"
                return web.Response(status=405, text=text, headers={"Allow": ",".join(allowed)})

        return explain


class _Management:
    """What is below /-/: health, readiness and reload.

    Args:
        not_ready: Returns what the exporter still waits for, or None.
        reload: Reads the rules again, and returns what is wrong with them; None if that is not allowed.
    """

    def __init__(
        self, not_ready: Callable[[], str | None], reload: Callable[[], Awaitable[str | None]] | None
    ) -> None:
        self._not_ready = not_ready
        self._reload = reload

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Add the pages."""
        router.add_get("/-/healthy", self._healthy_page)
        router.add_get("/-/ready", self._ready_page)
        router.add_post("/-/reload", self._reload_page)
        router.add_put("/-/reload", self._reload_page)

    @staticmethod
    async def _healthy_page(_: web.Request) -> web.Response:
        return web.Response(text="Healthy\n")

    async def _ready_page(self, _: web.Request) -> web.Response:
        reason = self._not_ready()
        if reason is not None:
            return web.Response(status=503, text=f"Not ready: {reason}\n")
        return web.Response(text="Ready\n")

    async def _reload_page(self, _: web.Request) -> web.Response:
        if self._reload is None:
            return web.Response(status=403, text="Not allowed: see --web.enable-lifecycle\n")
        problem = await self._reload()
        if problem is not None:
            return web.Response(status=500, text=f"Not reloaded: {problem}\n")
        return web.Response(text="Reloaded\n")


def _landing_page(pages: Mapping[str, str], subject: str, facts: Mapping[str, str]) -> str:
    rows = "\n".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(fact)}</td></tr>" for name, fact in facts.items()
    )
    links = "\n".join(
        f'<li><a href="{html.escape(path)}">{html.escape(path)}</a>: {html.escape(what)}</li>'
        for path, what in pages.items()
    )
    return _LANDING_PAGE.format(subject=html.escape(subject), rows=rows, links=links)


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
<p>{subject}</p>
<table>
{rows}
</table>
<ul>
{links}
</ul>
<p>Documentation: the page of metrics describes each of them (<code># HELP</code>), and
<code>proc-connector-exporter --help</code> each flag. So does <code>man proc-connector-exporter</code> where the
Debian package or <code>make install</code> put it. The other pages are in the folder <code>docs</code> of the
source: <code>docs/metrics.md</code>, <code>docs/numbers.md</code>, <code>docs/flags.md</code>,
<code>docs/failures.md</code>.</p>
</body>
</html>
"""

_FAVICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">'
    '<path d="M2 3h5v4H2zM9 1h5v4H9zM9 10h5v4H9zM7 5l2-2M7 5l2 7" fill="#c33" stroke="#c33"/></svg>'
)
