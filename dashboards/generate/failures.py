"""Failures: which programs fail, how, since when, and again and again."""

from grafana_foundation_sdk.builders import stat
from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.generate import groups, recordings
from dashboards.generate.looks import (
    ANY_IS_BAD,
    ANY_IS_ODD,
    COUNT,
    EACH_POINT,
    EXIT_CODE_COLORS,
    FAILURE_STEPS,
    ORANGE,
    RATIO,
    RED,
    SECONDS,
    SIGNAL_COLORS,
    UNUSUAL,
    Query,
    Scale,
    Steps,
)
from dashboards.generate.pages import page
from dashboards.generate.panels import graph, number
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
    when,
)
from dashboards.generate.tables import Column, rows

_EACH = recordings.FAILURES_EACH
_BY_SIGNAL = f'{PROGRAM},signal!=""'
_BUGS = f"{PROGRAM},{CRASH}"
_KILLED = f'{PROGRAM},signal="SIGKILL"'
_KIND = "comm, uid, exit_code, signal"

_ON_HOST = f"sum({counted(recordings.OOM_KILLS_EACH, NODE, window=STEP)})"
# Where nothing is recorded there was none; but of the host nothing is known without node_exporter.
_KILLS = (
    Query(or_zero(f"sum({counted(_EACH, _KILLED, window=STEP)})"), "SIGKILL"),
    Query(f"{_ON_HOST} or 0 * count(node_vmstat_oom_kill)", "host's count"),
    Query(or_zero(f"sum({counted(recordings.CHOSEN_EACH, PROGRAM, window=STEP)})"), "out of memory"),
)
_KILL_COLORS = {"SIGKILL": SIGNAL_COLORS["SIGKILL"], "host's count": UNUSUAL, "out of memory": ORANGE}
# The ranking chooses the programs, the other part the users: both in both would be too long to read.
_OF_USER = f'{NODE},uid=~"$uid"'
_FAILURES_OF_USER = f"sum by(comm) ({counted(_EACH, _OF_USER, window=STEP)})"
_MOST_FAILURES = f"sum by(comm) (sum_over_time({_EACH}{{{COMM}}}[$__range] @ end()))"
_FAILURES_OF_PROGRAM = f"sum by(uid) ({counted(_EACH, COMM, window=STEP)})"
_MOST_FAILING_USERS = f"sum by(uid) (sum_over_time({_EACH}{{{_OF_USER}}}[$__range] @ end()))"


def _by_comm(increments: str, labels: str = PROGRAM) -> str:
    return f"sum by (comm) ({counted(increments, labels)})"


_FAILURES = _by_comm(_EACH)
_ENDS = _by_comm(recordings.ENDS_EACH)


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
                    COUNT,
                    f"sum({rate(FAILED, PROGRAM)})",
                    decimals=2,
                ),
                number(
                    "Share that fails, last minutes",
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
                    "Failures by program, per point",
                    "Ends with an exit code other than 0, of the six programs with the most in the shown time, of "
                    f"all users. {EACH_POINT}",
                    COUNT,
                    Query(top(_FAILURES_OF_USER, _MOST_FAILURES), "{{comm}}"),
                    counts=True,
                    scale=Scale.LOG_COUNTS,
                    nothing="None in the shown time",
                ),
                graph(
                    "Deaths by signal, per point",
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
                    "Again and again in the shown time",
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
                    nothing="No program fails again and again",
                    blank="-",
                    height=7,
                ),
                rows(
                    "Every kind of failure in the shown time",
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
                        Column("First", "dateTimeFromNow", when("min", _KIND, _EACH), width=150),
                        Column("Latest", "dateTimeFromNow", when("max", _KIND, _EACH), width=150),
                    ],
                    sort="Failures",
                    nothing="None in the shown time",
                ),
            ],
            "How": [
                graph(
                    "Failures by exit code, per point",
                    "Ends by the exit code of a shell: 1 any failure, 2 wrong usage, 126 not executable, 127 not "
                    f"found, 128+n signal n. Unusual codes are grey. {EACH_POINT}",
                    COUNT,
                    Query(f"sum by (exit_code) ({counted(_EACH, PROGRAM, window=STEP)})", "{{exit_code}}"),
                    counts=True,
                    scale=Scale.LOG_COUNTS,
                    colors=EXIT_CODE_COLORS,
                    by_number=True,
                    nothing="None in the shown time",
                ),
                graph(
                    "Failures by user, per point",
                    "Ends with an exit code other than 0 by real uid, of the six users with the most in the shown "
                    f"time, by all programs. {EACH_POINT}",
                    COUNT,
                    Query(top(_FAILURES_OF_PROGRAM, _MOST_FAILING_USERS), "uid {{uid}}"),
                    counts=True,
                    scale=Scale.LOG_COUNTS,
                    nothing="None in the shown time",
                ),
                graph(
                    "SIGKILL and out of memory, per point",
                    "Processes that died of SIGKILL, and those of them that the kernel's OOM killer chose; and "
                    "the host's count of these, which node_exporter shows of the same hosts "
                    "(node_vmstat_oom_kill), if it is scraped. All others were killed by a timeout, a container "
                    "runtime or an operator. "
                    f"{EACH_POINT}",
                    COUNT,
                    *_KILLS,
                    counts=True,
                    scale=Scale.LOG_COUNTS,
                    colors=_KILL_COLORS,
                ),
                rows(
                    "Killed or dumped in the shown time",
                    "Every program of which processes died of SIGKILL or of a signal that dumps core, whether a "
                    "file was written or not; and how many of those with SIGKILL the kernel's OOM killer chose.",
                    {"comm": Column("Program")},
                    [
                        Column("SIGKILL", COUNT, _by_comm(_EACH, _KILLED), width=90),
                        Column("Out of memory", COUNT, _by_comm(recordings.CHOSEN_EACH), width=130),
                        Column("Core dumps", COUNT, _by_comm(recordings.COREDUMPS_EACH), width=110),
                    ],
                    sort="SIGKILL",
                    width=12,
                    height=8,
                    nothing="None in the shown time",
                    blank="-",
                ),
            ],
            "Where, with --group.by": groups.where(),
        },
        by_program=True,
        collapsed=("Where, with --group.by",),
    )
