"""exporter/runtimes/container_watch.py and socket_client.py against an engine that does all that engines do."""

import asyncio
import contextlib
import json
import logging
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from engine_api import FakeEngine, make_container_id, serving_engine
from kubernetes_api import until

from exporter.runtimes.container_names import ContainerNames
from exporter.runtimes.container_watch import ContainerWatch, Pace

# No test waits for these; a pause is as short as can be.
QUICK = Pace(first_pause=0.01, longest_pause=0.05, steady_seconds=3600)


class Followed:
    """An engine, and the exporter's side of it."""

    def __init__(self, engine: FakeEngine, path: Path, pace: Pace = QUICK) -> None:
        self.engine = engine
        self.names = ContainerNames()
        self.watch = ContainerWatch(str(path), self.names, pace=pace)

    async def start(self) -> None:
        """Begin, and wait until events are followed."""
        self.watch.start()
        await until(lambda: self.engine.streaming == 1 and self.watch.is_connected)

    async def learn(self, name: str) -> str:
        """Start a container, and wait until it has its name; returns its id."""
        container_id = make_container_id()
        self.engine.start(container_id, name)
        await until(lambda: self.names.lookup(container_id) == name)
        return container_id


@contextlib.asynccontextmanager
async def following(path: Path, pace: Pace = QUICK) -> AsyncIterator[Followed]:
    async with serving_engine(path) as engine:
        followed = Followed(engine, path, pace)
        try:
            yield followed
        finally:
            await followed.watch.stop()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "engine.sock"


@pytest.fixture
async def followed(path: Path) -> AsyncIterator[Followed]:
    async with following(path) as followed:
        yield followed


async def test_containers_are_listed_and_then_followed(followed: Followed) -> None:
    engine, web = followed.engine, make_container_id()
    engine.start(web, "web")
    await followed.start()
    assert followed.names.lookup(web) == "web"
    job = await followed.learn("job")
    engine.rename(job, "job-2")
    await until(lambda: followed.names.lookup(job) == "job-2")
    engine.end(web)
    engine.end(job, "died")
    await until(lambda: len(followed.names) == 0)
    assert (followed.names.lookup(web), followed.names.lookup(job)) == ("web", "job-2")
    assert engine.lists() == 1
    assert not followed.watch.failures


async def test_a_container_that_starts_and_ends_while_the_list_is_made_has_its_name(followed: Followed) -> None:
    engine = followed.engine
    engine.list_delay = asyncio.Event()
    followed.watch.start()
    await until(lambda: engine.streaming == 1 and engine.lists() == 1)
    brief, renamed = make_container_id(), make_container_id()
    engine.start(brief, "brief")
    engine.start(renamed, "before")
    engine.end(brief)
    engine.rename(renamed, "after")
    engine.list_delay.set()
    await until(lambda: followed.names.lookup(renamed) == "after")
    assert followed.names.lookup(brief) == "brief"
    assert len(followed.names) == 1


async def test_an_engine_that_answers_with_the_first_event_only_is_followed(followed: Followed) -> None:
    followed.engine.answers_late = True
    followed.watch.start()
    async with asyncio.timeout(30):
        await followed.watch.tried(60)
    await until(lambda: followed.watch.is_connected)
    await followed.learn("web")
    assert not followed.watch.failures


async def test_no_connection_is_used_twice(followed: Followed) -> None:
    await followed.start()
    assert {asked.headers["connection"] for asked in followed.engine.asked} == {"close"}
    assert [sorted(asked.path for asked in followed.engine.asked)] == [["/containers/json", "/events"]]


async def test_slow_bytes_come_through(followed: Followed) -> None:
    engine = followed.engine
    engine.piece_bytes = 1
    web = make_container_id()
    engine.start(web, "web", Labels={"ä": "ö"})
    await followed.start()
    assert followed.names.lookup(web) == "web"
    await followed.learn("job")


async def test_torn_connections_are_opened_anew_and_what_came_meanwhile_is_known(
    followed: Followed, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await followed.start()
    for number in range(5):
        container_id = make_container_id()
        followed.engine.tear()
        # It is gone before the next list.
        followed.engine.start(container_id, f"brief-{number}")
        followed.engine.end(container_id)
        await until(lambda i=container_id, n=number: followed.names.lookup(i) == f"brief-{n}")  # type: ignore[misc]
        await until(lambda: followed.engine.streaming == 1 and followed.watch.is_connected)
    assert set(followed.watch.failures) == {"torn"}
    assert followed.watch.failures["torn"] >= 5
    assert sum(record.levelname == "WARNING" for record in caplog.records) == 1


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"nonsense\r\n\r\n", "malformed"),
        (b"HTTP/1.1 500 Oh\r\nContent-Length: 19\r\n\r\n" + b'{"message": "no db"}'[:19], "status"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "malformed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[", "torn"),
        (b"", "torn"),
    ],
    ids=["no HTTP", "an error", "no list", "half a list", "nothing"],
)
async def test_a_wrong_answer_is_counted_and_asked_for_again(
    followed: Followed, answer: bytes, reason: str
) -> None:
    # Both requests get it. A server that hangs up without an answer is asked once more by aiohttp itself.
    followed.engine.next_answers.extend([answer] * 4)
    await followed.start()
    await followed.learn("web")
    assert followed.watch.failures[reason] >= 1


async def test_broken_chunks_in_the_events_end_them_at_once(followed: Followed) -> None:
    """aiohttp closes the connection then, and raises nothing."""
    await followed.start()
    followed.engine.send_raw(b"3\r\nabc\r\nx")
    await until(lambda: followed.engine.lists() == 2 and followed.watch.is_connected)
    await followed.learn("web")
    assert followed.watch.failures == {"malformed": 1}


async def test_a_container_that_is_described_at_too_great_length_hides_no_other(followed: Followed) -> None:
    engine, huge, web = followed.engine, make_container_id(), make_container_id()
    engine.start(huge, "huge", Labels={"padding": "[" * 200_000})
    engine.start(web, "web")
    await followed.start()
    assert followed.names.lookup(web) == "web"
    engine.send(b'{"padding": "' + b"x" * (2 << 20) + b'"}\n')
    await followed.learn("job")
    # What was skipped is counted when all that came with it has been taken.
    await until(lambda: followed.watch.failures["malformed"] > 1)
    assert followed.watch.failures == {"malformed": 2}
    assert engine.lists() == 1


async def test_an_event_that_cannot_be_read_tears_nothing(followed: Followed) -> None:
    await followed.start()
    connections = len(followed.engine.asked)
    for line in (b"nonsense\n", b"[]\n", b'{"Type": "container"}\n', b"\n", b"\xff\xfe\n"):
        followed.engine.send(line)
    followed.engine.happen("connect", make_container_id(), "bridge", "network")
    await followed.learn("web")
    assert followed.watch.failures == {"malformed": 4}
    assert len(followed.engine.asked) == connections


async def test_hostile_names_are_no_names(followed: Followed) -> None:
    await followed.start()
    hostile = ["<unknown>", "a b", "a/b", 254 * "a", "ä", "", "\x00"]
    ids = [make_container_id() for _ in hostile]
    for container_id, name in zip(ids, hostile, strict=True):
        followed.engine.start(container_id, name)
    await followed.learn("web")
    assert {followed.names.lookup(container_id) for container_id in ids} == {None}
    # And in a list.
    followed.engine.tear()
    await until(lambda: followed.engine.lists() == 2 and followed.watch.is_connected)
    assert {followed.names.lookup(container_id) for container_id in ids} == {None}
    assert len(followed.names) == 1


async def test_a_thousand_containers_with_long_labels_take_little_memory(followed: Followed) -> None:
    engine = followed.engine
    ids = [make_container_id() for _ in range(1000)]
    for number, container_id in enumerate(ids):
        engine.start(container_id, f"c-{number}", Labels={"padding": f"{number:010d}" * 1000})
    engine.piece_bytes = 10_007
    listed = sum(len(json.dumps(each)) for each in engine.containers.values())
    assert listed > 10_000_000
    tracemalloc.start(1)
    before = tracemalloc.get_traced_memory()[0]
    await followed.start()
    # The engine's own list is among what was traced; what stays is the exporter's.
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert all(followed.names.lookup(i) == f"c-{number}" for number, i in enumerate(ids))
    assert after - before < 2_000_000


async def test_an_engine_that_is_not_there_is_tried_again_with_growing_pauses(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watch = ContainerWatch(str(path), ContainerNames(), pace=QUICK)
    watch.start()
    try:
        async with asyncio.timeout(30):
            await watch.tried(60)
        await until(lambda: watch.failures["unreachable"] >= 3)
        assert not watch.is_connected
        async with serving_engine(path) as engine:
            await until(lambda: engine.streaming == 1 and watch.is_connected)
        await until(lambda: not watch.is_connected)
    finally:
        await watch.stop()
    [said] = [record for record in caplog.records if record.__dict__.get("reason") == "unreachable"]
    assert said.__dict__["remedy"] == "--containers.socket"


async def test_what_has_failed_and_lasts_again_is_logged_once(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with following(path, QUICK._replace(steady_seconds=0.01)) as followed:
        await followed.start()
        followed.engine.tear()
        await until(lambda: "again" in caplog.text)
        await followed.learn("web")
    assert caplog.text.count("names of containers are up to date again") == 1


async def test_an_engine_that_never_answers_delays_the_start_by_no_more_than_is_allowed(path: Path) -> None:
    async with following(path) as followed:
        followed.engine.list_delay = asyncio.Event()
        followed.watch.start()
        # Both connections are open: that is all that privileges are needed for.
        async with asyncio.timeout(30):
            await followed.watch.tried(60)
        assert followed.engine.streaming == 1 or len(followed.engine.asked) <= 2
        assert not followed.watch.is_connected
