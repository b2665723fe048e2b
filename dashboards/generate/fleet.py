"""Fleet: all nodes at a glance. Reads recording rules, so that a thousand nodes cost no more than ten."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.generate import rules
from dashboards.generate.panels import (
    ANY_IS_BAD,
    ANY_IS_ODD,
    COUNT,
    GREEN,
    NODE,
    ORANGE,
    PER_SECOND,
    RATIO,
    RED,
    SECONDS,
    SIGNAL_COLORS,
    YELLOW,
    Column,
    Query,
    graph,
    link_to,
    number,
    or_zero,
    page,
    rows,
    top,
)

_BUILD = f"proc_connector_exporter_build_info{{{NODE}}}"
_FAILURE_STEPS = ((None, GREEN), (0.25, YELLOW), (0.5, ORANGE))
_CANARY_STEPS = ((None, GREEN), (30, YELLOW), (60, RED))


def _node(record: str, labels: str = "") -> str:
    return f"{record}{{{NODE}{labels}}}"


def _sum(record: str) -> str:
    return f"sum by (job, instance) ({_node(record)})"


def _top(record: str) -> str:
    return top("instance", _node(record), f"avg_over_time({_node(record)}[$__range] @ end())")


_FAILURE_RATIO = f"sum({_node(rules.NONZERO_EXITS)}) / sum({_node(rules.EXITS)})"
_DOWN = f"up{{{NODE}}} == 0"


def fleet() -> Dashboard:
    """Return the dashboard."""
    return page(
        "proc-connector-fleet",
        "What is born and what dies on all nodes, and whether the numbers can be trusted. Needs the recording "
        "rules of dashboards/rules/recording.yaml.",
        {
            "": [
                number("Nodes", "Exporters that are scraped and answer.", COUNT, f"count({_BUILD})"),
                number(
                    "Down",
                    "Exporters that are not reached: nothing is known of these nodes.",
                    COUNT,
                    or_zero(f"count({_DOWN})"),
                    ANY_IS_BAD,
                ),
                number(
                    "Births",
                    "Processes forked per second on all nodes.",
                    PER_SECOND,
                    f"sum({_node(rules.FORKS)})",
                    decimals=1,
                ),
                number(
                    "Failures",
                    "Share of the ended processes whose exit code was not 0. Scripts that ask questions "
                    "(grep, test) make some of it; watch for changes.",
                    RATIO,
                    _FAILURE_RATIO,
                    _FAILURE_STEPS,
                    decimals=1,
                ),
                number(
                    "Signals",
                    "Processes that died of a signal within 15 minutes.",
                    COUNT,
                    or_zero(f"sum({_node(rules.SIGNALS)})"),
                    ANY_IS_ODD,
                    decimals=0,
                ),
                number(
                    "Dumps",
                    "Processes that dumped core within 15 minutes.",
                    COUNT,
                    or_zero(f"sum({_node(rules.COREDUMPS)})"),
                    ANY_IS_ODD,
                    decimals=0,
                ),
                number(
                    "Lost",
                    "Messages that the kernel dropped within 15 minutes. Above 0 the numbers are too low.",
                    COUNT,
                    f"sum({_node(rules.LOST)})",
                    ANY_IS_BAD,
                    decimals=0,
                ),
                number(
                    "Canary",
                    "The longest time since a node proved that events still arrive. Every 15 "
                    "seconds is normal; above a minute the node is deaf or far behind.",
                    SECONDS,
                    f"max(proc_connector_canary_age_seconds{{{NODE}}})",
                    _CANARY_STEPS,
                    decimals=0,
                ),
                graph(
                    "Births by node",
                    "Processes forked per second on the ten busiest nodes of the shown time. One "
                    "that leaves the others behind has a fork storm or a new job.",
                    PER_SECOND,
                    Query(_top(rules.FORKS), "{{instance}}"),
                ),
                graph(
                    "Failures by node",
                    "Processes per second that ended with another code than 0, on the ten nodes with the most.",
                    PER_SECOND,
                    Query(_top(rules.NONZERO_EXITS), "{{instance}}"),
                ),
                graph(
                    "Deaths by signal",
                    "Processes that died of each signal within the 15 minutes before, on all "
                    "nodes. SIGSEGV and SIGABRT are bugs; SIGKILL may be the kernel out of memory; SIGTERM and "
                    "SIGPIPE are everyday life.",
                    COUNT,
                    Query(f"sum by (signal) ({_node(rules.SIGNALS)})", "{{signal}}"),
                    stacked=True,
                    colors=SIGNAL_COLORS,
                ),
                rows(
                    "Firing alerts",
                    "Alerts of dashboards/rules/alerts.yaml that fire now. Empty when all is well.",
                    {
                        "alertname": Column("Alert", width=225),
                        "severity": Column("Severity", width=80),
                        "instance": Column("Node", width=90, link=link_to("proc-connector-failures", "instance")),
                        "comm": Column("Program", width=100),
                        "signal": Column("Signal", width=80),
                    },
                    [
                        Column(
                            "Alerts",
                            COUNT,
                            "sum by (alertname, severity, instance, comm, signal) "
                            f'(ALERTS{{alertname=~"Proc.*", alertstate="firing", {NODE}}})',
                            width=70,
                        )
                    ],
                    sort="Severity",
                    width=12,
                    height=8,
                ),
            ],
            "Nodes": [
                rows(
                    "Nodes",
                    "One row per node; a click on its name leads to its processes. A coloured number wants "
                    "to be looked at. Signals, core dumps and lost messages are of the last 15 minutes.",
                    {"instance": Column("Node", width=180, link=link_to("proc-connector-node", "instance"))},
                    [
                        Column("Births", PER_SECOND, _sum(rules.FORKS), width=115),
                        Column("Ends", PER_SECOND, _sum(rules.EXITS), width=115),
                        Column(
                            "Failures",
                            RATIO,
                            f"{_sum(rules.NONZERO_EXITS)} / {_sum(rules.EXITS)}",
                            _FAILURE_STEPS,
                            width=115,
                        ),
                        Column("Signals", "none", f"round({_sum(rules.SIGNALS)})", ANY_IS_ODD, width=115),
                        Column("Core dumps", "none", f"round({_sum(rules.COREDUMPS)})", ANY_IS_ODD, width=115),
                        Column("Lost", "none", f"round({_sum(rules.LOST)})", ANY_IS_BAD, width=115),
                        Column(
                            "Unknown names",
                            RATIO,
                            _sum(rules.UNATTRIBUTED),
                            ((None, GREEN), (0.05, ORANGE)),
                            width=125,
                        ),
                        Column("Canary age", SECONDS, _sum("proc_connector_canary_age_seconds"), _CANARY_STEPS),
                    ],
                    sort="Births",
                ),
            ],
        },
    )
