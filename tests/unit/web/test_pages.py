"""The pages over HTTP, with a renderer that returns only what it was asked for."""

import asyncio
import gzip
import itertools
import re
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient

from deploy.package.environment import ROOT, installed_paths
from exporter.errors import ConfigError
from exporter.web.pages import make_app
from exporter.web.rendered import OtherPage

Client = TestClient[web.Request, web.Application]
AiohttpClient = Callable[..., Awaitable[Client]]

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


async def pieces(accept: str, names: Collection[str]) -> tuple[str, Iterator[bytes]]:
    content_type = OPENMETRICS if "openmetrics" in accept else TEXT
    return content_type, iter(
        [b"# asked for ", accept.encode(), b" ", ",".join(sorted(names)).encode(), b"\n", "é 1\n".encode() * 1000]
    )


def body(accept: str, names: str = "") -> bytes:
    return f"# asked for {accept} {names}\n".encode() + "é 1\n".encode() * 1000


@pytest.fixture
def reasons() -> list[str]:
    """While it is not empty the exporter is not ready."""
    return []


@pytest.fixture
async def client(aiohttp_client: AiohttpClient, reasons: list[str]) -> Client:
    app = make_app("/metrics", pieces, lambda: reasons[0] if reasons else None)
    return await aiohttp_client(app, auto_decompress=False)


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("*/*", TEXT),
        ("text/plain;version=0.0.4", TEXT),
        ("application/openmetrics-text;version=1.0.0,text/plain;q=0.5", OPENMETRICS),
    ],
    ids=["anything", "text", "OpenMetrics"],
)
async def test_metrics_come_in_the_format_that_was_asked_for(
    client: Client, accept: str, content_type: str
) -> None:
    response = await client.get("/metrics", headers={"Accept": accept, "Accept-Encoding": "identity"})
    assert (response.status, response.headers["Content-Type"]) == (200, content_type)
    assert await response.read() == body(accept)


async def test_a_request_without_accept_gets_metrics(client: Client) -> None:
    response = await client.get("/metrics", skip_auto_headers=["Accept"])
    assert (response.status, response.headers["Content-Type"]) == (200, TEXT)


@pytest.mark.parametrize("accepted", ["gzip", "deflate, gzip;q=0.8, br", "GZIP", "gzip; q=0.001"])
async def test_metrics_are_zipped_for_clients_that_accept_gzip(client: Client, accepted: str) -> None:
    response = await client.get("/metrics", headers={"Accept": "*/*", "Accept-Encoding": accepted})
    assert response.headers["Content-Encoding"] == "gzip"
    zipped = await response.read()
    assert gzip.decompress(zipped) == body("*/*")
    assert len(zipped) == int(response.headers["Content-Length"]) < len(body("*/*"))


@pytest.mark.parametrize(
    "accepted", ["identity", "deflate, br", "", "not-gzip", "gzip;q=0", "identity, gzip; q=0.0"]
)
async def test_metrics_are_plain_for_clients_that_do_not_accept_gzip(client: Client, accepted: str) -> None:
    response = await client.get("/metrics", headers={"Accept": "*/*", "Accept-Encoding": accepted})
    assert "Content-Encoding" not in response.headers
    assert await response.read() == body("*/*")


async def test_vary_names_the_headers_that_an_answer_depends_on(client: Client) -> None:
    response = await client.get("/metrics")
    assert {name.strip() for name in response.headers["Vary"].split(",")} == {"Accept", "Accept-Encoding"}


@pytest.mark.parametrize("path", ["/", "/metrics", "/-/healthy", "/-/ready"])
async def test_head_is_get_without_a_body(client: Client, path: str) -> None:
    got = await client.get(path)
    response = await client.head(path)
    assert response.status == got.status == 200
    assert await response.read() == b""
    for header in ("Content-Type", "Content-Length"):
        assert response.headers[header] == got.headers[header]


@pytest.mark.parametrize("path", ["/", "/metrics", "/-/healthy", "/-/ready"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_nothing_can_be_changed(client: Client, method: str, path: str) -> None:
    response = await client.request(method, path)
    assert response.status == 405
    assert set(response.headers["Allow"].split(",")) == {"GET", "HEAD"}
    assert await response.text() == f"{path} takes GET and HEAD, not {method}.\n"


@pytest.mark.parametrize("path", ["/nothing", "/metrics/", "/metrics/1", "/-/", "/-/quit"])
async def test_other_pages_do_not_exist(client: Client, path: str) -> None:
    assert (await client.get(path)).status == 404


async def test_it_is_ready_once_there_is_nothing_to_wait_for(client: Client, reasons: list[str]) -> None:
    reasons.append("the canary has not come back")
    response = await client.get("/-/ready")
    assert (response.status, await response.text()) == (503, "Not ready: the canary has not come back\n")
    reasons.clear()
    assert (await client.get("/-/ready")).status == 200


async def test_it_is_healthy_before_it_is_ready(client: Client, reasons: list[str]) -> None:
    reasons.append("just started")
    assert (await client.get("/-/healthy")).status == 200


@pytest.mark.parametrize(
    ("path", "href"),
    [("/metrics", "/metrics"), ("/a/b", "/a/b"), ('/"><b>&', "/&quot;&gt;&lt;b&gt;&amp;")],
    ids=["usual", "other", "with HTML in it"],
)
async def test_the_landing_page_links_to_the_configured_path(
    aiohttp_client: AiohttpClient, path: str, href: str
) -> None:
    client = await aiohttp_client(make_app(path, pieces, lambda: None))
    response = await client.get("/")
    text = await response.text()
    assert (response.status, response.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert f'<a href="{href}">' in text
    assert {link for link in re.findall('href="([^"]*)"', text) if not link.startswith("/")} == set()
    assert (await client.get(path)).headers["Content-Type"] == TEXT


async def test_the_landing_page_has_the_facts_of_its_moment_as_text(aiohttp_client: AiohttpClient) -> None:
    seconds = itertools.count()
    client = await aiohttp_client(
        make_app("/metrics", pieces, lambda: None, facts=lambda: {"mode": "<b>&", "up for": f"{next(seconds)} s"})
    )
    texts = [await (await client.get("/")).text() for _ in range(2)]
    assert "<tr><th>mode</th><td>&lt;b&gt;&amp;</td></tr>" in texts[0]
    assert [f"<td>{second} s</td>" in text for second, text in enumerate(texts)] == [True, True]


async def test_the_landing_page_says_what_is_counted_and_what_each_page_is(aiohttp_client: AiohttpClient) -> None:
    others = {"/one": OtherPage("one & only", ask)}
    app = make_app("/metrics", pieces, lambda: None, subject="Every <exit>.", other_pages=others)
    text = await (await (await aiohttp_client(app)).get("/")).text()
    assert "<p>Every &lt;exit&gt;.</p>" in text
    links = dict(re.findall(r'<li><a href="[^"]*">([^<]*)</a>: ([^<]*)</li>', text))
    assert list(links) == ["/metrics", "/one", "/-/ready", "/-/healthy"]
    assert links["/one"] == "one &amp; only"
    # More than the last word of the path again.
    assert [path for path, what in links.items() if len(what.split()) < 3] == []


async def test_the_landing_page_says_where_the_documentation_is(client: Client) -> None:
    text = await (await client.get("/")).text()
    [paragraph] = re.findall(r"<p>Documentation: (.*?)</p>", text, re.DOTALL)
    named = set(re.findall(r"<code>(.*?)</code>", paragraph))
    pages = {name for name in named if name.startswith("docs/")}
    assert {"docs/metrics.md", "docs/flags.md"} <= pages
    assert {page for page in pages if not (ROOT / page).is_file()} == set()
    assert "/usr/share/man/man1/proc-connector-exporter.1.gz" in installed_paths("/usr")
    assert named - pages == {
        "# HELP",
        "docs",
        "make install",
        "proc-connector-exporter --help",
        "man proc-connector-exporter",
    }


async def test_the_icon_that_browsers_ask_for_is_a_picture(client: Client) -> None:
    response = await client.get("/favicon.ico")
    assert (response.status, response.headers["Content-Type"]) == (200, "image/svg+xml; charset=utf-8")
    assert re.fullmatch(r'<svg xmlns="http://www\.w3\.org/2000/svg".*</svg>', await response.text())


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_page_that_is_not_there_says_which_are(client: Client, method: str) -> None:
    response = await client.request(method, "/metric")
    assert response.status == 404
    assert "There are /, /metrics, /-/ready, /-/healthy." in await response.text()


@pytest.mark.parametrize(
    ("query", "names"), [("", ""), ("?name[]=a", "a"), ("?name[]=a&name[]=b_total&other=c", "a,b_total")]
)
async def test_a_scrape_may_be_of_some_names_only(client: Client, query: str, names: str) -> None:
    response = await client.get(f"/metrics{query}", headers={"Accept": "*/*", "Accept-Encoding": "identity"})
    assert await response.read() == body("*/*", names)


async def test_metrics_are_at_the_configured_path_only(aiohttp_client: AiohttpClient) -> None:
    client = await aiohttp_client(make_app("/other", pieces, lambda: None))
    assert [(await client.get(path)).status for path in ("/other", "/metrics")] == [200, 404]


async def test_others_are_served_while_a_scrape_is_written(aiohttp_client: AiohttpClient) -> None:
    answers: list[int] = []

    def until_answered() -> Iterator[bytes]:
        # If a scrape held up the event loop, the other request would be answered after all of it.
        give_up = time.monotonic() + 30
        while time.monotonic() < give_up:
            if answers:
                return
            yield b"x"
        answers.append(0)

    async def endless(_: str, __: Collection[str]) -> tuple[str, Iterator[bytes]]:
        return TEXT, until_answered()

    client = await aiohttp_client(make_app("/metrics", endless, lambda: None))

    async def ask() -> None:
        answers.append((await client.get("/-/healthy")).status)

    await asyncio.gather(client.get("/metrics"), ask())
    assert answers == [200]


# -- other pages that are rendered ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """What another page was asked for."""

    query: tuple[tuple[str, str], ...]
    accept: str

    async def __call__(self, accept: str, names: Collection[str]) -> tuple[str, Iterator[bytes]]:
        return "text/html; charset=utf-8", iter([repr(self.query).encode(), self.accept.encode() * 1000])


def ask(query: Sequence[tuple[str, str]], accept: str) -> Asked:
    if ("bad", "1") in query:
        raise ConfigError("bad must not be 1")
    return Asked(tuple(query), accept)


@pytest.fixture
async def client_of_more(aiohttp_client: AiohttpClient) -> Client:
    app = make_app("/metrics", pieces, lambda: None, 1, other_pages={"/failures": OtherPage("failures", ask)})
    return await aiohttp_client(app, auto_decompress=False)


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
async def test_another_page_gets_query_and_accept_and_is_kept_nowhere(
    client_of_more: Client, encoding: str
) -> None:
    headers = {"Accept": "a/b", "Accept-Encoding": encoding}
    response = await client_of_more.get("/failures?x=1&x=2&y=%3Cb%3E", headers=headers)
    assert (response.status, response.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    text = await response.read()
    text = gzip.decompress(text) if encoding == "gzip" else text
    assert text == b"(('x', '1'), ('x', '2'), ('y', '<b>'))" + b"a/b" * 1000


async def test_a_query_that_is_wrong_is_said_in_plain_text(client_of_more: Client) -> None:
    response = await client_of_more.get("/failures?bad=1")
    assert (response.status, await response.text()) == (400, "bad must not be 1\n")
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"


async def test_another_page_is_linked_and_listed(client_of_more: Client) -> None:
    assert '<a href="/failures">' in await (await client_of_more.get("/")).text()
    assert "/metrics, /failures, /-/ready" in await (await client_of_more.get("/nothing")).text()


async def test_another_page_can_only_be_read(client_of_more: Client) -> None:
    assert (await client_of_more.post("/failures")).status == 405
    response = await client_of_more.head("/failures")
    assert (response.status, await response.read()) == (200, b"")


async def test_another_page_takes_a_place_as_a_scrape_does(aiohttp_client: AiohttpClient) -> None:
    rendering, go_on = asyncio.Event(), asyncio.Event()

    async def slow(_: str, __: Collection[str]) -> tuple[str, Iterator[bytes]]:
        rendering.set()
        await go_on.wait()
        return TEXT, iter([b"x"])

    pages = {"/failures": OtherPage("failures", lambda query, accept: slow)}
    client = await aiohttp_client(make_app("/metrics", pieces, lambda: None, 1, other_pages=pages))
    first = asyncio.ensure_future(client.get("/failures"))
    await rendering.wait()
    assert (await client.get("/metrics")).status == 503
    go_on.set()
    assert (await first).status == 200
    assert (await client.get("/metrics")).status == 200


# -- reloading -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_reloading_is_forbidden_unless_it_was_allowed(client: Client, method: str) -> None:
    response = await client.request(method, "/-/reload")
    assert response.status == 403
    assert "--web.enable-lifecycle" in await response.text()


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_reloading_says_what_came_of_it(aiohttp_client: AiohttpClient, method: str) -> None:
    problems: list[str | None] = ["rules.yml:3: no good", None]

    async def reload() -> str | None:
        return problems.pop(0)

    client = await aiohttp_client(make_app("/metrics", pieces, lambda: None, reload=reload))
    response = await client.request(method, "/-/reload")
    assert (response.status, await response.text()) == (500, "Not reloaded: rules.yml:3: no good\n")
    response = await client.request(method, "/-/reload")
    assert (response.status, await response.text()) == (200, "Reloaded\n")
    assert (await client.get("/-/reload")).status == 405
