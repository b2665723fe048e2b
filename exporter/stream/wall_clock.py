"""CLOCK_MONOTONIC as the time of day."""

import time

_NS_PER_SECOND = 1_000_000_000
_NS_PER_US = 1000


class WallClock:
    """Turns CLOCK_MONOTONIC into the time of day.

    Args:
        wall_ns: The time of day at a moment.
        monotonic_ns: CLOCK_MONOTONIC at the same moment.
    """

    def __init__(self, wall_ns: int, monotonic_ns: int) -> None:
        self._offset_ns = wall_ns - monotonic_ns
        self._second = -1
        self._utc = self._local = ""

    @classmethod
    def now(cls) -> "WallClock":
        """Return the clock of this machine, as it is set now."""
        return cls(time.time_ns(), time.monotonic_ns())

    def monotonic_ns(self, wall_ns: int) -> int:
        """Return the CLOCK_MONOTONIC of a time of day, which is in ns since the epoch."""
        return wall_ns - self._offset_ns

    def seconds(self, time_ns: int) -> float:
        """Return the time in seconds since the epoch."""
        return (time_ns + self._offset_ns) / _NS_PER_SECOND

    def _format_second(self, time_ns: int) -> int:
        """Format the second of a time, if the last call had another one; return the microseconds in it."""
        second, ns = divmod(time_ns + self._offset_ns, _NS_PER_SECOND)
        if second != self._second:
            self._second = second
            self._utc = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._local = time.strftime("%H:%M:%S", time.localtime(second))
        return ns // _NS_PER_US

    def utc(self, time_ns: int) -> str:
        """Return the time in the format of RFC 3339, to the microsecond."""
        us = self._format_second(time_ns)
        return f"{self._utc}.{us:06}Z"

    def local(self, time_ns: int) -> str:
        """Return the local time of day, to the millisecond."""
        us = self._format_second(time_ns)
        return f"{self._local}.{us // 1000:03}"
