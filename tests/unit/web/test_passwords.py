"""Passwords of HTTP users, over real connections; bcrypt is the real one."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import bcrypt
import pytest
from serving import PATIENCE_SECONDS, basic, hash_password, rewrite, serving

from exporter.web.gate import Gate

HASH = hash_password("right")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "web.yml"


def gate(path: Path, text: str) -> Gate:
    rewrite(path, text)
    return Gate(path)


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The hashes that bcrypt was asked to compute, in their order: what takes the time."""
    calls: list[bytes] = []

    def counting(password: bytes, hashed: bytes, check: Callable[[bytes, bytes], bool] = bcrypt.checkpw) -> bool:
        calls.append(hashed)
        return check(password, hashed)

    monkeypatch.setattr(bcrypt, "checkpw", counting)
    return calls


USERS = f"basic_auth_users:\n  alice: {HASH}\n  böb: {hash_password('pass:wörd')}\n"


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (None, 401),
        (basic("alice", "right"), 200),
        (basic("alice", "right").replace("Basic", "bAsIc"), 200),
        (basic("böb", "pass:wörd"), 200),
        (basic("alice", "wrong"), 401),
        (basic("alice", ""), 401),
        (basic("alice", "right "), 401),
        (basic("böb", "right"), 401),
        (basic("nobody", "right"), 401),
        (basic("", ""), 401),
        ("Basic", 401),
        ("Basic !!!", 401),
        ("Basic é", 401),
        ("Basic YWxpY2U=", 401),
        ("Bearer " + basic("alice", "right").partition(" ")[2], 401),
    ],
)
async def test_only_a_users_own_password_lets_in(file: Path, authorization: str | None, status: int) -> None:
    async with serving(gate(file, USERS)) as served:
        reply = await (served.ask(Authorization=authorization) if authorization else served.ask())
        assert reply.status == status
        assert ("WWW-Authenticate" in reply.headers) == (status == 401)


@pytest.mark.parametrize("path", ["/", "/nothing"])
async def test_without_a_password_every_page_answers_401(file: Path, path: str) -> None:
    async with serving(gate(file, USERS)) as served:
        assert (await served.ask(path)).status == 401


async def test_a_password_that_was_right_is_not_hashed_again(file: Path, hashed: list[bytes]) -> None:
    async with serving(gate(file, USERS)) as served:
        for _ in range(3):
            assert (await served.ask(Authorization=basic("alice", "right"))).status == 200
        assert hashed == [HASH.encode()]
        assert (await served.ask(Authorization=basic("alice", "wrong"))).status == 401
        assert len(hashed) == 2


async def test_an_unknown_user_costs_as_much_as_a_known_one(file: Path, hashed: list[bytes]) -> None:
    async with serving(gate(file, USERS)) as served:
        for user in ("alice", "mallory"):
            for _ in range(2):
                assert (await served.ask(Authorization=basic(user, "wrong"))).status == 401
    assert len(hashed) == 4
    # The time of bcrypt is its cost's, which follows "$2b$".
    assert {call[4:6] for call in hashed} == {HASH[4:6].encode()}


async def test_a_long_password_is_cut_where_bcrypt_cuts_it(file: Path) -> None:
    users = f"basic_auth_users:\n  alice: {hash_password('a' * 72)}\n"
    async with serving(gate(file, users)) as served:
        assert (await served.ask(Authorization=basic("alice", "a" * 100))).status == 200
        assert (await served.ask(Authorization=basic("alice", "a" * 71))).status == 401


async def test_others_are_served_while_a_password_is_hashed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    turned = asyncio.Event()

    def slow(_: bytes, __: bytes) -> bool:
        # Ends only when the event loop has had its turn meanwhile.
        async def turn() -> None:
            turned.set()

        asyncio.run_coroutine_threadsafe(turn(), loop).result(30)
        return False

    monkeypatch.setattr(bcrypt, "checkpw", slow)
    async with serving(gate(file, USERS)) as served:
        assert (await served.ask(Authorization=basic("alice", "x"))).status == 401
    assert turned.is_set()


async def test_a_client_that_disconnects_before_its_password_is_hashed_leaves_no_work_behind(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise clients that disconnect would pile up work: the limit of connections does not bound it."""
    hashes: list[bytes] = []
    proceed = threading.Event()

    def slow(password: bytes, _: bytes) -> bool:
        hashes.append(password)
        proceed.wait(PATIENCE_SECONDS)
        return False

    monkeypatch.setattr(bcrypt, "checkpw", slow)
    async with serving(gate(file, USERS)) as served:
        before = asyncio.all_tasks()
        for n in range(20):
            client = await served.connect()
            client.writer.write(
                b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\n\r\n" % basic("alice", f"{n}").encode()
            )
            client.writer.write_eof()
            assert await client.is_cut()
        async with asyncio.timeout(PATIENCE_SECONDS / 2):
            # The task that hands passwords to the thread is left.
            while len(asyncio.all_tasks() - before) > 1:  # noqa: ASYNC110 - the end of a task sets no event
                await asyncio.sleep(0)
        proceed.set()
        assert (await served.ask(Authorization=basic("alice", "x"))).status == 401
    assert len(hashes) <= 2


async def test_a_password_that_was_right_needs_no_hash_when_other_users_change(
    file: Path, hashed: list[bytes]
) -> None:
    async with serving(gate(file, USERS)) as served:
        assert (await served.ask(Authorization=basic("alice", "right"))).status == 200
        rewrite(file, f"basic_auth_users:\n  alice: {HASH}\n  carol: {hash_password('x')}\n")
        assert (await served.ask(Authorization=basic("alice", "right"))).status == 200
        assert hashed == [HASH.encode()]
        rewrite(file, f"basic_auth_users:\n  alice: {hash_password('new')}\n")
        assert (await served.ask(Authorization=basic("alice", "right"))).status == 401


async def test_a_user_that_is_removed_from_the_file_is_refused(file: Path) -> None:
    async with serving(gate(file, USERS)) as served:
        client = await served.connect()
        assert (await client.ask(Authorization=basic("alice", "right"))).status == 200
        rewrite(file, f"basic_auth_users:\n  carol: {HASH}\n")
        assert (await client.ask(Authorization=basic("alice", "right"))).status == 401
        assert (await client.ask(Authorization=basic("carol", "right"))).status == 200
