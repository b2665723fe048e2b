"""Failures: who ends badly, how, since when, and again and again."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.generate.panels import (
    ANY_IS_ODD,
    COMM,
    COUNT,
    GREEN,
    NODE,
    ORANGE,
    PER_SECOND,
    PROGRAM,
    RATIO,
    RED,
    SECONDS,
    SIGNAL_COLORS,
    YELLOW,
    Column,
    Query,
    graph,
    in_range,
    number,
    or_zero,
    page,
    rate,
    recent,
    rows,
    top_rate,
)

_EXITS = "proc_connector_exits_total"
_FAILED = "proc_connector_nonzero_exits_total"
_COREDUMPS = "proc_connector_coredumps_total"
_LIFETIME = "proc_connector_process_lifetime_seconds"
_BY_SIGNAL = f'{PROGRAM}, signal!=""'
_BUGS = f'{PROGRAM}, signal=~"SIGSEGV|SIGABRT|SIGBUS|SIGILL|SIGFPE|SIGTRAP|SIGSYS"'
_KILLED = f'{PROGRAM}, signal="SIGKILL"'
_KIND = "comm, uid, exit_code, signal"

# node_exporter is another job on another port of the same hosts: they meet at the host part of `instance`.
_HOST = '"host", "$1", "instance", "(.*?)(:[0-9]+)?"'
_OOM_KILLS = (
    f"sum(label_replace(increase(node_vmstat_oom_kill[$__rate_interval]), {_HOST}) "
    f"and on (host) label_replace(proc_connector_exporter_build_info{{{NODE}}}, {_HOST}))"
)
_SHARE_FAILED = f"sum by (comm) ({in_range(_FAILED, PROGRAM)}) / sum by (comm) ({in_range(_EXITS, PROGRAM)})"


def _when(chosen: str) -> str:
    """Return PromQL for when, in milliseconds, each kind of failure was counted: the first or the latest time."""
    failed = f"sum by ({_KIND}) ({recent(_FAILED, PROGRAM)}) > 0"
    return f"1000 * {chosen}_over_time(timestamp({failed})[$__range:$__rate_interval])"


def failures() -> Dashboard:
    """Return the dashboard."""
    return page(
        "proc-connector-failures",
        "Processes that ended with another exit code than 0 or by a signal: who, how, since when, how often.",
        {
            "": [
                number(
                    "Failures",
                    "Processes per second that ended with another exit code than 0.",
                    PER_SECOND,
                    f"sum({rate(_FAILED, PROGRAM)})",
                    width=4,
                    decimals=2,
                ),
                number(
                    "Share of all ends",
                    "Scripts that ask questions (grep, test) make some of it; watch for changes.",
                    RATIO,
                    f"sum({rate(_FAILED, PROGRAM)}) / sum({rate(_EXITS, PROGRAM)})",
                    ((None, GREEN), (0.25, YELLOW), (0.5, ORANGE)),
                    width=4,
                    decimals=1,
                ),
                number(
                    "Crashed",
                    "Processes that died of SIGSEGV, SIGABRT, SIGBUS, SIGILL, SIGFPE, SIGTRAP or SIGSYS in the "
                    "shown time.",
                    COUNT,
                    or_zero(f"round(sum({in_range(_FAILED, _BUGS)}))"),
                    ((None, GREEN), (0.5, RED)),
                    width=4,
                    decimals=0,
                ),
                number(
                    "Killed",
                    "Processes that died of SIGKILL in the shown time.",
                    COUNT,
                    or_zero(f"round(sum({in_range(_FAILED, _KILLED)}))"),
                    ANY_IS_ODD,
                    width=4,
                    decimals=0,
                ),
                number(
                    "Core dumps",
                    "Processes that died of a signal that dumps core in the shown time.",
                    COUNT,
                    or_zero(f"round(sum({in_range(_COREDUMPS, PROGRAM)}))"),
                    ANY_IS_ODD,
                    width=4,
                    decimals=0,
                ),
                number(
                    "Failing",
                    "Different programs with at least one failure in the shown time.",
                    COUNT,
                    or_zero(f"count(sum by (comm) ({in_range(_FAILED, PROGRAM)}) > 0.5)"),
                    width=4,
                    decimals=0,
                ),
                graph(
                    "Failures by program",
                    "Ends per second with another exit code than 0, of the ten programs with the most in the "
                    "shown time.",
                    PER_SECOND,
                    Query(top_rate("comm", _FAILED), "{{comm}}"),
                ),
                graph(
                    "Deaths by signal",
                    "Processes that died of each signal, counted per interval. SIGSEGV and SIGABRT are bugs; "
                    "SIGKILL may be the kernel out of memory; SIGTERM and SIGPIPE are everyday life.",
                    COUNT,
                    Query(f"sum by (signal) ({recent(_FAILED, _BY_SIGNAL)}) > 0", "{{signal}}"),
                    bars=True,
                    stacked=True,
                    colors=SIGNAL_COLORS,
                ),
            ],
            "Who, how, since when": [
                rows(
                    "Again and again",
                    "Programs that failed at least three times in the shown time and in at least half of their "
                    "ends. A short median lifetime means that they die at their start: a crash loop.",
                    {"comm": Column("Program", width=130)},
                    [
                        Column(
                            "Failures",
                            "none",
                            width=80,
                            expr=f"round(sum by (comm) ({in_range(_FAILED, PROGRAM)})) >= 3 "
                            f"and {_SHARE_FAILED} >= 0.5",
                        ),
                        Column(
                            "Share of ends",
                            RATIO,
                            f"({_SHARE_FAILED} >= 0.5) and sum by (comm) ({in_range(_FAILED, PROGRAM)}) >= 2.5",
                            ((None, YELLOW), (0.9, RED)),
                            width=110,
                        ),
                        Column(
                            "Median lifetime",
                            SECONDS,
                            f"histogram_quantile(0.5, sum by (comm, le) ({in_range(f'{_LIFETIME}_bucket', COMM)}))"
                            f" and (sum by (comm) ({in_range(_FAILED, PROGRAM)}) >= 2.5 and "
                            f"{_SHARE_FAILED} >= 0.5)",
                        ),
                    ],
                    sort="Failures",
                    width=10,
                ),
                rows(
                    "Every kind of failure",
                    "One row per program, user and way to fail. First and latest are within the shown time: a "
                    "first that is recent is news. exit_code is what a shell shows; a signal is only named where "
                    "a signal killed.",
                    {
                        "comm": Column("Program", width=110),
                        "uid": Column("uid", width=60),
                        "exit_code": Column("Code", width=60),
                        "signal": Column("Signal", width=85),
                    },
                    [
                        Column(
                            "Failures",
                            "none",
                            f"round(sum by ({_KIND}) ({in_range(_FAILED, PROGRAM)})) > 0",
                            width=80,
                        ),
                        Column("First", "dateTimeFromNow", _when("min"), width=125),
                        Column("Latest", "dateTimeFromNow", _when("max")),
                    ],
                    sort="Failures",
                    width=14,
                ),
            ],
            "How": [
                graph(
                    "Failures by exit code",
                    "Ends per second by what a shell would show: 1 any failure, 2 wrong usage, 126 not "
                    "executable, 127 not found, 128+n signal n.",
                    PER_SECOND,
                    Query(top_rate("exit_code", _FAILED), "{{exit_code}}"),
                ),
                graph(
                    "Failures by user",
                    "Ends per second with another exit code than 0 by real uid.",
                    PER_SECOND,
                    Query(top_rate("uid", _FAILED), "uid {{uid}}"),
                ),
                graph(
                    "SIGKILL and out of memory",
                    "Processes that died of SIGKILL, by program, beside the kernel's out-of-memory kills of the "
                    "same hosts (node_exporter's node_vmstat_oom_kill, if it is scraped). Kills without an OOM "
                    "were sent by somebody: a timeout, a container runtime, an operator.",
                    COUNT,
                    Query(f"sum by (comm) ({recent(_FAILED, _KILLED)}) > 0", "{{comm}}"),
                    Query(_OOM_KILLS, "out of memory (kernel)"),
                    bars=True,
                    colors={"out of memory (kernel)": RED},
                ),
                graph(
                    "Core dumps",
                    "Processes that died of a signal that dumps core, by program and user, whether a file was "
                    "written or not.",
                    COUNT,
                    Query(
                        f"sum by (comm, uid) ({recent(_COREDUMPS, PROGRAM)}) > 0",
                        "{{comm}} of {{uid}}",
                    ),
                    bars=True,
                ),
            ],
        },
        by_program=True,
    )
