"""The metrics: their names, types, help and labels, and how a snapshot becomes text.

`METRICS` is the public interface; README's table is checked against it. What is counted per program can be a
hundred thousand series, so its text is written here (`render`), in slices, with each series' labels escaped once
and kept. `families` says the same in prometheus-client's objects; the tests hold both together. Everything else
goes through the library.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/, the OpenMetrics 1.0 specification.
"""

import platform
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from itertools import accumulate, chain, islice
from typing import NamedTuple, TypeVar

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from exporter import __version__
from exporter.kernel.wait_status import exit_labels
from exporter.tallies.labels import OTHER, escape_label_value
from exporter.tallies.tallies import (
    CPU_SECONDS,
    DEFAULT_LIMIT,
    DRAIN_SECONDS,
    LIFETIME_SECONDS,
    MAX_RSS_BYTES,
    OTHER_UID,
    CellCounts,
    Histogram,
    ProgramCounts,
    uid_label,
)

_T = TypeVar("_T")

_ESCAPING = re.compile(r"escaping=(dots|values)")


class MetricSpec(NamedTuple):
    """One metric as its users see it."""

    name: str
    type: str
    help: str
    labels: tuple[str, ...] = ()


_PROGRAM = ("comm", "uid")
_END = ("comm", "uid", "exit_code", "signal")

FORKS = MetricSpec("proc_connector_forks_total", "counter", "Processes forked, by the forking process.", _PROGRAM)
EXECS = MetricSpec("proc_connector_execs_total", "counter", "Programs executed, by their new name.", _PROGRAM)
EXITS = MetricSpec(
    "proc_connector_exits_total",
    "counter",
    "Processes ended. exit_code is what a shell shows (128+n for signal n).",
    _END,
)
NONZERO_EXITS = MetricSpec(
    "proc_connector_nonzero_exits_total", "counter", "Processes ended with a wait status other than 0.", _END
)
COREDUMPS = MetricSpec(
    "proc_connector_coredumps_total", "counter", "Processes that died of a signal that dumps core.", _PROGRAM
)
UID_CHANGES = MetricSpec(
    "proc_connector_uid_changes_total",
    "counter",
    "Changes of real or effective uid, by the new real one.",
    _PROGRAM,
)
PTRACE_ATTACHES = MetricSpec(
    "proc_connector_ptrace_attaches_total",
    "counter",
    "Times a process began to be traced, by the traced.",
    _PROGRAM,
)
LIFETIME = MetricSpec(
    "proc_connector_process_lifetime_seconds",
    "histogram",
    "Time from fork to end of processes that ended.",
    ("comm",),
)
CPU = MetricSpec(
    "proc_connector_process_cpu_seconds", "histogram", "CPU time that ended processes had used.", ("comm",)
)
MAX_RSS = MetricSpec(
    "proc_connector_process_max_rss_bytes", "histogram", "Peak resident memory of ended processes.", ("comm",)
)
PROCESSES = MetricSpec("proc_connector_processes", "gauge", "Processes that live.", ("comm",))
SERIES = MetricSpec(
    "proc_connector_series",
    "gauge",
    "Series of a metric that depend on comm; of a histogram its samples.",
    ("metric",),
)
SERIES_LIMIT = MetricSpec(
    "proc_connector_series_limit", "gauge", "Most series that a metric may have (--limit.series).", ("metric",)
)
FOLDED = MetricSpec(
    "proc_connector_folded_total",
    "counter",
    'What a metric counted under comm="<other>" or uid="<other>", because its series were at the limit.',
    ("metric",),
)
EXCLUDED_EVENTS = MetricSpec(
    "proc_connector_excluded_total",
    "counter",
    "Events that are in no metric of programs, because the rules of --config.file say so.",
    ("event",),
)
EXPIRED_EVENTS = MetricSpec(
    "proc_connector_expired_total",
    "counter",
    "Events that were counted in series which are gone, because they were idle for --limit.idle.",
    ("event",),
)
RELOAD_SUCCESSFUL = MetricSpec(
    "proc_connector_config_last_reload_successful",
    "gauge",
    "Whether the rules of --config.file could be read the last time; if not, those read before are in force.",
)
RELOAD_TIMESTAMP = MetricSpec(
    "proc_connector_config_last_reload_success_timestamp_seconds",
    "gauge",
    "When the rules that are in force were read.",
)
EVENTS = MetricSpec(
    "proc_connector_events_total",
    "counter",
    "Events that the process connector delivered. thread_* are of threads other than a process's first.",
    ("event",),
)
RECORDS = MetricSpec("proc_connector_exit_records_total", "counter", "Exit records that taskstats delivered.")
TASK_EXITS = MetricSpec(
    "proc_connector_task_exits_total",
    "counter",
    "Threads and processes that ended, by who says so: the events, or the kernel's own totals in /proc/stat and "
    "/proc/loadavg. What the events lack was lost; a handful means nothing.",
    ("source",),
)
PENDING = MetricSpec(
    "proc_connector_pending_events",
    "gauge",
    "Events whose comm is being looked up; they are counted under it within a moment.",
    ("event",),
)
UNATTRIBUTED = MetricSpec(
    "proc_connector_unattributed_total", "counter", 'Events counted under comm="<unknown>".', ("event",)
)
UNKNOWN_LIFETIMES = MetricSpec(
    "proc_connector_unknown_lifetimes_total",
    "counter",
    "Ended processes missing in proc_connector_process_lifetime_seconds, because nobody knew their start.",
)
LOST_ENDS = MetricSpec(
    "proc_connector_lost_ends_total",
    "counter",
    "Processes found gone after messages were lost; their ends are in no other metric.",
)
LOST_MESSAGES = MetricSpec(
    "proc_connector_lost_messages_total",
    "counter",
    "Messages the kernel dropped because the receive buffer was full. What was missed while not subscribed is not "
    "among them.",
    ("socket",),
)
MALFORMED = MetricSpec(
    "proc_connector_malformed_messages_total",
    "counter",
    "Messages dropped because they were not the kernel's or not what their header promised.",
    ("socket",),
)
RECEIVE_BUFFER = MetricSpec(
    "proc_connector_receive_buffer_bytes", "gauge", "Size of the socket's receive buffer.", ("socket",)
)
RECEIVE_BUFFER_USED = MetricSpec(
    "proc_connector_receive_buffer_used_bytes",
    "gauge",
    "Bytes that waited in the socket's receive buffer when it was last drained.",
    ("socket",),
)
RESYNCS = MetricSpec(
    "proc_connector_resyncs_total", "counter", "Comparisons of the process table with /proc after a loss."
)
RESUBSCRIPTIONS = MetricSpec(
    "proc_connector_resubscriptions_total",
    "counter",
    "Times the subscription was renewed because the kernel had fallen silent. What happened meanwhile is in no "
    "other metric.",
)
STREAM_CLIENTS = MetricSpec("proc_connector_stream_clients", "gauge", "Clients of the event stream.")
STREAM_DROPPED = MetricSpec(
    "proc_connector_stream_dropped_events_total",
    "counter",
    "Events that a client of the stream did not get because it was slow to read; each is told how many it missed.",
)
CANARY_AGE = MetricSpec(
    "proc_connector_canary_age_seconds",
    "gauge",
    "Time since a child with a known end last came back as an event, which proves the subscription; while none "
    "has, since the first was due.",
)
DRAIN = MetricSpec("proc_connector_drain_seconds", "histogram", "Time to read and count what had arrived.")
ATTRIBUTION = MetricSpec(
    "proc_connector_attribution_info",
    "gauge",
    "Always 1. mode: where comm and uid come from (taskstats: exit records, exact; procfs: /proc). "
    "filter: who leaves out events that are not wanted.",
    ("mode", "filter"),
)
BUILD = MetricSpec(
    "proc_connector_exporter_build_info",
    "gauge",
    "Always 1; the exporter's version.",
    ("version", "pythonversion"),
)

METRICS = (
    FORKS,
    EXECS,
    EXITS,
    NONZERO_EXITS,
    COREDUMPS,
    UID_CHANGES,
    PTRACE_ATTACHES,
    LIFETIME,
    CPU,
    MAX_RSS,
    PROCESSES,
    SERIES,
    SERIES_LIMIT,
    FOLDED,
    EXCLUDED_EVENTS,
    EXPIRED_EVENTS,
    RELOAD_SUCCESSFUL,
    RELOAD_TIMESTAMP,
    EVENTS,
    RECORDS,
    TASK_EXITS,
    PENDING,
    UNATTRIBUTED,
    UNKNOWN_LIFETIMES,
    LOST_ENDS,
    LOST_MESSAGES,
    MALFORMED,
    RECEIVE_BUFFER,
    RECEIVE_BUFFER_USED,
    RESYNCS,
    RESUBSCRIPTIONS,
    STREAM_CLIENTS,
    STREAM_DROPPED,
    CANARY_AGE,
    DRAIN,
    ATTRIBUTION,
    BUILD,
)

_BY_EVENT = {
    "fork": (FORKS,),
    "exec": (EXECS,),
    "exit": (EXITS, NONZERO_EXITS, LIFETIME),
    "nonzero_exit": (NONZERO_EXITS,),
    "coredump": (COREDUMPS,),
    "uid": (UID_CHANGES,),
    "ptrace": (PTRACE_ATTACHES,),
}


def program_metrics(events: Iterable[str], *, records: bool, live: bool) -> frozenset[MetricSpec]:
    """Return the metrics per program that there are.

    Args:
        events: What the user wants to know of.
        records: Exit records tell what ended processes had used.
        live: It is known who lives.
    """
    shown = {spec for event in events for spec in _BY_EVENT.get(event, ())}
    if records and LIFETIME in shown:
        shown |= {CPU, MAX_RSS}
    if live:
        shown.add(PROCESSES)
    return frozenset(shown)


# The sums of histograms are kept in the kernel's units: how many of them make a second or are in a byte.
_PER_SECOND = 1e9
_BYTES_PER_KIB = 1024


class TallySnapshot(NamedTuple):
    """Everything that is counted per program, at one moment."""

    cells: CellCounts
    programs: list[ProgramCounts]
    live: dict[str, int]
    shown: frozenset[MetricSpec]
    """The families to write: those of events that nobody asked for are absent."""
    limit: int = DEFAULT_LIMIT
    """How many series each may have."""


def _unit(value: int, spec: MetricSpec) -> float:
    return float(value * _BYTES_PER_KIB) if spec is MAX_RSS else value / _PER_SECOND


def _histograms(
    snapshot: TallySnapshot,
) -> Iterator[tuple[MetricSpec, tuple[float, ...], list[tuple[ProgramCounts, Histogram]]]]:
    programs = snapshot.programs
    if LIFETIME in snapshot.shown:
        yield LIFETIME, LIFETIME_SECONDS, [(p, p.lifetime_ns) for p in programs if any(p.lifetime_ns)]
    if CPU in snapshot.shown:
        yield CPU, CPU_SECONDS, [(p, p.cpu_ns) for p in programs if any(p.cpu_ns)]
    if MAX_RSS in snapshot.shown:
        yield MAX_RSS, MAX_RSS_BYTES, [(p, p.max_rss_kib) for p in programs if any(p.max_rss_kib)]


# The fields of CellCounts that are a counter each.
_CELL_FIELDS = (
    (FORKS, "forks"),
    (EXECS, "execs"),
    (COREDUMPS, "coredumps"),
    (UID_CHANGES, "uid_changes"),
    (PTRACE_ATTACHES, "ptrace_attaches"),
)


# With the lowest wait status that is counted.
_ENDS = ((EXITS, 0), (NONZERO_EXITS, 1))


def _only(shown: frozenset[MetricSpec], rows: Iterable[tuple[MetricSpec, _T]]) -> Iterator[tuple[MetricSpec, _T]]:
    return ((spec, rest) for spec, rest in rows if spec in shown)


class Budget(NamedTuple):
    """How far the series of the families are from their limit, by the name of the metric."""

    series: dict[str, int]
    limit: dict[str, int]
    folded: dict[str, int]
    """What was counted under `<other>`."""


def budget(snapshot: TallySnapshot) -> Budget:
    """Count the series of a snapshot."""
    cells, shown = snapshot.cells, snapshot.shown
    others = [i for i, (comm, uid) in enumerate(cells.keys) if comm == OTHER or uid == OTHER_UID]
    series: dict[str, int] = {}
    folded: dict[str, int] = {}
    for spec, field in _only(shown, _CELL_FIELDS):
        values = getattr(cells, field)
        series[spec.name] = len(values) - values.count(0)
        folded[spec.name] = sum(values[i] for i in others)
    for spec, lowest in _only(shown, _ENDS):
        series[spec.name] = sum(len(exits) - (lowest > 0 and 0 in exits) for exits in cells.exits)
        folded[spec.name] = sum(
            count for i in others for status, count in cells.exits[i].items() if status >= lowest
        )
    for spec, bounds, rows in _histograms(snapshot):
        series[spec.name] = len(rows) * (len(bounds) + 3)
        folded[spec.name] = sum(sum(histogram[:-1]) for program, histogram in rows if program.comm == OTHER)
    if PROCESSES in shown:
        series[PROCESSES.name] = len(snapshot.live)
    return Budget(series, dict.fromkeys(series, snapshot.limit), folded)


def _budget_families(snapshot: TallySnapshot) -> Iterator[tuple[MetricSpec, dict[str, int]]]:
    return zip((SERIES, SERIES_LIMIT, FOLDED), budget(snapshot), strict=True)


def families(snapshot: TallySnapshot) -> Iterator[Metric]:
    """Return what render writes, as the library's objects."""
    shown = snapshot.shown
    for spec, field in _only(shown, _CELL_FIELDS):
        family = CounterMetricFamily(spec.name, spec.help, labels=spec.labels)
        for key, value in zip(snapshot.cells.keys, getattr(snapshot.cells, field), strict=True):
            if value:
                family.add_metric(_program_labels(key), value)
        yield family
    for spec, lowest in _only(shown, _ENDS):
        family = CounterMetricFamily(spec.name, spec.help, labels=spec.labels)
        for key, exits in zip(snapshot.cells.keys, snapshot.cells.exits, strict=True):
            for status, value in exits.items():
                if status >= lowest:
                    family.add_metric([*_program_labels(key), *exit_labels(status)], value)
        yield family
    for spec, bounds, rows in _histograms(snapshot):
        histograms = HistogramMetricFamily(spec.name, spec.help, labels=spec.labels)
        for program, histogram in rows:
            histograms.add_metric([program.comm], _cumulative(histogram, bounds), _unit(histogram[-1], spec))
        yield histograms
    if PROCESSES in shown:
        gauge = GaugeMetricFamily(PROCESSES.name, PROCESSES.help, labels=PROCESSES.labels)
        for comm, value in snapshot.live.items():
            gauge.add_metric([comm], value)
        yield gauge
    for spec, metrics in _budget_families(snapshot):
        yield _family(spec, {(name,): value for name, value in metrics.items()})


def _program_labels(key: tuple[str, int | None]) -> list[str]:
    comm, uid = key
    return [comm, uid_label(uid)]


def _cumulative(histogram: Histogram, bounds: tuple[float, ...]) -> list[tuple[str, float]]:
    return list(zip(map(_bound, (*bounds, float("inf"))), accumulate(histogram[:-1]), strict=True))


def _bound(bound: float) -> str:
    text: str = floatToGoString(bound)  # type: ignore[no-untyped-call]  # the library's own way to write `le`
    return text


def render(snapshot: TallySnapshot, *, openmetrics: bool) -> Iterator[str]:
    """Write the families of a snapshot in the text format or in OpenMetrics, without its closing line.

    Yields:
        Pieces of text. Each takes a few milliseconds to write, so that others can have their turn in between.
    """
    cells = snapshot.cells
    shown = snapshot.shown
    for spec, field in _only(shown, _CELL_FIELDS):
        yield _head(spec, openmetrics=openmetrics)
        start = f"{spec.name}{{"
        yield from _join(
            f"{start}{labels}}} {value}\n"
            for labels, value in zip(cells.labels, getattr(cells, field), strict=True)
            if value
        )
    for spec, lowest in _only(shown, _ENDS):
        yield _head(spec, openmetrics=openmetrics)
        start = f"{spec.name}{{"
        yield from _join(
            f"{start}{labels}{_exit_tail(status)} {value}\n"
            for labels, exits in zip(cells.labels, cells.exits, strict=True)
            for status, value in exits.items()
            if status >= lowest
        )
    for spec, bounds, programs in _histograms(snapshot):
        yield _head(spec, openmetrics=openmetrics)
        tails = [f',le="{_bound(bound)}"}}' for bound in (*bounds, float("inf"))]
        yield from _join((_render_histogram(spec, tails, *row) for row in programs), _SLICE // len(tails))
    if PROCESSES in shown:
        yield _head(PROCESSES, openmetrics=openmetrics)
        yield from _join(
            f'{PROCESSES.name}{{comm="{escape_label_value(comm)}"}} {value}\n'
            for comm, value in snapshot.live.items()
        )
    for spec, metrics in _budget_families(snapshot):
        yield _head(spec, openmetrics=openmetrics)
        yield from _join(f'{spec.name}{{metric="{name}"}} {value}\n' for name, value in metrics.items())


def _render_histogram(spec: MetricSpec, tails: list[str], program: ProgramCounts, histogram: Histogram) -> str:
    labels = program.labels
    start = f"{spec.name}_bucket{{{labels}"
    counts = list(accumulate(histogram[:-1]))
    buckets = "".join([f"{start}{tail} {count}\n" for tail, count in zip(tails, counts, strict=True)])
    return (
        f"{buckets}{spec.name}_count{{{labels}}} {counts[-1]}\n"
        f"{spec.name}_sum{{{labels}}} {_unit(histogram[-1], spec)!r}\n"
    )


def _head(spec: MetricSpec, *, openmetrics: bool) -> str:
    name = spec.name.removesuffix("_total") if openmetrics else spec.name
    return f"# HELP {name} {spec.help}\n# TYPE {name} {spec.type}\n"


@cache
def _exit_tail(status: int) -> str:
    exit_code, name = exit_labels(status)
    return f',exit_code="{exit_code}",signal="{name}"}}'


# Rows that are written in one piece.
_SLICE = 4000


def _join(texts: Iterator[str], size: int = _SLICE) -> Iterator[str]:
    while piece := "".join(islice(texts, size)):
        yield piece


class Status(NamedTuple):
    """What the exporter says of itself, at one moment."""

    events: dict[str, int]
    records: int | None
    """None where there are none."""
    task_exits: dict[str, int] | None
    """None where it is not known."""
    pending: dict[str, int]
    unattributed: dict[str, int]
    excluded: dict[str, int]
    expired: dict[str, int]
    reload_successful: bool | None
    """None where there is no file of rules."""
    reload_timestamp_seconds: float | None
    unknown_lifetimes: int | None
    """None where no lifetimes are told."""
    lost_ends: int | None
    """None where nobody knows who lives."""
    resyncs: int
    resubscriptions: int
    canary_age_seconds: float | None
    """None while there is no canary."""
    lost_messages: dict[str, int]
    malformed: dict[str, int]
    drain_ns: Histogram
    receive_buffer_bytes: dict[str, int]
    receive_buffer_used_bytes: dict[str, int]
    mode: str
    filter: str
    stream_clients: int | None = None
    """None where there is no stream."""
    stream_dropped: int | None = None


class StatusCollector(Collector):
    """Hands the exporter's own state to the library.

    Args:
        status: Called once per scrape.
    """

    def __init__(self, status: Callable[[], Status]) -> None:
        self._status = status

    def describe(self) -> Iterable[Metric]:
        """Nothing: what there is to describe needs a running exporter."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Return one family for each metric that has no series of its own per program."""
        status = self._status()
        for spec, values in (
            (EVENTS, status.events),
            (RECORDS, status.records),
            (TASK_EXITS, status.task_exits),
            (PENDING, status.pending),
            (UNATTRIBUTED, status.unattributed),
            (EXCLUDED_EVENTS, status.excluded),
            (EXPIRED_EVENTS, status.expired),
            (RELOAD_SUCCESSFUL, status.reload_successful),
            (RELOAD_TIMESTAMP, status.reload_timestamp_seconds),
            (UNKNOWN_LIFETIMES, status.unknown_lifetimes),
            (LOST_ENDS, status.lost_ends),
            (LOST_MESSAGES, status.lost_messages),
            (MALFORMED, status.malformed),
            (RECEIVE_BUFFER, status.receive_buffer_bytes),
            (RECEIVE_BUFFER_USED, status.receive_buffer_used_bytes),
            (RESYNCS, status.resyncs),
            (RESUBSCRIPTIONS, status.resubscriptions),
            (STREAM_CLIENTS, status.stream_clients),
            (STREAM_DROPPED, status.stream_dropped),
            (CANARY_AGE, status.canary_age_seconds),
        ):
            if isinstance(values, dict):
                if values:
                    yield _family(spec, {(value,): n for value, n in values.items()})
            elif values is not None:
                yield _family(spec, {(): values})
        drains = HistogramMetricFamily(DRAIN.name, DRAIN.help)
        drains.add_metric([], _cumulative(status.drain_ns, DRAIN_SECONDS), _unit(status.drain_ns[-1], DRAIN))
        yield drains
        yield _family(ATTRIBUTION, {(status.mode, status.filter): 1})
        yield _family(BUILD, {(__version__, platform.python_version()): 1})


def _family(spec: MetricSpec, values: Mapping[tuple[str, ...], float]) -> Metric:
    make = CounterMetricFamily if spec.type == "counter" else GaugeMetricFamily
    family = make(spec.name, spec.help, labels=spec.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


class Exposition:
    """Everything that /metrics says.

    Args:
        snapshot: Copies the tallies; called once per scrape.
        status: Copies the exporter's own state; called once per scrape."""

    def __init__(self, snapshot: Callable[[], TallySnapshot], status: Callable[[], Status]) -> None:
        self._snapshot = snapshot
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(StatusCollector(status))
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def pieces(self, accept: str) -> tuple[str, Iterator[bytes]]:
        """Render one scrape.

        Args:
            accept: The request's Accept header.

        Returns:
            The Content-Type, and the body in pieces that take a few milliseconds each. All pieces describe the
            moment of this call.
        """
        # Our names need no escaping, and what is rendered here has none.
        accept = _ESCAPING.sub("escaping=underscores", accept)
        try:
            encode, content_type = choose_encoder(accept)
        except (TypeError, ValueError):
            # The library compares a version that is no number with one.
            encode, content_type = choose_encoder("")
        openmetrics = "openmetrics" in content_type
        snapshot = self._snapshot()
        # The library's part comes last: it ends with OpenMetrics' closing line.
        own = encode(self._registry)
        return content_type, chain((text.encode() for text in render(snapshot, openmetrics=openmetrics)), (own,))
