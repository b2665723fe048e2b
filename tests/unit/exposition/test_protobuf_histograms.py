"""exporter/exposition/protobuf_histograms.py: native buckets, as Google's library reads them."""

import math

from expositions import SHOWN, scrape_protobuf

from exporter.exposition.snapshot import TallySnapshot
from exporter.tallies.histograms import observe
from exporter.tallies.native import BOTH_BOUNDS
from exporter.tallies.tallies import Tallies

VALUES_NS = (0, 1, 61_000, 61_100, 10**6, 1_000_001, 2_500_000, 10**9, 10**9 + 1, 86_400 * 10**9, 10**16)


def native_snapshot() -> TallySnapshot:
    tallies = Tallies(bounds=BOTH_BOUNDS)
    cell = tallies.claim_cell(b"sh", 0)
    for value in VALUES_NS:
        tallies.count_end(cell, 0)
        observe(cell.lifetime_ns, tallies.bounds.lifetime_ns, value)
    return TallySnapshot(tallies.snapshot_cells(), tallies.snapshot_programs(), {}, SHOWN[True], has_native=True)


def test_each_value_is_in_the_native_bucket_that_its_spans_say() -> None:
    (metric,) = scrape_protobuf(native_snapshot())["proc_connector_process_lifetime_seconds"].metric
    native = metric.histogram
    assert native.schema == 2
    counts: dict[int, int] = {}
    index = count = 0
    deltas = iter(native.positive_delta)
    for span in native.positive_span:
        index += span.offset
        for _ in range(span.length):
            count += next(deltas)
            counts[index] = count
            index += 1
    assert next(deltas, None) is None
    expected: dict[int, int] = {}
    for value in VALUES_NS:
        seconds = value / 1e9
        if seconds > native.zero_threshold:
            bucket = min(math.ceil(math.log2(seconds) * 4), 81)
            expected[bucket] = expected.get(bucket, 0) + 1
    assert counts == expected
    assert native.zero_count == sum(value / 1e9 <= native.zero_threshold for value in VALUES_NS)
    assert native.sample_count == native.zero_count + sum(counts.values()) == len(VALUES_NS)


def test_a_span_may_be_as_long_as_there_are_buckets() -> None:
    tallies = Tallies(bounds=BOTH_BOUNDS)
    cell = tallies.claim_cell(b"sh", 0)
    tallies.count_end(cell, 0)
    for value in tallies.bounds.lifetime_ns:
        observe(cell.lifetime_ns, tallies.bounds.lifetime_ns, value)
    snapshot = TallySnapshot(
        tallies.snapshot_cells(), tallies.snapshot_programs(), {}, SHOWN[True], has_native=True
    )
    (metric,) = scrape_protobuf(snapshot)["proc_connector_process_lifetime_seconds"].metric
    (span,) = metric.histogram.positive_span
    assert span.length == len(metric.histogram.positive_delta) == 136
