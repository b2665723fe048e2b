"""The metrics: their names, types, help and labels.

`METRICS` is the public interface, in the order of the exposition; docs/metrics.md is checked against it. A counter
of programs is a row of tallies/counters.py, a metric of the exporter itself a row of self_metrics.py.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from exporter.exposition.buckets import bytes_of_kib, seconds_of_ns
from exporter.exposition.self_metrics import SELF_METRICS
from exporter.exposition.spec import MetricSpec
from exporter.tallies.counters import BY_EVENT, COUNTERS
from exporter.tallies.histograms import CPU_SECONDS, LIFETIME_SECONDS, MAX_RSS_BYTES
from exporter.tallies.labels import CELL_LABELS, END_LABELS, PROGRAM_LABELS

# By the name of the field of Counters.
COUNTER_SPECS = {row.field: MetricSpec(row.metric, "counter", row.help, CELL_LABELS) for row in COUNTERS}
OOM_KILLS = COUNTER_SPECS["oom_kills"]
EXITS = MetricSpec(
    "proc_connector_exits_total",
    "counter",
    "Processes ended. exit_code is what a shell shows (128+n for signal n).",
    END_LABELS,
)
NONZERO_EXITS = MetricSpec(
    "proc_connector_nonzero_exits_total", "counter", "Processes ended with a wait status other than 0.", END_LABELS
)
LIFETIME = MetricSpec(
    "proc_connector_process_lifetime_seconds",
    "histogram",
    "Time from fork to end of processes that ended.",
    PROGRAM_LABELS,
)
CPU = MetricSpec(
    "proc_connector_process_cpu_seconds", "histogram", "CPU time of processes that ended.", PROGRAM_LABELS
)
MAX_RSS = MetricSpec(
    "proc_connector_process_max_rss_bytes", "histogram", "Peak resident memory of ended processes.", PROGRAM_LABELS
)
PROCESSES = MetricSpec("proc_connector_processes", "gauge", "Processes that are alive.", PROGRAM_LABELS)
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
    'Counts of a metric under comm="<other>" or uid="<other>", because its series were at the limit.',
    ("metric",),
)

BUDGET = (SERIES, SERIES_LIMIT, FOLDED)
"""How near the metrics of programs are to their limit."""


class EndRow(NamedTuple):
    """A counter of ends."""

    spec: MetricSpec
    least_status: int
    """The lowest wait status that it counts."""


ENDS = (EndRow(EXITS, 0), EndRow(NONZERO_EXITS, 1))


class HistogramRow(NamedTuple):
    """A histogram per program."""

    spec: MetricSpec
    field: str
    """Of ProgramCounts."""
    bounds: tuple[float, ...]
    in_base_unit: Callable[[int], float]
    """Turns the sum, which is in the kernel's unit."""


HISTOGRAMS = (
    HistogramRow(LIFETIME, "lifetime_ns", LIFETIME_SECONDS, seconds_of_ns),
    HistogramRow(CPU, "cpu_ns", CPU_SECONDS, seconds_of_ns),
    HistogramRow(MAX_RSS, "max_rss_kib", MAX_RSS_BYTES, bytes_of_kib),
)

METRICS = (
    *COUNTER_SPECS.values(),
    *(row.spec for row in ENDS),
    *(row.spec for row in HISTOGRAMS),
    PROCESSES,
    *BUDGET,
    *SELF_METRICS,
)

_BY_EVENT = {
    **{event: (COUNTER_SPECS[row.field],) for event, row in BY_EVENT.items()},
    "exit": (EXITS, NONZERO_EXITS, LIFETIME),
    "nonzero_exit": (NONZERO_EXITS,),
}


def program_metrics(
    events: Iterable[str], *, records: bool, live: bool, oom_kills: bool = False
) -> frozenset[MetricSpec]:
    """Return the metrics per program that there are.

    Args:
        events: Which events the user asked for.
        records: Exit records say what ended processes had used.
        live: It is known which processes live.
        oom_kills: It is known which processes the OOM killer chose.
    """
    shown = {spec for event in events for spec in _BY_EVENT.get(event, ())}
    if records and LIFETIME in shown:
        shown |= {CPU, MAX_RSS}
    if live:
        shown.add(PROCESSES)
    if oom_kills:
        shown.add(OOM_KILLS)
    return frozenset(shown)
