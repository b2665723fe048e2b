"""exporter/web/tls_records.py: TLS a record at a time, between real TLS and a network that a test delays."""

import ssl
from collections import deque
from pathlib import Path
from typing import Any, cast

import pytest
from serving import Authority

from exporter.web.tls_records import TlsRecords


class Network:
    """What is under way to the server and from it.

    Attributes:
        piece_bytes: The most that the server reads at once.
        room_bytes: How much more the server can send.
    """

    def __init__(self) -> None:
        self.to_server = bytearray()
        self.from_server = bytearray()
        self.is_closed = False
        self.piece_bytes = 1 << 20
        self.room_bytes = 1 << 30

    def receive(self, most: int) -> bytes:
        size = min(most, self.piece_bytes)
        data = bytes(self.to_server[:size])
        del self.to_server[:size]
        if not data and not self.is_closed:
            raise BlockingIOError
        return data

    def transmit(self, data: memoryview) -> int:
        sent = min(len(data), self.room_bytes)
        if not sent:
            raise BlockingIOError
        self.room_bytes -= sent
        self.from_server += data[:sent]
        return sent


class Client:
    """The other end."""

    def __init__(self, context: ssl.SSLContext, network: Network) -> None:
        self._network = network
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")

    def exchange(self) -> None:
        """Let what is under way arrive at this end, and go."""
        self._incoming.write(self._network.from_server)
        self._network.from_server.clear()
        self._network.to_server += self._outgoing.read()

    def shakes_hands(self) -> bool:
        self.exchange()
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        finally:
            self.exchange()
        return True

    def send(self, data: bytes) -> None:
        self.tls.write(data)
        self.exchange()

    def read(self) -> bytes:
        """Read all that has arrived."""
        self.exchange()
        data = b""
        while True:
            try:
                piece = self.tls.read(1 << 16)
            except ssl.SSLWantReadError:
                return data
            if not piece:
                return data
            data += piece


@pytest.fixture
def network() -> Network:
    return Network()


@pytest.fixture
def contexts(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The server's, the client's."""
    authority = Authority(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*authority.issue("server", "localhost"))
    return server, authority.client()


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def ends(
    request: pytest.FixtureRequest, contexts: tuple[ssl.SSLContext, ssl.SSLContext], network: Network
) -> tuple[TlsRecords, Client]:
    server, client = contexts
    client.maximum_version = request.param
    return TlsRecords(server, network.receive, network.transmit), Client(client, network)


def shake(records: TlsRecords, client: Client) -> None:
    for _ in range(10_000):
        client_is_done = client.shakes_hands()
        try:
            records.shake_hands()
        except (BlockingIOError, ssl.SSLWantWriteError):
            continue
        if client_is_done or client.shakes_hands():
            return
    raise AssertionError("hands are never shaken")


@pytest.mark.parametrize("piece_bytes", [1, 7, 1 << 20])
def test_data_goes_both_ways_however_the_network_cuts_it(
    ends: tuple[TlsRecords, Client], network: Network, piece_bytes: int
) -> None:
    records, client = ends
    network.piece_bytes = piece_bytes
    shake(records, client)
    with pytest.raises(BlockingIOError):
        records.recv(100)
    client.send(b"a" * 100)
    client.send(b"b" * 3)
    received = deque[bytes]()
    while b"b" not in b"".join(received):
        received.append(records.recv(64))
    assert b"".join(received) == b"a" * 100 + b"b" * 3
    assert not records.has_read_ahead
    assert records.send(memoryview(b"answer")) == 6
    assert client.read() == b"answer"


def test_what_has_been_read_ahead_is_known(ends: tuple[TlsRecords, Client]) -> None:
    records, client = ends
    shake(records, client)
    client.send(b"first")
    client.send(b"second")
    assert records.recv(3) == b"fir"
    assert records.has_read_ahead
    assert records.recv(30) == b"st"
    assert records.has_read_ahead
    assert records.recv(30) == b"second"
    assert not records.has_read_ahead


def test_what_the_socket_does_not_take_is_sent_later_and_once(
    ends: tuple[TlsRecords, Client], network: Network
) -> None:
    records, client = ends
    shake(records, client)
    client.read()
    data = memoryview(bytes(range(256)) * 1000)
    left = data
    waits = 0
    network.room_bytes = 0
    while left:
        try:
            left = left[records.send(left) :]
        except ssl.SSLWantWriteError:
            waits += 1
            network.room_bytes += 1000
    assert client.read() == data
    assert waits > 200


def test_a_handshake_waits_for_room(contexts: tuple[ssl.SSLContext, ssl.SSLContext], network: Network) -> None:
    server, client_context = contexts
    records, client = TlsRecords(server, network.receive, network.transmit), Client(client_context, network)
    client.shakes_hands()
    network.room_bytes = 10
    with pytest.raises(ssl.SSLWantWriteError):
        records.shake_hands()
    network.room_bytes = 1 << 20
    shake(records, client)


def test_a_goodbye_is_an_end_on_both_sides(ends: tuple[TlsRecords, Client], network: Network) -> None:
    records, client = ends
    shake(records, client)
    client.read()
    records.say_goodbye()
    client.exchange()
    assert client.tls.read(1) == b""
    network.is_closed = True
    assert records.recv(1) == b""


@pytest.mark.parametrize(
    "sent",
    [b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\xff\xff", bytes([99]), b"\x16\x03\x01\x00\x05hello"],
    ids=["HTTP", "too long", "one byte", "no hello"],
)
def test_what_is_no_tls_is_an_error_at_once(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], network: Network, sent: bytes
) -> None:
    records = TlsRecords(contexts[0], network.receive, network.transmit)
    network.to_server += sent
    with pytest.raises(ssl.SSLError):
        records.shake_hands()


def test_a_client_that_disconnects_amid_the_handshake_is_an_error(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], network: Network
) -> None:
    records = TlsRecords(contexts[0], network.receive, network.transmit)
    network.to_server += b"\x16\x03\x01"
    network.is_closed = True
    with pytest.raises(ConnectionResetError):
        records.shake_hands()


def test_a_record_that_was_changed_on_its_way_is_an_error_of_which_the_client_is_told(
    ends: tuple[TlsRecords, Client], network: Network
) -> None:
    records, client = ends
    shake(records, client)
    client.read()
    client.send(b"data")
    network.to_server[-1] ^= 1
    with pytest.raises(ssl.SSLError):
        records.recv(10)
    client.exchange()
    with pytest.raises(ssl.SSLError, match="alert"):
        client.tls.read(1)


class Silent:
    """A TLS whose records never hold data, as those of key updates."""

    def __init__(self) -> None:
        self.reads = 0

    def wrap_bio(self, *_: object, **__: object) -> "Silent":
        return self

    def pending(self) -> int:
        return 0

    def read(self, _: int) -> bytes:
        self.reads += 1
        raise ssl.SSLWantReadError

    do_handshake: Any = lambda self: self.read(0)


@pytest.mark.parametrize("step", [lambda r: r.recv(10), lambda r: r.shake_hands()], ids=["data", "handshake"])
def test_records_without_data_do_not_keep_it_busy(network: Network, step: Any) -> None:
    silent = Silent()
    records = TlsRecords(cast("ssl.SSLContext", silent), network.receive, network.transmit)
    network.to_server += b"\x17\x03\x03\x00\x01x" * 10_000
    with pytest.raises(ssl.SSLError, match="too many records"):
        step(records)
    assert silent.reads < 100
