"""Limits the rate of requests: rate_limit of the web configuration file."""

from exporter.web.config_file import RateLimit


class TokenBucket:
    """Allows one request per interval, and a burst of requests after a pause."""

    def __init__(self, limit: RateLimit) -> None:
        self._limit = limit
        self._tokens = float(limit.burst)
        self._filled_at = -float("inf")

    def take(self, now_seconds: float) -> bool:
        """Return whether one more request is allowed, and count it."""
        gained = (now_seconds - self._filled_at) / self._limit.interval_seconds
        self._tokens = min(self._limit.burst, self._tokens + gained)
        self._filled_at = now_seconds
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
