"""exporter/exposition/render.py: what is written by hand says what the library would have written."""

from collections.abc import Iterator

import pytest
from expositions import (
    EMPTY,
    NASTY_COMMS,
    SHOWN,
    each_snapshot,
    nasty_snapshot,
    one_program,
    parsed,
    samples,
)
from library_families import families
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import generate_latest as generate_text
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.registry import Collector

from exporter.exposition.render import render
from exporter.exposition.snapshot import TallySnapshot
from exporter.tallies.histograms import (
    CPU_NS,
    CPU_SECONDS,
    LIFETIME_SECONDS,
    MAX_RSS_BYTES,
    observe,
)
from exporter.tallies.tallies import Tallies


class Families(Collector):
    """Hands `families` to the library."""

    def __init__(self, snapshot: TallySnapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        return families(self._snapshot)


def library(snapshot: TallySnapshot) -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Families(snapshot))
    return registry


@each_snapshot
def test_the_text_format_says_what_the_library_would_have_said(snapshot: TallySnapshot) -> None:
    text = "".join(render(snapshot, openmetrics=False))
    assert parsed(text, parse_text) == parsed(generate_text(library(snapshot)).decode(), parse_text)


@each_snapshot
def test_openmetrics_says_what_the_library_would_have_said(snapshot: TallySnapshot) -> None:
    text = "".join(render(snapshot, openmetrics=True)) + "# EOF\n"
    expected = generate_openmetrics(library(snapshot)).decode()  # type: ignore[no-untyped-call]
    assert parsed(text, parse_openmetrics) == parsed(expected, parse_openmetrics)


@pytest.mark.parametrize("openmetrics", [False, True], ids=["text", "OpenMetrics"])
def test_every_label_value_comes_back_as_the_text_it_was(openmetrics: bool) -> None:
    text = "".join(render(nasty_snapshot(), openmetrics=openmetrics))
    found = parsed(text + "# EOF\n", parse_openmetrics) if openmetrics else parsed(text, parse_text)
    forks = [
        ("proc_connector_forks_total", {"comm": comm or "<empty>", "uid": uid}, float(n))
        for n, comm in enumerate(NASTY_COMMS.values(), start=1)
        for uid in ("0", "4294967294", "<unknown>")
    ]
    assert samples(found, "proc_connector_forks") == forks
    assert samples(found, "proc_connector_processes") == [
        ("proc_connector_processes", {"comm": comm}, float(n))
        for n, comm in enumerate(NASTY_COMMS.values(), start=1)
    ]


COUNTERS_OF_ONE_PROGRAM = """\
proc_connector_forks_total{comm="sh",uid="1000"} 2
proc_connector_execs_total{comm="sh",uid="1000"} 1
proc_connector_exits_total{comm="sh",uid="1000",exit_code="0",signal=""} 3
proc_connector_exits_total{comm="sh",uid="1000",exit_code="139",signal="SIGSEGV"} 1
proc_connector_nonzero_exits_total{comm="sh",uid="1000",exit_code="139",signal="SIGSEGV"} 1
"""


@pytest.mark.parametrize("openmetrics", [False, True], ids=["text", "OpenMetrics"])
def test_counters_that_are_zero_have_no_series(openmetrics: bool) -> None:
    lines = "".join(render(one_program(), openmetrics=openmetrics)).splitlines(keepends=True)
    assert "".join(line for line in lines if ",uid=" in line) == COUNTERS_OF_ONE_PROGRAM


def test_families_have_the_names_that_each_format_wants() -> None:
    for openmetrics, name in ((False, "proc_connector_forks_total"), (True, "proc_connector_forks")):
        head = next(iter(render(EMPTY, openmetrics=openmetrics))).splitlines()
        assert head == [f"# HELP {name} Processes forked, by the forking process.", f"# TYPE {name} counter"]


def test_histograms_are_cumulative_and_in_base_units() -> None:
    found = parsed("".join(render(one_program(), openmetrics=False)), parse_text)
    lifetimes = {
        (name.removeprefix("proc_connector_process_"), labels.get("le")): value
        for name, labels, value in samples(found, "proc_connector_process_lifetime_seconds")
    }
    # 1 ms belongs to the bucket whose bound it is; 2.5 s is the other one.
    assert lifetimes["lifetime_seconds_bucket", "0.001"] == 1
    assert lifetimes["lifetime_seconds_bucket", "1.0"] == 1
    assert lifetimes["lifetime_seconds_bucket", "5.0"] == 2
    assert lifetimes["lifetime_seconds_bucket", "+Inf"] == 2
    assert lifetimes["lifetime_seconds_count", None] == 2
    assert lifetimes["lifetime_seconds_sum", None] == pytest.approx(2.501)
    memory = {
        (name.removeprefix("proc_connector_process_"), labels.get("le")): value
        for name, labels, value in samples(found, "proc_connector_process_max_rss_bytes")
    }
    assert memory["max_rss_bytes_bucket", "1.048576e+06"] == 0
    assert memory["max_rss_bytes_bucket", "2.097152e+06"] == 1
    assert memory["max_rss_bytes_sum", None] == 1025 * 1024


@pytest.mark.parametrize("bounds", [LIFETIME_SECONDS, CPU_SECONDS, MAX_RSS_BYTES], ids=["lifetime", "cpu", "rss"])
def test_a_histogram_has_at_most_15_bounds_and_they_rise(bounds: tuple[float, ...]) -> None:
    assert len(bounds) <= 15
    assert list(bounds) == sorted(set(bounds))


def test_a_program_has_no_histogram_of_what_was_never_observed() -> None:
    tallies = Tallies()
    tallies.claim_cell(b"runs on", 0).forks = 1
    # Older than the exporter: its CPU time is known, its lifetime is not.
    ended = tallies.claim_cell(b"ended", 0)
    tallies.count_end(ended, 0)
    observe(ended.cpu_ns, CPU_NS, 1)
    snapshot = TallySnapshot(tallies.snapshot_cells(), tallies.snapshot_programs(), {}, SHOWN[True])
    found = parsed("".join(render(snapshot, openmetrics=False)), parse_text)
    histograms = {name: rows for name, (kind, _, rows) in found.items() if kind == "histogram" and rows}
    assert list(histograms) == ["proc_connector_process_cpu_seconds"]
    assert {labels["comm"] for _, labels, _ in histograms["proc_connector_process_cpu_seconds"]} == {"ended"}


def test_without_exit_records_there_is_no_cpu_time_and_no_memory() -> None:
    with_records, without = (
        set(parsed("".join(render(EMPTY._replace(shown=SHOWN[records]), openmetrics=False)), parse_text))
        for records in (True, False)
    )
    assert with_records - without == {"proc_connector_process_cpu_seconds", "proc_connector_process_max_rss_bytes"}
    assert without < with_records


@pytest.mark.parametrize("openmetrics", [False, True], ids=["text", "OpenMetrics"])
@pytest.mark.parametrize("kind", ["forks", "exits", "lifetimes", "live"])
def test_no_piece_is_longer_than_a_few_thousand_rows(kind: str, openmetrics: bool) -> None:
    tallies = Tallies(limit=100_000)
    programs = 6_000
    for n in range(programs):
        cell = tallies.claim_cell(b"c%d" % n, 0)
        if kind == "forks":
            cell.forks = 1
        elif kind == "exits":
            for status in (0, 0x100, 0x200, 9, 15):
                tallies.count_end(cell, status)
        elif kind == "lifetimes" and n < 1000:
            tallies.count_end(cell, 0)
            cell.lifetime_ns[0] = 1
    live = {f"c{n}": 1 for n in range(programs)} if kind == "live" else {}
    snapshot = TallySnapshot(tallies.snapshot_cells(), tallies.snapshot_programs(), live, SHOWN[True])
    rows = [piece.count("\n") for piece in render(snapshot, openmetrics=openmetrics)]
    assert sum(rows) > programs
    assert max(rows) <= 5_000
