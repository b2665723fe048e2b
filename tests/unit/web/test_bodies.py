"""exporter/web/bodies.py: one rendering for all who ask at the same time, and a bound for all bodies."""

import asyncio
import contextlib
import gzip
import os
from collections.abc import Collection, Iterator
from functools import partial

from exporter.web.bodies import Bodies, Body


class Renderer:
    """Counts what is rendered, and goes on when it is told to."""

    def __init__(self, size: int = 100_000) -> None:
        self.forms: list[str] = []
        self.proceed = asyncio.Event()
        self.size = size

    async def pieces(self, form: str, names: Collection[str]) -> tuple[str, Iterator[bytes]]:
        self.forms.append(" ".join([form, *sorted(names)]))
        await self.proceed.wait()
        return "text/plain", iter([b"%d " % len(self.forms), os.urandom(self.size)])


def text(body: Body) -> bytes:
    return b"".join(body.pieces(zipped=False))


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_who_asks_while_a_body_is_rendered_gets_the_next_one_together() -> None:
    renderer = Renderer()
    bodies = Bodies(renderer.pieces, str, 1 << 20)
    first = asyncio.ensure_future(bodies.render("a"))
    await turn()
    later = [asyncio.ensure_future(bodies.render("a")) for _ in range(10)]
    await turn()
    renderer.proceed.set()
    got = [await one for one in (first, *later)]
    assert renderer.forms == ["a", "a"]
    assert len({id(body) for body in got}) == 2
    assert {text(body)[:2] for body in got[1:]} == {b"2 "}


async def test_each_set_of_names_has_a_body_of_its_own() -> None:
    renderer = Renderer()
    bodies = Bodies(renderer.pieces, str, 1 << 20)
    asked = [frozenset[str](), frozenset({"x", "y"}), frozenset({"y", "x"})]
    all_asked = [asyncio.ensure_future(bodies.render("a", names)) for names in asked]
    renderer.proceed.set()
    got = [await one for one in all_asked]
    assert renderer.forms == ["a", "a x y"]
    assert got[1] is got[2]


async def test_accept_headers_of_one_form_share_a_body() -> None:
    renderer = Renderer()
    renderer.proceed.set()
    bodies = Bodies(renderer.pieces, lambda accept: accept[:1], 1 << 20)
    await asyncio.gather(*(bodies.render(accept) for accept in ("a1", "a2", "b1", "a3")))
    assert sorted(renderer.forms) == ["a", "b"]


async def test_a_body_for_which_no_client_waits_any_more_is_not_rendered() -> None:
    renderer = Renderer()
    bodies = Bodies(renderer.pieces, str, 1 << 20)
    first, second = (asyncio.ensure_future(bodies.render(form)) for form in "ab")
    await turn()
    second.cancel()
    await turn()
    renderer.proceed.set()
    await first
    await turn()
    assert renderer.forms == ["a"]
    assert text(await bodies.render("b")).startswith(b"2 ")


async def test_the_zipped_form_is_the_plain_one_zipped() -> None:
    renderer = Renderer()
    renderer.proceed.set()
    body = await Bodies(renderer.pieces, str, 1 << 20).render("")
    zipped = b"".join(body.pieces(zipped=True))
    assert gzip.decompress(zipped) == text(body)
    assert (len(zipped), len(text(body))) == (body.zipped_bytes, body.plain_bytes)


async def test_readers_of_the_oldest_body_are_cut_when_all_are_too_many_bytes() -> None:
    renderer = Renderer(100_000)
    renderer.proceed.set()
    bodies = Bodies(renderer.pieces, str, 250_000)
    cut: list[str] = []
    with contextlib.ExitStack() as reading:
        for name in "abc":
            reading.enter_context(bodies.read(await bodies.render(""), partial(cut.append, name)))
    assert cut == ["a"]


async def test_one_body_can_be_read_however_long_it_is() -> None:
    renderer = Renderer(100_000)
    renderer.proceed.set()
    bodies = Bodies(renderer.pieces, str, 1)
    with bodies.read(await bodies.render(""), lambda: None):
        pass


async def test_a_body_with_all_waits_for_no_more_than_one_with_some_names() -> None:
    renderer = Renderer()
    bodies = Bodies(renderer.pieces, str, 1 << 20)
    some = [asyncio.ensure_future(bodies.render("a", frozenset({f"{n}"}))) for n in range(20)]
    await turn()
    whole = asyncio.ensure_future(bodies.render("a"))
    await turn()
    renderer.proceed.set()
    await asyncio.gather(whole, *some)
    assert renderer.forms.index("a") <= 2
    assert len(renderer.forms) == 21


async def test_another_page_has_a_body_of_its_own_and_equal_ones_share_it() -> None:
    renderer, other = Renderer(), Renderer()
    bodies = Bodies(renderer.pieces, str, 1 << 20)
    all_asked = [
        asyncio.ensure_future(bodies.render("a", page=page)) for page in (None, other.pieces, other.pieces)
    ]
    renderer.proceed.set()
    other.proceed.set()
    got = [await one for one in all_asked]
    assert (renderer.forms, other.forms) == (["a"], [""])
    assert got[1] is got[2]
    assert got[0] is not got[1]


async def test_other_pages_do_not_keep_the_metrics_waiting() -> None:
    renderer = Renderer()
    others = [Renderer() for _ in range(10)]
    bodies = Bodies(renderer.pieces, str, 1 << 20)
    pages = [asyncio.ensure_future(bodies.render("a", page=other.pieces)) for other in others]
    await turn()
    metrics = asyncio.ensure_future(bodies.render("a"))
    renderer.proceed.set()
    others[0].proceed.set()
    await metrics
    # Of the others, one that was under way and one that came between.
    assert sum(page.done() for page in pages) <= 2
    for page in pages:
        page.cancel()
