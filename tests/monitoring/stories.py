"""What a Prometheus may have seen of exporters, and which alerts then fire: promtool plays these stories.

All times are minutes from the story's beginning, and every series has one value a minute.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

JOB = "proc-connector-exporter"
INFO = {"ProcConnectorUnattributedHigh", "ProcessFirstFailure", "ProcessKilled"}
"""All others are warnings."""
DAY = 1440
OTHER_JOB = 'job="services",instance="b"'
BUILD = 'version="1",revision="c0ffee",pythonversion="3"'
"""Every label of the build, as the exporter has them: the rules must not match on any of them."""

Series = Mapping[str, str]
"""Values in promtool's notation, by the series."""
Fired = tuple[tuple[str, str], ...]
"""The labels of a firing alert."""


def target(pod: str = "p") -> str:
    """Return the labels of a scraped exporter; a rollout changes its pod."""
    return f'job="{JOB}",instance="a",pod="{pod}"'


def host(up: str, started: str = "", canary: str = "", *, pod: str = "p") -> dict[str, str]:
    """Return what every scrape of an exporter has. Another exporter of the same machine is always there."""
    # What a target exposes is there when it is up.
    build = re.sub(r"\b0x(\d+)", r"_x\1", re.sub(r"(?<= )0(?= |$)", "stale", up))
    series = {
        "up": up,
        "process_start_time_seconds": started,
        "proc_connector_canary_age_seconds": canary,
    }
    other = {
        'up{job="node",instance="a"}': "1x5000",
        'process_start_time_seconds{job="node",instance="a"}': "0x5000",
    }
    built = {f"proc_connector_exporter_build_info{{{target(pod)},{BUILD}}}": build}
    return other | built | {f"{name}{{{target(pod)}}}": values for name, values in series.items() if values}


HEALTHY = host("1x5000", "-100000x5000", "3x5000")
RESTARTED_AT_40 = host("1x38 0 1x2000", "-100000x38 stale 2400x2000", "3x38 stale 3x2000")
ROLLED_OUT_AT_40 = host("1x38 stale", "-100000x38 stale", "3x38 stale") | host(
    "_x40 1x2000", "_x40 2400x2000", "_x40 3x2000", pod="q"
)
NEW_AT_40 = host("_x40 1x2000", "_x40 2400x2000", "_x40 3x2000")
UNSCRAPED_FROM_10_TO_40 = host("1x9 0x29 1x2000", "-100000x9 stale _x29 -100000x2000")


def ended(
    comm: str, values: str, *, code: str = "0", signal: str = "", uid: str = "0", pod: str = "p"
) -> dict[str, str]:
    """Return the series of an end: of exits_total and, if it is a failure, of nonzero_exits_total too."""
    labels = f'{target(pod)},comm="{comm}",uid="{uid}",exit_code="{code}",signal="{signal}"'
    series = {f"proc_connector_exits_total{{{labels}}}": values}
    if code != "0":
        series[f"proc_connector_nonzero_exits_total{{{labels}}}"] = values
    return series


def events(kind: str, values: str, *, pod: str = "p") -> dict[str, str]:
    """Return a series of events_total."""
    return {f'proc_connector_events_total{{{target(pod)},event="{kind}"}}': values}


def unattributed(values: str, *, pod: str = "p") -> dict[str, str]:
    """Return a series of unattributed_total."""
    return {f'proc_connector_unattributed_total{{{target(pod)},event="exec"}}': values}


def folded(values: str, *, pod: str = "p") -> dict[str, str]:
    """Return a series of folded_total."""
    return {f'proc_connector_folded_total{{{target(pod)},metric="proc_connector_execs_total"}}': values}


def reloaded(values: str) -> dict[str, str]:
    """Return whether the last reload went well."""
    return {f"proc_connector_config_last_reload_successful{{{target()}}}": values}


def task_exits(events: str, kernel: str, *, pod: str = "p") -> dict[str, str]:
    """Return the two sides of task_exits_total."""
    told = {"events": events, "kernel": kernel}
    return {f'proc_connector_task_exits_total{{{target(pod)},source="{s}"}}': v for s, v in told.items()}


def lost(values: str, *, socket: str = "connector", pod: str = "p") -> dict[str, str]:
    """Return a series of lost_messages_total."""
    return {f'proc_connector_lost_messages_total{{{target(pod)},socket="{socket}"}}': values}


def coredumps(comm: str, values: str, *, uid: str = "0", pod: str = "p") -> dict[str, str]:
    """Return a series of coredumps_total."""
    return {f'proc_connector_coredumps_total{{{target(pod)},comm="{comm}",uid="{uid}"}}': values}


def oom_kills(comm: str, values: str, *, uid: str = "0", pod: str = "p") -> dict[str, str]:
    """Return a series of oom_kills_total."""
    return {f'proc_connector_oom_kills_total{{{target(pod)},comm="{comm}",uid="{uid}"}}': values}


def counter(seconds: Iterable[float], minutes: int, since: int = 0) -> str:
    """Return a counter that rises by 1 at these times and is born when it first does.

    Args:
        seconds: From the beginning of the story.
        minutes: The last one that is scraped.
        since: The first one, in which counting begins.
    """
    times = [second for second in seconds if second > since * 60]
    counts = [sum(second <= minute * 60 for second in times) for minute in range(since, minutes + 1)]
    return " ".join(str(count) if count else "_" for count in counts)


def back_off(begin: float, ran: float, end: float) -> list[float]:
    """Return when a container fails that Kubernetes starts anew: after 10 s, 20 s, ... and at most 300 s.

    Args:
        begin: When it starts, in minutes.
        ran: For how many seconds it runs each time.
        end: When somebody mends it, in minutes.
    """
    failures, wait, now = [], 10.0, begin * 60 + ran
    while now < end * 60:
        failures.append(now)
        now += wait + ran
        wait = min(2 * wait, 300.0)
    return failures


def every(period: float, begin: float, end: float) -> list[float]:
    """Return every so many seconds from one minute to another."""
    return [begin * 60 + period * n for n in range(int((end - begin) * 60 // period) + 1)]


def fired(name: str, **labels: str | None) -> Fired:
    """Return the labels of a firing alert: whose it is has to be as right as that it fires.

    Args:
        name: Of the alert.
        labels: Besides or instead of the exporter's own; None for one that it has not.
    """
    severity = "info" if name in INFO else "warning"
    own = {"alertname": name, "severity": severity, "job": JOB, "instance": "a"}
    return tuple((label, value) for label, value in (own | labels).items() if value)


@dataclass(frozen=True)
class Story:
    """Time series, and who fires at these minutes (all others are quiet)."""

    name: str
    series: Series
    firing: dict[int, set[Fired]]
    host: Series = field(default_factory=lambda: HEALTHY)


QUIET: set[Fired] = set()
DOWN = {fired("ProcConnectorExporterDown", pod="p")}
ABSENT = {fired("ProcConnectorExporterAbsent", job=None, instance=None)}
RESTARTING = {fired("ProcConnectorExporterRestarting")}
LATE = {fired("ProcConnectorCanaryLate", pod="p")}
LOST = {fired("ProcConnectorMessagesLost")}
FOLDED = {fired("ProcConnectorSeriesLimitReached")}
BROKEN = {fired("ProcConnectorConfigReloadFailed", pod="p")}
MISSED = {fired("ProcConnectorEndsMissed")}
UNATTRIBUTED = {fired("ProcConnectorUnattributedHigh")}
STORM = {fired("ProcessForkStorm")}
LOOP = {fired("ProcessCrashLooping", comm="daemon")}
RATIO = {fired("ProcessFailureRatioJumped", comm="job")}
FIRST = {fired("ProcessFirstFailure", comm="backup")}
KILLED = {fired("ProcessKilled", comm="app", signal="SIGKILL")}
OUT_OF_MEMORY = {fired("ProcessOutOfMemory", comm="app")}
DUMPS = {fired("ProcessCoreDumps")}
MORE = {fired("ProcessMoreSuspects")}
CRASH_SIGNALS = {
    "SIGILL": 4, "SIGTRAP": 5, "SIGABRT": 6, "SIGBUS": 7, "SIGFPE": 8, "SIGSEGV": 11, "SIGSYS": 31,
}  # fmt: skip
OTHER_SIGNALS = {
    "SIGHUP": 1, "SIGINT": 2, "SIGQUIT": 3, "SIGUSR1": 10, "SIGPIPE": 13, "SIGALRM": 14, "SIGTERM": 15,
    "SIGSTKFLT": 16, "SIGXCPU": 24, "SIGXFSZ": 25, "SIGRTMIN": 34, "SIGRTMIN+3": 37,
}  # fmt: skip


def crashed(signal: str = "SIGSEGV") -> set[Fired]:
    """Return the alert of a crash."""
    return {fired("ProcessCrashed", comm="app", signal=signal)}


def everything(values: str, *, pod: str = "p") -> dict[str, str]:
    """Return what has happened on an eventful host, each thing as often, and much more that ended well."""
    return {
        **ended("app", values, code="139", signal="SIGSEGV", pod=pod),
        **ended("app", values, code="137", signal="SIGKILL", pod=pod),
        **ended("daemon", values, code="1", pod=pod),
        **ended("backup", values, code="2", pod=pod),
        **ended("backup", values, pod=pod),
        **coredumps("app", values, pod=pod),
        **oom_kills("app", values, pod=pod),
        **lost(values, pod=pod),
        **folded(values, pod=pod),
        **unattributed(values, pod=pod),
        **events("exec", values, pod=pod),
        **events("fork", values, pod=pod),
        **task_exits(values, values, pod=pod),
    }


WHOLE_HOST = (
    Story("a healthy host is quiet", ended("sh", "0+10x100"), {5: QUIET, 90: QUIET}),
    Story("what happened long ago is quiet", everything("50x100"), {30: QUIET, 60: QUIET, 90: QUIET}),
    Story(
        "a restarted exporter begins at 0 and is quiet",
        everything("50x38 stale 0x60"),
        {42: QUIET, 50: QUIET, 60: QUIET, 90: QUIET},
        RESTARTED_AT_40,
    ),
    Story(
        "a rollout is quiet",
        everything("50x38 stale") | everything("_x40 0x60", pod="q"),
        {42: QUIET, 50: QUIET, 60: QUIET, 90: QUIET},
        ROLLED_OUT_AT_40,
    ),
    Story(
        "what is old is not new because nobody scraped for half an hour",
        everything("50x9 stale _x29 50x60"),
        {42: QUIET, 50: QUIET, 60: QUIET, 90: QUIET},
        UNSCRAPED_FROM_10_TO_40,
    ),
    Story(
        "one scrape that fails is quiet",
        everything("50x38 stale 50x60"),
        {42: QUIET, 54: QUIET, 55: QUIET, 84: QUIET, 85: QUIET},
        host("1x38 0 1x2000", "-100000x38 stale -100000x2000"),
    ),
    Story(
        "a node that left the service discovery is quiet",
        everything("50x9 stale") | {f'up{{job="{JOB}",instance="b"}}': "1x100"},
        {12: QUIET, 30: QUIET, 60: QUIET},
        host("1x9 stale", "-100000x9 stale", "3x9 stale"),
    ),
)

EXPORTER = (
    Story(
        "an exporter that does not answer is down after five minutes",
        {},
        {13: QUIET, 16: DOWN, 20: DOWN, 45: QUIET},
        host("1x9 0x30 1x60"),
    ),
    Story(
        "an exporter of a job with any name is down too, if it answered once within a day",
        {
            f"up{{{OTHER_JOB}}}": "1x9 0x30",
            f"proc_connector_exporter_build_info{{{OTHER_JOB},{BUILD}}}": "1x9 stale",
        },
        {13: QUIET, 16: {fired("ProcConnectorExporterDown", job="services", instance="b")}},
    ),
    Story(
        "an exporter of a job with any name is an exporter",
        {f"up{{{OTHER_JOB}}}": "1x60", f"proc_connector_exporter_build_info{{{OTHER_JOB},{BUILD}}}": "1x60"},
        {50: QUIET},
        {},
    ),
    Story("other jobs may be down", {'up{job="other",instance="a"}': "0x60"}, {50: QUIET}),
    Story(
        "an exporter that misses four scrapes is not down",
        {},
        {13: QUIET, 16: QUIET, 18: QUIET},
        host("1x9 0x3 1x60"),
    ),
    Story(
        "an exporter that starts anew every minute",
        {},
        {3: QUIET, 6: RESTARTING, 20: RESTARTING, 40: RESTARTING, 96: RESTARTING, 104: QUIET},
        host("1x200", "0+60x39 2400x160"),
    ),
    Story(
        "an exporter that starts anew every five minutes and is hardly ever up",
        {},
        {19: QUIET, 30: RESTARTING, 58: RESTARTING},
        host(" ".join(["1 0x3"] * 20), " ".join(f"{n * 300} stale _x3" for n in range(20))),
    ),
    Story(
        "an exporter whose pods do not last",
        {},
        {30: RESTARTING},
        {
            series: values
            for n in range(1, 7)
            for series, values in host(f"_x{n * 4} 1x2 stale", f"_x{n * 4} {n * 240}x2 stale", pod=f"p{n}").items()
        },
    ),
    Story(
        "three restarts within an hour are an upgrade and its end in tears",
        {},
        {36: QUIET, 50: QUIET},
        host("1x200", "0x9 600x9 1200x9 1800x100"),
    ),
    Story(
        "other jobs may start anew",
        {'process_start_time_seconds{job="other",instance="a"}': "0+60x60"},
        {30: QUIET, 50: QUIET},
    ),
    Story(
        "a canary that does not come back is late after a minute more",
        {},
        {11: QUIET, 12: LATE, 13: LATE, 20: QUIET},
        host("1x100", "-100000x100", "3x10 70 70 70 70 3x60"),
    ),
    Story("one late canary is a busy host", {}, {11: QUIET, 12: QUIET}, host("1x99", canary="3x10 63 3x60")),
    Story("a canary that needs its time is not late", {}, {10: QUIET, 30: QUIET}, host("1x99", canary="55x60")),
    Story(
        "a canary that never came back grows old from the start of the exporter",
        {},
        {41: QUIET, 43: LATE, 45: LATE, 60: LATE},
        host("_x40 1x60", "_x40 2400x60", "_x40 0+60x60"),
    ),
    Story("an exporter whose canary is turned off is not late", {}, {30: QUIET}, host("1x60")),
    Story(
        "one lost message fires for a window",
        lost("0x20 1x60") | lost("0x60", socket="taskstats"),
        {20: QUIET, 22: LOST, 34: LOST, 37: QUIET},
    ),
    Story(
        "a lost exit record is a lost message",
        lost("0x60") | lost("0x20 1x60", socket="taskstats"),
        {22: LOST},
    ),
    Story(
        "a loss before the first scrape of a new exporter fires",
        lost("_x40 1x60"),
        {41: LOST, 65: QUIET},
        NEW_AT_40,
    ),
    Story(
        "a loss that a restart took from 1 to 1 fires",
        lost("0x20 1x17 stale 1x60"),
        {44: LOST, 65: QUIET},
        RESTARTED_AT_40,
    ),
    Story(
        "a loss before the first scrape of a new pod fires",
        lost("0x20 7x17 stale") | lost("_x40 1x60", pod="q"),
        {24: LOST, 42: LOST, 65: QUIET},
        ROLLED_OUT_AT_40,
    ),
    Story(
        "a loss goes on firing through a scrape that fails",
        lost("0x20 1x8 stale 1x60"),
        {29: LOST, 30: LOST, 31: LOST, 32: LOST},
        host("1x29 0 1x60", "-100000x29 stale -100000x60"),
    ),
    Story(
        "a twelfth of the events without a name is too much after a quarter of an hour",
        events("exec", "0+36x60") | events("thread_exit", "0+1000x60") | unattributed("0x10 0+3x50"),
        {12: QUIET, 20: QUIET, 40: UNATTRIBUTED},
    ),
    Story(
        "one in thirty without a name is quiet",
        events("fork", "0+50x60") | events("exec", "0+50x60") | events("exit", "0+50x60") | unattributed("0+5x60"),
        {40: QUIET},
    ),
    Story(
        "the share of the events without a name is known through a restart",
        events("exec", "0+120x38 stale 0+120x60") | unattributed("0+10x38 stale 0+10x60"),
        {38: UNATTRIBUTED, 60: UNATTRIBUTED},
        RESTARTED_AT_40,
    ),
    Story(
        "a rollout does not end what it has not mended",
        events("exec", "0+120x38 stale")
        | unattributed("0+10x38 stale")
        | events("exec", "_x40 0+120x60", pod="q")
        | unattributed("_x40 0+10x60", pod="q"),
        {38: UNATTRIBUTED, 42: UNATTRIBUTED, 50: UNATTRIBUTED},
        ROLLED_OUT_AT_40,
    ),
    Story("a host without events has no share", events("exec", "5x60") | unattributed("0x60"), {40: QUIET}),
    Story(
        "the first count that is folded fires for a window, its series born with it or not",
        folded("_x20 1x60"),
        {19: QUIET, 21: FOLDED, 22: FOLDED, 34: FOLDED, 37: QUIET},
    ),
    Story("a limit that was never reached is quiet", folded("0x60"), {30: QUIET}),
    Story(
        "a limit that is reached again after a restart, its counter as it was",
        folded("0x20 7x17 stale 7x60"),
        {24: FOLDED, 44: FOLDED, 65: QUIET},
        RESTARTED_AT_40,
    ),
    Story(
        "a broken configuration is one after five minutes",
        reloaded("1x10 0x30 1x20"),
        {13: QUIET, 15: QUIET, 17: BROKEN, 20: BROKEN, 50: QUIET},
    ),
    Story("a configuration that is mended at once", reloaded("1x10 0x2 1x20"), {13: QUIET, 20: QUIET}),
    Story(
        "one in twelve ends without an event is too much after a quarter of an hour",
        task_exits("0+120x10 1200+110x90", "0+120x100"),
        {12: QUIET, 20: QUIET, 40: MISSED},
    ),
    Story("a silent kernel is a host without events", task_exits("0x60", "0+120x60"), {40: MISSED}),
    Story(
        "one end in thirty is within the error of the check",
        task_exits("0+116x60", "0+120x60"),
        {20: QUIET, 40: QUIET},
    ),
    Story("a few missed on a quiet host mean nothing", task_exits("0+10x60", "0+50x60"), {40: QUIET}),
    Story(
        "a restart that both sides begin anew after is no loss",
        task_exits("0+120x38 stale 0+120x60", "5000+120x38 stale 0+120x60"),
        {45: QUIET, 60: QUIET},
        RESTARTED_AT_40,
    ),
    Story(
        "ends are missed through a rollout",
        task_exits("0+60x38 stale", "0+120x38 stale") | task_exits("_x40 0+60x60", "_x40 0+120x60", pod="q"),
        {38: MISSED, 42: MISSED, 50: MISSED},
        ROLLED_OUT_AT_40,
    ),
)

_NIGHTLY = f"0+600x600 360000+6000x120 1080000+600x{DAY - 121} 1872000+6000x120 2600000+600x300"

BIRTHS = (
    Story(
        "a fork storm is one in the light of its past",
        events("fork", "0+600x60 36000+4200x30 162000+600x60"),
        {62: QUIET, 69: QUIET, 71: STORM, 75: STORM, 110: QUIET},
    ),
    Story("four times the usual is no storm", events("fork", "0+600x60 36000+2400x60"), {75: QUIET, 110: QUIET}),
    Story("25 a second on an idle host is a storm", events("fork", "0+60x60 3600+1500x30"), {75: STORM}),
    Story("15 a second on an idle host is none", events("fork", "0+60x60 3600+900x30"), {75: QUIET}),
    Story("other events are no births", events("exec", "0+60x60 3600+6000x30"), {75: QUIET}),
    Story("a host that always forks so much is quiet", events("fork", "0+6000x90"), {75: QUIET}),
    Story("a host without a past is quiet", events("fork", "0+6000x90"), {10: QUIET, 20: QUIET, 40: QUIET}),
    Story(
        "a storm of eleven hours fires until it is over",
        events("fork", f"0+600x{DAY} 864000+6000x660 4824000+600x120"),
        {
            DAY + 3: QUIET,
            **{DAY + minute: STORM for minute in (12, 60, 90, 120, 240, 359, 480, 659)},
            DAY + 680: QUIET,
        },
    ),
    Story(
        "a rollout within the day takes no past away",
        events("fork", "0+600x38 stale") | events("fork", "_x40 0x2 6000+6000x30", pod="q"),
        {41: QUIET, 52: STORM, 70: STORM},
        ROLLED_OUT_AT_40,
    ),
    Story(
        "what comes every night is a storm the first time only",
        events("fork", _NIGHTLY),
        {
            620: STORM,
            700: STORM,
            760: QUIET,
            DAY + 620: QUIET,
            DAY + 700: QUIET,
            DAY + 730: QUIET,
        },
    ),
    Story(
        "a second storm of the day, at another time",
        events("fork", "0+600x300 180000+6000x120 900000+600x300 1080000+6000x60"),
        {320: STORM, 460: QUIET, 740: STORM},
    ),
    Story(
        "a restarted exporter is no fork storm",
        events("fork", "0+6000x38 stale 0+6000x60"),
        {42: QUIET, 50: QUIET},
        RESTARTED_AT_40,
    ),
)

FAILURES = (
    *(
        Story(
            f"a crash loop {how}: from a quarter of an hour after the third failure until it is over",
            ended("daemon", counter(failures, 300), code="1"),
            {
                int(failures[2] / 60 + 14): QUIET,
                **dict.fromkeys(range(int(failures[2] / 60 + 17), 240, 7), LOOP),
                int(failures[-1] / 60 + 18): QUIET,
            },
        )
        for how, failures in {
            **{
                f"in Kubernetes' back-off, running for {ran} s": back_off(60, ran, 240)
                for ran in (1, 30, 300, 530)
            },
            **{f"of one failure every {period} s": every(period, 60, 240) for period in (330, 600, 840)},
        }.items()
    ),
    Story(
        "a slow crash loop goes on through a restart of the exporter",
        ended(
            "daemon", f"{counter(every(330, 0, 38), 38)} stale {counter(every(330, 0, 200), 200, 40)}", code="1"
        ),
        {38: LOOP, 41: LOOP, 50: LOOP, 60: LOOP, 70: LOOP, 80: LOOP, 100: LOOP},
        RESTARTED_AT_40,
    ),
    Story(
        "a slow crash loop goes on through a rollout",
        ended("daemon", f"{counter(every(330, 0, 38), 38)} stale", code="1")
        | ended("daemon", f"_x40 {counter(every(330, 0, 200), 200, 40)}", code="1", pod="q"),
        {38: LOOP, 41: LOOP, 50: LOOP, 60: LOOP, 70: LOOP, 80: LOOP, 100: LOOP},
        ROLLED_OUT_AT_40,
    ),
    Story(
        "a crash loop whose failures are of all kinds and whose users change",
        ended("daemon", counter(every(1200, 60, 200), 200), code="1")
        | ended("daemon", counter(every(1200, 70, 200), 200), code="2", uid="7")
        | ended("daemon", counter(every(1200, 75, 200), 200), code="143", signal="SIGTERM"),
        {88: QUIET, 94: LOOP, 120: LOOP, 150: LOOP},
    ),
    Story(
        "three failures in a row and then peace are no loop",
        ended("daemon", "_x20 1 2 3x60", code="1"),
        {25: QUIET, 34: QUIET, 36: QUIET, 50: QUIET},
    ),
    Story(
        "two failures are no loop, whatever was an hour ago",
        ended("daemon", counter([*every(60, 2, 10), 60 * 60, 74 * 60], 150), code="1")
        | ended("daemon", "_x30 0+10x10 100x100"),
        dict.fromkeys(range(60, 120, 5), QUIET),
    ),
    Story(
        "two failures an hour after the restart of the exporter are no loop, whatever it has seen before",
        ended("daemon", "0+10x38 stale 0+10x5 50x100")
        | ended("daemon", "1x38 stale _ 1 2 3x51 4x13 5x60", code="1"),
        dict.fromkeys(range(95, 140, 5), QUIET),
        RESTARTED_AT_40,
    ),
    Story(
        "two failures after half an hour that nobody scraped are no loop",
        ended("daemon", "50x9 stale _x29 50x20 51x13 52x60", code="1"),
        dict.fromkeys(range(61, 110, 5), QUIET),
        UNSCRAPED_FROM_10_TO_40,
    ),
    Story(
        "two failures after the restart of the exporter are no loop, whatever ended well",
        ended("daemon", "0+10x38 stale 0+10x5 50x100") | ended("daemon", "1x38 stale _x22 1x13 2x60", code="1"),
        dict.fromkeys(range(62, 110, 5), QUIET),
        RESTARTED_AT_40,
    ),
    Story(
        "what comes up after some failures does not loop",
        ended("daemon", counter(back_off(20, 1, 25), 100), code="1") | ended("daemon", "_x24 0+1x70"),
        {25: QUIET, 34: QUIET, 36: QUIET, 50: QUIET},
    ),
    Story(
        "a job that fails three times of four does not loop",
        ended("job", "0+3x90", code="1") | ended("job", "0+1x90"),
        {60: QUIET},
    ),
    Story(
        "nine failures of ten are a loop",
        ended("daemon", "0+15x90", code="143", signal="SIGTERM") | ended("daemon", "0+1x90"),
        {14: QUIET, 40: LOOP},
    ),
    Story("grep does not fail by finding nothing", ended("grep", "0+10x90", code="1"), {60: QUIET}),
    Story("nobody knows who loops under no name", ended("<unknown>", "0+10x90", code="1"), {60: QUIET}),
    Story(
        "a fast loop through a restart of the exporter goes on",
        ended("daemon", "0+1x38 stale 1+1x60", code="1"),
        {35: LOOP, 41: LOOP, 50: LOOP},
        RESTARTED_AT_40,
    ),
    Story(
        "a program that begins to fail four times of ten",
        ended("job", "0+5x60 300+3x60") | ended("job", "0x60 0+2x60", code="1"),
        {62: QUIET, 75: QUIET, 80: RATIO},
    ),
    Story(
        "a program that fails a fifth more often, in many ways",
        ended("job", "0+5x60 300+8x60")
        | ended("job", "0x60 0+1x60", code="1")
        | ended("job", "0x60 0+1x60", code="2", uid="7"),
        {80: QUIET},
    ),
    Story(
        "a program that begins to fail, in many ways",
        ended("job", "0+5x60 300+5x60")
        | ended("job", "_x60 1+2x60", code="1")
        | ended("job", "_x60 1+3x60", code="143", signal="SIGTERM", uid="7"),
        {84: RATIO},
    ),
    Story(
        "a program that always failed half the time",
        ended("job", "0+2x120") | ended("job", "0+2x120", code="1"),
        {80: QUIET},
    ),
    Story(
        "a program that always failed half the time, after a restart of the exporter",
        ended("job", "0+2x38 stale 0+6x120") | ended("job", "0+2x38 stale 0+6x120", code="1"),
        {45: QUIET, 52: QUIET, 60: QUIET, 80: QUIET},
        RESTARTED_AT_40,
    ),
    Story(
        "a program that begins to fail after a rollout",
        ended("job", "0+5x38 stale")
        | ended("job", "_x40 0+2x60", pod="q")
        | ended("job", "_x40 1+20x60", code="1", pod="q"),
        {42: QUIET, 51: RATIO},
        ROLLED_OUT_AT_40,
    ),
    Story(
        "fifteen ends in a quarter of an hour are an anecdote",
        ended("job", "0+1x60 60x60") | ended("job", "0x60 0+1x60", code="1"),
        {74: QUIET, 80: QUIET},
    ),
    Story(
        "thirty ends in a quarter of an hour are none",
        ended("job", "0+1x60 60x60") | ended("job", "0x60 0+2x20 40x60", code="1"),
        {80: RATIO},
    ),
    Story(
        "fifteen ends before are an anecdote",
        ended("job", "0x40 0+1x15 15x60") | ended("job", "_x60 1+4x60", code="1"),
        {70: QUIET, 74: QUIET},
    ),
    Story(
        "thirty ends before are none",
        ended("job", "0x20 0+1x30 30x60") | ended("job", "_x60 1+5x60", code="1"),
        {73: RATIO},
    ),
    Story(
        "the very first failure of a program that ran well once, born at 1",
        ended("backup", "1x150") | ended("backup", "_x70 1x100", code="2"),
        {69: QUIET, 71: FIRST, 84: FIRST, 87: QUIET, 150: QUIET},
    ),
    Story(
        "the first failure is one for each program",
        ended("backup", "5x100")
        | ended("other", "5x100")
        | ended("other", "1x100", code="2")
        | ended("backup", "_x70 1x60", code="143", signal="SIGTERM"),
        {72: FIRST},
    ),
    Story(
        "the first failures of a program, of all kinds",
        ended("backup", "5x200", uid="7")
        | ended("backup", "_x70 1x100", code="2", uid="7")
        | ended("backup", "_x72 1x100", code="143", signal="SIGTERM"),
        {71: FIRST, 74: FIRST, 95: QUIET},
    ),
    Story(
        "another kind of failure is not the first",
        ended("backup", "5x100")
        | ended("backup", "1x100", code="2")
        | ended("backup", "_x70 1x60", code="3", uid="7")
        | ended("backup", "_x70 1x60", code="143", signal="SIGTERM"),
        {72: QUIET},
    ),
    Story(
        "a program that fails for the first time and is not known to do well is no news",
        ended("backup", "_x70 1x60", code="2"),
        {72: QUIET},
    ),
    Story(
        "a program that is known to do well for half an hour is not known",
        ended("backup", "_x40 5x60") | ended("backup", "_x70 1x60", code="2"),
        {72: QUIET},
    ),
    Story("grep may fail", ended("grep", "5x100") | ended("grep", "_x70 1x60", code="1"), {72: QUIET}),
    Story(
        "a failure soon after the restart of an exporter that had seen one before is not the first",
        ended("backup", "500+1x38 stale 1+1x200") | ended("backup", "_x20 3x18 stale _x8 1x200", code="2"),
        {22: QUIET} | dict.fromkeys(range(50, 120, 3), QUIET),
        RESTARTED_AT_40,
    ),
    Story(
        "a failure soon after a rollout is not the first if the old pod had seen one",
        ended("backup", "500+1x38 stale")
        | ended("backup", "_x20 3x18 stale", code="2")
        | ended("backup", "_x40 1+1x200", pod="q")
        | ended("backup", "_x50 1x200", code="2", pod="q"),
        dict.fromkeys(range(50, 120, 3), QUIET),
        ROLLED_OUT_AT_40,
    ),
    Story(
        "a failure 20 hours after a rollout is not the first if the old pod had seen one",
        ended("backup", "500+1x38 stale")
        | ended("backup", "_x20 3x18 stale", code="2")
        | ended("backup", f"_x40 1+1x{2 * DAY}", pod="q")
        | ended("backup", f"_x{40 + 1200} 1x{DAY}", code="2", pod="q"),
        {1242: QUIET, 1260: QUIET, 1300: QUIET},
        ROLLED_OUT_AT_40,
    ),
    Story(
        "a failure 26 hours after a rollout is the first for a day",
        ended("backup", "500+1x38 stale")
        | ended("backup", "_x20 3x18 stale", code="2")
        | ended("backup", f"_x40 1+1x{2 * DAY}", pod="q")
        | ended("backup", f"_x{40 + 1560} 1x{DAY}", code="2", pod="q"),
        {1602: FIRST, 1630: QUIET},
        ROLLED_OUT_AT_40,
    ),
    Story(
        "the first failure after a rollout",
        ended("backup", "500+1x38 stale")
        | ended("backup", "_x40 1+1x200", pod="q")
        | ended("backup", "_x70 1x200", code="2", pod="q"),
        {69: QUIET, 71: FIRST, 95: QUIET, 130: QUIET},
        ROLLED_OUT_AT_40,
    ),
    Story(
        "a new exporter meets all failing programs and is quiet",
        ended("backup", "_x45 0+1x90") | ended("backup", "_x45 1x90", code="2"),
        {46: QUIET, 60: QUIET, 100: QUIET, 106: QUIET},
        NEW_AT_40,
    ),
    Story(
        "one scrape that failed makes no failure the first",
        ended("backup", "5x79 stale 5x90") | ended("backup", "_x70 1x9 stale 1x90", code="2"),
        {75: FIRST, 92: QUIET, 94: QUIET, 95: QUIET, 96: QUIET},
        host("1x79 0 1x90", "-100000x79 stale -100000x90"),
    ),
)

SIGNALS = (
    *(
        Story(
            f"the very first {name}, born at 1, fires for a window and a little more",
            ended("app", "_x30 1x60", code=str(128 + number), signal=name),
            {29: QUIET, 31: crashed(name), 44: crashed(name), 47: QUIET},
        )
        for name, number in CRASH_SIGNALS.items()
    ),
    Story(
        "other signals are no crash",
        {
            series: values
            for name, number in OTHER_SIGNALS.items()
            for series, values in ended("app", "_x30 1x60", code=str(128 + number), signal=name).items()
        },
        {32: QUIET, 40: QUIET},
    ),
    Story(
        "a further segfault of a known series, of another user",
        ended("app", "1x30 2x60", code="139", signal="SIGSEGV")
        | ended("app", "1x100", code="139", signal="SIGSEGV", uid="7"),
        {29: QUIET, 32: crashed(), 60: QUIET},
    ),
    Story(
        "two crashes of two users are one alert",
        ended("app", "_x30 1x60", code="139", signal="SIGSEGV")
        | ended("app", "_x30 1x60", code="139", signal="SIGSEGV", uid="7"),
        {32: crashed()},
    ),
    Story(
        "an exit with 139 or 137 is no signal",
        ended("app", "_x30 1x60", code="139") | ended("app", "_x30 1x60", code="137"),
        {32: QUIET},
    ),
    Story(
        "a crash after the restart of the exporter fires, although its counter is lower than before",
        ended("app", "5x38 stale _x4 1x60", code="139", signal="SIGSEGV"),
        {42: QUIET, 46: crashed(), 70: QUIET},
        RESTARTED_AT_40,
    ),
    Story(
        "a late crash after the restart of the exporter fires, although its counter is what it was",
        ended("app", "1x38 stale _x11 1x60", code="139", signal="SIGSEGV"),
        {42: QUIET, 50: QUIET, 53: crashed(), 80: QUIET},
        RESTARTED_AT_40,
    ),
    Story(
        "a crash before and one after the restart of the exporter",
        ended("app", "_x35 1x3 stale _x2 1x60", code="139", signal="SIGSEGV"),
        {36: crashed(), 44: crashed(), 70: QUIET},
        RESTARTED_AT_40,
    ),
    Story(
        "a crash after a rollout fires",
        ended("app", "5x38 stale", code="139", signal="SIGSEGV")
        | ended("app", "_x44 1x60", code="139", signal="SIGSEGV", pod="q"),
        {42: QUIET, 46: crashed(), 70: QUIET},
        ROLLED_OUT_AT_40,
    ),
    Story(
        "a crash within the first minute of a new exporter fires",
        ended("app", "_x40 1x60", code="134", signal="SIGABRT"),
        {41: crashed("SIGABRT"), 70: QUIET},
        NEW_AT_40,
    ),
    Story(
        "a crash within the first minute of an exporter on a host whose clock is half a minute ahead fires",
        ended("app", "_x40 1x60", code="134", signal="SIGABRT"),
        {40: QUIET, 42: crashed("SIGABRT"), 54: crashed("SIGABRT"), 57: QUIET},
        host("_x40 1x2000", "_x40 2430x2000", "_x40 3x2000"),
    ),
    Story(
        "old crashes are not new because the clock of their host is a day ahead",
        ended("app", "_x40 50x60", code="134", signal="SIGABRT"),
        {42: QUIET, 50: QUIET},
        host("_x40 1x2000", "_x40 80000x2000", "_x40 3x2000"),
    ),
    Story(
        "a crash goes on firing through a scrape that fails",
        ended("app", "_x30 1x3 stale 1x60", code="139", signal="SIGSEGV"),
        {33: crashed(), 34: crashed(), 35: crashed(), 43: crashed(), 60: QUIET},
        host("1x33 0 1x60", "-100000x33 stale -100000x60"),
    ),
    Story(
        "old crashes are not new because nobody scraped for half an hour",
        ended("app", "5x9 stale _x29 5x60", code="139", signal="SIGSEGV"),
        {42: QUIET, 60: QUIET},
        UNSCRAPED_FROM_10_TO_40,
    ),
    Story(
        "the very first SIGKILL, born at 1",
        ended("app", "_x30 1x60", code="137", signal="SIGKILL"),
        {29: QUIET, 31: KILLED, 32: KILLED, 44: KILLED, 47: QUIET},
    ),
    Story(
        "a SIGKILL after the restart of the exporter, its counter as it was",
        ended("app", "1x38 stale _x11 1x60", code="137", signal="SIGKILL"),
        {42: QUIET, 53: KILLED, 80: QUIET},
        RESTARTED_AT_40,
    ),
    Story(
        "the very first OOM kills of a program, of two users, are an alert beside that of the SIGKILL",
        ended("app", "_x30 2x60", code="137", signal="SIGKILL")
        | oom_kills("app", "_x30 1x60")
        | oom_kills("app", "_x30 1x60", uid="7"),
        {29: QUIET, 31: KILLED | OUT_OF_MEMORY, 44: KILLED | OUT_OF_MEMORY, 47: QUIET},
    ),
    Story("an OOM kill, born at 1", oom_kills("app", "_x30 1x60"), {29: QUIET, 32: OUT_OF_MEMORY, 47: QUIET}),
    Story(
        "five core dumps of several programs and users on a node, born at their number",
        coredumps("x", "_x30 2x60") | coredumps("y", "_x31 2x60") | coredumps("y", "_x31 1x60", uid="7"),
        {29: QUIET, 30: QUIET, 32: DUMPS, 44: DUMPS, 47: QUIET},
    ),
    Story(
        "five core dumps, three before and two after the restart of the exporter",
        coredumps("x", "0x30 3x7 stale 0x2 2x60"),
        {38: QUIET, 44: DUMPS, 60: QUIET},
        RESTARTED_AT_40,
    ),
    Story("four core dumps fill no disk", coredumps("x", "_x30 4x60"), {32: QUIET}),
)


def crashing(numbers: Iterable[int], minute: int, times: int = 1) -> dict[str, str]:
    """Return the series of programs that crash at a minute: app-N N times as often as it says."""
    return {
        series: values
        for number in numbers
        for series, values in ended(
            f"app-{number}", f"_x{minute} {number * times}x100", code="139", signal="SIGSEGV"
        ).items()
    }


def crashes(*numbers: int) -> set[Fired]:
    """Return the alerts of these programs."""
    return {fired("ProcessCrashed", comm=f"app-{number}", signal="SIGSEGV") for number in numbers}


MANY = (
    Story(
        "three crashing programs are named", crashing([1, 2, 3], 30), {31: crashes(1, 2, 3), 40: crashes(1, 2, 3)}
    ),
    Story(
        "of five crashing programs the worst three are named, and one alert says how many more",
        crashing([1, 2, 3, 4, 5], 30),
        {31: crashes(3, 4, 5), 36: crashes(3, 4, 5) | MORE, 44: crashes(3, 4, 5) | MORE, 47: QUIET},
    ),
    Story(
        "what is named stays named, whatever else happens",
        crashing([1, 2, 3], 30) | crashing([4, 5, 6], 33, 10) | crashing([7, 8, 9], 36, 100),
        {
            31: crashes(1, 2, 3),
            34: crashes(1, 2, 3),
            41: crashes(1, 2, 3) | MORE,
            44: crashes(1, 2, 3) | MORE,
            46: crashes(7, 8, 9) | MORE,
            53: QUIET,
        },
    ),
    Story(
        "five programs that fail again and again, worst first",
        {
            series: values
            for number in (1, 2, 3, 4, 5)
            for series, values in ended(f"loop-{number}", f"_x20 {number}+{number}x100", code="1").items()
        },
        {
            25: QUIET,
            32: MORE,
            45: MORE | {fired("ProcessCrashLooping", comm=f"loop-{number}") for number in (3, 4, 5)},
        },
    ),
    Story(
        "a burst of 200 names that crash is four alerts",
        crashing(range(1, 201), 30),
        {33: crashes(198, 199, 200), 40: crashes(198, 199, 200) | MORE},
    ),
)


def within(where: str, series: Series) -> dict[str, str]:
    """Return series as an exporter with --group.by has them: of processes in a group.

    Args:
        where: The labels of the group, "" for none. Prometheus keeps them, empty ones too, and adds none of the
            target's (honor_labels).
        series: Those of programs.
    """
    return {name.replace('pod="p"', where or 'pod=""'): values for name, values in series.items()}


def shop(pod: str = "cart-0", container: str = "cart") -> str:
    """Return the labels of a pod's container."""
    return f'namespace="shop",pod="{pod}",container="{container}"'


_CART: dict[str, str | None] = {"namespace": "shop", "pod": "cart-0", "container": "cart"}
_SIDE: dict[str, str | None] = _CART | {"container": "proxy"}
_LOOPING = ended("daemon", "_x20 0+1x100", code="1")
GROUPS = (
    Story(
        "a crash loop in one pod is the pod's, and the same program in others is well",
        within(shop(), _LOOPING)
        | within(shop("cart-1"), ended("daemon", "0+100x120"))
        | within("", ended("daemon", "0+100x120")),
        {33: QUIET, 45: {fired("ProcessCrashLooping", comm="daemon", **_CART)}},
    ),
    Story(
        "a crash loop in a unit is the unit's",
        within('unit="backup.service"', _LOOPING),
        {45: {fired("ProcessCrashLooping", comm="daemon", unit="backup.service")}},
    ),
    Story(
        "a crash loop in a container without Kubernetes is the container's",
        within('container="3f2a90c1b7de"', _LOOPING),
        {45: {fired("ProcessCrashLooping", comm="daemon", container="3f2a90c1b7de")}},
    ),
    Story(
        "a program that fails in no group has the exporter's labels but its pod",
        within('pod="p",namespace="monitoring"', _LOOPING),
        {45: {fired("ProcessCrashLooping", comm="daemon", namespace="monitoring")}},
    ),
    Story(
        "two containers of a pod crash: two alerts of the pod, and one node that dumps core",
        within(shop(), ended("app", "_x30 2x60", code="139", signal="SIGSEGV") | coredumps("app", "_x30 2x60"))
        | within(
            shop(container="proxy"),
            ended("app", "_x30 3x60", code="139", signal="SIGSEGV") | coredumps("app", "_x30 3x60"),
        ),
        {
            29: QUIET,
            32: DUMPS | {fired("ProcessCrashed", comm="app", signal="SIGSEGV", **of) for of in (_CART, _SIDE)},
            47: QUIET,
        },
    ),
    Story(
        "a rollout of the exporter is quiet in pods too; a crash after it that leaves the counter higher is not",
        within(shop(), ended("app", "5x38 stale 9x60", code="139", signal="SIGSEGV")),
        {39: QUIET, 42: {fired("ProcessCrashed", comm="app", signal="SIGSEGV", **_CART)}, 56: QUIET},
        ROLLED_OUT_AT_40,
    ),
    Story(
        "a program that failed in a pod before fails there again, and in another pod for the first time",
        within(shop(), ended("backup", "0+1x300") | ended("backup", "_x50 1x99 2x100", code="2"))
        | within(shop("cart-1"), ended("backup", "0+1x300") | ended("backup", "_x150 1x100", code="2")),
        {152: {fired("ProcessFirstFailure", comm="backup", **(_CART | {"pod": "cart-1"}))}},
    ),
    Story(
        "the share that fails jumps in one pod, and not in all together",
        within(shop(), ended("job", "0+10x60 600+5x60") | ended("job", "_x60 0+5x60", code="1"))
        | within(shop("cart-1"), ended("job", "0+1000x120")),
        {58: QUIET, 80: {fired("ProcessFailureRatioJumped", comm="job", **_CART)}},
    ),
    Story(
        "of a program that crashes in two hundred pods three are named",
        {
            name: values
            for number in range(1, 201)
            for name, values in within(
                shop(f"cart-{number}"), ended("app", f"_x30 {number}x60", code="139", signal="SIGSEGV")
            ).items()
        },
        {
            40: MORE
            | {
                fired("ProcessCrashed", comm="app", signal="SIGSEGV", **(_CART | {"pod": f"cart-{number}"}))
                for number in (198, 199, 200)
            }
        },
    ),
)

_OF_EACH_KIND = 6
_BAD_HOUR = {
    **host("1x200", "0x29 1800x4 2100x4 2400x4 2700x4 3000x200", "3x80 70x100"),
    **events("fork", "0+600x60 36000+6000x100"),
    **events("exec", "0+600x200"),
    **unattributed("0+1000x200"),
    **task_exits("0+300x200", "0+600x200"),
    **reloaded("1x60 0x100"),
    **folded("0x80 1+1x100"),
    **{
        name: values
        for socket in ("connector", "taskstats", "sideband")
        for name, values in lost("0x80 1+1x100", socket=socket).items()
    },
    **coredumps("app", "0x80 9+1x100"),
    **{
        name: values
        for number in range(1, 1 + _OF_EACH_KIND)
        for series in (
            ended(f"loop-{number}", f"0+{number}x200", code="1"),
            ended(f"job-{number}", "0+50x200"),
            ended(f"job-{number}", f"_x60 0+{100 + 10 * number}x100", code="1"),
            ended(f"first-{number}", "0+9x200"),
            ended(f"first-{number}", f"_x82 {number}x100", code="1"),
            ended(f"crash-{number}", f"_x80 {number}+1x100", code="139", signal="SIGSEGV"),
            ended(f"kill-{number}", f"_x80 {100 * number}+1x100", code="137", signal="SIGKILL"),
            oom_kills(f"oom-{number}", f"_x80 {number}+1x100"),
        )
        for name, values in series.items()
    },
}
BAD_HOUR = Story("all goes wrong at once", {}, {}, _BAD_HOUR)
"""A node of which every alert fires that one that answers can have, of six programs each, at BAD_AT."""
BAD_AT = 90

STORIES = (*WHOLE_HOST, *EXPORTER, *BIRTHS, *FAILURES, *SIGNALS, *MANY, *GROUPS)
NOBODY_LEFT = Story("no exporter at all is an alert of its own", {}, {22: QUIET, 30: ABSENT}, host("1x9 stale"))
"""The one that nobody else may live beside."""

_ONCE = "0x26 300x10"
_TWICE = "0x26 600x10"
MEASURED = (
    HEALTHY
    | host("1x5000", "-100000x5000", "3x5000", pod="q")
    | events("fork", _ONCE)
    | events("fork", _ONCE, pod="q")
    | events("exec", _ONCE)
    | events("exec", _TWICE, pod="q")
    | events("exit", _ONCE)
    | events("exit", _TWICE, pod="q")
    | events("comm", _TWICE)
    | unattributed(_ONCE)
    | unattributed(_ONCE, pod="q")
    | task_exits(_ONCE, _TWICE)
    | task_exits(_TWICE, _TWICE, pod="q")
    | ended("new", "_x20 7x20")
    | ended("sh", _ONCE)
    | ended("sh", _ONCE, code="1", uid="7", pod="q")
    | ended("app", _ONCE, code="143", signal="SIGTERM")
    | ended("web", _TWICE, code="143", signal="SIGTERM", uid="7")
)
"""Series that rose or were born shortly before the minute MEASURED_AT, of two pods."""
MEASURED_AT = 30
_NODE = f"job='{JOB}',instance='a'"
RECORDED = {
    f"instance:proc_connector_forks:rate5m{{{_NODE}}}": 2,
    f"instance:proc_connector_execs:rate5m{{{_NODE}}}": 3,
    f"instance:proc_connector_exits:rate5m{{{_NODE}}}": 5,
    f"instance:proc_connector_nonzero_exits:rate5m{{{_NODE}}}": 4,
    f"instance:proc_connector_task_exits_missed:ratio_rate5m{{{_NODE}}}": 0.25,
    f"instance:proc_connector_unattributed:ratio_rate5m{{{_NODE}}}": 0.25,
    f"instance:proc_connector_events:rate5m{{{_NODE}}}": 10,
    **{
        f"instance_comm:proc_connector_exits:increase15m{{{_NODE},comm='{comm}'}}": ends
        for comm, ends in {"new": 7, "sh": 600, "app": 300, "web": 600}.items()
    },
    f"instance_comm_signal:proc_connector_nonzero_exits:increase15m{{{_NODE},comm='sh',signal=''}}": 300,
    f"instance_comm_signal:proc_connector_nonzero_exits:increase15m{{{_NODE},comm='app',signal='SIGTERM'}}": 300,
    f"instance_comm_signal:proc_connector_nonzero_exits:increase15m{{{_NODE},comm='web',signal='SIGTERM'}}": 600,
    f"instance_signal:proc_connector_nonzero_exits:increase15m{{{_NODE},signal='SIGTERM'}}": 900,
}
"""What is recorded of them for the dashboards, and nothing else under these names."""
