"""exporter/kubernetes/pod_watch.py and api_client.py against an API that does all that an API does.

The tests make the pods, so they know what each container is called.
"""

import asyncio
import contextlib
import gc
import logging
import random
import subprocess
import sys
import tracemalloc
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from kernel.harness import free_port
from kubernetes_api import (
    NODE,
    FakeApi,
    Refusal,
    make_id,
    make_pod,
    make_uid,
    pod_of,
    serving_api,
    status_of,
    until,
)
from serving import Authority

from exporter.errors import ApiFailure
from exporter.kubernetes.access import ApiAccess
from exporter.kubernetes.api_client import ApiClient
from exporter.kubernetes.pod_names import PodName, PodNames
from exporter.kubernetes.pod_watch import Pace, PodWatch

# No test waits for these; a pause is as short as can be.
QUICK = Pace(first_pause=0.01, longest_pause=0.05, watch_seconds=(60, 60), steady_seconds=3600)


class Followed:
    """An API, and the exporter's side of it."""

    def __init__(self, api: FakeApi, folder: Path, scheme: str, pace: Pace) -> None:
        self.api = api
        self.token_file = folder / "token"
        self.token_file.write_text(*api.tokens)
        self.ca_file = folder / "ca.pem"
        self.names = PodNames()
        access = ApiAccess(f"{scheme}://127.0.0.1:{api.port}", str(self.token_file), str(self.ca_file), NODE)
        self.watch = PodWatch(access, self.names, pace=pace)

    async def start(self) -> None:
        """Begin, and wait until a watch is open."""
        self.watch.start()
        await until(lambda: self.api.watching == 1)

    def knows(self, pod: dict[str, Any], container_id: str, container: str | None) -> bool:
        """Whether a container has this name; None: no name, although its pod has one."""
        uid, name = pod["metadata"]["uid"], (pod["metadata"]["namespace"], pod["metadata"]["name"])
        expected = None if container is None else PodName(*name, container)
        return (
            self.names.lookup(uid, "") == PodName(*name, "") and self.names.lookup(uid, container_id) == expected
        )

    async def learn(self, name: str) -> None:
        """Create a pod, and wait until its container has its name: the watch works."""
        pod, ids = pod_of(name, "cart")
        self.api.put(pod)
        await until(lambda: self.knows(pod, ids["cart"], "cart"))


@contextlib.asynccontextmanager
async def following(
    folder: Path, pace: Pace = QUICK, *, authority: Authority | None = None
) -> AsyncIterator[Followed]:
    async with serving_api(authority or Authority(folder)) as api:
        followed = Followed(api, folder, "https", pace)
        try:
            yield followed
        finally:
            await followed.watch.stop()


@pytest.fixture
async def followed(tmp_path: Path) -> AsyncIterator[Followed]:
    async with following(tmp_path) as followed:
        yield followed


# -- list and watch ----------------------------------------------------------------------------------------------


async def test_pods_are_listed_and_then_watched(followed: Followed) -> None:
    api = followed.api
    cart, cart_ids = pod_of("cart-0", "cart", "proxy")
    api.put(cart)
    await followed.start()
    assert all(followed.knows(cart, i, name) for name, i in cart_ids.items())
    late, late_ids = pod_of("late-0", "late")
    api.put({**late, "status": {}})
    await until(lambda: followed.knows(late, "", ""))
    assert followed.knows(late, late_ids["late"], None)
    api.put(late)
    await until(lambda: followed.knows(late, late_ids["late"], "late"))
    api.delete(cart)
    await until(lambda: len(followed.names) == 1)
    # It keeps its names for five minutes.
    assert followed.knows(cart, cart_ids["cart"], "cart")
    assert len(api.lists()) == len(api.watches()) == 1
    assert not followed.watch.failures


async def test_only_the_pods_of_the_node_are_asked_for(followed: Followed) -> None:
    other, ids = pod_of("other-0", "other", node="node-18")
    followed.api.put(other)
    await followed.start()
    followed.api.put(pod_of("other-1", "other", node="node-18")[0])
    await followed.learn("cart-0")
    assert followed.names.lookup(other["metadata"]["uid"], ids["other"]) is None
    assert len(followed.names) == 1
    assert {request.query["fieldSelector"] for request in followed.api.requests} == {f"spec.nodeName={NODE}"}


async def test_static_init_ephemeral_and_restarted_containers_have_their_names(followed: Followed) -> None:
    config_hash = "9aac5b5c8815def09a2ef9e37b89da55"
    ids = [make_id() for _ in range(6)]
    mirror = make_pod(
        "etcd-a",
        "kube-system",
        annotations={"kubernetes.io/config.hash": config_hash, "kubernetes.io/config.mirror": config_hash},
        containerStatuses=[status_of("etcd", ids[0])],
    )
    job = make_pod(
        "job-0",
        initContainerStatuses=[status_of("setup", ids[1], ended=True)],
        containerStatuses=[status_of("work", ids[2], last=ids[3], ended=True)],
        ephemeralContainerStatuses=[status_of("debugger", ids[4])],
    )
    followed.api.put(mirror)
    await followed.start()
    followed.api.put(job)
    await until(lambda: followed.knows(job, ids[4], "debugger"))
    for container_id, name in zip(ids[1:], ("setup", "work", "work", "debugger", None), strict=True):
        assert followed.knows(job, container_id, name)
    assert followed.names.lookup(config_hash, ids[0]) == PodName("kube-system", "etcd-a", "etcd")


async def test_a_list_in_parts_is_one_list(followed: Followed) -> None:
    pods = [pod_of(f"cart-{i}", "cart") for i in range(7)]
    for pod, _ in pods:
        followed.api.put(pod)
    followed.api.page = 3
    await followed.start()
    assert len(followed.api.lists()) == 3
    assert all(followed.knows(pod, ids["cart"], "cart") for pod, ids in pods)


async def test_a_watch_ends_when_it_said_and_the_next_goes_on_there(tmp_path: Path) -> None:
    pace = QUICK._replace(watch_seconds=(1, 1), steady_seconds=0.5)
    async with following(tmp_path, pace) as followed:
        await followed.start()
        await followed.learn("cart-0")
        version = followed.api.pods[next(iter(followed.api.pods))]["metadata"]["resourceVersion"]
        await until(lambda: len(followed.api.watches()) >= 2)
        await until(lambda: followed.api.watching == 1)
        await followed.learn("cart-1")
        assert len(followed.api.lists()) == 1
        assert followed.api.watches()[1].query["resourceVersion"] == version
        assert {request.query["timeoutSeconds"] for request in followed.api.watches()} == {"1"}
        assert not followed.watch.failures


async def test_watches_of_many_nodes_do_not_end_together(tmp_path: Path) -> None:
    low, high = Pace().watch_seconds
    async with following(tmp_path, QUICK._replace(watch_seconds=(low, high))) as followed:
        await followed.start()
        for count in range(2, 12):
            followed.api.tear()
            await until(lambda count=count: len(followed.api.watches()) == count)  # type: ignore[misc]
            await until(lambda: followed.api.watching == 1)
        timeouts = [int(request.query["timeoutSeconds"]) for request in followed.api.watches()]
    assert all(low <= timeout <= high for timeout in timeouts)
    assert len(set(timeouts)) > 3


async def test_a_bookmark_is_where_the_next_watch_goes_on(followed: Followed) -> None:
    await followed.start()
    followed.api.bookmark()
    await followed.learn("cart-0")
    followed.api.forget()
    followed.api.bookmark()
    # The bookmark has been read once a later event has.
    await followed.learn("cart-1")
    followed.api.tear()
    await until(lambda: len(followed.api.watches()) == 2)
    await followed.learn("cart-2")
    assert len(followed.api.lists()) == 1


async def test_a_bookmark_alone_is_enough_to_go_on(followed: Followed) -> None:
    await followed.start()
    followed.api.bookmark()
    before = followed.watch.last_sync_seconds
    assert before is not None
    await until(lambda: followed.watch.last_sync_seconds != before)
    followed.api.tear()
    await followed.learn("cart-0")
    assert len(followed.api.lists()) == 1


# -- 410 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["event", "status"])
async def test_after_a_410_the_list_is_asked_for_anew(followed: Followed, how: str) -> None:
    api = followed.api
    gone, gone_ids = pod_of("gone-0", "gone")
    api.put(gone)
    await followed.start()
    api.expired_as = how
    api.tear()
    await until(lambda: api.watching == 0)
    # What happens now is in no watch.
    new, new_ids = pod_of("new-0", "new")
    api.delete(gone)
    api.put(new)
    api.happen_unseen()
    await until(lambda: followed.knows(new, new_ids["new"], "new"))
    assert len(followed.names) == 1
    assert followed.knows(gone, gone_ids["gone"], "gone")
    assert followed.watch.failures["expired"] == 1
    first, second = api.lists()
    assert first.query["resourceVersion"] == "0"
    # A cache may be older than what was forgotten.
    assert "resourceVersion" not in second.query
    await until(lambda: api.watching == 1)
    await followed.learn("cart-0")


async def test_a_410_in_an_open_watch_is_followed_by_a_list(followed: Followed) -> None:
    await followed.start()
    followed.api.send(b'{"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}}\n')
    await until(lambda: len(followed.api.lists()) == 2)
    await until(lambda: followed.api.watching == 1)
    await followed.learn("cart-0")


async def test_a_410_amid_the_parts_of_a_list_begins_it_anew(followed: Followed) -> None:
    api = followed.api
    pods = [pod_of(f"cart-{i}", "cart") for i in range(5)]
    for pod, _ in pods:
        api.put(pod)
    api.page = 2
    api.pause_seconds = 0.05
    followed.watch.start()
    await until(lambda: len(api.lists()) == 1)
    api.happen_unseen()
    api.pause_seconds = 0.0
    await until(lambda: api.watching == 1)
    assert all(followed.knows(pod, ids["cart"], "cart") for pod, ids in pods)
    assert followed.watch.failures == {"expired": 1}


# -- what breaks -------------------------------------------------------------------------------------------------


async def test_a_torn_watch_goes_on_where_it_was(followed: Followed) -> None:
    api = followed.api
    await followed.start()
    await followed.learn("cart-0")
    line = b'{"type": "ADDED", "object": {"metadata": {"na'
    api.send(line)
    api.tear()
    await until(lambda: api.watching == 0)
    missed, ids = pod_of("missed-0", "missed")
    api.put(missed)
    await until(lambda: followed.knows(missed, ids["missed"], "missed"))
    assert len(api.lists()) == 1
    assert followed.watch.failures["torn"] == 1


async def test_an_api_that_is_not_there_is_asked_until_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "exporter.kubernetes")
    authority = Authority(tmp_path)
    # One that no connection of another program is given while the API is away.
    async with serving_api(authority, port=free_port()) as api:
        followed = Followed(api, tmp_path, "https", QUICK._replace(steady_seconds=0.2))
    followed.watch.start()
    try:
        await until(lambda: followed.watch.failures["unreachable"] >= 5)
        assert followed.watch.last_sync_seconds is None
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        async with serving_api(authority, port=api.port) as again:
            followed.api = again
            await until(lambda: again.watching == 1)
            await followed.learn("cart-0")
            assert followed.watch.last_sync_seconds is not None
            assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
        asked = followed.watch.failures["unreachable"]
        await until(lambda: followed.watch.failures["unreachable"] >= asked + 5)
        # The names stay, and the second outage is one more line.
        assert len(followed.names) == 1
        assert [record.levelname for record in caplog.records] == ["WARNING", "INFO", "WARNING"]
    finally:
        await followed.watch.stop()


async def test_an_outage_and_its_end_are_a_line_each(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "exporter.kubernetes")
    async with following(tmp_path, QUICK._replace(steady_seconds=0.2)) as followed:
        await followed.start()
        caplog.clear()
        followed.api.next_answers.extend([Refusal(503, "no leader")] * 8)
        followed.api.tear()
        await until(lambda: not followed.api.next_answers and followed.api.watching == 1)
        # It is over when a watch has lasted for some time.
        async with asyncio.timeout(30):
            while len(caplog.records) < 2:
                await followed.learn(make_uid())
        assert [record.getMessage() for record in caplog.records] == [
            "cannot ask the Kubernetes API for the names of pods",
            "names of pods are up to date again",
        ]
        assert "no leader" in caplog.records[0].__dict__["error"]
    assert followed.watch.failures["status"] == 8


async def test_watches_that_fail_in_a_row_are_followed_by_a_list(followed: Followed) -> None:
    await followed.start()
    followed.api.next_answers.extend([Refusal(500)] * 2)
    followed.api.tear()
    await until(lambda: len(followed.api.lists()) == 2)
    assert not followed.api.next_answers
    await until(lambda: followed.api.watching == 1)
    await followed.learn("cart-0")


async def test_pauses_end_with_the_first_event(tmp_path: Path) -> None:
    """If they went on growing, the twelfth would be 40 seconds long."""
    async with following(tmp_path, QUICK._replace(longest_pause=3600)) as followed:
        await followed.start()
        for i in range(16):
            followed.api.tear()
            await until(lambda: followed.api.watching == 0)
            await followed.learn(f"cart-{i}")
    assert followed.watch.failures == {"torn": 16}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        pytest.param(Refusal(401), "refused", id="401"),
        pytest.param(Refusal(403, "pods is forbidden"), "refused", id="403"),
        pytest.param(Refusal(404), "status", id="404"),
        pytest.param(Refusal(429, "", "Retry-After: x\r\n"), "status", id="429"),
        pytest.param(Refusal(500, "x" * 100_000), "status", id="a long message"),
        pytest.param(Refusal(302, "", "Location: https://example.com/\r\n"), "status", id="to another machine"),
        pytest.param(b"\x15\x03\x01 no HTTP\r\n\r\n", "malformed", id="no HTTP"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", "torn", id="half the answer"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{", "torn", id="half a chunk"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n{", "malformed", id="no chunk"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", "malformed", id="no list"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n<html>...", "malformed", id="no JSON"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 9\r\n\r\n<html>...",
            "torn",
            id="no gzip",
        ),
        pytest.param(
            b'HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{"items": []}', "malformed", id="a list without version"
        ),
    ],
)  # fmt: skip
async def test_a_wrong_answer_is_counted_and_asked_for_again(
    followed: Followed, answer: Refusal | bytes, reason: str
) -> None:
    followed.api.next_answers.append(answer)
    await followed.start()
    await followed.learn("cart-0")
    assert followed.watch.failures == {reason: 1}


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\n"], ids=["nothing", "half the headers"])
async def test_an_api_that_hangs_up_is_counted_and_asked_again(followed: Followed, answer: bytes) -> None:
    # aiohttp asks once more itself.
    followed.api.next_answers.extend([answer] * 2)
    await followed.start()
    await followed.learn("cart-0")
    assert followed.watch.failures == {"torn": 1}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"no JSON\n", "malformed"),
        (b'{"type": "ADDED"}\n', "malformed"),
        (b'{"type": "ERROR", "object": {"code": 500, "message": "etcd"}}\n', "status"),
    ],
)
async def test_a_wrong_line_ends_the_watch_and_the_next_goes_on(
    followed: Followed, line: bytes, reason: str
) -> None:
    await followed.start()
    followed.api.send(line)
    await until(lambda: len(followed.api.watches()) == 2)
    await followed.learn("cart-0")
    assert followed.watch.failures == {reason: 1}
    assert len(followed.api.lists()) == 1


async def test_a_watch_that_the_api_ends_at_once_is_a_failure_too(followed: Followed) -> None:
    """Without a pause the exporter would ask as fast as it can."""
    await followed.start()
    followed.api.next_answers.extend([b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"] * 2)
    followed.api.tear()
    await until(lambda: not followed.api.next_answers and followed.api.watching == 1)
    await followed.learn("cart-0")
    assert followed.watch.failures == {"torn": 3}


async def test_a_pod_without_a_name_is_counted_and_left_out(followed: Followed) -> None:
    followed.api.put(make_pod(""))
    followed.api.put(make_pod("cart-0"))
    await followed.start()
    followed.api.put(make_pod("", uid=make_uid()))
    await followed.learn("cart-1")
    assert followed.watch.malformed_pods == 2
    assert len(followed.names) == 2


async def test_the_api_is_left_alone_for_as_long_as_it_asks(tmp_path: Path) -> None:
    async with following(tmp_path, QUICK._replace(longest_pause=0.01)) as followed:
        followed.api.next_answers.append(Refusal(429, "", "Retry-After: 1\r\n"))
        loop = asyncio.get_running_loop()
        began = loop.time()
        await followed.start()
        assert loop.time() - began >= 1


async def test_an_answer_that_aiohttp_loses_track_of_is_given_up(tmp_path: Path) -> None:
    """A chunk that is shorter than it says, once the body has begun: aiohttp then neither ends nor fails."""
    async with following(tmp_path, QUICK._replace(list_read_seconds=0.3)) as followed:
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        followed.api.next_answers.append(head + b"5\r\nabc\r\n3\r\nabc\r\n0\r\n\r\n")
        followed.api.piece_bytes = len(head)
        await followed.start()
        assert followed.watch.failures.total() == 1


async def test_broken_chunks_in_a_watch_end_it_at_once(followed: Followed) -> None:
    await followed.start()
    await followed.learn("cart-0")
    followed.api.send_raw(b"3\r\nabc\r\nx")
    await until(lambda: len(followed.api.watches()) == 2)
    await followed.learn("cart-1")
    assert followed.watch.failures == {"malformed": 1}


async def test_any_bytes_are_an_answer_or_a_failure(tmp_path: Path) -> None:
    """Answers that are sound but for a few bytes, in pieces."""
    chance = random.Random(15)  # noqa: S311 - the same bytes each time
    body = b'{"metadata": {"resourceVersion": "7"}, "items": []}'
    sound = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    async with (
        serving_api(None) as api,
        ApiClient(ApiAccess(f"http://127.0.0.1:{api.port}", "", "", NODE)) as client,
    ):
        api.piece_bytes = 17
        answered = 0
        for _ in range(50):
            damaged = bytearray(sound)
            for _ in range(chance.randint(1, 3)):
                at = chance.randrange(len(damaged))
                damaged[at : at + chance.randint(0, 3)] = chance.randbytes(chance.randint(0, 3))
            api.next_answers.extend([bytes(damaged)] * 2)
            with contextlib.suppress(ApiFailure):
                async for _piece in client.get_pods({}, read_seconds=0.1):
                    pass
                answered += 1
            api.next_answers.clear()
    assert answered > 4


# -- slow and large ----------------------------------------------------------------------------------------------


async def test_bytes_that_come_one_by_one_are_read(followed: Followed) -> None:
    cart, ids = pod_of("cart-0", "cart")
    followed.api.put(cart)
    followed.api.piece_bytes = 1
    await followed.start()
    assert followed.knows(cart, ids["cart"], "cart")
    await followed.learn("cart-1")


async def test_an_api_that_stops_amid_its_answer_is_given_up(tmp_path: Path) -> None:
    pace = QUICK._replace(list_read_seconds=0.2, watch_seconds=(1, 1), watch_read_slack=-0.8)
    async with following(tmp_path, pace) as followed:
        followed.api.put(pod_of("cart-0", "cart")[0])
        followed.api.piece_bytes = 40
        followed.api.pause_seconds = 3600
        followed.watch.start()
        await until(lambda: followed.watch.failures["timeout"] >= 2)
        followed.api.pause_seconds = 0
        await until(lambda: len(followed.names) == 1)
        followed.watch.failures.clear()
        # A watch that brings nothing for longer than it should last.
        await until(lambda: followed.watch.failures["timeout"] >= 1)


async def test_a_list_that_never_ends_is_given_up(tmp_path: Path) -> None:
    async with following(tmp_path, QUICK._replace(list_seconds=0.3)) as followed:
        followed.api.put(pod_of("cart-0", "cart")[0])
        followed.api.piece_bytes = 1
        followed.api.pause_seconds = 0.02
        followed.watch.start()
        await until(lambda: followed.watch.failures["timeout"] >= 2)
        assert followed.watch.last_sync_seconds is None


async def test_a_pod_of_many_megabytes_is_read_in_list_and_watch(followed: Followed) -> None:
    listed, listed_ids = pod_of("listed-0", "listed", padding="<" * 9_000_000)
    followed.api.put(listed)
    await followed.start()
    assert followed.knows(listed, listed_ids["listed"], "listed")
    watched, watched_ids = pod_of("watched-0", "watched", padding="<" * 9_000_000)
    followed.api.put(watched)
    await until(lambda: followed.knows(watched, watched_ids["watched"], "watched"))
    assert not followed.watch.failures


async def test_a_line_that_is_too_long_is_skipped(followed: Followed) -> None:
    await followed.start()
    followed.api.put(make_pod("huge-0", padding="x" * (17 << 20)))
    await followed.learn("cart-0")
    # What was skipped is counted when all that came with it has been taken.
    await until(lambda: followed.watch.skipped > 0)
    assert followed.watch.skipped == 1
    assert len(followed.names) == 1
    assert followed.watch.failures == {"malformed": 1}


async def test_a_pod_that_would_take_too_much_memory_hides_no_other_in_a_list(followed: Followed) -> None:
    cart, ids = pod_of("cart-0", "cart")
    followed.api.put(make_pod("huge-0", annotations={"a": ""}, padding="," * 600_000))
    followed.api.put(cart)
    await followed.start()
    assert followed.knows(cart, ids["cart"], "cart")
    assert followed.watch.failures == {"malformed": 1}


async def test_a_thousand_pods_take_bounded_memory(followed: Followed) -> None:
    """Beside what the API of this test sends, which is much more: it keeps all pods, of 20 KB each."""
    pods = [pod_of(f"cart-{i}", "cart", "proxy", padding="x" * 20_000) for i in range(1000)]
    for pod, _ in pods:
        followed.api.put(pod)
    followed.api.forget()
    gc.collect()
    tracemalloc.start()
    try:
        await followed.start()
        await followed.learn("late-0")
        gc.collect()
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(followed.names) == 1001
    assert all(followed.knows(pod, ids["proxy"], "proxy") for pod, ids in pods)
    assert kept < 6 << 20
    assert peak < 12 << 20


def timers_of(port: int) -> list[str]:
    """Return which timer each established connection to a port of this host has, as /proc/net/tcp writes it."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]]
    return [row[5].partition(":")[0] for row in rows if row[2].endswith(f":{port:04X}") and row[3] == "01"]


async def test_the_kernel_looks_whether_the_api_is_there_while_a_watch_is_quiet(followed: Followed) -> None:
    await followed.start()
    # 02 is the timer of keepalive; another one runs while something has not been acknowledged.
    await until(lambda: timers_of(followed.api.port) == ["02"])


# -- token and authority -----------------------------------------------------------------------------------------


async def test_each_request_has_the_token_of_that_moment(followed: Followed) -> None:
    await followed.start()
    followed.api.tokens = {"the second token"}
    followed.token_file.write_text("the second token\n")
    followed.api.tear()
    await until(lambda: len(followed.api.watches()) == 2)
    await followed.learn("cart-0")
    assert [request.authorization for request in followed.api.requests] == [
        "Bearer the first token",
        "Bearer the first token",
        "Bearer the second token",
    ]
    assert followed.watch.failures == {"torn": 1}


async def test_a_token_that_the_api_refuses_is_read_again_until_it_is_right(followed: Followed) -> None:
    await followed.start()
    followed.api.tokens = {"the second token"}
    followed.api.tear()
    await until(lambda: followed.watch.failures["refused"] >= 2)
    followed.token_file.write_text("the second token")
    await until(lambda: followed.api.watching == 1)
    await followed.learn("cart-0")


async def test_a_token_that_cannot_be_read_any_more_is_used_and_said(
    followed: Followed, caplog: pytest.LogCaptureFixture
) -> None:
    await followed.start()
    followed.token_file.unlink()
    caplog.clear()
    for count in (2, 3):
        followed.api.tear()
        await until(lambda count=count: len(followed.api.watches()) == count)  # type: ignore[misc]
        await until(lambda: followed.api.watching == 1)
    await followed.learn("cart-0")
    said = [record for record in caplog.records if "read before" in record.getMessage()]
    assert len(said) == 1
    assert "remedy" in said[0].__dict__


async def test_a_missing_token_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with following(tmp_path) as followed:
        followed.token_file.unlink()
        followed.watch.start()
        await until(lambda: followed.watch.failures["credentials"] >= 3)
        assert [record.__dict__["reason"] for record in caplog.records] == ["credentials"]
        followed.token_file.write_text("the first token")
        await until(lambda: followed.api.watching == 1)


async def test_a_new_authority_is_trusted_from_the_moment_that_its_file_has_it(tmp_path: Path) -> None:
    old_folder, new_folder = tmp_path / "old", tmp_path / "new"
    old_folder.mkdir()
    new_folder.mkdir()
    old, new = Authority(old_folder), Authority(new_folder)
    async with following(old_folder, authority=old) as followed:
        await followed.start()
        followed.api.use(new)
        followed.api.tear()
        await until(lambda: followed.watch.failures["tls"] >= 2)
        assert followed.api.watching == 0
        new.ca_file.replace(followed.ca_file)
        await until(lambda: followed.api.watching == 1)
        await followed.learn("cart-0")


async def test_a_certificate_of_another_authority_gets_no_token(tmp_path: Path) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    Authority(tmp_path)
    async with serving_api(Authority(folder)) as api:
        followed = Followed(api, tmp_path, "https", QUICK)
        followed.watch.start()
        await until(lambda: followed.watch.failures["tls"] >= 2)
        await followed.watch.stop()
        assert api.requests == []


async def test_a_certificate_for_another_name_gets_no_token(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with serving_api(authority, name="api.example.com") as api:
        followed = Followed(api, tmp_path, "https", QUICK)
        followed.watch.start()
        await until(lambda: followed.watch.failures["tls"] >= 2)
        await followed.watch.stop()
        assert api.requests == []


async def test_a_proxy_on_this_machine_gets_no_token(tmp_path: Path) -> None:
    async with serving_api(None) as api:
        api.tokens = {""}
        followed = Followed(api, tmp_path, "http", QUICK)
        followed.token_file.write_text("secret")
        await followed.start()
        await followed.learn("cart-0")
        await followed.watch.stop()
        assert {request.authorization for request in api.requests} == {""}


# -- start and stop ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", [lambda _: True, lambda api: bool(api.requests), lambda api: api.watching == 1])
async def test_it_can_be_stopped_at_any_moment(followed: Followed, moment: Callable[[FakeApi], bool]) -> None:
    before = asyncio.all_tasks()
    task = followed.watch.start()
    await until(lambda: moment(followed.api))
    await followed.watch.stop()
    assert task.cancelled()
    await until(lambda: followed.api.open_connections == 0)
    assert asyncio.all_tasks() <= before | {asyncio.current_task()}


async def test_what_was_never_started_can_be_stopped(followed: Followed) -> None:
    await followed.watch.stop()


async def test_a_bug_ends_the_task(followed: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(followed.names, "replace_all", fail)
    task = followed.watch.start()
    with pytest.raises(ZeroDivisionError):
        await task


def test_to_import_it_does_not_import_aiohttp() -> None:
    code = "import sys, exporter.kubernetes.pod_watch as _; sys.exit('aiohttp' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
