"""The canary: a child with a known end whose EXIT has to come back as an event.

Any local user can make the kernel send events to no listener of the host, and a listener gets no sign of it: on a
quiet host there are no events either. So every few seconds a child is forked that exits at once. If its EXIT does
not come, the subscription is renewed. The pipeline leaves canaries out of everything that is counted.
"""

import asyncio
import logging
import os
import time
import warnings
from collections.abc import Callable

from exporter.live.listener import Listener
from exporter.processes.pipeline import Pipeline

_LOG = logging.getLogger(__name__)

# Not 0, so that it comes through a mask that lets only failures through.
CANARY_EXIT_CODE = 42

# An EXIT comes within a millisecond; on an overloaded host it can take until the child gets a CPU.
_PATIENCE_SECONDS = 2.0
# Of the interval, so that a silence is over within two.
_PATIENCE_SHARE = 0.8
_MOST_UNREAPED = 8
_FIRST_LOOK_SECONDS = 0.02
_LOOK_SECONDS = 0.1


def spawn() -> int:
    """Fork a child that exits at once; returns its pid.

    Raises:
        OSError: The kernel makes no more processes (EAGAIN).
    """
    with warnings.catch_warnings():
        # "This process is multi-threaded": the child calls nothing but _exit.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        os._exit(CANARY_EXIT_CODE)
    return pid


def _has_ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


class Canary:
    """Sends canaries, and renews the subscription when one does not come back.

    Args:
        pipeline: Recognises their events and records.
        listener: Drains the sockets, and renews the subscription.
        interval_seconds: Time from one canary to the next.
        spawn_child: Forks a child that exits at once, and returns its pid.
        records: A canary's exit record has to come too.

    Attributes:
        came_back_at: When the last canary came back, by time.monotonic(); None before the first.
        problem: Why the numbers cannot be trusted now; None if they can.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        listener: Listener,
        interval_seconds: float,
        *,
        records: bool,
        spawn_child: Callable[[], int] = spawn,
    ) -> None:
        self._pipeline = pipeline
        self._listener = listener
        self._interval = interval_seconds
        self._records = records
        self._spawn = spawn_child
        # Whether each had ended at an earlier look. Until a child is reaped its pid cannot be another process's.
        self._unreaped: dict[int, bool] = {}
        self._began_at = time.monotonic()
        self.came_back_at: float | None = None
        self.problem: str | None = "the first canary has not come back yet"

    def problem_now(self, now_seconds: float) -> str | None:
        """Return why the numbers cannot be trusted, or None.

        Args:
            now_seconds: time.monotonic().
        """
        if self.problem is None and self.came_back_at is not None:
            late_seconds = now_seconds - self.came_back_at
            if late_seconds > 2 * self._interval + _PATIENCE_SECONDS:
                return f"no canary has come back for {late_seconds:.0f} s"
        return self.problem

    def age_seconds(self, now_seconds: float) -> float:
        """Return the time since the last canary came back, or since the start while none has.

        Args:
            now_seconds: time.monotonic().
        """
        return now_seconds - (self._began_at if self.came_back_at is None else self.came_back_at)

    async def run(self) -> None:
        """Send one canary after the other, for ever."""
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
            # The subscription may be sound: it is not renewed.
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
        """Send a canary; returns what went wrong, or None.

        Raises:
            OSError: No child could be forked.
        """
        await self._reap_earlier()
        if len(self._unreaped) >= _MOST_UNREAPED:
            return "its children do not get to run"
        # An event that waits can be of an earlier process with the same pid.
        await self._listener.count_all()
        pid = self._spawn()
        self._unreaped[pid] = False
        self._pipeline.expect_canary(pid)
        deadline = time.monotonic() + min(_PATIENCE_SECONDS, _PATIENCE_SHARE * self._interval)
        pause = _FIRST_LOOK_SECONDS
        while True:
            await asyncio.sleep(pause)
            await self._listener.count_all()
            returned = self._pipeline.canary_returned(pid)
            if returned is not None or time.monotonic() > deadline:
                break
            pause = _LOOK_SECONDS
        if returned is None:
            return "the process connector is silent"
        self._reap(pid)
        if self._records and not returned:
            return "taskstats sends no exit records"
        return None

    async def _reap_earlier(self) -> None:
        """Reap canaries that were missed, once every event and record of them has been counted.

        One that a comparison keeps would be counted afterwards, as that of another process, which has no record.
        """
        ended = [pid for pid, had_ended in self._unreaped.items() if had_ended]
        if ended:
            await self._listener.count_all()
        for pid in ended:
            self._reap(pid)
        for pid in self._unreaped:
            self._unreaped[pid] = _has_ended(pid)

    def _reap(self, pid: int) -> None:
        self._pipeline.forget_canary(pid)
        os.waitpid(pid, 0)
        del self._unreaped[pid]
