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


async def read_well(rig: Rig, peer: str, times: int = 1) -> None:
    """Read answers as an honest client does."""
    for _ in range(times):
        async with rig.places.taken(peer, lambda: rig.cut.append(peer)) as place:
            place.begin_to_send()
            place.send(100_000)


async def ask_for_the_head(rig: Rig, peer: str) -> None:
    async with rig.places.taken(peer, lambda: rig.cut.append(peer)) as place:
        place.begin_to_send()


async def test_a_peer_that_has_read_an_answer_goes_before_one_that_has_not() -> None:
    rig = Rig(1)
    await read_well(rig, "good")
    await rig.take("new")
    await rig.take("good")
    assert rig.cut == ["new"]
    with pytest.raises(NoPlaceError):
        await rig.take("new")


async def test_a_peer_that_has_read_more_answers_goes_before_one_that_has_read_few() -> None:
    rig = Rig(1)
    await read_well(rig, "good", 10)
    await read_well(rig, "hostile", 9)
    await rig.take("hostile")
    await rig.take("good")
    assert rig.cut == ["hostile"]


async def test_an_answer_without_a_body_is_none_that_was_read() -> None:
    rig = Rig(1)
    await read_well(rig, "good")
    for _ in range(9):
        await ask_for_the_head(rig, "hostile")
    await rig.take("hostile")
    await rig.take("good")
    assert rig.cut == ["hostile"]


async def test_a_peer_that_was_too_slow_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(1)
    await read_well(rig, "hostile", 99)
    monkeypatch.setattr(places, "_SLOW_SECONDS", -1.0)
    async with rig.places.taken("hostile", lambda: None) as place:
        place.begin_to_send()
    monkeypatch.undo()
    monkeypatch.setattr(places, "_PATIENCE_SECONDS", 0.0)
    await rig.take("hostile")
    # One of which nothing is known goes first.
    await rig.take("new")
    assert rig.cut == ["hostile"]


async def test_a_client_whose_place_was_given_away_has_not_read_well() -> None:
    rig = Rig(1)
    await read_well(rig, "good", 2)
    async with rig.places.taken("hostile", lambda: rig.cut.append("first")) as place:
        place.begin_to_send()
        place.send(1)
        await read_well(rig, "good")
        # It goes on as if nothing had happened.
    await rig.take("hostile")
    await rig.take("new")
    assert rig.cut == ["first", "hostile"]


async def test_a_peer_of_high_standing_may_have_more_places_than_a_newcomer() -> None:
    rig = Rig(2)
    await read_well(rig, "good", 2)
    await rig.take("good")
    await rig.take("good")
    with pytest.raises(NoPlaceError):
        await rig.take("new")
    assert rig.cut == []


async def test_any_number_of_peers_do_not_make_a_good_one_forgotten() -> None:
    rig = Rig(1)
    await read_well(rig, "good", 3)
    for n in range(3000):
        await read_well(rig, f"{n}")
    await rig.take("2999")
    await rig.take("good")
    assert rig.cut == ["2999"]


async def test_without_a_limit_each_gets_a_place() -> None:
    rig = Rig(0)
    for _ in range(100):
        await rig.take("a")
    assert rig.cut == []
