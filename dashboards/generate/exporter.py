"""Exporter: whether the numbers are right, and what they cost."""

from grafana_foundation_sdk.builders import timeseries
from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.generate.looks import (
    ANY_IS_BAD,
    BLUE,
    BYTES,
    CANARY_STEPS,
    COUNT,
    EACH_BAR,
    GREEN,
    ORANGE,
    PER_SECOND,
    RATIO,
    RED,
    SECONDS,
    YELLOW,
    Query,
    Steps,
)
from dashboards.generate.pages import page
from dashboards.generate.panels import graph, heat, number
from dashboards.generate.queries import (
    BUILD,
    NODE,
    in_range,
    in_step,
    or_zero,
    quantile,
    rate,
    top,
    total,
)
from dashboards.generate.tables import Column, rows

_EVENTS = "proc_connector_events_total"
_NAMED = f'{NODE}, event=~"fork|exec|exit"'
_UNATTRIBUTED = "proc_connector_unattributed_total"
_LOST = "proc_connector_lost_messages_total"
_CANARY = f"proc_connector_canary_age_seconds{{{NODE}}}"
_SERIES = f"proc_connector_series{{{NODE}}}"
_CONFIGURED = f"proc_connector_config_last_reload_successful{{{NODE}}}"
_TASK_EXITS = "proc_connector_task_exits_total"
_BY_EVENTS = f'{NODE}, source="events"'
_BY_KERNEL = f'{NODE}, source="kernel"'
_DRAIN = "proc_connector_drain_seconds"
_USED = f"proc_connector_receive_buffer_used_bytes{{{NODE}}}"
_CPU = "process_cpu_seconds_total"
_MEMORY = f"process_resident_memory_bytes{{{NODE}}}"
_SAMPLES = f"scrape_samples_scraped{{{NODE}}}"
_ONLY_OURS = f"and on (job, instance) {BUILD}"


# Matched by all labels of the target, not by job and instance alone: two clusters may have the same nodes.
_UP_FOR = (
    "max by (instance, mode, filter, exec_names, version, pythonversion) ("
    f"proc_connector_attribution_info{{{NODE}}} "
    f"* ignoring (mode, filter, exec_names) group_left () (time() - process_start_time_seconds{{{NODE}}}) "
    f"* ignoring (mode, filter, exec_names, version, pythonversion) group_left (version, pythonversion) {BUILD})"
)


def _each_node(
    title: str, description: str, unit: str, shown: str, ranking: str, *, steps: Steps = (), log: bool = False
) -> timeseries.Panel:
    """Return a line per exporter, of those that are first in the ranking."""
    query = Query(top(shown, ranking), "{{instance}}")
    return graph(title, f"{description} The ten highest.", unit, query, steps=steps, log=log)


def _highest(gauge: str) -> str:
    return f"max_over_time({gauge}[$__range] @ end())"


def _sum_in_step(metric: str) -> str:
    return f"sum({in_step(metric)})"


def exporter() -> Dashboard:
    """Return the dashboard."""
    return page(
        "proc-connector-exporter",
        "Accuracy and cost of the exporters: lost messages, unknown names, whether the kernel still sends events, "
        "and the CPU and memory that the exporters use.",
        {
            "": [
                number(
                    "Lost messages",
                    "Messages that the kernel dropped in the shown time, because they were not read in time. "
                    "Above 0 the numbers are too low.",
                    COUNT,
                    f"round(sum({in_range(_LOST)}))",
                    ANY_IS_BAD,
                    at_end=True,
                ),
                number(
                    "Unknown names",
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
                    "Events",
                    "Events per second that the kernel delivered.",
                    PER_SECOND,
                    f"sum({rate(_EVENTS)})",
                ),
                number(
                    "CPU",
                    "CPU that the exporters use: the highest of the nodes, as a share of one CPU.",
                    RATIO,
                    f"max({rate(_CPU)} {_ONLY_OURS})",
                    ((None, GREEN), (0.1, YELLOW), (0.5, ORANGE)),
                    decimals=1,
                ),
                number(
                    "Memory",
                    "Resident memory of the exporter with the most.",
                    BYTES,
                    f"max({_MEMORY} {_ONLY_OURS})",
                ),
            ],
            "Truth": [
                graph(
                    "Lost messages",
                    "Messages that the kernel dropped, by node and socket. Their events are in no metric. "
                    f"{EACH_BAR}",
                    COUNT,
                    Query(
                        top(
                            f"sum by (instance, socket) ({in_step(_LOST)})",
                            f"sum by (instance, socket) ({total(_LOST)})",
                        ),
                        "{{instance}} {{socket}}",
                    ),
                    bars=True,
                ),
                graph(
                    "Fill of the receive buffers",
                    "Bytes that waited in the socket's buffer when it was last drained, as a share of its "
                    "size. Near 100 % messages will be lost. The ten fullest.",
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
                graph(
                    "Unknown names",
                    "Share of the events of each kind that are counted under <unknown>, of the ten with the most "
                    "in the shown time. Empty while all names are known.",
                    RATIO,
                    Query(
                        top(
                            f"sum by (instance, event) ({rate(_UNATTRIBUTED)}) "
                            f"/ (sum by (instance, event) ({rate(_EVENTS)}) > 0)",
                            f"sum by (instance, event) ({total(_UNATTRIBUTED)}) > 0",
                        ),
                        "{{instance}} {{event}}",
                    ),
                ),
                _each_node(
                    "Ends without an event",
                    "Share of the ends of threads and processes that the kernel's own totals in /proc for which "
                    "no event arrived, for any reason: an independent check. On a quiet host a handful more "
                    "or less means nothing.",
                    RATIO,
                    f"clamp_min(1 - sum by (instance) ({rate(_TASK_EXITS, _BY_EVENTS)}) "
                    f"/ (sum by (instance) ({rate(_TASK_EXITS, _BY_KERNEL)}) > 1), 0)",
                    f"sum by (instance) ({total(_TASK_EXITS, _BY_KERNEL)}) "
                    f"- sum by (instance) ({total(_TASK_EXITS, _BY_EVENTS)})",
                    steps=((None, GREEN), (0.05, RED)),
                ),
                graph(
                    "Series against their limit",
                    "How much of --limit.series the eight metrics with the most series use. At 100 % new "
                    "programs are counted under <other>.",
                    RATIO,
                    Query(
                        "label_replace("
                        + top(f"{_SERIES} / proc_connector_series_limit{{{NODE}}}", _highest(_SERIES), 8)
                        + ', "metric", "$1", "metric", "proc_connector_(.*)")',
                        "{{instance}} {{metric}}",
                    ),
                    steps=((None, GREEN), (0.8, RED)),
                ),
                graph(
                    "Folded, excluded, expired",
                    "Counts without their name: counts that went to <other> because of the limit, events that "
                    "the rules of --config.file exclude from the metrics of programs, and events of series "
                    f"that were dropped because they were idle. {EACH_BAR}",
                    COUNT,
                    Query(_sum_in_step("proc_connector_folded_total"), "folded"),
                    Query(_sum_in_step("proc_connector_excluded_total"), "excluded"),
                    Query(_sum_in_step("proc_connector_expired_total"), "expired"),
                    bars=True,
                    stacked=True,
                    colors={"folded": RED, "excluded": BLUE, "expired": YELLOW},
                ),
                graph(
                    "Repairs",
                    "Comparisons with /proc after a loss, renewals of the subscription, ends that only these "
                    "comparisons found, unknown lifetimes, exporters whose --config.file is broken. All are 0 "
                    f"on a good day. {EACH_BAR}",
                    COUNT,
                    Query(_sum_in_step("proc_connector_resyncs_total"), "comparisons with /proc"),
                    Query(_sum_in_step("proc_connector_resubscriptions_total"), "renewed subscriptions"),
                    Query(_sum_in_step("proc_connector_lost_ends_total"), "lost ends"),
                    Query(_sum_in_step("proc_connector_unknown_lifetimes_total"), "unknown lifetimes"),
                    Query(_sum_in_step("proc_connector_malformed_messages_total"), "malformed messages"),
                    Query(or_zero(f"count({_CONFIGURED} == 0)"), "broken configurations"),
                    bars=True,
                    stacked=True,
                    colors={"broken configurations": RED, "malformed messages": "purple"},
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
                        "pythonversion": Column("Python", width=120),
                    },
                    [Column("Up for", SECONDS, _UP_FOR)],
                    sort="Up for",
                    width=24,
                    height=6,
                ),
            ],
            "Cost": [
                _each_node(
                    "CPU",
                    "CPU time that each exporter uses, as a share of one CPU.",
                    RATIO,
                    f"{rate(_CPU)} {_ONLY_OURS}",
                    f"{total(_CPU)} {_ONLY_OURS}",
                ),
                _each_node(
                    "CPU per event",
                    "Cost of one event: CPU time of the exporter by events delivered, scrapes and canaries "
                    "included; on a quiet host these are most of it.",
                    SECONDS,
                    f"sum by (instance) ({rate(_CPU)} {_ONLY_OURS}) / (sum by (instance) ({rate(_EVENTS)}) > 0)",
                    f"sum by (instance) ({total(_CPU)} {_ONLY_OURS}) / sum by (instance) ({total(_EVENTS)})",
                ),
                _each_node(
                    "Memory",
                    "Resident memory of each exporter. It follows the number of programs and living processes, "
                    "and levels out.",
                    BYTES,
                    f"{_MEMORY} {_ONLY_OURS}",
                    f"{_highest(_MEMORY)} {_ONLY_OURS}",
                ),
                graph(
                    "Events by kind",
                    "Events per second that the kernel delivered, by kind. Threads are counted apart from "
                    "processes and cost as much.",
                    PER_SECOND,
                    Query(f"sum by (event) ({rate(_EVENTS)}) > 0", "{{event}}"),
                    stacked=True,
                ),
                heat(
                    "Drains",
                    "How long the exporter took each time to read and count what had arrived. Rows above 100 ms "
                    "mean that it has more work than it can do.",
                    SECONDS,
                    f"sum by (le) ({rate(f'{_DRAIN}_bucket')})",
                ),
                _each_node(
                    "Drain time",
                    "99 % of the drains of each exporter took less than this.",
                    SECONDS,
                    quantile(0.99, _DRAIN, by="instance, le"),
                    f"sum by (instance) ({total(f'{_DRAIN}_sum')})",
                    log=True,
                ),
                graph(
                    "Events waiting for a name",
                    "Events that wait for the name of their program; they are counted within a moment. A line "
                    "that stays high is an exporter that cannot read /proc.",
                    COUNT,
                    Query(f"sum by (event) (proc_connector_pending_events{{{NODE}}})", "{{event}}"),
                ),
                _each_node(
                    "Samples per scrape",
                    "How many samples a scrape of each exporter has: it grows with the number of programs. "
                    "Prometheus stores all of them.",
                    COUNT,
                    f"{_SAMPLES} {_ONLY_OURS}",
                    f"{_highest(_SAMPLES)} {_ONLY_OURS}",
                ),
            ],
        },
    )
