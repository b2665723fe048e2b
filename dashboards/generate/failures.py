"""Failures: which programs fail, how, since when, and again and again."""

from grafana_foundation_sdk.builders import stat
from grafana_foundation_sdk.models.dashboard import Dashboard, DynamicConfigValue

from dashboards.generate.looks import (
    ANY_IS_BAD,
    ANY_IS_ODD,
    COUNT,
    EXIT_CODE_COLORS,
    FAILURE_STEPS,
    PER_SECOND,
    RATIO,
    RED,
    SECONDS,
    SIGNAL_COLORS,
    YELLOW,
    Query,
    Steps,
)
from dashboards.generate.pages import page
from dashboards.generate.panels import number, rare, top_rates
from dashboards.generate.queries import (
    BUILD,
    COREDUMPS,
    EXITS,
    FAILED,
    LIFETIME,
    PROGRAM,
    STEP,
    growth,
    in_range,
    in_step,
    or_zero,
    quantile_in_range,
    rate,
    share,
)
from dashboards.generate.tables import Column, rows

_BY_SIGNAL = f'{PROGRAM}, signal!=""'
_BUGS = f'{PROGRAM}, signal=~"SIGSEGV|SIGABRT|SIGBUS|SIGILL|SIGFPE|SIGTRAP|SIGSYS"'
_KILLED = f'{PROGRAM}, signal="SIGKILL"'
_KIND = "comm, uid, exit_code, signal"

# node_exporter is another job on another port of the same hosts: they meet at the host part of `instance`.
_HOST = '"host", "$1", "instance", "(.*?)(:[0-9]+)?"'
_OOM = "out of memory (kernel)"
_OOM_KILLS = (
    f"sum(label_replace({growth('node_vmstat_oom_kill', STEP)} >= 0, {_HOST})"
    f" and on (host) label_replace({BUILD}, {_HOST}))"
)
_BESIDE_THE_BARS = [
    DynamicConfigValue("color", {"mode": "fixed", "fixedColor": RED}),
    DynamicConfigValue("custom.drawStyle", "line"),
    DynamicConfigValue("custom.stacking", {"mode": "none"}),
    DynamicConfigValue("custom.fillOpacity", 0),
]
_FAILURES = f"round(sum by (comm) ({in_range(FAILED, PROGRAM)}))"
_ENDS = f"sum by (comm) ({in_range(EXITS, PROGRAM)})"
_AGAIN_AND_AGAIN = f"(({_FAILURES} >= 3) >= 0.5 * {_ENDS})"


def _when(chosen: str) -> str:
    """Return PromQL for when, in milliseconds, each kind of failure was counted: the first or the latest time."""
    failed = f"sum by ({_KIND}) ({in_step(FAILED, PROGRAM)}) > 0"
    return f"1000 * {chosen}_over_time(timestamp({failed})[$__range:{STEP}])"


def _in_range(title: str, description: str, metric: str, labels: str, steps: Steps) -> stat.Panel:
    expr = or_zero(f"round(sum({in_range(metric, labels)}))")
    return number(title, f"{description} in the shown time.", COUNT, expr, steps, at_end=True)


def failures() -> Dashboard:
    """Return the dashboard."""
    return page(
        "proc-connector-failures",
        "Processes that ended with an exit code other than 0 or by a signal: which, how, since when, how often.",
        {
            "": [
                number(
                    "Failures",
                    "Processes per second that ended with an exit code other than 0.",
                    PER_SECOND,
                    f"sum({rate(FAILED, PROGRAM)})",
                    decimals=2,
                ),
                number(
                    "Share of all ends",
                    "Programs that answer by exit code (grep, test) are part of it; watch for changes.",
                    RATIO,
                    share(FAILED, EXITS, PROGRAM),
                    FAILURE_STEPS,
                    decimals=1,
                ),
                _in_range(
                    "Crashed",
                    "Processes that died of SIGSEGV, SIGABRT, SIGBUS, SIGILL, SIGFPE, SIGTRAP or SIGSYS",
                    FAILED,
                    _BUGS,
                    ANY_IS_BAD,
                ),
                _in_range("Killed", "Processes that died of SIGKILL", FAILED, _KILLED, ANY_IS_ODD),
                _in_range(
                    "Core dumps", "Processes that died of a signal that dumps core", COREDUMPS, PROGRAM, ANY_IS_ODD
                ),
                number(
                    "Failing",
                    "Different programs with at least one failure in the shown time.",
                    COUNT,
                    or_zero(f"count({_FAILURES} > 0)"),
                    at_end=True,
                ),
                top_rates(
                    "Failures by program",
                    "Ends per second with an exit code other than 0, of the ten programs with the most in the "
                    "shown time. A first failure is in the bars and tables, not yet in a rate.",
                    FAILED,
                ),
                rare(
                    "Deaths by signal",
                    "Processes that died of each signal. SIGSEGV and SIGABRT are bugs; SIGKILL may be the kernel "
                    "out of memory; SIGTERM and SIGPIPE are normal.",
                    FAILED,
                    by="signal",
                    legend="{{signal}}",
                    labels=_BY_SIGNAL,
                    colors=SIGNAL_COLORS,
                ),
            ],
            "Which, how, since when": [
                rows(
                    "Again and again",
                    "Programs that failed at least three times in the shown time and in at least half of their "
                    "ends. A short median lifetime means that they die at their start: a crash loop.",
                    {"comm": Column("Program")},
                    [
                        Column("Failures", COUNT, _AGAIN_AND_AGAIN, width=95),
                        Column(
                            "Share of ends",
                            RATIO,
                            f"({_FAILURES} >= 3) / {_ENDS} >= 0.5",
                            ((None, YELLOW), (0.9, RED)),
                            width=115,
                        ),
                        Column(
                            "Median lifetime",
                            SECONDS,
                            f"{quantile_in_range(0.5, LIFETIME)} and {_AGAIN_AND_AGAIN}",
                            width=130,
                        ),
                    ],
                    sort="Failures",
                    width=10,
                ),
                rows(
                    "Every kind of failure",
                    "One row per program, user and way to fail. First and latest are within the shown time: a "
                    "recent first is new. exit_code is what a shell shows; signal is empty unless a "
                    "signal ended the process.",
                    {
                        "comm": Column("Program"),
                        "uid": Column("uid", width=60),
                        "exit_code": Column("Code", width=60),
                        "signal": Column("Signal", width=85),
                    },
                    [
                        Column(
                            "Failures",
                            COUNT,
                            f"round(sum by ({_KIND}) ({in_range(FAILED, PROGRAM)})) > 0",
                            width=95,
                        ),
                        Column("First", "dateTimeFromNow", _when("min"), width=125),
                        Column("Latest", "dateTimeFromNow", _when("max"), width=140),
                    ],
                    sort="Failures",
                    width=14,
                ),
            ],
            "How": [
                top_rates(
                    "Failures by exit code",
                    "Ends per second by the exit code of a shell: 1 any failure, 2 wrong usage, 126 not "
                    "executable, 127 not found, 128+n signal n.",
                    FAILED,
                    by="exit_code",
                    legend="{{exit_code}}",
                    colors=EXIT_CODE_COLORS,
                ),
                top_rates(
                    "Failures by user",
                    "Ends per second with an exit code other than 0 by real uid.",
                    FAILED,
                    by="uid",
                    legend="uid {{uid}}",
                ),
                rare(
                    "SIGKILL and out of memory",
                    "Processes that died of SIGKILL, by program, and the kernel's out-of-memory kills of the "
                    "same hosts (node_exporter's node_vmstat_oom_kill, if it is scraped). Kills without an OOM "
                    "were sent by a timeout, a container runtime or an operator.",
                    FAILED,
                    Query(_OOM_KILLS, _OOM),
                    by="comm",
                    legend="{{comm}}",
                    labels=_KILLED,
                ).override_by_name(_OOM, _BESIDE_THE_BARS),
                rare(
                    "Core dumps",
                    "Processes that died of a signal that dumps core, by program and user, whether a file was "
                    "written or not.",
                    COREDUMPS,
                    by="comm, uid",
                    legend="{{comm}} of {{uid}}",
                ),
            ],
        },
        by_program=True,
    )
