"""Fleet: all nodes at a glance. Reads recording rules, so that a thousand nodes cost no more than ten."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.generate import recordings
from dashboards.generate.looks import (
    ANY_IS_BAD,
    ANY_IS_ODD,
    BLUE,
    CANARY_STEPS,
    COUNT,
    FAILURE_STEPS,
    GREEN,
    ORANGE,
    PER_SECOND,
    RATIO,
    RED,
    SECONDS,
    SEVERITIES,
    SIGNAL_COLORS,
    Query,
    Scale,
)
from dashboards.generate.pages import link_to, page
from dashboards.generate.panels import graph, number
from dashboards.generate.queries import BUILD, FIRING, NODE, or_zero, top
from dashboards.generate.tables import Column, rows

_CANARY_AGE = "proc_connector_canary_age_seconds"
_ALERT = "alertname, severity, instance, comm, signal"


def _node(record: str) -> str:
    return f"{record}{{{NODE}}}"


def _each(record: str, aggregate: str = "sum") -> str:
    return f"{aggregate} by (job, instance) ({_node(record)})"


def _counted_each(record: str) -> str:
    """Return PromQL for what a recording rule counted in the last 15 minutes, by node."""
    return f"{_each(record)} or 0 * {_each(recordings.FORKS)}"


def _recent(record: str) -> str:
    """Return PromQL for what a recording rule counted in the last 15 minutes, all nodes together."""
    return or_zero(f"sum({_node(record)})")


def _top(record: str) -> str:
    # Each node has one series, so nothing is summed: half the time for a thousand nodes at hundreds of points.
    return top(_node(record), f"avg_over_time({_node(record)}[$__range] @ end())")


# Alone it would lack alerts: vmalert writes no ALERTS_FOR_STATE of those that fire at once.
_FIRING_SINCE = f"1000 * max by ({_ALERT}) (ALERTS_FOR_STATE and ignoring (alertstate) {FIRING})"
# A scrape job may have other targets too: an exporter is what was one within the last day, or what has a job of
# that name, as for the alert ProcConnectorExporterDown.
_UP = (
    f"min by (job, instance) (up{{{NODE}}} and on (job, instance) {_node(recordings.SEEN)} "
    f'or up{{job=~".*proc-connector.*",{NODE}}})'
)
_MISSING = f"(max by (job, instance) ({_node(recordings.SEEN)}) unless max by (job, instance) ({BUILD}))"
_NO_TARGET = "-1"
_FIRES = {"1": ("firing", RED)}
_STATES = {"1": ("up", GREEN), "0": ("down", RED)}


def fleet() -> Dashboard:
    """Return the dashboard."""
    return page(
        "proc-connector-fleet",
        "Forks, ends and failures on all nodes, and whether the numbers can be trusted. Needs the recording "
        "rules of dashboards/rules/recording.yaml.",
        {
            "": [
                number(
                    "Nodes",
                    "Exporters that Prometheus has to scrape, down or not: the rows of the table Nodes. Other "
                    "targets of the same scrape job do not count.",
                    COUNT,
                    f"count({_UP}) or vector(0)",
                    ((None, RED), (1, BLUE)),
                    width=6,
                ),
                number(
                    "Down",
                    "Exporters that cannot be scraped: their nodes are not counted. Absent: Prometheus has no "
                    "exporter to scrape at all.",
                    COUNT,
                    f"sum({_UP} == bool 0) or vector({_NO_TARGET})",
                    ((None, RED), (0, GREEN), (1, RED)),
                    width=6,
                    words={_NO_TARGET: ("absent", RED)},
                ),
                number(
                    "Births per second",
                    "Processes forked per second on all nodes.",
                    COUNT,
                    f"sum({_node(recordings.FORKS)})",
                    width=6,
                    decimals=1,
                ),
                number(
                    "Share that fails, last 5 min",
                    "Share of the ended processes whose exit code was not 0. Programs that answer by exit "
                    "code (grep, test) are part of it; watch for changes.",
                    RATIO,
                    f"sum({_node(recordings.FAILED)}) / sum({_node(recordings.ENDED)})",
                    FAILURE_STEPS,
                    width=6,
                    decimals=1,
                ),
                number(
                    "Signals, last 15 min",
                    "Processes that died of a signal within 15 minutes.",
                    COUNT,
                    _recent(recordings.SIGNALS),
                    ANY_IS_ODD,
                    width=6,
                ),
                number(
                    "Core dumps, last 15 min",
                    "Processes that dumped core within 15 minutes.",
                    COUNT,
                    _recent(recordings.COREDUMPS),
                    ANY_IS_ODD,
                    width=6,
                ),
                number(
                    "Lost, last 15 min",
                    "Messages that the kernel dropped within 15 minutes. Above 0 the numbers are too low.",
                    COUNT,
                    _recent(recordings.LOST),
                    ANY_IS_BAD,
                    width=6,
                ),
                number(
                    "Oldest canary",
                    "The longest time since the end of a canary arrived on a node. Every 15 seconds is "
                    "normal; above a minute the exporter gets no events or is far behind.",
                    SECONDS,
                    f"max({_node(_CANARY_AGE)})",
                    CANARY_STEPS,
                    width=6,
                ),
                rows(
                    "Firing alerts",
                    "Alerts of dashboards/rules/alerts.yaml that fire now, the latest first. vmalert writes "
                    "Since only of alerts that have been pending. A click on a node leads to its failures.",
                    {
                        "alertname": Column("Alert"),
                        "severity": Column("Severity", width=85, words=SEVERITIES),
                        "instance": Column("Node", width=160, link=link_to("proc-connector-failures", "instance")),
                        "comm": Column("Program", width=140),
                        "signal": Column("Signal", width=90),
                    },
                    [
                        Column("State", "string", f"max by ({_ALERT}) ({FIRING})", width=70, words=_FIRES),
                        Column(
                            "Since",
                            "dateTimeFromNow",
                            _FIRING_SINCE,
                            width=140,
                        ),
                    ],
                    sort="Since",
                    nothing="No alert fires",
                    height=7,
                ),
                graph(
                    "Births by node, per second",
                    "Processes forked per second on the six busiest nodes of the shown time. A "
                    "node far above the others has a fork storm or a new job.",
                    PER_SECOND,
                    Query(_top(recordings.FORKS), "{{instance}}"),
                    scale=Scale.LOG,
                ),
                graph(
                    "Failures by node, per second",
                    "Processes per second that ended with an exit code other than 0, on the six nodes with "
                    "the most.",
                    PER_SECOND,
                    Query(_top(recordings.FAILED), "{{instance}}"),
                    scale=Scale.LOG,
                ),
                graph(
                    "Deaths by signal, last 15 min",
                    "Processes that died of each signal within the 15 minutes before, on all nodes. SIGSEGV and "
                    "SIGABRT are bugs; SIGKILL may be the kernel out of memory; SIGTERM and SIGPIPE are "
                    "normal.",
                    COUNT,
                    Query(f"sum by (signal) ({_node(recordings.SIGNALS)})", "{{signal}}"),
                    scale=Scale.LOG_COUNTS,
                    colors=SIGNAL_COLORS,
                    nothing="No process died of a signal",
                ),
                rows(
                    "Missing nodes",
                    "Nodes that were seen within the last day and do not answer now: their exporter is down, or "
                    "Prometheus has no such target any more. Empty when all is well.",
                    {"instance": Column("Node")},
                    [Column("Last seen", "dateTimeFromNow", f"1000 * {_MISSING}", width=160)],
                    sort="Last seen",
                    width=12,
                    height=8,
                    nothing="No node is missing",
                ),
            ],
            "Nodes": [
                rows(
                    "Nodes",
                    "One row per node; a click on its name leads to its processes. A coloured number needs "
                    "attention. Signals, core dumps and lost messages are those of the last 15 "
                    "minutes; no name is the share of events under <unknown>; canary is the age of the last.",
                    {"instance": Column("Node", link=link_to("proc-connector-node", "instance"))},
                    [
                        Column("State", "string", _UP, width=65, words=_STATES),
                        Column("Births", PER_SECOND, _each(recordings.FORKS), width=90),
                        Column("Ends", PER_SECOND, _each(recordings.ENDED), width=90),
                        Column(
                            "Failures",
                            RATIO,
                            f"{_each(recordings.FAILED)} / {_each(recordings.ENDED)}",
                            FAILURE_STEPS,
                            width=90,
                        ),
                        Column("Signals", COUNT, _counted_each(recordings.SIGNALS), ANY_IS_ODD, width=90),
                        Column("Core dumps", COUNT, _counted_each(recordings.COREDUMPS), ANY_IS_ODD, width=115),
                        Column("Lost", COUNT, _counted_each(recordings.LOST), ANY_IS_BAD, width=90),
                        Column(
                            "No name",
                            RATIO,
                            _each(recordings.UNATTRIBUTED, "max"),
                            ((None, GREEN), (0.05, ORANGE)),
                            width=85,
                        ),
                        Column("Canary", SECONDS, _each(_CANARY_AGE, "max"), CANARY_STEPS, width=80),
                    ],
                    sort="Births",
                    nothing="Prometheus has no exporter to scrape",
                    height=12,
                ),
            ],
        },
    )
