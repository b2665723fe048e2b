"""exporter/service/sd_notify.py against real sockets."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.service.sd_notify import Notifier


@pytest.fixture
def systemd() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        yield sock


def test_states_arrive_one_a_line(systemd: socket.socket, tmp_path: Path) -> None:
    systemd.bind(str(tmp_path / "notify"))
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")})
    notifier.send("READY=1", "STATUS=Ready")
    assert systemd.recv(1000) == b"READY=1\nSTATUS=Ready"


def test_an_abstract_socket_is_written_with_an_at_sign(systemd: socket.socket) -> None:
    # The kernel chooses an abstract name.
    systemd.bind("")
    name = systemd.getsockname()
    Notifier({"NOTIFY_SOCKET": "@" + name[1:].decode()}).send("STOPPING=1")
    assert systemd.recv(1000) == b"STOPPING=1"


@pytest.mark.parametrize(
    "environment", [{}, {"NOTIFY_SOCKET": "/no/such/socket"}], ids=["no systemd", "no such socket"]
)
def test_without_a_listener_a_state_is_dropped_without_an_error(environment: dict[str, str]) -> None:
    notifier = Notifier(environment)
    notifier.send("READY=1")
    assert notifier.is_wanted == bool(environment)


def test_a_full_socket_holds_nothing_up(systemd: socket.socket, tmp_path: Path) -> None:
    systemd.bind(str(tmp_path / "notify"))
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")})
    for _ in range(10_000):
        notifier.send("WATCHDOG=1")
    assert systemd.recv(1000) == b"WATCHDOG=1"


@pytest.mark.parametrize(("usec", "seconds"), [("30000000", 15.0), ("1000000", 0.5)])
def test_the_watchdog_gets_two_messages_in_its_time(usec: str, seconds: float) -> None:
    assert Notifier({"WATCHDOG_USEC": usec}).interval_seconds == seconds


@pytest.mark.parametrize(
    "environment", [{}, {"WATCHDOG_USEC": ""}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "0"}]
)
def test_without_a_watchdog_the_status_is_sent_every_15_seconds(environment: dict[str, str]) -> None:
    assert Notifier(environment).interval_seconds > 1
