"""The places of those who are being answered with metrics: how many there are, and who has to give one up.

A client that reads slowly keeps its place until it has read everything. So that such clients cannot keep others
out, a newcomer that finds no place free gets

1. the place of the slowest client of a peer that has more of them than the newcomer's peer would have,
2. else the place of the client that is furthest behind the rate at which an answer has to be read,
3. else, if its peer has read a whole answer lately, a place of a peer that has not.

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
_READERS_REMEMBERED = 256


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
        # Peers that have read a whole answer, the last one last.
        self._readers: dict[str, None] = {}

    @contextlib.asynccontextmanager
    async def taken(self, peer: str, cut: Callable[[], None]) -> AsyncIterator[Place]:
        """Take a place while the block runs.

        Raises:
            NoPlaceError: There is none.
        """
        await self._find(peer)
        place = Place(peer, cut)
        self._taken.append(place)
        try:
            yield place
        finally:
            self._leave(place)
        self._readers.pop(peer, None)
        self._readers[peer] = None
        if len(self._readers) > _READERS_REMEMBERED:
            del self._readers[next(iter(self._readers))]

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
        greedy = greediest(self._taken, lambda place: place.peer, newcomer)
        peers = {place.peer for place in greedy}
        if newcomer in peers or len(greedy) <= mine * len(peers):
            greedy = []
        candidates = greedy or [place for place in self._taken if place.behind_seconds() > _SLOW_SECONDS]
        if not candidates and mine == 1 and newcomer in self._readers:
            candidates = [place for place in self._taken if place.peer not in self._readers]
        return max(candidates, key=Place.behind_seconds, default=None)
