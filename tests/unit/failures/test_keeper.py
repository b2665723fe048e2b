"""From a process that fails to the page and the log."""

import json
import logging

import pytest
from host import Host, Thread

from exporter.exposition.exemplars import Exemplar
from exporter.failures.keeper import Keeper
from exporter.failures.log import LOGGER
from exporter.stream.wall_clock import WallClock

CLOCK = WallClock(0, 0)


class Kept:
    """A host, and what keeps its failures."""

    def __init__(self, *, most: int = 1000, log: bool = False) -> None:
        self.host = Host()
        self.host.lives(100, b"sh", 1000)
        self.keeper = Keeper(self.host.pipeline, lambda: self.host.now_ns, lambda: CLOCK, most=most, log=log)

    async def drain(self) -> None:
        self.host.drain()

    def fail(self, tgids: range, comm: bytes = b"make") -> None:
        for tgid in tgids:
            self.host.fork(100, tgid)
            self.host.record(Thread(tgid, comm, 1000), status=0x100)
            self.host.exit(tgid, 0x100)

    async def pids(self) -> list[int]:
        (page,) = self.keeper.pages(self.drain).values()
        _, pieces = await page.ask([("format", "json")], "")("", ())
        return [failure["pid"] for failure in json.loads(b"".join(pieces))["failures"]]


async def test_a_process_that_has_just_failed_is_on_the_page() -> None:
    kept = Kept()
    kept.fail(range(400, 403))
    assert await kept.pids() == [402, 401, 400]
    assert kept.keeper.left_out() == {"page": 0}


async def test_what_a_storm_pushes_out_is_counted() -> None:
    kept = Kept()
    kept.fail(range(400, 401), b"rare")
    kept.fail(range(10_000, 15_000))
    assert await kept.pids() == [*range(14_999, 14_979, -1), 400]
    assert kept.keeper.left_out() == {"page": 4980}


async def test_before_anyone_asks_nothing_is_counted_as_left_out() -> None:
    kept = Kept()
    kept.fail(range(400, 403))
    kept.host.drain()
    assert kept.keeper.left_out() == {"page": 0}
    kept.keeper.refresh()
    assert kept.keeper.left_out() == {"page": 0}


def test_of_none_that_are_kept_nothing_is_noted() -> None:
    kept = Kept(most=0)
    kept.fail(range(400, 403))
    kept.host.drain()
    assert kept.keeper.pages(kept.drain) == {}
    assert kept.keeper.left_out() == {}
    assert kept.host.table.bad_ends.noted == 0


@pytest.mark.parametrize("most", [0, 1000])
def test_failures_are_logged_as_they_happen(caplog: pytest.LogCaptureFixture, most: int) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    kept = Kept(most=most, log=True)
    kept.fail(range(400, 403))
    kept.host.drain()
    assert [vars(record)["pid"] for record in caplog.records] == [400, 401, 402]
    kept.fail(range(1000, 2000))
    kept.host.drain()
    assert len(caplog.records) == 10
    kept.keeper.refresh()
    assert kept.keeper.left_out()["log"] == 993


def test_the_last_failure_of_each_series_is_an_exemplar() -> None:
    host = Host()
    host.lives(100, b"sh", 1000)
    keeper = Keeper(host.pipeline, lambda: host.now_ns, lambda: CLOCK, most=0, log=False, exemplars=True)
    for tgid in (400, 401):
        host.fork(100, tgid)
        host.record(Thread(tgid, b"make", 1000), status=0x100)
        host.exit(tgid, 0x100, parent=100)
        ended_ns = host.now_ns
    host.drain()
    assert keeper.exemplars() == {}
    keeper.refresh()
    assert keeper.exemplars() == {("make", 1000, (), 0x100): Exemplar(401, 100, ended_ns / 1_000_000_000)}
