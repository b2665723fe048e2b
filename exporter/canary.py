"""The canary: a child with a known end that has to come back as an event.

Any local user can silence every listener of the host, and nothing tells the listener; receiving events proves
nothing by itself either. So every few seconds a child is forked that exits at once, and if its EXIT does not come
the subscription is renewed. The table leaves it out of everything that is counted.
"""

import asyncio
import logging
import os
import time
import warnings
from collections.abc import Callable

from exporter.listener import Listener
from exporter.table import ProcessTable

_LOG = logging.getLogger(__name__)

# Not 0, so that it comes through a mask that lets only failures through.
CANARY_EXIT_CODE = 42

# An EXIT comes within a millisecond; on an overloaded host it can take until the child gets a CPU.
_PATIENCE_SECONDS = 2.0
# Of the interval, so that a silence is over within two.
_PATIENCE_SHARE = 0.8
_FIRST_LOOK_SECONDS = 0.02
_LOOK_SECONDS = 0.1


def spawn() -> int:
    """Fork a child that exits at once; returns its pid.

    Raises:
        OSError: No process is to be had (EAGAIN).
    """
    with warnings.catch_warnings():
        # "This process is multi-threaded": the child calls nothing but _exit.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        os._exit(CANARY_EXIT_CODE)
    return pid


def _lives(pid: int) -> bool:
    return os.waitpid(pid, os.WNOHANG) == (0, 0)


class Canary:
    """Sends canaries, and renews the subscription when one does not come back.

    Args:
        table: Recognises them.
        listener: Drains; renews.
        interval_seconds: From one to the next.
        spawn_child: Forks one.
        records: Exit records have to tell of it too.

    Attributes:
        came_back_at: time.monotonic() of the last one; None before the first.
        problem: Why the numbers cannot be trusted now, or None.
    """

    def __init__(
        self,
        table: ProcessTable,
        listener: Listener,
        interval_seconds: float,
        *,
        records: bool,
        spawn_child: Callable[[], int] = spawn,
    ) -> None:
        self._table = table
        self._listener = listener
        self._interval = interval_seconds
        self._records = records
        self._spawn = spawn_child
        self._unreaped: list[int] = []
        self.came_back_at: float | None = None
        self.problem: str | None = "the first canary has not come back yet"

    async def run(self) -> None:
        """Send one after the other, for ever."""
        while True:
            began = time.monotonic()
            await self.prove()
            await asyncio.sleep(max(0.0, self._interval - (time.monotonic() - began)))

    async def prove(self) -> bool:
        """Send a canary; if it is missed, renew the subscription and send another.

        Returns:
            Whether one came back.
        """
        try:
            problem = await self._send()
        except OSError as error:
            # That says nothing of the subscription.
            self._fail(f"no canary could be forked: {error.strerror}")
            return False
        if problem is None:
            self._recovered()
            return True
        self._fail(f"{problem}, renewing the subscription")
        try:
            if await self._listener.resubscribe() and await self._send() is None:
                self._recovered()
                return True
        except OSError as error:
            self._fail(f"no canary could be forked: {error.strerror}")
        return False

    def _fail(self, problem: str) -> None:
        if self.problem != problem:
            _LOG.error("canary missed", extra={"why": problem})
        self.problem = problem

    def _recovered(self) -> None:
        if self.problem is not None and self.came_back_at is not None:
            _LOG.warning("the canary comes back again")
        self.problem = None
        self.came_back_at = time.monotonic()

    async def _send(self) -> str | None:
        """Send one; returns what went wrong.

        Raises:
            OSError: None could be forked.
        """
        pid = self._spawn()
        self._table.expect_canary(pid)
        deadline = time.monotonic() + min(_PATIENCE_SECONDS, _PATIENCE_SHARE * self._interval)
        pause = _FIRST_LOOK_SECONDS
        while True:
            await asyncio.sleep(pause)
            await self._listener.drain_all()
            returned = self._table.canary_returned(pid)
            if returned is not None or time.monotonic() > deadline:
                break
            pause = _LOOK_SECONDS
        # Only now: until it is reaped its pid cannot be another process's.
        self._unreaped.append(pid)
        self._unreaped = [pid for pid in self._unreaped if _lives(pid)]
        if returned is None:
            return "the process connector is silent"
        if self._records and not returned:
            return "taskstats sends no exit records"
        return None
