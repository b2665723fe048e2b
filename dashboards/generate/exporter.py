"""Exporter: whether the numbers are true, and what they cost."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.generate.panels import (
    ANY_IS_BAD,
    BYTES,
    COUNT,
    GREEN,
    NEUTRAL,
    NODE,
    ORANGE,
    PER_SECOND,
    RATIO,
    RED,
    SECONDS,
    YELLOW,
    Column,
    Query,
    graph,
    heat,
    in_range,
    number,
    or_zero,
    page,
    rate,
    recent,
    rows,
    top,
)

_EVENTS = "proc_connector_events_total"
_NAMED = f'{NODE}, event=~"fork|exec|exit"'
_UNATTRIBUTED = "proc_connector_unattributed_total"
_LOST = "proc_connector_lost_messages_total"
_CANARY = f"proc_connector_canary_age_seconds{{{NODE}}}"
_FOLDED = recent("proc_connector_folded_total")
_SERIES_SHARE = f"proc_connector_series{{{NODE}}} / proc_connector_series_limit{{{NODE}}}"
_SERIES_MOST = f"max_over_time(proc_connector_series{{{NODE}}}[$__range] @ end())"
_CONFIGURED = f"proc_connector_config_last_reload_successful{{{NODE}}}"
_TASK_EXITS = "proc_connector_task_exits_total"
_BY_EVENTS = f'{NODE}, source="events"'
_BY_KERNEL = f'{NODE}, source="kernel"'
_DRAIN = "proc_connector_drain_seconds"
_FILL = f"proc_connector_receive_buffer_used_bytes{{{NODE}}} / proc_connector_receive_buffer_bytes{{{NODE}}}"
_CPU = rate("process_cpu_seconds_total")
_BUILD = f"proc_connector_exporter_build_info{{{NODE}}}"
_ATTRIBUTION = f"proc_connector_attribution_info{{{NODE}}}"
_ONLY_OURS = f"and on (job, instance) {_BUILD}"
_CANARY_STEPS = ((None, GREEN), (30, YELLOW), (60, RED))


def _short(expr: str) -> str:
    """Return PromQL whose label `metric` is without what all have in common."""
    return f'label_replace({expr}, "metric", "$1", "metric", "proc_connector_(.*)")'


def _quantile(q: float) -> str:
    return f"histogram_quantile({q}, sum by (instance, le) ({rate(f'{_DRAIN}_bucket')}))"


def exporter() -> Dashboard:
    """Return the dashboard."""
    return page(
        "proc-connector-exporter",
        "Truth and cost of the exporters themselves: what was lost or unknown, whether the kernel still talks to "
        "them, and what they use.",
        {
            "": [
                number(
                    "Lost messages",
                    "Messages that the kernel dropped in the shown time, because they were not read in time. "
                    "Above 0 the numbers are too low.",
                    COUNT,
                    f"round(sum({in_range(_LOST)}))",
                    ANY_IS_BAD,
                    width=4,
                    decimals=0,
                ),
                number(
                    "Unknown names",
                    "Share of the forks, execs and exits that count under <unknown>. Next to nothing in taskstats "
                    "mode, a few percent in procfs mode under load.",
                    RATIO,
                    f"sum({rate(_UNATTRIBUTED)}) / sum({rate(_EVENTS, _NAMED)})",
                    ((None, GREEN), (0.01, YELLOW), (0.05, ORANGE)),
                    width=4,
                    decimals=2,
                ),
                number(
                    "Oldest canary",
                    "The longest time since a child with a known end came back as an event. Every 15 seconds is "
                    "normal.",
                    SECONDS,
                    f"max({_CANARY})",
                    _CANARY_STEPS,
                    width=4,
                    decimals=0,
                ),
                number(
                    "Events",
                    "Events per second that the kernel delivered.",
                    PER_SECOND,
                    f"sum({rate(_EVENTS)})",
                    width=4,
                    decimals=0,
                ),
                number(
                    "CPU",
                    "CPU that the exporters use: the highest of the nodes, as a share of one CPU.",
                    RATIO,
                    f"max({_CPU} {_ONLY_OURS})",
                    ((None, GREEN), (0.1, YELLOW), (0.5, ORANGE)),
                    width=4,
                    decimals=1,
                ),
                number(
                    "Memory",
                    "Resident memory of the exporter with the most.",
                    BYTES,
                    f"max(process_resident_memory_bytes{{{NODE}}} {_ONLY_OURS})",
                    NEUTRAL,
                    width=4,
                    decimals=0,
                ),
            ],
            "Truth": [
                graph(
                    "Lost messages",
                    "Messages that the kernel dropped, counted per interval, by node and socket. What they told "
                    "is in no metric.",
                    COUNT,
                    Query(f"sum by (instance, socket) ({recent(_LOST)})", "{{instance}} {{socket}}"),
                    bars=True,
                ),
                graph(
                    "Fill of the receive buffers",
                    "What waited in the socket's buffer when it was last drained, as a share of its size. Near "
                    "100 % messages are lost next.",
                    RATIO,
                    Query(f"max by (instance, socket) ({_FILL})", "{{instance}} {{socket}}"),
                    steps=((None, GREEN), (0.8, RED)),
                ),
                graph(
                    "Age of the canary",
                    "A saw tooth up to the canary's interval is normal. A line that rises means that the kernel "
                    "has fallen silent or the exporter is far behind.",
                    SECONDS,
                    Query(f"max by (instance) ({_CANARY})", "{{instance}}"),
                    steps=((None, GREEN), (60, RED)),
                ),
                graph(
                    "Unknown names",
                    "Share of the events of each kind that count under <unknown>, of the ten with the most "
                    "in the shown time. Nothing is drawn while nothing is unknown.",
                    RATIO,
                    Query(
                        f"sum by (instance, event) ({rate(_UNATTRIBUTED)} > 0) "
                        f"/ sum by (instance, event) ({rate(_EVENTS)}) "
                        f"and topk(10, sum by (instance, event) (increase({_UNATTRIBUTED}{{{NODE}}}[$__range] @ "
                        f"end())))",
                        "{{instance}} {{event}}",
                    ),
                ),
                graph(
                    "Ends that no event told of",
                    "Share of the ends of threads and processes that the kernel's own totals in /proc show and "
                    "no event told of, whatever the reason: an independent check. On a quiet host a handful more "
                    "or less means nothing.",
                    RATIO,
                    Query(
                        f"clamp_min(1 - sum by (instance) ({rate(_TASK_EXITS, _BY_EVENTS)}) "
                        f"/ (sum by (instance) ({rate(_TASK_EXITS, _BY_KERNEL)}) > 1), 0)",
                        "{{instance}}",
                    ),
                    steps=((None, GREEN), (0.05, RED)),
                ),
                graph(
                    "Series against their limit",
                    "How much of --limit.series the eight metrics with the most series use. At 100 % new "
                    "programs are counted under <other>.",
                    RATIO,
                    Query(
                        _short(top("instance, metric", _SERIES_SHARE, _SERIES_MOST, 8)), "{{instance}} {{metric}}"
                    ),
                    steps=((None, GREEN), (0.8, RED)),
                ),
                graph(
                    "Folded and excluded",
                    "What lost its name: counts that went to <other> because of the limit, by metric, and events "
                    "that the rules of --config.file leave out of the metrics of programs.",
                    COUNT,
                    Query(_short(f"sum by (metric) ({_FOLDED})"), "folded: {{metric}}"),
                    Query(f"sum by (event) ({recent('proc_connector_excluded_total')})", "excluded: {{event}}"),
                    bars=True,
                ),
                graph(
                    "Repairs",
                    "Comparisons with /proc after a loss, renewals of the subscription, ends that were found out "
                    "only so, lifetimes nobody knew; counted per interval. And exporters whose --config.file is "
                    "broken. All of it is 0 on a good day.",
                    COUNT,
                    Query(f"sum({recent('proc_connector_resyncs_total')})", "comparisons with /proc"),
                    Query(f"sum({recent('proc_connector_resubscriptions_total')})", "renewed subscriptions"),
                    Query(f"sum({recent('proc_connector_lost_ends_total')})", "lost ends"),
                    Query(f"sum({recent('proc_connector_unknown_lifetimes_total')})", "unknown lifetimes"),
                    Query(f"sum({recent('proc_connector_malformed_messages_total')})", "malformed messages"),
                    Query(or_zero(f"count({_CONFIGURED} == 0)"), "broken configurations"),
                    bars=True,
                ),
                rows(
                    "Exporters",
                    "How each exporter works. mode: where names come from (taskstats is exact). filter: who keeps "
                    "unwanted events away (the kernel is cheapest).",
                    {
                        "instance": Column("Node", width=150),
                        "mode": Column("Mode", width=90),
                        "filter": Column("Filter", width=80),
                        "version": Column("Version", width=80),
                        "pythonversion": Column("Python", width=80),
                    },
                    [
                        Column(
                            "Up for",
                            SECONDS,
                            "sum by (instance, mode, filter, version, pythonversion) ("
                            f"(time() - process_start_time_seconds{{{NODE}}}) "
                            f"* on (job, instance) group_left (mode, filter) {_ATTRIBUTION} "
                            f"* on (job, instance) group_left (version, pythonversion) {_BUILD})",
                        )
                    ],
                    sort="Up for",
                    width=24,
                    height=6,
                ),
            ],
            "Cost": [
                graph(
                    "CPU",
                    "CPU time that each exporter uses, as a share of one CPU.",
                    RATIO,
                    Query(f"max by (instance) ({_CPU} {_ONLY_OURS})", "{{instance}}"),
                ),
                graph(
                    "CPU per event",
                    "What one event costs: CPU time of the exporter by events delivered, scrapes and canaries "
                    "included; on a quiet host these are most of it.",
                    SECONDS,
                    Query(
                        f"sum by (instance) ({_CPU} {_ONLY_OURS}) / (sum by (instance) ({rate(_EVENTS)}) > 0)",
                        "{{instance}}",
                    ),
                ),
                graph(
                    "Memory",
                    "Resident memory of each exporter. It follows the number of programs and living processes, "
                    "and levels out.",
                    BYTES,
                    Query(
                        f"max by (instance) (process_resident_memory_bytes{{{NODE}}} {_ONLY_OURS})", "{{instance}}"
                    ),
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
                    "mean that it has more to do than it can.",
                    SECONDS,
                    f"sum by (le) ({rate(f'{_DRAIN}_bucket')})",
                ),
                graph(
                    "Drain time",
                    "99 % of the drains of each exporter took less than this.",
                    SECONDS,
                    Query(_quantile(0.99), "{{instance}}"),
                    log=True,
                ),
                graph(
                    "Events waiting for a name",
                    "Events whose program is being looked up; they are counted within a moment. A line that stays "
                    "high is an exporter that cannot read /proc.",
                    COUNT,
                    Query(f"sum by (event) (proc_connector_pending_events{{{NODE}}})", "{{event}}"),
                ),
                graph(
                    "Samples per scrape",
                    "How many samples each exporter hands out: the number of programs times what is known of "
                    "them. It is what Prometheus pays for.",
                    COUNT,
                    Query(f"max by (instance) (scrape_samples_scraped{{{NODE}}} {_ONLY_OURS})", "{{instance}}"),
                ),
            ],
        },
    )
