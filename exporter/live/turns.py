"""Long work in short pieces: between them the event loop turns, and what has arrived is drained."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

from exporter.live.drain import Drain

_T = TypeVar("_T")

# Work gives the event loop its turn, and is followed by a step of the drain, each time it took this long.
_SLICE_NS = 5_000_000
# While a thread has to write a record: the event loop's clock has this grain.
_RECORD_SECONDS = 0.001
_NS_PER_SECOND = 1_000_000_000


def pause_between_steps(drain: Drain) -> float:
    """Return after how many seconds a drain goes on that has not come to its end."""
    return _RECORD_SECONDS if drain.awaits_record else 0.0


async def drain_all(drain: Drain) -> None:
    """Drain until nothing is left that was there when this was called, whatever has arrived since."""
    # A pass that is under way may have read before it came. Others step the drain too, in turns: a pass can end in
    # a step of theirs, or in one of these.
    while drain.is_halfway and drain.step() and drain.is_halfway:  # noqa: ASYNC110 - lets the loop turn
        await asyncio.sleep(pause_between_steps(drain))
    goal = drain.goal()
    while drain.step() and not drain.has_reached(goal):
        await asyncio.sleep(pause_between_steps(drain))
        if drain.has_reached(goal):
            return


async def drain_for(drain: Drain, duration_ns: int) -> None:
    """Drain from time to time for longer than a duration."""
    ends_ns = time.monotonic_ns() + duration_ns
    while time.monotonic_ns() <= ends_ns:
        await asyncio.sleep(_SLICE_NS / _NS_PER_SECOND)
        drain.step()


async def in_slices(drain: Drain, items: Iterable[_T]) -> AsyncIterator[_T]:
    """Hand items out one by one; from time to time let the event loop turn, and drain."""
    slice_ends_ns = time.monotonic_ns() + _SLICE_NS
    for item in items:
        yield item
        if time.monotonic_ns() > slice_ends_ns:
            await asyncio.sleep(0)
            drain.step()
            slice_ends_ns = time.monotonic_ns() + _SLICE_NS
