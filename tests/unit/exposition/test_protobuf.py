"""exporter/exposition/protobuf.py: what Google's library reads is what the text says."""

import math
from typing import Any

import pytest
from expositions import SHOWN, each_snapshot, nasty_snapshot, parsed, scrape, status
from prometheus_client.parser import text_string_to_metric_families as parse_text
from protobuf_families import read_families

from exporter.exposition.protobuf import varint, zigzag
from exporter.exposition.scrape import Exposition
from exporter.exposition.snapshot import TallySnapshot
from exporter.tallies.births import Births
from exporter.tallies.histograms import observe
from exporter.tallies.native import BOTH_BOUNDS
from exporter.tallies.tallies import Tallies

PROTOBUF = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
TYPES = ["counter", "gauge", "summary", "untyped", "histogram"]
VOLATILE = ("process_cpu_seconds", "process_open_fds", "process_resident", "process_virtual", "python_gc")


def read(snapshot: TallySnapshot) -> dict[str, Any]:
    content_type, pieces = Exposition(lambda: snapshot, status).pieces(PROTOBUF)
    assert content_type == PROTOBUF.replace(";", "; ")
    return {family.name: family for family in read_families(b"".join(pieces))}


def as_text_has_it(family: Any) -> list[tuple[str, dict[str, str], float]]:
    """Return a family's samples as those of the text format."""
    found = []
    for metric in family.metric:
        labels = {pair.name: pair.value for pair in metric.label}
        if family.type == TYPES.index("histogram"):
            for bucket in metric.histogram.bucket:
                le = "+Inf" if math.isinf(bucket.upper_bound) else repr(bucket.upper_bound)
                found.append((f"{family.name}_bucket", {**labels, "le": le}, float(bucket.cumulative_count)))
            found.append((f"{family.name}_count", labels, float(metric.histogram.sample_count)))
            found.append((f"{family.name}_sum", labels, metric.histogram.sample_sum))
        else:
            found.append((family.name, labels, getattr(metric, TYPES[family.type]).value))
    return found


def in_order(samples: list[tuple[str, dict[str, str], float]]) -> list[tuple[str, list[tuple[str, str]], float]]:
    def plain(labels: dict[str, str]) -> list[tuple[str, str]]:
        return sorted((k, str(float(v)) if k == "le" else v) for k, v in labels.items())

    return sorted((name, plain(labels), value) for name, labels, value in samples)


@each_snapshot
def test_protobuf_says_what_the_text_says(snapshot: TallySnapshot) -> None:
    _, text = scrape(snapshot, "text/plain")
    families = read(snapshot)
    written = parsed(text, parse_text)
    expected = {
        f"{name}_total" if kind == "counter" else name: (kind, documentation, samples)
        for name, (kind, documentation, samples) in written.items()
        if samples  # a message without a series is no valid family
    }
    assert set(families) == set(expected)
    for name, (kind, documentation, samples) in expected.items():
        assert (TYPES[families[name].type], families[name].help) == (kind, documentation)
        if not name.startswith(VOLATILE):
            assert in_order(as_text_has_it(families[name])) == in_order(samples), name


def test_without_the_flags_there_are_neither_births_nor_native_buckets() -> None:
    families = read(nasty_snapshot())
    for metric in families["proc_connector_forks_total"].metric:
        assert not metric.counter.HasField("created_timestamp")
    for metric in families["proc_connector_process_lifetime_seconds"].metric:
        assert not metric.histogram.HasField("created_timestamp")
        assert not metric.histogram.HasField("schema")


def test_each_series_says_when_it_was_born() -> None:
    clock = [1000.25]
    births = Births(lambda: clock[0])
    tallies = Tallies(births=births)
    clock[0] = 2000.5
    cell = tallies.claim_cell(b"sh", 0)
    cell.forks += 1
    clock[0] = 3000.75
    tallies.count_end(cell, 0x100)
    observe(cell.lifetime_ns, tallies.bounds.lifetime_ns, 5)
    snapshot = TallySnapshot(
        tallies.snapshot_cells(), tallies.snapshot_programs(), {}, SHOWN[True], began_seconds=births.began_seconds
    )
    families = read(snapshot)

    def born(name: str, kind: str) -> list[float]:
        times = [getattr(m, kind).created_timestamp for m in families[name].metric]
        return [time.seconds + time.nanos / 1e9 for time in times]

    assert born("proc_connector_forks_total", "counter") == [2000.5]
    assert born("proc_connector_exits_total", "counter") == [3000.75]
    assert born("proc_connector_process_lifetime_seconds", "histogram") == [3000.75]
    assert set(born("proc_connector_folded_total", "counter")) == {1000.25}
    assert set(born("proc_connector_events_total", "counter")) == {1000.25}
    assert born("proc_connector_drain_seconds", "histogram") == [1000.25]


VALUES_NS = (0, 1, 61_000, 61_100, 10**6, 1_000_001, 2_500_000, 10**9, 10**9 + 1, 86_400 * 10**9, 10**16)


def native_snapshot() -> TallySnapshot:
    tallies = Tallies(bounds=BOTH_BOUNDS)
    cell = tallies.claim_cell(b"sh", 0)
    for value in VALUES_NS:
        tallies.count_end(cell, 0)
        observe(cell.lifetime_ns, tallies.bounds.lifetime_ns, value)
    return TallySnapshot(tallies.snapshot_cells(), tallies.snapshot_programs(), {}, SHOWN[True], has_native=True)


def test_each_value_is_in_the_native_bucket_that_its_spans_say() -> None:
    (metric,) = read(native_snapshot())["proc_connector_process_lifetime_seconds"].metric
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
    (metric,) = read(snapshot)["proc_connector_process_lifetime_seconds"].metric
    (span,) = metric.histogram.positive_span
    assert span.length == len(metric.histogram.positive_delta) == 136


@pytest.mark.parametrize(
    ("number", "encoded"),
    [(0, b"\0"), (127, b"\x7f"), (128, b"\x80\x01"), (300, b"\xac\x02"), (2**64 - 1, b"\xff" * 9 + b"\x01")],
)
def test_a_varint_has_seven_bits_in_each_byte(number: int, encoded: bytes) -> None:
    assert varint(number) == encoded


@pytest.mark.parametrize(("number", "unsigned"), [(0, 0), (-1, 1), (1, 2), (-2, 3), (2147483647, 4294967294)])
def test_a_signed_number_is_folded_into_an_unsigned_one(number: int, unsigned: int) -> None:
    assert zigzag(number) == varint(unsigned)
