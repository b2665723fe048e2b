"""Exporter: whether the numbers are right, and what they cost."""

from grafana_foundation_sdk.builders import timeseries
from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.generate import recordings
from dashboards.generate.looks import (
    ANY_IS_BAD,
    BLUE,
    BYTES,
    CANARY_STEPS,
    COUNT,
    EACH_POINT,
    GREEN,
    ORANGE,
    PER_SECOND,
    RATIO,
    RED,
    SECONDS,
    YELLOW,
    Query,
    Scale,
    Steps,
)
from dashboards.generate.pages import page
from dashboards.generate.panels import graph, heat, number
from dashboards.generate.queries import (
    BUILD,
    NODE,
    STEP,
    counted,
    or_zero,
    quantile,
    rate,
    top,
    total,
)
from dashboards.generate.tables import Column, rows

# Each socket has one series, so nothing is summed.
_LOST = counted(recordings.LOST_EACH, window=STEP)
_MOST_LOST = f"sum_over_time({recordings.LOST_EACH}{{{NODE}}}[$__range] @ end())"
_EVENTS = "proc_connector_events_total"
_KINDS = {
    "fork": BLUE,
    "exec": GREEN,
    "exit": ORANGE,
    "thread_fork": "super-light-blue",
    "thread_exit": "#FFB3E6",
    "comm": "purple",
    "uid": YELLOW,
    "gid": "#BCBD22",
    "sid": "#8C564B",
    "ptrace": "#17BECF",
    "coredump": RED,
}
"""The colours of events: they are more than Grafana has colours that differ."""
_LEFT_OUT = "proc_connector_failures_left_out_total"
_NAMED = f'{NODE},event=~"fork|exec|exit"'
_UNATTRIBUTED = "proc_connector_unattributed_total"
_CANARY = f"proc_connector_canary_age_seconds{{{NODE}}}"
_SERIES = f"proc_connector_series{{{NODE}}}"
_CONFIGURED = f"proc_connector_config_last_reload_successful{{{NODE}}}"
_DRAIN = "proc_connector_drain_seconds"
_USED = f"proc_connector_receive_buffer_used_bytes{{{NODE}}}"
_CPU = f"{recordings.CPU}{{{NODE}}}"
_MEMORY = f"{recordings.MEMORY}{{{NODE}}}"
_SAMPLES = f"{recordings.SAMPLES}{{{NODE}}}"
_PER_EVENT = f"{_CPU} / {recordings.EVENTS}{{{NODE}}}"
_MISSED = f"clamp_min({recordings.MISSED}{{{NODE}}}, 0)"


_UP_FOR = (
    f"max by (instance, mode, filter) (proc_connector_attribution_info{{{NODE}}} "
    f"* ignoring (mode, filter, exec_names) group_left () (time() - process_start_time_seconds{{{NODE}}}))"
)
_VERSIONS = f"max by (instance, version, revision, pythonversion) ({BUILD})"


def _each_node(
    title: str,
    description: str,
    unit: str,
    shown: str,
    ranking: str,
    *,
    steps: Steps = (),
    scale: Scale = Scale.LINEAR,
    nothing: str = "",
) -> timeseries.Panel:
    """Return a line per exporter, of those that are first in the ranking."""
    query = Query(top(shown, ranking), "{{instance}}")
    return graph(title, f"{description} The six highest.", unit, query, steps=steps, scale=scale, nothing=nothing)


def _highest(gauge: str) -> str:
    return f"max_over_time({gauge}[$__range] @ end())"


def _average(gauge: str) -> str:
    return f"avg_over_time({gauge}[$__range] @ end())"


def _each(metric: str) -> str:
    return or_zero(f"sum({counted(recordings.own_each(metric), window=STEP)})")


def exporter() -> Dashboard:
    """Return the dashboard."""
    return page(
        "proc-connector-exporter",
        "Accuracy and cost of the exporters: lost messages, unknown names, whether the kernel still sends events, "
        "and the CPU and memory that the exporters use.",
        {
            "": [
                number(
                    "Lost messages in the shown time",
                    "Messages that the kernel dropped in the shown time, because they were not read in time. "
                    "Above 0 the numbers are too low.",
                    COUNT,
                    or_zero(f"sum({counted(recordings.LOST_EACH)})"),
                    ANY_IS_BAD,
                ),
                number(
                    "Unknown names, last minutes",
                    "Share of the forks, execs and exits that are counted under <unknown>. Nearly 0 in taskstats "
                    "mode, a few percent in procfs mode under load.",
                    RATIO,
                    f"sum({rate(_UNATTRIBUTED)}) / sum({rate(_EVENTS, _NAMED)})",
                    ((None, GREEN), (0.01, YELLOW), (0.05, ORANGE)),
                    decimals=2,
                ),
                number(
                    "Oldest canary",
                    "The longest time since the end of a canary (a child with a known end) arrived. Every 15 "
                    "seconds is normal.",
                    SECONDS,
                    f"max({_CANARY})",
                    CANARY_STEPS,
                ),
                number(
                    "Events per second",
                    "Events per second that the kernel delivered.",
                    COUNT,
                    f"sum({rate(_EVENTS)})",
                ),
                number(
                    "CPU, last 5 min",
                    "CPU that the exporters use: the highest of the nodes, as a share of one CPU.",
                    RATIO,
                    f"max({_CPU})",
                    ((None, GREEN), (0.1, YELLOW), (0.5, ORANGE)),
                    decimals=1,
                ),
                number(
                    "Memory",
                    "Resident memory of the exporter with the most.",
                    BYTES,
                    f"max({_MEMORY})",
                ),
            ],
            "Truth": [
                graph(
                    "Lost messages, per point",
                    "Messages that the kernel dropped, by node and socket, of the six with the most in the shown "
                    f"time. Their events are in no metric. {EACH_POINT}",
                    COUNT,
                    Query(top(_LOST, _MOST_LOST), "{{instance}} {{socket}}"),
                    counts=True,
                    scale=Scale.LOG_COUNTS,
                    nothing="Nothing was lost in the shown time",
                ),
                graph(
                    "Fill of the receive buffers",
                    "Bytes that waited in the socket's buffer when it was last drained, as a share of its "
                    "size. Near 100 % messages will be lost. The six fullest.",
                    RATIO,
                    Query(
                        top(f"{_USED} / proc_connector_receive_buffer_bytes{{{NODE}}}", _highest(_USED)),
                        "{{instance}} {{socket}}",
                    ),
                    steps=((None, GREEN), (0.8, RED)),
                ),
                _each_node(
                    "Age of the canary",
                    "A saw tooth up to the canary's interval is normal. A line that rises means that the kernel "
                    "sends no events or the exporter is far behind.",
                    SECONDS,
                    _CANARY,
                    _highest(_CANARY),
                    steps=((None, GREEN), (60, RED)),
                ),
                _each_node(
                    "Unknown names, over 5 min",
                    "Share of the forks, execs and exits that are counted under <unknown>.",
                    RATIO,
                    f"{recordings.UNATTRIBUTED}{{{NODE}}}",
                    _average(f"{recordings.UNATTRIBUTED}{{{NODE}}}"),
                    steps=((None, GREEN), (0.05, RED)),
                ),
                _each_node(
                    "Ends without an event, over 5 min",
                    "Share of the ends of threads and processes that the kernel's own totals in /proc for which "
                    "no event arrived, for any reason: an independent check. On a quiet host a handful more "
                    "or less means nothing.",
                    RATIO,
                    _MISSED,
                    _average(f"{recordings.MISSED}{{{NODE}}}"),
                    steps=((None, GREEN), (0.05, RED)),
                    nothing="Too few ends to compare: no more than one per second",
                ),
                graph(
                    "Series against their limit",
                    "How much of --limit.series the six metrics with the most series use. At 100 % new "
                    "programs are counted under <other>.",
                    RATIO,
                    Query(
                        "label_replace("
                        + top(f"{_SERIES} / proc_connector_series_limit{{{NODE}}}", _highest(_SERIES))
                        + ', "metric", "$2", "metric", "proc_connector_(process_)?(.*)")',
                        "{{instance}} {{metric}}",
                    ),
                    steps=((None, GREEN), (0.8, RED)),
                ),
                graph(
                    "Folded, excluded and expired, per point",
                    "Counts without their name: counts that went to <other> because of the limit, events that "
                    "the rules of --config.file exclude from the metrics of programs, and events of series "
                    f"that were dropped because they were idle. {EACH_POINT}",
                    COUNT,
                    Query(or_zero(f"sum({counted(recordings.FOLDED_EACH, window=STEP)})"), "folded"),
                    Query(_each("proc_connector_excluded_total"), "excluded"),
                    Query(_each("proc_connector_expired_total"), "expired"),
                    counts=True,
                    stacked=True,
                    colors={"folded": RED, "excluded": BLUE, "expired": YELLOW},
                ),
                graph(
                    "Repairs, per point",
                    "Comparisons with /proc after a loss, renewals of the subscription, ends that only these "
                    "comparisons found, unknown lifetimes, exporters whose --config.file is broken. All are 0 "
                    f"on a good day. {EACH_POINT}",
                    COUNT,
                    Query(_each("proc_connector_resyncs_total"), "comparisons with /proc"),
                    Query(_each("proc_connector_resubscriptions_total"), "renewed subscriptions"),
                    Query(_each("proc_connector_lost_ends_total"), "lost ends"),
                    Query(_each("proc_connector_unknown_lifetimes_total"), "unknown lifetimes"),
                    Query(_each("proc_connector_malformed_messages_total"), "malformed messages"),
                    Query(or_zero(f"count({_CONFIGURED} == 0)"), "broken configurations"),
                    counts=True,
                    stacked=True,
                    colors={"broken configurations": RED, "malformed messages": "purple"},
                ),
                graph(
                    "Failures left out, per second",
                    "Failures per second that are not on /failures any more (page), as newer ones took their "
                    "place, or not in the log (log), because of its limit. The metrics count all of them.",
                    PER_SECOND,
                    Query(f"sum by (place) ({rate(_LEFT_OUT)}) > 0", "{{place}}"),
                    scale=Scale.LOG,
                    nothing="Nothing was left out in the shown time",
                    width=24,
                    height=6,
                ),
                rows(
                    "Exporters",
                    "How each exporter works. mode: where names come from (taskstats is exact). filter: what "
                    "keeps unwanted events away (kernel is cheapest).",
                    {
                        "instance": Column("Node", width=200),
                        "mode": Column("Mode", width=120),
                        "filter": Column("Filter", width=120),
                        "version": Column("Version", width=120),
                        "revision": Column("Commit", width=120),
                        "pythonversion": Column("Python", width=120),
                    },
                    [
                        Column("Up for", SECONDS, _UP_FOR),
                        Column("Scraped", "string", _VERSIONS, width=90, words={"1": ("yes", GREEN)}),
                    ],
                    sort="Up for",
                    nothing="No exporter answers",
                    width=24,
                    height=6,
                ),
            ],
            "Cost": [
                _each_node(
                    "CPU by node, over 5 min",
                    "CPU time that each exporter uses, as a share of one CPU.",
                    RATIO,
                    _CPU,
                    _average(_CPU),
                ),
                _each_node(
                    "CPU per event, over 5 min",
                    "Cost of one event: CPU time of the exporter by events delivered, scrapes and canaries "
                    "included; on a quiet host these are most of it.",
                    SECONDS,
                    _PER_EVENT,
                    _average(_CPU),
                ),
                _each_node(
                    "Memory",
                    "Resident memory of each exporter. It follows the number of programs and living processes, "
                    "and levels out.",
                    BYTES,
                    _MEMORY,
                    _highest(_MEMORY),
                ),
                graph(
                    "Events by kind, per second",
                    "Events per second that the kernel delivered, by kind. Threads are counted apart from "
                    "processes and cost as much.",
                    PER_SECOND,
                    Query(f"sum by (event) ({rate(_EVENTS)}) > 0", "{{event}}"),
                    stacked=True,
                    colors=_KINDS,
                ),
                heat(
                    "Drains per second",
                    "How long the exporter took each time to read and count what had arrived. Rows above 100 ms "
                    "mean that it has more work than it can do.",
                    _DRAIN,
                    NODE,
                    "> 1 s",
                ),
                _each_node(
                    "Drain time, 99 %",
                    "99 % of the drains of each exporter took less than this.",
                    SECONDS,
                    quantile(0.99, _DRAIN, by="instance, le"),
                    f"sum by (instance) ({total(f'{_DRAIN}_sum')})",
                    scale=Scale.LOG_SECONDS,
                ),
                graph(
                    "Events waiting for a name",
                    "Events that wait for the name of their program; they are counted within a moment. A line "
                    "that stays high is an exporter that cannot read /proc.",
                    COUNT,
                    Query(f"sum by (event) (proc_connector_pending_events{{{NODE}}})", "{{event}}"),
                    colors=_KINDS,
                ),
                _each_node(
                    "Samples per scrape",
                    "How many samples a scrape of each exporter has: it grows with the number of programs. "
                    "Prometheus stores all of them.",
                    COUNT,
                    _SAMPLES,
                    _highest(_SAMPLES),
                ),
            ],
        },
    )
