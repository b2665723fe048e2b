"""exporter/web/peers.py: who shares what, and who has the most of it."""

import socket

import pytest

from exporter.web.peers import greediest, peer_of


@pytest.mark.parametrize(
    ("held", "newcomer", "expected"),
    [
        ([], "a", []),
        (["a", "a", "b"], "b", ["a", "a", "b"]),
        (["a", "a", "b"], "c", ["a", "a"]),
        (["a", "b"], "c", ["a", "b"]),
        (["a", "b", "b"], "b", ["b", "b"]),
    ],
)
def test_a_newcomer_counts_as_if_it_had_its_place(held: list[str], newcomer: str, expected: list[str]) -> None:
    assert sorted(greediest(held, str, newcomer)) == expected


class _Socket:
    def __init__(self, family: int, address: str) -> None:
        self.family = family
        self._address = address

    def getpeername(self) -> tuple[str, int]:
        return self._address, 1


@pytest.mark.parametrize(
    ("family", "address", "peer"),
    [
        (socket.AF_INET, "192.0.2.1", "192.0.2.1"),
        (socket.AF_INET6, "::ffff:192.0.2.1", "192.0.2.1"),
        (socket.AF_INET6, "2001:db8:1:2:3:4:5:6", "20010db800010002/64"),
        (socket.AF_INET6, "2001:db8:1:2::9", "20010db800010002/64"),
        (socket.AF_INET6, "fe80::1%eth0", "fe80000000000000/64"),
    ],
)
def test_all_addresses_of_one_host_are_one_peer(family: int, address: str, peer: str) -> None:
    assert peer_of(_Socket(family, address)) == peer  # type: ignore[arg-type]


def test_a_user_of_a_unix_socket_is_a_peer() -> None:
    here, there = socket.socketpair()
    with here, there:
        assert peer_of(here).isdecimal()
