"""The limit of the rate of requests."""

import tracemalloc

from exporter.web.token_bucket import TokenBucket, TokenBuckets
from exporter.web.web_settings import RateLimit


def test_a_bucket_fills_by_one_each_interval_up_to_its_burst() -> None:
    bucket = TokenBucket(RateLimit(interval_seconds=2.0, burst=2))
    taken = [bucket.take(now) for now in (100.0, 100.0, 100.0, 101.0, 102.0, 102.1, 200.0, 200.0, 200.0)]
    assert taken == [True, True, False, False, True, False, True, True, False]


def test_each_peer_has_a_bucket_of_its_own() -> None:
    buckets = TokenBuckets(RateLimit(interval_seconds=1.0, burst=2))
    assert [buckets.take("greedy", 100.0) for _ in range(5)] == [True, True, False, False, False]
    assert [buckets.take("modest", 100.0) for _ in range(3)] == [True, True, False]
    assert [buckets.take(peer, 101.0) for peer in ("greedy", "greedy", "modest", "modest")] == [
        True, False, True, False,
    ]  # fmt: skip


def test_peers_that_come_and_go_leave_nothing_behind() -> None:
    buckets = TokenBuckets(RateLimit(interval_seconds=1e9, burst=1))
    tracemalloc.start()
    for n in range(2000):
        assert buckets.take(f"{n}", 100.0)
    before, _ = tracemalloc.get_traced_memory()
    for n in range(2000, 20_000):
        assert buckets.take(f"{n}", 100.0)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after < before + 100_000
