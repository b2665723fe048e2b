"""Failures: which programs fail, how, since when, and again and again."""

from grafana_foundation_sdk.builders import stat
from grafana_foundation_sdk.models.dashboard import Dashboard, DynamicConfigValue

from dashboards.generate import groups, recordings
from dashboards.generate.looks import (
    ANY_IS_BAD,
    ANY_IS_ODD,
    COUNT,
    EACH_POINT,
    EXIT_CODE_COLORS,
    FAILURE_STEPS,
    ORANGE,
    PER_SECOND,
    RATIO,
    RED,
    SECONDS,
    SIGNAL_COLORS,
    Query,
    Scale,
    Steps,
)
from dashboards.generate.pages import page
from dashboards.generate.panels import graph, number, rare
from dashboards.generate.queries import (
    COMM,
    CRASH,
    EXITS,
    FAILED,
    LIFETIME,
    NODE,
    PROGRAM,
    STEP,
    counted,
    or_zero,
    quantile_in_range,
    rate,
    share,
    top,
)
from dashboards.generate.tables import Column, rows

_EACH = recordings.FAILURES_EACH
_BY_SIGNAL = f'{PROGRAM},signal!=""'
_BUGS = f"{PROGRAM},{CRASH}"
_KILLED = f'{PROGRAM},signal="SIGKILL"'
_KIND = "comm, uid, exit_code, signal"

_OOM = "out of memory"
_CHOSEN = or_zero(f"sum({counted(recordings.CHOSEN_EACH, NODE, window=STEP)})")
_OOM_OF_HOST = "out of memory (node_exporter)"
_OOM_KILLS = or_zero(f"sum({counted(recordings.OOM_KILLS_EACH, NODE, window=STEP)})")
_RED = [DynamicConfigValue("color", {"mode": "fixed", "fixedColor": RED})]
_FAILURES = f"sum by (comm) ({counted(_EACH, PROGRAM)})"
# The ranking chooses the programs, the other part the users: both in both would be too long to read.
_OF_USER = f'{NODE},uid=~"$uid"'
_FAILURES_OF_USER = f"sum by(comm) ({counted(_EACH, _OF_USER, window=STEP)})"
_MOST_FAILURES = f"sum by(comm) (sum_over_time({_EACH}{{{COMM}}}[$__range] @ end()))"
_ENDS = f"sum by (comm) ({counted(recordings.ENDS_EACH, PROGRAM)})"


def _when(chosen: str) -> str:
    """Return PromQL for when, in milliseconds, each kind of failure was counted: the first or the latest time."""
    failed = f"sum by ({_KIND}) ({_EACH}{{{PROGRAM}}})"
    return f"1000 * {chosen}_over_time(timestamp({failed})[$__range:1m])"


def _in_range(title: str, description: str, increments: str, labels: str, steps: Steps) -> stat.Panel:
    expr = or_zero(f"sum({counted(increments, labels)})")
    return number(title, f"{description} in the shown time.", COUNT, expr, steps)


def failures() -> Dashboard:
    """Return the dashboard."""
    return page(
        "proc-connector-failures",
        "Processes that ended with an exit code other than 0 or by a signal: which, how, since when, how often.",
        {
            "": [
                number(
                    "Failures per second",
                    "Processes per second that ended with an exit code other than 0.",
                    PER_SECOND,
                    f"sum({rate(FAILED, PROGRAM)})",
                    decimals=2,
                ),
                number(
                    "Share that fails",
                    "Share of the ends that are failures. Programs that answer by exit code (grep, test) are part "
                    "of it; watch for changes.",
                    RATIO,
                    share(FAILED, EXITS, PROGRAM),
                    FAILURE_STEPS,
                    decimals=1,
                ),
                _in_range(
                    "Crashed in the shown time",
                    "Processes that died of SIGSEGV, SIGABRT, SIGBUS, SIGILL, SIGFPE, SIGTRAP or SIGSYS",
                    _EACH,
                    _BUGS,
                    ANY_IS_BAD,
                ),
                _in_range(
                    "Killed in the shown time", "Processes that died of SIGKILL", _EACH, _KILLED, ANY_IS_ODD
                ),
                _in_range(
                    "Core dumps in the shown time",
                    "Processes that died of a signal that dumps core",
                    recordings.COREDUMPS_EACH,
                    PROGRAM,
                    ANY_IS_ODD,
                ),
                number(
                    "Failing programs in the shown time",
                    "Different programs with at least one failure in the shown time.",
                    COUNT,
                    or_zero(f"count({_FAILURES} > 0)"),
                ),
                graph(
                    "Failures by program",
                    "Ends with an exit code other than 0, of the six programs with the most in the shown time, of "
                    f"all users. {EACH_POINT}",
                    COUNT,
                    Query(top(_FAILURES_OF_USER, _MOST_FAILURES), "{{comm}}"),
                    counts=True,
                    scale=Scale.LOG_COUNTS,
                    nothing="None in the shown time",
                ),
                graph(
                    "Deaths by signal",
                    "Processes that died of each signal. SIGSEGV and SIGABRT are bugs; SIGKILL may be the kernel "
                    f"out of memory; SIGTERM and SIGPIPE are normal. {EACH_POINT}",
                    COUNT,
                    Query(f"sum by (signal) ({counted(_EACH, _BY_SIGNAL, window=STEP)})", "{{signal}}"),
                    counts=True,
                    scale=Scale.LOG_COUNTS,
                    colors=SIGNAL_COLORS,
                    nothing="None in the shown time",
                ),
            ],
            "Which, how, since when": [
                rows(
                    "Again and again",
                    "Programs that failed at least three times in the shown time and in at least half of their "
                    "ends. A short median lifetime means that they die at their start: a crash loop.",
                    {"comm": Column("Program")},
                    [
                        Column("Failures", COUNT, _FAILURES, width=120, least=3),
                        Column(
                            "Share of ends",
                            RATIO,
                            f"{_FAILURES} / {_ENDS}",
                            ((None, ORANGE), (0.9, RED)),
                            width=150,
                            least=0.5,
                        ),
                        Column("Median lifetime", SECONDS, quantile_in_range(0.5, LIFETIME), width=160),
                    ],
                    sort="Failures",
                    height=7,
                ),
                rows(
                    "Every kind of failure",
                    "One row per program, user and way to fail. First and latest are within the shown time: a "
                    "recent first is new. exit_code is what a shell shows; signal is empty unless a "
                    "signal ended the process.",
                    {
                        "comm": Column("Program"),
                        "uid": Column("uid", width=100),
                        "exit_code": Column("Code", width=80, numeric=True),
                        "signal": Column("Signal", width=110),
                    },
                    [
                        Column(
                            "Failures",
                            COUNT,
                            f"sum by ({_KIND}) ({counted(_EACH, PROGRAM)})",
                            width=95,
                        ),
                        Column("First", "dateTimeFromNow", _when("min"), width=150),
                        Column("Latest", "dateTimeFromNow", _when("max"), width=150),
                    ],
                    sort="Failures",
                ),
            ],
            "How": [
                rare(
                    "Failures by exit code",
                    "Ends by the exit code of a shell: 1 any failure, 2 wrong usage, 126 not executable, 127 not "
                    "found, 128+n signal n.",
                    _EACH,
                    by="exit_code",
                    legend="{{exit_code}}",
                    colors=EXIT_CODE_COLORS,
                ),
                rare(
                    "Failures by user",
                    "Ends with an exit code other than 0 by real uid.",
                    _EACH,
                    by="uid",
                    legend="uid {{uid}}",
                ),
                rare(
                    "SIGKILL and out of memory",
                    "Processes that died of SIGKILL, by program, and those of them that the kernel's OOM killer "
                    "chose; and the number of these that node_exporter shows for the same hosts "
                    "(node_vmstat_oom_kill), if it is scraped. All others were killed by a timeout, a container "
                    "runtime or an operator.",
                    _EACH,
                    Query(_CHOSEN, _OOM),
                    Query(_OOM_KILLS, _OOM_OF_HOST),
                    by="comm",
                    legend="{{comm}}",
                    labels=_KILLED,
                ).override_by_name(_OOM, _RED),
                rare(
                    "Core dumps",
                    "Processes that died of a signal that dumps core, by program and user, whether a file was "
                    "written or not.",
                    recordings.COREDUMPS_EACH,
                    by="comm, uid",
                    legend="{{comm}} of {{uid}}",
                ),
            ],
            "Where, with --group.by": groups.where(),
        },
        by_program=True,
        collapsed=("Where, with --group.by",),
    )
