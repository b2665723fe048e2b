"""exporter/web/places.py: who gets a place, and who has to give one up."""

import contextlib

import pytest

from exporter.web import places
from exporter.web.places import NoPlaceError, Place, Places


class Rig:
    """Places of which each is taken until it is cut or left."""

    def __init__(self, count: int) -> None:
        self.places = Places(count)
        self.stack = contextlib.AsyncExitStack()
        self.cut: list[str] = []

    async def take(self, peer: str, name: str = "") -> Place:
        entered = self.places.taken(peer, lambda: self.cut.append(name or peer))
        return await self.stack.enter_async_context(entered)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "_PATIENCE_SECONDS", 0.0)


async def test_a_peer_with_many_places_gives_one_to_a_newcomer() -> None:
    rig = Rig(3)
    for peer in ("a", "b", "b"):
        await rig.take(peer)
    await rig.take("c")
    assert rig.cut == ["b"]


async def test_a_peer_that_has_its_share_is_refused() -> None:
    rig = Rig(2)
    await rig.take("a")
    await rig.take("b")
    for peer in ("a", "b", "c"):
        with pytest.raises(NoPlaceError):
            await rig.take(peer)
    assert rig.cut == []


async def test_the_client_that_is_furthest_behind_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "_SLOW_SECONDS", -1.0)
    rig = Rig(2)
    quick, slow = await rig.take("a", "quick"), await rig.take("a", "slow")
    quick.begin_to_send()
    slow.begin_to_send()
    quick.send(1_000_000)
    await rig.take("a")
    assert rig.cut == ["slow"]


async def test_a_peer_that_has_read_an_answer_goes_before_one_that_has_not() -> None:
    rig = Rig(1)
    async with rig.places.taken("good", lambda: None):
        pass
    await rig.take("new")
    await rig.take("good")
    assert rig.cut == ["new"]
    with pytest.raises(NoPlaceError):
        await rig.take("new")


async def test_without_a_limit_each_gets_a_place() -> None:
    rig = Rig(0)
    for _ in range(100):
        await rig.take("a")
    assert rig.cut == []
