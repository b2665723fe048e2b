"""exporter/web/fair_queue.py: turns, and who is refused."""

import asyncio
import threading
from collections import deque

import pytest

from exporter.web.fair_queue import FairQueue, TooManyWaitingError


class Rig:
    """A queue whose thread waits until it may go on."""

    def __init__(self) -> None:
        self.queue = FairQueue("test")
        self.proceed = threading.Event()
        self.done: list[str] = []

    def ask(self, peer: str) -> "asyncio.Future[bool]":
        def work() -> bool:
            self.proceed.wait(30)
            self.done.append(peer)
            return True

        return asyncio.ensure_future(self.queue.run(peer, work))


async def turn() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def finish(rig: Rig, *asked: "asyncio.Future[bool]") -> list[object]:
    rig.proceed.set()
    results = await asyncio.gather(*asked, return_exceptions=True)
    rig.queue.close()
    return [one if isinstance(one, bool) else type(one) for one in results]


async def test_peers_take_turns() -> None:
    rig = Rig()
    asked = [rig.ask("a")]
    await turn()
    asked += [rig.ask(peer) for peer in ("a", "a", "b", "c")]
    await turn()
    assert await finish(rig, *asked) == [True] * 5
    assert rig.done == ["a", "b", "c", "a", "a"]


async def test_peers_that_belong_here_go_first() -> None:
    rig = Rig()
    rig.queue.prefer("c")
    asked = [rig.ask("a")]
    await turn()
    asked += [rig.ask(peer) for peer in ("a", "b", "c", "c")]
    await turn()
    await finish(rig, *asked)
    assert rig.done == ["a", "c", "c", "b", "a"]


async def test_a_peer_that_asks_too_often_is_refused_at_once() -> None:
    rig = Rig()
    asked = [rig.ask("a")]
    await turn()
    asked += [rig.ask("a") for _ in range(4)]
    await turn()
    with pytest.raises(TooManyWaitingError):
        await rig.ask("a")
    assert await finish(rig, *asked) == [True] * 5


async def test_when_too_many_wait_the_peer_that_has_most_gives_one_up() -> None:
    rig = Rig()
    asked = [rig.ask("first")]
    await turn()
    asked += [rig.ask(f"{n % 16}") for n in range(32)]
    await turn()
    new = rig.ask("new")
    await turn()
    results = await finish(rig, new, *asked)
    assert results[0] is True
    assert results.count(TooManyWaitingError) == 1


async def test_a_client_that_disconnects_as_another_takes_its_place_is_no_error() -> None:
    rig = Rig()
    asked = [rig.ask("first")]
    await turn()
    asked += [rig.ask(f"{n % 8}") for n in range(32)]
    await turn()
    # The newcomer comes in the same turn, before the one that is cancelled wakes up.
    new = rig.ask("new")
    asked[-1].cancel()
    await turn()
    assert (await finish(rig, new, *asked)).count(True) == 33


async def test_peers_that_come_and_go_leave_nothing_behind() -> None:
    rig = Rig()
    rig.proceed.set()
    waiting = deque(rig.ask(f"{n}") for n in range(4))
    for n in range(4, 1000):
        # The queue is never empty.
        waiting.append(rig.ask(f"{n}"))
        await waiting.popleft()
    remembered = len(rig.queue._turns)  # noqa: SLF001 - what is left behind
    await asyncio.gather(*waiting)
    assert remembered <= 256
    rig.queue.close()


async def test_a_bug_in_the_work_is_raised_where_it_is_waited_for() -> None:
    queue = FairQueue("test")
    with pytest.raises(ZeroDivisionError):
        await queue.run("a", lambda: bool(1 // 0))
    assert await queue.run("a", lambda: True)
    queue.close()
