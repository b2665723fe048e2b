"""Work in a thread that clients cause, one piece at a time and fair to all peers.

A first-in, first-out queue would serve the client that asks most. Here each peer has a short queue of its own, and
peers take turns; peers that have shown that they belong here go first. A request that finds its peer's queue full,
or all queues together, is refused at once.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from exporter.web.peers import greediest

_MOST_OF_A_PEER = 4
_MOST = 32
_REMEMBERED = 256

_T = TypeVar("_T")


class TooManyWaitingError(Exception):
    """Too much work waits already."""


class _Job:
    """One piece of work."""

    def __init__(self, peer: str, work: Callable[[], bool]) -> None:
        self.peer = peer
        self.work = work
        self.done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()


class FairQueue:
    """Runs work in a thread of its own.

    Args:
        name: The thread's name.
    """

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(1, name)
        self._waiting: deque[_Job] = deque()
        # When each of the last peers had its turn: a number that grows.
        self._turns: dict[str, int] = {}
        self._turn = 0
        self._preferred: dict[str, None] = {}
        self._worker: asyncio.Task[None] | None = None

    def prefer(self, peer: str) -> None:
        """Let a peer go first from now on."""
        _remember(self._preferred, peer, None)

    async def run(self, peer: str, work: Callable[[], bool]) -> bool:
        """Run work when it is the peer's turn, and return its result.

        Raises:
            TooManyWaitingError: There is too much to do already.
        """
        self._make_room(peer)
        job = _Job(peer, work)
        self._waiting.append(job)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.ensure_future(self._work())
        try:
            return await job.done
        finally:
            # The client may have disconnected.
            if job in self._waiting:
                self._waiting.remove(job)

    def _make_room(self, newcomer: str) -> None:
        # Some may belong to clients that have disconnected, and are about to be taken out.
        waiting = [job for job in self._waiting if not job.done.done()]
        own = sum(job.peer == newcomer for job in waiting)
        if own >= _MOST_OF_A_PEER:
            raise TooManyWaitingError
        if len(waiting) < _MOST:
            return
        greedy = greediest(waiting, lambda job: job.peer, newcomer)
        if newcomer not in self._preferred:
            greedy = [job for job in greedy if job.peer not in self._preferred]
        if not greedy or (greedy[-1].peer == newcomer and newcomer not in self._preferred):
            raise TooManyWaitingError
        self._waiting.remove(greedy[-1])
        greedy[-1].done.set_exception(TooManyWaitingError())

    async def _work(self) -> None:
        while self._waiting:
            job = min(self._waiting, key=self._order)
            self._waiting.remove(job)
            self._turn += 1
            _remember(self._turns, job.peer, self._turn)
            try:
                result = await asyncio.get_running_loop().run_in_executor(self._thread, job.work)
            except Exception as error:  # noqa: BLE001 - raised where the work is waited for
                if not job.done.done():
                    job.done.set_exception(error)
            else:
                if not job.done.done():
                    job.done.set_result(result)
        self._turns.clear()

    def _order(self, job: _Job) -> tuple[bool, int]:
        return job.peer not in self._preferred, self._turns.get(job.peer, 0)

    def close(self) -> None:
        """Stop the thread; what waits is not run."""
        if self._worker is not None:
            self._worker.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)


def _remember(last: dict[str, _T], peer: str, value: _T) -> None:
    """Note something of a peer, and forget the peer of which something was noted longest ago."""
    last.pop(peer, None)
    last[peer] = value
    if len(last) > _REMEMBERED:
        del last[next(iter(last))]
