"""Node: what the processes of one or a few nodes do."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.generate.panels import (
    BYTES,
    COMM,
    COUNT,
    CPUS,
    GREEN,
    ORANGE,
    PER_SECOND,
    PROGRAM,
    RATIO,
    SECONDS,
    YELLOW,
    Column,
    Query,
    graph,
    heat,
    in_range,
    link_to,
    number,
    page,
    rate,
    rows,
    top,
    top_rate,
)

_FORKS = "proc_connector_forks_total"
_EXECS = "proc_connector_execs_total"
_EXITS = "proc_connector_exits_total"
_FAILED = "proc_connector_nonzero_exits_total"
_LIFETIME = "proc_connector_process_lifetime_seconds"
_CPU = "proc_connector_process_cpu_seconds"
_RSS = "proc_connector_process_max_rss_bytes"
_BELOW_A_SECOND = f'{COMM}, le="1.0"'


def _quantile(q: float, histogram: str, by: str = "le") -> str:
    """Return PromQL for a quantile, without the moments at which nothing ended (NaN)."""
    return f"histogram_quantile({q}, sum by ({by}) ({rate(f'{histogram}_bucket', COMM)})) >= 0"


def _quantile_in_range(q: float, histogram: str) -> str:
    return f"histogram_quantile({q}, sum by (comm, le) ({in_range(f'{histogram}_bucket', COMM)}))"


def node() -> Dashboard:
    """Return the dashboard."""
    return page(
        "proc-connector-node",
        "Births, lives and ends of processes by program and user, however short they live.",
        {
            "": [
                number(
                    "Births",
                    "Processes forked per second.",
                    PER_SECOND,
                    f"sum({rate(_FORKS, PROGRAM)})",
                    width=4,
                    decimals=1,
                ),
                number(
                    "Executions",
                    "Programs that were started (execs) per second.",
                    PER_SECOND,
                    f"sum({rate(_EXECS, PROGRAM)})",
                    width=4,
                    decimals=1,
                ),
                number(
                    "Ends",
                    "Processes that ended, per second.",
                    PER_SECOND,
                    f"sum({rate(_EXITS, PROGRAM)})",
                    width=4,
                    decimals=1,
                ),
                number(
                    "Failures",
                    "Share of the ends with another exit code than 0.",
                    RATIO,
                    f"sum({rate(_FAILED, PROGRAM)}) / sum({rate(_EXITS, PROGRAM)})",
                    ((None, GREEN), (0.25, YELLOW), (0.5, ORANGE)),
                    width=4,
                    decimals=1,
                ),
                number(
                    "Gone in 1 s",
                    "Share of the ended processes that lived for less than a second: what a poller cannot see.",
                    RATIO,
                    f"sum({rate(f'{_LIFETIME}_bucket', _BELOW_A_SECOND)}) "
                    f"/ sum({rate(f'{_LIFETIME}_count', COMM)})",
                    width=4,
                    decimals=1,
                ),
                number(
                    "Living processes",
                    "Processes that live now, kernel threads included.",
                    COUNT,
                    f"sum(proc_connector_processes{{{COMM}}})",
                    width=4,
                    decimals=0,
                ),
            ],
            "Who is born and who ends": [
                graph(
                    "Births by program",
                    "Forks per second by the program that forked: who makes the work. The ten "
                    "highest of the shown time.",
                    PER_SECOND,
                    Query(top_rate("comm", _FORKS), "{{comm}}"),
                ),
                graph(
                    "Executions by program",
                    "Execs per second by the program that was started: what the work is.",
                    PER_SECOND,
                    Query(top_rate("comm", _EXECS), "{{comm}}"),
                ),
                graph(
                    "Ends by program",
                    "Processes that ended per second, whatever their exit code.",
                    PER_SECOND,
                    Query(top_rate("comm", _EXITS), "{{comm}}"),
                ),
                graph(
                    "Births and ends by user",
                    "Forks and ends per second by real uid. Births without ends pile up.",
                    PER_SECOND,
                    Query(top_rate("uid", _FORKS), "uid {{uid}} births"),
                    Query(top_rate("uid", _EXITS), "uid {{uid}} ends"),
                ),
                rows(
                    "Top churners",
                    "The programs that ended most often in the shown time. Many short lives of one "
                    "program are a loop that starts it; CPU and memory are of processes that ended. A click "
                    "leads to its failures.",
                    {"comm": Column("Program", width=180, link=link_to("proc-connector-failures", "comm"))},
                    [
                        Column(
                            "Ends",
                            "none",
                            f"topk(20, round(sum by (comm) ({in_range(_EXITS, PROGRAM)})))",
                        ),
                        Column(
                            "Failed",
                            RATIO,
                            f"sum by (comm) ({in_range(_FAILED, PROGRAM)}) "
                            f"/ sum by (comm) ({in_range(_EXITS, PROGRAM)})",
                            ((None, GREEN), (0.25, YELLOW), (0.5, ORANGE)),
                        ),
                        Column("Median lifetime", SECONDS, _quantile_in_range(0.5, _LIFETIME)),
                        Column("99 % lived below", SECONDS, _quantile_in_range(0.99, _LIFETIME)),
                        Column("CPU time", SECONDS, f"sum by (comm) ({in_range(f'{_CPU}_sum', COMM)})"),
                        Column("Peak memory, 99 % below", BYTES, _quantile_in_range(0.99, _RSS)),
                    ],
                    sort="Ends",
                ),
            ],
            "Lives": [
                heat(
                    "Lifetimes",
                    "How long the processes lived that ended at each moment. A new bright row is a new "
                    "kind of process, or an old one that hangs or dies early.",
                    SECONDS,
                    f"sum by (le) ({rate(f'{_LIFETIME}_bucket', COMM)})",
                ),
                graph(
                    "Lifetime percentiles",
                    "Half, 90 % and 99 % of the processes that ended lived for less than this.",
                    SECONDS,
                    Query(_quantile(0.5, _LIFETIME), "50 %"),
                    Query(_quantile(0.9, _LIFETIME), "90 %"),
                    Query(_quantile(0.99, _LIFETIME), "99 %"),
                    gaps=True,
                    log=True,
                ),
                graph(
                    "Median lifetime by program",
                    "Of the ten programs that ended most often. A daemon whose median "
                    "falls to seconds is crash-looping.",
                    SECONDS,
                    Query(
                        f"({_quantile(0.5, _LIFETIME, 'comm, le')}) and topk(10, "
                        f"sum by (comm) (increase({_LIFETIME}_count{{{COMM}}}[$__range] @ end())))",
                        "{{comm}}",
                    ),
                    gaps=True,
                    log=True,
                ),
                graph(
                    "Living processes by program",
                    "Processes that live, of the ten programs with the most on "
                    "average. A line that only rises is a leak of processes.",
                    COUNT,
                    Query(
                        top(
                            "comm",
                            f"proc_connector_processes{{{COMM}}}",
                            f"avg_over_time(proc_connector_processes{{{COMM}}}[$__range] @ end())",
                        ),
                        "{{comm}}",
                    ),
                ),
            ],
            "What the dead have used (taskstats mode)": [
                graph(
                    "CPU of ended processes",
                    "CPU time of processes, counted when they end: the cost of what no "
                    "poller sees. A process that ran for an hour adds its whole hour at its end.",
                    CPUS,
                    Query(
                        top(
                            "comm",
                            rate(f"{_CPU}_sum", COMM),
                            f"increase({_CPU}_sum{{{COMM}}}[$__range] @ end())",
                        ),
                        "{{comm}}",
                    ),
                    stacked=True,
                ),
                graph(
                    "Peak memory of ended processes",
                    "90 % of the processes of a program stayed below this at their "
                    "peak. The ten programs with the most ends.",
                    BYTES,
                    Query(
                        f"({_quantile(0.9, _RSS, 'comm, le')}) and topk(10, "
                        f"sum by (comm) (increase({_RSS}_count{{{COMM}}}[$__range] @ end())))",
                        "{{comm}}",
                    ),
                    gaps=True,
                ),
            ],
            "Changes of identity": [
                graph(
                    "Changes of uid",
                    "Changes of real or effective uid per second, by the program and its new real "
                    "uid: sudo, login, cron. Rare on most nodes, so each new line has a story.",
                    PER_SECOND,
                    Query(top_rate("comm, uid", "proc_connector_uid_changes_total"), "{{comm}} to {{uid}}"),
                ),
                graph(
                    "Traced processes",
                    "Processes per second that a debugger or tracer took hold of, by the traced.",
                    PER_SECOND,
                    Query(top_rate("comm, uid", "proc_connector_ptrace_attaches_total"), "{{comm}} of {{uid}}"),
                ),
            ],
        },
        by_program=True,
    )
