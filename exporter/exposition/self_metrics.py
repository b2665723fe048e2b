"""What the exporter reports on itself: a metric is a row of `Status`, and a line where its value is read."""

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from exporter import __version__
from exporter.exposition.buckets import bound_labels, cumulative, seconds_of_ns
from exporter.exposition.spec import MetricSpec
from exporter.revision import REVISION
from exporter.tallies.histograms import DRAIN_SECONDS, Histogram

_Value = float | Mapping[str, float] | tuple[str, ...] | Histogram | None


def _metric(name: str, kind: str, description: str, *labels: str, default: _Value = None) -> Any:
    """Declare a metric: its name, type, help and labels."""
    return field(default=default, metadata={"spec": MetricSpec(name, kind, description, labels)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What the exporter reports on itself at one moment, in the order in which it is exposed.

    A metric without labels has a number; one with a label a number for each of its values; an `_info` its labels'
    values. What is None or has no numbers is absent.
    """

    events: dict[str, int] | None = _metric(
        "proc_connector_events_total",
        "counter",
        "Events that the process connector delivered. thread_* are of threads other than a process's first.",
        "event",
    )
    records: int | None = _metric(
        "proc_connector_exit_records_total", "counter", "Exit records that taskstats delivered."
    )
    """None where there are none."""
    task_exits: dict[str, int] | None = _metric(
        "proc_connector_task_exits_total",
        "counter",
        "Threads and processes that ended, counted from events, and from the kernel's own totals in "
        "/proc/stat and /proc/loadavg. Ends that the events lack were lost; a difference of a handful means "
        "nothing.",
        "source",
    )
    """None where it is not known."""
    pending: dict[str, int] | None = _metric(
        "proc_connector_pending_events",
        "gauge",
        "Events that wait for their comm; they are counted under it within a moment.",
        "event",
    )
    unattributed: dict[str, int] | None = _metric(
        "proc_connector_unattributed_total", "counter", 'Events counted under comm="<unknown>".', "event"
    )
    excluded: dict[str, int] | None = _metric(
        "proc_connector_excluded_total",
        "counter",
        "Events that are in no metric of programs, because the rules of --config.file exclude them.",
        "event",
    )
    group_unresolved: dict[str, int] | None = _metric(
        "proc_connector_group_unresolved_total",
        "counter",
        "Processes of which it could not be known where they run, and containers of pods whose name could not.",
        "reason",
    )
    """None where groups are not asked for."""
    kubernetes_last_sync_seconds: float | None = _metric(
        "proc_connector_kubernetes_last_sync_timestamp_seconds",
        "gauge",
        "When the names of pods were last known to be those of the Kubernetes API; 0 before the first time.",
    )
    """None where the API is not asked."""
    kubernetes_failures: dict[str, int] | None = _metric(
        "proc_connector_kubernetes_failures_total",
        "counter",
        "Requests to the Kubernetes API that failed, and watches that did not end as they should.",
        "reason",
    )
    """None where the API is not asked."""
    containers_connected: bool | None = _metric(
        "proc_connector_containers_connected",
        "gauge",
        "Whether the API socket of --containers.socket says what containers are called: 1 if so.",
    )
    """None where it is not asked."""
    containers_failures: dict[str, int] | None = _metric(
        "proc_connector_containers_failures_total",
        "counter",
        "Requests to the API socket of --containers.socket that failed, and events that could not be read.",
        "reason",
    )
    """None where it is not asked."""
    expired: dict[str, int] | None = _metric(
        "proc_connector_expired_total",
        "counter",
        "Events that were counted in series that were dropped because they were idle for --limit.idle.",
        "event",
    )
    reload_successful: bool | None = _metric(
        "proc_connector_config_last_reload_successful",
        "gauge",
        "Whether the rules of --config.file could be read the last time; if not, the old rules are in force.",
    )
    """None where there is no file of rules."""
    reload_timestamp_seconds: float | None = _metric(
        "proc_connector_config_last_reload_success_timestamp_seconds",
        "gauge",
        "When the rules that are in force were read.",
    )
    """None where there is no file of rules."""
    unknown_lifetimes: int | None = _metric(
        "proc_connector_unknown_lifetimes_total",
        "counter",
        "Ended processes missing in proc_connector_process_lifetime_seconds, because their start is not known.",
    )
    """None where lifetimes are not exposed."""
    lost_ends: int | None = _metric(
        "proc_connector_lost_ends_total",
        "counter",
        "Processes found gone after messages were lost; their ends are in no other metric.",
    )
    """None where it is not known which processes live."""
    lost_messages: dict[str, int] | None = _metric(
        "proc_connector_lost_messages_total",
        "counter",
        "Messages the kernel dropped because the receive buffer was full. Messages that were sent while the "
        "exporter was not subscribed are not included.",
        "socket",
    )
    missed: dict[str, int] | None = _metric(
        "proc_connector_missed_events_total",
        "counter",
        "Events that never came although an exit record or a side-band record shows that they were due. The "
        "kernel has not counted them as lost.",
        "event",
    )
    """None where no records come."""
    malformed: dict[str, int] | None = _metric(
        "proc_connector_malformed_messages_total",
        "counter",
        "Messages dropped because they were broken or did not come from the kernel.",
        "socket",
    )
    receive_buffer_bytes: dict[str, int] | None = _metric(
        "proc_connector_receive_buffer_bytes", "gauge", "Size of the socket's receive buffer.", "socket"
    )
    receive_buffer_used_bytes: dict[str, int] | None = _metric(
        "proc_connector_receive_buffer_used_bytes",
        "gauge",
        "Bytes that waited in the socket's receive buffer when it was last drained.",
        "socket",
    )
    resyncs: int | None = _metric(
        "proc_connector_resyncs_total", "counter", "Comparisons of the process table with /proc after a loss."
    )
    resubscriptions: int | None = _metric(
        "proc_connector_resubscriptions_total",
        "counter",
        "Times the subscription was renewed because the kernel no longer sent events. Events of that time are"
        " in no other metric.",
    )
    stream_clients: int | None = _metric("proc_connector_stream_clients", "gauge", "Clients of the event stream.")
    """None where there is no stream."""
    stream_dropped: int | None = _metric(
        "proc_connector_stream_dropped_events_total",
        "counter",
        "Events that were dropped for clients of the stream that read too slowly; each client gets the number"
        " of its own.",
    )
    """None where there is no stream."""
    failures_left_out: dict[str, int] | None = _metric(
        "proc_connector_failures_left_out_total",
        "counter",
        "Processes that ended with a wait status other than 0 and are not on the page /failures, because newer "
        "ones took their place, or not in the log, because of its limit.",
        "place",
    )
    """None where failures are neither kept nor logged."""
    canary_age_seconds: float | None = _metric(
        "proc_connector_canary_age_seconds",
        "gauge",
        "Time since the end of a canary (a child with a known end) last arrived as an event; before the first"
        " one, since it was due.",
    )
    """None while there is no canary."""
    drain_ns: Histogram | None = _metric(
        "proc_connector_drain_seconds", "histogram", "Time to read and count what had arrived."
    )
    attribution: tuple[str, str, str] | None = _metric(
        "proc_connector_attribution_info",
        "gauge",
        "Always 1. mode: where comm and uid come from (taskstats: exit records, exact; procfs: /proc). "
        "filter: what keeps unwanted events away. exec_names: where the comm of an exec comes from (sideband: "
        "perf records, exact; events: exit records and /proc).",
        "mode",
        "filter",
        "exec_names",
    )
    oom_source: tuple[str] | None = _metric(
        "proc_connector_oom_source_info",
        "gauge",
        "Always 1. source: what says which processes the OOM killer chose (kmsg, syslog: the kernel log, exact; "
        "vmstat: their number, named where that leaves no doubt; none: nothing does).",
        "source",
    )
    """None where ends are not counted."""
    build: tuple[str, str, str] = _metric(
        "proc_connector_exporter_build_info",
        "gauge",
        "Always 1; the exporter's version, and the commit that it was built from.",
        "version",
        "revision",
        "pythonversion",
        default=(__version__, REVISION, platform.python_version()),
    )


_ROWS: tuple[tuple[str, MetricSpec], ...] = tuple((row.name, row.metadata["spec"]) for row in fields(Status))
SELF_METRICS = tuple(spec for _, spec in _ROWS)


class StatusCollector(Collector):
    """Hands the exporter's own state to the library.

    Args:
        status: Called once per scrape.

    Attributes:
        began_seconds: When the counters began, to be handed over with them; None to leave it out.
    """

    def __init__(self, status: Callable[[], Status]) -> None:
        self._status = status
        self.began_seconds: float | None = None

    def describe(self) -> Iterable[Metric]:
        """Nothing: what there is to describe needs a running exporter."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Return one family for each metric that has a value."""
        status = self._status()
        for name, spec in _ROWS:
            value: _Value = getattr(status, name)
            if isinstance(value, list):
                yield self._made(_histogram(spec, value))
            elif isinstance(value, tuple):
                yield _family(spec, {value: 1})
            elif isinstance(value, Mapping):
                if value:
                    yield self._made(_family(spec, {(label,): number for label, number in value.items()}))
            elif value is not None:
                yield self._made(_family(spec, {(): value}))

    def _made(self, family: Metric) -> Metric:
        """Add to each series of a counter and of a histogram when it began."""
        if self.began_seconds is None or family.type not in {"counter", "histogram"}:
            return family
        series: dict[tuple[tuple[str, str], ...], list[Sample]] = {}
        for sample in family.samples:
            series.setdefault(tuple(item for item in sample.labels.items() if item[0] != "le"), []).append(sample)
        family.samples = [
            sample
            for labels, samples in series.items()
            for sample in (*samples, Sample(f"{family.name}_created", dict(labels), self.began_seconds))
        ]
        return family


def _family(spec: MetricSpec, values: Mapping[tuple[str, ...], float]) -> Metric:
    make = CounterMetricFamily if spec.type == "counter" else GaugeMetricFamily
    family = make(spec.name, spec.help, labels=spec.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def _histogram(spec: MetricSpec, drain_ns: Histogram) -> Metric:
    family = HistogramMetricFamily(spec.name, spec.help)
    buckets = list(zip(bound_labels(DRAIN_SECONDS), cumulative(drain_ns), strict=True))
    family.add_metric([], buckets, seconds_of_ns(drain_ns[-1]))
    return family
