"""Limits the rate of requests: rate_limit of the web configuration file.

Each peer has a bucket of its own. The client that asks most would empty one for all, without a password too, and
the scrape of another client would be refused.
"""

from exporter.web.web_settings import RateLimit

# A peer that is forgotten gets a full bucket.
_PEERS_REMEMBERED = 1024


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


class TokenBuckets:
    """A bucket for each peer.

    Args:
        limit: Of one peer.
    """

    def __init__(self, limit: RateLimit) -> None:
        self._limit = limit
        # The peer that asked last is the last.
        self._of_peer: dict[str, TokenBucket] = {}

    def take(self, peer: str, now_seconds: float) -> bool:
        """Return whether one more request of a peer is allowed, and count it."""
        bucket = self._of_peer.pop(peer, None) or TokenBucket(self._limit)
        self._of_peer[peer] = bucket
        if len(self._of_peer) > _PEERS_REMEMBERED:
            del self._of_peer[next(iter(self._of_peer))]
        return bucket.take(now_seconds)
