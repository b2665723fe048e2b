"""The order in which handshakes go on: each takes CPU time, and clients can ask for more of them than there is.

First come, first served would let a client that connects once wait behind those that connect again and again. So
peers take turns, and those whose requests were answered well before go first: where there are passwords or client
certificates, an attacker is not among them.
"""

from collections import deque
from typing import Generic, Protocol, TypeVar

_REMEMBERED = 1024
# So many of those that go first go in a row while others wait: a peer can go first and attack all the same.
_MOST_IN_A_ROW = 4


class _HasPeer(Protocol):
    @property
    def peer(self) -> str: ...


_T = TypeVar("_T", bound=_HasPeer)


class Handshakes(Generic[_T]):
    """Connections whose handshake can go on."""

    def __init__(self) -> None:
        # The peer whose turn it is is the first.
        self._others: dict[str, deque[_T]] = {}
        self._preferred: dict[str, deque[_T]] = {}
        # The one that was answered last is the last.
        self._answered: dict[str, None] = {}
        self._in_a_row = 0

    def __bool__(self) -> bool:
        return bool(self._others or self._preferred)

    def note_answered(self, peer: str) -> None:
        """Let a peer go first from now on: a request of it was answered well."""
        self._answered.pop(peer, None)
        self._answered[peer] = None
        if len(self._answered) > _REMEMBERED:
            del self._answered[next(iter(self._answered))]

    def add(self, connection: _T) -> None:
        """Let a connection wait for its turn."""
        queue = self._preferred if connection.peer in self._answered else self._others
        queue.setdefault(connection.peer, deque()).append(connection)

    def take(self) -> _T:
        """Take the connection whose turn it is."""
        is_turn_of_others = self._others and (not self._preferred or self._in_a_row >= _MOST_IN_A_ROW)
        self._in_a_row = 0 if is_turn_of_others else self._in_a_row + 1
        queue = self._others if is_turn_of_others else self._preferred
        peer, waiting = next(iter(queue.items()))
        connection = waiting.popleft()
        del queue[peer]
        if waiting:
            queue[peer] = waiting
        return connection
