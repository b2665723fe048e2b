"""exporter/exposition/protobuf.py: what Google's library reads is what the text says."""

import math
import time
from collections.abc import Callable
from typing import Any

from expositions import SHOWN, each_snapshot, nasty_snapshot, parsed, scrape, scrape_protobuf
from prometheus_client.parser import text_string_to_metric_families as parse_text
from protobuf_families import by_name

from exporter.exposition.protobuf import ProtobufRenderer
from exporter.exposition.render import render
from exporter.exposition.snapshot import TallySnapshot
from exporter.tallies.births import Births
from exporter.tallies.histograms import observe
from exporter.tallies.native import BOTH_BOUNDS
from exporter.tallies.tallies import Tallies

TYPES = ["counter", "gauge", "summary", "untyped", "histogram"]
VOLATILE = ("process_cpu_seconds", "process_open_fds", "process_resident", "process_virtual", "python_gc")


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
    families = scrape_protobuf(snapshot)
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
    families = scrape_protobuf(nasty_snapshot())
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
    families = scrape_protobuf(snapshot)

    def born(name: str, kind: str) -> list[float]:
        times = [getattr(m, kind).created_timestamp for m in families[name].metric]
        return [time.seconds + time.nanos / 1e9 for time in times]

    assert born("proc_connector_forks_total", "counter") == [2000.5]
    assert born("proc_connector_exits_total", "counter") == [3000.75]
    assert born("proc_connector_process_lifetime_seconds", "histogram") == [3000.75]
    assert set(born("proc_connector_folded_total", "counter")) == {1000.25}
    assert set(born("proc_connector_events_total", "counter")) == {1000.25}
    assert born("proc_connector_drain_seconds", "histogram") == [1000.25]


def everything(tallies: Tallies, births: Births) -> TallySnapshot:
    cells, programs = tallies.snapshot_cells(), tallies.snapshot_programs()
    shown, began = SHOWN[True], births.began_seconds
    live = {program.comm: 1 for program in programs}
    return TallySnapshot(cells, programs, live, shown, tallies.limit, has_native=True, began_seconds=began)


def test_what_is_kept_from_scrape_to_scrape_is_what_would_be_written_anew() -> None:
    clock = [1000.0]
    births = Births(lambda: clock[0])
    tallies = Tallies(births=births, bounds=BOTH_BOUNDS)
    keeping = ProtobufRenderer()

    def end(comm: bytes, status: int, lived_ns: int) -> None:
        cell = tallies.claim_cell(comm, 0)
        cell.forks += 1
        tallies.count_end(cell, status)
        observe(cell.lifetime_ns, tallies.bounds.lifetime_ns, lived_ns)

    def drop(comm: bytes) -> None:
        tallies.drop([tallies.claim_cell(comm, 0)])

    def end_anew(comm: bytes, status: int, lived_ns: int) -> None:
        drop(comm)
        end(comm, status, lived_ns)

    steps: tuple[Callable[[], None], ...] = (
        lambda: end(b"one", 0, 10**6),
        lambda: None,
        lambda: end(b"two", 0x100, 10**9),
        lambda: end(b"one", 0, 10**7),
        lambda: end(b"one", 0x8B, 10**6),
        lambda: drop(b"one"),
        lambda: end_anew(b"two", 0x100, 10**9),  # the same counts, but another life
    )
    written = []
    for step in steps:
        clock[0] += 15.25
        step()
        snapshot = everything(tallies, births)
        written.append(b"".join(keeping.render(snapshot)))
        assert by_name(written[-1]) == by_name(b"".join(ProtobufRenderer().render(snapshot)))
    assert len(set(written)) == len(steps) - 1, "only the second step changed nothing"


def test_protobuf_with_all_that_it_can_say_costs_no_more_than_text() -> None:
    """CPU time of this thread: the same counts, births and all, as OpenMetrics and as protobuf."""
    births = Births(lambda: 1000.25)
    tallies = Tallies(births=births, bounds=BOTH_BOUNDS)
    for number in range(500):
        for uid in range(2):
            cell = tallies.claim_cell(b"program-%d" % number, uid)
            cell.forks = cell.execs = number + 1
            tallies.count_end(cell, 0, number + 1)
            for step in range(1, 20):
                value = step**7 * (number + 1) * 1000
                for histogram, bounds in zip(cell.program.histograms, tallies.bounds, strict=True):
                    observe(histogram, bounds, value)
    renderer = ProtobufRenderer()

    def protobuf() -> float:
        begin = time.thread_time()
        b"".join(renderer.render(everything(tallies, births)))
        return time.thread_time() - begin

    def text() -> float:
        begin = time.thread_time()
        "".join(render(everything(tallies, births), openmetrics=True)).encode()
        return time.thread_time() - begin

    rounds = [(protobuf(), text()) for _ in range(6)]
    assert min(ours for ours, _ in rounds) <= min(texts for _, texts in rounds)
