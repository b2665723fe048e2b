"""Node: the processes of one or a few nodes."""

from grafana_foundation_sdk.builders import stat, table
from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.generate import recordings
from dashboards.generate.looks import (
    BYTES,
    COUNT,
    FAILURE_STEPS,
    NUMBER,
    PER_SECOND,
    QUANTILE_COLORS,
    RATIO,
    SECONDS,
    Query,
    Scale,
)
from dashboards.generate.pages import link_to, page
from dashboards.generate.panels import graph, heat, number, top_rates
from dashboards.generate.queries import (
    COMM,
    EXECS,
    EXITS,
    FAILED,
    FORKS,
    LIFETIME,
    PROGRAM,
    counted,
    quantile,
    quantile_in_range,
    rate,
    share,
    top,
    top_rate,
    when,
)
from dashboards.generate.tables import Column, rows

_CPU = "proc_connector_process_cpu_seconds"
_RSS = "proc_connector_process_max_rss_bytes"
_LIVING = f"proc_connector_processes{{{COMM}}}"
_BELOW_A_SECOND = f'{COMM},le="1.0"'
_NEW = "The line of a new program begins at its second scrape; the table below counts it from the first."


def _by_comm(q: float, histogram: str) -> Query:
    """Return a quantile of the six programs that ended most often since the exporters started."""
    # At the end of the shown time: a ranking at each point has as many lines as programs were ever among the six.
    ends = f"sum by(comm) ({histogram}_count{{{COMM}}} @ end())"
    return Query(top(quantile(q, histogram, COMM, "comm, le"), ends), "{{comm}}")


_ENDED = f"sum by (comm) ({counted(recordings.ENDS_EACH, PROGRAM)})"
_FAILED = f"sum by (comm) ({counted(recordings.FAILURES_EACH, PROGRAM)}) / {_ENDED}"


def _per_second(title: str, description: str, metric: str) -> stat.Panel:
    return number(title, description, COUNT, f"sum({rate(metric, PROGRAM)})", decimals=1)


def _rare(title: str, description: str, increments: str, *, uid: str, counted_as: str) -> table.Panel:
    """Return all that happened by program and user: of more than six, lines would have the same colours."""
    by = "comm, uid"
    return rows(
        title,
        f"{description} First and latest are within the shown time.",
        {"comm": Column("Program"), "uid": Column(uid, width=70)},
        [
            Column(counted_as, COUNT, f"sum by ({by}) ({counted(increments, PROGRAM)})", width=85),
            Column("First", "dateTimeFromNow", when("min", by, increments), width=115),
            Column("Latest", "dateTimeFromNow", when("max", by, increments), width=115),
        ],
        sort="Latest",
        width=12,
        height=7,
        nothing="None in the shown time",
    )


def node() -> Dashboard:
    """Return the dashboard."""
    return page(
        "proc-connector-node",
        "Births, lives and ends of processes by program and user, however short they live.",
        {
            "": [
                _per_second("Births per second", "Processes forked per second.", FORKS),
                _per_second("Execs per second", "Programs that were started (execs) per second.", EXECS),
                _per_second("Ends per second", "Processes that ended, per second.", EXITS),
                number(
                    "Share that fails, last minutes",
                    "Share of the ends with an exit code other than 0.",
                    RATIO,
                    share(FAILED, EXITS, PROGRAM),
                    FAILURE_STEPS,
                    decimals=1,
                ),
                number(
                    "Lived below 1 s, last minutes",
                    "Share of the ended processes that lived for less than a second: a poller cannot see them.",
                    RATIO,
                    f"sum({rate(f'{LIFETIME}_bucket', _BELOW_A_SECOND)}) / sum({rate(f'{LIFETIME}_count', COMM)})",
                    decimals=1,
                ),
                number(
                    "Living now",
                    "Processes that are alive now, kernel threads included.",
                    COUNT,
                    f"sum({_LIVING})",
                ),
            ],
            "Births and ends": [
                top_rates(
                    "Births by program, per second",
                    f"Forks per second by the program that forked. The six highest. {_NEW}",
                    FORKS,
                ),
                top_rates(
                    "Executions by program, per second",
                    f"Execs per second by the program that was started. The six highest. {_NEW}",
                    EXECS,
                ),
                top_rates(
                    "Ends by program, per second",
                    f"Processes that ended per second, with any exit code. The six highest. {_NEW}",
                    EXITS,
                ),
                graph(
                    "Births and ends by user, per second",
                    "Forks and ends per second by real uid, of the three users with the most. Births without ends "
                    "pile up.",
                    PER_SECOND,
                    Query(top_rate("uid", FORKS, n=3), "uid {{uid}} births"),
                    Query(top_rate("uid", EXITS, n=3), "uid {{uid}} ends"),
                    scale=Scale.LOG,
                ),
                rows(
                    "Top churners in the shown time",
                    "The programs by how often they ended in the shown time, in full minutes. Many short lives "
                    "of one program mean that a loop starts it; CPU and memory are of processes that ended. A "
                    "click leads to its failures.",
                    {"comm": Column("Program", width=140, link=link_to("proc-connector-failures", "comm"))},
                    [
                        Column("Ends", COUNT, _ENDED, least=1),
                        Column("Failed", RATIO, _FAILED, FAILURE_STEPS),
                        Column("Median lifetime", SECONDS, quantile_in_range(0.5, LIFETIME)),
                        Column("99 % lived below", SECONDS, quantile_in_range(0.99, LIFETIME)),
                        Column("CPU time", SECONDS, f"sum by (comm) ({counted(recordings.CPU_TIME_EACH, COMM)})"),
                        Column("Memory, 99 %", BYTES, quantile_in_range(0.99, _RSS)),
                    ],
                    sort="Ends",
                    nothing="No process ended in the shown time",
                    blank="-",
                ),
            ],
            "Lives": [
                heat(
                    "Lifetimes, ends per second",
                    "How long the processes lived that ended at each moment. A new bright row is a new "
                    "kind of process, or an old one that hangs or dies early.",
                    LIFETIME,
                    COMM,
                    "> 1 day",
                ),
                graph(
                    "Lifetime percentiles",
                    "Half, 90 % and 99 % of the processes that ended lived for less than this.",
                    SECONDS,
                    Query(quantile(0.5, LIFETIME, COMM), "50 %"),
                    Query(quantile(0.9, LIFETIME, COMM), "90 %"),
                    Query(quantile(0.99, LIFETIME, COMM), "99 %"),
                    scale=Scale.LOG_SECONDS,
                    colors=QUANTILE_COLORS,
                ),
                graph(
                    "Median lifetime by program",
                    "Of the six programs that have ended most often. A daemon whose median "
                    "falls to seconds is crash-looping.",
                    SECONDS,
                    _by_comm(0.5, LIFETIME),
                    dots=True,
                    scale=Scale.LOG_SECONDS,
                ),
                graph(
                    "Living processes by program",
                    "Processes that are alive, of the six programs with the most on "
                    "average. A line that only rises is a leak of processes.",
                    COUNT,
                    Query(
                        top(
                            f"sum by (comm) ({_LIVING})",
                            f"sum by (comm) (sum_over_time({_LIVING}[$__range] @ end()))",
                        ),
                        "{{comm}}",
                    ),
                    scale=Scale.LOG_COUNTS,
                ),
            ],
            "What ended processes used (taskstats mode)": [
                graph(
                    "CPUs of ended processes, booked at their end",
                    "CPU time of processes, counted when they end: it has also those "
                    "that no poller sees. A process that ran for an hour adds its whole hour at its end.",
                    NUMBER,
                    Query(top_rate("comm", f"{_CPU}_sum", COMM), "{{comm}}"),
                    stacked=True,
                ),
                graph(
                    "Peak memory of ended processes",
                    "90 % of the processes of a program stayed below this at their "
                    "peak. The six programs that have ended most often.",
                    BYTES,
                    _by_comm(0.9, _RSS),
                    dots=True,
                ),
            ],
            "Changes of identity": [
                _rare(
                    "Changes of uid in the shown time",
                    "Changes of real or effective uid, by the program and its new real uid: sudo, login, cron. "
                    "Rare on most nodes, so look at each row whose first is recent.",
                    recordings.UID_CHANGES_EACH,
                    uid="To uid",
                    counted_as="Changes",
                ),
                _rare(
                    "Traced processes in the shown time",
                    "Processes that a debugger or tracer attached to, by the traced program and its user.",
                    recordings.ATTACHES_EACH,
                    uid="uid",
                    counted_as="Attached",
                ),
            ],
        },
        by_program=True,
        all_nodes=False,
    )
