"""Pods and units: where processes fail. Needs exporters with --group.by; without it, it is empty and says why."""

from grafana_foundation_sdk.builders import stat, table
from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.generate import recordings
from dashboards.generate.looks import ANY_IS_BAD, ANY_IS_ODD, COUNT, EACH_POINT, NEUTRAL, Query, Scale, Steps
from dashboards.generate.pages import Hidden, link_to, page
from dashboards.generate.panels import graph, number
from dashboards.generate.queries import CRASH, MOST_LINES, NODE, PROGRAM, STEP, counted, or_zero, top, top_now
from dashboards.generate.tables import Column, rows

UID = "proc-connector-groups"

_EACH = recordings.FAILURES_EACH
_CHOSEN = f'{NODE},namespace=~"$namespace",pod=~"$pod",unit=~"$unit"'
_CRASHED = f"{_CHOSEN},{CRASH}"
_KILLED = f'{_CHOSEN},signal="SIGKILL"'
_IN_POD = f'{NODE},namespace=~"$namespace",pod=~"$pod",pod!=""'
_IN_CONTAINER = f'{NODE},namespace=~"$namespace",pod=~"$pod",container!=""'
_IN_UNIT = f'{NODE},unit=~"$unit",unit!=""'
_LIVING = "proc_connector_processes"
_CONTAINER = "namespace, pod, container"
_HOW = "comm, exit_code, signal"
# The ranking chooses the units: in both parts that would be too long to read.
_FAILURES_BY_UNIT = f"sum by(unit) ({counted(_EACH, NODE, window=STEP)})"
_MOST_FAILING_UNITS = f"sum by(unit) (sum_over_time({_EACH}{{{_IN_UNIT}}}[$__range] @ end()))"
# A ranking in the panel would make its query four hundred characters long; so a hidden variable has its result.
# Pods of one name may be in several namespaces: of these too no more than six are shown at a time.
_WORST_PODS = "worst_pods"
_IN_WORST_POD = f'{NODE},namespace=~"$namespace",pod=~"${_WORST_PODS}",pod!=""'
_FAILURES_BY_POD = f"topk({MOST_LINES}, sum by (namespace, pod) ({counted(_EACH, _IN_WORST_POD, window=STEP)}))"
_NO_PODS = "None in the shown time, or the exporters run without --group.by pod"
_NO_UNITS = "None in the shown time, or the exporters run without --group.by unit"


def _not_exporters(label: str) -> str:
    """Return PromQL that leaves out what has the label of the exporter's own target.

    Without --group.by, Prometheus may have given the exporter's pod to all series.
    """
    return f" unless on ({label}) last_over_time(proc_connector_exporter_build_info[$__range])"


def _each_pod(increments: str, labels: str) -> str:
    return f"sum by (namespace, pod) ({counted(increments, labels)}{_not_exporters('pod')})"


def _each_container(increments: str, labels: str = _IN_CONTAINER, by: str = _CONTAINER) -> str:
    return f"sum by ({by}) ({counted(increments, labels)}{_not_exporters('container')})"


def _each_unit(increments: str, labels: str = _IN_UNIT, by: str = "unit") -> str:
    return f"sum by ({by}) ({counted(increments, labels)})"


def _ranked(label: str, ranking: str) -> Hidden:
    # Grafana takes the value out of a line such as {namespace="shop", pod="web-7d9f"} 12 1700000000000.
    return Hidden(f"query_result({ranking})", f'/\\b{label}="([^"]*)"/')


def _in_range(title: str, description: str, expr: str, steps: Steps = NEUTRAL) -> stat.Panel:
    return number(title, f"{description} in the shown time.", COUNT, or_zero(expr), steps, width=6)


def _pod_column(width: int = 0) -> Column:
    return Column("Pod", width=width, link=link_to(UID, "pod"))


def _unit_column(width: int = 0) -> Column:
    return Column("Unit", width=width, link=link_to(UID, "unit"))


def where(labels: str = PROGRAM) -> list[table.Panel]:
    """Return the tables of another dashboard that lead here.

    Args:
        labels: What is chosen there.
    """
    return [
        rows(
            "Failures by pod in the shown time",
            "Pods whose processes failed in the shown time, in full minutes. A click leads to the pod.",
            {"namespace": Column("Namespace", width=180), "pod": _pod_column()},
            [Column("Failures", COUNT, _each_pod(_EACH, f'{labels},pod!=""'), width=110)],
            sort="Failures",
            width=12,
            nothing=_NO_PODS,
        ),
        rows(
            "Failures by unit in the shown time",
            "Systemd units whose processes failed in the shown time, in full minutes. A click leads to the unit.",
            {"unit": _unit_column()},
            [Column("Failures", COUNT, _each_unit(_EACH, f'{labels},unit!=""'), width=110)],
            sort="Failures",
            width=12,
            nothing=_NO_UNITS,
        ),
    ]


def groups() -> Dashboard:
    """Return the dashboard."""
    return page(
        UID,
        "Where processes fail: namespace, pod, container and systemd unit. Needs exporters that run with "
        "--group.by pod, unit or both.",
        {
            "": [
                _in_range(
                    "Failures in the shown time",
                    "Processes of the chosen pods and units that ended with an exit code other than 0,",
                    f"sum({counted(_EACH, _CHOSEN)})",
                ),
                _in_range(
                    "Crashed in the shown time",
                    "Processes that died of SIGSEGV, SIGABRT, SIGBUS, SIGILL, SIGFPE, SIGTRAP or SIGSYS",
                    f"sum({counted(_EACH, _CRASHED)})",
                    ANY_IS_BAD,
                ),
                _in_range(
                    "Killed in the shown time",
                    "Processes that died of SIGKILL",
                    f"sum({counted(_EACH, _KILLED)})",
                    ANY_IS_ODD,
                ),
                number(
                    "Living now",
                    "Processes of the chosen pods and units that are alive.",
                    COUNT,
                    f"sum({_LIVING}{{{_CHOSEN}}})",
                    width=6,
                ),
            ],
            "Pods and containers": [
                graph(
                    "Failures by pod, per point",
                    "Ends with an exit code other than 0, of the six pods with the most in the shown time. "
                    f"{EACH_POINT}",
                    COUNT,
                    Query(_FAILURES_BY_POD, "{{namespace}}/{{pod}}"),
                    counts=True,
                    scale=Scale.LOG_COUNTS,
                    nothing=_NO_PODS,
                ),
                graph(
                    "Living processes by pod",
                    "Processes that are alive, of the six pods with the most now. A line that only rises is a "
                    "leak of processes.",
                    COUNT,
                    Query(top_now("namespace, pod", f"{_LIVING}{{{_IN_POD}}}"), "{{namespace}}/{{pod}}"),
                    scale=Scale.LOG_COUNTS,
                    nothing="None at the end of the shown time, or the exporters run without --group.by pod",
                ),
                rows(
                    "Containers in the shown time",
                    "One row per container whose processes ended in the shown time, in full minutes. Without "
                    "Kubernetes a container has its short id and no pod. A click on a pod shows that pod alone.",
                    {
                        "namespace": Column("Namespace", width=150),
                        "pod": _pod_column(),
                        "container": Column("Container", width=170),
                    },
                    [
                        Column("Failures", COUNT, _each_container(_EACH), width=110),
                        Column(
                            "By a signal",
                            COUNT,
                            _each_container(_EACH, f'{_IN_CONTAINER},signal!=""'),
                            ((None, "text"), (1, "orange")),
                            width=110,
                        ),
                        Column("Ends", COUNT, _each_container(recordings.ENDS_EACH), width=110),
                    ],
                    sort="Failures",
                    nothing=_NO_PODS,
                    blank="-",
                ),
                rows(
                    "What fails in containers in the shown time",
                    "One row per container, program and way to fail, in the shown time. exit_code is what a shell "
                    "shows; signal is empty unless a signal ended the process.",
                    {
                        "namespace": Column("Namespace", width=150),
                        "pod": _pod_column(),
                        "container": Column("Container", width=170),
                        "comm": Column("Program", width=170),
                        "exit_code": Column("Code", width=80, numeric=True),
                        "signal": Column("Signal", width=110),
                    },
                    [Column("Failures", COUNT, _each_container(_EACH, by=f"{_CONTAINER}, {_HOW}"), width=110)],
                    sort="Failures",
                    nothing=_NO_PODS,
                ),
            ],
            "Units": [
                graph(
                    "Failures by unit, per point",
                    "Ends with an exit code other than 0, of the six units with the most in the shown time. "
                    f"Sessions of users are session.scope. {EACH_POINT}",
                    COUNT,
                    Query(top(_FAILURES_BY_UNIT, _MOST_FAILING_UNITS), "{{unit}}"),
                    counts=True,
                    scale=Scale.LOG_COUNTS,
                    nothing=_NO_UNITS,
                ),
                graph(
                    "Living processes by unit",
                    "Processes that are alive, of the six units with the most now.",
                    COUNT,
                    Query(top_now("unit", f"{_LIVING}{{{_IN_UNIT}}}"), "{{unit}}"),
                    scale=Scale.LOG_COUNTS,
                    nothing="None at the end of the shown time, or the exporters run without --group.by unit",
                ),
                rows(
                    "What fails in units in the shown time",
                    "One row per unit, program and way to fail, in the shown time. A click on a unit shows that "
                    "unit alone.",
                    {
                        "unit": _unit_column(),
                        "comm": Column("Program", width=170),
                        "exit_code": Column("Code", width=80, numeric=True),
                        "signal": Column("Signal", width=110),
                    },
                    [Column("Failures", COUNT, _each_unit(_EACH, by=f"unit, {_HOW}"), width=110)],
                    sort="Failures",
                    nothing=_NO_UNITS,
                    height=7,
                ),
            ],
        },
        by_group=True,
        hidden={_WORST_PODS: _ranked("pod", f"topk({MOST_LINES}, {_each_pod(_EACH, _IN_POD)})")},
    )
