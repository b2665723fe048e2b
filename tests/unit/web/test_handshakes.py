"""exporter/web/handshakes.py: whose handshake goes on next."""

from typing import NamedTuple

from exporter.web.handshakes import Handshakes


class Client(NamedTuple):
    peer: str
    number: int


def order(handshakes: Handshakes[Client]) -> list[str]:
    taken = []
    while handshakes:
        client = handshakes.take()
        taken.append(f"{client.peer}{client.number}")
    return taken


def test_peers_take_turns_and_those_of_one_peer_come_in_their_order() -> None:
    handshakes: Handshakes[Client] = Handshakes()
    for peer, number in (("a", 1), ("a", 2), ("a", 3), ("b", 1), ("c", 1), ("b", 2)):
        handshakes.add(Client(peer, number))
    assert order(handshakes) == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_a_peer_that_was_answered_well_goes_first() -> None:
    handshakes: Handshakes[Client] = Handshakes()
    handshakes.note_answered("good")
    for n in range(300):
        handshakes.add(Client(f"attacker {n} ", 1))
    handshakes.add(Client("good", 1))
    assert order(handshakes)[0] == "good1"


def test_peers_that_go_first_leave_others_a_turn() -> None:
    handshakes: Handshakes[Client] = Handshakes()
    handshakes.note_answered("good")
    handshakes.add(Client("new", 1))
    taken = []
    for n in range(10):
        handshakes.add(Client("good", n))
        taken.append(handshakes.take().peer)
    assert taken.index("new") == 4
    assert len(order(handshakes)) == 1


def test_a_peer_that_is_answered_again_and_again_is_not_forgotten() -> None:
    handshakes: Handshakes[Client] = Handshakes()
    handshakes.note_answered("once")
    for n in range(3000):
        handshakes.note_answered("good")
        handshakes.note_answered(str(n))
    for peer in ("once", "0", "good"):
        handshakes.add(Client(peer, 1))
    assert order(handshakes) == ["good1", "once1", "01"]
