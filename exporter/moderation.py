"""When to drain the sockets: at once while the host is quiet, in batches while it is busy.

Waking up for an event costs more than counting it, and costs the forking process too. So each interval has a few
wake-ups to spend; when they are used up, the reader is taken out of the event loop and the sockets are drained by
a timer (interrupt moderation) until there is little to drain. The pause is bounded by how fast the receive buffer
could fill: by the worst rate that the CPUs could make, and by how full it was found.
"""

LONGEST_PAUSE_SECONDS = 0.1
_SHORTEST_PAUSE_SECONDS = 0.001
_WAKE_UPS_PER_INTERVAL = 30
_INTERVAL_NS = 100_000_000
_FEW_EVENTS = 20

# A CPU that does nothing but fork and exit makes about 25,000 events in a second; twice that leaves room for the
# exporter to be late. An event takes 832 bytes of the receive buffer.
_EVENTS_PER_CPU_SECOND = 50_000
_BYTES_PER_EVENT = 832


class Moderation:
    """Decides after each drain how to wait for the next.

    Args:
        buffer_bytes: The receive buffer's size.
        cpus: How many CPUs can make events at the same time.
    """

    def __init__(self, buffer_bytes: int, cpus: int) -> None:
        seconds_to_fill = buffer_bytes / _BYTES_PER_EVENT / (_EVENTS_PER_CPU_SECOND * cpus)
        self._longest = min(LONGEST_PAUSE_SECONDS, max(_SHORTEST_PAUSE_SECONDS, seconds_to_fill))
        self._pause = 0.0
        self._interval_end_ns = 0
        self._wake_ups = 0

    def pause(self, events: int, fill: float, now_ns: int) -> float:
        """Return how long to sleep before the next drain, in seconds; 0 to wait for the next event instead.

        Args:
            events: How many the last drain found.
            fill: How full the fuller receive buffer was before it, from 0 to 1.
            now_ns: Any monotonic clock.
        """
        if self._pause:
            if events < _FEW_EVENTS:
                self._pause = 0.0
                self._wake_ups = 0
            elif fill > 0.25:
                self._pause = max(_SHORTEST_PAUSE_SECONDS, self._pause / 2)
            elif fill < 0.1:
                self._pause = min(self._longest, self._pause * 2)
            return self._pause
        if now_ns >= self._interval_end_ns:
            self._interval_end_ns = now_ns + _INTERVAL_NS
            self._wake_ups = 0
        self._wake_ups += 1
        if self._wake_ups > _WAKE_UPS_PER_INTERVAL:
            self._pause = self._longest
        return self._pause
