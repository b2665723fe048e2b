"""The places of those who are being answered with metrics: how many there are, and who has to give one up.

A client that reads slowly keeps its place until it has read everything. So that such clients cannot keep others
out, a newcomer that finds no place free gets

1. the place of the slowest client of a peer that has more of them than the newcomer's peer would have,
2. else the place of a client that is behind the rate at which an answer has to be read,
3. else, if its peer has none yet, a place of a peer of lower standing.

Of several, the peer of the lowest standing gives one up. A peer's standing is the number of answers that its
clients have read without a delay since one of them was too slow; (1) leaves those of higher standing alone. So a
client that has read well for hours goes before any number that come to hold places, and each of those has to read
well before it can do that again.

If there is none of these either, a peer without a place waits a moment, and any other is refused.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from exporter.web.deadline import LEAST_BYTES_PER_SECOND
from exporter.web.peers import greediest

# So far a client can be behind the rate, by the time that it would take it, before another gets its place.
_SLOW_SECONDS = 2.0
_LOOK_SECONDS = 0.1
_PATIENCE_SECONDS = 5.0
_BEST_STANDING = 1000
_PEERS_REMEMBERED = 1024


class NoPlaceError(Exception):
    """All places are taken."""


class Place:
    """The place of one client.

    Args:
        peer: Who it is.
        cut: Ends its connection.
    """

    def __init__(self, peer: str, cut: Callable[[], None]) -> None:
        self.peer = peer
        self.cut = cut
        self._began: float | None = None
        self._sent_bytes = 0

    def begin_to_send(self) -> None:
        """The answer is there: from now on the client's time counts."""
        self._began = asyncio.get_running_loop().time()

    def send(self, count: int) -> None:
        """Note that the client has taken some bytes."""
        self._sent_bytes += count

    @property
    def has_sent(self) -> bool:
        """The client has taken some bytes of an answer."""
        return self._sent_bytes > 0

    @property
    def is_slow(self) -> bool:
        """The client is so far behind that another may have the place."""
        return self.behind_seconds() > _SLOW_SECONDS

    def behind_seconds(self) -> float:
        """Return how far the client is behind the least rate."""
        if self._began is None:
            return 0.0
        return asyncio.get_running_loop().time() - self._began - self._sent_bytes / LEAST_BYTES_PER_SECOND


class Places:
    """A number of places.

    Args:
        count: How many there are; 0 for any number.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._taken: list[Place] = []
        self._standings: dict[str, int] = {}

    @contextlib.asynccontextmanager
    async def taken(self, peer: str, cut: Callable[[], None]) -> AsyncIterator[Place]:
        """Take a place while the block runs.

        Raises:
            NoPlaceError: There is none.
        """
        await self._find(peer)
        place = Place(peer, cut)
        self._taken.append(place)
        has_read = False
        try:
            yield place
            has_read = place.has_sent
        finally:
            if place not in self._taken or place.is_slow:
                self._set_standing(peer, -1)
            elif has_read:
                self._set_standing(peer, min(max(self._standing(peer), 0) + 1, _BEST_STANDING))
            self._leave(place)

    def _standing(self, peer: str) -> int:
        return self._standings.get(peer, 0)

    def _set_standing(self, peer: str, standing: int) -> None:
        self._standings[peer] = standing
        if len(self._standings) > _PEERS_REMEMBERED:
            # However many come, they do not make the exporter forget one that has read well for long.
            del self._standings[min(self._standings, key=self._standing)]

    def _leave(self, place: Place) -> None:
        if place in self._taken:
            self._taken.remove(place)

    async def _find(self, peer: str) -> None:
        loop = asyncio.get_running_loop()
        ends = loop.time() + _PATIENCE_SECONDS
        while self.count and len(self._taken) >= self.count:
            if (slowest := self._slowest(peer)) is not None:
                self._leave(slowest)
                slowest.cut()
            elif loop.time() > ends or any(place.peer == peer for place in self._taken):
                raise NoPlaceError
            else:
                await asyncio.sleep(_LOOK_SECONDS)

    def _slowest(self, newcomer: str) -> Place | None:
        """Return who has to give up its place for a newcomer."""
        mine = sum(place.peer == newcomer for place in self._taken) + 1
        standing = self._standing(newcomer)
        equals = [place for place in self._taken if self._standing(place.peer) <= standing]
        greedy = greediest(equals, lambda place: place.peer, newcomer)
        peers = {place.peer for place in greedy}
        if newcomer in peers or len(greedy) <= mine * len(peers):
            greedy = []
        candidates = greedy or [place for place in self._taken if place.is_slow]
        if not candidates and mine == 1:
            candidates = [place for place in self._taken if self._standing(place.peer) < standing]
        return max(
            candidates, key=lambda place: (-self._standing(place.peer), place.behind_seconds()), default=None
        )
