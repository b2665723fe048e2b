"""The limit of the rate of requests."""

from exporter.web.config_file import RateLimit
from exporter.web.token_bucket import TokenBucket


def test_a_bucket_fills_by_one_each_interval_up_to_its_burst() -> None:
    bucket = TokenBucket(RateLimit(interval_seconds=2.0, burst=2))
    taken = [bucket.take(now) for now in (100.0, 100.0, 100.0, 101.0, 102.0, 102.1, 200.0, 200.0, 200.0)]
    assert taken == [True, True, False, False, True, False, True, True, False]
