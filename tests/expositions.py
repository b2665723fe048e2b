"""Snapshots to write, and what comes out, parsed."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from prometheus_client import Metric
from protobuf_families import by_name

from exporter.events import EVENTS
from exporter.exposition.metrics import METRICS, program_metrics
from exporter.exposition.scrape import Exposition
from exporter.exposition.self_metrics import Status
from exporter.exposition.snapshot import TallySnapshot
from exporter.tallies.cells import Group
from exporter.tallies.counters import COUNTERS
from exporter.tallies.histograms import (
    CPU_NS,
    DRAIN_NS,
    LIFETIME_NS,
    MAX_RSS_KIB,
    new_histogram,
    observe,
)
from exporter.tallies.labels import GROUP_LABELS as GROUP_LABELS_OF
from exporter.tallies.tallies import LEAST_LIMIT, Tallies


class OpenGroup(Group):
    """A group that is not known yet."""

    __slots__ = ()
    is_open = True


Parse = Callable[[str], Iterable[Metric]]
Family = tuple[str, str, list[tuple[str, dict[str, str], float]]]

PROTOBUF = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
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
SHOWN = {records: program_metrics(EVENTS, records=records, live=True, oom_kills=True) for records in (True, False)}


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
            for period, row in enumerate(COUNTERS[2:], start=2):
                setattr(cell, row.field, n % period)
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
        group_unresolved={"gone": 24},
        kubernetes_last_sync_seconds=25.5,
        kubernetes_failures={"torn": 26},
        containers_connected=True,
        containers_failures={"refused": 27},
        expired={"exit": 22},
        reload_successful=True,
        reload_timestamp_seconds=23.5,
        unknown_lifetimes=6,
        lost_ends=7,
        missed={"exit": 2, "fork": 1, "exec": 3},
        resyncs=8,
        resubscriptions=17,
        canary_age_seconds=18.5,
        failures_left_out={"page": 24, "log": 25},
        stream_clients=3,
        stream_dropped=7,
        lost_messages={"connector": 9, "taskstats": 10},
        malformed={"connector": 11, "taskstats": 12},
        drain_ns=drain_ns,
        receive_buffer_bytes={"connector": 13, "taskstats": 14},
        receive_buffer_used_bytes={"connector": 15, "taskstats": 16},
        attribution=("taskstats", "kernel", "events"),
        oom_source=("kmsg",),
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


GROUP_LABELS = (*GROUP_LABELS_OF["pod"], *GROUP_LABELS_OF["unit"])
GROUPS = [
    ("", "", "", ""),
    ("shop", "cart-7d9", "web", "kubelet.service"),
    ("shop", "cart-7d9", "side", "kubelet.service"),
    ("", "", "", 'say "hi"\\.service'),
]


def grouped_snapshot(*, histograms: bool = False) -> TallySnapshot:
    """Programs in several groups, in the unknown one, and in one that is not known yet."""
    tallies = Tallies(group_labels=GROUP_LABELS, group_histograms=histograms)
    opened = OpenGroup()
    tallies.groups.open[opened] = None
    groups = [tallies.groups.claim(values) for values in GROUPS]
    for n, group in enumerate((*groups, None, opened), start=1):
        for comm in (b"sh", b'say "hi"', None):
            cell = tallies.claim_cell(comm, n, group)
            cell.forks = n
            tallies.count_end(cell, 0, n)
            tallies.count_end(cell, 9, 1)
            observe(cell.lifetime_ns, LIFETIME_NS, 10**6)
    live = {("sh", group.values): n for n, group in enumerate(groups, start=1)}
    return _in_groups(tallies, live)


def crowded_groups_snapshot() -> TallySnapshot:
    """More groups than there may be, some of them with more of everything than there may be."""
    tallies = Tallies(LEAST_LIMIT, group_labels=("unit",))
    for n in range(2 * LEAST_LIMIT):
        group = tallies.groups.claim((f"{n % 70}.service",))
        cell = tallies.claim_cell(b"c%d" % n, n % 200, group)
        cell.forks += 1
        tallies.count_end(cell, (n % 256) << 8)
        observe(cell.lifetime_ns, LIFETIME_NS, 10**6)
    live = {(comm, group): 1 for (comm, _), group in zip(*tallies.snapshot_cells()[:2], strict=True)}
    return _in_groups(tallies, live)


def _in_groups(tallies: Tallies, live: dict[tuple[str, tuple[str, ...]], int]) -> TallySnapshot:
    return TallySnapshot(
        tallies.snapshot_cells(),
        tallies.snapshot_programs(),
        {},
        SHOWN[True],
        tallies.limit,
        group_labels=tallies.groups.names,
        live_in_groups=live,
    )


SNAPSHOTS = {
    "groups": grouped_snapshot(),
    "histograms of groups": grouped_snapshot(histograms=True),
    "crowded groups": crowded_groups_snapshot(),
    "nasty": nasty_snapshot(),
    "crowded": crowded_snapshot(),
    "without records": nasty_snapshot(records=False),
    "empty": EMPTY,
    "empty and without records": EMPTY._replace(shown=SHOWN[False]),
}
each_snapshot = pytest.mark.parametrize("snapshot", SNAPSHOTS.values(), ids=SNAPSHOTS)


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


def scrape(snapshot: TallySnapshot, accept: str) -> tuple[str, str]:
    content_type, pieces = Exposition(lambda: snapshot, status).pieces(accept)
    return content_type, b"".join(pieces).decode()


def scrape_protobuf(snapshot: TallySnapshot) -> dict[str, Any]:
    """Every message of an exposition by the name of its family."""
    content_type, pieces = Exposition(lambda: snapshot, status).pieces(PROTOBUF)
    assert content_type == PROTOBUF.replace(";", "; ")
    return by_name(b"".join(pieces))
