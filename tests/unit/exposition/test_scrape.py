"""exporter/exposition/scrape.py: what is written by hand says what the library would have written."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import pytest
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import generate_latest as generate_text
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.registry import Collector

from exporter.events import EVENTS
from exporter.exposition.scrape import (
    CPU,
    LIFETIME,
    MAX_RSS,
    METRICS,
    Exposition,
    MetricSpec,
    Status,
    TallySnapshot,
    budget,
    families,
    program_metrics,
    render,
)
from exporter.tallies.labels import OTHER
from exporter.tallies.tallies import (
    CPU_NS,
    CPU_SECONDS,
    DRAIN_NS,
    LEAST_LIMIT,
    LIFETIME_NS,
    LIFETIME_SECONDS,
    MAX_RSS_BYTES,
    MAX_RSS_KIB,
    Tallies,
    new_histogram,
    observe,
)

Parse = Callable[[str], Iterable[Metric]]
Family = tuple[str, str, list[tuple[str, dict[str, str], float]]]

OPENMETRICS = "application/openmetrics-text;version=1.0.0"
BY_NAME = {spec.name: spec for spec in METRICS}

NASTY_COMMS = {
    b"plain": "plain",
    b"": "",
    b'say "hi"': 'say "hi"',
    b"back\\slash": "back\\slash",
    b"ends with \\": "ends with \\",
    b"typed \\n": "typed \\n",
    b'\\"': '\\"',
    b"new\nline": r"new\x0aline",
    b"\xff\x1b": r"\xff\x1b",
    "日é🐍".encode(): "日é🐍",
    b"# HELP x y": "# HELP x y",
    b'a="b",c{d} 1': 'a="b",c{d} 1',
    b" a  b ": " a  b ",
    b"<unknown>": r"\x3cunknown>",
}


# With exit records and without.
SHOWN = {records: program_metrics(EVENTS, records=records, live=True) for records in (True, False)}


def parsed(text: str, parse: Parse) -> dict[str, Family]:
    """Every family of an exposition by name: (type, help, samples)."""
    found: dict[str, Family] = {}
    for family in parse(text):
        assert family.name not in found
        samples = [(sample.name, dict(sample.labels), float(sample.value)) for sample in family.samples]
        found[family.name] = (family.type, family.documentation, samples)
    return found


def samples(found: dict[str, Family], name: str) -> list[tuple[str, dict[str, str], float]]:
    return found[name][2]


def nasty_snapshot(*, records: bool = True) -> TallySnapshot:
    tallies = Tallies()
    for n, comm in enumerate(NASTY_COMMS, start=1):
        for uid in (0, 0xFFFFFFFE, None):
            cell = tallies.claim_cell(comm, uid)
            cell.forks = n
            cell.execs = 2**53 + 1 if uid is None else 0
            cell.coredumps = n % 2
            cell.uid_changes = n % 3
            cell.ptrace_attaches = n % 5
            for status, count in {0: n, 0x100: 1, 0xFF00: 2, 9: 3, 11: 4, 33: 5, 64: 6}.items():
                tallies.count_end(cell, status, count)
        for value in (0, 1, 999_999, 1_000_000, 1_000_001, 10**9, 10**15):
            observe(cell.lifetime_ns, LIFETIME_NS, value * n)
            observe(cell.cpu_ns, CPU_NS, value)
            observe(cell.max_rss_kib, MAX_RSS_KIB, value)
    tallies.claim_cell(b"never counted", 1)
    live = {text: n for n, text in enumerate(NASTY_COMMS.values(), start=1)}
    return TallySnapshot(tallies.snapshot_cells(), tallies.snapshot_programs(), live, SHOWN[records])


def status() -> Status:
    drain_ns = new_histogram(DRAIN_NS)
    for value in (50_000, 200_000, 3_000_000_000):
        observe(drain_ns, DRAIN_NS, value)
    return Status(
        events={"fork": 1, "exec": 2, "thread_exit": 3},
        records=19,
        task_exits={"events": 20, "kernel": 21},
        pending={"fork": 4},
        unattributed={"exec": 5},
        excluded={"fork": 21},
        expired={"exit": 22},
        reload_successful=True,
        reload_timestamp_seconds=23.5,
        unknown_lifetimes=6,
        lost_ends=7,
        resyncs=8,
        resubscriptions=17,
        canary_age_seconds=18.5,
        stream_clients=3,
        stream_dropped=7,
        lost_messages={"connector": 9, "taskstats": 10},
        malformed={"connector": 11, "taskstats": 12},
        drain_ns=drain_ns,
        receive_buffer_bytes={"connector": 13, "taskstats": 14},
        receive_buffer_used_bytes={"connector": 15, "taskstats": 16},
        mode="taskstats",
        filter="kernel",
    )


EMPTY = TallySnapshot(Tallies().snapshot_cells(), [], {}, SHOWN[True])


def crowded_snapshot() -> TallySnapshot:
    """More of everything than there may be series."""
    tallies = Tallies(LEAST_LIMIT)
    for n in range(3 * LEAST_LIMIT):
        cell = tallies.claim_cell(b"c%d" % (n // 2), n % 200)
        cell.forks += 1
        tallies.count_end(cell, (n % 256) << 8)
        observe(cell.lifetime_ns, LIFETIME_NS, 10**6)
        observe(cell.cpu_ns, CPU_NS, 10**6)
        observe(cell.max_rss_kib, MAX_RSS_KIB, 10**3)
    live = {program.comm: 1 for program in tallies.snapshot_programs()}
    return TallySnapshot(tallies.snapshot_cells(), tallies.snapshot_programs(), live, SHOWN[True], tallies.limit)


SNAPSHOTS = {
    "nasty": nasty_snapshot(),
    "crowded": crowded_snapshot(),
    "without records": nasty_snapshot(records=False),
    "empty": EMPTY,
    "empty and without records": EMPTY._replace(shown=SHOWN[False]),
}
each_snapshot = pytest.mark.parametrize("snapshot", SNAPSHOTS.values(), ids=SNAPSHOTS)


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


# -- what is written by hand ---------------------------------------------------------------------------------


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
        ("proc_connector_forks_total", {"comm": comm, "uid": uid}, float(n))
        for n, comm in enumerate(NASTY_COMMS.values(), start=1)
        for uid in ("0", "4294967294", "<unknown>")
    ]
    assert samples(found, "proc_connector_forks") == forks
    assert samples(found, "proc_connector_processes") == [
        ("proc_connector_processes", {"comm": comm}, float(n))
        for n, comm in enumerate(NASTY_COMMS.values(), start=1)
    ]


def one_program() -> TallySnapshot:
    tallies = Tallies()
    cell = tallies.claim_cell(b"sh", 1000)
    cell.forks, cell.execs = 2, 1
    tallies.count_end(cell, 0, 3)
    tallies.count_end(cell, 0x8B & ~0x80)
    for nanoseconds in (1_000_000, 2_500_000_000):
        observe(cell.lifetime_ns, LIFETIME_NS, nanoseconds)
    observe(cell.max_rss_kib, MAX_RSS_KIB, 1025)
    return TallySnapshot(tallies.snapshot_cells(), tallies.snapshot_programs(), {"sh": 4}, SHOWN[True])


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


@each_snapshot
def test_series_are_as_many_as_there_are(snapshot: TallySnapshot) -> None:
    lines = "".join(render(snapshot, openmetrics=False)).splitlines()
    names = [re.sub(r"_(bucket|count|sum)$", "", line.partition("{")[0]) for line in lines if line[0] != "#"]
    written = budget(snapshot)
    assert {name: count for name, count in written.series.items() if count} == {
        name: count for name, count in Counter(names).items() if name in written.series
    }
    assert set(written.series) == {spec.name for spec in snapshot.shown}
    assert set(written.limit.values()) == {snapshot.limit}
    assert max(written.series.values()) <= snapshot.limit


def test_what_is_folded_is_what_was_counted_under_other() -> None:
    found = parsed("".join(render(crowded_snapshot(), openmetrics=False)), parse_text)
    folded = {labels["metric"]: value for _, labels, value in samples(found, "proc_connector_folded")}
    for name in ("forks", "exits", "nonzero_exits"):
        others = [
            value
            for _, labels, value in samples(found, f"proc_connector_{name}")
            if OTHER in (labels["comm"], labels["uid"])
        ]
        assert folded[f"proc_connector_{name}_total"] == sum(others) > 0
    for spec in (LIFETIME, CPU, MAX_RSS):
        [count] = [
            value
            for kind, labels, value in samples(found, spec.name)
            if kind.endswith("_count") and labels["comm"] == OTHER
        ]
        assert folded[spec.name] == count > 0
    assert "proc_connector_processes" not in folded


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


# -- the whole of a scrape -----------------------------------------------------------------------------------


def scrape(snapshot: TallySnapshot, accept: str) -> tuple[str, str]:
    content_type, pieces = Exposition(lambda: snapshot, status).pieces(accept)
    return content_type, b"".join(pieces).decode()


@each_snapshot
def test_a_scrape_in_the_text_format_can_be_parsed(snapshot: TallySnapshot) -> None:
    content_type, text = scrape(snapshot, "text/plain;version=0.0.4")
    assert content_type.startswith("text/plain; version=")
    assert "# EOF" not in text.splitlines()
    assert "proc_connector_forks" in parsed(text, parse_text)


@each_snapshot
def test_a_scrape_in_openmetrics_can_be_parsed_and_ends_once(snapshot: TallySnapshot) -> None:
    content_type, text = scrape(snapshot, OPENMETRICS)
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert text.endswith("\n# EOF\n")
    assert text.splitlines().count("# EOF") == 1
    assert "proc_connector_forks" in parsed(text, parse_openmetrics)


@pytest.mark.parametrize("accept", ["text/plain", OPENMETRICS], ids=["text", "OpenMetrics"])
def test_a_scrape_has_the_metrics_of_the_table_and_the_librarys_own(accept: str) -> None:
    _, text = scrape(nasty_snapshot(), accept)
    found = parsed(text, parse_openmetrics if accept == OPENMETRICS else parse_text)
    ours = {name: family for name, family in found.items() if name.startswith("proc_connector_")}
    # Both parsers call a counter's family by its name without _total.
    assert set(ours) == {name.removesuffix("_total") for name in BY_NAME}
    for name, spec in BY_NAME.items():
        family_type, documentation, rows = ours[name.removesuffix("_total")]
        assert (family_type, documentation) == (spec.type, spec.help)
        assert rows
        assert {frozenset(labels) - {"le"} for _, labels, _ in rows} == {frozenset(spec.labels)}
    assert {"python_info", "process_resident_memory_bytes"} <= set(found)


def test_the_exporters_own_state_is_told_as_it_is() -> None:
    found = parsed(scrape(EMPTY, "text/plain")[1], parse_text)
    told = {
        (name.removeprefix("proc_connector_"), *(labels[label] for label in sorted(labels))): value
        for family in found
        if family.startswith("proc_connector_")
        for name, labels, value in samples(found, family)
        if "_bucket" not in name and "build_info" not in name and "metric" not in labels
    }
    assert told == {
        ("events_total", "fork"): 1,
        ("events_total", "exec"): 2,
        ("events_total", "thread_exit"): 3,
        ("exit_records_total",): 19,
        ("task_exits_total", "events"): 20,
        ("task_exits_total", "kernel"): 21,
        ("pending_events", "fork"): 4,
        ("unattributed_total", "exec"): 5,
        ("excluded_total", "fork"): 21,
        ("expired_total", "exit"): 22,
        ("config_last_reload_successful",): 1,
        ("config_last_reload_success_timestamp_seconds",): 23.5,
        ("unknown_lifetimes_total",): 6,
        ("lost_ends_total",): 7,
        ("resyncs_total",): 8,
        ("resubscriptions_total",): 17,
        ("canary_age_seconds",): 18.5,
        ("stream_clients",): 3,
        ("stream_dropped_events_total",): 7,
        ("lost_messages_total", "connector"): 9,
        ("lost_messages_total", "taskstats"): 10,
        ("malformed_messages_total", "connector"): 11,
        ("malformed_messages_total", "taskstats"): 12,
        ("receive_buffer_bytes", "connector"): 13,
        ("receive_buffer_bytes", "taskstats"): 14,
        ("receive_buffer_used_bytes", "connector"): 15,
        ("receive_buffer_used_bytes", "taskstats"): 16,
        ("drain_seconds_count",): 3,
        ("drain_seconds_sum",): pytest.approx(3.00025),
        ("attribution_info", "kernel", "taskstats"): 1,
    }


def test_a_scrape_is_of_one_moment_however_late_its_pieces_are_written() -> None:
    tallies = Tallies()
    cell = tallies.claim_cell(b"sh", 0)
    cell.forks = 1
    tallies.count_end(cell, 0)
    observe(cell.lifetime_ns, LIFETIME_NS, 5)
    exposition = Exposition(
        lambda: TallySnapshot(tallies.snapshot_cells(), tallies.snapshot_programs(), {"sh": 1}, SHOWN[True]),
        status,
    )
    _, pieces = exposition.pieces("text/plain")
    cell.forks += 1
    cell.exits[0] += 1
    cell.exits[9] = 1
    observe(cell.lifetime_ns, LIFETIME_NS, 5)
    tallies.claim_cell(b"later", 0).forks = 1
    found = parsed(b"".join(pieces).decode(), parse_text)
    assert [value for _, _, value in samples(found, "proc_connector_forks")] == [1]
    assert [value for _, _, value in samples(found, "proc_connector_exits")] == [1]
    assert samples(found, "proc_connector_process_lifetime_seconds")[-2][1:] == ({"comm": "sh"}, 1)


# -- the table of metrics ------------------------------------------------------------------------------------


def test_no_metric_is_there_twice() -> None:
    assert len(BY_NAME) == len(METRICS)
    assert len({spec.help for spec in METRICS}) == len(METRICS)


@pytest.mark.parametrize("spec", METRICS, ids=BY_NAME)
def test_a_metric_keeps_the_conventions(spec: MetricSpec) -> None:
    # https://prometheus.io/docs/practices/naming/; process_ and scrape_ at the front are others' (the name as
    # a whole begins with the exporter's).
    assert re.fullmatch(r"proc_connector_[a-z][a-z0-9]*(_[a-z0-9]+)*", spec.name)
    assert spec.type in {"counter", "gauge", "histogram"}
    assert spec.name.endswith("_total") == (spec.type == "counter")
    assert not re.search(r"_(count|sum|bucket|created)$", spec.name)
    assert not re.search(r"_(ns|us|ms|milliseconds|minutes|kib|kb|mb|percent)(_|$)", spec.name)
    if spec.type == "histogram":
        assert spec.name.endswith(("_seconds", "_bytes"))
    assert not {"le", "quantile", "type", "pid", "job", "instance"} & set(spec.labels)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", label) for label in spec.labels)
    assert len(set(spec.labels)) == len(spec.labels)
    assert spec.help.endswith(".")
    assert "\n" not in spec.help
    assert "\\" not in spec.help


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text; version=foo",
        "application/openmetrics-text; version=1.0.0; escaping=dots",
        "text/plain; version=1.0.0; escaping=values",
        "text/plain; version=; q=x, */*",
    ],
)
def test_whatever_is_accepted_all_names_are_written_in_the_same_way(accept: str) -> None:
    content_type, text = scrape(SNAPSHOTS["nasty"], accept)
    assert "text" in content_type
    names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    assert {name for name in names if "proc" in name and "__" in name} == set()
    assert {"proc_connector_processes", "proc_connector_drain_seconds"} <= names
