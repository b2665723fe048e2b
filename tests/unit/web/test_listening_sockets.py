"""The listening sockets of the web server: addresses, and what systemd passes."""

import errno
import fcntl
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.errors import AddressError, SetupError
from exporter.settings.web import ListenAddress
from exporter.web.listening_sockets import open_web_sockets, socket_name


@pytest.fixture
def opened() -> Iterator[list[socket.socket]]:
    sockets: list[socket.socket] = []
    yield sockets
    for sock in sockets:
        sock.close()


def reaches(sock: socket.socket, host: str) -> bool:
    try:
        socket.create_connection((host, sock.getsockname()[1]), timeout=5).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("host", "reached", "not_reached"),
    [
        (None, ("127.0.0.1", "::1"), ()),
        ("127.0.0.1", ("127.0.0.1",), ("::1", "127.0.0.2")),
        ("::1", ("::1",), ("127.0.0.1",)),
        ("::", ("::1",), ("127.0.0.1",)),
        ("0.0.0.0", ("127.0.0.1", "127.0.0.2"), ("::1",)),
    ],
    ids=["all", "IPv4", "IPv6", "all of IPv6", "all of IPv4"],
)
def test_an_address_is_where_it_can_be_reached(
    opened: list[socket.socket], host: str | None, reached: tuple[str, ...], not_reached: tuple[str, ...]
) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    opened += open_web_sockets([ListenAddress(host, 0)])
    assert [reaches(opened[0], other) for other in reached] == [True] * len(reached)
    assert [reaches(opened[0], other) for other in not_reached] == [False] * len(not_reached)


def test_several_addresses_are_opened_in_their_order(opened: list[socket.socket]) -> None:
    opened += open_web_sockets([ListenAddress("127.0.0.1", 0), ListenAddress("127.0.0.2", 0)])
    assert [socket_name(sock).rpartition(":")[0] for sock in opened] == ["127.0.0.1", "127.0.0.2"]


def test_a_port_in_use_is_named(opened: list[socket.socket]) -> None:
    opened += open_web_sockets([ListenAddress("127.0.0.1", 0)])
    port = opened[0].getsockname()[1]
    with pytest.raises(SetupError, match=f"cannot listen on 127.0.0.1:{port}: Address already in use; choose"):
        open_web_sockets([ListenAddress("127.0.0.1", port)])


@pytest.mark.parametrize(
    "host", ["192.0.2.1", "2001:db8::1", "no.such.host.invalid", "a..b", "x" * 100, "300.1.1.1", "é" * 70]
)
def test_an_address_that_is_not_this_machines_is_named(host: str) -> None:
    with pytest.raises(SetupError, match=r"cannot listen on .*--web\.listen-address") as refusal:
        open_web_sockets([ListenAddress(host, 0)])
    assert "\n" not in str(refusal.value)
    assert "None" not in str(refusal.value)


def test_an_address_that_this_machine_does_not_have_may_come() -> None:
    # For documentation alone: RFC 5737.
    with pytest.raises(SetupError) as refusal:
        open_web_sockets([ListenAddress("192.0.2.1", 0)])
    assert not isinstance(refusal.value, AddressError)
    assert str(refusal.value).startswith(f"cannot listen on 192.0.2.1:0: {os.strerror(errno.EADDRNOTAVAIL)}; ")


@pytest.mark.parametrize(
    ("code", "is_final"),
    [(socket.EAI_AGAIN, False), (socket.EAI_NONAME, True), (socket.EAI_FAIL, True)],
    ids=["DNS does not answer", "no such name", "DNS refuses"],
)
def test_a_name_that_cannot_be_asked_for_now_may_come(
    code: int, is_final: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise socket.gaierror(code, "the resolver's words")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(SetupError, match=r"^cannot listen on a\.example:1: the resolver's") as refusal:
        open_web_sockets([ListenAddress("a.example", 1)])
    assert isinstance(refusal.value, AddressError) is is_final


# The program that systemd would start: it finds its sockets from descriptor 3 on.
TAKER = """
import os, sys
from exporter.errors import SetupError
from exporter.web.listening_sockets import socket_name, take_passed_sockets
environment = dict(os.environ)
if environment.get("LISTEN_PID") == "own":
    environment["LISTEN_PID"] = str(os.getpid())
try:
    taken = take_passed_sockets(environment)
    print(*map(socket_name, taken), *(os.get_inheritable(sock.fileno()) for sock in taken))
except SetupError as error:
    print(error)
"""


def high_descriptor(number: int) -> int:
    """Duplicate a descriptor to one that is not in the way of those from 3 on."""
    return fcntl.fcntl(number, fcntl.F_DUPFD, 50)


def take(descriptors: list[int], **environment: str) -> str:
    """Run TAKER with these descriptors as 3, 4 and so on."""
    shell = "".join(f"{3 + at}<&{number} " for at, number in enumerate(descriptors))
    result = subprocess.run(
        ["bash", "-c", f'exec "$0" -c "$1" {shell}', sys.executable, TAKER],
        pass_fds=descriptors,
        env={"PATH": os.environ["PATH"], **environment},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_passed_sockets_are_taken_and_not_handed_on(opened: list[socket.socket], tmp_path: Path) -> None:
    local = socket.socket(socket.AF_UNIX)
    opened += [*open_web_sockets([ListenAddress("127.0.0.1", 0)]), local]
    local.bind(str(tmp_path / "web.sock"))
    local.listen()
    descriptors = [high_descriptor(sock.fileno()) for sock in opened]
    names = take(descriptors, LISTEN_PID="own", LISTEN_FDS="2", LISTEN_FDNAMES="a:b")
    assert names == f"{socket_name(opened[0])} {tmp_path / 'web.sock'} False False"
    for number in descriptors:
        os.close(number)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"LISTEN_FDS": "1", "LISTEN_PID": "1"},
        {"LISTEN_FDS": "0", "LISTEN_PID": "own"},
        {"LISTEN_FDS": "many", "LISTEN_PID": "own"},
    ],
    ids=["nothing", "for another process", "none", "no number"],
)
def test_no_passed_socket_is_said(environment: dict[str, str]) -> None:
    page = (Path(__file__).parents[3] / "docs/install.md").read_text(encoding="utf-8")
    remedy = (
        "systemctl reset-failed 'proc-connector-exporter.*'",
        "systemctl start proc-connector-exporter.socket proc-connector-exporter.service",
    )
    assert {command for command in remedy if f"`{command}`" not in page} == set()
    assert take([], **environment) == (
        f"--web.systemd-socket: no socket was passed; start the socket unit too: {' && '.join(remedy)}"
    )


def test_what_was_passed_must_be_a_listening_stream_socket(opened: list[socket.socket]) -> None:
    opened += [socket.socket(), socket.socket(type=socket.SOCK_DGRAM)]
    for sock in opened:
        number = high_descriptor(sock.fileno())
        assert "descriptor 3" in take([number], LISTEN_PID="own", LISTEN_FDS="1")
        os.close(number)
    with open(os.devnull) as file:  # noqa: PTH123
        number = high_descriptor(file.fileno())
        assert "descriptor 3" in take([number], LISTEN_PID="own", LISTEN_FDS="1")
        os.close(number)
