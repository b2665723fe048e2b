"""exporter/web/channel.py: a socket in the event loop, over real sockets and real TLS."""

import asyncio
import contextlib
import gc
import socket
import ssl
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import PATIENCE_SECONDS, Authority

from exporter.web.channel import WAITS, Channel


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The two ends of a connection: the server's, the client's."""
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
    yield ends
    for end in ends:
        end.close()


@pytest.fixture
def contexts(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The server's, the client's."""
    authority = Authority(tmp_path)
    certificate, key = authority.issue("server", "localhost")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    return server, authority.client()


async def test_it_is_called_when_the_client_has_sent_and_no_more_when_nothing_is_watched(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    server, client = pair
    channel = Channel(server, asyncio.get_running_loop())
    called = asyncio.Event()
    channel.watch(called.set, None)
    assert channel.reads
    client.send(b"a")
    await asyncio.wait_for(called.wait(), PATIENCE_SECONDS)
    channel.watch(None, None)
    assert not channel.reads
    assert channel.recv(10) == b"a"
    with pytest.raises(WAITS):
        channel.recv(10)
    can_write = asyncio.Event()
    called.clear()
    client.send(b"b")
    channel.watch(None, can_write.set)
    # It can write at once: by then it would have been called for what was sent, too.
    await asyncio.wait_for(can_write.wait(), PATIENCE_SECONDS)
    assert not called.is_set()
    channel.close(says_goodbye=True)
    channel.close(says_goodbye=True)
    assert server.fileno() < 0


async def shake(channel: Channel, client: ssl.SSLSocket) -> int:
    """Shake hands from both ends; returns how many steps the server took."""
    steps = 0
    client_is_done = server_is_done = False
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not (client_is_done and server_is_done):
            if not client_is_done:
                with contextlib.suppress(*WAITS):
                    client.do_handshake()
                    client_is_done = True
            if not server_is_done:
                go_on = asyncio.Event()
                server_is_done = channel.shake_hands(go_on.set)
                steps += 1
                if not server_is_done and client_is_done:
                    await go_on.wait()
                channel.watch(None, None)
    return steps


async def test_hands_are_shaken_in_steps_and_what_openssl_has_read_ahead_is_known(
    pair: tuple[socket.socket, socket.socket], contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    server_tls, client_tls = contexts
    channel = Channel(pair[0], asyncio.get_running_loop())
    channel.secure(server_tls)
    client = client_tls.wrap_socket(pair[1], server_hostname="localhost", do_handshake_on_connect=False)
    assert await shake(channel, client) > 1
    client.send(b"ab")
    while True:
        try:
            assert channel.recv(1) == b"a"
            break
        except WAITS:
            await asyncio.sleep(0)
    assert channel.has_read_ahead
    assert channel.recv(1) == b"b"
    assert not channel.has_read_ahead
    channel.close(says_goodbye=True)
    # The farewell is an end without an error.
    assert client.recv(1) == b""
    client.close()


async def test_a_channel_leaves_nothing_to_the_garbage_collector(
    pair: tuple[socket.socket, socket.socket], contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    server_tls, client_tls = contexts
    channel = Channel(pair[0], asyncio.get_running_loop())
    channel.secure(server_tls)
    client = client_tls.wrap_socket(pair[1], server_hostname="localhost", do_handshake_on_connect=False)
    await shake(channel, client)

    class Owner:
        """Has the channel, and is called by it."""

        def __init__(self, channel: Channel) -> None:
            self.channel = channel

        def can_read(self) -> None:
            pass

    owner = Owner(channel)
    channel.watch(owner.can_read, None)
    left = weakref.ref(channel)
    gc.disable()
    try:
        channel.close(says_goodbye=True)
        del owner, channel
        # The event loop forgets in its next turn what it was to call.
        await asyncio.sleep(0)
        assert left() is None
    finally:
        gc.enable()
    client.close()
