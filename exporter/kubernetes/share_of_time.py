"""Keeps what an API sends to a share of the event loop's time, however much it sends: counting comes first."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

_T = TypeVar("_T")

# Work is followed by a rest when it took so long.
_SLICE_NS = 2_000_000
_NS_PER_SECOND = 1_000_000_000


class ShareOfTime:
    """Lets the event loop turn amid work, for several times as long as the work took.

    Args:
        rest: How many times as long.
    """

    def __init__(self, rest: float = 4.0) -> None:
        self._rest = rest
        self._spent_ns = 0

    async def each(self, items: Iterable[_T]) -> AsyncIterator[_T]:
        """Hand items out one by one; what makes them, and what is done with each, is the work."""
        began_ns = time.monotonic_ns()
        for item in items:
            yield item
            spent_ns = self._spent_ns + time.monotonic_ns() - began_ns
            if spent_ns > _SLICE_NS:
                self._spent_ns = 0
                await asyncio.sleep(self._rest * spent_ns / _NS_PER_SECOND)
                began_ns = time.monotonic_ns()
        self._spent_ns += time.monotonic_ns() - began_ns
        if self._spent_ns > _SLICE_NS:
            spent_ns, self._spent_ns = self._spent_ns, 0
            await asyncio.sleep(self._rest * spent_ns / _NS_PER_SECOND)
